"""What asks a model: a text read, what words mean, a question answered twice. All wait for their turn behind the app's own runs.

Nothing here holds the server up: reading is a job of the engine, an answer is a run in a thread of its own, and both are
watched from the event loop. A connection that is closed stops them at the next token.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from app import resources
from app.api import asking, records
from app.api.reading import Asked, found, opened
from app.api.refusing import Refused, body, refusal
from app.runs import Question, Run
from explorer.errors import CacheError
from explorer.inspecting import rank

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from app.engine import Engine
    from app.jobs import Job
    from explorer.cache import Cache

MOST_AT_ONCE = 8
"""How many requests may wait for the model or use it; further ones are told to come again."""
POLL = 0.03  # seconds between two looks at a run


def ready(asked: Asked) -> "tuple[Cache, Engine]":
    """The cache of the path and the engine that the body names, loaded.

    Raises:
        Refused: 404 without the cache; 422 without the fine-tune; 503 while the model is loading, which has begun.
    """
    cache = opened(asked)
    engine = resources.engine(asked.path["cache"]).on(asked.body["model"])
    state, error = engine.state, engine.error
    if state != "ready":
        engine.start()
    again = {"Retry-After": "3"}
    if state == "failed" and error:
        raise Refused(503, error.found, expected=error.expected, do=error.do, headers=again)
    if state != "ready":
        raise Refused(503, "The model is being loaded", expected="a loaded model", do="Ask again", headers=again)
    return cache, engine


class _Places:
    """The places at the model that the API may take; they are taken and left in the event loop alone."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self) -> None:
        """Take one.

        Raises:
            Refused: 503 where none is left.
        """
        if self.taken >= self.most:
            raise Refused(
                503, f"{self.taken} requests wait for the model", do="Ask again in a while", headers={"Retry-After": "5"}
            )  # fmt: skip
        self.taken += 1

    def leave(self) -> None:
        """Give it back."""
        self.taken -= 1


PLACES = _Places(MOST_AT_ONCE)


async def activations(asked: Asked, request: "Request") -> Any:
    """Which features a text fires; a job of the engine, which gives way to live runs."""
    said = asking.to_read(asked.body)
    cache, engine = await asyncio.to_thread(ready, asked)
    read = await _done(engine, lambda job: engine.inspect(said), request)
    return await asyncio.to_thread(_fired, asked, cache, read)


async def search(asked: Asked, request: "Request") -> Any:
    """The features that fit words best, or that are near their meaning, which the sentence embedder is asked for."""
    query, near = asked.query["q"], None
    if asked.query["find"] == "meaning":
        cache = await asyncio.to_thread(opened, asked)
        if not query.strip():
            raise Refused(422, "q has no words", expected="what is to be found by meaning", do="Send some")
        names = await asyncio.to_thread(lambda: resources.labels().texts(cache.manifest.sae_fingerprint))
        engine = resources.engine(asked.path["cache"])
        try:
            near = await _done(engine, lambda job: engine.nearness(query, names), request)
        except CacheError as error:  # a cache may come without its vectors
            raise Refused(404, error.found, expected=error.expected, do=error.do) from error
    return await asyncio.to_thread(found, asked, query, "match", nearness=near)


async def _done(engine: "Engine", work: "Callable[[Job], Any]", request: "Request") -> Any:
    """What a job of the engine comes to, watched from the event loop; it ends with the connection.

    Raises:
        Refused: 503 where no place is left, or the job was stopped.
    """
    PLACES.take()
    try:
        job = engine.job(work)
        try:
            while not job.over:
                job.watch()
                await asyncio.sleep(POLL)
                if await request.is_disconnected():
                    raise Refused(499, "The connection was closed")
        finally:
            job.stop()
    finally:
        PLACES.leave()
    if job.error:
        raise job.error
    if job.result is None:
        raise Refused(503, "The reading was stopped", do="Ask again")
    return job.result


