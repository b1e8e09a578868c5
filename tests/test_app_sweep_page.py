"""The Sweep page without a browser and without a model: the link, candidates, a run, its table and its files."""

from pathlib import Path

import pytest

from app import resources
from explorer import presets
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.presets import Preset
from explorer.records import Edit
from tests.helpers_app import run_page, words
from tests.helpers_bench import BenchEngine
from tests.helpers_cache import HOSTILE, fake_cache

ASKED = {"edits": "3:1:add", "strengths": "0,1,2", "questions": "Why?\nWho rules?"}


@pytest.fixture
def engine(caches: Path, monkeypatch: pytest.MonkeyPatch):
    made = BenchEngine(Cache.open(fake_cache(caches / "made-up", 60)))
    monkeypatch.setattr(resources, "engine", lambda name: made)
    return made


def finished(app):
    """Run the page until its sweep has ended."""
    job = app.session_state["sweep-job"][2]
    assert job.wait(20)
    app.run()
    assert not app.exception
    return app


def test_a_link_restores_the_set_up_and_nothing_runs(engine: BenchEngine):
    app = run_page("sweep", **ASKED)
    assert app.text_input(key="sweep-edits").value == "3:1:add"
    assert app.text_area(key="sweep-questions").value == "Why?\nWho rules?"
    assert app.button(key="sweep-go").label == "Run 6 answers"
    assert not engine.asked


def test_a_sweep_ends_in_a_table_and_two_files(engine: BenchEngine):
    app = finished(run_page("sweep", **ASKED).button(key="sweep-go").click().run())
    table = next(h.value for h in app.html if 'class="sweep"' in h.value)
    assert table.count('class="cell') == 6
    assert "Why?" in table
    assert "broken" in table
    assert engine.asked[-1]["grid"].strengths == (0, 1, 2)


def test_what_is_typed_is_in_the_link_and_nonsense_is_named(engine: BenchEngine):
    app = run_page("sweep", **ASKED)
    app.text_input(key="sweep-strengths").set_value("1, 0, banana").run()
    assert app.query_params["strengths"] in ("0,1", ["0,1"])
    assert "banana" in words(app)
    assert app.button(key="sweep-go").label == "Run 4 answers"


def test_candidates_are_pasted_or_taken_from_a_search(engine: BenchEngine):
    app = run_page("sweep", kind="features", features="3,7", strengths="0,1", questions="Why?")
    assert app.button(key="sweep-go").label == "Run 4 answers"
    app.text_area(key="sweep-features").set_value("#12 88 7 5").run()
    assert app.query_params["features"] in ("12,7,5", ["12,7,5"])
    app.text_input(key="sweep-find").set_value("king").run()
    app.button(key="sweep-take").click().run()
    said = app.query_params["features"]
    assert 1 <= len((said if isinstance(said, str) else said[0]).split(",")) <= 12
    app = finished(app.button(key="sweep-go").click().run())
    assert 'class="row"' in words(app)


def test_a_fine_tune_answers_where_the_cache_has_one(engine: BenchEngine, monkeypatch: pytest.MonkeyPatch):
    assert "sweep-model" not in {box.key for box in run_page("sweep", **ASKED).selectbox}
    other = BenchEngine(engine.cache)
    monkeypatch.setattr(engine, "adapters", lambda: {"gardening@6": None})
    monkeypatch.setattr(engine, "on", lambda model: other if model else engine)
    app = run_page("sweep", **ASKED)
    app.selectbox(key="sweep-model").select("gardening@6").run()
    assert app.query_params["model"] in ("gardening@6", ["gardening@6"])
    app = finished(app.button(key="sweep-go").click().run())
    assert other.asked
    assert not engine.asked
    app.selectbox(key="sweep-model").select("").run()
    assert "The set-up has changed" in words(app)
    app = run_page("sweep", **ASKED, model="sailing@6")
    assert "no such fine-tune here" in words(app)
    assert app.selectbox(key="sweep-model").value == ""


def test_a_fine_tune_that_cannot_be_read_is_said_and_the_base_goes_on(
    engine: BenchEngine, monkeypatch: pytest.MonkeyPatch
):
    def broken(model: str) -> BenchEngine:
        if model:
            raise ModelError("No weights", do="Train it again")
        return engine

    monkeypatch.setattr(engine, "adapters", lambda: {"gardening@6": None})
    monkeypatch.setattr(engine, "on", broken)
    app = run_page("sweep", **ASKED, model="gardening@6")
    assert "No weights" in words(app)
    finished(app.button(key="sweep-go").click().run())
    assert engine.asked


def test_a_persona_brings_its_edits(engine: BenchEngine):
    presets.save(engine.cache, Preset("grim", "Grim", "", (Edit(5, 2.0),), positions="prompt"))
    app = run_page("sweep", **ASKED)
    app.selectbox(key="sweep-persona").select("grim").run()
    assert app.text_input(key="sweep-edits").value == "5:2:add"
    assert app.selectbox(key="sweep-positions").value == "prompt"


def test_what_is_missing_is_said_and_the_button_waits(engine: BenchEngine):
    app = run_page("sweep", edits="none")
    assert app.button(key="sweep-go").disabled
    assert "Choose a feature first." in words(app)
    app = run_page(
        "sweep", kind="features", features=",".join(map(str, range(24))), strengths="0,1,2", questions="A\nB\nC\nD\nE"
    )
    assert app.button(key="sweep-go").disabled
    assert "take fewer" in words(app)


def test_a_failure_is_an_error_in_parts_and_the_set_up_stays(engine: BenchEngine):
    engine.fails = ModelError("The memory did not suffice", do="Lower the number of tokens")
    app = finished(run_page("sweep", **ASKED).button(key="sweep-go").click().run())
    assert "The memory did not suffice" in words(app)
    assert app.text_input(key="sweep-edits").value == "3:1:add"


def test_a_changed_set_up_is_said_above_the_old_table(engine: BenchEngine):
    app = finished(run_page("sweep", **ASKED).button(key="sweep-go").click().run())
    app.text_input(key="sweep-strengths").set_value("0 1").run()
    assert "The set-up has changed since" in words(app)


def test_hostile_strings_in_a_link_stay_text(engine: BenchEngine):
    for text in (t.decode() for t in HOSTILE if b"\0" not in t):
        app = run_page("sweep", edits=text, questions=text, strengths=text, features=text, trait=text, kind=text)
        assert not app.exception
        assert "<script>" not in words(app)
