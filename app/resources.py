"""What all sessions share: opened caches, the labels, the engine. The only place with Streamlit's caches."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.engine import Engine
from explorer.cache import Cache
from explorer.labels import LabelStore
from explorer.packaged import home

if TYPE_CHECKING:  # the first page does without
    from app.compared import Lab
    from explorer.comparing import Compared

CACHES_VARIABLE = "PERSONA_EXPLORER_CACHES"
MANIFEST = "manifest.json"
ROOT = Path(__file__).resolve().parent.parent


def cache_folders() -> list[Path]:
    """Where caches are looked for: folders of caches, or caches themselves."""
    named = [Path(part).expanduser() for part in os.environ.get(CACHES_VARIABLE, "").split(os.pathsep) if part]
    return [ROOT / "cached_features", *named, home() / "caches"]


def caches() -> dict[str, Path]:
    """Name -> folder of every cache, the bundled ones first. Folders of one name get a number."""
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for place in cache_folders():
        inside = [place] if (place / MANIFEST).is_file() else sorted(p.parent for p in place.glob(f"*/{MANIFEST}"))
        for path in (p.resolve() for p in inside):
            if path in seen:
                continue
            seen.add(path)
            name, n = path.name, 2
            while name in found:
                name, n = f"{path.name}-{n}", n + 1
            found[name] = path
    return found


def cache(name: str) -> Cache:
    """The cache of that name, opened once for all sessions and again when it has been rebuilt.

    Raises:
        CacheError: If it is refused.
    """
    path = caches()[name]
    return _open(str(path), (path / MANIFEST).stat().st_mtime_ns)


@st.cache_resource(max_entries=8, show_spinner=False)
def _open(path: str, stamp: int) -> Cache:
    return Cache.open(path)


def labels() -> LabelStore:
    """The labels of people, over those that came with the caches.

    Raises:
        LabelError: If the database cannot be opened.
    """
    from explorer.labels import default_url

    bundled = [
        (str(p / "labels.csv"), (p / "labels.csv").stat().st_mtime_ns)
        for p in caches().values()
        if (p / "labels.csv").is_file()
    ]
    return _labels(default_url(), tuple(bundled))


@st.cache_resource(max_entries=4, show_spinner=False)
def _labels(url: str, bundled: tuple[tuple[str, int], ...]) -> LabelStore:
    return LabelStore(url, [path for path, _ in bundled])


def engine(name: str) -> Engine:
    """The live model behind a cache, one for all sessions. Making it loads nothing; `Engine.start` does.

    Raises:
        CacheError: If the cache is refused.
    """
    opened = cache(name)
    return _engine(str(opened.path), opened.manifest.created, opened.manifest.sae_fingerprint, opened)


@st.cache_resource(max_entries=2, show_spinner=False, on_release=lambda engine: engine.close())
def _engine(path: str, created: str, sae: str, _cache: Cache) -> Engine:
    return Engine(_cache)


def comparison(folder: Path) -> "Compared":
    """A comparison, opened once for all sessions and again when it has been made anew.

    Raises:
        CacheError: If it cannot be read.
    """
    from explorer.comparing import MANIFEST

    return _comparison(str(folder), (folder / MANIFEST).stat().st_mtime_ns)


@st.cache_resource(max_entries=8, show_spinner=False)
def _comparison(folder: str, stamp: int) -> "Compared":
    from app import compared

    return compared.opened(Path(folder))


def lab(cache: Cache) -> "Lab":
    """What the lab of a cache measured; nothing where there is none.

    Raises:
        RecipeError: If it cannot be read.
    """
    from explorer.experiments import RESULTS

    path = cache.path / RESULTS
    return _lab(str(cache.path), path.stat().st_mtime_ns if path.is_file() else 0)


@st.cache_resource(max_entries=4, show_spinner=False)
def _lab(folder: str, stamp: int) -> "Lab":
    from app.compared import Lab

    return Lab(Path(folder))


def forget() -> None:
    """Open everything afresh at the next run."""
    _comparison.clear()
    _lab.clear()
    _open.clear()
    _labels.clear()
