"""The bench round a steered answer, without a browser and without a model: next tokens, controls, side effects, the dose strip."""

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import controls, next_tokens
from app.controls import Told
from app.jobs import Job
from app.runs import Question, Run
from app.settings import Slider
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.records import Edit, Sampling
from tests.helpers_app import words
from tests.helpers_bench import BenchEngine, cell
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
    made: Job = said[1] if isinstance(said, tuple) else next(iter(said.values()))
    assert made.wait(20)
    app.run()
    assert not app.exception
    return app


def strip() -> None:
    import streamlit as st

    from app.dose import dose_strip

    dose_strip(st.session_state["engine"], st.session_state["question"], st.session_state["slider"])


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


def test_a_dose_is_measured_when_asked_and_drawn_over_the_sliders_range(engine: BenchEngine):
    app = page(strip, engine=engine, question=QUESTION, slider=Slider(Edit(7, 0.5)))
    assert not engine.asked
    finished(app.button(key="dose-go-7").click().run(), "dose-jobs")
    assert engine.asked == [{"dose": (Edit(3, 1.0), Edit(7, 0.5)), "positions": "answer"}]
    said = words(app)
    assert "Coherent from <b>-0.50</b> to <b>+0.50</b>" in said  # half of what was measured: it moves in proportion
    assert "fluency" in said
    assert len(app.get("plotly_chart")) == 1


def test_a_dose_that_is_known_is_drawn_at_once(engine: BenchEngine):
    engine.measured = [cell((Edit(3),), s) for s in (0.0, 1.0, 2.0)]
    app = page(strip, engine=engine, question=QUESTION, slider=Slider(Edit(3, 1.0)))
    assert not app.exception
    assert "Near +1.00" in words(app)
    assert not engine.asked


def test_a_dose_says_what_it_failed_with_and_offers_to_try_again(engine: BenchEngine):
    engine.fails = ModelError("The memory did not suffice", do="Close something")
    app = page(strip, engine=engine, question=QUESTION, slider=Slider(Edit(3, 1.0)))
    finished(app.button(key="dose-go-3").click().run(), "dose-jobs")
    assert "The memory did not suffice" in words(app)
    assert app.button(key="dose-again-3")


@pytest.mark.parametrize(
    "slider", [Slider(Edit(3, 1.0), on=False), Slider(Edit(3, 1.0, "ablate")), Slider(Edit(9, 0.0))]
)
def test_a_slider_that_pushes_nothing_has_no_dose(engine: BenchEngine, slider: Slider):
    app = page(strip, engine=engine, question=QUESTION, slider=slider)
    assert not app.exception
    assert not app.button


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
