"""A log watched: killed and resumed it is the same, its memory does not grow, and thresholds say no more than people confirmed."""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.watching import chats, stub_scorer
from explorer.audit import audit, write_rows
from explorer.errors import CacheError, UsageError
from explorer.finetune import read_rows
from explorer.generate import Steering
from explorer.monitor import MANIFEST, REVIEWS, Watch, curve, measured, sample, tune, unbiased, watch
from explorer.sae import SparseCoder
from explorer.scoring import Probe, Scorer
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae_folder

ROWS = [
    {
        "messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": TEXT[n % 4]}],
        "bad": n % 4 == 1,
    }
    for n in range(23)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("monitor"))


@pytest.fixture(scope="module")
def steering(tmp_path_factory):
    coder = SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("monitor-sae") / "sae"))
    return Steering(coder, dict.fromkeys(range(coder.n_features), 2.0))


@pytest.fixture
def scorer(model, steering):
    return Scorer(model, steering, [Probe(3), Probe(7)])


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_run_that_is_stopped_goes_on_and_ends_up_the_same(log, scorer, model, steering, tmp_path):
    whole = Watch(watch(log, scorer, tmp_path / "whole", shard=5))
    told: list[tuple[int, int]] = []
    watch(
        log, scorer, tmp_path / "cut", shard=5, should_stop=lambda: len(told) == 2, progress=lambda *n: told.append(n)
    )
    cut = Watch(tmp_path / "cut")
    assert not cut.complete
    assert len(cut.scores("3")) == 20
    again = Scorer(model, steering, [Probe(3), Probe(7)])
    watch(log, again, tmp_path / "cut", shard=5, progress=lambda *n: told.append(n))
    assert told == [(5, 10), (10, 20), (15, 30), (20, 40), (23, 46)]
    cut = Watch(tmp_path / "cut")
    assert cut.complete
    assert whole.complete
    for probe in ("3", "7"):
        for statistic in ("mean", "largest"):
            np.testing.assert_allclose(
                cut.scores(probe, statistic)["score"], whole.scores(probe, statistic)["score"], atol=1e-4
            )
    assert whole.scores("3")["role"].tolist() == ["user", "assistant"] * 23


def test_a_file_that_was_being_written_when_the_run_was_killed_is_not_read(log, scorer, tmp_path):
    out = watch(log, scorer, tmp_path / "out", shard=5)
    (out / "scores-00002.parquet").rename(out / ".scores-00002.parquet.partial")
    assert len(Watch(out).scores("3")) == 20
    watch(log, scorer, out, shard=5)
    assert len(Watch(out).scores("3")) == 46


def test_a_folder_of_another_run_is_refused_by_what_differs(log, scorer, model, steering, tmp_path):
    out = watch(log, scorer, tmp_path / "out")
    with pytest.raises(CacheError, match="another probes"):
        watch(log, Scorer(model, steering, [Probe(4)]), out)
    log.write_text(log.read_text() + json.dumps(ROWS[0]) + "\n")
    with pytest.raises(CacheError, match="another sha256"):
        watch(log, scorer, out)
    with pytest.raises(CacheError, match="no run of a monitor"):
        Watch(tmp_path)
    (out / MANIFEST).write_text("{")
    with pytest.raises(CacheError, match="cannot be read"):
        Watch(out)


def test_only_some_files_are_held_at_once(scorer, tmp_path):
    """The reader is asked for the next conversations only when those before are written."""
    path, taken = tmp_path / "log.jsonl", []
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS * 4))
    original = scorer.score

    def score(part):
        taken.append((len(part), len(list((tmp_path / "out").glob("scores-*")))))
        return original(part)

    scorer.score = score
    watch(path, scorer, tmp_path / "out", shard=8)
    assert [files for _, files in taken] == list(range(len(taken)))
    assert max(size for size, _ in taken) == 8


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".txt"])
def test_memory_does_not_grow_with_the_log(tmp_path, form: str):
    """Ten times as many messages, nine megabytes of text more, and at most two more at once, for the ids that are remembered."""
    shard = 2 if form == ".txt" else 256  # a .txt is cut after a thousand messages
    peaks = []
    for messages in (100, 5_000, 50_000):  # the first for what is imported
        log = tmp_path / f"{messages}{form}"
        with log.open("w") as file:
            file.writelines(chats(messages, form))
        tracemalloc.start()
        out = watch(log, stub_scorer(), tmp_path / f"{messages}", shard=shard)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert Watch(out).messages == messages
    assert log.stat().st_size > 9e6
    assert peaks[2] < peaks[1] + 2e6, peaks


