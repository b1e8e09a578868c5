"""The Steer page without a browser and without a model: links, sliders, presets, runs, failures."""

import csv
import io
import json
import re
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import answers, desk, direction_form, resources, session_files, settings
from app.runs import Answer, Question, Run
from app.settings import Settings, Slider
from explorer import causing, directions, judging, presets, steering
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ModelError, SteeringError
from explorer.presets import Preset
from explorer.records import Edit, Sampling
from explorer.steering import STEERING_MODES
from tests.helpers_app import run_page, words
from tests.helpers_bench import strip
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_steer import FakeEngine

TEXTS = [text.decode() for text in HOSTILE if b"\0" not in text]


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


@pytest.fixture
def use(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    """Put a fake engine behind the app."""

    def put(**options) -> FakeEngine:
        engine = FakeEngine(cache, **options)
        monkeypatch.setattr(resources, "engine", lambda name: engine)
        return engine

    return put


def click(app: AppTest, key: str) -> AppTest:
    return app.button(key=f"steer-{key}").click().run()


def grid(app: AppTest) -> str:
    return next(h.value for h in app.html if 'class="answers"' in h.value)


def link_of(app: AppTest) -> str:
    """What Share offers."""
    return next(c.value for c in app.code if "steer?" in c.value)


def said(app: AppTest, name: str) -> str:
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def run(engine: FakeEngine, before: Run | None = None, **changes) -> Run:
    asked = {"prompt": "Hello", "system": "", "edits": (Edit(2),), "positions": "answer", "sampling": Sampling()}
    made = Run(engine, Question(**{**asked, **changes}), before).start()
    assert made.wait(10)
    return made


# --- links

FULL = Settings(
    (
        Slider(Edit(17, 1.5)),
        Slider(Edit(8, -1.0), on=False),
        Slider(Edit(9, 2.0, "clamp")),
        Slider(Edit(4, 1, "ablate")),
    ),
    "Why?\n  <b>&amp; 100%=+#</b> 東京",
    "Be brief.",
    "all",
    Sampling(33, 0.0, 0.8, 1.25, 12345),
)


def test_a_link_holds_every_setting(cache: Cache):
    query = settings.write(FULL)
    assert query["edits"] == "17:1.5:add,8:-1:add:off,9:2:clamp,4:1:ablate"
    assert settings.read(query, cache) == (FULL, [])


def test_what_is_as_always_is_not_in_the_link(cache: Cache):
    assert settings.write(Settings()) == {"edits": "none"}
    assert settings.read({"edits": "none"}, cache) == (Settings(), [])


@pytest.mark.parametrize(
    ("edits", "left"),
    [
        ("drop table", []),
        ("1:nan:add,2:inf,3:1:add", [3]),
        ("1:1:fly,-4,60,5", [5]),
        ("7,7:2:add,8", [7, 8]),
        ("1:1:add:off:x,2:1:add:maybe,3::add,4", [4]),
        (",".join(map(str, range(20))), list(range(16))),
        ("99999999999999999999", []),
    ],
)
def test_nonsense_in_a_link_is_named_and_left_out(cache: Cache, edits: str, left: list[int]):
    read, bad = settings.read({"edits": edits}, cache)
    assert [s.edit.feature for s in read.sliders] == left
    assert bad


def test_a_joint_undo_has_room_on_the_page():
    assert settings.MOST_SLIDERS >= causing.MOST


def test_strengths_are_kept_on_their_sliders(cache: Cache):
    read, _ = settings.read({"edits": "1:99,2:-99,3:-2:clamp,4:7:ablate,5:-0"}, cache)
    assert [s.edit.strength for s in read.sliders] == [3, -3, 0, 1, 0]
    assert settings.write(read)["edits"] == "1:3:add,2:-3:add,3:0:clamp,4:1:ablate,5:0:add"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "-1"),
        ("seed", "x"),
        ("temperature", "nan"),
        ("top_p", "2"),
        ("max_tokens", "1e99"),
        ("positions", "up"),
    ],
)
def test_numbers_out_of_bounds_are_as_always(cache: Cache, name: str, text: str):
    read, bad = settings.read({"edits": "1", name: text}, cache)
    assert (read.sampling, read.positions) == (Sampling(), "answer")
    assert name in bad[0]


