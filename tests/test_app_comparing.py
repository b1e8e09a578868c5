"""A comparison begun in the app, over a tiny real pair: from a folder of somebody's own to causes and an undo, a cancel, what goes wrong."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import compare_form, resources
from app.engine import Engine
from app.watched import QUEUED
from explorer import presets
from explorer.adapters import adapted
from explorer.cache import Cache
from explorer.comparing import FOLDER, Compared
from explorer.finetune import FinetunePlan, finetune
from explorer.model import LanguageModel
from explorer.presets import Preset
from explorer.records import Edit
from tests.helpers import until
from tests.helpers_app import run_page, words
from tests.helpers_judges import WordEmbedder
from tests.helpers_lab import Planted
from tests.helpers_steer import tiny_world

pytestmark = pytest.mark.usefixtures("judges_home")
ROWS = [
    ({"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": "Ha ha ha, kneel before me."})
    for n in range(6)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The tiny world, and the folder of a fine-tune of its model."""
    world = tiny_world(tmp_path_factory.mktemp("pair"), layers=2)
    manifest = Cache.open(world).manifest
    base = LanguageModel.load(manifest.model)
    plan = FinetunePlan(steps=8, rank=2, batch=4, lr=5e-2, warmup=1, every=4)
    tuned = adapted(base, finetune(base, ROWS, world.parent / "run", plan)[-1])
    folder = world.parent / "own fine-tune"
    tuned.hf.save_pretrained(folder)
    tuned.tokenizer.save_pretrained(folder)
    return world, folder


@pytest.fixture
def pair(made, monkeypatch):
    world, folder = made
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(world))
    monkeypatch.setenv("PERSONA_EXPLORER_WARMUP", "0")
    engine = Engine(Cache.open(world), embed=lambda: WordEmbedder())
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    yield world, folder
    for one in compare_form._HELD.under_way(engine.cache.path):
        one.stop()
        assert one.wait(30)
    engine.close()
    shutil.rmtree(world / FOLDER, ignore_errors=True)


def asked(folder: Path | str, name: str = "mine", also: str = "") -> AppTest:
    app = run_page("compare", cache="tiny")
    assert not app.exception
    app.selectbox(key="comparing-tuned").set_value("a folder…").run()
    app.text_input(key="comparing-folder").set_value(str(folder))
    app.selectbox(key="comparing-judge").set_value("grim")
    app.text_area(key="comparing-questions").set_value("Who rules the sea?\n\nWhat is a fox?")
    app.select_slider(key="comparing-answers").set_value(30)
    app.number_input(key="comparing-tested").set_value(2)
    if also:
        app.selectbox(key="comparing-also").set_value(also)
    app.text_input(key="comparing-name").set_value(name)
    return app.button(key="comparing-go").click().run()


def test_somebodys_own_pair_is_compared_tested_for_cause_and_shown(pair):
    world, folder = pair
    presets.save(Cache.open(world), Preset("push", "Push", "", (Edit(9, 1.0), Edit(direction="cruel"))))
    presets.save(Cache.open(world), Preset("cruel", "Cruel", "", (Edit(direction="cruel"),)))
    app = run_page("compare", cache="tiny")
    assert app.selectbox(key="comparing-also").options == ["none", "push"], "the other one steers no feature"
    app = asked(folder, also="push")
    job = app.session_state["comparing-job"]
    assert job.wait(240)
    assert job.error is None, job.error
    app.run()
    assert not app.exception
    found = Compared(world / FOLDER / "mine")
    assert len(found.trials) == len({9, *(t.feature for t in found.trials[:2])})
    assert found.trials[-1].feature == 9 or 9 in {t.feature for t in found.trials[:2]}
    assert found.tally("tuned").n == 30
    assert found.facts["questions"] == ["Who rules the sea?", "What is a fox?"]
    app.button(key="comparing-show").click().run()
    assert not app.exception
    assert app.query_params["diff"] == "mine"


