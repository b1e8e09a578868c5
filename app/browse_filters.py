"""What Browse looks among, beyond the words: numbers, people, lists, remarks, fine-tunes; and the words' meaning."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from app import resources, state
from app.watched import begun, busy, trouble, watched
from explorer.among import REMARKED, among
from explorer.cache import Cache
from explorer.comparing import known, risen
from explorer.errors import ExplorerError
from explorer.labels import Label

S = st.session_state
WORDS, MEANING = "Words", "Meaning"
ANY = "any"
MAXIMA = ("0", "1", "2", "5", "10", "20", "50", "100")
KEYS = {
    "stronger": "the maximum", "author": "the author", "list": "the list", "tag": "the tag", "remarked": "the remarks",
    "moved": "the fine-tune",
}  # fmt: skip
"""URL keys of the filters, with what each is called."""
CHOSEN = tuple(KEYS)[1:]
"""Those of them that choose features by name, where `ANY` chooses none."""
NEAR = "browse-near"


def filters(cache: Cache, labels: Mapping[int, Label], on_change: Any) -> dict[str, Any]:
    """Draw the filters.

    Returns:
        What `explorer.search.search` takes of them: `min_max`, `only`.
    """
    authors = sorted({label.author for label in labels.values()})
    lists, tags = listed(cache), tagged(cache)
    diffs = list(known(cache.path))
    offered = {"stronger": MAXIMA, "author": authors, "list": lists, "tag": tags, "remarked": REMARKED, "moved": diffs}
    said = {key: st.query_params.get(key) for key in offered}
    used = sum(said[key] in options and said[key] != _DEFAULTS[key] for key, options in offered.items())
    with st.popover(f"Filters ({used})" if used else "Filters", icon=":material/filter_list:"):
        stronger = st.select_slider(
            "Maximum of at least",
            MAXIMA,
            key="stronger",
            bind="query-params",
            on_change=on_change,
            help="In SAE units.",
        )
        author = _choice("Labelled by", authors, "author", on_change)
        chosen = _choice("In the list", list(lists), "list", on_change)
        tag = _choice("With the tag", tags, "tag", on_change)
        remarked = _choice(
            "Remarked", list(REMARKED), "remarked", on_change, help=" ".join(f"{k}: {v}" for k, v in REMARKED.items())
        )
        tuned = _choice("Raised by the fine-tune", diffs, "moved", on_change)
    named = {"author": author, "listed": chosen, "tag": tag, "remarked": remarked}
    asked = {k: v for k, v in named.items() if v != ANY}
    only: set[int] | None = None
    try:
        moved = None if tuned == ANY else risen(cache.path, tuned)
        if asked or moved is not None:  # else labels that cannot be read, which the page has said, would be in the way
            only = among(cache, resources.labels(), labels, **asked, moved=moved)
    except ExplorerError as error:
        state.show_error(error)
    return {"min_max": float(stronger), "only": only}


_DEFAULTS = {"stronger": MAXIMA[0], **dict.fromkeys(CHOSEN, ANY)}


def clear(key: str) -> None:
    """Take a filter away; for callbacks."""
    S[key] = _DEFAULTS[key]


def _choice(name: str, options: list[str], key: str, on_change: Any, help: str | None = None) -> str:
    if not options:
        return ANY
    return st.selectbox(name, [ANY, *options], key=key, bind="query-params", on_change=on_change, help=help) or ANY


def listed(cache: Cache) -> dict[str, tuple[int, ...]]:
    """Name -> features, of the lists of this SAE; none where they cannot be read: they lie with the labels, of which the page says why."""
    try:
        return {one.name: one.features for one in resources.lists().all(cache.manifest.sae_fingerprint)}
    except ExplorerError:
        return {}


def tagged(cache: Cache) -> list[str]:
    """The tags that some feature of this SAE has; none where they cannot be read, as of `listed`."""
    try:
        return sorted(set().union(*resources.remarks().tags(cache.manifest.sae_fingerprint).values()))
    except ExplorerError:
        return []


def nearness(cache: Cache, query: str, labels: Mapping[int, str]) -> np.ndarray | None:
    """How near each feature is to what was asked; None while that is being found out, or where it cannot be."""
    engine = resources.engine(state.cache_name() or "")
    asked = (cache.manifest.sae_fingerprint, query, tuple(sorted(labels.items())))
    job = begun(NEAR, asked, lambda: engine.job(lambda job: engine.nearness(query, labels)))

    def part() -> None:
        if busy(job):
            st.html('<p class="say" role="status">Reading what the words mean…</p>')
        elif job.result is None:
            trouble(job)

    watched(part, lambda: job)
    return job.result
