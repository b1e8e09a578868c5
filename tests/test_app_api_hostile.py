"""Clients that the API has to bear: bodies of nonsense, and connections that are cut half way through an answer."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message

from app import resources
from app.api import PREFIX, Api, live
from app.api.routes import ROUTES
from app.runs import Run
from tests.test_app_api import GREEDY, ONE, client, loaded, refused, steered, world  # noqa: F401

BODIES: dict[str, dict[str, Any]] = {
    "activations": {"text": "king", "by": "max", "weighted": True, "max_density": 0.5, "limit": 3, "model": ""},
    "steer": {
        "prompt": "king",
        "system": "Be kind.",
        "plain": False,
        "edits": [{"feature": 3, "strength": 1.0, "mode": "add"}],
        "positions": "answer",
        "sampling": {**GREEDY, "max_tokens": 2},
        "model": "",
    },
}
NONSENSE = {
    "null": None, "true": True, "empty": "", "word": "nonsense", "path": "../../etc/passwd", "zero byte": "a\0b", "half": "\ud800",
    "emoji": "👩‍👩‍👧\u202e", "long": "x" * 30_000, "minus": -1, "half a one": 0.5, "huge": 1e300, "not finite": float("inf"),
    "more than a float": 10**400, "list": [], "lists": [[[[]]]], "object": {}, "unknown": {"__class__": 1},
}  # fmt: skip


def places(body: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a body, as the keys that lead there."""
    yield ()
    for key, value in body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ():
        for rest in places(value):
            yield (key, *rest)


def put(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The body with something else in one place."""
    if not place:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[place[0]] = put(body[place[0]], place[1:], value)
    return copy


def test_the_bodies_that_are_spoilt_here_say_all_that_can_be_said():
    asked = {route.path.rsplit("/", 1)[-1]: route.body for route in ROUTES if route.body}
    assert asked.keys() == BODIES.keys()
    for name, schema in asked.items():
        assert BODIES[name].keys() == schema["properties"].keys() - {"messages"}


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize("path", BODIES)
def test_nonsense_anywhere_in_a_body_is_refused_in_words_and_takes_no_place(loaded, path, value):  # noqa: F811
    for place in places(BODIES[path]):
        sent = json.dumps(put(BODIES[path], place, NONSENSE[value]))
        answer = loaded.post(f"{ONE}/{path}", content=sent, headers={"Content-Type": "application/json"})
        if answer.status_code != 200:  # some of it makes sense in some places
            assert answer.status_code in (400, 422), (place, answer.text)
            assert set(answer.json()["error"]) == {"found", "expected", "do"}
        assert "\nevent: error" not in answer.text, (place, answer.text)
        assert answer.text.isascii()
    assert live.PLACES.taken == 0


@pytest.mark.parametrize("strength", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "99", '"1"', "true"])
def test_a_strength_that_is_no_number_of_the_mode_is_refused(loaded, strength):  # noqa: F811
    sent = f'{{"prompt": "king", "edits": [{{"feature": 3, "strength": {strength}}}]}}'
    answer = loaded.post(f"{ONE}/steer", content=sent, headers={"Content-Type": "application/json"})
    refused(answer, 400 if strength in ("NaN", "Infinity", "-Infinity") else 422)


class Line:
    """A connection to the API that is cut after a few events, in one of the ways in which a server tells of it.

    Args:
        way: "said" by a message, as older servers do; "broken" where sending fails.
    """

    def __init__(self, way: str, body: Any) -> None:
        self.way, self.sent, self.got = way, json.dumps(body).encode(), b""
        self.cut = False

    async def receive(self) -> Message:
        if self.sent:
            sent, self.sent = self.sent, b""
            return {"type": "http.request", "body": sent}
        while not self.cut:
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.cut and self.way == "broken":
            raise OSError("the connection is gone")
        self.got += message.get("body", b"")
        self.cut = self.got.count(b"event: piece") >= 2

    def call(self) -> None:
        """Ask, and be gone."""
        scope = {
            "type": "http", "method": "POST", "path": f"{ONE}/steer", "raw_path": b"", "query_string": b"", "root_path": "",
            "scheme": "http", "server": ("testserver", 80), "headers": [(b"content-type", b"application/json")],
            "asgi": {"version": "3.0", "spec_version": "2.4" if self.way == "broken" else "2.3"}, "http_version": "1.1",
        }  # fmt: skip
        asyncio.run(asyncio.wait_for(Api()(scope, self.receive, self.send), 60))


@pytest.mark.parametrize("way", ["said", "broken"])
def test_an_answer_that_is_cut_half_way_gives_the_model_back_as_it_was(loaded, way, monkeypatch):  # noqa: F811
    engine, runs = resources.engine("tiny"), []
    before = steered(loaded, edits=[{"feature": 3, "strength": 2}])[-1][1]
    asked = {"prompt": "king", "edits": [{"feature": 3, "strength": 2}], "sampling": {**GREEDY, "max_tokens": 400}}
    monkeypatch.setattr(live, "Run", lambda *given: runs.append(Run(*given)) or runs[-1])
    line = Line(way, asked)
    line.call()
    assert (runs[0].phase, runs[0].abandoned) == ("stopped", False)
    assert b"event: done" not in line.got
    assert live.PLACES.taken == 0
    until = time.monotonic() + 20
    while engine.live._inside and time.monotonic() < until:  # the step under way is taken
        time.sleep(0.01)
    assert not engine.live._inside
    model = engine._need().model
    assert not [name for name, part in model.hf.named_modules() if part._forward_hooks or part._forward_pre_hooks]
    after = steered(loaded, edits=[{"feature": 3, "strength": 2}])[-1][1]
    assert after["steered"] == before["steered"] != after["baseline"] == before["baseline"]


def test_a_fine_tune_is_one_of_the_cache_and_no_folder_of_the_server(loaded, tmp_path):  # noqa: F811
    for name in (str(tmp_path), "/etc", "../..", "nothing@1"):
        for route, rest in (("steer", {"prompt": "Hi"}), ("activations", {"text": "Hi"})):
            said = refused(loaded.post(f"{ONE}/{route}", json={"model": name, **rest}), 422)
            assert "There is no fine-tune" in said["found"]
            assert "/" not in said["expected"]


def test_a_damaged_direction_leaves_the_listing_whole(loaded, world):  # noqa: F811
    place = world.path / "directions"
    place.mkdir(exist_ok=True)
    (place / "bad.safetensors").write_bytes(b"no tensors")
    try:
        said = loaded.get(f"{PREFIX}/caches").json()["caches"]
    finally:
        (place / "bad.safetensors").unlink()
    assert [one["name"] for one in said] == ["tiny"]
    assert "bad" in said[0]["directions"]
