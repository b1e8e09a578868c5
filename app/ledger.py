"""The side-effect ledger: which other features moved in the steered answer, and where in it each of them fires."""

from html import escape

import streamlit as st

from app import charts, state
from app.components.heatmap import token_heatmap, token_row
from app.facts import percent, veiled
from app.feature_row import named
from app.jobs import Job
from app.runs import Run
from app.watched import busy, job_of, trouble, watched
from app.workbench import Moved
from explorer.cache import Cache

S = st.session_state
JOB, PICKED = "ledger-job", "ledger-picked"
SHOWN = 12


def side_effects(cache: Cache, run: Run, labels: dict[int, str]) -> None:
    """Draw the ledger of a finished run, in a fragment of its own; asked for, never by itself.

    One call below the answers. It draws nothing where there is no steered answer.
    """
    if run.over and run.steered.pieces and run.baseline.pieces:
        watched(lambda: _draw(cache, run, labels), lambda: job_of(JOB, run))


def _ask(run: Run) -> None:
    engine, question = run.engine, run.question

    def work(job: Job) -> list[Moved]:
        messages = question.messages(engine.has_template)
        before = question.messages(engine.has_template, steered=False)
        return engine.side_effects(messages, run.baseline.text, run.steered.text, question.edits, SHOWN, before)

    S[JOB] = (run, engine.job(work))
    S.pop(PICKED, None)


def _draw(cache: Cache, run: Run, labels: dict[int, str]) -> None:
    job = job_of(JOB, run)
    st.html(
        '<p class="sec">Side effects</p><p class="say">The features that differ most between the two answers, as the unsteered '
        "model reads them: grey in the baseline, orange in the steered answer. Choose a bar to see where it fires.</p>"
    )
    if job is None:
        st.button("Which other features moved?", key="ledger-go", on_click=_ask, args=(run,))
        return
    rows = SHOWN + len({edit.feature for edit in run.question.edits if not edit.direction})
    if not busy(job) and job.result:
        rows = len(job.result)
    with st.container(height=charts.moved_height(rows) + 8, border=False, key="ledger-bars"):
        if busy(job):
            st.html('<p class="say" role="status">Reading both answers…</p>')
            return
        if trouble(job):
            st.button("Try again", key="ledger-again", on_click=_ask, args=(run,))
            return
        moved: list[Moved] = job.result
        if not moved:
            st.html('<p class="say" role="status">No feature differs: the two answers are the same.</p>')
            return
        _bars(cache, moved, labels)
    picked = next((m for m in moved if m.feature == S.get(PICKED)), moved[0])
    _heatmaps(cache, picked, labels)


def _bars(cache: Cache, moved: list[Moved], labels: dict[int, str]) -> None:
    def pick() -> None:
        if points := S["ledger-chart"].selection.points:
            S[PICKED] = moved[int(points[0]["y"])].feature

    names = [f"#{m.feature}{' (steered)' if m.edited else ''} {named(cache, m.feature, labels)}" for m in moved]
    st.plotly_chart(
        charts.moved_features(names, [m.baseline for m in moved], [m.steered for m in moved]),
        config=charts.CONFIG, key="ledger-chart", on_select=pick, selection_mode="points",
        alt="Features by their mean activation in the baseline and in the steered answer",
    )  # fmt: skip


def _heatmaps(cache: Cache, moved: Moved, labels: dict[int, str]) -> None:
    """One feature on both answers, one above the other, on one scale."""
    href = escape(state.link("feature", feature=moved.feature))
    st.html(
        f'<p class="words"><a class="go" href="{href}" target="_self">#{moved.feature}</a> '
        f"{veiled(named(cache, moved.feature, labels))}: on average <b>{percent(moved.baseline)}</b> of its maximum in the "
        f"baseline, <b>{percent(moved.steered)}</b> in the steered answer"
        f"{', where it is turned itself' if moved.edited else ''}.</p>"
    )
    rows = [
        token_row(cache.vocabulary, reading.tokens, reading.acts, reading.scored, group=side)
        for side, reading in zip(("Baseline", "Steered"), moved.readings, strict=True)
    ]
    highest = max((act for reading in moved.readings for act in reading.acts), default=0.0)
    token_heatmap(rows, vmax=cache.feature(moved.feature).max or highest or 1.0, window=0, key="ledger-heatmap")