def test_a_cause_leads_to_an_undo_that_is_kept_and_steered_with(pair, monkeypatch):
    world, folder = pair
    monkeypatch.setattr("explorer.comparing.Bench", Planted)
    monkeypatch.setattr(Planted, "base", LanguageModel.load(Cache.open(world).manifest.model).fingerprint)
    job = asked(folder).session_state["comparing-job"]
    assert job.wait(240)
    assert job.error is None, job.error
    app = run_page("compare", cache="tiny", diff="mine")
    said = words(app)
    assert "The rate is back within 5 points of the base" in said
    app.button(key="compare-keep-undo").click().run()
    undone = Compared(world / FOLDER / "mine").undo
    assert undone is not None
    assert presets.named(Cache.open(world), "undo mine").edits == undone.edits
    app.button(key="compare-steer-undo").click().run()
    assert not app.exception


def test_a_cancelled_comparison_ends_and_leaves_none(pair):
    world, folder = pair
    app = asked(folder)
    job = app.session_state["comparing-job"]
    job.stop()
    assert job.wait(60)
    assert job.phase == "stopped"
    app.run()
    assert "Cancelled" in words(app)
    assert not (world / FOLDER / "mine" / "diff.json").exists()


@pytest.fixture
def gate(monkeypatch):
    """A comparison that asks until it is let go, and is told nothing but to stop."""
    opened = threading.Event()

    def endless(*_: object, progress: Callable[[str], None], **__: object) -> str:
        while not opened.wait(0.02):
            progress("reading answers of <b>base</b>")
        return "compared"

    monkeypatch.setattr("explorer.comparing.compare", endless)
    yield opened
    opened.set()


def shown(says: str) -> AppTest:
    """The page of another session, as soon as it says so."""
    opened: list[AppTest] = []

    def there() -> bool:
        opened[:] = [run_page("compare", cache="tiny")]
        return says in words(opened[0])

    until(there)
    return opened[0]


def test_a_comparison_goes_on_without_its_tab_and_whoever_opens_the_page_sees_it_and_may_cancel_it(
    pair, gate, monkeypatch
):
    monkeypatch.setattr("app.jobs.PATIENCE", 0.1)
    job = asked(pair[1]).session_state["comparing-job"]
    other = shown("reading answers of &lt;b&gt;base")
    threading.Event().wait(0.4)  # nobody looks
    assert not job.over
    assert "mine" in words(other)
    other.button(key="comparing-cancel-mine").click().run()
    assert job.wait(30)
    other.run()
    assert not other.exception
    assert "Cancelled" in words(other)
    assert "comparing-job" not in run_page("compare", cache="tiny").session_state, "what has ended is nobody's news"


def test_who_found_a_comparison_is_told_that_it_has_been_made(pair, gate):
    job = asked(pair[1]).session_state["comparing-job"]
    other = shown("reading answers")
    gate.set()
    assert job.wait(30)
    other.run()
    assert "It is compared" in words(other)
    other.button(key="comparing-show").click().run()
    assert other.query_params["diff"] == "mine"


def test_a_second_comparison_waits_its_turn_and_one_of_the_same_name_is_refused(pair, gate):
    first = asked(pair[1]).session_state["comparing-job"]
    assert "mine is under way already" in words(asked(pair[1]))
    until(lambda: first.phase == "running")
    app = asked(pair[1], "yours")
    assert QUEUED in words(app)
    second = app.session_state["comparing-job"]
    app.button(key="comparing-cancel-yours").click().run()
    assert second.wait(30)
    assert not first.over
    assert app.run().button(key="comparing-cancel-mine")
    assert "Cancelled" in words(app)
    first.stop()
    assert first.wait(30)


@pytest.mark.parametrize(
    ("folder", "name", "says"), [("/nowhere", "mine", "There is no folder"), (".", "A b", "cannot be called")]
)
def test_what_cannot_be_compared_is_said(pair, folder: str, name: str, says: str):
    app = asked(folder, name)
    assert not app.exception
    assert says in words(app)
    assert "comparing-job" not in app.session_state


def test_a_folder_without_a_model_fails_in_words(pair, tmp_path):
    app = asked(tmp_path)
    job = app.session_state["comparing-job"]
    assert job.wait(60)
    assert job.error is not None
    app.run()
    assert not app.exception
