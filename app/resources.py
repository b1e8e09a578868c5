"""What all sessions share: opened caches, the labels, the engine. The only place with Streamlit's caches."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.engine import Engine
from explorer.cache import Cache
from explorer.errors import CacheError, LabelError
from explorer.labels import LabelStore
from explorer.packaged import home
from explorer.schema import Manifest

if TYPE_CHECKING:  # the first page does without
    from app.compared import Lab
    from explorer.assignments import Assignments
    from explorer.comparing import Compared
    from explorer.counterparts import Counterpart
    from explorer.database import Database
    from explorer.lists import Lists
    from explorer.mapping import Map
    from explorer.remarks import Remarks
    from explorer.scores import Scores
    from explorer.suggestions import Suggestions

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


def manifests() -> dict[str, Manifest | None]:
    """Name -> what every cache says of itself; None for one that cannot be read."""
    return {name: _manifest(str(path), (path / MANIFEST).stat().st_mtime_ns) for name, path in caches().items()}


@st.cache_resource(max_entries=256, show_spinner=False)
def _manifest(path: str, stamp: int) -> Manifest | None:
    try:
        return Manifest.from_json((Path(path) / MANIFEST).read_text(encoding="utf-8"), path)
    except (CacheError, OSError, UnicodeDecodeError):
        return None


@st.cache_resource(max_entries=8, show_spinner=False)
def _open(path: str, stamp: int) -> Cache:
    return Cache.open(path)


def labels() -> LabelStore:
    """The labels of people, over those that came with the caches and can be read.

    Raises:
        LabelError: If the database cannot be opened.
    """
    return _store()[0]


def bundled_trouble(cache: Cache) -> LabelError | None:
    """Why the labels that came with a cache cannot be read; None where they can, or there are none."""
    return _store()[1].get(str(cache.path / "labels.csv"))


def _store() -> tuple[LabelStore, dict[str, LabelError]]:
    from explorer.database import default_url

    files = [p.resolve() / "labels.csv" for p in caches().values()]
    return _labels(default_url(), tuple((str(file), file.stat().st_mtime_ns) for file in files if file.is_file()))


def database() -> "Database":
    """Where labels, lists, remarks, queues, suggestions and scores lie; one for all sessions.

    Raises:
        LabelError: If its URL makes no sense.
    """
    from explorer.database import default_url

    return _database(default_url())


@st.cache_resource(max_entries=4, show_spinner=False)
def _database(url: str) -> "Database":
    from explorer.database import Database

    return Database(url)


@st.cache_resource(max_entries=4, show_spinner=False)
def _labels(url: str, bundled: tuple[tuple[str, int], ...]) -> tuple[LabelStore, dict[str, LabelError]]:
    store, troubles = LabelStore(_database(url)), {}
    for path, _ in bundled:
        try:
            store.bundle(path)
        except LabelError as error:
            troubles[path] = error
    return store, troubles


def lists() -> "Lists":
    """Lists of features."""
    from explorer.lists import Lists

    return Lists(database())


def remarks() -> "Remarks":
    """Comments, tags and votes."""
    from explorer.remarks import Remarks

    return Remarks(database())


def assignments() -> "Assignments":
    """Queues and who has them."""
    from explorer.assignments import Assignments

    return Assignments(database())


def suggestions() -> "Suggestions":
    """Labels suggested from elsewhere."""
    from explorer.suggestions import Suggestions

    return Suggestions(database())


def scores() -> "Scores":
    """How well labels tell where their features fire."""
    from explorer.scores import Scores

    return Scores(database())


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


def feature_map(cache: Cache) -> "Map | None":
    """The map of a cache, read once for all sessions and again when it has been made anew; None where there is none.

    Raises:
        CacheError: If it is refused.
    """
    from explorer.mapping import MAP

    path = cache.path / MAP
    return _map(str(path), path.stat().st_mtime_ns, cache.manifest.sae_fingerprint, cache) if path.is_file() else None


@st.cache_resource(max_entries=8, show_spinner=False)
def _map(path: str, stamp: int, sae: str, _cache: Cache) -> "Map | None":
    from explorer.mapping import load

    return load(_cache)


def siblings(name: str) -> dict[str, Cache]:
    """The other caches of the same model and hook point, of another SAE, whose decoders can be read; none is refused aloud."""
    from explorer.counterparts import same_place
    from explorer.decoder import has_decoder
    from explorer.errors import ExplorerError

    found: dict[str, Cache] = {}
    try:
        here = cache(name)
    except (ExplorerError, KeyError):
        return found
    for other in caches():
        try:
            opened = cache(other)
        except ExplorerError:
            continue
        differs = opened.manifest.sae_fingerprint != here.manifest.sae_fingerprint
        if differs and same_place(here, opened) and has_decoder(here) and has_decoder(opened):
            found[other] = opened
    return found


def counterparts(name: str, other: str, feature: int) -> "list[Counterpart]":
    """A feature's counterparts in another cache, worked out once.

    Raises:
        ExplorerError: If they cannot be.
    """
    a, b = cache(name), cache(other)
    return _counterparts(a.manifest.sae_fingerprint, b.manifest.sae_fingerprint, feature, a, b)


@st.cache_data(max_entries=512, show_spinner=False)
def _counterparts(here: str, there: str, feature: int, _a: Cache, _b: Cache) -> "list[Counterpart]":
    from explorer.counterparts import counterparts as find

    return find(_a, _b, feature)


def forget() -> None:
    """Open everything afresh at the next run."""
    _comparison.clear()
    _lab.clear()
    _map.clear()
    _open.clear()
    _labels.clear()
    _database.clear()
