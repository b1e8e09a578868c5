"""Would a random push do the same? The steered answer beside those of random directions, the flipped sign and another feature."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from app.answers import prose
from app.engine import LIVE_CONTROLS
from app.facts import veiled
from app.feature_row import named
from app.jobs import Job
from app.runs import Run
from app.trait_choice import trait_labels, trait_picker
from app.watched import busy, job_of, progress, trouble, watched
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.judging import judges

if TYPE_CHECKING:
    from explorer.dosing import Control

S = st.session_state
JOB = "controls-job"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer with what the judges say of it.

    Args:
        kind: steered, random, flipped or feature.
        scores: Judge -> score; none where there is no judge here.
    """

    name: str
    kind: str
    text: str
    scores: dict[str, float]


def controls(cache: Cache, run: Run, labels: dict[int, str]) -> None:
    """Draw the controls of a finished run, in a fragment of their own: one click decodes and judges them.

    One call below the answers. It draws nothing where there is no steered answer.
    """
    if run.over and run.steered.pieces and run.question.edits:
        watched(lambda: _draw(cache, run, labels), lambda: job_of(JOB, run))


def _ask(cache: Cache, run: Run, labels: dict[int, str]) -> None:
    engine, question = run.engine, run.question

    def work(job: Job) -> tuple[list[Told], ExplorerError | None]:
        found = engine.controls(question.edits, seed=question.sampling.seed)
        pushes = [(spelt(cache, c, labels), c.kind, c.edits) for c in found]
        messages = question.messages(engine.has_template)
        texts = engine.batch(
            [(messages, edits) for _, _, edits in pushes],
            question.sampling,
            question.positions,
            job,
            {name: d for control in found for name, d in control.directions.items()},
        )
        texts, trouble = [run.steered.text, *texts], None
        scores = [{} for _ in texts]
        try:
            read = engine.panel().score(list(trait_labels()), texts, [question.prompt] * len(texts))
            scores = [{name: values[at] for name, values in read.items()} for at in range(len(texts))]
        except ExplorerError as error:
            trouble = error
        whose = [("Steered", "steered"), *((name, kind) for name, kind, _ in pushes)]
        told = [Told(name, kind, text, s) for (name, kind), text, s in zip(whose, texts, scores, strict=True)]
        return told, trouble

    S[JOB] = (run, engine.job(work))


def spelt(cache: Cache, control: "Control", labels: dict[int, str]) -> str:
    """A control for people: "Random 1", "Flipped", or the other feature's number and name."""
    if control.kind == "feature":
        feature = control.edits[0].feature
        return f"#{feature} {named(cache, feature, labels)}"
    return control.name.replace("-", " ").capitalize()


def _draw(cache: Cache, run: Run, labels: dict[int, str]) -> None:
    job = job_of(JOB, run)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html('<p class="sec">Controls</p>', width="content")
        trait = trait_picker("controls-trait")
    if told := came_along(run):
        show(told, None, trait)
    elif job is None:
        st.html(
            f'<p class="say">Would a random push do the same? {LIVE_CONTROLS} random directions of the same length, '
            "the sign turned round, and another feature answer the same question with the same seed.</p>"
        )
        st.button("Run the controls", key="controls-go", on_click=_ask, args=(cache, run, labels))
    elif busy(job):
        progress(job, run.engine.warming or "answering", key="controls-cancel")
    elif trouble(job):
        st.button("Try again", key="controls-again", on_click=_ask, args=(cache, run, labels))
    else:
        told, error = job.result
        show(told, error, trait)


def came_along(run: Run) -> list[Told]:
    """The controls that were decoded in step with the run itself, once they are judged; none if it had none."""
    if not run.others or run.judging:
        return []
    scores = run.scores or {}
    steered = Told("Steered", "steered", run.steered.text, scores.get("steered", {}))
    return [steered, *(Told(o.name, o.kind, o.answer.text, scores.get(o.name, {})) for o in run.others)]


def show(told: list[Told], error: ExplorerError | None, trait: str) -> None:
    """The verdict and every answer.

    Args:
        error: Why no judge has read them.
    """
    label = trait_labels().get(trait, trait)
    st.html(f'<p class="words" role="status"><b>{escape(verdict(told, trait, label))}</b></p>')
    if error:
        st.html(f'<p class="say words">No judge has read these: {veiled(error.found)}. {veiled(error.do)}</p>')
    st.html(cards(told, trait, label))


def verdict(told: list[Told], trait: str, label: str) -> str:
    """The answer in one sentence, such as "Here 0 of 3 random directions of the same length did."."""
    steered = told[0].scores.get(trait)
    pushed = [t for t in told if t.kind == "random"]
    if steered is None:
        return "Read them: no judge of this trait has."
    shows = judges()[trait].shows
    if not shows(steered):
        return f"The steered answer itself does not count as {label.lower()} ({steered:.2f}): there is nothing to do the same."
    did = sum(shows(t.scores.get(trait, 0.0)) for t in pushed)
    return f"Would a random push do the same? Here {did} of {len(pushed)} random directions of the same length did."


def cards(told: list[Told], trait: str, label: str) -> str:
    """Every answer with its score, as HTML; the steered one first."""
    return f'<div class="controls">{"".join(_card(t, trait, label) for t in told)}</div>'


def _card(told: Told, trait: str, label: str) -> str:
    score = told.scores.get(trait)
    said = "" if score is None else f"{escape(label)} {score:.2f}"
    return (
        f'<section class="push {told.kind}" aria-label="{escape(told.name)}"><header>'
        f'<b>{veiled(told.name)}</b><span class="dim num">{said}</span></header>{prose([told.text])}</section>'
    )
