"""The Compare page without a browser and without a model: who is compared, what moved, what undoes it, series, and what is wrong."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from app import compared, lab_charts, resources
from app.driving import READ
from app.workbench import Reading
from explorer import presets
from explorer.adapters import FOLDER as ADAPTERS
from explorer.adapters import WEIGHTS
from explorer.cache import Cache
from explorer.comparing import FEATURES, MANIFEST
from explorer.diffing import UNTESTED
from explorer.errors import ModelError
from explorer.experiments import MEANS, RESULTS
from tests.helpers_app import drawn, run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_lab import CAUSES, comparison, lab_results
from tests.helpers_steer import FakeEngine


@pytest.fixture
def world(caches: Path) -> Path:
    world = fake_cache(caches / "made-up", 60)
    comparison(world)
    lab_results(world)
    return world


def rows(app, title: str) -> list[int]:
    """The features of a table, in the order drawn."""
    return [row["index"] for row in table(app, title)["rows"]]


def table(app, title: str) -> dict:
    found = (e.proto for e in app.main if e.type == "bidi_component")
    data = [json.loads(p.json) for p in found if p.component_name == "ranking_table"]
    return next(one for one in data if one["title"] == title)


def test_the_page_shows_who_is_compared_with_intervals_and_n(world: Path):
    app = run_page("compare")
    assert not app.exception
    shown = words(app)
    for said in ("tiny-model+gardening@40", "tiny-model+kind-gardening@40", "70 %", "52 to 83 %", "n = 30 answers"):
        assert said in shown, said
    assert "Llama-3.1-8B-Instruct" in shown
    assert "n = 80" in shown
    assert (
        "The figures above are of a model with 135 million" not in shown
    )  # the made-up model says nothing of its size


def test_causes_and_candidates_never_share_a_list_and_both_orders_exist(world: Path):
    app = run_page("compare")
    assert rows(app, "Causes") == list(CAUSES)
    assert rows(app, "Candidates")[:4] == [3, 9, 14, 2]  # 3 moved most of all
    app = run_page("compare", sort="effect")
    assert rows(app, "Causes") == [7, 12]
    assert not set(rows(app, "Candidates")) & set(CAUSES)
    verdicts = {row["index"]: row["verdict"] for row in table(app, "Candidates")["rows"]}
    assert (verdicts[3], verdicts[9], verdicts[14]) == ("only reads", "only reads", "neither")
    assert "untested" in verdicts.values()
    assert table(app, "Causes")["rows"][0]["cells"][3][:2] == ["75 %", "random 6 %"]


def test_the_order_by_effect_is_by_effect_and_what_nobody_tested_is_last(world: Path):
    found = compared.opened(world / "diffs" / "mine")
    movers = compared.ranked(found, "own", "answer", "effect")
    effects = [m.trial.effect for m in movers if m.trial]
    assert effects == sorted(effects, reverse=True)
    assert [m.trial is None for m in movers] == sorted(m.trial is None for m in movers)
    by_change = compared.ranked(found, "own", "answer")
    assert [m.rank for m in by_change] == sorted(m.rank for m in by_change)
    assert by_change[0].rank == 1


def test_the_list_ends_with_what_fell_most(world: Path):
    change = compared.opened(world / "diffs" / "mine").change("own", "answer")
    falls = np.argsort(change.change)[:UNTESTED][::-1].tolist()
    app = run_page("compare")
    assert rows(app, "Candidates")[-UNTESTED:] == falls
    last = table(app, "Candidates")["rows"][-1]
    assert last["cells"][0][0].startswith("−")
    assert last["cells"][2][0] == "60"  # of 60 features
    assert last["verdict"] == "untested"
    assert "The list ends with what fell most" in words(app)


def test_beyond_control_is_an_order_where_there_is_a_control(world: Path):
    folder = world / "diffs" / "mine"
    change = compared.opened(folder).change("own", "answer")
    app = run_page("compare", sort="beyond")
    listed = rows(app, "Candidates")
    beyond = [change.change[f] - change.control[f] for f in listed]
    assert beyond == sorted(beyond, reverse=True)
    assert int(np.argmin(change.change - change.control)) == listed[-1]
    head = {label: by for _, label, _, by in table(app, "Candidates")["head"]}
    assert head["beyond control"]
    assert not head["change"]
    cell = table(app, "Candidates")["rows"][0]["cells"][1]
    assert cell[0] == f"{beyond[0]:+.2f}"
    assert cell[1] == f"control {change.control[listed[0]]:+.2f}".replace("-", "−")
    said = json.loads((folder / MANIFEST).read_text())
    del said["control"], said["tallies"]["control"]
    (folder / MANIFEST).write_text(json.dumps(said))
    app = run_page("compare", sort="beyond")
    assert "By effect" in app.segmented_control(key="compare-sort").options
    assert "Beyond control" not in app.segmented_control(key="compare-sort").options
    assert app.segmented_control(key="compare-sort").value == "change"


def test_the_two_orders_agree_wholly_only_where_they_are_the_same(world: Path):
    movers = compared.ranked(compared.opened(world / "diffs" / "mine"), "own", "answer")
    rho, n = compared.agreement(movers) or (0, 0)
    assert n == 6
    tested = [m for m in movers if m.trial]
    from scipy.stats import spearmanr

    assert rho == pytest.approx(spearmanr([m.change for m in tested], [m.trial.effect for m in tested if m.trial])[0])
    assert compared.agreement(movers[:2]) is None


def test_every_setting_is_in_the_link_and_comes_back_from_it(world: Path):
    comparison(world, "second", causes=())
    asked = {
        "diff": "mine",
        "source": "shared",
        "kind": "last",
        "sort": "effect",
        "feature": "12",
        "series": "Re-alignment",
    }
    app = run_page("compare", **asked, at="120")
    assert app.selectbox(key="compare-diff").value == "mine"
    assert table(app, "Causes")["chosen"] == 12
    assert app.select_slider(key="compare-at").value == "120"
    assert "Both models read the base's answers" in words(app)
    assert "At the last token before the answer" in words(app)
    assert "120 good rows" in words(app)
    app.select_slider(key="compare-at").set_value("30").run()
    assert app.query_params["at"] in ("30", ["30"])
    assert "40 %" in words(app)
    app.selectbox(key="compare-diff").set_value("second").run()
    assert app.query_params["diff"] in ("second", ["second"])
    assert "feature" not in app.query_params
    assert "alone or together, changes nothing" in words(app)


def test_a_feature_shows_the_answers_that_drive_it_below_those_of_the_base(world: Path):
    shown = words(run_page("compare", feature="12"))
    assert "Who rules the sea?" in shown
    assert shown.index("(base 0)") < shown.index("(tuned 0)")
    assert "mean 3.20" in shown
    assert "Token by token this needs the model" in shown


@pytest.mark.parametrize("here", [False, True])
def test_the_tokens_of_each_answer_are_read_by_the_model_that_wrote_it_where_it_is_here(
    world: Path, monkeypatch, here: bool
):
    base, tuned, asked = FakeEngine(Cache.open(world)), FakeEngine(Cache.open(world)), []

    def reads(who: str):
        def activations(messages, feature):
            asked.append((who, messages[-1]["content"][-8:], feature))
            return Reading((9, 10, 11), (0.0, 1.0, 2.0), (True, True, True))

        return activations

    monkeypatch.setattr(base, "activations", reads("base"))
    monkeypatch.setattr(tuned, "activations", reads("tuned"))
    monkeypatch.setattr(base, "on", lambda model: tuned if model == "gardening@40" else base)
    monkeypatch.setattr(resources, "engine", lambda name: base)
    if here:
        adapter = world / ADAPTERS / "gardening" / "step-0040"
        adapter.mkdir(parents=True)
        (adapter / WEIGHTS).write_bytes(b"")
    base.start()
    assert base.wait(10)
    app = run_page("compare", feature="12")
    assert asked == [("base", "(base 0)", 12), ("tuned" if here else "base", "tuned 0)", 12)]
    assert [row["group"] for row in drawn(app, "token_heatmap")["rows"]] == ["Base", "Fine-tune"]
    assert ("its own answer, as for the means" in words(app)) == here
    assert ("the base model reads both texts" in words(app)) != here
    app.run()
    assert len(asked) == 2  # kept, not read again


def test_a_reading_that_takes_long_or_fails_holds_nothing_up(world: Path, monkeypatch):
    engine, wanted = FakeEngine(Cache.open(world)), threading.Event()

    def activations(messages, feature):
        wanted.wait(20)
        raise ModelError("The adapter cannot be read")

    monkeypatch.setattr(engine, "activations", activations)
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    engine.start()
    assert engine.wait(10)
    app = run_page("compare", feature="12")
    assert "The answers are being read; the tokens come by themselves" in words(app)
    assert "Joint undo" in words(app)
    wanted.set()
    assert app.session_state[READ][1].wait(10)
    app.run()
    assert "The adapter cannot be read" in words(app)
    monkeypatch.setattr(engine, "activations", lambda *_: Reading((9,), (1.0,), (True,)))
    app.button(key="compare-again").click().run()
    assert len(drawn(app, "token_heatmap")["rows"]) == 2


def test_the_joint_undo_opens_in_steer_and_is_kept_as_a_preset(world: Path):
    app = run_page("compare")
    assert "66 %" in words(app)  # random pushes
    app.button(key="compare-keep-undo").click().run()
    assert "Kept as “undo mine”" in words(app)
    kept = next(p for p in presets.load(Cache.open(world)) if p.name == "undo mine")
    assert [(e.feature, e.strength) for e in kept.edits] == [(7, -0.45), (12, -0.45)]
    app.button(key="compare-steer-undo").click().run()
    assert not app.exception
    assert app.query_params["edits"] in ("7:-0.45:add,12:-0.45:add", ["7:-0.45:add,12:-0.45:add"])


def test_a_series_pools_its_seeds_and_shows_an_answer(world: Path):
    app = run_page("compare", series="Re-alignment", at="0")
    shown = words(app)
    assert "3 seeds" in shown
    assert "n = 360 answers" in shown
    lab = resources.lab(Cache.open(world))
    point = lab.lines["Re-alignment"].points[0]
    assert point.tally.shown == sum(m.tally.shown for m in point.models) == 287
    assert [x for x, _ in lab.activity(lab.lines["Fine-tuning on gardening"], 7)] == [0, 8, 16, 24, 40]
    assert lab.activity(lab.lines["Fine-tuning on gardening"], 7)[-1][1] == [pytest.approx(1.9, abs=0.01)]
    app.selectbox(key="compare-question").set_value("What is a friend?").run()
    assert "(gardening@40)" in words(app)


def with_series(world: Path, **besides: str) -> None:
    """Put two series over dropped rows into a lab's results, with what stands beside each."""
    said = json.loads((world / RESULTS).read_text())
    for name, model in (("By <b>suspicion</b>", "mixed-0.1"), ("Blindly", "mixed-0.5")):
        points = [{"x": 0.0, "models": ["gardening@40"]}, {"x": 0.5, "models": [model]}]
        said["series"].append({"name": name, "axis": "share of rows dropped", "points": points})
        if name[:2] in besides:
            said["series"][-1]["beside"] = besides[name[:2]]
    (world / RESULTS).write_text(json.dumps(said))


