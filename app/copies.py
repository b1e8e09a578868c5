"""What can be taken from a feature's page with one click: its link, its vector, a reference to it."""

from urllib.parse import quote

from app.api import PREFIX
from app.components.copier import Copy
from explorer.cache import Cache
from explorer.citing import citation


def copies(cache: Cache, name: str, feature: int, label: str) -> list[Copy]:
    """The buttons of a feature.

    Args:
        name: What the app calls the cache.
        label: What somebody named the feature, or "".
    """
    vector = f"{PREFIX.lstrip('/')}/caches/{quote(name, safe='')}/features/{feature}/vector"  # beside the page, under any prefix
    return [
        Copy("link", text="{page}", help="This page as it stands"),
        Copy("vector", url=vector, field="vector", help="The decoder direction, a JSON list of d_model numbers"),
        Copy("citation", text=citation(cache, feature, label, "{page}"), help="BibTeX, with the fingerprints of SAE and cache"),
    ]  # fmt: skip
