"""The Steer page without a browser and without a model: links, sliders, presets, runs, failures."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import answers, resources, settings
from app.runs import Answer, Question, Run
from app.settings import Settings, Slider
from explorer import presets
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.presets import Preset
from explorer.records import Edit, Sampling
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_steer import FakeEngine

TEXTS = [text.decode() for text in HOSTILE if b"\0" not in text]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """One made-up cache and nothing else."""
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(tmp_path / "caches"))
    monkeypatch.setenv("PERSONA_EXPLORER_WARMUP", "0")
    monkeypatch.setattr(resources, "ROOT", tmp_path / "elsewhere")
    (tmp_path / "caches").mkdir()
    yield Cache.open(fake_cache(tmp_path / "caches" / "made-up", 60))
    for cached in (resources._open, resources._labels, resources._engine):
        cached.clear()


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
        ("0,1,2,3,4,5,6,7", [0, 1, 2, 3, 4, 5]),
        ("99999999999999999999", []),
    ],
)
def test_nonsense_in_a_link_is_named_and_left_out(cache: Cache, edits: str, left: list[int]):
    read, bad = settings.read({"edits": edits}, cache)
    assert [s.edit.feature for s in read.sliders] == left
    assert bad


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
    link = next(c.value for c in app.code if "steer?" in c.value)
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
