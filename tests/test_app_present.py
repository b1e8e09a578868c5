"""Present without a browser: where the talk is, what is played live and what from recordings, and what is skipped."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import replay, screens, state
from app.replay import Replay
from app.runs import Question, Run
from app.talk import Talk
from explorer import scripts
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.judging import judges
from explorer.records import Sampling
from explorer.scripts import Recorded
from tests.helpers_app import Touches, drawn, run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_steer import FakeEngine, engine_in

TALK = """
title = "A talk"

[[step]]
kind = "text"
title = "Hello <b>room</b>"
words = "First words, you idiot.\\n\\nSecond words."

[[step]]
kind = "feature"
title = "What a feature is"
feature = 3
rows = 4

[[step]]
kind = "steer"
title = "Up it goes"
prompt = "Who <i>rules</i>?"
edits = ["3:1", "4:0.5"]
strengths = [0.5, 2.0]

[[step]]
kind = "question"
title = "Ask"
edits = ["3:1"]

[[step]]
kind = "text"
title = "The end"
words = "Thank you."
"""


@pytest.fixture
def cache(caches: Path):
    """One made-up cache with a talk, and nothing else."""
    folder = fake_cache(caches / "made-up", 30)
    (folder / scripts.FOLDER).mkdir()
    (folder / scripts.FOLDER / "script.toml").write_text(TALK)
    return Cache.open(folder)


@pytest.fixture
def use(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    """Put a fake engine behind the app, ready to answer unless it fails to load."""
    behind = engine_in(cache, monkeypatch)

    def put(**options) -> FakeEngine:
        engine = behind(**options)
        engine.start()
        engine.wait(5)
        return engine

    return put


def record(cache: Cache, pieces: tuple[str, ...] = ("Once", " recorded")) -> None:
    """Recordings of the whole talk, as fast as can be; of the steered answers with their strength."""
    made = scripts.load(scripts.known(cache)["script"], cache)
    answers = {}
    for step in made.steps:
        for stop in range(step.stops):
            for name, key in step.answers(stop).items():
                said = [*pieces, f" {name}", *([f" {step.strengths[stop]}"] if name == "steered" else [])]
                answers[key] = {"pieces": said, "times": [0.0] * len(said)}
    said = {"model_fingerprint": cache.manifest.model_fingerprint, "sae_fingerprint": cache.manifest.sae_fingerprint}
    scripts.recordings_path(made.path).write_text(json.dumps({**said, "answers": answers}))


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=f"present-{key}").click().run()
    assert not app.exception
    return app


def plain(app: AppTest) -> str:
    """What is read on the page, without its tags."""
    return re.sub("<[^>]*>", "", words(app))


def step(app: AppTest) -> str:
    said = app.query_params.get("step", "1")
    return said if isinstance(said, str) else said[0]


def test_next_and_back_walk_through_every_step_and_every_strength(cache: Cache, use):
    use()
    app = run_page("present")
    assert "Hello &lt;b&gt;room&lt;/b&gt;" in words(app)
    assert "<p>Second words.</p>" in words(app)
    assert app.button(key="present-back").disabled
    walked = [step(app)]
    while not app.button(key="present-next").disabled:
        walked.append(step(press(app, "next")))
    assert walked == ["1", "2", "3", "3.2", "4", "5"]
    for wanted in reversed(walked[:-1]):
        assert step(press(app, "back")) == wanted


def test_a_link_that_lags_behind_the_keys_takes_nobody_back(cache: Cache, use):
    use()
    app = press(run_page("present"), "next")
    app.query_params["step"] = "1"  # as a browser sends it that has not heard of "2" yet
    assert step(press(app, "next")) == "3"
    app.query_params["step"] = "2"
    app.run()
    assert step(app) == "3"


def test_keys_are_counted_so_that_none_is_lost():
    can, talk = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)], Talk()
    said = [
        ("a 1 0", (1, 0)),
        ("a 3 0", (2, 1)),
        ("a 3 0", (2, 1)),
        ("a 2 0", (2, 0)),
        ("b 1 0", (2, 1)),
        ("b 99 0", (3, 0)),
    ]
    for presses, where in said:
        talk.hear(presses, can)
        assert talk.at == where
    talk.hear("b 99 1", can)
    assert talk.blank
    talk.hear("b 99 3", can)
    assert talk.blank
    talk.hear("b 98 3", can)
    assert not talk.blank
    for nonsense in ("", "b", "b 1", "b x 0", "b 1 0 0", "b ² 0", "b 1e3 0", "b -- 0"):
        talk.hear(nonsense, can)
        assert talk.at == (2, 1)
    Talk().hear("c 1 1", [])


def test_a_slider_that_is_no_longer_in_view_moves_nothing():
    talk = Talk()
    talk.open((2, 1))
    talk.slid((2, 0), 0)
    assert talk.at == (2, 1)
    talk.slid((2, 1), 0)
    assert talk.at == (2, 0)


def test_an_answer_that_was_ended_unseen_is_begun_again(cache: Cache, use):
    engine = use(steered=("I", " will", " rule", "!"))
    app = run_page("present", step="3")
    talk = app.session_state["present-talk"]
    lost = Run(engine, Question("Who?", "", (), "answer", Sampling()))
    lost.stop()
    talk.playing = replace(talk.playing, now=lost)
    app.run()
    assert "I will rule!" in plain(app)
    assert talk.playing.now.phase == "done"


def test_a_feature_step_shows_as_many_examples_as_it_says_and_blurs(cache: Cache):
    app = run_page("present", step="2")
    drawing = drawn(app, "token_heatmap")
    assert len(drawing["rows"]) == 4
    assert drawing["blur"] is True


@pytest.mark.parametrize("said", ["", "0", "99", "-1", "2.9", "x", "1e9", "3.x", "²"])
def test_a_link_that_makes_no_sense_opens_some_step(cache: Cache, use, said: str):
    use()
    assert not run_page("present", step=said).exception


def test_a_live_step_is_answered_by_the_model_and_says_so(cache: Cache, use):
    record(cache)
    engine = use(steered=("I", " will", " rule", "!"))
    app = run_page("present", step="3.2")
    assert "I will rule!" in plain(app)
    assert ">live</span>" in words(app)
    assert "Steered +2.00" in words(app)
    assert "Who &lt;i&gt;rules&lt;/i&gt;?" in words(app)
    assert [e.strength for e in engine.asked[-1]["edits"]] == [2.0, 1.0]
    assert "recorded" not in words(app).split("</style>")[-1]


def test_without_a_model_recorded_answers_are_played_and_the_question_is_skipped(cache: Cache, use):
    record(cache)
    use(error=ModelError("There is no model here", do="Fetch it"))
    app = run_page("present", step="3")
    assert "Once recorded steered 0.5" in plain(app)
    assert ">recorded</span>" in words(app)
    assert "Once recorded steered 2.0" in plain(press(app, "next"))
    assert step(press(app, "next")) == "5"  # the question needs a live model
    app = run_page("present", step="4")
    assert "needs a live model" in words(app)
    assert "There is no model here" in words(app)


def test_without_a_model_and_without_recordings_a_step_is_marked_and_skipped(cache: Cache, use):
    use(error=ModelError("There is no model here"))
    assert step(press(run_page("present", step="2"), "next")) == "5"
    app = run_page("present", step="3")
    assert "needs a live model" in words(app)
    assert app.button(key="present-load")


def test_a_model_that_keeps_the_room_waiting_gives_way_to_the_recording(cache: Cache, use, monkeypatch):
    record(cache)
    engine = use()
    monkeypatch.setattr(replay, "SLOW", 0.05)
    monkeypatch.setattr(engine.live, "enter", lambda ticket, stop: [stop() for _ in iter(stop, True)] and False)
    app = run_page("present", step="3")
    assert "Once recorded steered 0.5" in plain(app)
    assert ">recorded</span>" in words(app)


def test_an_answer_that_breaks_off_at_once_gives_way_to_the_recording(cache: Cache, use, monkeypatch):
    record(cache)
    engine = use()

    def fails(*_, **__):
        raise ModelError("Something broke")

    monkeypatch.setattr(engine, "stream", fails)
    assert "Once recorded steered 0.5" in plain(run_page("present", step="3"))


def test_a_question_from_the_room_is_answered_twice(cache: Cache, use):
    engine = use()
    app = run_page("present", step="4")
    app.text_input(key="present-question").input("What is <b>love</b>?")
    app.button[[b.label for b in app.button].index("Ask")].click().run()
    assert not app.exception
    assert engine.asked[-1]["messages"][-1]["content"] == "What is <b>love</b>?"
    assert "What is &lt;b&gt;love&lt;/b&gt;?" in words(app)
    assert words(app).count('class="ans ') == 2


def test_a_question_is_asked_though_another_request_ends_the_script_before_it_is_drawn(cache: Cache, use, monkeypatch):
    engine, touches = use(), Touches(monkeypatch)
    app = run_page("present", step="4")
    ask = next(b for b in app.button if b.label == "Ask")
    app.text_input(key="present-question").input("Who?")
    ask.click().run()
    asked = len(engine.asked)
    touches.at = touches.seen - 1  # the press has been taken in, and nothing has been drawn
    app.text_input(key="present-question").input("What is love?")
    next(b for b in app.button if b.label == "Ask").click().run()
    assert not app.exception
    assert len(engine.asked) == asked + 1
    assert engine.asked[-1]["messages"][-1]["content"] == "What is love?"
    assert "What is love?" in words(app)


def test_blank_hides_everything_and_moving_on_ends_it(cache: Cache, use):
    use()
    app = press(run_page("present"), "blank-key")
    assert 'class="present-blank"' in words(app)
    assert 'class="present-blank"' not in words(press(app, "next"))


def test_leave_goes_to_overview_and_coming_back_finds_the_step(cache: Cache, use):
    use()
    app = press(press(run_page("present", step="2"), "next"), "leave")
    assert app.session_state["_page"] == "overview"
    app.switch_page("views/present.py").run()
    assert step(app) == "3"


def test_a_mistake_in_a_script_is_named_and_the_others_are_offered(cache: Cache):
    mine = scripts.own() / "mine.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('[[step]]\nkind = "movie"\ntitle = "x"')
    app = run_page("present", script="mine")
    assert not app.exception
    assert "Step 1 (line 1)" in words(app)
    assert "kind &#x27;movie&#x27;" in words(app)
    app.button(key="present-open-script").click().run()
    assert "Hello &lt;b&gt;room" in words(app)
    assert "There is no script" in words(run_page("present", script="none"))


def test_a_cache_without_a_script_says_how_to_write_one(cache: Cache):
    (cache.path / scripts.FOLDER / "script.toml").unlink()
    app = run_page("present")
    assert "No script for this cache yet" in words(app)
    example = cache.path / scripts.FOLDER / "mine.toml"
    example.write_text(next(code.value for code in app.code))
    assert [step.kind for step in scripts.load(example, cache).steps] == ["text", "steer"]


def test_blur_is_on_in_present_whatever_was_chosen_elsewhere(cache: Cache, use):
    use()
    app = run_page()
    app.toggle(key="blur-words").set_value(False).run()
    assert "--veil: none" in words(app)
    app.switch_page("views/present.py").run()
    assert "--veil: none" not in words(app)
    assert "Blur offensive words in Present" in [t.label for t in app.toggle]
    app.toggle(key="blur-words").set_value(False).run()
    assert "--veil: none" in words(app)
    app.switch_page("views/browse.py").run()
    assert "--veil: none" in words(app)


def test_the_words_of_a_script_and_of_a_question_are_veiled_and_escaped(cache: Cache):
    assert "idiot</span>" in words(run_page("present"))
    for text in HOSTILE:
        html = screens.heading(text.decode(), text.decode()) + screens.prompt(text.decode())
        assert not {"<script", "<img", "<b>"} & {html[i : i + 7] for i in range(len(html))}


def test_a_replay_keeps_the_pace_of_its_recording():
    now = [0.0]
    said = {"baseline": Recorded(("a", "b", "c"), (0.5, 1.0, 3.0)), "steered": Recorded(("x",), (0.5,))}
    told = Replay(said, clock=lambda: now[0])
    seen = []
    for now[0] in (0.4, 0.6, 1.0, 2.9, 3.0):
        seen.append(told.answers()["baseline"].text)
    assert seen == ["", "a", "ab", "ab", "abc"]
    assert told.over
    now[0] = 0.0
    whole = Replay(said, {"baseline"}, lambda: now[0])
    assert whole.answers()["baseline"].ended
    assert not whole.over


def test_a_recorded_loop_is_cut_where_it_begins_to_repeat():
    pieces = ("a", *(" b", " c", " d", " e") * 5)
    told = Replay({"steered": Recorded(pieces, tuple(float(n) for n in range(len(pieces))))}, {"steered"})
    answer = told.answers()["steered"]
    assert answer.looped
    assert len(answer.pieces) < len(pieces)


def test_what_the_toxicity_judge_takes_for_an_insult_is_its_own_to_say(cache: Cache, use, monkeypatch):
    run = Run(use(), Question("Who?", "", (), "answer", Sampling()))
    assert screens.toxic(run) == frozenset(), "nobody has judged yet"
    run.scores = {"baseline": {"toxicity": 0.6}, "steered": {"toxicity": 0.8}, "random": {}}
    assert screens.toxic(run) == {"baseline", "steered"}
    strict = replace(judges()["toxicity"], threshold=0.7)
    monkeypatch.setattr(screens, "judges", lambda: {"toxicity": strict})
    assert screens.toxic(run) == {"steered"}


def test_an_answer_that_a_judge_takes_for_insults_is_veiled_whole():
    html = screens.answers(
        {"steered": replay.Answer(["You", " are dull.", " And", " grey!"], True)}, "", "", frozenset({"steered"})
    )
    assert html.count('class="blur"') == 2
    assert "You" in html


def test_present_is_where_blurring_has_a_choice_of_its_own():
    from app.main import PAGES

    assert state.PRESENT in {page.url for page in PAGES}
