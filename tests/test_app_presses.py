"""No press is lost, whatever else a browser asks for while it is taken in, and no link that lags behind undoes one."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
from streamlit.runtime.state import SafeSessionState
from streamlit.testing.v1 import AppTest

from app import presses, resources
from explorer.cache import Cache
from tests.helpers_app import Touches, run_page, words
from tests.helpers_cache import fake_cache
from tests.test_app_inspect import ReadingEngine

PAGE = """
import streamlit as st
from app import presses

presses.take_whole()
S = st.session_state
S.setdefault("done", [])

def typed():
    S["typed"] = S["text"]

def pressed():
    S["done"] = [*S["done"], "begun"]
    for n in range(3):
        S[f"key-{n}"] = S["text"]
        st.query_params[f"link-{n}"] = S["text"]
    st.toast("On its way")
    S["done"] = [*S["done"], "ended"]

st.text_input("Text", key="text", on_change=typed)
st.button("Press", key="press", on_click=pressed)
"""


@pytest.fixture
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit as it comes."""
    monkeypatch.setattr(SafeSessionState, "on_script_will_rerun", presses._take_in)
    monkeypatch.setattr(presses, "take_whole", lambda: None)


@pytest.fixture
def touches(monkeypatch: pytest.MonkeyPatch) -> Touches:
    return Touches(monkeypatch)


def pressed(touches: Touches, app: AppTest, at: int | None) -> tuple[str, list[str], list[object], dict]:
    """A button is pressed with a text that has just been typed: what is left of both in session and link."""
    touches.at = None
    app.session_state["done"] = []
    app.text_input(key="text").input(f"king {at}")
    touches.at = at
    app.button(key="press").click().run()
    assert not app.exception
    said = app.session_state
    return said["typed"], said["done"], [said[f"key-{n}"] for n in range(3)], dict(app.query_params)


def test_a_press_is_taken_in_whole_at_whatever_touch_something_else_is_asked_for(touches: Touches):
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    pressed(touches, app, None)
    n = touches.seen
    assert n > 12
    for at in range(n):
        app.query_params.clear()
        whole = (f"king {at}", ["begun", "ended"], [f"king {at}"] * 3, {f"link-{n}": f"king {at}" for n in range(3)})
        assert pressed(touches, app, at) == whole, at


@pytest.mark.usefixtures("by_itself")
def test_streamlit_by_itself_loses_a_press_at_most_touches(touches: Touches):
    """The day this fails, `app/presses.py` is needed no longer."""
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    pressed(touches, app, None)
    n = touches.seen
    cut = [at for at in range(n) if pressed(touches, app, at)[1] != ["begun", "ended"]]
    assert len(cut) > n / 2


@pytest.mark.usefixtures("by_itself")
def test_streamlit_by_itself_goes_by_the_older_link(touches: Touches):
    """The day this fails, `Written` is needed no longer."""
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    assert pressed(touches, app, None)[3]
    app.query_params.clear()
    assert not app.run().query_params


def test_a_link_that_lags_behind_undoes_nothing_however_often_it_comes(touches: Touches):
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    written = pressed(touches, app, None)[3]
    for heard in ({}, {"link-0": "king None"}, {}):
        app.query_params.clear()
        app.query_params.update(heard)
        assert dict(app.run().query_params) == written
    app.query_params.clear()
    written = pressed(touches, app, 3)[3]
    assert written == {f"link-{n}": "king 3" for n in range(3)}
    app.query_params.update(dict.fromkeys(written, "king None"))
    assert dict(app.run().query_params) == written


def test_a_browser_that_has_heard_has_the_last_word(touches: Touches):
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    pressed(touches, app, None)
    app.run()
    app.run()
    app.query_params["link-0"] = "mine"
    assert app.run().query_params["link-0"] == "mine"
    app.query_params.clear()
    assert not app.run().query_params


def test_an_older_link_is_followed_after_a_while_and_through_the_history(touches: Touches, monkeypatch):
    app = AppTest.from_string(PAGE, default_timeout=60).run()
    pressed(touches, app, None)
    app.query_params.clear()
    with monkeypatch.context() as through:
        through.setattr(presses.state, "through_history", lambda: True)
        assert not app.run().query_params
    pressed(touches, app, None)
    app.query_params.clear()
    monkeypatch.setattr(presses, "LAG", 0.0)
    assert not app.run().query_params


