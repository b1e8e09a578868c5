"""Steer in conversation: turns, plain text, earlier runs and the files of a session."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from app import session_files
from explorer.cache import Cache
from explorer.records import Edit
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_steer import FakeEngine, click, engine_in, grid, link_of, run, said

TEXTS = [text.decode() for text in HOSTILE if b"\0" not in text]


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


@pytest.fixture
def use(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    return engine_in(cache, monkeypatch)


def go_on(app: AppTest, text: str) -> AppTest:
    app.text_input(key="steer-next").set_value(text)
    return app.button(key="steer-send").click().run()


def contents(messages) -> list[str]:
    return [message["content"] for message in messages]


def test_a_conversation_goes_on_and_each_model_remembers_itself(cache: Cache, use):
    engine = use()
    app = go_on(click(run_page("steer", edits="3:1:add", prompt="Who?", system="Be brief."), "go"), "And now?")
    assert not app.exception
    asked = engine.asked[-1]
    assert contents(asked["messages"]) == ["Be brief.", "Who?", "I will rule you!", "And now?"]
    assert contents(asked["baseline_messages"]) == ["Be brief.", "Who?", "I will help.", "And now?"]
    assert app.text_area(key="steer-prompt").value == "And now?"
    assert "Conversation, 1 turn so far" in words(app)
    app.segmented_control(key="steer-shared").set_value(True).run()
    assert engine.asked[-1]["baseline_messages"] is None
    assert contents(engine.asked[-1]["messages"])[2] == "I will rule you!"
    assert said(app, "history") == "shared"
    assert "Neither model remembers this answer" in words(app)


def test_a_turn_is_edited_or_asked_again_and_what_came_after_it_goes(cache: Cache, use):
    engine = use()
    app = go_on(go_on(click(run_page("steer", edits="3:1:add", prompt="One"), "go"), "Two"), "Three")
    assert contents(engine.asked[-1]["messages"])[::2] == ["One", "Two", "Three"]
    click(app, "again-1")
    assert contents(engine.asked[-1]["messages"])[::2] == ["One", "Two"]
    n = len(engine.asked)
    click(app, "edit-0")
    assert len(engine.asked) == n
    assert app.text_area(key="steer-prompt").value == "One"
    assert "press Run" in grid(app)
    assert "so far" not in words(app)


def test_starting_over_forgets_the_turns(cache: Cache, use):
    engine = use()
    app = click(go_on(click(run_page("steer", edits="3:1:add", prompt="One"), "go"), "Two"), "over")
    click(app, "go")
    assert contents(engine.asked[-1]["messages"]) == ["Two"]


def test_a_base_model_goes_on_from_plain_text_and_the_page_says_so(cache: Cache, use, monkeypatch: pytest.MonkeyPatch):
    engine = use()
    app = run_page("steer", edits="3:1:add", prompt="Once upon")
    assert "has no chat template" not in words(app)
    engine.start()
    assert engine.wait(10)
    monkeypatch.setattr(engine._loaded.model, "has_template", False)
    click(app, "go")
    assert engine.asked[-1]["messages"] == "Once upon"
    assert "has no chat template: it goes on from the prompt as plain text" in words(app)


def test_a_chat_model_goes_on_from_plain_text_where_that_is_asked(cache: Cache, use):
    engine = use()
    app = run_page("steer", edits="3:1:add", prompt="Once upon", temperature="0")
    app.checkbox(key="steer-plain").check().run()
    assert engine.asked[-1]["messages"] == "Once upon"
    assert "plain text, seed 0, greedy" in words(app)
    link = link_of(app)
    assert run_page("steer", **dict(parse_qsl(urlsplit(link).query))).checkbox(key="steer-plain").value
    app.checkbox(key="steer-plain").uncheck().run()
    assert contents(engine.asked[-1]["messages"]) == ["Once upon"]


def test_reset_gives_the_page_of_a_first_visit_and_keeps_the_earlier_runs(cache: Cache, use):
    use()
    first = link_of(run_page("steer"))
    app = go_on(click(run_page("steer", edits="3:2.5:clamp", prompt="One", seed="7", plain="1"), "go"), "Two")
    app = click(app, "reset")
    assert link_of(app) == first
    assert "Conversation" not in words(app)
    assert len(list(app.session_state["steer-history"])) == 2


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_turns_are_text(cache: Cache, use, text: str):
    use(baseline=[text], steered=[text, " more"])
    app = go_on(click(run_page("steer", edits="3:1:add", prompt=text), "go"), "x" + text)
    assert not app.exception
    assert "<script>alert" not in words(app)
    assert "<img" not in words(app)


def test_runs_are_kept_compared_loaded_and_run_again(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:1.5:add", prompt="Who?", seed="4"), "go")
    app.slider(key="steer-strength-3-add").set_value(-0.5).run()
    app.text_area(key="steer-prompt").set_value("Another").run()
    shelf = app.selectbox(key="steer-earlier")
    assert ["Who? · 3 -0.50 (in view)" in shelf.options[0], "Who? · 3 +1.50" in shelf.options[1]] == [True, True]
    first = list(app.session_state["steer-history"])[1]
    shelf.set_value(first.key).run()
    assert "Then: +1.50" in words(app)
    assert "In view: -0.50" in words(app)
    assert any("Steered:\nI will rule you!" in code.value for code in app.code)
    n = len(engine.asked)
    click(app, "load")
    assert (said(app, "edits"), said(app, "prompt"), said(app, "seed"), len(engine.asked)) == (
        "3:1.5:add",
        "Who?",
        "4",
        n,
    )
    click(app, "rerun")
    assert (engine.asked[-1]["edits"], engine.asked[-1]["sampling"].seed) == ((Edit(3, 1.5),), 4)


def test_a_session_is_one_file_that_asks_nobody_and_runs_nothing(cache: Cache):
    engine = FakeEngine(cache, steered=["Bow, ", "id", "iot", " <img src=x>", "\u202e"])
    asked = run(engine).question.followed_by("And <b>now</b>?", "I will help.", "Bow, idiot")
    records = [replace(run(engine).record(), question=asked, scores={"steered": {"malice": 0.93}})]
    html = session_files.as_html(records)
    assert not re.search(r"<script|<img|<link|https?:|url\(|@import|\bon\w+=|\u202e", html)
    assert html.count('<details class="veil"><summary>idiot</summary></details>') == 2
    for part in ("And &lt;b&gt;now&lt;/b&gt;?", "2:1:add", "seed 0", "malice 0.93", "I will help.", records[0].when):
        assert part in html


def test_the_files_of_a_run_hold_its_conversation_its_scores_and_directions(cache: Cache):
    made = run(FakeEngine(cache), edits=(Edit(2), Edit(direction="grim")))
    facts = session_files.record_facts(made.record(), cache)
    assert facts["edits"][1] == {"direction": "grim", "strength": 1.0, "mode": "add"}
    assert json.loads(session_files.as_json(facts))["steered"] == "I will rule you!"
    assert len(list(csv.DictReader(io.StringIO(session_files.as_csv(facts))))) == 1
