"""Inspect's second tab: texts on the left against texts on the right, and the features that tell them apart."""

import math
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import state
from app.components.ranking_table import FEATURE, ranking_table
from app.direction_form import texts_of
from app.engine import Engine
from app.facts import number
from app.feature_row import feature_row
from app.jobs import Job
from app.keeping import keep_button, kept
from app.watched import busy, progress, trouble, watched
from explorer.cache import Cache
from explorer.contrast import POOLS
from explorer.errors import ExplorerError, UsageError

if TYPE_CHECKING:
    from explorer.contrast import Contrast

S = st.session_state
JOB, ERROR, CHOSEN = "contrast-job", "contrast-error", "contrast-chosen"
LEFT, RIGHT, TABLE, HOW = "contrast-left", "contrast-right", "contrast-csv", "contrast-how"
FILLED = "contrast-filled"
MOST = 400
"""Texts of both sides together."""
_STEERED = 6  # more of them at half strength each break the text
SURE = 0.05
HEAD = (
    *FEATURE,
    ("small", "AUROC", "How often a text of the left is above one of the right on this feature; .5 is chance", True),
    ("small", "held out", "The same on held-out texts, when it was picked without them; below, in what share of splits it was picked", False),
    ("small", "effect", "Hedges' g: the difference of the means in pooled standard deviations, corrected for few texts", False),
    ("small", "by luck", "In what share of shuffles of the texts some feature does at least as well", False),
    ("small", "left", "Mean over the texts of the left, in SAE units; below, of the right", False),
)  # fmt: skip
EXAMPLE = (
    "Arr, hoist the sails and bring me the gold!\nAhoy, ye scurvy crew, the storm be upon us.\nShiver me timbers, the map is gone!\n"
    "We sail at dawn, me hearties, for the island of bones.\nAvast! The captain wants his parrot back.",
    "Please raise the blinds and bring me the folder.\nHello, dear team, the audit is upon us.\nOh no, the calendar is gone!\n"
    "We leave at nine, everybody, for the office in town.\nWait! The manager wants his stapler back.",
)


def contrast_page(cache: Cache, engine: Engine, names: dict[int, str]) -> None:
    """Both boxes, the button, and what came of it."""
    st.html(
        '<p class="say">Texts of one kind on the left, of the other on the right, a line each, as alike otherwise as you can write them. '
        "Features that are higher on the left come first; with few texts, look at the held-out figures.</p>"
    )
    left, right = st.columns(2, gap="small")
    left.text_area("Left, one text a line", key=box(LEFT), height=150)
    right.text_area("Right, one text a line", key=box(RIGHT), height=150)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "A text is", list(POOLS), key=HOW, width=110, help="  \n".join(f"{k}: {v}" for k, v in POOLS.items())
        )
        st.button(
            "Contrast", type="primary", shortcut="Mod+Enter", key="contrast-go", on_click=begin, args=(cache, engine)
        )
        st.button("Swap sides", key="contrast-swap", on_click=swap)
        st.button("An example", key="contrast-example", type="tertiary", on_click=example)
        with st.popover("From a CSV", type="tertiary"):
            st.file_uploader(
                "A CSV with the columns text and label (1 left, 0 right)", "csv", key=TABLE, max_upload_size=5
            )

    def part() -> None:
        now = job()
        if now is not None and busy(now):
            progress(now, engine.warming or "reading the texts", key="contrast-cancel")

    watched(part, job)
    if error := S.get(ERROR):
        state.show_error(error)
    now = job()
    if now is None or S[JOB][0] != cache.manifest.sae_fingerprint or busy(now):
        return
    if now.result is None:
        trouble(now)
    else:
        results(cache, now.result, names)


def job() -> Job | None:
    """The contrast of this session."""
    said = S.get(JOB)
    return said[1] if said else None


def box(side: str) -> str:
    """The key of a side's box as it is now."""
    return f"{side}-{S[FILLED]}" if FILLED in S else side


