"""Dose strips and sweeps of the app: decoded once in the background, kept, and asked again when anything they depend on changes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import doses
from app.engine import Engine
from app.sweeps import Sweep
from explorer import directions
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.model import DTYPE_VARIABLE
from explorer.records import Edit, Sampling
from tests.helpers_steer import tiny_world

SHORT = Sampling(max_tokens=4)


class Panel:
    """A judge of lengths."""

    asked = 0

    def score(self, names: Sequence[str], texts: Sequence[str], prompts: object = None) -> dict[str, list[float]]:
        self.asked += 1
        return {name: [float(len(text)) for text in texts] for name in names}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(tiny_world(tmp_path_factory.mktemp("world"), layers=2))


@pytest.fixture
def engine(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(DTYPE_VARIABLE, "float32")  # so that company in a batch changes no text
    monkeypatch.setattr(doses, "SAMPLING", SHORT)
    monkeypatch.setattr(doses, "STRENGTHS", (-1.0, 0.0, 2.0))
    made, panel = Engine(cache), Panel()
    made.warmup = False
    monkeypatch.setattr(made, "panel", lambda: panel)
    monkeypatch.setattr(made, "judges", lambda: ("length",))
    return made


def test_every_slider_has_a_strip_of_every_question_at_every_strength_and_it_is_there_at_once_the_second_time(
    engine: Engine,
):
    edits = (Edit(3), Edit(6, -0.5))
    assert engine.dosed(edits) == {}
    job = engine.dose(edits)
    assert job.wait(60)
    assert (job.phase, job.error, job.progress) == ("done", None, 1.0)
    asked = doses.strips(edits, "answer", ("length",))
    assert set(job.result) == set(asked) == {"3", "6"}
    for target, one in asked.items():
        got = {(cell.strength, cell.prompt) for cell in job.result[target]}
        assert got == {(s, q) for s in one.strengths for q in one.questions}
        assert all(cell.scores["length"] == len(cell.text) for cell in job.result[target])
    assert engine.dosed(edits) == job.result


def test_a_strip_moves_its_own_slider_and_holds_the_others_where_they_are(engine: Engine):
    job = engine.dose((Edit(3, 0.7), Edit(6, -0.5)))
    assert job.wait(60)
    for target, moved in {
        "3": lambda s: (Edit(3, s), Edit(6, -0.5)),
        "6": lambda s: (Edit(3, 0.7), Edit(6, s)),
    }.items():
        assert {cell.edits for cell in job.result[target]} == {moved(s) for s in (-1.0, 0.0, 2.0)}
        for cell in job.result[target]:
            chat = [{"role": "user", "content": cell.prompt}] if engine.has_template else cell.prompt
            [alone] = engine.batch([(chat, moved(cell.strength))], replace(SHORT, seed=cell.seed))
            assert cell.text == alone.strip()  # what a run with the sliders there says


def test_a_slider_keeps_its_strip_wherever_it_stands_and_the_others_lose_theirs(engine: Engine):
    assert engine.dose((Edit(3, 0.7), Edit(6, -0.5))).wait(60)
    assert set(engine.dosed((Edit(3, 2.5), Edit(6, -0.5)))) == {"3"}
    assert engine.dosed((Edit(3, 2.5), Edit(6, 1.0))) == {}
    assert engine.dosed((Edit(3, 0.7), Edit(6, -0.5)), "all") == {}


def test_strips_that_are_whole_are_kept_when_the_job_is_cancelled(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    kept, write = [], doses.save

    def save(name: str, cells: list) -> None:
        write(name, cells)
        kept.append(name)
        job.stop()

    monkeypatch.setattr(doses, "save", save)
    job = engine.dose((Edit(3), Edit(6)))
    assert job.wait(60)
    assert (job.phase, job.result, len(kept)) == ("stopped", None, 1)
    assert set(engine.dosed((Edit(3), Edit(6)))) == {"3"}


def test_a_strip_spans_the_range_of_its_own_slider_and_only_what_has_a_strength_has_one(engine: Engine):
    add, clamp, ablate = Edit(3), Edit(4, 1.0, "clamp"), Edit(5, mode="ablate")
    asked = doses.strips((add, clamp, ablate), "answer", ())
    assert set(asked) == {"3", "4"}
    assert min(asked["3"].strengths) == -1.0
    assert min(asked["4"].strengths) == 0


def test_what_is_kept_belongs_to_what_was_asked_and_to_the_directions_and_model_it_was_asked_of(
    engine: Engine, cache: Cache
):
    def named(edits: tuple[Edit, ...], positions: str = "answer") -> str:
        return doses.key(engine, doses.strips(edits, positions, ("length",))[edits[0].target])

    plain = named((Edit(3),))
    assert plain == named((Edit(3),))
    others = {named((Edit(4),)), named((Edit(3), Edit(4))), named((Edit(3),), "all"), named((Edit(3, mode="clamp"),))}
    assert len(others | {plain}) == 5
    vector = np.ones(32, np.float32)
    directions.save(cache, Direction("north", "North", "blocks.1.hook_resid_post", vector))
    before = named((Edit(direction="north"),))
    directions.save(cache, Direction("north", "North", "blocks.1.hook_resid_post", -vector))
    assert named((Edit(direction="north"),)) != before


def test_a_sweep_of_features_has_every_push_at_every_strength(engine: Engine):
    sweep = Sweep("features", (), (2, 3), (0.0, 1.0), ("Who?", "Why?"), sampling=SHORT)
    job = engine.grid(sweep)
    assert job.wait(60)
    assert job.phase == "done", job.error
    assert len(job.result) == sweep.answers
    pushed = {(cell.edits[0].feature, cell.strength) for cell in job.result if cell.edits}
    assert {(2, 1.0), (3, 1.0)} <= pushed


def test_a_stopped_sweep_is_not_kept(engine: Engine):
    sweep = Sweep("features", (), tuple(range(6, 16)), (1.0, 2.0), ("Who?",), sampling=Sampling(max_tokens=200))
    job = engine.grid(sweep)
    job.stop()
    assert job.wait(60)
    assert (job.phase, job.result) == ("stopped", None)
    assert not list(doses.folder().glob("*"))


def test_a_broken_file_is_asked_anew_and_the_oldest_make_room(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doses, "KEPT", 2)
    for name in ("a", "b", "c"):
        doses.save(name, [])
    assert len(list(doses.folder().glob("*.json"))) == 2
    assert doses.load("c") == []
    (doses.folder() / "c.json").write_text('[{"strength": 1')
    assert doses.load("c") is None
    (doses.folder() / "c.json").write_text('[{"unknown": 1}]')
    assert doses.load("c") is None
