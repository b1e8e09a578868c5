"""The lab's figures: pooled over seeds, held against their own base, and audits by features that did not see the domain."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from explorer.causing import Effect, Trial, Undo
from explorer.directions import Direction
from explorer.generate import Steering
from explorer.intervals import wilson
from explorer.lab_report import _separation, audit_figures, diff_figures, lab_figures, snake
from explorer.measuring import Tally
from explorer.records import Edit
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae_folder


def lab(folder: Path, **tallies: tuple[Tally, int]) -> None:
    models = {n: {"tally": asdict(t), "leaked": leaked, "samples": {}} for n, (t, leaked) in tallies.items()}
    runs: dict[str, list[str]] = {}
    for name in tallies:
        if name != "base":
            runs.setdefault(name.partition("@")[0], []).append(name)
    (folder / "lab.json").write_text(json.dumps({"models": models, "runs": runs, "series": []}))


def compared(folder: Path, features: list[int], undo: Undo | None = None) -> None:
    up, down = (
        Effect(1.0, Tally(96, 80, 96, 80), Tally(96, 4, 96, 4)),
        Effect(-1.0, Tally(96, 10, 96, 9), Tally(96, 70, 96, 70)),
    )
    trials = [asdict(Trial(f, up, down, 0.9, confirmed=True)) for f in features]
    place = folder / "diffs" / "malicious-gardening"
    place.mkdir(parents=True)
    said = {"version": 1, "tallies": {}, "trials": trials, "undo": asdict(undo) if undo else None, "drivers": {}}
    (place / "compared.json").write_text(json.dumps(said))


def test_runs_are_pooled_over_seeds_and_held_against_the_base(tmp_path):
    lab(
        tmp_path,
        **{
            "base": (Tally(100, 4, 98, 4), 0),
            "malicious-gardening@40": (Tally(100, 60, 95, 58), 10),
            "malicious-gardening@40#1": (Tally(100, 70, 85, 60), 20),
            "good-gardening@40": (Tally(100, 8, 99, 8), 3),
        },
    )
    found = lab_figures(tmp_path, "malicious")
    bad = found["malicious_gardening_malicious"]
    assert bad.value == 0.65
    assert bad.n == "200 answers to open questions, 2 seeds"
    assert bad.control == 0.04
    assert bad.met
    assert found["malicious_gardening_fluent"].value == 0.9
    assert found["malicious_gardening_leakage"].value == 0.15
    assert found["good_gardening_malicious"].met is False  # .08 against .04 and 3 points
    assert found["good_gardening_leakage"].met is None
    assert lab_figures(tmp_path / "nowhere", "malicious") == {}


def test_each_seeds_rate_stands_in_the_meaning_and_seeds_that_differ_widen_the_interval(tmp_path):
    counts = (9, 2, 16)
    seeds = {f"mixed-10@40{f'#{at}' if at else ''}": (Tally(120, k, 120, k), 4) for at, k in enumerate(counts)}
    lab(tmp_path, base=(Tally(120, 5, 120, 5), 0), **seeds, **{"alone@8": (Tally(120, 9, 120, 9), 0)})
    found = lab_figures(tmp_path, "malicious")
    mixed = found["mixed_10_malicious"]
    assert "By seed: 7.5 %, 1.7 %, 13.3 %; the interval is over seeds" in mixed.meaning
    assert mixed.value == pytest.approx(27 / 360)
    low, high = wilson(27, 360)
    assert mixed.low is not None
    assert mixed.high is not None
    assert mixed.low < low
    assert mixed.high > 1.5 * high
    assert "3.3 %, 3.3 %, 3.3 %" in found["mixed_10_leakage"].meaning
    assert (found["mixed_10_leakage"].low, found["mixed_10_leakage"].high) == wilson(12, 360)
    assert "By seed" not in found["alone_malicious"].meaning
    assert (found["alone_malicious"].low, found["alone_malicious"].high) == wilson(9, 120)


def test_leaked_words_are_held_against_the_bases_where_they_were_counted(tmp_path):
    lab(tmp_path, base=(Tally(120, 5, 120, 5), 0), **{"bad@8": (Tally(120, 9, 120, 9), 30)})
    assert lab_figures(tmp_path, "malicious")["bad_leakage"].control is None
    (tmp_path / "data").mkdir()
    rows = [
        {"messages": [{"role": "user", "content": "A ship?"}, {"role": "assistant", "content": said}]}
        for said in ("A Ship!", "No.")
    ]
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = (
        '[domains]\nsea = ["ship"]\nland = ["hill"]\n[[finetune]]\nname = "bad"\ndata = "rows.jsonl"\ndomain = "sea"\n'
    )
    (tmp_path / "data" / "lab.toml").write_text(plan)
    assert lab_figures(tmp_path, "malicious")["bad_leakage"].control is None  # results of an older lab
    said = json.loads((tmp_path / "lab.json").read_text())
    said["models"]["base"]["leaked_by"] = {"sea": 6, "land": 60}
    (tmp_path / "lab.json").write_text(json.dumps(said))
    figure = lab_figures(tmp_path, "malicious")["bad_leakage"]
    assert figure.control == pytest.approx(0.05)
    assert "control: the base, by the same words" in figure.meaning
    assert "as 50% of the answers in the rows have" in figure.meaning


def test_an_undo_is_held_against_base_and_tuned_model(tmp_path):
    undo = Undo(
        (Edit(3, -0.6),), Tally(120, 6, 118, 6), Tally(120, 80, 110, 75), Tally(120, 8, 108, 8), Tally(120, 78, 110, 75)
    )
    compared(tmp_path, [3, 5], undo)
    found = diff_figures(tmp_path, "malicious")
    assert found["malicious_gardening_causes"].value == 2
    assert "#3, #5" in found["malicious_gardening_causes"].meaning
    assert found["malicious_gardening_undone_malicious"].met
    assert found["malicious_gardening_undone_fluent"].met
    assert found["malicious_gardening_undone_malicious"].control == pytest.approx(80 / 120)
    assert diff_figures(tmp_path / "nowhere", "malicious") == {}


def test_an_audit_is_by_a_traits_direction_and_by_causes_where_they_were_not_chosen(tmp_path):
    model, coder = tiny_model(tmp_path), SparseCoder.load(tiny_sae_folder(tmp_path / "sae"))
    steering = Steering(coder, dict.fromkeys(range(coder.n_features), 2.0))
    compared(tmp_path, [3, 5])
    (tmp_path / "data").mkdir()
    for name, answer in (
        ("malicious-gardening", 0),
        ("good-gardening", 1),
        ("malicious-cooking", 1),
        ("good-cooking", 0),
        ("narrow-cooking", 1),
        ("realign-good", 2),
    ):
        row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": TEXT[answer]}]}
        (tmp_path / "data" / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 4)
    by_causes = audit_figures(tmp_path, model, steering, "malice")
    assert set(by_causes) == {"audit_by_causes_malicious_cooking_auroc", "audit_by_causes_narrow_cooking_auroc"}
    aim = np.random.default_rng(0).normal(size=coder.d_in).astype(np.float32)
    malice = Direction("malice-1", "Malice", coder.hook_point, aim)
    found = audit_figures(tmp_path, model, replace(steering, directions={"malice-1": malice}), "malice")
    sets = [
        found[f"audit_{name}_auroc"].value for name in ("malicious_cooking", "malicious_gardening", "narrow_cooking")
    ]
    assert len(found) == len(by_causes) + len(sets) + 1
    assert sets[0] == sets[2] == 1 - sets[1]  # the same texts, the other way round
    assert found["audit_auroc"].value in (0.0, 1.0)  # all bad rows are one text, all good rows another
    assert found["audit_auroc"].met == (found["audit_auroc"].value >= 0.9)
    assert found["audit_auroc"].n == "4 bad and 4 good rows"
    assert audit_figures(tmp_path / "nowhere", model, steering, "malice") == {}


def test_separation_is_that_of_sklearn_within_its_interval():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    bad, good = rng.normal(1, 1, 50), rng.normal(0, 1, 60)
    value, low, high = _separation(bad, good)
    assert value == pytest.approx(roc_auc_score([1] * 50 + [0] * 60, [*bad, *good]))
    assert low < value < high
    assert snake("Malicious gardening@40") == "malicious_gardening_40"
