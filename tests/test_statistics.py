"""One pass, any split: merged partials equal the whole, and the whole equals brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer import statistics
from explorer.statistics import (
    FINE_BINS,
    Codes,
    Partial,
    accumulate,
    coactive,
    level,
    level_edges,
    merge,
    quantiles,
    rebin,
)
from explorer.windows import Windows

FEATURES = 6


def corpus(seed: int, n_windows: int = 24) -> tuple[Windows, np.ndarray]:
    """Windows, two to a document, and dense activations `[tokens, FEATURES]`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, n_windows)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(starts[-1])
    windows = Windows(
        np.arange(n_windows), (np.arange(n_windows) // 2).astype(np.int32), np.zeros(n_windows, np.int32), starts,
        rng.integers(0, 50, total).astype(np.int32), np.zeros(total, np.uint8),
    )  # fmt: skip
    acts = np.where(rng.random((total, FEATURES)) < 0.3, rng.gamma(2, 2, (total, FEATURES)), 0).astype(np.float32)
    acts[:, 5] = 0
    return windows, acts


def part_of(windows: Windows, acts: np.ndarray, rows: np.ndarray) -> Partial:
    taken = windows.take(rows)
    places = np.concatenate([np.arange(windows.starts[r], windows.starts[r + 1]) for r in rows])
    place, feature = np.nonzero(acts[places])
    return accumulate(
        taken, Codes(place, feature.astype(np.int32), acts[places][place, feature]), len(places), FEATURES
    )


def hits(part: Partial) -> set[tuple[int, ...]]:
    spans = zip(part.hit_starts[:-1], part.hit_starts[1:], strict=True)
    return {
        (int(f), int(w), int(p), *(part.hit_position[a:b].tolist()), *(part.hit_value[a:b].tolist()))
        for f, w, p, (a, b) in zip(part.hit_feature, part.hit_window, part.hit_peak, spans, strict=True)
    }


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "KEPT_TOP", 4)
    monkeypatch.setattr(statistics, "KEPT_A_LEVEL", 1)
    monkeypatch.setattr(statistics, "COFIRING_TOKENS", 30)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 11), min_size=1, max_size=4, unique=True), st.randoms())
def test_merged_partials_equal_one_pass_for_any_split_and_order(seed: int, cuts: list[int], random):
    windows, acts = corpus(seed)
    whole = part_of(windows, acts, np.arange(24))
    bounds = [0, *sorted(2 * c for c in cuts), 24]
    parts = [part_of(windows, acts, np.arange(a, b)) for a, b in itertools.pairwise(bounds)]
    random.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    for name in ("tokens", "documents", "active", "documents_active", "maximum", "histogram"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    np.testing.assert_allclose(merged.total, whole.total)
    assert hits(merged) == hits(whole)
    assert set(merged.sample_hash.tolist()) == set(whole.sample_hash.tolist())
    assert set(merged.index.tolist()) == set(whole.index.tolist())


def test_counts_means_maxima_and_histograms_equal_brute_force():
    windows, acts = corpus(1)
    part = part_of(windows, acts, np.arange(24))
    np.testing.assert_array_equal(part.active, (acts > 0).sum(0))
    np.testing.assert_allclose(part.total, acts.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(part.maximum, acts.max(0))
    assert part.tokens[0] == len(acts)
    assert part.documents[0] == 12
    for feature in range(FEATURES):
        active = acts[:, feature][acts[:, feature] > 0]
        np.testing.assert_array_equal(part.histogram[feature], np.bincount(level(active), minlength=FINE_BINS))
    document = np.repeat(windows.document, windows.lengths)
    expected = [len(set(document[acts[:, f] > 0])) for f in range(FEATURES)]
    np.testing.assert_array_equal(part.documents_active, expected)


def test_the_kept_hits_hold_the_strongest_of_distinct_documents():
    windows, acts = corpus(2)
    part = part_of(windows, acts, np.arange(24))
    document = np.repeat(windows.document, windows.lengths)
    for feature in range(FEATURES):
        best = {d: acts[document == d, feature].max() for d in range(12)}
        strongest = sorted((v for v in best.values() if v > 0), reverse=True)[:4]
        mine = part.hit_feature == feature
        found = {d: part.hit_best[mine & (part.hit_document == d)].max() for d in set(part.hit_document[mine])}
        np.testing.assert_allclose(sorted(found.values(), reverse=True)[: len(strongest)], strongest)


def test_a_hit_holds_the_features_activations_over_its_window():
    windows, acts = corpus(3)
    part = part_of(windows, acts, np.arange(24))
    for at in range(len(part.hit_feature)):
        window, feature = part.hit_window[at], part.hit_feature[at]
        dense = acts[windows.starts[window] : windows.starts[window + 1], feature]
        span = slice(part.hit_starts[at], part.hit_starts[at + 1])
        np.testing.assert_array_equal(part.hit_position[span], np.flatnonzero(dense))
        np.testing.assert_array_equal(part.hit_value[span], dense[dense > 0])
        assert part.hit_peak[at] == dense.argmax()


def test_a_chunk_on_which_nothing_fires_is_no_trouble():
    windows, acts = corpus(4)
    silent = part_of(windows, acts * 0, np.arange(4))
    assert silent.active.sum() == 0
    other = part_of(windows, acts, np.arange(4, 24))
    assert hits(merge(silent, other)) == hits(other)


def test_rebinning_keeps_the_number_of_active_tokens_and_quantiles_are_close():
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 3, 20_000).astype(np.float32)
    fine = np.bincount(level(values), minlength=FINE_BINS)[None]
    top = values.max(keepdims=True)
    bins = rebin(fine, top, 40)[0]
    assert bins.sum() == 20_000
    exact = np.histogram(values, 40, (0, top[0]))[0]
    assert np.abs(bins - exact).sum() < 0.1 * 20_000
    np.testing.assert_allclose(
        quantiles(fine, top, (0.5, 0.9, 0.99))[0], np.quantile(values, (0.5, 0.9, 0.99)), rtol=0.05
    )
    assert np.all(np.diff(level_edges()) > 0)


def test_coactive_features_are_ranked_by_jaccard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "COFIRING_TOKENS", 10_000)
    windows, acts = corpus(5, 60)
    part = part_of(windows, acts, np.arange(60))
    ids, shares = coactive(part, FEATURES, 3)
    fires = acts > 0
    for feature in range(5):
        jaccard = [
            (fires[:, feature] & fires[:, o]).sum() / (fires[:, feature] | fires[:, o]).sum() if o != feature else -1
            for o in range(5)
        ]
        np.testing.assert_allclose(shares[feature], sorted(jaccard, reverse=True)[:3], rtol=1e-5)
        assert feature not in ids[feature]
    assert ids[5] == []


def test_quantiles_of_values_in_one_level_lie_in_that_level():
    edges = level_edges()
    histogram = np.zeros((1, len(edges) - 1), np.int64)
    level = int(np.searchsorted(edges, 10.0)) - 1
    histogram[0, level] = 3
    found = quantiles(histogram, np.array([10.0], np.float32), (0.5, 0.9, 0.99))
    assert (found >= edges[level]).all()
    assert (found <= 10.0).all()