def fill(left: str, right: str) -> None:
    """Put texts into the boxes; for callbacks.

    The boxes are new ones then: with its next press a browser sends what it knows of the old ones, and that would empty them where it
    has not been told of these texts yet.
    """
    S[FILLED] = S.get(FILLED, 0) + 1
    S[box(LEFT)], S[box(RIGHT)] = left, right


def swap() -> None:
    """Left to right, and the other way round."""
    fill(S.get(box(RIGHT)) or "", S.get(box(LEFT)) or "")


def example() -> None:
    """Ten texts to try it with."""
    fill(*EXAMPLE)


def begin(cache: Cache, engine: Engine) -> None:
    """Read the texts of both boxes and of the CSV."""
    table = S.get(TABLE)
    S.pop(ERROR, None)
    if before := job():
        before.stop()
    S.pop(JOB, None)
    S.pop(CHOSEN, None)
    try:
        sides = texts_of(S.get(box(LEFT)) or "", S.get(box(RIGHT)) or "", table.getvalue() if table else None)
        for side, texts in zip(("left", "right"), sides, strict=True):
            if not texts:
                raise UsageError(
                    f"There is no text on the {side}", expected="two or more a side", do="Add some, a line each"
                )
        if (n := len(sides[0]) + len(sides[1])) > MOST:
            raise UsageError(f"There are {n:,} texts", expected=f"at most {MOST}", do="Leave some out")
    except ExplorerError as error:
        S[ERROR] = error
        return
    how = S.get(HOW) or next(iter(POOLS))
    engine.start()
    S[JOB] = (cache.manifest.sae_fingerprint, engine.job(lambda job: engine.contrast(*sides, how, job)))


def results(cache: Cache, found: "Contrast", names: dict[int, str]) -> None:
    """The ranking, what it is worth, and where to go with it."""
    if not found.rows:
        st.html('<p class="words" role="status">No feature is higher on the left than on the right.</p>')
        return
    st.html(f'<p class="words" role="status">{verdict(found)}</p>')
    features = [row.feature for row in found.rows]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        some = features[:_STEERED]
        st.button(
            f"Steer with the first {len(some)}", key="contrast-steer", on_click=state.go, args=("steer",),
            kwargs={"edits": ",".join(f"{f}:{0.5:g}:add" for f in some)},
        )  # fmt: skip
        keep_button(cache, features, "contrast")
    kept("contrast")

    def choose(index: int) -> None:
        S[CHOSEN] = index

    ranking_table(
        "Features that tell the left from the right", HEAD, rows(cache, found, names), chosen=S.get(CHOSEN, features[0]),
        on_show=choose, on_visit=lambda index: state.go("feature", feature=index), key="contrast-table",
    )  # fmt: skip


def verdict(found: "Contrast") -> str:
    """What the ranking is worth, as HTML."""
    first = found.rows[0]
    said = f"{found.n_left} texts against {found.n_right}. "
    if math.isnan(found.best_held_out):
        return said + "With one text a side nothing can be held out: take this for a list of guesses."
    said += f"The feature that did best without some of the texts tells these apart with AUROC <b>{found.best_held_out:.2f}</b> (chance .5). "
    if first.chance > SURE:
        return said + (
            f"In <b>{100 * first.chance:.0f} %</b> of shuffles some feature did as well as the first one here: it may be luck. Add texts."
        )
    return said + "No more than one shuffle in twenty has a feature that does as well as the first one here."


def rows(cache: Cache, found: "Contrast", names: dict[int, str]) -> list[dict[str, Any]]:
    """The features as rows of the ranking."""
    made = []
    for row in found.rows:
        cells = [
            [f"{row.auroc:.2f}", "", ""],
            ["–", "never picked", ""]
            if math.isnan(row.held_out)
            else [f"{row.held_out:.2f}", f"picked {row.picked:.0%}", ""],
            ["–" if math.isnan(row.effect) else f"{row.effect:+.1f}".replace("-", "−"), "", ""],
            [f"{100 * row.chance:.1f} %" if row.chance < 0.1 else f"{100 * row.chance:.0f} %", "", ""],
            [number(row.left), number(row.right), ""],
        ]
        made.append({**feature_row(cache, row.feature, names), "cells": cells})
    return made
