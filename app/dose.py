"""The dose strips, one under each slider: what more of it does to the answers, and between which strengths they stay whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from app import charts
from app.engine import Engine
from app.jobs import Job
from app.runs import Question
from app.settings import Slider
from app.sliders import COLUMNS, STRENGTH
from app.sweep_grid import strength_words
from app.trait_choice import chosen_trait, trait_labels, trait_picker
from app.watched import busy, progress, trouble, watched
from explorer.dosing import DosePoint, points, zone
from explorer.judging import COHERENT_RULE
from explorer.records import Edit
from explorer.steering import STEERING_MODES

if TYPE_CHECKING:
    from explorer.dosing import Cell

S = st.session_state
JOB, LAST, DRAWN = "dose-job", "dose-last", "dose-drawn"
WHAT = (
    "What am I looking at? A few questions were answered with each slider at strengths all along its range, the other sliders held "
    "where they are, and the answers were judged. From left to right as the slider above; the upright line is where it stands. "
    "Teal: the trait, and dotted: repetition, both from 0 to 1. Grey: perplexity, on the right. Shaded: where the answers stay "
    "coherent. Perplexity is that of the text under the model that is picked, unsteered."
)
KEYS = (("trait", "trait"), ("loops", "repetition"), ("perplexity", "perplexity"), ("zone", "coherent"))


@dataclass(frozen=True, slots=True)
class Strip:
    """What was measured of one slider.

    Args:
        points: By its own strength; none while it is being measured, so that its place is kept.
        stale: Something else has changed since: another slider, or the steered tokens.
    """

    points: list[DosePoint]
    stale: bool = False


def strips(engine: Engine, question: Question) -> dict[str, Strip]:
    """Target -> strip, of the sliders that push and have been measured; what was measured once is there at once.

    Args:
        question: What the page would run now; only its edits and places matter.
    """
    last: dict[tuple[object, ...], list[Cell]] = S.setdefault(LAST, {})
    if (said := S.get(JOB)) and said[2].over and said[2].result:
        S.pop(JOB)
        last |= {_place(said[0], edit): said[2].result[edit.target] for edit in pushing(said[1])}
    known = engine.dosed(question.edits, question.positions)
    found = {}
    for edit in pushing(question.edits):
        place = _place(engine, edit)
        if edit.target in known:
            last[place] = known[edit.target]
        if place in last:
            found[edit.target] = Strip(points(last[place]), edit.target not in known)
        elif busy(_job(engine)):
            found[edit.target] = Strip([])
    S[DRAWN] = set(known)
    return found


def pushing(edits: Sequence[Edit]) -> list[Edit]:
    """The edits that can be more or less."""
    return [edit for edit in edits if STEERING_MODES[edit.mode].uses_strength]


def _place(engine: Engine, edit: Edit) -> tuple[object, ...]:
    return id(engine), edit.target, edit.mode


def under(slider: Slider, strip: Strip, facts: str) -> None:
    """The second line of a slider's row: its facts and what was measured in words, and the strip below the slider itself.

    Args:
        facts: HTML.
    """
    mode, trait, target = STEERING_MODES[slider.edit.mode], chosen_trait(), slider.edit.target
    label = trait_labels().get(trait, trait)
    beside, place, _ = st.columns([sum(COLUMNS[:STRENGTH]), *COLUMNS[STRENGTH:]], gap="small")
    beside.html(facts + words(strip, slider.edit.strength, trait))
    with place.container(key=f"dose-strip-{target}"):
        lines = {trait: label, "repetition": "Repetition", "perplexity": "Perplexity"}
        st.plotly_chart(
            charts.dose_lines(
                strip.points, lines, span=(mode.lowest, mode.highest), now=slider.edit.strength, zone=zone(strip.points),
                stale=strip.stale,
            ),
            config=charts.CONFIG, key=f"dose-lines-{target}", alt=f"{label}, repetition and perplexity by strength",
        )  # fmt: skip


def words(strip: Strip, strength: float, trait: str) -> str:
    """The zone, and what was measured nearest to where the slider stands, as HTML."""
    if not strip.points:
        return '<p class="say dose-words">Being measured.</p>'
    whole = zone(strip.points)
    said = "Coherent nowhere"
    if whole:
        said = f"Coherent from <b>{strength_words(whole[0])}</b> to <b>{strength_words(whole[1])}</b>"
    near = min(strip.points, key=lambda point: abs(point.strength - strength), default=None)
    if near is not None:
        label = trait_labels().get(trait, trait).lower()
        facts = [(label, near.means.get(trait), "{:.2f}"), ("perplexity", near.means.get("perplexity"), "{:.3g}")]
        listed = ", ".join(
            f"{escape(n)} <b>{look.format(v)}</b>" for n, v, look in facts if v is not None and math.isfinite(v)
        )
        said += f"; at {strength_words(near.strength)}: {listed}" if listed else ""
    stale = " Measured before something else was changed." if strip.stale else ""
    return f'<p class="say words num dose-words{" stale" if strip.stale else ""}">{said}.{stale}</p>'


def dose_bar(engine: Engine, question: Question, measured: Mapping[str, Strip], scale: str) -> None:
    """One line below the sliders: what their numbers and strips mean, and the button that measures all of them in one job.

    Nothing is measured before somebody asks.

    Args:
        scale: What a strength of 1 is, as HTML.
    """
    edits = pushing(question.edits)
    missing = [edit for edit in edits if edit.target not in measured or measured[edit.target].stale]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="dose-bar"):
        st.html(scale, width="content")
        if not edits:
            return
        if measured:
            keys = "".join(f'<span class="{look}">{name}</span>' for look, name in KEYS)
            with st.container(
                horizontal=True, vertical_alignment="center", gap="small", width="content", key="dose-keys"
            ):
                trait_picker("dose-trait")
                st.html(f'<p class="say keys">{keys}</p>', width="content")
                with st.popover(
                    "", icon=":material/help:", type="tertiary", key="dose-what", help="What am I looking at?"
                ):
                    st.html(f'<p class="say words">{escape(WHAT)}</p><p class="say words">{escape(COHERENT_RULE)}</p>')
        watched(lambda: _button(engine, question, missing, bool(measured)), lambda: _job(engine))


def _job(engine: Engine) -> Job | None:
    said = S.get(JOB)
    return said[2] if said and said[0] is engine else None


def _ask(engine: Engine, question: Question) -> None:
    S[JOB] = (engine, question.edits, engine.dose(question.edits, question.positions))


def _button(engine: Engine, question: Question, missing: Sequence[Edit], again: bool) -> None:
    job = _job(engine)
    if job is not None and busy(job):
        if set(engine.dosed(question.edits, question.positions)) != S[DRAWN]:
            st.rerun()  # one more strip is whole
        progress(job, engine.warming or "measuring", key="dose-cancel")
        return
    if job is not None and S[JOB][1] == question.edits:
        trouble(job)
    if missing:
        st.button(
            "Measure again" if again else "Measure the dose", key="dose-go", type="tertiary", icon=":material/show_chart:",
            on_click=_ask, args=(engine, question),
            help="Moves each slider along its range, the others as they are, answers a few questions in the background and judges them",
        )  # fmt: skip
