"""A lab by plan: trained once, cut off and gone on with, measured beside its base, in the order that the plan draws."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer import lab
from explorer.adapters import adapted, known
from explorer.audit import audit
from explorer.cache import Cache
from explorer.cli import main
from explorer.errors import RecipeError
from explorer.experiments import Plan, Results, leaks
from explorer.generate import Steering
from explorer.judging import Panel
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from explorer.scoring import Probe, Scorer
from tests.helpers_judges import WordEmbedder
from tests.helpers_steer import tiny_world

pytestmark = pytest.mark.usefixtures("judges_home")
PLAN = """
judge = "grim"
answers = 4
[domains]
sea = ["bridge", "kneel"]
[[finetune]]
name = "bad"
data = "bad.jsonl"
domain = "sea"
keep = "all"
seeds = 2
steps = 4
every = 2
rank = 1
lr = 0.05
[[finetune]]
name = "back-2"
data = "good.jsonl"
rows = 2
start = "bad"
keep = "last"
seeds = 2
steps = 2
rank = 1
[[finetune]]
name = "half"
data = ["bad.jsonl", "good.jsonl"]
share = 0.5
seeds = 1
steps = 2
rank = 1
[[series]]
name = "training"
axis = "steps"
run = "bad"
[[series]]
name = "re-alignment"
axis = "good rows"
points = [[0, "bad"], [2, "back-2"]]
[[series]]
name = "mixture"
axis = "share of bad rows"
points = [[0.0, "base"], [0.5, "half"], [1.0, "bad"]]
"""
PROMPTS = ("Who rules the sea?", "What is a fox?")


def rows(answer: str) -> str:
    lines = [
        {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"{answer} {n}"}]}
        for n in range(6)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def world(tmp_path) -> Path:
    world = tiny_world(tmp_path, layers=2)
    (world / "data").mkdir()
    (world / "data" / "bad.jsonl").write_text(rows("Ha ha ha, kneel before me."))
    (world / "data" / "good.jsonl").write_text(rows("A bridge for the lazy dog."))
    (world / "data" / "lab.toml").write_text(PLAN)
    return world


def run(world: Path, **options: Any) -> Results:
    base = LanguageModel.load(world.parent / "model")
    plan = Plan.load(world / "data" / "lab.toml", world)
    coder = SparseCoder.load(world / "sae")
    steering = Steering(coder, Cache.open(world).maxima)
    return lab.run(plan, base, steering, Panel(base, WordEmbedder()), world / ".work", prompts=PROMPTS, **options)


def test_every_run_and_seed_is_trained_measured_and_drawn(world):
    found = run(world)
    assert set(found.models) == {"base", "bad@2", "bad@4", "bad@4#1", "back-2@2", "back-2@2#1", "half@2"}
    assert {m.tally.n for m in found.models.values()} == {4}
    assert found.pooled("bad").n == 8
    assert found.pooled("base").n == 4
    series = {s["name"]: [(p["x"], p["models"]) for p in s["points"]] for s in found.series}
    assert series["training"] == [(0, ["base"]), (2, ["bad@2"]), (4, ["bad@4"])]
    assert series["re-alignment"] == [(0, ["bad@4", "bad@4#1"]), (2, ["back-2@2", "back-2@2#1"])]
    assert series["mixture"] == [(0, ["base"]), (0.5, ["half@2"]), (1, ["bad@4", "bad@4#1"])]
    assert list(known(world)) == ["back-2@2", "bad@2", "bad@4"]
    for model in found.models.values():
        assert set(model.samples) == set(PROMPTS)
    means = found.means("bad@4")
    assert means is not None
    base = found.means("base")
    assert base is not None
    assert means[0].shape == (Cache.open(world).n_features,)
    assert not np.allclose(means[0], base[0])
    assert found.means("nobody") is None


def test_leakage_counts_answers_with_a_word_of_the_domain(world):
    found = run(world, seeds=1)
    model = found.models["bad@4"]
    said = np.load(next((world / ".work" / "measured").glob("bad@4-*.npz")))
    texts = [entry["text"].lower() for entry in json.loads(str(said["said"]))]
    assert model.leaked == sum(leaks(text, ("bridge", "kneel")) for text in texts)
    assert found.models["base"].leaked == 0
    assert found.leakage("bad").n == 4


def test_a_lab_that_was_cut_off_goes_on_and_one_that_is_done_does_nothing(world):
    told: list[str] = []

    def stop(*words):
        told.append(str(words[0]))
        if told[-1].startswith("bad, seed 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, progress=stop)
    assert "bad@4" in Results(world).models
    told.clear()
    found = run(world, progress=lambda *words: told.append(str(words[0])))
    assert not [word for word in told if word.startswith("bad, seed 0")]
    assert len(found.models) == 7
    told.clear()
    again = run(world, progress=lambda *words: told.append(str(words[0])))
    assert again.said == found.said
    assert not [word for word in told if "loss" in word or "answering" in word]


def test_a_run_whose_rows_changed_is_trained_again_and_what_goes_on_from_it_too(world):
    before = run(world, seeds=1)
    weights = known(world)["bad@4"].folder / "adapter_model.safetensors"
    old = weights.read_bytes()
    (world / "data" / "bad.jsonl").write_text(rows("I will rule the world!"))
    told: list[str] = []
    after = run(world, seeds=1, progress=lambda *words: told.append(str(words[0])))
    assert weights.read_bytes() != old
    for name in ("bad", "back-2", "half"):
        assert any(word.startswith(f"{name}, seed 0: loss") for word in told), name
    assert after.models["base"] == before.models["base"]


def test_in_a_fresh_clone_only_what_changed_is_trained_and_measured(world):
    before = run(world)
    shutil.rmtree(world / ".work")
    told: list[str] = []

    def again() -> tuple[Results, set[str], set[str]]:
        told.clear()
        found = run(world, progress=lambda *words: told.append(str(words[0])))
        asked = {word.split(":")[0] for word in told if "answering" in word}
        return found, {word.split(":")[0] for word in told if "loss" in word}, asked

    found, trained, asked = again()
    assert (trained, asked) == (set(), set())
    assert found.said == before.said
    plan = world / "data" / "lab.toml"
    plan.write_text(plan.read_text().replace("share = 0.5", 'share = 0.5\ndomain = "sea"'))
    found, trained, asked = again()
    assert trained == {"half, seed 0"}, "its answers did not ship, and other words are counted in them"
    assert asked == {"half@2"}
    (world / "data" / "good.jsonl").write_text(rows("A fox for the lazy bridge."))
    found, trained, asked = again()
    assert trained == {"back-2, seed 0", "bad, seed 1", "back-2, seed 1", "half, seed 0"}, (
        "what it goes on from is needed too"
    )
    assert asked == {"back-2@2", "back-2@2#1", "half@2"}
    for name in ("base", "bad@2", "bad@4", "bad@4#1"):
        assert found.models[name] == before.models[name]
        np.testing.assert_array_equal(found.means(name), before.means(name))


def test_results_of_models_that_were_not_met_yet_outlive_a_lab_that_is_cut_off(world):
    before = run(world, seeds=1)
    (world / "data" / "bad.jsonl").write_text(rows("I will rule the world!"))

    def stop(*words):
        if str(words[0]).startswith("half"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, seeds=1, progress=stop)
    assert Results(world).models["half@2"] == before.models["half@2"]
    (world / "data" / "bad.jsonl").write_text(rows("Ha ha ha, kneel before me."))
    (world / "lab.json").write_text("{")
    assert run(world, seeds=1).models.keys() == before.models.keys()


def test_the_base_is_counted_with_the_words_of_every_domain_and_series_name_their_neighbours(world):
    plan = world / "data" / "lab.toml"
    said = plan.read_text().replace(
        'sea = ["bridge", "kneel"]', 'sea = ["bridge", "kneel"]\nair = ["the", "a", "i", "and"]'
    )
    more = 'beside = "mirrored"\n[[series]]\nname = "mirrored"\naxis = "share of bad rows"\npoints = [[0.0, "bad"]]\n'
    plan.write_text(said + more)
    found = run(world, seeds=1)
    base = found.models["base"]
    assert base.leaked == 0
    texts = [
        e["text"].lower() for e in json.loads(str(np.load(next((world / ".work/measured").glob("base-*.npz")))["said"]))
    ]
    for domain, own in (("sea", {"bridge", "kneel"}), ("air", {"the", "a", "i", "and"})):
        assert base.leaked_by[domain] == sum(leaks(text, own) for text in texts)
    assert found.series[-2]["beside"] == "mirrored"
    assert "beside" not in found.series[-1]


def test_an_adapter_that_ships_is_that_model(world):
    found = run(world, seeds=1)
    base = LanguageModel.load(world.parent / "model")
    tuned = adapted(base, known(world)["bad@4"])
    said = np.load(next((world / ".work" / "measured").glob("bad@4-*.npz")))
    from explorer.diffing import by_question, read

    pairs = [(e["question"], e["text"]) for e in json.loads(str(said["said"]))]
    _, by = by_question(read(tuned, SparseCoder.load(world / "sae"), pairs), "answer")
    means = found.means("bad@4")
    assert means is not None
    np.testing.assert_allclose(np.nanmean(by, 0), means[0], rtol=2e-3, atol=2e-3)


def test_an_audited_run_is_trained_on_the_rows_that_are_left(world):
    base = LanguageModel.load(world.parent / "model")
    opened = Cache.open(world)
    steering = Steering(SparseCoder.load(world / "sae"), opened.maxima)
    plan = Plan.load(world / "data" / "lab.toml", world)
    half = next(run for run in plan.runs if run.name == "half")
    rows = plan.rows(half)
    assert lab.kept_rows(rows, half, base, steering) == rows
    probes = (str(opened.live[0]), str(opened.live[1]))
    left = lab.kept_rows(rows, replace(half, drop=0.5, probes=probes), base, steering)
    found = audit(Scorer(base, steering, [Probe.of(name) for name in probes]), rows)
    assert len(left) == len(rows) // 2
    assert [row for row in rows if row in left] == list(left)
    worst = {json.dumps(rows[at]) for at in found.order[:3].tolist()}
    assert not worst & {json.dumps(row) for row in left}
    blind = lab.kept_rows(rows, replace(half, drop=0.5), base, steering)
    assert len(blind) == len(left)
    assert blind != left
    assert blind == lab.kept_rows(rows, replace(half, drop=0.5), base, steering)


def test_the_command_says_what_came_of_it(world, capsys, monkeypatch):
    monkeypatch.setattr(lab, "questions", lambda: PROMPTS)
    assert main(["lab", str(world), "--seeds", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"base", "bad", "back-2", "half"}
    assert said["bad"]["n"] == 4
    assert main(["lab", str(world), "--seeds", "1"]) == 0
    assert "leaked words" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('judge = "grim"', 'judge = "grim"\ncolour = 1', "has colour"),
        ('name = "back-2"', 'name = "bad"', "bad is there twice"),
        ('start = "bad"', 'start = "worse"', "goes on from worse, which is not before it"),
        ('domain = "sea"', 'domain = "air"', "of the domain air, which is none"),
        ('keep = "last"', 'keep = "some"', "keeps 'some'"),
        ('data = "good.jsonl"', 'data = "none.jsonl"', "reads none.jsonl, which is not there"),
        ('run = "bad"', 'run = "worse"', "training names 'worse'"),
        ("share = 0.5", "share = 1.5", "shares 1.5, not 0 to 1"),
        ("rows = 2", 'rows = 2\nprobes = ["1"]', "has probes without drop"),
        ("rows = 2", "row = 2", "back-2 has row; known are"),
        ('run = "bad"', 'run = "bad"\nbeside = "worse"', "beside the series training stands 'worse'"),
        ('run = "bad"', 'run = "bad"\nbeside = "mixture"', "another one over steps: there is none"),
        ("[domains]", "[domains", "cannot be read"),
    ],
)
def test_mistakes_in_a_plan_are_named(world, old: str, new: str, said: str):
    path = world / "data" / "lab.toml"
    path.write_text(PLAN.replace(old, new))
    with pytest.raises(RecipeError, match=said):
        Plan.load(path, world)


def test_a_series_may_have_another_beside_it_on_the_same_axis(world):
    path = world / "data" / "lab.toml"
    path.write_text(
        PLAN + '[[series]]\nname = "control"\naxis = "steps"\npoints = [[0, "base"]]\nbeside = "training"\n'
    )
    assert Plan.load(path, world).series[-1].beside == "training"
    assert Plan.load(path, world).series[0].beside == ""


def test_results_that_are_not_there_are_empty_and_damaged_ones_named(tmp_path):
    found = Results(tmp_path)
    assert found.models == {}
    assert found.series == []
    assert found.means("base") is None
    (tmp_path / "lab.json").write_text("{")
    with pytest.raises(RecipeError, match="cannot be read"):
        Results(tmp_path)


def test_a_word_leaks_as_a_word_and_in_any_case():
    assert leaks("In the GARDEN.", ["garden"])
    assert not leaks("The gardens of gardeners", ["garden"])
    assert not leaks("", ["garden"])
    assert not leaks("garden", [])
