"""Browse: every feature in a table that can be searched, filtered, sorted and paged."""

import math
from typing import Any

import streamlit as st

from app import state
from app.components.feature_table import feature_table
from app.facts import bare, number, percent
from explorer import search
from explorer.cache import Cache
from explorer.offensive import flag
from explorer.records import Example

ROWS = 25
SORTS = ("density", "max", "index", "title")
STATUSES = ("all", "labelled", "unlabelled", "live", "dead")
DENSITIES = {"0%": 0.0, "0.001%": 1e-5, "0.01%": 1e-4, "0.1%": 1e-3, "1%": 1e-2, "10%": 0.1, "100%": 1.0}
EVERY = ("0%", "100%")
BEFORE, AFTER = 5, 24
TABLE = "browse-table"


def snippet(cache: Cache, example: Example, top: float) -> list[tuple[str, int, bool, bool]]:
    """The surroundings of an example's peak as (text, level of colour 0 to 8, is the peak, is a special token).

    Args:
        top: The activation of the darkest colour.
    """
    start, stop = example.peak - BEFORE, example.peak + AFTER + 1
    return [
        (
            u.text,
            0 if u.special or u.value <= 0 else min(8, math.ceil(8 * u.value / top)),
            u.start <= example.peak < u.stop,
            u.special,
        )
        for u in cache.vocabulary.units(example.tokens, example.acts)  # of the whole window: no character is cut
        if u.stop > start and u.start < stop
    ]


def _row(cache: Cache, row: search.Row) -> dict[str, Any]:
    example = next(iter(cache.examples(row.index, "top")), None)
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


def _turn(to: int) -> None:
    _set("page", str(to) if to > 1 else None)


def _first_page() -> None:
    _set("page", None)


def _clear(*keys: str) -> None:
    for key in keys:
        st.session_state[key] = {"q": "", "status": "all", "density": EVERY}[key]
    _first_page()


def _nothing(cache: Cache, asked: dict[str, Any], labels: dict[int, str]) -> None:
    """Say which filter to clear, and how many features would then match."""
    plain = {"q": {"query": ""}, "status": {"status": "all"}, "density": {"min_density": 0.0, "max_density": 1.0}}
    used = [key for key in plain if any(asked[k] != v for k, v in plain[key].items())]
    names = {"q": "the search", "status": "the status", "density": "the density"}
    st.html(f'<div class="words" role="status">No feature matches {" and ".join(names[k] for k in used)}.</div>')
    with st.container(horizontal=True, gap="small"):
        for key in used:
            left = search.search(cache, **{**asked, **plain[key]}, labels=labels, limit=1).total
            st.button(f"Clear {names[key]} ({left:,} would match)", key=f"clear-{key}", on_click=_clear, args=(key,))
        if len(used) > 1:
            st.button("Clear all", on_click=_clear, args=tuple(used))


cache = state.cache()
labels = state.label_texts(cache)
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    query = st.text_input(
        "Search",
        key="q",
        type="search",
        bind="query-params",
        live=True,
        placeholder="Search labels, tokens, examples, or #number    /",
        on_change=_first_page,
        label_visibility="collapsed",
        max_chars=200,
    )
    status = st.selectbox(
        "Status",
        STATUSES,
        key="status",
        bind="query-params",
        on_change=_first_page,
        label_visibility="collapsed",
        width=140,
    )
    low, high = st.select_slider(
        "Density",
        list(DENSITIES),
        EVERY,
        key="density",
        bind="query-params",
        on_change=_first_page,
        width=240,
        help="Share of scored tokens on which the feature is active.",
    )
    st.button("Random", shortcut="X", on_click=state.any_feature, args=(cache,), help="Open any feature that fires")
    pager = st.container(horizontal=True, vertical_alignment="center", gap="small", width="content")

sort, descending = _order()
asked = {
    "query": query or "",
    "status": status,
    "min_density": DENSITIES[low],
    "max_density": DENSITIES[high],
}
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
        f'<div class="dim num" style="white-space:nowrap">{shown} of <b>{found.total:,}</b></div>',
        width="content",
    )
    st.button("Previous", shortcut="K", disabled=page <= 1, on_click=_turn, args=(page - 1,), key="previous-page")
    st.button("Next", shortcut="J", disabled=page >= last, on_click=_turn, args=(page + 1,), key="next-page")
if found.rows:
    feature_table(
        [_row(cache, row) for row in found.rows],
        sort=sort,
        descending=descending,
        on_open=_open,
        on_sort=_sort,
        key=TABLE,
    )
else:
    _nothing(cache, asked, labels)
state.remember("browse")