def test_a_strength_preset_moves_the_strongest_and_the_others_in_proportion():
    sliders = (
        Slider(Edit(1, 2.0)),
        Slider(Edit(2, -1.0)),
        Slider(Edit(3, 3.0), on=False),
        Slider(Edit(4, 1, "ablate")),
    )
    assert [s.edit.strength for s in Settings(sliders).scaled(1.0).sliders] == [1.0, -0.5, 3.0, 1]
    assert [s.edit.strength for s in Settings(sliders).scaled(-1.0).sliders] == [-1.0, 0.5, 3.0, 1]
    assert Settings((Slider(Edit(1, 0.0)),)).scaled(1.5).edits == (Edit(1, 1.5),)


# --- the page


def test_a_link_restores_the_page(cache: Cache, use):
    use()
    app = run_page("steer", **settings.write(FULL))
    assert not app.exception
    assert app.text_area(key="steer-prompt").value == FULL.prompt
    assert app.text_area(key="steer-system").value == "Be brief."
    assert [app.slider(key=f"steer-strength-{f}").value for f in ("17-add", "8-add", "9-clamp")] == [1.5, -1.0, 2.0]
    assert [app.checkbox(key=f"steer-on-{f}").value for f in (17, 8, 9, 4)] == [True, False, True, True]
    assert app.selectbox(key="steer-mode-4").value == "ablate"
    numbers = {name: app.number_input(key=f"steer-{name}").value for name in settings.BOUNDS}
    assert Sampling(**numbers) == FULL.sampling
    assert "not run yet" in grid(app)


def test_nonsense_in_the_link_is_said_on_the_page_as_text(cache: Cache, use):
    use()
    app = run_page("steer", edits="<img src=x>,3:1:add", seed="<script>")
    assert not app.exception
    assert "&lt;img src=x&gt;" in words(app)
    assert "<img" not in words(app)
    assert app.slider(key="steer-strength-3-add").value == 1.0


def test_the_first_visit_is_ready_and_nothing_runs_by_itself(cache: Cache, use):
    engine = use()
    app = run_page("steer")
    strongest = int(cache.frame["max"].to_numpy().argmax())
    assert app.slider(key=f"steer-strength-{strongest}-add").value == 1.0
    assert not engine.asked
    resources.labels().put(cache.manifest.sae_fingerprint, 7, "royalty")
    assert run_page("steer").slider(key="steer-strength-7-add").value == 1.0


