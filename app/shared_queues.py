"""Queues that people share, and lists as queues: which there are, whose turn a feature is, and how far everybody is."""

from html import escape

import streamlit as st

from app import resources
from app.label_form import author
from app.queues import Queue, fixed
from explorer.assignments import Assignments
from explorer.assignments import Queue as Shared
from explorer.cache import Cache
from explorer.errors import ExplorerError

SHARED, LIST = "shared:", "list:"
"""How a link names them."""


def named(cache: Cache) -> dict[str, str]:
    """Name in the link -> what it is called, of the shared queues and the lists of this SAE; none where they cannot be read."""
    sae = cache.manifest.sae_fingerprint
    try:
        mine = author()
        queues = [
            (f"{SHARED}{q.name}", f"{q.name}{' (blind)' if q.blind else ''}")
            for q in resources.assignments().all(sae)
            if q.share(mine)
        ]
        return dict(queues) | {f"{LIST}{one.name}": f"List {one.name}" for one in resources.lists().all(sae)}
    except ExplorerError:  # the form says what is wrong
        return {}


def shared(cache: Cache, name: str) -> Shared | None:
    """The shared queue that a link names."""
    if not name.startswith(SHARED):
        return None
    try:
        return resources.assignments().get(cache.manifest.sae_fingerprint, name.removeprefix(SHARED))
    except ExplorerError:
        return None


def made(cache: Cache, name: str) -> Queue:
    """A shared queue's part of the person who looks, or a list, as a queue; empty where it is not there any more."""
    if found := shared(cache, name):
        return fixed([f for f in found.share(author()) if f < cache.n_features], cache.n_features)
    try:
        one = resources.lists().get(cache.manifest.sae_fingerprint, name.removeprefix(LIST))
    except ExplorerError:
        one = None
    return fixed([f for f in one.features if f < cache.n_features] if one else [], cache.n_features)


def dealt_with(cache: Cache, name: str) -> set[int]:
    """What the person who looks has done or skipped of a shared queue."""
    found = shared(cache, name)
    if found is None:
        return set()
    store: Assignments = resources.assignments()
    return set(found.share(author())) - set(store.left(found, author()))


def mark(cache: Cache, name: str, feature: int, kind: str) -> None:
    """Note that the person who looks has done or skipped a feature of a shared queue."""
    found = shared(cache, name)
    if found is not None and feature in found.features:
        resources.assignments().mark(found, feature, kind, author=author())


def progress(cache: Cache, name: str) -> None:
    """How far everybody is."""
    found = shared(cache, name)
    if found is None:
        return
    rows = "".join(
        f"<span>{escape(who)} <b>{p.done + p.skipped:,}</b> of {p.total:,}{f' ({p.skipped:,} skipped)' if p.skipped else ''}</span>"
        for who, p in resources.assignments().progress(found).items()
    )
    st.html(f'<div class="facts num dim words" role="status">{rows or "<span>nobody has begun</span>"}</div>')
