"""The Steer page without a browser and without a model: links, sliders, presets, runs, failures."""

import re
import tomllib
from html import escape
from pathlib import Path
from types import SimpleNamespace

import pytest

from app import desk, direction_form, resources, settings
from app.runs import Run
from explorer import directions, judging, presets, steering
from explorer.cache import Cache
from explorer.errors import ModelError, SteeringError
from explorer.presets import Preset
from explorer.records import Edit, Sampling
from explorer.steering import STEERING_MODES
from tests.helpers import until
from tests.helpers_app import run_page, words
from tests.helpers_bench import strip
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_steer import FULL, click, engine_in, grid, link_of, made_direction, said

TEXTS = [text.decode() for text in HOSTILE if b"\0" not in text]


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


@pytest.fixture
def use(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    return engine_in(cache, monkeypatch)


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


# --- directions


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


# --- sentences that answer without documentation


def test_the_page_says_what_one_means_whether_text_is_broken_and_what_a_random_push_does(cache: Cache, use):
    use()
    app = click(run_page("steer", edits="3:1:add"), "go")
    shown = words(app)
    assert "1.0 is the feature&#x27;s own maximum: as strong as the strongest place in the whole corpus." in shown
    assert f"Is this text broken? {judging.COHERENT_RULE}" in shown
    assert "Would a random push do the same?" in shown


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
