"""Intervals: known answers, and the share of times that they hold the truth."""

import numpy as np
import pytest

from explorer.intervals import bootstrap, seeded, wilson


def test_wilson_gives_the_published_interval_and_stays_within_bounds():
    assert wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-3)
    assert wilson(0, 10)[0] == pytest.approx(0)
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("n", [1, 7, 96, 4096])
def test_wilson_agrees_with_scipy(n: int):
    from scipy.stats import binomtest

    for successes in sorted({0, 1, n // 3, n // 2, n}):
        found = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((found.low, found.high), abs=1e-12)


def test_a_bootstrap_interval_of_a_mean_holds_the_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        values = rng.normal(3, 1, 80)
        parts = np.stack([values, np.ones(80)], 1)
        low, high = bootstrap(parts, lambda s: s[0] / s[1], resamples=300, seed=seed)
        hits += low <= 3 <= high
    assert 88 <= hits <= 99


def test_an_interval_over_seeds_holds_the_rate_where_seeds_differ_and_wilsons_does_not():
    rng = np.random.default_rng(0)
    held = {"seeded": 0, "wilson": 0}
    for _ in range(300):
        counts = [(int(rng.binomial(120, rate)), 120) for rate in rng.beta(4, 6, 3)]
        for name, (low, high) in (("seeded", seeded(counts)), ("wilson", wilson(sum(k for k, _ in counts), 360))):
            held[name] += low <= 0.4 <= high
    assert held["seeded"] / 300 > 0.9
    assert held["wilson"] / 300 < 0.6


def test_an_interval_over_seeds_is_never_narrower_than_wilsons_and_stays_within_bounds():
    for counts in (
        [(9, 120)],
        [(9, 120)] * 3,
        [(0, 120), (0, 120)],
        [(120, 120), (60, 120)],
        [(0, 0)],
        [(3, 9), (0, 0)],
        [],
    ):
        low, high = seeded(counts)
        lower, upper = wilson(sum(k for k, _ in counts), sum(n for _, n in counts))
        assert 0 <= low <= lower
        assert upper <= high <= 1
