"""Spans of the corpus on which features are silent, seen by the model itself: what a test of labels needs beside examples.

One pass over a sample of the cache's windows. A span is kept for a feature only where the model and the SAE of the cache gave it no
activation on any token of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from explorer.cache import Cache
from explorer.errors import CacheError, UsageError
from explorer.evidence import SCORED, EvidenceReader
from explorer.live import Live
from explorer.schema import EXAMPLES
from explorer.snippets import NEAR_MISS, RANDOM, span, write_negatives
from explorer.windows import Windows

SAMPLE = 2_000  # windows
NEAR, CHANCE = 4, 8  # spans a feature
_AT_A_TIME = 64  # windows whose activations are held at once
_AGREE = 0.98  # of the cached peaks must fire again


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass left behind.

    Args:
        path: The table.
        windows: How many were read.
        spans: Silent spans kept; short: features with fewer than were wanted.
        again: Share of the cached examples' peaks in these windows at which the feature fired again.
    """

    path: Path
    windows: int
    spans: int
    short: int
    again: float


def find(
    cache: Cache,
    live: Live,
    *,
    sample: int = SAMPLE,
    near: int = NEAR,
    chance: int = CHANCE,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Read a sample of the cache's windows and write its table of negatives.

    Args:
        sample: Windows to read, at most.
        near, chance: Near-misses and random spans to keep for each feature.
        progress: Called with windows done and their number.
    Raises:
        UsageError: If nothing is wanted.
        CacheError: If the cached examples do not fire again, so that what is seen here cannot be trusted.
    """
    if min(sample, near + chance) < 1:
        raise UsageError("No window or no span is wanted", expected="at least one of each", do="Ask for more")
    rng = np.random.default_rng(seed)
    total = len(cache.windows["starts"]) - 1
    rows = np.sort(rng.permutation(total)[:sample])
    peaks = _peaks(cache, rows)
    listed_by = _listed_by(cache)
    reader = EvidenceReader(
        live.model,
        live.coder.hook_point,
        sink_factor=cache.manifest.sink_factor,
        median_norm=cache.manifest.median_norm,
    )
    close, kept = _Best(cache.n_features, near), _Best(cache.n_features, chance)
    seen = fired = 0
    for first in range(0, len(rows), _AT_A_TIME):
        some = rows[first : first + _AT_A_TIME]
        windows = _windows(cache, some)
        active = _active(reader, live, windows)
        for row, window in enumerate(some.tolist()):
            tokens = active[row]
            for feature, peak, top in peaks.get(window, ()):
                seen += 1
                if feature not in tokens[peak]:
                    continue
                fired += 1
                if top and (wanted := listed_by[feature]):
                    silent = np.array(sorted(wanted - _within(tokens, peak)), np.int64)
                    close.offer(silent, rng.random(len(silent)), window, peak, feature)
            places = _places(windows, row)
            if len(places):
                peak = int(rng.choice(places))
                silent = np.setdiff1d(np.arange(cache.n_features), list(_within(tokens, peak)))
                kept.offer(silent, rng.random(len(silent)), window, peak, -1)
        progress(min(first + _AT_A_TIME, len(rows)), len(rows))
    again = fired / seen if seen else 1.0
    if again < _AGREE:
        raise CacheError(
            f"Only {again:.1%} of the cached examples fire again with this model and SAE",
            expected=f"at least {_AGREE:.0%}",
            do="Run persona-explorer check, or use the precision that the cache was built in",
        )
    table = _table(close, kept)
    path = write_negatives(cache, table)
    per = np.bincount(np.array(table["feature"], np.int64), minlength=cache.n_features)
    return Found(path, len(rows), len(table["feature"]), int((per[cache.live] < near + chance).sum()), again)


class _Best:
    """Of each feature, the spans with the smallest draws: a uniform sample of those offered."""

    def __init__(self, n_features: int, wanted: int) -> None:
        self.draws = np.full((n_features, wanted), np.inf)
        self.spans = np.full((n_features, wanted, 3), -1, np.int32)

    def offer(self, features: np.ndarray, draws: np.ndarray, window: int, peak: int, other: int) -> None:
        if not self.draws.shape[1] or not len(features):
            return
        there = (self.spans[features, :, 0] == window).any(1)  # one span a window
        worst = self.draws[features].argmax(1)
        better = (draws < self.draws[features, worst]) & ~there
        at, slot = features[better], worst[better]
        self.draws[at, slot] = draws[better]
        self.spans[at, slot] = (window, peak, other)


def _table(close: _Best, kept: _Best) -> dict[str, list]:
    rows = []
    for kind, best in ((NEAR_MISS, close), (RANDOM, kept)):
        feature, slot = np.nonzero(np.isfinite(best.draws))
        rows += [(f, kind, *s) for f, s in zip(feature.tolist(), best.spans[feature, slot].tolist(), strict=True)]
    rows.sort()
    return {n: [row[at] for row in rows] for at, n in enumerate(("feature", "kind", "window", "peak", "other"))}


def _peaks(cache: Cache, rows: np.ndarray) -> dict[int, list[tuple[int, int, bool]]]:
    """Window -> (feature, peak, whether it is a top example) of the examples on it."""
    table = pq.read_table(cache.path / EXAMPLES, columns=["feature", "window", "peak", "interval"])
    feature, window, peak, interval = (table.column(n).to_numpy() for n in ("feature", "window", "peak", "interval"))
    found: dict[int, list[tuple[int, int, bool]]] = {}
    for at in np.flatnonzero(np.isin(window, rows)):
        found.setdefault(int(window[at]), []).append((int(feature[at]), int(peak[at]), bool(interval[at] < 0)))
    return found


def _listed_by(cache: Cache) -> list[set[int]]:
    """Feature -> those that list it as a neighbour or as firing beside them."""
    found: list[set[int]] = [set() for _ in range(cache.n_features)]
    for column in ("neighbours", "coactive"):
        for feature, others in enumerate(cache.table.column(column).to_pylist()):
            for other in others:
                found[other].add(feature)
    return found


def _windows(cache: Cache, rows: np.ndarray) -> Windows:
    arrays = cache.windows
    evidence = np.where(np.asarray(arrays["scored"]) > 0, SCORED, 1).astype(np.uint8)
    whole = Windows(
        np.arange(len(arrays["starts"]) - 1), np.asarray(arrays["document"]), np.asarray(arrays["offset"]),
        np.asarray(arrays["starts"]), np.asarray(arrays["tokens"]).astype(np.int32), evidence,
    )  # fmt: skip
    return whole.take(rows)


def _active(reader: EvidenceReader, live: Live, windows: Windows) -> list[list[set[int]]]:
    """Window by window, token by token: the features that fire."""
    import torch

    found = [[set() for _ in range(n)] for n in windows.lengths.tolist()]
    row_of = windows.rows()
    with torch.inference_mode():
        for place, resid in reader.read(windows):
            at, feature = (t.cpu().numpy() for t in torch.nonzero(live.coder.encode(resid) > 0, as_tuple=True))
            for p, f in zip(place[at].tolist(), feature.tolist(), strict=True):
                row = row_of[p]
                found[row][p - windows.starts[row]].add(f)
    return found


def _within(tokens: list[set[int]], peak: int) -> set[int]:
    """Features that fire anywhere on the span about `peak`."""
    start, stop = span(len(tokens), peak)
    return set().union(*tokens[start:stop])


def _places(windows: Windows, row: int) -> np.ndarray:
    """Positions of a window that count as evidence, in a span most of which does."""
    scored = windows.evidence[windows.starts[row] : windows.starts[row + 1]] == SCORED
    share = [scored[slice(*span(len(scored), at))].mean() for at in range(len(scored))]
    return np.flatnonzero(scored & (np.array(share) >= 0.8))