def _fired(asked: Asked, cache: "Cache", found: Any) -> Any:
    said, titles = asked.body, cache.table.column("title")
    names = resources.labels().texts(cache.manifest.sae_fingerprint)
    ranked = rank(
        found, cache, by=said["by"], weighted=said["weighted"], limit=int(said["limit"]), max_density=said["max_density"]
    )  # fmt: skip
    keys = ("feature", "max", "mean", "total", "share", "tokens", "rarity", "score")
    return {
        "tokens": records.token_records(cache, found.tokens),
        "scored": [bool(counts) for counts in found.scored],
        "features": [
            {
                **{key: getattr(one, key) for key in keys},
                "label": names.get(one.feature, ""),
                "title": titles[one.feature].as_py() or "",
                "values": list(found.of(one.feature)),
            }
            for one in ranked
        ],
    }


async def steer(asked: Asked, request: "Request") -> "Stream":
    """A run like one of the Steer page, as server-sent events."""
    cache, engine = await asyncio.to_thread(ready, asked)
    question = asking.question(asked.body, cache)
    await asyncio.to_thread(_possible, question, engine)
    PLACES.take()
    return Stream(Run(engine, question), request)


class Stream(StreamingResponse):
    """A run as server-sent events; however the connection ends, the run ends with it and gives its place back."""

    def __init__(self, run: Run, request: "Request") -> None:
        head = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_events(run, request), media_type="text/event-stream", headers=head)
        self.run = run

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is left to be told
        finally:
            self.run.stop()
            PLACES.leave()


async def _events(run: Run, request: "Request") -> AsyncIterator[bytes]:
    """The run as it comes."""
    sent, said = 0, None
    try:
        run.start()
        while True:
            over = run.over
            run.watch()
            for piece in _pieces(run, sent, over):
                yield _event("piece", piece)
                sent += 1
            if over:
                break
            if run.phase in ("warming", "queued") and (waits := _waits(run)) != said:
                said = waits
                yield _event("waiting", waits)
            await asyncio.sleep(POLL)
            if await request.is_disconnected():
                return
        if run.error:
            yield _event("error", body(run.error))
            return
        answers = {
            name: {"text": answer.text, "looped": answer.looped}
            for name, answer in (("baseline", run.baseline), ("steered", run.steered))
        }
        yield _event("done", {"phase": run.phase, **answers, "seconds": run.seconds})
        while run.judging and not await request.is_disconnected():
            await asyncio.sleep(POLL)
        if run.scores:
            yield _event("scores", run.scores)
    except Exception as error:  # the head has been sent: what is left is to say it in words
        yield _event("error", body(refusal(error)))


def _pieces(run: Run, sent: int, over: bool) -> list[dict[str, Any]]:
    """The steps that both answers have taken since.

    The last one of the longest answer comes at the end: what completes its last character is added to it.
    """
    baseline, steered = list(run.baseline.pieces), list(run.steered.pieces)
    ready = max(len(baseline), len(steered))
    if not over:
        lengths = [len(kept) for kept, answer in ((baseline, run.baseline), (steered, run.steered)) if not answer.ended]
        ready = min([ready, run.question.sampling.max_tokens - 1, *lengths])
    return [
        {"step": at, "baseline": _at(baseline, at), "steered": _at(steered, at)} for at in range(sent, max(sent, ready))
    ]


def _at(pieces: list[str], step: int) -> str | None:
    return pieces[step] if step < len(pieces) else None


def _waits(run: Run) -> dict[str, Any]:
    ahead, seconds = run.ahead
    return {"phase": run.phase, "ahead": ahead, "seconds": round(seconds, 1)}


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(records.plain(data), allow_nan=False)}\n\n".encode("ascii")


def _possible(question: Question, engine: "Engine") -> None:
    """Whether the edits name what is here, before anything is promised.

    Raises:
        Refused: 422 for a direction that is not.
    """
    asked = {edit.direction for edit in question.edits if edit.direction}
    if missing := asked - engine.directions().keys() if asked else set():
        raise Refused(
            422, f"There is no direction {sorted(missing)[0]}", expected=", ".join(engine.directions()), do="Use one of these"
        )  # fmt: skip
