"""The features around one: like directions, firing together, shared promoted tokens, and its counterparts in other SAEs."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from app import resources, state
from app.components.feature_links import feature_links
from app.facts import bare, percent
from app.feature_row import feature_row
from explorer.affinity import sharing
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.records import Feature

LINKS = 8
"""Rows of a list."""
PAIR = "pair"
"""The page where two features stand side by side."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A list of features around one.

    Args:
        key: Of its widget.
        title, unit, why: What it is, what its numbers are, and how they are made.
        pairs: (feature, number for people).
    """

    key: str
    title: str
    unit: str
    why: str
    pairs: tuple[tuple[int, str], ...]


def cosine_text(value: float) -> str:
    """A cosine for people."""
    return f"{value:.2f}".replace("-", "−")


def lists(cache: Cache, feature: Feature) -> list[Ranked]:
    """The three ways to be near, each with its number; those that have nobody are left out."""
    shared = sharing(cache, feature.index, LINKS)
    of = len(feature.promoted)
    found = [
        Ranked(
            "links-cosine", "Nearest decoder directions", "cosine", "Cosine of the two directions",
            tuple((f, cosine_text(value)) for f, value in feature.neighbours[:LINKS]),
        ),
        Ranked(
            "links-share", "Fires together with", "share", "Of the tokens on which either fires, those on which both do",
            tuple((f, percent(value)) for f, value in feature.coactive[:LINKS]),
        ),
        Ranked(
            "links-tokens", "Promotes the same tokens", f"of {of} tokens", "Promoted tokens that both features have in their lists",
            tuple((f, str(count)) for f, count in shared),
        ),
    ]  # fmt: skip
    return [one for one in found if one.pairs]


def link_rows(
    cache: Cache,
    pairs: Sequence[tuple[int, str]],
    names: dict[int, str],
    *,
    beside: int | None = None,
    within: str | None = None,
) -> list[dict[str, Any]]:
    """Features as rows of links.

    Args:
        cache: Theirs.
        pairs: (feature, number for people).
        names: Feature -> label.
        beside: The feature that each can be put beside.
        within: The cache's name where it is not the one in view.
    """
    rows = []
    for index, value in pairs:
        row = {**feature_row(cache, index, names, within=within), "value": value}
        if beside is not None:
            row["pair"] = pair_link(beside, index, within)
        rows.append(row)
    return rows


def pair_link(feature: int, other: int, within: str | None = None) -> str:
    """The page of two features; `within` is the cache of the second where that is another one."""
    return state.link(PAIR, feature=feature, other=other, **({"with": within} if within else {}))


def related(cache: Cache, feature: Feature, names: dict[int, str], *, on_open: Any) -> None:
    """The lists around a feature, each row with a way to its page and to both side by side."""
    for one in lists(cache, feature):
        with st.container(gap=None):
            head(one.title, one.unit, one.why)
            feature_links(
                link_rows(cache, one.pairs, names, beside=feature.index),
                on_open=on_open,
                on_pair=lambda other: state.go(PAIR, feature=feature.index, other=other),
                key=one.key,
            )


def head(title: str, unit: str, why: str) -> None:
    """The head of a list."""
    st.html(f'<p class="sec" title="{why}">{title} <span style="font-weight:400">({unit})</span></p>')


def abroad(feature: Feature) -> None:
    """The feature's counterparts in the other caches of the same model and hook point; nothing where there is none."""
    here = state.cache_name() or ""
    for name, other in resources.siblings(here).items():
        try:
            found = resources.counterparts(here, name, feature.index)
        except ExplorerError as error:
            state.show_error(error)
            continue

        def side(index: int, name: str = name) -> None:
            state.go(PAIR, feature=feature.index, other=index, **{"with": name})

        def leave(index: int, name: str = name) -> None:
            state.choose_cache(name)
            state.go("feature", feature=index, **{state.CACHE: name})

        unit = "cosine; the first is each other’s best" if found and found[0].mutual else "cosine"
        pairs = tuple((one.feature, cosine_text(one.cosine)) for one in found)
        with st.container(gap=None):
            head(
                f"Counterparts in {escape(bare(name))}", unit, "Nearest decoder directions of another SAE of this layer"
            )
            rows = link_rows(other, pairs, known_labels(other), beside=feature.index, within=name)
            feature_links(rows, on_open=leave, on_pair=side, key=f"links-abroad-{name}")


def known_labels(cache: Cache) -> dict[int, str]:
    """Feature -> label, in passing: where labels cannot be read, the page has said so at its head."""
    try:
        return resources.labels().texts(cache.manifest.sae_fingerprint)
    except ExplorerError:
        return {}
