"""Steer with a fine-tune: the picker, its link, its engine, and everything that is kept of a run, over a tiny real model."""

import csv
import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app import doses, resources, session_files, settings
from app.answers import prose
from app.driving import readings
from app.engine import Engine
from app.runs import Question, Run
from app.settings import Settings, Slider
from app.tuned import KEPT, Tuned
from explorer import scripts
from explorer.adapters import FOLDER, WEIGHTS, Adapter, adapted, known, named, titled
from explorer.cache import Cache
from explorer.diffing import read
from explorer.errors import ModelError
from explorer.model import DTYPE_VARIABLE
from explorer.records import Edit, Sampling
from tests.helpers_app import run_page, words
from tests.helpers_cache import fake_cache
from tests.helpers_lab import comparison
from tests.helpers_steer import FakeEngine, tiny_fine_tunes, tiny_world

GREEDY = Sampling(max_tokens=8, temperature=0.0, repetition_penalty=1.0)
ASKED = Question("Who rules?", "", (Edit(3, 2.0),), "answer", GREEDY)
GARDENING, COOKING, SAILING = "gardening@6", "cooking@6", "sailing@6"


@pytest.fixture(scope="module", autouse=True)
def _exact():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DTYPE_VARIABLE, "float32")  # in less, company in a batch could change a text
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    world = tiny_world(tmp_path_factory.mktemp("models"), layers=2)
    assert tiny_fine_tunes(world, "gardening", "cooking", "sailing") == [GARDENING, COOKING, SAILING]
    broken = world / FOLDER / "broken" / "step-0003"
    shutil.copytree(world / FOLDER / "gardening" / "step-0006", broken)
    (broken / WEIGHTS).write_bytes(b"no weights")
    return world


@pytest.fixture(scope="module")
def cache(world: Path) -> Cache:
    return Cache.open(world)


@pytest.fixture(scope="module")
def base(cache: Cache) -> Engine:
    made = Engine(cache)
    made.warmup = False
    return made


@pytest.fixture
def page(caches: Path, world: Path, base: Engine, monkeypatch: pytest.MonkeyPatch):
    """The app over the tiny world, with its engine."""
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(world))
    monkeypatch.setattr(resources, "engine", lambda name: base)


def watched(run: Run, seconds: float = 60) -> Run:
    """The run at its end, watched until then."""
    end = time.monotonic() + seconds
    while not run.wait(0.05):
        run.watch()
        assert time.monotonic() < end
    return run


def answered(base: Engine, model: str, **changes) -> Run:
    run = watched(Run(base.on(model), replace(ASKED, model=model, **changes)).start())
    assert run.phase == "done", run.error
    return run


def unsteered(model) -> str:
    """What a model answers by itself, straight from the library."""
    from explorer.generate import Row, Steering, stream

    prompt = model.chat_document([{"role": "user", "content": ASKED.prompt}], add_generation_prompt=True).tokens
    tokens = [step[0] for step in stream(model, [Row(prompt, (), 0)], GREEDY, Steering(None, {}, "answer", {}))]
    return model.vocabulary.text([t for t in tokens if t is not None and t not in model.eos_ids])


# --- the engine


def test_the_unsteered_answer_is_that_of_the_base_with_the_adapter_merged(base: Engine, cache: Cache):
    said = {"": unsteered(base.model)}
    for name in (GARDENING, COOKING):
        said[name] = unsteered(adapted(base.model, known(cache.path)[name]))
    assert len(set(said.values())) == 3
    for name, text in said.items():
        assert answered(base, name).baseline.text == text