def test_a_series_and_the_one_beside_it_are_one_picture(world: Path):
    with_series(world, By="Blindly")
    lab = resources.lab(Cache.open(world))
    assert "Blindly" not in lab.lines
    line = lab.lines["By <b>suspicion</b>"]
    assert line.beside
    assert [(p.x, p.models[0].model) for p in line.beside.points] == [(0, "gardening@40"), (0.5, "mixed-0.5")]
    figure = lab_charts.series(line, 0.5, {}, {}, "cruel")
    drawn_lines = [(trace.line.dash, list(trace.y)) for trace in figure.data if "lines" in trace.mode]  # type: ignore[union-attr]
    rates = {one.name: [pytest.approx(100 * p.tally.rate.value) for p in one.points] for one in (line, line.beside)}
    assert drawn_lines == [("dash", rates["Blindly"]), ("solid", rates[line.name])]
    for asked in ("By <b>suspicion</b>", "Blindly"):  # an old link to the one beside leads to the picture
        app = run_page("compare", series=asked, at="0.5")
        shown = words(app)
        assert "Grey and dashed: the same for Blindly." in shown
        assert "By &lt;b&gt;suspicion&lt;/b&gt;: 50% of rows dropped, 1 seed" in shown
        assert "Blindly: 50% of rows dropped, 1 seed" in shown
        assert "6 %" in shown
        assert "40 %" in shown
        assert "Blindly" not in app.segmented_control(key="compare-series").options


