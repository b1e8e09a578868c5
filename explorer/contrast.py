"""Which features tell one set of texts from another, and whether they would do so with texts that nobody has seen.

With thousands of features and a handful of texts, some feature always tells them apart by luck. So three things stand beside each other: how
well a feature does on the texts themselves, how well it did on texts that were held out whenever it was picked without them, and how often
shuffled texts give some feature that does as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.inspecting import Inspected

POOLS: dict[str, str] = {
    "max": "Its strongest activation in the text.",
    "mean": "Its mean activation over the tokens that count.",
}
"""What stands for a feature in a text."""
FOLDS, REPEATS, SHUFFLES = 5, 10, 400
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Contrasted:
    """A feature that is higher on the left than on the right.

    Args:
        feature: Its number.
        left, right: Its mean over the texts of each side, in SAE units.
        effect: Hedges' g: the difference in pooled standard deviations, corrected for few texts; nan with one text a side.
        auroc: How often a text of the left is above one of the right, ties half; .5 is chance.
        held_out: The same over pairs of held-out texts, of the times that it was picked without them; nan where it never was.
        picked: In what share of the splits it was picked.
        chance: In what share of shuffles some feature did at least as well; small means not by luck.
    """

    feature: int
    left: float
    right: float
    effect: float
    auroc: float
    held_out: float
    picked: float
    chance: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """What came of a contrast.

    Args:
        rows: The best features, best first.
        best_held_out: What the best pick is worth: its mean AUROC on held-out texts, over all splits; nan with fewer than two texts a side.
        n_left, n_right: How many texts.
    """

    rows: tuple[Contrasted, ...]
    best_held_out: float
    n_left: int
    n_right: int


def pooled(found: Sequence["Inspected"], how: str = "max") -> np.ndarray:
    """One row a text, `[texts, features]`, in SAE units.

    Raises:
        UsageError: If `how` is unknown.
    """
    if how not in POOLS:
        raise UsageError(f"{how!r} is no way to sum a text up", expected=", ".join(POOLS), do="Use one of these")
    rows = []
    for one in found:
        most, total, _ = one.pooled()
        rows.append(most if how == "max" else total / max(1, sum(one.scored)))
    return np.array(rows, np.float32)


def contrast(
    left: np.ndarray,
    right: np.ndarray,
    *,
    limit: int = 25,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Contrast:
    """Rank features by how well they tell the left from the right.

    Args:
        left, right: `[texts, features]`, as `pooled` gives them.
        limit: How many features to pick.
        seed: Of splits and shuffles.
    Raises:
        UsageError: If a side has no text.
    """
    if not len(left) or not len(right):
        side = "left" if not len(left) else "right"
        raise UsageError(f"There is no text on the {side}", expected="at least one a side", do="Add one")
    from scipy.stats import rankdata

    both = np.concatenate([left, right]).astype(np.float32)
    mine = np.arange(len(both)) < len(left)
    ranks = rankdata(both, axis=0).astype(np.float32)
    auroc = _auroc(ranks, mine)
    order = _picks(both, mine, limit)
    held_out, picked, best = _held_out(both, mine, limit, np.random.default_rng(seed))
    chance = _chance(ranks, mine, auroc[order], np.random.default_rng(seed + 1), should_stop)
    effect = _effect(both, mine)
    rows = tuple(
        Contrasted(
            int(i), float(left[:, i].mean()), float(right[:, i].mean()), float(effect[i]), float(auroc[i]),
            float(held_out[i]), float(picked[i]), float(p),
        )
        for i, p in zip(order, chance, strict=True)
    )  # fmt: skip
    return Contrast(rows, best, len(left), len(right))


def _auroc(ranks: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """`[features]` from ranks among all texts, `[texts, features]` (Mann and Whitney 1947)."""
    n, m = int(mine.sum()), int((~mine).sum())
    return (ranks[mine].sum(0) - n * (n + 1) / 2) / (n * m)


def _effect(both: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Hedges' g (1981) of each feature, `[features]`; nan where neither side varies, unless the sides are equal."""
    a, b = both[mine].astype(float), both[~mine].astype(float)
    n, m = len(a), len(b)
    difference = a.mean(0) - b.mean(0)
    if n + m < 3 or min(n, m) < 2:
        return np.where(difference == 0, 0.0, np.nan)
    spread = np.sqrt((a.var(0, ddof=1) * (n - 1) + b.var(0, ddof=1) * (m - 1)) / (n + m - 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        g = difference / spread * (1 - 3 / (4 * (n + m) - 9))
    return np.where(difference == 0, 0.0, np.where(spread > 0, g, np.nan))


def _picks(both: np.ndarray, mine: np.ndarray, limit: int) -> np.ndarray:
    """The features that are higher on the left, best AUROC first, then the largest difference in their own spread."""
    from scipy.stats import rankdata

    auroc = _auroc(rankdata(both, axis=0), mine)
    difference = both[mine].mean(0) - both[~mine].mean(0)
    spread = both.std(0)
    standing = np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0)
    higher = np.flatnonzero(difference > 0)
    return higher[np.lexsort((higher, -standing[higher], -auroc[higher]))][:limit]


def _held_out(
    both: np.ndarray, mine: np.ndarray, limit: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pick without some texts, look at these: AUROC and share of splits of each feature, and the mean AUROC of the best pick."""
    width, sides = both.shape[1], [np.flatnonzero(mine), np.flatnonzero(~mine)]
    folds = min(FOLDS, *(len(side) for side in sides))
    wins, pairs, picked, splits, best = np.zeros(width), np.zeros(width), np.zeros(width), 0, []
    if folds < 2:
        return np.full(width, np.nan), np.full(width, np.nan), float("nan")
    for _ in range(REPEATS):
        shuffled = [random.permutation(side) for side in sides]
        for fold in range(folds):
            tests = [side[fold::folds] for side in shuffled]
            train = np.setdiff1d(np.arange(len(both)), np.concatenate(tests))
            chosen = _picks(both[train], mine[train], limit)
            a, b = both[tests[0]][:, chosen], both[tests[1]][:, chosen]
            won = (a[:, None] > b[None]).sum((0, 1)) + 0.5 * (a[:, None] == b[None]).sum((0, 1))
            wins[chosen] += won
            pairs[chosen] += len(a) * len(b)
            picked[chosen] += 1
            splits += 1
            best.append(won[0] / (len(a) * len(b)) if len(chosen) else 0.5)
    with np.errstate(invalid="ignore"):
        return wins / pairs, picked / splits, float(np.mean(best))


def _chance(
    ranks: np.ndarray, mine: np.ndarray, found: np.ndarray, random: np.random.Generator, should_stop: Callable[[], bool]
) -> np.ndarray:
    """Share of shuffles whose best feature does at least as well as each that was found (Westfall and Young's maximum)."""
    n, m = int(mine.sum()), int((~mine).sum())
    best = []
    for start in range(0, SHUFFLES, _AT_ONCE):
        if should_stop():
            break
        rows = np.array([random.permutation(mine) for _ in range(min(_AT_ONCE, SHUFFLES - start))], np.float32)
        best.append(((rows @ ranks - n * (n + 1) / 2) / (n * m)).max(1))
    highest = np.concatenate(best) if best else np.empty(0)
    return np.array([(1 + (highest >= value - 1e-6).sum()) / (1 + len(highest)) for value in found])
