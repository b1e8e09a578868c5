"""Features that push the model towards the same next tokens: shared promoted tokens, counted from the cache alone."""

from weakref import WeakKeyDictionary

import numpy as np

from explorer.cache import Cache
from explorer.errors import UsageError

_indices: "WeakKeyDictionary[Cache, tuple[np.ndarray, np.ndarray, np.ndarray]]" = WeakKeyDictionary()


def sharing(cache: Cache, feature: int, most: int = 10) -> tuple[tuple[int, int], ...]:
    """Features whose promoted tokens are also this one's, those that share most first; among equals the lower number.

    The cache lists the same number of promoted tokens for every feature, so the count says as much as Jaccard's share of both lists.

    Args:
        most: How many.
    Returns:
        (feature, tokens in common), at least one.
    Raises:
        UsageError: If there is no such feature.
    """
    tokens = promoted(cache, feature)
    known, starts, owners = _index(cache)
    counts = np.zeros(cache.n_features, np.int32)
    for at in np.searchsorted(known, np.array(sorted(tokens), known.dtype)):
        counts[owners[starts[at] : starts[at + 1]]] += 1
    counts[feature] = 0
    order = np.lexsort((np.arange(len(counts)), -counts))[:most]
    return tuple((int(other), int(counts[other])) for other in order if counts[other])


def promoted(cache: Cache, feature: int) -> frozenset[int]:
    """The tokens that a feature promotes.

    Raises:
        UsageError: If there is no such feature.
    """
    if not 0 <= feature < cache.n_features:
        raise UsageError(f"There is no feature {feature}", expected=f"0 to {cache.n_features - 1}")
    return frozenset(cache.table.column("promoted")[feature].as_py())


def _index(cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens in order, where each begins in the third array, and the features that promote them."""
    if cache not in _indices:
        column = cache.table.column("promoted").combine_chunks()
        lengths = np.diff(column.offsets.to_numpy())
        tokens, features = column.flatten().to_numpy(), np.repeat(np.arange(len(lengths)), lengths)
        pairs = np.unique(np.stack([tokens, features], 1), axis=0)  # a token counts once for a feature
        known, starts = np.unique(pairs[:, 0], return_index=True)
        _indices[cache] = known, np.append(starts, len(pairs)), pairs[:, 1]
    return _indices[cache]