def test_flagged_messages_come_strongest_first_with_their_texts(log, scorer, tmp_path):
    run = Watch(watch(log, scorer, tmp_path / "out", shard=5))
    scores = run.scores("7", roles=("assistant",))
    threshold = float(np.quantile(scores["score"], 0.6))
    flagged = run.flagged("7", threshold, roles=("assistant",))
    assert flagged["score"].is_monotonic_decreasing
    assert min(flagged["score"]) >= threshold
    assert len(flagged) == (scores["score"] >= threshold).sum()
    first = flagged.to_dict("records")[0]
    assert first["text"] == ROWS[first["transcript"]]["messages"][1]["content"]
    assert run.transcript(int(first["transcript"]))["text"].tolist()[1] == first["text"]
    for wrong in (("8", "mean"), ("7", "median")):
        with pytest.raises(UsageError, match="one of"):
            run.scores(*wrong)
    with pytest.raises(UsageError, match="no conversation 99"):
        run.transcript(99)


def test_what_people_said_is_kept_line_by_line_and_goes_before_what_the_log_says(log, scorer, tmp_path):
    run = Watch(watch(log, scorer, tmp_path / "out", truth=("bad", "True")))
    table = run.scores("3")
    log_says = run.judged(table)
    assert np.nansum(log_says) == sum(row["bad"] for row in ROWS)
    assert np.isnan(log_says).sum() == 23  # the questions: a row's word is of its answer
    run.review(1, 1, agree=False, author="Ada")
    run.review(0, 0, agree=True)
    run.review(2, 1, agree=True)
    run.review(2, 1, agree=None)
    with (tmp_path / "out" / REVIEWS).open("a") as file:
        file.write('{"transcript": 3, "mess')
    run = Watch(tmp_path / "out")
    run.review(4, 0, agree=False)
    assert {key: r.agree for key, r in run.reviews().items()} == {(1, 1): False, (0, 0): True, (4, 0): False}
    judged = run.judged(table)
    assert judged[3] == 0
    assert judged[0] == 1
    assert judged[5] == log_says[5]


def test_precision_and_recall_are_unknown_until_somebody_judged():
    scores, nobody = np.array([0.9, 0.8, 0.2, np.nan]), np.full(4, np.nan)
    tuning = tune(scores, nobody, 0.5)
    assert (tuning.flagged, tuning.messages) == (2, 3)
    assert tuning.per_thousand == pytest.approx(1000 * 2 / 3)
    assert tuning.precision is tuning.recall is None
    assert math.isnan(tune(np.array([]), np.array([]), 0.5).per_thousand)
    assert curve(scores, nobody) is None
    assert curve(scores, np.array([1.0, 1.0, np.nan, np.nan])) is None


def test_precision_and_recall_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    judged = np.array([1, 0, 1, 1, 0, np.nan])
    tuning = tune(scores, judged, 0.5)
    assert tuning.confirmed == (2, 1, 1, 1)
    assert tuning.judged == 5
    assert tuning.precision is not None
    assert tuning.recall is not None
    assert tuning.precision[0] == tuning.recall[0] == pytest.approx(2 / 3)
    assert tuning.precision[1] < 2 / 3 < tuning.precision[2]


