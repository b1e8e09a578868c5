"""Which feature of one SAE is which of another one of the same model and hook point, by the cosine of their decoder directions.

Two SAEs that read the same stream write back into the same space, so their directions can be compared as they are. A pair of which each
is the other's best is marked: the rest may be one feature of the narrower SAE that the wider one has split.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from explorer.cache import Cache
from explorer.decoder import decoder, decoder_row, unit
from explorer.errors import SaeError, UsageError
from explorer.label_files import LIMITS, Label
from explorer.suggestions import Suggestion

BEST = 3
THRESHOLD = 0.7
"""Cosine from which a label is offered to a counterpart."""
_BLOCK = 512  # features whose cosines with all others are held at once


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A feature of another SAE.

    Args:
        feature: Its number there.
        cosine: Of the two decoder directions.
        mutual: Whether each is the nearest to the other.
    """

    feature: int
    cosine: float
    mutual: bool


def same_place(cache: Cache, other: Cache) -> bool:
    """Whether two caches are of the same model and hook point, by fingerprint and name."""
    a, b = cache.manifest, other.manifest
    return (a.model_fingerprint, a.hook_point) == (b.model_fingerprint, b.hook_point)


def require_same_place(cache: Cache, other: Cache) -> None:
    """Refuse two caches whose directions lie in different spaces.

    Raises:
        UsageError: Naming both sides.
    """
    if not same_place(cache, other):
        a, b = cache.manifest, other.manifest
        raise UsageError(
            f"{other.name} is of {b.model} ({b.model_fingerprint[:12]}) at {b.hook_point}",
            expected=f"{a.model} ({a.model_fingerprint[:12]}) at {a.hook_point}, as {cache.name}",
            do="Compare caches of the same model and hook point",
        )


def best(here: np.ndarray, there: np.ndarray, k: int = BEST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest directions of another decoder, for each direction of this one.

    Args:
        here: `[n, d_model]`.
        there: `[m, d_model]`.
        k: How many, at most `m`.
    Returns:
        Features `[n, k]` and cosines `[n, k]`, the nearest first, and whether each is mutual, `[n, k]`.
    Raises:
        SaeError: If they are of different widths, or hold no numbers.
    """
    _comparable(here, there)
    a, b = unit(here), unit(there)
    k = min(k, len(b))
    features = np.empty((len(a), k), np.int64)
    cosines = np.empty((len(a), k), np.float32)
    nearest, height = np.zeros(len(b), np.int64), np.full(len(b), -np.inf, np.float32)  # of each there, who is it here
    for start in range(0, len(a), _BLOCK):
        cosine = a[start : start + _BLOCK] @ b.T
        features[start : start + _BLOCK], cosines[start : start + _BLOCK] = _top(cosine, k)
        row = cosine.argmax(0)
        high = cosine[row, np.arange(len(b))]
        better = high > height
        nearest[better], height[better] = row[better] + start, high[better]
    mutual = (nearest[features] == np.arange(len(a))[:, None]) & (np.arange(k) == 0)
    return features, cosines, mutual


def counterparts(cache: Cache, other: Cache, feature: int, k: int = BEST) -> list[Counterpart]:
    """The features of another cache that point as this one does, the nearest first.

    Raises:
        UsageError: If the caches are of another model or hook point, or there is no such feature.
        SaeError: If a decoder cannot be read.
    """
    require_same_place(cache, other)
    row, here, there = decoder_row(cache, feature), decoder(cache), decoder(other)
    _comparable(here, there)
    there = unit(there)
    (features,), (cosines,) = _top((there @ unit(row))[None], min(k, len(there)))
    back = int(np.argmax(unit(here) @ there[features[0]]))
    return [
        Counterpart(int(f), float(c), at == 0 and back == feature)
        for at, (f, c) in enumerate(zip(features, cosines, strict=True))
    ]


def suggested(
    source: Cache, target: Cache, labels: Mapping[int, Label], *, threshold: float = THRESHOLD
) -> list[Suggestion]:
    """Labels of one cache's features, offered to their counterparts in another: each target is offered its nearest labelled one.

    Args:
        labels: Feature of `source` -> label.
        threshold: Least cosine.
    Returns:
        Suggestions for `target`, the highest cosine first; nothing is stored and no label is moved here.
    Raises:
        UsageError: If the caches are of another model or hook point, or the threshold is no cosine.
        SaeError: If a decoder cannot be read.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"A threshold of {threshold:g}", expected="a cosine above 0 and at most 1")
    require_same_place(source, target)
    named = sorted(i for i, label in labels.items() if label.label and 0 <= i < source.n_features)
    if not named:
        return []
    to, whole = decoder(target), decoder(source)
    nearest, cosines, _ = best(to, whole[named], 1)
    overall, _, mutual = best(to, whole, 1)
    found = []
    for feature in np.flatnonzero(cosines[:, 0] >= threshold).tolist():
        label = labels[named[nearest[feature, 0]]]
        facts = {
            "cache": source.name,
            "sae": source.manifest.sae_fingerprint,
            "feature": label.feature,
            "author": label.author,
            "note": label.note,
            "mutual": bool(mutual[feature, 0]) and int(overall[feature, 0]) == label.feature,
        }
        cosine = round(float(cosines[feature, 0]), 4)
        sae = target.manifest.sae_fingerprint
        found.append(
            Suggestion(sae, feature, label.label, f"transfer from {source.name}"[: LIMITS["author"]], cosine, facts)
        )
    return sorted(found, key=lambda one: -(one.score or 0.0))


def _top(cosine: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` highest of each row, in order: places and values, `[rows, k]`."""
    some = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(cosine, some, 1)
    order = np.lexsort((some, -values), axis=1)
    return np.take_along_axis(some, order, 1), np.take_along_axis(values, order, 1)


def _comparable(here: np.ndarray, there: np.ndarray) -> None:
    if here.shape[1] != there.shape[1]:
        raise SaeError(f"One decoder writes {there.shape[1]} numbers", expected=f"{here.shape[1]}, as the other does")
    if not len(there) or not (np.isfinite(here).all() and np.isfinite(there).all()):
        raise SaeError("A decoder holds values that are no numbers", do="Check the SAE's file")
