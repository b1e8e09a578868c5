"""A text that somebody wants explained: what was asked, the work on it, and what came of it as rows and cells."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.components.ranking_table import FEATURE
from app.engine import Engine
from app.facts import number, percent
from app.feature_row import feature_row
from app.jobs import Job
from explorer.cache import Cache
from explorer.heatmap_html import level
from explorer.transcripts import as_chat, conversation

if TYPE_CHECKING:
    from explorer.inspecting import Fired, Inspected

S = st.session_state
PLAIN, CHAT = "Plain text", "Conversation"
COLUMNS, ROWS = 160, 16
"""Of the grid."""
JOB, TOKEN = "inspect-job", "inspect-token"


@dataclass(frozen=True, slots=True)
class Asked:
    """A text to read, of which cache, and whether it is a conversation."""

    cache: str
    text: str
    kind: str

    @property
    def messages(self) -> str | list[dict[str, str]]:
        """The text as an engine takes it.

        Raises:
            CorpusError: If it is said to be a conversation and cannot be read as one.
        """
        if self.kind != CHAT:
            return self.text
        return as_chat(conversation(self.text))


def ask(engine: Engine, asked: Asked) -> None:
    """Begin to read a text; what was read before is let go."""
    S.pop(TOKEN, None)
    if before := job():
        before.stop()
    S[JOB] = (asked, engine.job(lambda job: engine.inspect(asked.messages)))


def job() -> Job | None:
    """The reading of this session."""
    said = S.get(JOB)
    return said[1] if said else None


def asked() -> Asked | None:
    """What is read, or was."""
    said = S.get(JOB)
    return said[0] if said else None


HEAD = (
    *FEATURE,
    ("small", "max", "Its strongest activation in this text, in SAE units", False),
    ("small", "of usual", "That as a share of its strongest activation in the corpus", False),
    ("small", "mean", "Its mean over the tokens that count", False),
    ("small", "tokens", "On how many tokens of this text it fires", False),
    ("small", "density", "On how many tokens of the corpus it fires", False),
)  # fmt: skip
_RANKED = {"max": 2, "share": 3, "mean": 4, "total": 4}


def head(by: str) -> list[tuple[str, str, str, bool]]:
    """The table's head; "total" stands where the mean does, and what is sorted by is marked."""
    columns = [list(column) for column in HEAD]
    if by == "total":
        columns[4][1:3] = ["total", "The sum of its activations over the tokens that count"]
    columns[_RANKED[by]][3] = True
    return [tuple(column) for column in columns]  # type: ignore[misc]


def rows(cache: Cache, fired: "list[Fired]", names: Mapping[int, str], by: str) -> list[dict[str, Any]]:
    """Features that fire as rows of a ranking."""
    density, made = cache.table.column("density").to_numpy(), []
    for one in fired:
        share = "–" if math.isnan(one.share) else percent(one.share)
        middle = one.total if by == "total" else one.mean
        cells = [number(one.max), share, number(middle), f"{one.tokens:,}", percent(float(density[one.feature]))]
        made.append({**feature_row(cache, one.feature, names), "cells": [[text, "", ""] for text in cells]})
    return made


def on_token(
    cache: Cache, found: "Inspected", row: dict[str, Any], unit: int, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The features on one unit of a heatmap's row, strongest for what is usual of them first, as links."""
    usual = cache.maxima
    strongest: dict[int, float] = {}
    for position in range(row["starts"][unit], row["starts"][unit] + len(row["ids"][unit])):
        for feature, value in found.at(position):
            strongest[feature] = max(value, strongest.get(feature, 0.0))
    order = sorted(strongest, key=lambda f: -strongest[f] / (usual[f] or math.inf))

    def said(f: int) -> str:
        return percent(strongest[f] / usual[f]) if usual[f] > 0 else number(strongest[f])

    return [{**feature_row(cache, f, names), "value": said(f)} for f in order]


def span(n: int, middle: int) -> tuple[int, int]:
    """The columns of the grid: all of them, or as many as fit round one."""
    start = max(0, min(middle - COLUMNS // 2, n - COLUMNS))
    return start, min(n, start + COLUMNS)


def grid(
    cache: Cache,
    found: "Inspected",
    features: list[int],
    row: dict[str, Any],
    columns: tuple[int, int],
    names: Mapping[int, str],
) -> list[dict[str, Any]]:
    """Features as rows of the grid: where in the text each fires, in eighths of its usual maximum."""
    made = []
    for feature in features:
        acts, usual = found.of(feature), cache.maxima[feature]
        top, cells = usual or max(acts, default=0.0) or 1.0, []
        for column, unit in enumerate(range(*columns)):
            if unit in row["special"] or unit in row["unscored"]:
                continue
            start = row["starts"][unit]
            value = max(acts[start : start + len(row["ids"][unit])], default=0.0)
            if value > 0:
                said = f"{number(value)}, {percent(value / top)} of its {'usual maximum' if usual else 'maximum here'}"
                cells.append([column, level(value, top), said])
        made.append({**feature_row(cache, feature, names), "cells": cells})
    return made