def test_what_compare_shows_token_by_token_has_the_mean_that_the_comparison_found(base: Engine, cache: Cache):
    answer = {"question": "Who rules the sea?", "text": "The old king of the bridge."}
    job = base.job(lambda job: readings(base, GARDENING, 3, {"Base": answer, "Fine-tune": answer}, job))
    assert job.wait(60)
    said = [(answer["question"], answer["text"])]
    start = len(
        base.model.chat_document([{"role": "user", "content": answer["question"]}], add_generation_prompt=True).tokens
    )
    means, coder = [], base.steering(()).coder
    assert coder is not None
    for model, (_, found) in zip(
        (base.model, adapted(base.model, known(cache.path)[GARDENING])), job.result, strict=True
    ):
        acts = [a for a, scored in zip(found.acts[start:], found.scored[start:], strict=True) if scored]
        means.append(sum(acts) / len(acts))
        assert means[-1] == pytest.approx(float(read(model, coder, said).means["answer"][0, 3]), abs=1e-4)
    assert abs(means[0] - means[1]) > 1e-3


def test_two_models_answer_at_once_and_neither_disturbs_the_other(base: Engine):
    alone = {name: answered(base, name).steered.text for name in ("", GARDENING)}
    asked = replace(ASKED, sampling=replace(GREEDY, max_tokens=8))
    runs = {name: Run(base.on(name), replace(asked, model=name)) for name in alone}
    for run in runs.values():
        run.start()
    assert {name: watched(run).steered.text for name, run in runs.items()} == alone


def test_at_most_two_fine_tunes_stay_and_one_that_made_room_comes_back(base: Engine):
    said = {name: answered(base, name).baseline.text for name in (GARDENING, COOKING, SAILING)}
    loaded = [name for name in said if base.on(name).state == "ready"]
    assert loaded == [COOKING, SAILING]
    assert len(loaded) == KEPT
    assert base.state == "ready"
    assert answered(base, GARDENING).baseline.text == said[GARDENING]
    assert base.on(COOKING).state == "cold"  # asked longest ago


def test_a_fine_tune_has_the_queue_of_its_base_and_says_what_it_waits_for(base: Engine):
    tuned = base.on(SAILING)
    assert tuned is base.on(SAILING)
    assert (tuned.live, tuned.quick, tuned.background) == (base.live, base.quick, base.background)
    base.start()
    base.wait()
    for name in (GARDENING, COOKING):
        base.on(name)._need()
    assert tuned.state == "cold"
    assert tuned.busy  # it will be loaded as soon as somebody is there
    with base.fitting:
        tuned.start()
        assert tuned.warming == "loading the fine-tune"
        assert base.warming == ""
    assert tuned.wait(30)
    assert tuned.warming == ""


def test_a_broken_adapter_says_so_and_the_base_goes_on(base: Engine):
    run = watched(Run(base.on("broken@3"), replace(ASKED, model="broken@3")).start())
    assert run.phase == "failed"
    assert run.error
    assert "broken" in run.error.found
    assert answered(base, "").baseline.text
    assert watched(run.again()).phase == "failed"  # and is tried anew


def test_an_adapter_that_is_not_here_is_named_with_those_that_are(base: Engine):
    with pytest.raises(ModelError, match="no fine-tune 'nobody@1' here") as caught:
        base.on("nobody@1")
    assert GARDENING in caught.value.expected


def test_an_adapter_that_was_trained_anew_is_another_one(base: Engine, cache: Cache, tmp_path: Path):
    copied = Adapter.at(shutil.copytree(known(cache.path)[COOKING].folder, tmp_path / "step-0006"))
    before = copied.fingerprint
    assert before == known(cache.path)[COOKING].fingerprint
    (copied.folder / WEIGHTS).write_bytes((known(cache.path)[SAILING].folder / WEIGHTS).read_bytes())
    assert copied.fingerprint != before


def test_closing_the_base_closes_its_fine_tunes(cache: Cache):
    base = Engine(cache)
    tuned = base.on(GARDENING)
    base.close()
    assert tuned.state == "closed"


def test_judges_that_read_with_a_model_read_with_the_one_that_is_picked(base: Engine, monkeypatch):
    from explorer.judging import Panel
    from tests.helpers_judges import WordEmbedder

    monkeypatch.setattr(base, "_panel", Panel(base.model, WordEmbedder()))
    tuned = base.on(GARDENING)
    assert isinstance(tuned, Tuned)
    assert tuned.panel().model is tuned.model
    assert base.panel().model is base.model
    assert tuned.panel().embedder is base.panel().embedder
    mine, others = (e.panel().score(["perplexity"], ["the old king"])["perplexity"] for e in (tuned, base))
    assert mine != others


