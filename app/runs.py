"""One question answered twice, decoded by a thread of its own while pages come and go.

A page only watches: whatever else is clicked meanwhile does not disturb the answers, and a run that nobody watches any more ends by itself.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from app.engine import Engine, Prompt
from app.jobs import explained
from app.turns import Ticket
from explorer.errors import ExplorerError, ModelError, SteeringError
from explorer.records import Edit, Sampling
from explorer.repetition import first_loop

PATIENCE = 3.0  # seconds without anybody watching
KEPT = 20  # runs that a session remembers
Phase = Literal["warming", "queued", "waiting", "live", "stopped", "done", "failed"]
Scores = dict[str, dict[str, float]]
"""Name of an answer ("baseline", "steered", or a control's) -> judge -> score."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier turn of a conversation: what was said, and what either model answered."""

    user: str
    baseline: str
    steered: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a run was asked; nothing else decides its answers.

    Args:
        turns: What was said before the prompt.
        shared: Both go on from the steered model's answers; else each goes on from its own.
        controls: Decode controls beside the steered answer (see `explorer.dosing.controls`).
        plain: Go on from the text as it stands, without the chat template.
        model: Name of the adapter that answers, merged into the cache's model; "" for that model itself.
    """

    prompt: str
    system: str
    edits: tuple[Edit, ...]
    positions: str
    sampling: Sampling
    turns: tuple[Turn, ...] = ()
    shared: bool = False
    controls: bool = False
    plain: bool = False
    model: str = ""

    def same_baseline(self, other: "Question") -> bool:
        """Whether the unsteered answers are the same."""
        return self._baseline() == other._baseline()

    def _baseline(self) -> tuple[object, ...]:
        said = self.messages(True, steered=False), self.messages(False, steered=False)
        return (self.model, *said, self.plain, self.sampling)

    def messages(self, chat: bool, *, steered: bool = True) -> Prompt:
        """A conversation, or plain text for a model that takes none.

        Args:
            steered: As the steered model remembers it; else as the baseline does.
        """
        own = steered or self.shared
        said = [(turn.user, turn.steered if own else turn.baseline) for turn in self.turns]
        if self.plain or not chat:
            return "\n\n".join(filter(None, (self.system, *(text for turn in said for text in turn), self.prompt)))
        roles = [{"role": role, "content": text} for turn in said for role, text in zip(_ROLES, turn, strict=True)]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *roles, {"role": "user", "content": self.prompt}]

    def followed_by(self, prompt: str, baseline: str, steered: str) -> "Question":
        """The next question of the conversation, after these answers."""
        return replace(self, prompt=prompt, turns=(*self.turns, Turn(self.prompt, baseline, steered)))

    def back_to(self, turn: int) -> "Question":
        """The conversation as it was when turn `turn` (from 0) was asked, to ask it again or otherwise."""
        asked = self.turns[turn].user if turn < len(self.turns) else self.prompt
        return replace(self, prompt=asked, turns=self.turns[:turn])


_ROLES = ("user", "assistant")


@dataclass(slots=True)
class Answer:
    """An answer so far.

    Args:
        pieces: Its text, a piece a token.
        ended: Whether nothing more will come.
        looped: Whether it was cut because it repeats itself from there on.
        most: How many tokens it may have; what comes after them is the rest of the last one.
    """

    pieces: list[str] = field(default_factory=list)
    ended: bool = False
    looped: bool = False
    most: int = 10**9

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def take(self, piece: str | None) -> None:
        """One more piece, or the end."""
        if self.ended:
            return
        if piece is None:
            self.ended = True
            while self.pieces and not self.pieces[-1]:  # the token that ends an answer has no text
                self.pieces.pop()
            return
        if len(self.pieces) >= self.most:
            self.pieces[-1] += piece
            return
        self.pieces.append(piece)
        if (at := first_loop(self.pieces)) is not None:
            del self.pieces[at:]
            self.ended = self.looped = True


@dataclass(slots=True)
class Other:
    """The answer of a control: a name for people, its kind (random, flipped, feature), and what it says."""

    name: str
    kind: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Record:
    """A run as it is kept: all that is needed to compare, copy or repeat it.

    Args:
        key: Names the run.
        when: ISO time of its beginning.
        phase: How it ended: done, stopped or failed.
        others: Name of a control -> its answer.
        looped: Whether the steered answer was cut because it repeated itself.
        model, model_fingerprint: The cache's own model, which an adapter of `question.model` was merged into.
        adapter_fingerprint: That of the adapter; "" without one.
    """

    key: str
    when: str
    question: Question
    phase: Phase
    baseline: str
    steered: str
    others: dict[str, str]
    looped: bool
    scores: Scores | None
    seconds: float
    model: str
    model_fingerprint: str
    sae_fingerprint: str
    adapter_fingerprint: str = ""


class Run:
    """A question on its way to two answers, or more with controls.

    Args:
        engine: Who answers.
        question: What is asked.
        before: The run in view until now: its texts stay until new ones come, and its baseline is taken over if it is the same.
    """

    def __init__(self, engine: Engine, question: Question, before: "Run | None" = None) -> None:
        self.engine, self.question = engine, question
        self.baseline, self.steered = (Answer(most=question.sampling.max_tokens) for _ in range(2))
        self.others: list[Other] = []
        self.scores: Scores | None = None
        self.key, self.began = uuid4().hex, datetime.now(UTC)
        self.old_baseline: Sequence[str] = ()
        self.old_steered: Sequence[str] = ()
        self.reused = False
        self.abandoned = False  # ended by itself: nobody looked
        self.error: ExplorerError | None = None
        self.first: float | None = None  # seconds to the first token
        self.seconds = 0.0  # of decoding
        self._end: Phase | None = None
        self._over, self._judged = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._ticket = Ticket(question.sampling.max_tokens)
        self._queued = False
        self._watched = time.monotonic()
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: "Run") -> None:
        before.stop()
        with before._lock:
            if before.baseline.ended and before.question.same_baseline(self.question):
                self.baseline, self.reused = before.baseline, True
            self.old_baseline = before.baseline.pieces or before.old_baseline
            self.old_steered = before.steered.pieces or before.old_steered

    def start(self) -> "Run":
        """Begin to decode; this run."""
        threading.Thread(target=self._work, name="steer-run", daemon=True).start()
        return self

    def again(self) -> "Run":
        """The same question once more, begun; for a run that was abandoned and is looked at again."""
        return Run(self.engine, self.question, self).start()

    def stop(self) -> None:
        """End at the next token; what is there stays."""
        self._finish("stopped")

    def watch(self) -> None:
        """Say that somebody still looks."""
        self._watched = time.monotonic()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._over.wait(timeout)

    @property
    def over(self) -> bool:
        return self._end is not None

    @property
    def judging(self) -> bool:
        """Whether it has ended and its scores are still to come."""
        return self.over and not self._judged.is_set()

    def wait_scores(self, timeout: float | None = None) -> bool:
        """Wait until the judges are through, well or not; whether they are."""
        return self._judged.wait(timeout)

    @property
    def ahead(self) -> tuple[int, float]:
        """How many runs go before this one, and for how many seconds at most."""
        return self.engine.live.ahead(self._ticket)

    def record(self) -> Record:
        """This run as it is now, to be kept."""
        manifest = self.engine.cache.manifest
        with self._lock:
            return Record(
                self.key,
                self.began.isoformat(timespec="seconds"),
                self.question,
                self.phase,
                self.baseline.text,
                self.steered.text,
                {other.name: other.answer.text for other in self.others},
                self.steered.looped,
                self.scores,
                self.seconds,
                manifest.model,
                manifest.model_fingerprint,
                manifest.sae_fingerprint,
                self.engine.adapter_fingerprint,
            )

    @property
    def phase(self) -> Phase:
        """What to tell people."""
        if self._end:
            return self._end
        if self.steered.pieces or (self.baseline.pieces and not self.reused):
            return "live"
        if self.engine.state != "ready":
            return "warming"
        return "queued" if self._queued else "waiting"

    @property
    def version(self) -> tuple[object, ...]:
        """Changes whenever there is something new to see."""
        lengths = [len(answer.pieces) for answer in self._answers()]
        return (self.phase, *lengths, self.steered.ended, self.scores is not None, round(self.ahead[1]))

    def _answers(self) -> list[Answer]:
        return [self.baseline, self.steered, *(other.answer for other in self.others)]

    def _should_stop(self) -> bool:
        if time.monotonic() - self._watched > PATIENCE:
            self._finish("stopped", abandoned=True)
        return self.over

    def _finish(self, phase: Phase, error: ExplorerError | None = None, *, abandoned: bool = False) -> None:
        with self._lock:
            if self._end is None:
                self._end, self.error, self.abandoned = phase, error, abandoned
        self._over.set()

    def _work(self) -> None:
        try:
            self._decode()
        except ExplorerError as error:
            self._finish("failed", error)
        except Exception as error:  # a thread must leave a sentence behind, whatever went wrong
            _log.exception("An answer broke off")
            self._finish("failed", explained(error, "The answer"))
        finally:
            self.engine.live.leave(self._ticket)
        try:
            self._judge()
        except Exception:  # scores are an extra: a run is whole without them
            _log.exception("The answers could not be judged")
        finally:
            self._judged.set()

    def _decode(self) -> None:
        question = self.question
        if not question.prompt.strip():
            raise SteeringError("There is no prompt", do="Write one, or take a ready question")
        self.engine.start()
        while not self.engine.wait(0.2) and self.engine.state == "loading":
            if self._should_stop():
                return
        if self.engine.state != "ready":
            raise self.engine.error or ModelError("The model was let go", do="Reload the page")
        more = self._more()
        self._queued = True
        if not self.engine.live.enter(self._ticket, self._should_stop):
            return
        self._queued = False
        began = time.perf_counter()
        steps = self.engine.stream(
            question.messages(self.engine.has_template),
            question.edits,
            question.sampling,
            positions=question.positions,
            baseline=not self.reused,
            should_stop=self._should_stop,
            **more,
        )
        try:
            for step in steps:
                self.engine.live.stepped(self._ticket)
                self.seconds = time.perf_counter() - began
                if self.first is None:
                    self.first = self.seconds
                if not self._take(step) or all(answer.ended for answer in self._answers()):
                    break
        finally:
            if close := getattr(steps, "close", None):
                close()
        if not self.over:
            self._take([None] * (len(self.others) + 2))
        self._finish("done")

    def _more(self) -> dict[str, Any]:
        """What `Engine.stream` is told beyond the question itself: another history for the baseline, and the controls."""
        more: dict[str, Any] = {}
        remembered = self.question.messages(self.engine.has_template, steered=False)
        if remembered != self.question.messages(self.engine.has_template):
            more["baseline_messages"] = remembered
        if self.question.controls and self.question.edits:
            found = self.engine.controls(self.question.edits, seed=self.question.sampling.seed)
            more["others"] = [control.edits for control in found]
            more["extra_directions"] = {name: d for control in found for name, d in control.directions.items()}
            most = self.question.sampling.max_tokens
            self.others = [Other(control.name, control.kind, Answer(most=most)) for control in found]
        return more

    def _take(self, step: list[str | None]) -> bool:
        """Keep what has come, unless the run was stopped meanwhile."""
        with self._lock:
            if self.over:
                return False
            fresh = self._answers()[-len(step) :]  # a baseline that was taken over is not decoded
            for answer, piece in zip(fresh, step, strict=True):
                answer.take(piece)
            return True

    def _judge(self) -> None:
        named = {"baseline": self.baseline, "steered": self.steered, **{o.name: o.answer for o in self.others}}
        texts = {name: answer.text for name, answer in named.items() if answer.text.strip()}
        if self.error or not texts:
            return
        found = self.engine.score(list(texts.values()), self.question.prompt)
        if found:
            self.scores = {name: {judge: s[at] for judge, s in found.items()} for at, name in enumerate(texts)}


class History:
    """The last runs of a session, the newest first."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def keep(self, record: Record) -> None:
        """Keep a run, or what has become of it since."""
        self._records[record.key] = record
        for old in list(self._records)[:-KEPT]:
            del self._records[old]

    def __iter__(self) -> Iterator[Record]:
        return reversed(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: str) -> Record:
        return self._records[key]
