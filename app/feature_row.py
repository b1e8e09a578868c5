"""A feature as one row of a list, a ranking or a table: its number, what it is called, and the way to its page."""

from collections.abc import Mapping
from typing import Any

from app import state
from app.facts import bare
from explorer.cache import Cache
from explorer.offensive import flag


def named(cache: Cache, feature: int, labels: Mapping[int, str]) -> str:
    """Its label, else its own words; a comparison or a lab may know more features than the cache numbers."""
    own = cache.table.column("title")[feature].as_py() if feature < cache.n_features else ""
    return bare(labels.get(feature) or own or "no words of its own")


def feature_row(cache: Cache, feature: int, labels: Mapping[int, str], *, within: str | None = None) -> dict[str, Any]:
    """What every component that lists features takes of one: `{index, name, labelled, blurred, href}`.

    Args:
        labels: Feature -> label.
        within: The cache's name where it is not the one in view.
    """
    name = named(cache, feature, labels)
    return {
        "index": feature,
        "name": name,
        "labelled": feature in labels,
        "blurred": bool(flag(name)),
        "href": state.link("feature", feature=feature, **({state.CACHE: within} if within else {})),
    }