def test_a_callback_that_fails_leaves_the_next_script_to_be_ended_as_ever(monkeypatch: pytest.MonkeyPatch):
    app = AppTest.from_string(
        PAGE.replace('st.toast("On its way")', "raise ValueError('no')"), default_timeout=60
    ).run()
    left: list[bool] = []
    finish = ScriptRunner._on_script_finished

    def finished(runner: ScriptRunner, *args: Any) -> None:
        left.append("on_scriptrunner_yield" in vars(runner._requests))
        finish(runner, *args)

    monkeypatch.setattr("streamlit.testing.v1.local_script_runner.LocalScriptRunner._on_script_finished", finished)
    app.button(key="press").click().run()
    assert [e.value for e in app.exception] == ["no"]
    assert left == [False]


# --- pages of the app


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60, dead=()))


@pytest.fixture
def engine(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> ReadingEngine:
    return ReadingEngine(cache, monkeypatch)


def said(app: AppTest, key: str) -> str:
    """What the link says of a key."""
    value = app.query_params[key]
    return value[0] if isinstance(value, list) else value


def some(n: int) -> list[int]:
    """A few of so many touches: all of them would take minutes."""
    return sorted({0, 1, n // 3, n // 2, n - 2})


def test_inspect_reads_what_was_typed_whatever_else_is_asked_for(engine: ReadingEngine, touches: Touches):
    app = run_page("inspect")

    def analyse(at: int | None) -> None:
        touches.at = None
        app.text_area(key="inspect-text").set_value(f"king {at}")
        touches.at = at
        app.button(key="inspect-go").click().run()
        assert not app.exception
        assert app.session_state["inspect-job"][1].wait(30)
        assert engine.asked[-1] == f"king {at}"
        assert said(app, "text") == f"king {at}"

    analyse(None)
    for at in some(touches.seen):
        analyse(at)


def test_a_label_is_saved_and_the_next_feature_opened_whatever_else_is_asked_for(cache: Cache, touches: Touches):
    app, sae = run_page("label", feature="0"), cache.manifest.sae_fingerprint

    def save(feature: int, at: int | None) -> None:
        touches.at = None
        app.text_input(key=f"label-text-{sae[:12]}-{feature}").set_value(f"king {at}")
        touches.at = at
        app.button(key="label-next").click().run()
        assert not app.exception
        assert resources.labels().all(sae)[feature].label == f"king {at}"
        assert said(app, "feature") == str(feature + 1)

    save(0, None)
    for feature, at in enumerate(some(touches.seen), 1):
        save(feature, at)


def test_browse_turns_a_page_for_each_press_though_the_next_one_comes_before_it_is_drawn(
    cache: Cache, touches: Touches
):
    app = run_page("browse")
    touches.at, touches.again = 1, True
    app.button(key="next-page").click().run()
    assert said(app, "page") == "3"
    assert "51 to 60" in words(app)
    app.button(key="previous-page").click().run()
    assert "page" not in app.query_params


def test_sweep_keeps_what_was_typed_though_the_next_press_comes_at_once(cache: Cache):
    app = run_page("sweep", kind="features")
    app.text_area(key="sweep-features").input("3 5").run()
    app.query_params.pop("features")
    app.run()
    assert app.text_area(key="sweep-features").value == "3 5"
    assert said(app, "features") == "3,5"


def test_feature_steps_on_for_each_press_though_the_box_of_the_browser_still_says_the_one_before(cache: Cache):
    app = run_page("feature", feature="5")
    for _ in range(3):
        app.number_input(key="feature").set_value(5)  # it has not heard yet
        app.button(key="next").click().run()
    assert said(app, "feature") == "8"
    app.number_input(key="feature").set_value(6).run()  # a press led away from it, but now somebody has typed it
    app.button(key="next").click().run()
    assert said(app, "feature") == "7"
    app.number_input(key="feature").set_value(20)
    app.button(key="previous").click().run()
    assert said(app, "feature") == "19"
