"""What a feature does over a corpus, as partial results that merge.

`accumulate` turns one chunk of windows into a `Partial`; `merge` joins two. Merging is associative and does not depend on the order, so
chunks, a build that goes on after it was cut off, and several machines are one idea.
"""

from dataclasses import dataclass, fields

import numpy as np

from explorer.windows import Windows, ragged

KEPT_TOP = 48  # candidates for the 24 top examples: some are dropped later because they repeat a phrase
KEPT_A_LEVEL = 3  # candidates for interval examples, for every factor of the square root of two in the activation
COFIRING_TOKENS = 40_960
LEVELS_A_DOUBLING, LOWEST = 8, -16  # fine histogram: eight bins for every doubling, from 2**-16 on
FINE_BINS = 256
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Codes:
    """Sparse activations of the scored tokens of some windows; one entry an active (token, feature).

    Args:
        place: `[n]` int64, the token's place in `Windows.tokens`.
        feature: `[n]` int32.
        value: `[n]` float32, above 0.
    """

    place: np.ndarray
    feature: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, slots=True)
class Partial:
    """Statistics of all features over some windows.

    A hit is a window on which a feature is active. Hits are kept where they may become examples: the strongest of each document, and a
    sample of every level of activation.

    Args:
        tokens: `[1]` scored tokens; documents: `[1]` documents.
        active, documents_active: `[features]` int64; total: `[features]` float64, summed activations; maximum: `[features]` float32.
        histogram: `[features, FINE_BINS]` int64, active tokens by level.
        hit_*: feature, window (its number in the corpus), document, peak (position), best (value there) and hash of each hit.
        hit_starts, hit_position, hit_value: The feature's activations over each hit's window, ragged.
        sample_hash, sample_starts, sample_feature: Tokens kept for co-firing, and their active features, ragged.
        index, document, offset, starts, tokens_of, evidence: The windows that hits are on (`explorer.windows.Windows`).
    """

    tokens: np.ndarray
    documents: np.ndarray
    active: np.ndarray
    documents_active: np.ndarray
    total: np.ndarray
    maximum: np.ndarray
    histogram: np.ndarray
    hit_feature: np.ndarray
    hit_window: np.ndarray
    hit_document: np.ndarray
    hit_peak: np.ndarray
    hit_best: np.ndarray
    hit_hash: np.ndarray
    hit_starts: np.ndarray
    hit_position: np.ndarray
    hit_value: np.ndarray
    sample_hash: np.ndarray
    sample_starts: np.ndarray
    sample_feature: np.ndarray
    index: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    starts: np.ndarray
    tokens_of: np.ndarray
    evidence: np.ndarray

    @property
    def windows(self) -> Windows:
        return Windows(self.index, self.document, self.offset, self.starts, self.tokens_of, self.evidence)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name, to be written down."""
        return {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}


def level(value: np.ndarray) -> np.ndarray:
    """The fine histogram's bin of activations above 0."""
    return np.clip(np.floor(np.log2(value) * LEVELS_A_DOUBLING) - LOWEST * LEVELS_A_DOUBLING, 0, FINE_BINS - 1).astype(
        np.int64
    )


def level_edges() -> np.ndarray:
    """`[FINE_BINS + 1]`, the activations between which the fine bins lie."""
    return 2.0 ** (np.arange(FINE_BINS + 1) / LEVELS_A_DOUBLING + LOWEST)


