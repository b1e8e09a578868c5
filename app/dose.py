"""The dose strip under a slider: what more strength does to the answers, and between which strengths they stay whole."""

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from app import charts
from app.engine import Engine
from app.facts import number
from app.jobs import Job
from app.runs import Question
from app.settings import Slider
from app.trait_choice import trait_labels, trait_picker
from app.watched import busy, progress, trouble, warming, watched
from explorer.dosing import DosePoint, points, zone
from explorer.judging import COHERENT_RULE
from explorer.records import Edit
from explorer.steering import STEERING_MODES

S = st.session_state
JOBS = "dose-jobs"
HEIGHT = 190
WHAT = (
    "What am I looking at? A few questions, answered at strengths all along the slider, and judged. Teal: the trait. Grey: "
    "fluency. Dotted: repetition. Shaded: where the answers stay coherent. The upright line is where the slider stands."
)


def dose_strip(
    engine: Engine, question: Question, slider: Slider, columns: Sequence[float] = (1, 2), at: int = 1
) -> None:
    """Draw the dose strip of one slider, in a fragment of its own, directly below the slider's row.

    Nothing is measured before somebody asks; what was measured once is there at once. Several edits move in proportion,
    as the strength buttons move them, so one measurement serves all their sliders.

    Args:
        question: What the page would run now; only its edits and places matter.
        slider: The slider that it stands under.
        columns, at: Weights of the slider's row and the slider's place in it, so that strip and slider line up.
    """
    mode = STEERING_MODES[slider.edit.mode]
    if slider.on and mode.uses_strength and share(question.edits, slider.edit):
        watched(lambda: _draw(engine, question, slider, columns, at), lambda: _job(engine, question))


def strongest(edits: Sequence[Edit]) -> float:
    """The strength of the strongest edit; 0 where none has one."""
    return max((e.strength for e in edits if STEERING_MODES[e.mode].uses_strength), key=abs, default=0.0)


def pushed(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits with the strongest at 1: what a dose is measured of, wherever the sliders stand."""
    return tuple(replace(e, strength=share(edits, e)) if STEERING_MODES[e.mode].uses_strength else e for e in edits)


def share(edits: Sequence[Edit], edit: Edit) -> float:
    """The strength of one edit as a share of the strongest's; 1 while every slider stands at 0."""
    most = strongest(edits)
    return round(edit.strength / most, 4) if most else 1.0


def _key(engine: Engine, question: Question) -> tuple[object, ...]:
    return id(engine), pushed(question.edits), question.positions


def _job(engine: Engine, question: Question) -> Job | None:
    jobs: dict[tuple[object, ...], Job] = S.setdefault(JOBS, {})
    key = _key(engine, question)
    if key not in jobs and (known := engine.dosed(pushed(question.edits), question.positions)) is not None:
        jobs[key] = Job.finished(known)
    return jobs.get(key)


def _ask(engine: Engine, question: Question) -> None:
    S[JOBS][_key(engine, question)] = engine.dose(pushed(question.edits), question.positions)


def _draw(engine: Engine, question: Question, slider: Slider, columns: Sequence[float], at: int) -> None:
    job, target = _job(engine, question), slider.edit.target
    cells = st.columns([sum(columns[:at]), *columns[at:]] if at else list(columns), gap="small")
    beside, place = cells[0], cells[min(at, 1)]
    if job is None:
        place.button(
            "Measure the dose", key=f"dose-go-{target}", type="tertiary", icon=":material/show_chart:", on_click=_ask,
            args=(engine, question), help="Answers a few questions at many strengths in the background, and judges them",
        )  # fmt: skip
        return
    shown = [] if busy(job) or not job.result else scaled(points(job.result), share(question.edits, slider.edit))
    with beside.container(height=HEIGHT + 6, border=False, key=f"dose-words-{target}"):
        trait = trait_picker(f"dose-trait-{target}")
        if shown:
            st.html(words(shown, slider.edit.strength, trait))
            with st.popover("What am I looking at?", type="tertiary", key=f"dose-what-{target}"):
                st.html(f'<p class="say words">{escape(WHAT)}</p><p class="say words">{escape(COHERENT_RULE)}</p>')
    with place.container(height=HEIGHT + 6, border=False, key=f"dose-strip-{target}"):
        if busy(job):
            progress(job, warming(engine) or "measuring", key=f"dose-cancel-{target}")
        elif trouble(job):
            st.button("Try again", key=f"dose-again-{target}", on_click=_ask, args=(engine, question))
        else:
            _chart(shown, slider, trait)


def scaled(measured: Sequence[DosePoint], factor: float) -> list[DosePoint]:
    """Points by the strength of one slider, where they were measured by the strength of the strongest."""
    return [replace(point, strength=point.strength * factor) for point in measured]


def _chart(shown: Sequence[DosePoint], slider: Slider, trait: str) -> None:
    mode, label = STEERING_MODES[slider.edit.mode], trait_labels().get(trait, trait)
    lines = {trait: label, "fluency": "Fluency", "repetition": "Repetition", "perplexity": "Perplexity"}
    st.plotly_chart(
        charts.dose_lines(shown, lines, span=(mode.lowest, mode.highest), now=slider.edit.strength, zone=zone(shown), height=HEIGHT),
        config=charts.CONFIG, key=f"dose-lines-{slider.edit.target}",
        alt=f"{label}, fluency, repetition and perplexity by strength",
    )  # fmt: skip


def words(shown: Sequence[DosePoint], strength: float, trait: str) -> str:
    """The zone, and what was measured nearest to where the slider stands, as HTML."""
    whole = zone(shown)
    said = [
        f"Coherent from <b>{whole[0]:+.2f}</b> to <b>{whole[1]:+.2f}</b>."
        if whole
        else "Nowhere coherent: the text is broken."
    ]
    near = min(shown, key=lambda point: abs(point.strength - strength), default=None)
    if near is not None:
        label = trait_labels().get(trait, trait)
        facts = [(label, near.means.get(trait)), ("perplexity", near.means.get("perplexity"))]
        listed = ", ".join(
            f"{escape(name)} <b>{number(value)}</b>"
            for name, value in facts
            if value is not None and math.isfinite(value)
        )
        said.append(f"Near {near.strength:+.2f}: {listed}; {100 * near.coherent:.0f} % of {near.n} answers coherent.")
    return f'<p class="say words num">{" ".join(said)}</p>'
