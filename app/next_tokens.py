"""The next token at a cursor in the answer: what the model would say by itself, and what it says steered."""

from collections.abc import Sequence
from html import escape

import streamlit as st

from app.facts import bare, masked, percent, veiled
from app.jobs import Job
from app.runs import Run
from app.watched import busy, job_of, trouble, watched

S = st.session_state
JOB, AT = "next-tokens", "next-at"
Choices = Sequence[tuple[str, float]]
SHOWN = 10
HEIGHT = 370  # of the table: kept while another cursor is asked for
_SIGNS = str.maketrans({" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"})


def next_tokens(run: Run) -> None:
    """Draw the next-token table of a finished run, in a fragment of its own; asked for, never by itself.

    One call below the answers. It draws nothing where there is no steered answer.
    """
    if run.over and run.steered.pieces:
        watched(lambda: _draw(run), lambda: job_of(JOB, run))


def _at(run: Run) -> int:
    return min(int(S.get(AT) or 0), len(run.steered.pieces) - 1)


def _ask(run: Run) -> None:
    at = _at(run)
    said = "".join(run.steered.pieces[:at])
    question = run.question

    engine = run.engine

    def work(job: Job) -> tuple[Choices, Choices]:
        return engine.next_tokens(
            question.messages(engine.has_template), said, question.edits, question.positions, k=SHOWN
        )

    S[JOB] = (run, engine.job(work))


def _draw(run: Run) -> None:
    job = job_of(JOB, run)
    st.html(
        '<p class="sec">Next token, by itself and steered</p><p class="say">Both models read the steered answer up to '
        "the cursor; these are their ten likeliest next tokens.</p>"
    )
    pieces = run.steered.pieces
    S.setdefault(AT, 0)
    S[AT] = _at(run)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if len(pieces) > 1:
            st.slider("Cursor: tokens already said", 0, len(pieces) - 1, key=AT, on_change=_ask, args=(run,))
        if job is None:
            st.button("Show the next tokens", key="next-go", on_click=_ask, args=(run,))
    st.html(_cursor(pieces, S[AT]))
    if job is None:
        return
    with st.container(height=HEIGHT, border=False, key="next-table"):
        if busy(job):
            st.html('<p class="say" role="status">Asking the model…</p>')
        elif trouble(job):
            st.button("Try again", key="next-again", on_click=_ask, args=(run,))
        else:
            st.html(table(*job.result))


def _cursor(pieces: Sequence[str], at: int) -> str:
    """The answer round the cursor."""
    text, cut = "".join(pieces), len("".join(pieces[:at]))
    before = text.rfind(" ", 0, max(0, cut - 60)) + 1
    after = cut + len(pieces[at])
    return (
        f'<p class="cursor words">{"…" if before else ""}{veiled(text, before, cut)}<mark>{veiled(text, cut, after) or "·"}'
        f'</mark><span class="dim">{veiled(text, after, after + 60)}{"…" if after + 60 < len(text) else ""}</span></p>'
    )


def table(baseline: Choices, steered: Choices) -> str:
    """Both lists side by side, each steered token with what steering did to its probability, as HTML."""
    before = dict(baseline)
    rows = []
    for at in range(max(len(baseline), len(steered))):
        left = _cell(*baseline[at]) if at < len(baseline) else "<td></td><td></td>"
        right = "<td></td><td></td><td></td>"
        if at < len(steered):
            token, share = steered[at]
            change = f"{_signed(share - before[token])}" if token in before else "not among the ten before"
            right = _cell(token, share) + f'<td class="dim">{change}</td>'
        rows.append(f"<tr><td class='dim'>{at + 1}</td>{left}{right}</tr>")
    head = "<tr><th></th><th>By itself</th><th>probability</th><th>Steered</th><th>probability</th><th>change</th></tr>"
    return f'<table class="tokens num">{head}{"".join(rows)}</table>'


def _cell(token: str, share: float) -> str:
    shown = veiled(token) if token.strip() else escape(token.translate(_SIGNS))
    return (
        f'<td><code title="“{escape(masked(bare(token)))}”">{shown}</code></td>'
        f'<td><i style="--share:{100 * min(1.0, share):.0f}%"></i>{percent(share)}</td>'
    )


def _signed(change: float) -> str:
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    return f"{sign}{100 * abs(change):.1f} points"