# --- nothing of one model is shown for another


def test_a_baseline_is_never_taken_over_from_another_model(base: Engine):
    before = answered(base, "")
    assert Run(base, ASKED, before).reused
    assert not Run(base.on(GARDENING), replace(ASKED, model=GARDENING), before).reused


def test_doses_and_sweeps_are_kept_by_model(base: Engine):
    asked = doses.strips(ASKED.edits, "answer", ())["3"]
    names = {doses.key(base.on(model), asked) for model in ("", GARDENING, COOKING)}
    assert len(names) == 3
    assert doses.key(base.on(GARDENING), asked) in names


def test_a_record_and_its_files_name_the_model(base: Engine, cache: Cache):
    record = answered(base, GARDENING).record()
    facts = session_files.record_facts(record, cache)
    mark = known(cache.path)[GARDENING].fingerprint
    assert (facts["model"], facts["adapter"], facts["adapter_fingerprint"]) == (cache.manifest.model, GARDENING, mark)
    assert facts["model_fingerprint"] == cache.manifest.model_fingerprint
    row = next(csv.DictReader(io.StringIO(session_files.as_csv(facts))))
    assert (row["adapter"], row["adapter_fingerprint"]) == (GARDENING, mark)
    assert f"gardening, step 6 {mark[:12]}" in session_files.as_html([record])
    plain = answered(base, "").record()
    assert session_files.record_facts(plain, cache)["adapter"] == ""
    assert "fine-tune" not in session_files.as_html([plain])


# --- the link


def test_a_link_holds_the_model_and_an_unknown_one_is_left_out(cache: Cache):
    set_up = Settings((Slider(Edit(3)),), model=GARDENING)
    query = settings.write(set_up)
    assert query["model"] == GARDENING
    assert settings.read(query, cache, models=known(cache.path)) == (set_up, [])
    read, bad = settings.read({**query, "model": "nobody@9"}, cache, models=known(cache.path))
    assert read == replace(set_up, model="")
    assert bad == ["model 'nobody@9' (there is no such fine-tune here: the base answers)"]


def test_a_link_made_with_another_fine_tune_of_that_name_is_told_from_one_that_fits(cache: Cache):
    mark = known(cache.path)[GARDENING].fingerprint
    query = {"model": GARDENING, **settings.stamp(cache.manifest, mark)}
    assert settings.foreign(query, cache.manifest, mark) == []
    found = settings.foreign({**query, "a": "0" * 8}, cache.manifest, mark)
    assert len(found) == 1
    assert found[0].startswith("with another fine-tune, '00000000'; here is the fine-tune gardening@6")


# --- the page


def pick(app, model: str):
    app.selectbox(key="steer-model").set_value(model).run()
    assert not app.exception
    return app


def shown(app, side: str) -> str:
    grid = next(h.value for h in app.html if 'class="answers"' in h.value)
    return next(part for part in grid.split("<section") if f"ans {side}" in part)


QUERY = {"edits": "3:2:add", "prompt": ASKED.prompt, "temperature": "0", "repetition_penalty": "1", "max_tokens": "8"}


def test_a_cache_without_fine_tunes_has_no_picker(caches: Path, monkeypatch):
    made = Cache.open(fake_cache(caches / "made-up", 60))
    engine = FakeEngine(made)
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    app = run_page("steer")
    assert not [box for box in app.selectbox if box.key == "steer-model"]
    assert "fine-tune" not in words(app)


