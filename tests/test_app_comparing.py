"""A comparison begun in the app, over a tiny real pair: from a folder of somebody's own to causes and an undo, a cancel, what goes wrong."""

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import resources
from app.engine import Engine
from explorer import presets
from explorer.adapters import adapted
from explorer.cache import Cache
from explorer.comparing import FOLDER, Compared
from explorer.finetune import FinetunePlan, finetune
from explorer.model import LanguageModel
from explorer.presets import Preset
from explorer.records import Edit
from tests.helpers_app import run_page, words
from tests.helpers_judges import WordEmbedder
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
