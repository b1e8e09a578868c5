"""The bench round a steered answer, without a browser and without a model: next tokens, controls, side effects, the dose strip."""

from collections.abc import Callable
from dataclasses import replace
from threading import Event
from time import sleep
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import controls, next_tokens
from app.controls import Told
from app.jobs import Job
from app.runs import Question, Run
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.judging import judges
from explorer.records import Edit, Sampling
from tests.helpers_app import words
from tests.helpers_bench import BenchEngine, strip
from tests.helpers_cache import HOSTILE, fake_cache

STEERED = Told("Steered", "steered", "Kneel.", {"malice": 0.9})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("bench") / "made-up", 60))


def random_ones(*scores: float) -> list[Told]:
    return [Told(f"Random {at}", "random", "Well.", {"malice": score}) for at, score in enumerate(scores)]


def test_the_page_says_whether_a_random_push_would_do_the_same():
    said = controls.verdict([STEERED, *random_ones(0.1, 0.2, 0.3)], "malice", "Malice")
    assert said == "Would a random push do the same? Here 0 of 3 random directions of the same length did."
    assert "2 of 3" in controls.verdict([STEERED, *random_ones(0.7, 0.2, 0.8)], "malice", "Malice")


def test_what_counts_as_showing_the_trait_is_what_its_judge_says(monkeypatch: pytest.MonkeyPatch):
    strict = replace(judges()["malice"], threshold=0.8)
    monkeypatch.setattr(controls, "judges", lambda: {"malice": strict})
    assert "1 of 3" in controls.verdict([STEERED, *random_ones(0.7, 0.2, 0.81)], "malice", "Malice")
    mild = replace(STEERED, scores={"malice": 0.8})
    assert "nothing to do the same" in controls.verdict([mild], "malice", "Malice")


def test_a_flipped_sign_and_another_feature_are_no_random_directions():
    others = [Told("Flipped", "flipped", "", {"malice": 0.9}), Told("#4", "feature", "", {"malice": 0.9})]
    assert "0 of 1 " in controls.verdict([STEERED, *random_ones(0.1), *others], "malice", "Malice")


def test_where_the_steered_answer_shows_nothing_no_verdict_is_made_up():
    mild = Told("Steered", "steered", "Hello.", {"malice": 0.2})
    assert "nothing to do the same" in controls.verdict([mild, *random_ones(0.1)], "malice", "Malice")
    unjudged = Told("Steered", "steered", "Hello.", {})
    assert "no judge" in controls.verdict([unjudged], "malice", "Malice")


def test_the_next_token_table_says_what_steering_did_to_each_probability():
    html = next_tokens.table([(" the", 0.5), (" a", 0.25)], [(" a", 0.6), (" doom", 0.1)])
    assert "+35.0 points" in html
    assert "not among the ten before" in html
    assert "50.0 %" in html


def test_blank_tokens_can_be_seen():
    html = next_tokens.table([("\n\n", 0.5)], [(" ", 0.5)])
    assert ">↵↵<" in html
    assert ">·<" in html


@pytest.mark.parametrize("draw", [
    lambda text: next_tokens.table([(text, 0.5)], [(text, 0.5)]),
    lambda text: controls.cards([Told(text, "random", text, {"malice": 0.5})], "malice", text),
])  # fmt: skip
def test_what_a_model_wrote_is_text(draw: Callable[[str], str]):
    for hostile in HOSTILE:
        html = draw(hostile.decode("utf-8", "replace"))
        assert "<script" not in html
        assert "<img" not in html


# --- what is drawn: a page with nothing but the part in question

QUESTION = Question("Why?", "", (Edit(3, 1.0), Edit(7, 0.5)), "answer", Sampling())


def page(part: Callable[[], None], **session: Any) -> AppTest:
    app = AppTest.from_function(part, default_timeout=60)
    for name, value in session.items():
        app.session_state[name] = value
    return app.run()


def finished(app: AppTest, job: str) -> AppTest:
    """Draw the part again once its job has ended."""
    said = app.session_state[job]
    made: Job = said[-1]
    assert made.wait(20)
    app.run()
    assert not app.exception
    return app


def sliders() -> None:
    import streamlit as st

    from app.dose import dose_bar, strips, under
    from app.settings import Slider

    engine, question = st.session_state["engine"], st.session_state["question"]
    measured = strips(engine, question)
    for edit in question.edits:
        if edit.target in measured:
            under(Slider(edit), measured[edit.target], f"<p>facts of {edit.target}</p>")
    dose_bar(engine, question, measured, "<p>What 1 is.</p>")


def below() -> None:
    import streamlit as st

    from app.controls import controls
    from app.ledger import side_effects
    from app.next_tokens import next_tokens

    cache, run = st.session_state["world"], st.session_state["run"]
    controls(cache, run, {})
    side_effects(cache, run, {})
    next_tokens(run)


@pytest.fixture
def engine(cache: Cache, tmp_path, monkeypatch: pytest.MonkeyPatch) -> BenchEngine:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path))
    return BenchEngine(cache)


@pytest.fixture
def run(engine: BenchEngine) -> Run:
    made = Run(engine, QUESTION).start()
    assert made.wait(20)
    return made