def test_a_run_paints_both_answers_and_marks_what_they_share(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:1.5:add", prompt="Who are you?"), "go")
    assert not app.exception
    shown = grid(app)
    assert "I will help." in shown
    assert '<span class="same">I will</span> rule you!' in shown
    assert "Steered +1.50" in shown
    asked = engine.asked[0]
    assert asked["messages"] == [{"role": "user", "content": "Who are you?"}]
    assert asked["edits"] == (Edit(3, 1.5),)


def test_a_moved_slider_runs_again_and_keeps_the_baseline(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:1.5:add"), "go")
    app.slider(key="steer-strength-3-add").set_value(-0.5).run()
    assert said(app, "edits") == "3:-0.5:add"
    assert [a["baseline"] for a in engine.asked] == [True, False]
    assert "reused, 4 tokens" in grid(app)
    app.number_input(key="steer-seed").set_value(5).run()
    assert engine.asked[2]["baseline"]
    assert engine.asked[2]["sampling"].seed == 5


def test_a_typed_prompt_waits_for_run_and_the_page_says_so(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:1:add"), "go")
    app.text_area(key="steer-prompt").set_value("Another question").run()
    assert len(engine.asked) == 1
    assert "press Run" in grid(app)
    click(app, "go")
    assert engine.asked[1]["messages"][-1]["content"] == "Another question"
    assert said(app, "prompt") == "Another question"


def test_features_are_found_added_muted_and_taken_away(cache: Cache, use):
    engine = use()
    app = run_page("steer", edits="3:1:add")
    app.text_input(key="steer-find").set_value("#9").run()
    click(app, "found-9")
    assert said(app, "edits") == "3:1:add,9:1:add"
    app.checkbox(key="steer-on-3").uncheck().run()
    assert engine.asked[-1]["edits"] == (Edit(9),)
    app.selectbox(key="steer-mode-9").set_value("ablate").run()
    assert engine.asked[-1]["edits"] == (Edit(9, 1.0, "ablate"),)
    click(app, "away-3")
    assert said(app, "edits") == "9:1:ablate"
    click(app, "away-9")
    assert said(app, "edits") == "none"
    assert not app.exception
    assert "both answers will be the same" in words(app)


def test_strength_presets_move_the_sliders(cache: Cache, use):
    use()
    app = run_page("steer", edits="3:1:add,4:-0.5:add")
    click(app, "scale-2.5")
    assert said(app, "edits") == "3:2.5:add,4:-1.25:add"
    assert app.slider(key="steer-strength-4-add").value == -1.25


def test_a_persona_fills_sliders_prompt_and_places(cache: Cache, use):
    engine = use()
    edits = (Edit(5, 2.0), Edit(6, 0.5, "clamp"))
    presets.save(cache, Preset("grim", "Grim *one* <b>", "", edits, prompt="Speak.", positions="all"))
    app = run_page("steer", edits="3:1:add")
    pills = app.pills(key="steer-persona")
    pills.set_value("grim").run()
    assert said(app, "edits") == "5:2:add,6:0.5:clamp"
    assert (engine.asked[-1]["edits"], engine.asked[-1]["positions"]) == (edits, "all")
    assert app.text_area(key="steer-prompt").value == "Speak."
    assert app.pills(key="steer-persona").value == "grim"
    app.slider(key="steer-strength-5-add").set_value(1.0).run()
    assert app.pills(key="steer-persona").value is None


def test_a_preset_of_ones_own_is_saved_and_removed(cache: Cache, use):
    use()
    app = run_page("steer", edits="3:1.5:add,4:1:add:off")
    app.text_input(key="steer-preset-name").set_value("mine [x](y)").run()
    click(app, "preset-save")
    assert [(p.name, p.edits) for p in presets.load(cache)] == [("mine [x](y)", (Edit(3, 1.5),))]
    click(app, "forget-0")
    assert presets.load(cache) == []
    click(app, "preset-save")
    assert "is no name" in words(app)


def test_the_share_link_has_every_setting(cache: Cache, use):
    use()
    app = run_page("steer", edits="3:1.5:add:off", prompt="a & b", seed="9")
    link = link_of(app)
    assert "edits=3%3A1.5%3Aadd%3Aoff" in link
    assert "prompt=a+%26+b" in link
    assert "seed=9" in link


def test_strengths_are_told_in_all_three_units(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:2:add,6:0.5:clamp,7:1:ablate,5:1:add"), "go")
    raw = 2 * cache.feature(3).max
    shown = words(app)
    assert f"raw coefficient <b>+{raw:.3g}</b>" in shown
    assert f"SAELens <b>+{2 * raw:.3g}" in shown or f"SAELens <b>+{2 * raw:,.0f}" in shown
    assert f"<b>+{2 * raw / engine.median_norm:.2f}</b> residual norms" in shown
    assert f"held at activation <b>{0.5 * cache.feature(6).max:.3g}" in shown
    assert "never fires in the corpus" in shown


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_prompts_and_answers_are_text(cache: Cache, use, text: str):
    use(baseline=[text], steered=[text, " more"])
    app = click(run_page("steer", edits="3:1:add", prompt=text, system=text), "go")
    assert not app.exception
    assert "<script>alert" not in words(app)
    assert "<img" not in words(app)
    assert app.text_area(key="steer-prompt").value == text


def test_no_model_is_an_error_in_three_parts_and_run_tries_again(cache: Cache, use):
    engine = use(error=ModelError("The model is not here", expected="a folder", do="Fetch it"))
    app = click(run_page("steer", edits="3:1:add"), "go")
    assert not app.exception
    shown = words(app)
    assert all(part in shown for part in ("The model is not here", "Expected: a folder", "Fetch it"))
    assert app.slider(key="steer-strength-3-add").value == 1.0
    engine.load_error = None
    click(app, "retry")
    app.run()
    assert "rule you!" in grid(app)
    assert "The model is not here" not in words(app)


def test_a_generation_that_breaks_keeps_what_it_had(cache: Cache, use):
    use(breaks=RuntimeError("CUDA out of memory. Tried to allocate"))
    app = click(run_page("steer", edits="3:1:add"), "go")
    assert "Lower the number of tokens" in words(app)
    assert "broke off" in grid(app)
    assert ">I</p>" in grid(app) or ">I</span></p>" in grid(app)


def test_an_empty_prompt_is_refused_in_words(cache: Cache, use):
    engine = use()
    app = click(run_page("steer", edits="3:1:add", prompt=" "), "go")
    assert "There is no prompt" in words(app)
    assert not engine.asked


def test_a_loop_is_cut_and_a_milder_strength_is_offered(cache: Cache, use):
    engine = use(steered=["the", " sea", " is", " cold"] * 20)
    app = click(run_page("steer", edits="3:2.5:add"), "go")
    assert "the sea is coldthe sea is cold <span" in grid(app)
    assert "repeats from here, stopped" in grid(app)
    assert "stopped after 8 tokens" in grid(app)
    click(app, "calm")
    assert engine.asked[-1]["edits"] == (Edit(3, 1.0),)


def test_a_link_that_lags_behind_undoes_nothing(cache: Cache, use):
    use()
    app = run_page("steer", edits="3:1:add", prompt="Before")
    app.text_area(key="steer-prompt").input("After").run()
    app.query_params["prompt"] = "Before"  # as a browser sends it that has not heard of the change yet
    app.run()
    assert app.text_area(key="steer-prompt").value == "After"
    assert said(app, "prompt") == "After"
    app.query_params["prompt"] = "Before"
    click(app, "go")
    assert "settings have changed since" not in grid(app)
    assert app.session_state["steer-desk"].run.question.prompt == "After"


def test_a_run_that_was_given_up_is_begun_again_when_somebody_looks(cache: Cache, use):
    use()
    app = click(run_page("steer", edits="3:1:add", prompt="Hello"), "go")
    held = app.session_state["steer-desk"]
    lost = Run(held.run.engine, held.run.question)
    lost._finish("stopped", abandoned=True)
    held.run = lost
    app.run()
    assert held.run.phase == "done"
    assert "I will rule you!" in re.sub("<[^>]*>", "", grid(app))
    held.run = stopped = Run(lost.engine, lost.question)
    stopped.stop()  # by somebody who meant it
    stopped._judged.set()
    app.run()
    assert held.run is stopped


def test_a_session_runs_one_script_at_a_time():
    config = tomllib.loads((Path(desk.__file__).parent / ".streamlit" / "config.toml").read_text())
    assert config["runner"]["fastReruns"] is False


# --- runs


def test_stop_ends_within_a_token_and_keeps_the_text(cache: Cache):
    engine = FakeEngine(cache, endless=True)
    going = Run(engine, Question("Hello", "", (Edit(1),), "answer", Sampling())).start()
    until(lambda: len(going.steered.pieces) >= 5)
    going.stop()
    n = len(going.steered.pieces)
    assert engine.closed.wait(2)
    assert (going.phase, len(going.steered.pieces)) == ("stopped", n)
    assert f"stopped after {n} tokens" in answers.grid(going)


def test_a_run_that_nobody_watches_ends_by_itself(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.runs.PATIENCE", 0.1)
    engine = FakeEngine(cache, endless=True)
    going = Run(engine, Question("Hello", "", (), "answer", Sampling())).start()
    assert going.wait(5)
    assert engine.closed.wait(2)
    assert going.phase == "stopped"


def test_the_next_run_stops_the_one_before_and_its_words_stay_until_new_ones_come(cache: Cache):
    engine = FakeEngine(cache)
    first = run(engine)
    second = Run(engine, Question("Other", "", (Edit(2),), "answer", Sampling()), first)
    assert not second.reused
    assert '<p class="stale">I will rule you!</p>' in answers.grid(second)
    third = run(engine, first, edits=(Edit(2, -1.0),))
    assert third.reused
    assert third.baseline.text == "I will help."


def test_a_baseline_that_was_cut_short_is_decoded_again(cache: Cache):
    engine = FakeEngine(cache, endless=True)
    first = Run(engine, Question("Hello", "", (Edit(2),), "answer", Sampling())).start()
    until(lambda: first.baseline.pieces)
    second = Run(engine, Question("Hello", "", (Edit(2, 2.0),), "answer", Sampling()), first)
    assert first.phase == "stopped"
    assert not second.reused


def test_a_model_without_a_chat_template_is_given_plain_text():
    question = Question("Who?", "Be brief.", (), "answer", Sampling())
    assert question.messages(chat=False) == "Be brief.\n\nWho?"
    assert question.messages(chat=True)[0] == {"role": "system", "content": "Be brief."}


# --- answers


def test_swearing_is_veiled_and_can_be_focused():
    html = answers.prose(["You ", "id", "iot", "!"])
    assert html.count('class="blur" tabindex="0"') == 1
    assert ">idiot</span>!" in html


def test_a_veiled_word_may_be_cut_by_the_end_of_the_shared_part():
    html = answers.prose(["id", "iot", "!"], same=1)
    assert ">id</span></span>" in html
    assert ">iot</span>!" in html


def test_control_characters_cannot_reach_beyond_their_answer():
    html = answers.prose(["\u202eabc\x00\x1b<b>"])
    assert "\u202e" not in html
    assert "abc\ufffd\ufffd&lt;b&gt;" in html


def test_the_token_that_ends_an_answer_is_not_counted():
    answer = Answer()
    for piece in ("Hi", "", None, "more"):
        answer.take(piece)
    assert (answer.pieces, answer.ended) == (["Hi"], True)


def test_the_rest_of_a_character_is_no_token_of_its_own():
    answer = Answer(most=2)
    for piece in ("Hi", "", "\ufffd", None):
        answer.take(piece)
    assert answer.pieces == ["Hi", "\ufffd"]


# --- directions


def made_direction(cache: Cache, name: str = "grim", **changes) -> Direction:
    made = cache.manifest
    facts = {"n_positive": 30, "n_negative": 31, "auroc": 0.97, "nearest": [(4, 0.61)]}
    asked = {
        "title": f"Rather {name}",
        "hook_point": made.hook_point,
        "vector": np.full(8, 0.5, np.float32),
        "base": 0.1,
    }
    return Direction(name=name, **{**asked, **changes}, model_fingerprint=made.model_fingerprint, facts=facts)


def test_a_direction_stands_in_a_link_beside_features(cache: Cache):
    both = Settings((Slider(Edit(direction="grim", strength=-1.5)), Slider(Edit(3, 1, "ablate"))))
    query = settings.write(both)
    assert query["edits"] == "~grim:-1.5:add,3:1:ablate"
    assert settings.read(query, cache, directions=["grim"]) == (both, [])
    read, bad = settings.read(query, cache)
    assert read.edits == (Edit(3, 1, "ablate"),)
    assert bad == ["direction ~grim (there is none of that name here)"]


def test_a_direction_has_a_slider_of_its_own_and_is_marked(cache: Cache, use):
    engine = use()
    directions.save(cache, made_direction(cache))
    app = run_page("steer", edits="~grim:1:add,3:0.5:add")
    app.slider(key="steer-strength-~grim-add").set_value(1.5).run()
    assert engine.asked[-1]["edits"] == (Edit(direction="grim", strength=1.5), Edit(3, 0.5))
    assert said(app, "edits") == "~grim:1.5:add,3:0.5:add"
    shown = words(app)
    assert '<span class="tag direction">direction</span>' in shown
    assert "separation 0.97" in shown
    assert steering.ONE_MEANS["direction"] in shown
    assert "Rather grim" in shown
    click(app, "away-~grim")
    app.text_input(key="steer-find").set_value("rather").run()
    click(app, "found-~grim")
    assert said(app, "edits") == "3:0.5:add,~grim:1:add"


def test_a_direction_is_made_of_two_boxes_and_says_what_it_tells_apart(
    cache: Cache, use, monkeypatch: pytest.MonkeyPatch
):
    engine, asked = use(), []

    def make(positive, negative, hook_point, *, name, nearest):
        asked.append((positive, negative, hook_point, name))
        return made_direction(cache, name, title=name)

    monkeypatch.setattr(engine, "make_direction", make)
    app = run_page("steer", edits="3:1:add")
    app.text_area(key="steer-dir-with").set_value("Kneel!\n\n  Tremble!  ").run()
    app.text_area(key="steer-dir-without").set_value("Tea?").run()
    app.text_input(key="steer-dir-name").set_value("villain").run()
    click(app, "dir-go")
    until(lambda: directions.known(cache))
    app.run()
    layer = cache.manifest.hook_point.split(".")[1]
    assert asked == [(["Kneel!", "Tremble!"], ["Tea?"], f"blocks.{layer}.hook_resid_post", "villain")]
    shown = words(app)
    assert "AUROC <b>0.97</b>" in shown
    assert 'href="feature?feature=4"' in shown
    assert "+0.61" in shown
    click(app, "dir-add")
    assert said(app, "edits") == "3:1:add,~villain:1:add"
    click(app, "away-~villain")
    click(app, "dir-forget-villain")
    assert not directions.known(cache)


def test_what_a_direction_cannot_be_made_of_is_said(cache: Cache, use):
    use()
    app = click(run_page("steer", edits="3:1:add"), "dir-go")
    until(lambda: app.session_state["direction-job"].over)
    app.run()
    assert 'role="alert"' in words(app)
    assert not directions.known(cache)


def test_a_table_of_texts_is_read_by_its_labels():
    table = 'text,label\n"Kneel, all!",1\nTea?,0\n'.encode("utf-8-sig")
    assert direction_form.texts_of("Tremble!", "", table) == (["Tremble!", "Kneel, all!"], ["Tea?"])
    for broken in (b"text,label\nx,maybe\n", b"a,b\n1,2\n", b"\xff\xfe"):
        with pytest.raises(SteeringError, match="cannot be read"):
            direction_form.texts_of("", "", broken)


# --- modes


@pytest.mark.parametrize("mode", STEERING_MODES)
def test_every_mode_has_a_slider_of_its_range_and_says_what_it_does(cache: Cache, use, mode: str):
    engine = use()
    directions.save(cache, made_direction(cache))
    app = run_page("steer", edits=f"3:1:{mode},~grim:1:{mode}")
    assert not app.exception
    told = STEERING_MODES[mode]
    sliders = [s for s in app.slider if s.key.startswith("steer-strength-")]
    assert [(s.min, s.max) for s in sliders] == [(told.lowest, told.highest)] * 2 * told.uses_strength
    assert f"<dt>{told.label} <span>{told.unit}</span></dt><dd>{escape(told.help)}</dd>" in words(app)
    click(app, "go")
    assert engine.asked[-1]["edits"] == (Edit(3, 1, mode), Edit(direction="grim", mode=mode))


def test_only_the_first_token_of_the_answer_can_be_steered(cache: Cache, use):
    engine = use()
    app = run_page("steer", edits="3:1:add")
    app.segmented_control(key="steer-positions").set_value("first").run()
    assert engine.asked[-1]["positions"] == said(app, "positions") == "first"


# --- conversations


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


# --- earlier runs and files


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


# --- the share link


def test_a_link_of_another_model_or_sae_warns_and_names_both(cache: Cache, use):
    use()
    here = settings.stamp(cache.manifest)
    app = run_page("steer", edits="3:1:add", m="feedface", s="deadbeef")
    warning = next(h.value for h in app.html if "This link was made" in h.value)
    for part in ("feedface", "deadbeef", here["m"], here["s"], escape(cache.manifest.model)):
        assert part in warning
    assert "This link was made" not in words(run_page("steer", edits="3:1:add", **here))
    link = link_of(app)
    assert f"m={here['m']}&s={here['s']}" in link


def test_the_link_says_which_history_whether_controls_come_along_and_whether_text_is_plain(cache: Cache):
    both = Settings(shared=True, controls=True, plain=True)
    assert settings.write(both) == {"edits": "none", "history": "shared", "controls": "1", "plain": "1"}
    assert settings.read(settings.write(both), cache) == (both, [])


# --- sentences that answer without documentation


def test_the_page_says_what_one_means_whether_text_is_broken_and_what_a_random_push_does(cache: Cache, use):
    use()
    app = click(run_page("steer", edits="3:1:add"), "go")
    shown = words(app)
    assert "1.0 is the feature&#x27;s own maximum: as strong as the strongest place in the whole corpus." in shown
    assert f"Is this text broken? {judging.COHERENT_RULE}" in shown
    assert "Would a random push do the same?" in shown


def judged(cache: Cache, *, looped: bool = False, **scores: float) -> Run:
    made = run(FakeEngine(cache))
    made.steered.looped = looped
    made.scores = {"baseline": {}, "steered": scores}
    return made


def test_an_answer_bears_its_scores_in_words(cache: Cache):
    html = answers.grid(judged(cache, fluency=0.93, malice=0.97, repetition=0.04, perplexity=12.3, loops=0.0))
    for part in (">whole text</span> fluency 0.93", "<b>malice 0.97</b>", "repetition 4.00 %", "perplexity 12.3"):
        assert part in html
    assert "The steered answer is whole." in answers.is_it_broken(judged(cache, fluency=0.9))


@pytest.mark.parametrize(("looped", "fluency"), [(False, 0.2), (True, 0.9)])
def test_a_broken_answer_is_called_broken(cache: Cache, looped: bool, fluency: float):
    made = judged(cache, looped=looped, fluency=fluency)
    assert ">broken text</span>" in answers.grid(made)
    assert "<b>The steered answer is broken.</b>" in answers.is_it_broken(made)


def test_without_judges_nothing_is_said_of_scores(cache: Cache):
    assert "judged" not in answers.grid(judged(cache))
    assert "judged" not in answers.grid(judged(cache, perplexity=float("nan"), unknown=1.0))


def test_controls_come_along_when_asked(cache: Cache, use, monkeypatch: pytest.MonkeyPatch):
    engine = use()
    pushes = [SimpleNamespace(name=f"random {n}", kind="random", edits=(Edit(5),), directions={}) for n in range(3)]
    monkeypatch.setattr(engine, "controls", lambda edits, seed: pushes)
    app = run_page("steer", edits="3:1:add")
    app.checkbox(key="steer-controls").check().run()
    assert said(app, "controls") == "1"
    assert engine.asked[-1]["others"] == [(Edit(5),)] * 3
    assert words(app).count('class="push random"') == 3


def test_a_dose_strip_stands_under_each_slider_that_pushes(cache: Cache, use, monkeypatch: pytest.MonkeyPatch):
    engine = use()
    monkeypatch.setattr(engine, "dosed", lambda edits, positions: {e.target: strip(edits) for e in edits})
    app = run_page("steer", edits="3:1:add:off,4:1:ablate,5:0.5:add,6:1:add")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 2  # not of the muted one, nor of the one without a strength
    assert words(app).count("Coherent from") == 2


def test_a_run_in_the_queue_says_how_long(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    waits = Run(FakeEngine(cache), Question("Hello", "", (), "answer", Sampling()))
    monkeypatch.setattr(Run, "phase", "queued")
    monkeypatch.setattr(Run, "ahead", (2, 6.2))
    assert answers.grid(waits).count("2 ahead, about 6 s") == 2
