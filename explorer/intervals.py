"""How sure a figure is: intervals for means, ratios and rates."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

_Z = NormalDist().inv_cdf(0.975)


def bootstrap(
    parts: np.ndarray, figure: Callable[[np.ndarray], float], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval by drawing the parts again with replacement.

    Args:
        parts: `[n, ...]`, one row an independent unit (a document): sums that `figure` can be computed from.
        figure: The sum of the drawn rows `[...]` -> the figure.
    Returns:
        The 2.5 % and 97.5 % quantiles.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=resamples)
    drawn = np.tensordot(counts, parts, axes=(1, 0))
    low, high = np.quantile([figure(row) for row in drawn], [0.025, 0.975])
    return float(low), float(high)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate.

    Source: Wilson (1927), which stays within 0 and 1 and holds for small n.
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (0.0 if not successes else middle - half), (1.0 if successes == n else middle + half)


def seeded(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The 95 % interval of a rate over seeds: Student's t over their rates, and no narrower than Wilson's over all answers.

    Answers of one seed are no independent draws. Drawing a few seeds again is too narrow: three give ten different draws, which held the
    true rate in three of four simulated cases.

    Args:
        counts: (successes, n) of each seed; with one alone it is Wilson's.
    """
    from scipy.stats import t

    low, high = wilson(sum(k for k, _ in counts), sum(n for _, n in counts))
    rates = np.array([k / n for k, n in counts if n])
    if len(rates) < 2:
        return low, high
    half = float(t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / math.sqrt(len(rates)))
    middle = float(rates.mean())
    return max(0.0, min(low, middle - half)), min(1.0, max(high, middle + half))


def auroc(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How well each column tells rows of a kind from the others: the chance that one of the kind has the larger value, ties counted half.

    Args:
        values: `[rows, columns]`.
        labels: `[rows]` bool, True on rows of the kind.
    Returns:
        `[columns]`; .5 where all rows or none are of the kind.
    """
    from scipy.stats import rankdata

    n, m = int(labels.sum()), int((~labels).sum())
    if not n or not m:
        return np.full(values.shape[1], 0.5)
    ranks = rankdata(values, axis=0)
    return (ranks[labels].sum(0) - n * (n + 1) / 2) / (n * m)