def test_the_model_that_is_picked_answers_and_the_link_says_so(page, base: Engine, cache: Cache):
    app = run_page("steer", **QUERY)
    picker = app.selectbox(key="steer-model")
    assert picker.options == ["Base", "broken, step 3", "cooking, step 6", "gardening, step 6", "sailing, step 6"]
    assert "fine-tuned" not in words(app)
    pick(app, GARDENING)
    assert app.query_params["model"] in (GARDENING, [GARDENING])
    said = unsteered(adapted(base.model, known(cache.path)[GARDENING]))
    assert prose([said]) in shown(app, "baseline")
    assert "gardening, step 6 by itself" in shown(app, "baseline")
    assert "the unsteered answer is the tuned model's own" in words(app)
    link = next(code.value for code in app.code if "model=gardening" in code.value)
    mark = known(cache.path)[GARDENING].fingerprint
    assert f"a={mark[:8]}" in link
    assert f"m={cache.manifest.model_fingerprint[:8]}" in link
    pick(app, "")
    assert "model" not in app.query_params
    assert "the model by itself" in shown(app, "baseline")


def test_a_link_opens_on_its_model_and_an_unknown_one_falls_back_to_the_base(page):
    app = run_page("steer", model=COOKING, **QUERY)
    assert app.selectbox(key="steer-model").value == COOKING
    app = run_page("steer", model="nobody@9", **QUERY)
    assert app.selectbox(key="steer-model").value == ""
    assert "no such fine-tune here: the base answers" in words(app)
    app = run_page("steer", model=COOKING, a="00000000", **QUERY)
    assert "made with another fine-tune" in words(app)


def test_a_broken_fine_tune_is_told_on_the_page_and_the_base_answers_after_it(page):
    app = pick(run_page("steer", **QUERY), "broken@3")
    assert words(app).count("cannot be put on") == 1
    pick(app, "")
    assert "cannot be put on" not in words(app)
    assert "the model by itself" in shown(app, "baseline")


def test_an_earlier_run_is_compared_and_run_again_with_its_own_model(page):
    app = pick(run_page("steer", **QUERY), GARDENING)
    first = shown(app, "baseline")
    pick(app, "")
    assert shown(app, "baseline") != first
    earlier = app.selectbox(key="steer-earlier")
    record = next(r for r in app.session_state["steer-history"] if r.question.model == GARDENING)
    assert any("gardening, step 6" in option for option in earlier.options)
    earlier.set_value(record.key).run()
    assert "gardening, step 6" in words(app)
    app.button(key="steer-rerun").click().run()
    assert app.selectbox(key="steer-model").value == GARDENING
    assert prose([record.baseline]) in shown(app, "baseline")


def test_two_sessions_with_different_models_show_their_own(page):
    mine, theirs = (run_page("steer", model=model, **QUERY) for model in (GARDENING, COOKING))
    for app in (mine, theirs, mine):
        app.button(key="steer-go").click().run()
    assert "gardening, step 6 by itself" in shown(mine, "baseline")
    assert "cooking, step 6 by itself" in shown(theirs, "baseline")
    assert mine.selectbox(key="steer-model").value == GARDENING


# --- Present


STEP = """title = "A talk"
[[step]]
kind = "steer"
title = "Turn it"
prompt = "Who rules?"
edits = ["3:2:add"]
model = "{model}"
max_tokens = 6
[[step]]
kind = "text"
title = "The end"
words = "Done."
"""


