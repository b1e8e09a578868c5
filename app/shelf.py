"""The shelf of the Steer page: the last runs of this session, to be compared, copied, loaded or run again, and taken home as files."""

from collections.abc import Sequence

import streamlit as st

from app import session_files
from app.answers import prose, strengths, verdict
from app.desk import history, key, load
from app.facts import markdown_text, veiled
from app.runs import KEPT, Question, Record, Run
from explorer.adapters import titled
from explorer.cache import Cache
from explorer.offensive import spans

S = st.session_state


def shelf(cache: Cache, run: Run | None) -> None:
    """Earlier runs and the files, below everything else."""
    records = list(history())
    if not records:
        return
    with st.expander(f"Earlier runs (the last {KEPT} are kept)"):
        earlier(records, run)
    with st.container(horizontal=True, gap="small", key=key("files")):
        files(cache, records, run)


def earlier(records: Sequence[Record], run: Run | None) -> None:
    """The list, and the run chosen from it beside the one in view."""
    named = {record.key: _line(record, run) for record in records}
    if S.get(key("earlier")) not in named:
        S[key("earlier")] = None
    chosen = st.selectbox(
        "Run", list(named), index=None, key=key("earlier"), format_func=lambda k: named.get(k, "?"),
        placeholder=f"{len(records)} kept: choose one to compare with the answer in view", label_visibility="collapsed",
    )  # fmt: skip
    record = next((r for r in records if r.key == chosen), None)
    if record is None:
        return
    st.html(compared(record, run))
    with st.container(horizontal=True, gap="small"):
        st.button("Run again", key=key("rerun"), on_click=load, args=(record,), kwargs={"run": True})
        st.button("Load settings", key=key("load"), on_click=load, args=(record,), kwargs={"run": False})
        with st.popover("Copy text", icon=":material/content_copy:", key=key("copy")):
            whose = f"Model: {titled(record.question.model)}\n\n" if record.question.model else ""
            text = f"{whose}{record.question.prompt}\n\nBaseline:\n{record.baseline}\n\nSteered:\n{record.steered}"
            with st.container(key=key("copied", "veiled" if spans(text) else "plain")):
                st.code(text, language=None, wrap_lines=True)


def _line(record: Record, run: Run | None) -> str:
    """A run in one line: time, question, edits."""
    edits = ", ".join(edit.target for edit in record.question.edits) or "none"
    here = " (in view)" if run is not None and run.key == record.key else ""
    asked = markdown_text(record.question.prompt, 60).replace("\\", "")
    return f"{record.when[11:16]} · {asked} · {edits} {strengths(record.question.edits)}{_on(record.question)}{here}"


def _on(asked: Question) -> str:
    """Which model answered, where it is not the cache's own."""
    return f" · {titled(asked.model)}" if asked.model else ""


def compared(record: Record, run: Run | None) -> str:
    """The steered answers of an earlier run and of the one in view side by side, as HTML."""
    sides = [
        (
            f"Then: {strengths(record.question.edits)}{_on(record.question)}",
            record.question.prompt,
            record.steered,
            record.scores,
            record.looped,
        )
    ]
    if run is not None and run.steered.pieces:
        sides.append(
            (
                f"In view: {strengths(run.question.edits)}{_on(run.question)}",
                run.question.prompt,
                run.steered.text,
                run.scores,
                run.steered.looped,
            )
        )
    cards = "".join(
        f'<section class="push" aria-label="{veiled(title)}"><header><b>{veiled(title)}</b></header>'
        f'<p class="say">{veiled(prompt)}</p>{prose([text], looped=looped)}'
        f"{verdict((scores or {}).get('steered', {}), looped=looped)}</section>"
        for title, prompt, text, scores, looped in sides
    )
    return f'<div class="controls">{cards}</div>'


def files(cache: Cache, records: Sequence[Record], run: Run | None) -> None:
    """The run in view as JSON and CSV, and the whole session as one HTML file."""
    offers = []
    if run is not None and run.over and run.steered.pieces:
        facts = session_files.record_facts(run.record(), cache)
        offers += [
            ("JSON", session_files.as_json(facts), "steer.json", "application/json"),
            ("CSV", session_files.as_csv(facts), "steer.csv", "text/csv"),
        ]
    offers.append(("Whole session (HTML)", session_files.as_html(records), "session.html", "text/html"))
    for name, data, file, mime in offers:
        st.download_button(
            name, data, file, mime, key=key("export", file), type="tertiary", icon=":material/download:", on_click="ignore"
        )  # fmt: skip