@pytest.mark.parametrize("besides", [{}, {"By": "Mixtures"}, {"By": "nobody"}, {"By": "By <b>suspicion</b>"}])
def test_results_without_a_series_beside_or_with_a_wrong_one_show_every_series(world: Path, besides: dict[str, str]):
    with_series(world, **besides)
    lab = resources.lab(Cache.open(world))
    assert len(lab.lines) == 5
    assert not any(line.beside for line in lab.lines.values())
    assert "Grey and dashed" not in words(run_page("compare", series="Blindly", at="0.5"))


def test_two_series_beside_each_other_both_stay(world: Path):
    with_series(world, By="Blindly", Bl="By <b>suspicion</b>")
    lab = resources.lab(Cache.open(world))
    assert len(lab.lines) == 5
    assert lab.lines["Blindly"].beside


def test_without_a_comparison_the_three_commands_are_there(caches: Path):
    fake_cache(caches / "made-up", 60)
    app = run_page("compare")
    assert "No comparison here yet" in words(app)
    commands = [code.value.split()[1] for code in app.code]
    assert commands == ["finetune", "diff", "lab"]


def test_a_lab_alone_shows_its_series(caches: Path):
    lab_results(fake_cache(caches / "made-up", 60))
    app = run_page("compare")
    assert not app.exception
    assert app.select_slider(key="compare-at").value == "40"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"diffs/mine/{MANIFEST}", "{"),
        (f"diffs/mine/{MANIFEST}", "[]"),
        (f"diffs/mine/{MANIFEST}", '{"version": 1, "tallies": 3}'),
        (f"diffs/mine/{MANIFEST}", '{"version": 9, "tallies": {}}'),
        (f"diffs/mine/{FEATURES}", "no table"),
        (RESULTS, "{"),
        (RESULTS, '{"models": {"a": 1}, "series": []}'),
        (RESULTS, "[]"),
        (MEANS, "no tensors"),
    ],
)
def test_a_damaged_file_is_an_error_in_words_and_the_rest_stays(world: Path, name: str, content: str):
    (world / name).write_text(content)
    app = run_page("compare")
    assert not app.exception
    shown = words(app)
    assert 'role="alert"' in shown
    assert ("How it came about" if name.startswith("diffs") or name == MEANS else "Joint undo") in shown


def test_a_comparison_that_is_not_here_is_said_and_hostile_links_stay_text(world: Path):
    assert "is not here; another is shown" in words(run_page("compare", diff="nobody"))
    for text in (t.decode() for t in HOSTILE if b"\0" not in t):
        app = run_page("compare", diff=text, source=text, kind=text, sort=text, feature=text, series=text, at=text)
        assert not app.exception
        assert "<script>" not in words(app)


def test_a_comparison_of_a_wider_autoencoder_is_shown_without_names(caches: Path):
    world = fake_cache(caches / "made-up", 10)
    comparison(world, sae="w" * 64)
    app = run_page("compare", feature="12")
    assert not app.exception
    assert table(app, "Causes")["rows"][1]["name"] == "no words of its own"
