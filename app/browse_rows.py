"""The rows of Browse: features that were found, each with its strongest example cut down to a line."""

from collections.abc import Sequence
from typing import Any

from app import state
from app.facts import bare, number, percent
from explorer.cache import Cache
from explorer.heatmap_html import level
from explorer.offensive import flag
from explorer.records import Example
from explorer.search import Row

BEFORE, AFTER = 5, 24
"""Tokens around the peak."""
_CHARACTER = 4  # bytes of one at most, so tokens too: with so many more on both sides none is cut


def snippet(cache: Cache, example: Example, top: float) -> list[tuple[str, int, bool, bool]]:
    """The surroundings of an example's peak as (text, level of colour 0 to 8, is the peak, is a special token).

    Args:
        top: The activation of the darkest colour.
    """
    start, stop = example.peak - BEFORE, example.peak + AFTER + 1
    first, last = max(0, start - _CHARACTER), stop + _CHARACTER
    return [
        (
            u.text,
            0 if u.special else level(u.value, top),
            u.start <= example.peak - first < u.stop,
            u.special,
        )
        for u in cache.vocabulary.units(example.tokens[first:last], example.acts[first:last])
        if u.stop > start - first and u.start < stop - first
    ]


def browse_rows(cache: Cache, found: Sequence[Row]) -> list[dict[str, Any]]:
    """Features that were found, as `app.components.feature_table` takes them."""
    examples = cache.strongest([row.index for row in found])
    return [_browse_row(cache, row, example) for row, example in zip(found, examples, strict=True)]


def _browse_row(cache: Cache, row: Row, example: Example | None) -> dict[str, Any]:
    name, promoted = bare(row.label or row.title), [bare(piece) for piece in row.promoted[:5]]
    return {
        "index": row.index,
        "href": state.link("feature", feature=row.index),
        "name": name,
        "labelled": bool(row.label),
        "max": number(row.max),
        "density": percent(row.density),
        "promoted": promoted,
        "units": snippet(cache, example, row.max) if example else [],
        "blurred": {
            "name": flag(name),
            "promoted": flag(" ".join(promoted)),
            "text": bool(example and example.flagged),
        },
        "dead": example is None,
    }