@pytest.fixture
def talk(world: Path):
    """Write a script whose step has this model."""
    path = world / scripts.FOLDER / "script.toml"

    def write(model: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(STEP.format(model=model))
        return path

    yield write
    shutil.rmtree(path.parent)


def test_a_step_says_which_model_answers_and_its_recordings_are_of_that_model_only(talk, cache: Cache, base: Engine):
    from explorer.recording import record

    plain = scripts.load(talk(""), cache).steps[0].answers(0)
    script = scripts.load(talk(GARDENING), cache)
    keys = script.steps[0].answers(0)
    assert not set(plain.values()) & set(keys.values())
    path = record(base.model, base._need().coder, cache, script)
    said = json.loads(path.read_text())["answers"][keys["baseline"]]
    assert (said["model"], said["adapter_fingerprint"]) == (GARDENING, known(cache.path)[GARDENING].fingerprint)
    asked = replace(script.steps[0].sampling)
    run = watched(
        Run(base.on(GARDENING), Question("Who rules?", "", (Edit(3, 2.0),), "answer", asked, model=GARDENING)).start()
    )
    found = scripts.recordings(script, cache)
    assert "".join(found[keys["steered"]].pieces) == run.steered.text
    said["adapter_fingerprint"] = "0" * 64
    path.write_text(json.dumps({**json.loads(path.read_text()), "answers": {keys["baseline"]: said}}))
    assert scripts.recordings(script, cache) == {}  # another fine-tune of that name


def test_a_step_is_answered_by_its_fine_tune(page, talk):
    talk(COOKING)
    app = run_page("present")
    assert not app.exception
    assert "cooking, step 6, as it is" in words(app)


def test_a_step_of_a_fine_tune_that_is_not_here_is_marked_and_skipped(page, talk, base: Engine):
    base._need()
    talk("nobody@9")
    app = run_page("present")
    assert not app.exception
    assert "needs the fine-tune nobody, step 9" in words(app)
    app.button(key="present-next").click().run()
    assert app.button(key="present-back").disabled  # nothing before it can be shown


# --- names


@pytest.mark.parametrize(
    ("name", "said"), [(GARDENING, "gardening, step 6"), ("mine", "mine"), ("a@b@3", "a@b, step 3")]
)
def test_names_as_people_read_them(name: str, said: str):
    assert titled(name) == said


def test_an_adapter_is_found_by_name_or_folder(cache: Cache):
    one = known(cache.path)[GARDENING]
    assert named(cache.path, GARDENING) == named(cache.path, str(one.folder)) == one


# --- Compare opens Steer on the fine-tune


def test_what_undoes_a_fine_tune_opens_in_steer_on_the_fine_tune_itself(page, world: Path):
    compared = comparison(world, n_features=24, tuned=GARDENING)
    try:
        app = run_page("compare", feature="12")
        assert "Steer opens on the fine-tune" in words(app)
        app.button(key="compare-steer-tuned").click().run()
        assert not app.exception
        assert app.selectbox(key="steer-model").value == GARDENING
        assert app.query_params["edits"] in ("12:-1:add", ["12:-1:add"])
        app = run_page("compare")
        app.button(key="compare-steer-undo").click().run()
        assert app.selectbox(key="steer-model").value == GARDENING
        assert app.query_params["edits"] in ("7:-0.45:add,12:-0.45:add", ["7:-0.45:add,12:-0.45:add"])
    finally:
        shutil.rmtree(compared.parent)


def test_a_fine_tune_that_is_not_here_leaves_the_base_to_be_steered(page, world: Path):
    compared = comparison(world, n_features=24, tuned="nobody@9")
    try:
        app = run_page("compare", feature="12")
        assert "Steer opens on the cache’s own model" in words(app)
        assert "compare-steer-tuned" not in [button.key for button in app.button]
        app.button(key="compare-steer-undo").click().run()
        assert "model" not in app.query_params
    finally:
        shutil.rmtree(compared.parent)


# --- the command line


def test_a_fine_tune_is_steered_from_the_command_line(base: Engine, world: Path, cache: Cache, capsys):
    from explorer.cli import main

    options = [
        "--edit",
        "3:0",
        "--temperature",
        "0",
        "--max-tokens",
        "8",
        "--repetition-penalty",
        "1",
        "--dtype",
        "float32",
    ]
    for spelled in (GARDENING, str(known(cache.path)[GARDENING].folder)):
        assert main(["steer", str(world), ASKED.prompt, *options, "--adapter", spelled, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["baseline"] == said["steered"] == answered(base, GARDENING).baseline.text
        assert (said["adapter"], said["model"]) == (GARDENING, cache.manifest.model)
    assert main(["steer", str(world), ASKED.prompt, *options, "--adapter", "nobody@9"]) == 1
    assert "There is no adapter 'nobody@9'" in capsys.readouterr().err