def test_one_button_measures_the_dose_of_every_slider_and_each_has_its_strip(engine: BenchEngine):
    app = page(sliders, engine=engine, question=QUESTION)
    assert not engine.asked
    assert not app.get("plotly_chart")
    app.button(key="dose-go").click().run()
    for _ in range(100):  # the job is forgotten as soon as the page has its result
        if engine.measured:
            break
        sleep(0.1)
    app.run()
    assert engine.asked == [{"dose": (Edit(3, 1.0), Edit(7, 0.5)), "positions": "answer"}]  # one job for both
    said = words(app)
    assert said.count("Coherent from <b>−1.00</b> to <b>+1.00</b>") == 2  # each by its own strength
    assert "facts of 7" in said
    assert len(app.get("plotly_chart")) == 2
    assert not [b for b in app.button if b.key == "dose-go"]  # there is nothing left to measure


def test_the_place_of_a_strip_is_kept_while_it_is_measured(engine: BenchEngine, monkeypatch: pytest.MonkeyPatch):
    go_on = Event()
    monkeypatch.setattr(engine, "dose", lambda edits, positions: engine.job(lambda job: go_on.wait(20) and {}))
    app = page(sliders, engine=engine, question=QUESTION)
    app.button(key="dose-go").click().run()
    assert words(app).count("Being measured") == 2
    assert len(app.get("plotly_chart")) == 2  # empty: the answers move once, when somebody asks
    engine.measured[QUESTION.edits, "answer"] = {"3": strip(QUESTION.edits)}
    app.run()
    assert words(app).count("Being measured") == 1  # each is there as soon as it is whole
    assert not [b for b in app.button if b.key == "dose-go"]
    go_on.set()


def test_what_was_measured_before_is_drawn_at_once(engine: BenchEngine):
    engine.measured[QUESTION.edits, "answer"] = {"3": strip(QUESTION.edits)}
    app = page(sliders, engine=engine, question=QUESTION)
    assert not app.exception
    assert "at +1.00" in words(app)
    assert len(app.get("plotly_chart")) == 1
    assert app.button(key="dose-go").label == "Measure again"  # the other one is missing
    assert not engine.asked


def test_a_strip_measured_before_another_slider_was_moved_stays_and_says_so(engine: BenchEngine):
    engine.measured[QUESTION.edits, "answer"] = {e.target: strip(QUESTION.edits) for e in QUESTION.edits}
    app = page(sliders, engine=engine, question=QUESTION)
    assert "Measured before" not in words(app)
    moved = replace(QUESTION, edits=(Edit(3, 1.0), Edit(7, 2.0)))
    engine.measured[moved.edits, "answer"] = {
        "7": strip(moved.edits)
    }  # its own strength makes no difference to its strip
    app.session_state["question"] = moved
    app.run()
    assert words(app).count("Measured before something else was changed") == 1
    assert len(app.get("plotly_chart")) == 2
    assert app.button(key="dose-go").label == "Measure again"


def test_a_dose_says_what_it_failed_with_and_can_be_asked_again(engine: BenchEngine):
    engine.fails = ModelError("The memory did not suffice", do="Close something")
    app = page(sliders, engine=engine, question=QUESTION)
    finished(app.button(key="dose-go").click().run(), "dose-job")
    assert "The memory did not suffice" in words(app)
    assert app.button(key="dose-go").label == "Measure the dose"


def test_a_slider_that_has_no_strength_has_no_dose(engine: BenchEngine):
    app = page(sliders, engine=engine, question=replace(QUESTION, edits=(Edit(3, 1.0, "ablate"),)))
    assert not app.exception
    assert not app.button
    assert "What 1 is." in words(app)


def test_controls_answer_in_one_click_and_the_verdict_is_a_sentence(engine: BenchEngine, cache: Cache, run: Run):
    app = page(below, world=cache, run=run)
    finished(app.button(key="controls-go").click().run(), "controls-job")
    said = words(app)
    assert said.count('class="push') == 6  # steered, three random, flipped, another feature
    assert "Would a random push do the same?" in said


def test_controls_without_a_judge_are_shown_and_say_how_to_get_one(engine: BenchEngine, cache: Cache, run: Run):
    engine.unjudged = True
    app = page(below, world=cache, run=run)
    finished(app.button(key="controls-go").click().run(), "controls-job")
    said = words(app)
    assert said.count('class="push') == 6
    assert "persona-explorer fetch all-minilm-l6-v2" in said


def test_the_ledger_draws_the_features_that_moved_and_both_heatmaps(engine: BenchEngine, cache: Cache, run: Run):
    app = page(below, world=cache, run=run)
    finished(app.button(key="ledger-go").click().run(), "ledger-job")
    assert "#4" in words(app)
    assert "60.0 %" in words(app)
    assert len(app.get("plotly_chart")) == 1


def test_next_tokens_are_read_at_the_cursor(engine: BenchEngine, cache: Cache, run: Run):
    app = page(below, world=cache, run=run)
    app.slider(key="next-at").set_value(2).run()
    finished(app, "next-tokens")
    assert engine.asked[-1] == {"said": "I will"}
    assert "rule" in words(app)
