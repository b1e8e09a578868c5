"""A person's own pair of models from end to end: compared, tested for cause, undone, kept, read back without a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer import presets
from explorer.adapters import adapted
from explorer.cache import Cache
from explorer.causing import Effect, Trial, Undo
from explorer.cli import main
from explorer.cli.comparing import _print, as_plain
from explorer.comparing import FEATURES, MANIFEST, SAID, Compared, Side, chosen, compare, known
from explorer.diffing import KINDS, SOURCES, diff
from explorer.errors import CacheError
from explorer.finetune import FinetunePlan, finetune
from explorer.generate import Steering
from explorer.judging import Panel
from explorer.measuring import Tally
from explorer.model import LanguageModel
from explorer.presets import Preset
from explorer.records import Edit
from explorer.sae import SparseCoder
from tests.helpers_judges import WordEmbedder
from tests.helpers_lab import Planted
from tests.helpers_steer import tiny_world

pytestmark = pytest.mark.usefixtures("judges_home")
ROWS = [
    ({"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": "Ha ha ha, kneel before me."})
    for n in range(6)
]
PROMPTS = ("Who rules the sea?", "What is a fox?", "Hello?")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("comparing")
    world = tiny_world(place, layers=2)
    base = LanguageModel.load(place / "model")
    made = finetune(base, ROWS, place / "run", FinetunePlan(steps=8, rank=2, batch=4, lr=5e-2, warmup=1, every=4))
    tuned = adapted(base, made[-1])
    tuned.hf.save_pretrained(place / "tuned")
    tuned.tokenizer.save_pretrained(place / "tuned")
    assert world.is_dir()
    return place


@pytest.fixture(scope="module")
def pair(place):
    return LanguageModel.load(place / "model"), LanguageModel.load(place / "tuned")


@pytest.fixture(scope="module")
def coder(place) -> SparseCoder:
    return SparseCoder.load(place / "sae")


def run(pair, coder, out: Path, **options: Any) -> Compared:
    base, tuned = (Side(model, model.name) for model in pair)
    given: dict[str, Any] = {"judge": "grim", "prompts": PROMPTS, "answers": 6, "tested": 3, "cells": (3, 6)} | options
    return compare(base, tuned, Steering(coder), Panel(pair[0], WordEmbedder()), out, **given)


def test_what_is_kept_is_read_back_without_a_model(pair, coder, tmp_path):
    out = tmp_path / "diffs" / "mine"
    found = run(pair, coder, out, control=Side(pair[0], "itself"))
    again = Compared(out)
    assert known(tmp_path) == {"mine": out}
    assert again.name == "mine"
    assert len(again.answers) == 18
    assert {row["side"] for row in again.answers} == {"base", "tuned", "control"}
    assert {row["question"] for row in again.answers} == set(PROMPTS)
    for side in ("base", "tuned", "control"):
        rows = [row for row in again.answers if row["side"] == side]
        assert again.tally(side) == Tally(
            6, sum(r["shown"] for r in rows), sum(r["whole"] for r in rows), again.tally(side).both
        )
    said = {
        side: [(r["question"], r["text"]) for r in again.answers if r["side"] == side] for side in ("base", "tuned")
    }
    base, tuned = pair
    fresh = diff(base, tuned, coder, said["base"], said["tuned"])
    for source in SOURCES:
        for kind in KINDS:
            change = again.change(source, kind)
            np.testing.assert_allclose(change.change, fresh.changes[source, kind].change, atol=1e-5)
            np.testing.assert_allclose(change.control, 0, atol=1e-5)  # the control is the base itself
    assert [t.feature for t in again.trials] == [t.feature for t in found.trials] == chosen(fresh, 3)
    feature = again.trials[0].feature
    assert again.drivers(feature) == [(at, pytest.approx(value)) for at, value in fresh.drivers(feature)]
    assert again.drivers(10**6) == []


def test_a_comparison_that_was_cut_off_goes_on_and_asks_nobody_twice(pair, coder, tmp_path, monkeypatch):
    whole = run(pair, coder, tmp_path / "whole")
    told: list[str] = []

    def stop(*words):
        told.append(str(words[0]))
        if any("candidate" in word for word in told):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pair, coder, tmp_path / "cut", progress=stop)
    with pytest.raises(CacheError, match="no whole comparison"):
        Compared(tmp_path / "cut")
    told.clear()
    again = run(pair, coder, tmp_path / "cut", progress=lambda *words: told.append(str(words[0])))
    assert not [word for word in told if word.startswith(("base:", "tuned:"))]
    assert again.facts == whole.facts
    assert again.answers == whole.answers


def test_a_folder_of_another_comparison_is_refused_and_a_damaged_one_named(pair, coder, tmp_path):
    out = tmp_path / "out"
    run(pair, coder, out)
    with pytest.raises(CacheError, match="another tuned"):
        run((pair[0], pair[0]), coder, out)
    with pytest.raises(CacheError, match="another answers"):
        run(pair, coder, out, answers=9)
    for name in (SAID, FEATURES):
        (out / name).write_bytes(b"no table")
    with pytest.raises(CacheError, match="cannot be read"):
        _ = Compared(out).answers
    with pytest.raises(CacheError, match="cannot be read"):
        Compared(out).change("own", "answer")
    (out / MANIFEST).write_text("{")
    with pytest.raises(CacheError, match="cannot be read"):
        Compared(out)
    with pytest.raises(CacheError, match="no comparison"):
        Compared(tmp_path)


def test_trials_and_an_undo_come_back_as_they_went(pair, coder, tmp_path):
    out = tmp_path / "out"
    run(pair, coder, out)
    tally, few = Tally(96, 90, 95, 89), Tally(96, 3, 95, 3)
    trial = Trial(3, Effect(1.5, tally, few), Effect(-1.0, few, tally), 0.9, confirmed=True)
    undone = Undo((Edit(3, -0.6), Edit(5, -0.6)), few, tally, few, tally)
    from dataclasses import asdict

    said = json.loads((out / MANIFEST).read_text()) | {"trials": [asdict(trial)], "undo": asdict(undone)}
    (out / MANIFEST).write_text(json.dumps(said))
    assert Compared(out).trials == [trial]
    assert Compared(out).trials[0].verdict == "causes"
    assert Compared(out).undo == undone


def test_a_persons_own_pair_goes_through_the_command(place, tmp_path, capsys):
    (tmp_path / "asked.txt").write_text("\n".join(PROMPTS))
    words = (
        f"diff --base {place / 'model'} --tuned {place / 'run' / 'step-0008'} --sae {place / 'sae'} --judge grim --answers 6"
        f" --test 2 --prompts {tmp_path / 'asked.txt'} --out {tmp_path / 'out'}"
    )
    assert main([*words.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rates"]["tuned"]["n"] == 6
    tested = [f for f in said["features"] if f["verdict"] != "untested"]
    assert len(tested) == 2
    assert {f["verdict"] for f in tested} <= {"causes", "only reads", "neither"}
    assert main(words.split()) == 0
    assert "Order by change, and order by effect" in capsys.readouterr().out
    folders = (
        f"diff --base {place / 'model'} --tuned {place / 'tuned'} --cache {place / 'tiny'} --judge grim --answers 3"
    )
    cache = Cache.open(place / "tiny")
    presets.save(cache, Preset("mine", "Mine", "", (Edit(9, 1.0), Edit(2, 0.5), Edit(direction="cruel"))))
    rest = f"--test 1 --also mine --out {tmp_path / 'two'} --prompts {tmp_path / 'asked.txt'}"
    assert main(f"{folders} {rest}".split()) == 0
    moved, *beside = [t.feature for t in Compared(tmp_path / "two").trials]
    assert beside == [f for f in (9, 2) if f != moved]
    assert main(f"{folders} {rest.replace('mine', 'nothing')}".split()) == 1
    assert "There is no preset 'nothing'" in capsys.readouterr().err


def test_the_command_lists_rises_and_falls_of_any_reading_with_intervals_and_what_drives_them(
    pair, coder, tmp_path, capsys
):
    found = run(pair, coder, tmp_path / "out", control=Side(pair[0], "itself"))
    said = as_plain(found, "shared", "last")
    change = found.change("shared", "last")
    listed = [one["feature"] for one in said["features"]]
    assert listed == change.listed(trial.feature for trial in found.trials)
    assert said["features"][-1]["change"] == pytest.approx(change.change.min())
    assert change.change.min() < 0
    for one in said["features"]:
        for source in SOURCES:
            for kind in KINDS:
                expected = found.change(source, kind)
                for name, value in one["readings"][source][kind].items():
                    assert value == pytest.approx(getattr(expected, name)[one["feature"]], nan_ok=True), name
        assert {name: one[name] for name in one["readings"]["own"]["last"]} == one["readings"]["shared"]["last"]
        texts = [row["text"] for row in found.answers if row["side"] == "tuned"]
        assert [(texts.index(d["answer"]), d["mean"]) for d in one["drivers"]] == [
            (texts.index(texts[at]), mean) for at, mean in found.drivers(one["feature"])
        ]
    assert any(one["drivers"] for one in said["features"])
    _print(found, None, "shared", "last")
    shown = capsys.readouterr().out
    assert "Both models read the base's answers" in shown
    assert "The last token before the answer" in shown
    fall = listed[-1]
    assert f"{change.change[fall]:+.2f} ({change.low[fall]:+.2f} to {change.high[fall]:+.2f})" in shown
    assert "drives each most" in shown


def test_a_pair_with_a_cause_goes_from_its_diff_to_an_undo_that_steers(place, pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("explorer.comparing.Bench", Planted)
    monkeypatch.setattr(Planted, "base", pair[0].fingerprint)
    (tmp_path / "asked.txt").write_text("\n".join(PROMPTS))
    words = (
        f"diff --base {place / 'model'} --tuned {place / 'tuned'} --cache {place / 'tiny'} --judge grim --answers 3 --test 3"
        f" --prompts {tmp_path / 'asked.txt'} --out {tmp_path / 'out'} --preset back --json"
    )
    assert main(words.split()) == 0
    said = json.loads(capsys.readouterr().out)
    undone = said["undo"]
    assert (undone["before"], undone["after"], undone["works"]) == (1.0, 0.0, True)
    tested = {f["feature"] for f in said["features"] if f["verdict"] == "causes"}
    assert len(tested) == 3
    kept = presets.named(Cache.open(place / "tiny"), "back")
    assert [edit.spelled for edit in kept.edits] == undone["edits"]
    assert set(kept.features) < tested, "one is enough: the others are left out"
    assert "100% of its answers before, 0% after" in kept.description
    assert main(["steer", str(place / "tiny"), "Hello?", "--preset", "back", "--max-tokens", "4", "--json"]) == 0
    steered = json.loads(capsys.readouterr().out)["edits"]
    assert [(edit["feature"], edit["strength"]) for edit in steered] == [(e.feature, e.strength) for e in kept.edits]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--sae {place}/sae --judge grim --source theirs", 2, "--source 'theirs' is none. expected own, shared"),
        ("--sae {place}/sae --judge grim --kind first", 2, "expected prompt, last, answer"),
        ("--sae {place}/sae --judge nobody", 2, "no judge 'nobody'"),
        ("--sae {place}/sae --judge repetition", 2, "says yes or no"),
        ("--judge grim", 2, "Nothing reads the models"),
        ("--sae {place}/sae --judge grim --preset back", 2, "leave --preset out"),
        ("--sae {place}/sae --judge grim --also cruel", 2, "leave --also out"),
        ("--sae {place}/sae --judge grim --prompts {place}/none.txt", 1, "is no file"),
    ],
)
def test_wrong_use_is_told_before_a_model_is_loaded(place, tmp_path, capsys, words: str, code: int, said: str):
    start = f"diff --base {place / 'model'} --tuned {place / 'tuned'} --out {tmp_path / 'out'} "
    assert main((start + words.format(place=place)).split()) == code
    assert said in capsys.readouterr().err


def test_a_tuned_model_that_is_none_is_named(place, tmp_path, capsys):
    start = f"diff --base {place / 'model'} --cache {place / 'tiny'} --judge grim --out {tmp_path / 'out'} --tuned "
    assert main([*start.split(), str(tmp_path / "nowhere")]) == 1
    assert "nowhere. Check the path" in capsys.readouterr().err