def scramble(*parts: np.ndarray) -> np.ndarray:
    """A hash of numbers that is the same on every machine (splitmix64), `uint64`."""
    state = np.zeros(np.broadcast(*parts).shape, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = (state + part.astype(np.uint64) + np.uint64(1)) * _MIX
            state ^= state >> np.uint64(30)
            state *= np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(27)
            state *= np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return state


def accumulate(windows: Windows, codes: Codes, scored_tokens: int, n_features: int) -> Partial:
    """The statistics of one chunk.

    Args:
        windows: Whole documents' windows.
        codes: The activations on their scored tokens, in any order.
        scored_tokens: How many tokens were scored, active or not.
        n_features: Width of the SAE.
    """
    row_of = windows.rows()
    order = np.lexsort((codes.place, codes.feature))
    place, feature, value = codes.place[order], codes.feature[order].astype(np.int64), codes.value[order]
    row = row_of[place]
    new = (
        np.flatnonzero(np.diff(feature, prepend=-1) | np.diff(row, prepend=-1)) if len(place) else np.zeros(0, np.int64)
    )
    starts = np.append(new, len(place)).astype(np.int64)
    best = np.maximum.reduceat(value, new) if len(new) else np.zeros(0, np.float32)
    lengths = np.diff(starts)
    is_best = value == np.repeat(best, lengths)
    first_best = np.minimum.reduceat(np.where(is_best, np.arange(len(value)), len(value)), new) if len(new) else new
    position = place - windows.starts[row]
    hit_feature, hit_row = feature[new], row[new]
    document = windows.document[hit_row].astype(np.int64)
    pairs = np.unique(hit_feature * (1 << 40) + document) >> 40
    maximum = np.zeros(n_features, np.float32)
    np.maximum.at(maximum, hit_feature, best)
    histogram = (
        np.bincount(feature * FINE_BINS + level(value), minlength=n_features * FINE_BINS)
        if len(value)
        else np.zeros(n_features * FINE_BINS)
    )
    sample = _sample(windows, place, row, feature)
    part = Partial(
        tokens=np.array([scored_tokens], np.int64),
        documents=np.array([len(np.unique(windows.document))], np.int64),
        active=np.bincount(feature, minlength=n_features).astype(np.int64),
        documents_active=np.bincount(pairs, minlength=n_features).astype(np.int64),
        total=np.bincount(feature, value, minlength=n_features),
        maximum=maximum,
        histogram=histogram.reshape(n_features, FINE_BINS).astype(np.int64),
        hit_feature=hit_feature.astype(np.int32),
        hit_window=windows.index[hit_row],
        hit_document=document.astype(np.int32),
        hit_peak=position[first_best].astype(np.int32),
        hit_best=best.astype(np.float32),
        hit_hash=scramble(windows.index[hit_row], hit_feature),
        hit_starts=starts,
        hit_position=position.astype(np.int32),
        hit_value=value.astype(np.float32),
        **sample,
        index=windows.index, document=windows.document, offset=windows.offset, starts=windows.starts,
        tokens_of=windows.tokens, evidence=windows.evidence,
    )  # fmt: skip
    return _trim(part)


def merge(a: Partial, b: Partial) -> Partial:
    """The statistics of the windows of both; no window may be in both."""

    def both(name: str) -> np.ndarray:
        return np.concatenate([getattr(a, name), getattr(b, name)])

    def starts(name: str) -> np.ndarray:
        one, two = getattr(a, name), getattr(b, name)
        return np.concatenate([one, two[1:] + one[-1]])

    windows = Windows.join([a.windows, b.windows])
    summed = ("tokens", "documents", "active", "documents_active", "total", "histogram")
    joined = {
        name: both(name) for name in ("hit_feature", "hit_window", "hit_document", "hit_peak", "hit_best", "hit_hash")
    }
    part = Partial(
        **{name: getattr(a, name) + getattr(b, name) for name in summed},
        maximum=np.maximum(a.maximum, b.maximum),
        **joined,
        hit_starts=starts("hit_starts"), hit_position=both("hit_position"), hit_value=both("hit_value"),
        sample_hash=both("sample_hash"), sample_starts=starts("sample_starts"), sample_feature=both("sample_feature"),
        index=windows.index, document=windows.document, offset=windows.offset, starts=windows.starts,
        tokens_of=windows.tokens, evidence=windows.evidence,
    )  # fmt: skip
    return _trim(part)


def _sample(windows: Windows, place: np.ndarray, row: np.ndarray, feature: np.ndarray) -> dict[str, np.ndarray]:
    """Active tokens of a chunk with their features, for co-firing."""
    order = np.argsort(place, kind="stable")
    tokens, begin = np.unique(place[order], return_index=True)
    rows = row[order][begin] if len(begin) else row[:0]
    return {
        "sample_hash": scramble(windows.index[rows], tokens - windows.starts[rows]),
        "sample_starts": np.append(begin, len(place)).astype(np.int64),
        "sample_feature": feature[order].astype(np.int32),
    }


def _trim(part: Partial) -> Partial:
    """Keep only what may still become an example or is among the tokens sampled for co-firing."""
    keep = np.flatnonzero(_top(part) | _levels(part))
    entries, hit_starts = ragged(part.hit_starts, keep)
    chosen = np.sort(np.argsort(part.sample_hash, kind="stable")[:COFIRING_TOKENS])
    sampled, sample_starts = ragged(part.sample_starts, chosen)
    kept_windows = np.unique(part.hit_window[keep])
    at = np.argsort(part.index, kind="stable")
    windows = part.windows.take(at[np.searchsorted(part.index[at], kept_windows)])
    replaced = {
        **{n: getattr(part, n)[keep] for n in ("hit_feature", "hit_window", "hit_document", "hit_peak", "hit_best", "hit_hash")},
        "hit_starts": hit_starts, "hit_position": part.hit_position[entries], "hit_value": part.hit_value[entries],
        "sample_hash": part.sample_hash[chosen], "sample_starts": sample_starts, "sample_feature": part.sample_feature[sampled],
        "index": windows.index, "document": windows.document, "offset": windows.offset, "starts": windows.starts,
        "tokens_of": windows.tokens, "evidence": windows.evidence,
    }  # fmt: skip
    return Partial(**{**part.arrays(), **replaced})


def _top(part: Partial) -> np.ndarray:
    """Which hits are the best of their document and among a feature's strongest such."""
    order = np.lexsort((part.hit_window, -part.hit_best, part.hit_document, part.hit_feature))
    feature, document = part.hit_feature[order], part.hit_document[order]
    leads = (np.diff(feature, prepend=-1) != 0) | (np.diff(document, prepend=-1) != 0)
    order = order[leads]
    order = order[np.lexsort((part.hit_window[order], -part.hit_best[order], part.hit_feature[order]))]
    kept = np.zeros(len(part.hit_feature), bool)
    kept[order[_rank(part.hit_feature[order]) < KEPT_TOP]] = True
    return kept


def _levels(part: Partial) -> np.ndarray:
    """Which hits have the smallest hashes of their feature and level."""
    band = level(part.hit_best) // (LEVELS_A_DOUBLING // 2) if len(part.hit_best) else part.hit_feature
    group = part.hit_feature.astype(np.int64) * FINE_BINS + band
    order = np.lexsort((part.hit_hash, group))
    kept = np.zeros(len(group), bool)
    kept[order[_rank(group[order]) < KEPT_A_LEVEL]] = True
    return kept


def _rank(sorted_groups: np.ndarray) -> np.ndarray:
    """Place of each entry within its run of equal values."""
    new = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    return np.arange(len(sorted_groups)) - np.repeat(new, np.diff(np.append(new, len(sorted_groups))))


def rebin(histogram: np.ndarray, maximum: np.ndarray, bins: int) -> np.ndarray:
    """Fine levels to equal bins from 0 to the maximum; a level that lies across bins is shared by width, sums are kept.

    Args:
        histogram: `[features, FINE_BINS]`.
        maximum: `[features]`.
    Returns:
        `[features, bins]` int64.
    """
    edges = level_edges()
    found = np.zeros((len(histogram), bins), np.int64)
    for feature in np.flatnonzero(maximum > 0):
        counts, grid = histogram[feature], np.linspace(0, maximum[feature], bins + 1)
        below = np.concatenate([[0], np.cumsum(counts)])
        upper = np.minimum(edges, maximum[feature])
        upper[0] = 0
        cumulative = np.interp(grid, upper, below)
        cumulative[-1] = counts.sum()
        found[feature] = np.diff(np.rint(cumulative))
    return found


def quantiles(histogram: np.ndarray, maximum: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """Quantiles of the active values, interpolated within a level (each is a twelfth of a value wide).

    Returns:
        `[features, len(at)]` float32; 0 for a feature that never fires.
    """
    edges, shares = level_edges(), np.asarray(at)
    found = np.zeros((len(histogram), len(at)), np.float32)
    for feature in np.flatnonzero(maximum > 0):
        below = np.concatenate([[0], np.cumsum(histogram[feature])]) / histogram[feature].sum()
        level = np.searchsorted(below[1:], shares)  # the level that holds the quantile
        low, high = (np.minimum(edges[level + upper], maximum[feature]) for upper in (0, 1))
        found[feature] = low + (shares - below[level]) / (below[level + 1] - below[level]) * (high - low)
    return found


def coactive(part: Partial, n_features: int, most: int) -> tuple[list[list[int]], list[list[float]]]:
    """For each feature, those that fire on the same tokens, by Jaccard index over the sampled tokens."""
    from scipy.sparse import csr_array

    sample = csr_array(
        (np.ones(len(part.sample_feature), np.float32), part.sample_feature, part.sample_starts),
        shape=(len(part.sample_hash), n_features),
    )
    fires = np.asarray(sample.sum(0)).ravel()
    together = (sample.T @ sample).tocsr()
    ids: list[list[int]] = []
    shares: list[list[float]] = []
    for feature in range(n_features):
        span = slice(together.indptr[feature], together.indptr[feature + 1])
        other, both = together.indices[span], together.data[span]
        jaccard = both / (fires[feature] + fires[other] - both)
        usable = (other != feature) & (both >= 3)
        other, jaccard = other[usable], jaccard[usable]
        best = np.lexsort((other, -jaccard))[:most]
        ids.append(other[best].tolist())
        shares.append(jaccard[best].astype(float).tolist())
    return ids, shares
