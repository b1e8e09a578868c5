"""Browse: every feature in a table that can be searched, filtered, sorted and paged."""

import math
from typing import Any

import streamlit as st

from app import browse_filters, state
from app.browse_filters import KEYS, MEANING, WORDS
from app.browse_rows import browse_rows
from app.bulk_form import bulk
from app.components.feature_table import feature_table
from explorer import search
from explorer.cache import Cache

ROWS = 25
SORTS = ("density", "max", "index", "title")
STATUSES = ("all", "labelled", "unlabelled", "live", "dead")
DENSITIES = {"0%": 0.0, "0.001%": 1e-5, "0.01%": 1e-4, "0.1%": 1e-3, "1%": 1e-2, "10%": 0.1, "100%": 1.0}
EVERY = ("0%", "100%")
TABLE = "browse-table"


def _open() -> None:
    if (index := st.session_state[TABLE].open) is not None:
        state.go("feature", feature=index)


def _sort() -> None:
    column = st.session_state[TABLE].sort
    if column in SORTS:
        now, descending = _order()
        turned = not descending if column == now else column in ("density", "max")  # numbers: the largest first
        _set("sort", f"-{column}" if turned else column)
        _set("page", None)


def _order() -> tuple[str, bool]:
    said = st.query_params.get("sort", "")
    if said.removeprefix("-") in SORTS:
        return said.removeprefix("-"), said.startswith("-")
    return ("match" if st.session_state.get("q") else "density"), True


def _page() -> int:
    said = st.query_params.get("page", "1")
    return max(1, int(said)) if said.isascii() and said.isdigit() and len(said) < 9 else 1


def _set(key: str, value: str | None) -> None:
    if value is None:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = value


def _turn(by: int, last: int) -> None:
    """So many pages on from what the link says now: the next press may come before the buttons have been drawn anew."""
    to = min(max(min(_page(), last) + by, 1), last)
    _set("page", str(to) if to > 1 else None)


def _first_page() -> None:
    _set("page", None)


def _clear(*keys: str) -> None:
    for key in keys:
        if key in KEYS:
            browse_filters.clear(key)
        else:
            st.session_state[key] = {"q": "", "status": "all", "density": EVERY}[key]
    _first_page()


def _nothing(cache: Cache, asked: dict[str, Any], labels: dict[int, str]) -> None:
    """Say which filter to clear, and how many features would then match."""
    plain = {"q": {"query": ""}, "status": {"status": "all"}, "density": {"min_density": 0.0, "max_density": 1.0}}
    plain["stronger"] = {"min_max": 0.0}
    used = [key for key in plain if any(asked[k] != v for k, v in plain[key].items())]
    names = {"q": "the search", "status": "the status", "density": "the density", **KEYS}
    among = [key for key in browse_filters.CHOSEN if st.session_state.get(key, "any") != "any"]
    said = " and ".join(names[k] for k in (*used, *among))
    st.html(f'<div class="words" role="status">No feature matches {said}.</div>')
    with st.container(horizontal=True, gap="small"):
        for key in used:
            left = search.search(cache, **{**asked, **plain[key]}, labels=labels, limit=1).total
            st.button(f"Clear {names[key]} ({left:,} would match)", key=f"clear-{key}", on_click=_clear, args=(key,))
        for key in among:
            st.button(f"Clear {names[key]}", key=f"clear-{key}", on_click=_clear, args=(key,))
        if len(used) + len(among) > 1:
            st.button("Clear all", on_click=_clear, args=(*used, *among))


cache = state.cache()
said = state.labels(cache)
labels = {index: label.label for index, label in said.items()}
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    query = st.text_input(
        "Search",
        key="q",
        type="search",
        bind="query-params",
        live=True,
        placeholder="Search words, or #number    /",
        on_change=_first_page,
        label_visibility="collapsed",
        max_chars=200,
    )
    status = st.selectbox(
        "Show",
        STATUSES,
        key="status",
        bind="query-params",
        on_change=_first_page,
        help="live: fires somewhere in the corpus; dead: nowhere",
        width=115,
    )
    by = st.segmented_control(
        "Search by", (WORDS, MEANING), default=WORDS, required=True, key="find", bind="query-params", on_change=_first_page,
        label_visibility="collapsed", help="Words as they stand, or what the words mean.",
    )  # fmt: skip
    low, high = st.select_slider(
        "Density",
        list(DENSITIES),
        EVERY,
        key="density",
        bind="query-params",
        on_change=_first_page,
        width=180,
        help="Share of scored tokens on which the feature is active.",
    )
    among = browse_filters.filters(cache, said, _first_page)
    st.button("Random", shortcut="X", on_click=state.any_feature, args=(cache,), help="Open any feature that fires")
    several = st.container(width="content")
    pager = st.container(horizontal=True, vertical_alignment="center", gap="small", width="content")

sort, descending = _order()
asked = {
    "query": query or "",
    "status": status,
    "min_density": DENSITIES[low],
    "max_density": DENSITIES[high],
    "notes": {index: label.note for index, label in said.items() if label.note},
    **among,
}
near = browse_filters.nearness(cache, query, labels) if query and by == MEANING else None
if query and by == MEANING and near is None:
    state.remember("browse")
    st.stop()  # the part that waits has said why
asked["nearness"] = near
page = _page()
found = search.search(
    cache, **asked, sort=sort, descending=descending, labels=labels, limit=ROWS, offset=(page - 1) * ROWS
)
last = max(1, math.ceil(found.total / ROWS))
if page > last:  # a link to a page that a filter has emptied
    page = last
    found = search.search(
        cache, **asked, sort=sort, descending=descending, labels=labels, limit=ROWS, offset=(page - 1) * ROWS
    )
with pager:
    start = (page - 1) * ROWS
    shown = f"{start + 1:,} to {start + len(found.rows):,}" if found.rows else "0"
    st.html(
        f'<h1 class="unseen">Browse features</h1><div class="dim num" style="white-space:nowrap">{shown} of <b>{found.total:,}</b></div>',
        width="content",
    )
    st.button("Previous", shortcut="K", disabled=page <= 1, on_click=_turn, args=(-1, last), key="previous-page")
    st.button("Next", shortcut="J", disabled=page >= last, on_click=_turn, args=(1, last), key="next-page")
with several:
    bulk(
        cache, lambda most: [row.index for row in search.search(
            cache, **asked, sort=sort, descending=descending, labels=labels, limit=most
        ).rows], found.total, [row.index for row in found.rows], query or "",
    )  # fmt: skip
if found.rows:
    feature_table(
        browse_rows(cache, found.rows),
        sort=sort,
        descending=descending,
        on_open=_open,
        on_sort=_sort,
        key=TABLE,
    )
else:
    _nothing(cache, asked, labels)
state.remember("browse")