def simulated(messages: int = 20_000) -> tuple[pd.DataFrame, np.ndarray]:
    """A log of which 3 % are of the kind and score somewhat more, and what they are."""
    rng = np.random.default_rng(0)
    kind = rng.random(messages) < 0.03
    table = pd.DataFrame({"transcript": np.arange(messages) // 2, "message": np.arange(messages) % 2})
    return table.assign(truth=None, score=rng.normal(size=messages) + 1.2 * kind), kind


def test_a_review_of_the_strongest_tells_no_recall_and_no_curve():
    """What people confirm strongest first flatters: it is not counted, and what is drawn blindly is near the truth."""
    table, kind = simulated()
    scores = table["score"].to_numpy()
    line = float(np.quantile(scores, 0.99))
    real = tune(scores, kind.astype(float), line)
    right = curve(scores, kind.astype(float))
    strongest = np.argsort(-scores)[:400]
    judged = np.full(len(table), np.nan)
    judged[strongest] = kind[strongest]
    flattered = tune(scores, judged, line)
    assert real.recall is not None
    assert flattered.recall is not None
    assert real.recall[0] < 0.15
    assert flattered.recall[0] > 3 * real.recall[0]
    tuning, found = measured(table, judged, line)
    assert tuning.recall is found is None
    assert tuning.precision == real.precision  # all that are flagged are judged: nobody chose among them

    drawn = np.array([2 * a + b for a, b in sample(table, most=4000)])
    judged[drawn] = kind[drawn]
    tuning, found = measured(table, judged, line)
    assert found is not None
    assert right is not None
    assert tuning.recall is not None
    assert tuning.recall[1] < real.recall[0] < tuning.recall[2]
    assert found.auroc[1] < right.auroc[0] < found.auroc[2]
    biased = curve(scores, judged)
    assert biased is not None
    assert not biased.auroc[1] < right.auroc[0] < biased.auroc[2]


def test_precision_is_of_flags_that_nobody_chose_by_their_score():
    table, kind = simulated()
    scores = table["score"].to_numpy()
    line = float(np.quantile(scores, 0.9))
    real = tune(scores, kind.astype(float), line).precision
    assert real is not None
    judged = np.full(len(table), np.nan)
    strongest = np.argsort(-scores)[:100]
    judged[strongest] = kind[strongest]
    assert tune(scores, judged, line).precision[1] > real[0]  # type: ignore[index]
    assert measured(table, judged, line)[0].precision is None
    for a, b in sample(table, line)[:150]:
        judged[2 * a + b] = kind[2 * a + b]
    found = measured(table, judged, line)[0]
    assert found.precision is not None
    assert found.precision[1] < real[0] < found.precision[2]
    assert 150 <= sum(found.flags) < 160


def test_what_is_drawn_is_counted_up_to_the_first_gap_and_in_every_view():
    table, _ = simulated(1000)
    drawn = sample(table)
    assert len(drawn) == 200
    judged = np.full(1000, np.nan)
    for a, b in (drawn[0], drawn[2]):
        judged[2 * a + b] = 1
    assert np.isfinite(unbiased(table, judged)).sum() == 1
    judged[2 * drawn[1][0] + drawn[1][1]] = 0
    assert np.isfinite(unbiased(table, judged)).sum() == 3
    order = sample(table, most=None)
    assert sample(table.query("message == 1").reset_index(drop=True)) == [k for k in order if k[1] == 1][:200]
    scores = table["score"].to_numpy()
    assert sample(table, 0.5) == [k for k in order if scores[2 * k[0] + k[1]] >= 0.5][:200]
    assert np.corrcoef([2 * a + b for a, b in order], range(1000))[0, 1] == pytest.approx(0, abs=0.1)
    assert sample(table.head(0)) == []


def test_where_the_log_says_what_its_messages_are_all_of_them_count():
    table, kind = simulated(1000)
    known = table.assign(truth=[bool(k) if n % 2 else None for n, k in enumerate(kind)])
    judged = np.where(table["message"] == 1, kind.astype(float), np.nan)
    judged[int(np.argmax(table["score"][::2])) * 2] = 1  # a person's word on a message of which the log says nothing
    assert np.isfinite(unbiased(known, judged)).sum() == 500
    assert measured(known, judged, 1.0)[0].judged == 500


def test_the_curve_agrees_with_the_tuning_at_every_threshold():
    rng = np.random.default_rng(0)
    judged = (rng.random(60) < 0.4).astype(float)
    scores = judged + rng.normal(size=60)
    found = curve(scores, judged)
    assert found is not None
    value, low, high = found.auroc
    assert 0.5 < low < value < high <= 1
    assert found.n == (int(judged.sum()), 60 - int(judged.sum()))
    for at in range(1, len(found.thresholds)):
        tuning = tune(scores, judged, found.thresholds[at])
        assert tuning.precision is not None
        assert tuning.recall is not None
        assert found.precision[at] == pytest.approx(tuning.precision[0])
        assert found.recall[at] == pytest.approx(tuning.recall[0])


def test_the_curve_is_that_of_scikit_learn_ties_included():
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(1)
    judged = (rng.random(80) < 0.3).astype(float)
    scores = np.round(judged + rng.normal(size=80), 1)
    judged[::9], scores[::7] = np.nan, np.nan
    found = curve(scores, judged)
    assert found is not None
    there = ~np.isnan(scores) & ~np.isnan(judged)
    labels, values = judged[there].astype(int), scores[there]
    false_positive, recall, thresholds = roc_curve(labels, values, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive, false_positive)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert len(thresholds) < there.sum(), "there are ties"
    assert found.auroc[0] == pytest.approx(roc_auc_score(labels, values))


def test_an_audit_ranks_rows_by_their_last_answers(log, scorer, model, steering, tmp_path):
    rows = read_rows(log)
    found = audit(scorer, rows)
    expected = Watch(watch(log, scorer, tmp_path / "out"))
    for column, probe in enumerate(("3", "7")):
        answers = expected.scores(probe, roles=("assistant",))["score"]
        np.testing.assert_allclose(found.scores[:, column], answers, atol=1e-4)
    assert found.suspicion[found.order[0]] == found.suspicion.max()
    threshold = float(np.median(found.suspicion))
    kept = [row for row, keep in zip(found.rows, found.kept(threshold), strict=True) if keep]
    assert 0 < len(kept) < len(rows)
    write_rows(kept, tmp_path / "kept.jsonl")
    assert read_rows(tmp_path / "kept.jsonl") == kept


def test_a_row_that_cannot_be_scored_is_the_least_suspicious(scorer):
    strange = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<|im_end|>"})
    found = audit(scorer, [({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Kneel."}), strange])
    assert found.order.tolist() == [0, 1]
    assert found.suspicion[1] == -np.inf


def test_an_audit_that_is_stopped_leaves_the_rest_unscored(scorer):
    rows = [({"role": "user", "content": "Hi"}, {"role": "assistant", "content": TEXT[n % 4]}) for n in range(70)]
    told: list[int] = []
    found = audit(scorer, rows, progress=lambda done, total: told.append(done), should_stop=lambda: len(told) == 1)
    assert np.isfinite(found.suspicion).sum() == told[0] < 70
