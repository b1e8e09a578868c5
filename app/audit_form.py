"""Monitor's second tab: a fine-tuning set ranked by persona features, before anybody trains on it."""

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app import charts, monitored, score_charts, state
from app.engine import Engine
from app.facts import veiled
from app.jobs import Job
from app.watch_form import key, probes_fields, probes_said
from app.watched import busy, progress, trouble, watched
from explorer.audit import as_jsonl
from explorer.cache import Cache
from explorer.errors import ExplorerError

if TYPE_CHECKING:
    from explorer.audit import Audit

S = st.session_state
JOB, ERROR, LINE = "audit-job", "audit-error", "audit-line"
SHOWN, TEXT = 60, 260
"""Rows of the table; characters of a text in it."""


def job() -> Job | None:
    """The audit under way, or ended, of this session."""
    said = S.get(JOB)
    return said[1] if said else None


def found() -> "Audit | None":
    """What came of it."""
    now = job()
    return None if now is None or busy(now) else now.result


def start(engine: Engine) -> None:
    """Begin to audit the uploaded set; what was under way ends."""
    upload = S[key("rows")]
    S.pop(ERROR, None)
    try:
        probes = probes_said("audit")
        if before := job():
            before.stop()
        S[JOB] = (upload.name, monitored.audit(engine, upload.name, upload.getvalue(), probes))
        S.pop(LINE, None)
    except ExplorerError as error:
        S[ERROR] = error


def audit_page(cache: Cache, engine: Engine) -> None:
    """The form and what came of it."""
    left, right = st.columns([1, 1.6], gap="large")
    with left, st.container(key=key("audit")):
        rows = st.file_uploader(
            "Conversations as JSONL, as fine-tuning takes them", type=["jsonl"], key=key("rows"), max_upload_size=monitored.MOST_MB,
            help='{"messages": [{"role", "content"}, …]} a line; the last answer of each is scored. It stays on this machine.',
        )  # fmt: skip
        probes_fields(cache, "audit")

        def run() -> None:
            st.button(
                "Audit", type="secondary" if found() else "primary", icon=":material/play_arrow:", key=key("audit-go"),
                on_click=start, args=(engine,), disabled=rows is None or busy(job()), help=None if rows else "Choose a set first",
            )  # fmt: skip
            if error := S.get(ERROR):
                state.show_error(error)
            now = job()
            if now is not None and busy(now):
                progress(now, engine.warming or "reading the rows", key=key("audit-cancel"))
            elif now is not None:
                trouble(now)

        watched(run, job)
    with right:
        if (made := found()) is None:
            st.html(
                '<p class="say">Here come the rows, the most suspicious first; choose above which score one is dropped.</p>'
            )
        else:
            ranking(S[JOB][0], made)


def ranking(name: str, found: "Audit") -> None:
    """Histogram, threshold, the rows, and the file of those that are kept."""
    said = found.suspicion
    there = np.where(np.isfinite(said), said, np.nan)
    low, high = monitored.reach(there)
    usual = monitored.threshold_of(there)
    line = min(max(float(S.get(LINE, usual)), low), high)
    kept = found.kept(line)
    st.html(
        f'<p class="sec">{veiled(name)}: mean score of the answers over what is looked for</p>'
        '<p class="say">Each bar counts rows by their score, on a log scale; those from the teal line on are dropped and orange.</p>'
    )
    st.plotly_chart(
        score_charts.score_histogram(there, (low, high), line, "rows", flagged="dropped"), config=charts.CONFIG, key=key("audit-histogram"),
        alt=f"Histogram of the rows' scores, with the line at {line:.3f}",
    )  # fmt: skip

    def move() -> None:
        S[LINE] = S[key("audit-slider")]

    S[key("audit-slider")] = line
    with st.container(key=key("slider-rows")):
        st.slider(
        "Drop rows that score at least", low, high, key=key("audit-slider"), step=monitored.step_of(low, high),
        format="%.4f", on_change=move,
    )  # fmt: skip
    st.download_button(
        f"Export {int(kept.sum()):,} kept rows", lambda: rows_jsonl(found, kept), "kept.jsonl", "application/jsonl",
        key=key("audit-kept"), type="primary", icon=":material/download:", on_click="ignore", disabled=not kept.any(),
    )  # fmt: skip
    unread = int(np.isneginf(said).sum())
    st.html(
        f'<p class="say num" role="status">{int((~kept).sum()):,} of {len(kept):,} rows are dropped'
        f"{f'; {unread:,} have no token that counts, and are kept' if unread else ''}. Read before you drop: a score is a guess.</p>"
    )
    st.html(table(found, kept))


def rows_jsonl(found: "Audit", kept: np.ndarray) -> str:
    """The rows that are kept, as fine-tuning takes them."""
    return as_jsonl(row for row, keep in zip(found.rows, kept, strict=True) if keep)


def table(found: "Audit", kept: np.ndarray) -> str:
    """The most suspicious rows, as HTML."""
    said, body = found.suspicion, []
    for at in found.order[:SHOWN]:
        row = found.rows[at]
        question = next((m["content"] for m in reversed(row[:-1]) if m["role"] == "user"), "")
        score = "–" if math.isinf(said[at]) else f"{said[at]:.3f}".replace("-", "−")
        fate = "kept" if kept[at] else "dropped"
        body.append(
            f'<tr class="{fate}"><td>{at + 1:,}</td><td><b>{score}</b></td>'
            f'<td class="words"><p class="say">{_cut(question)}</p>{_cut(row[-1]["content"])}</td><td>{fate}</td></tr>'
        )
    rest = len(found.rows) - len(body)
    more = f'<p class="say">{rest:,} rows that score less are not shown.</p>' if rest else ""
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("row", "score", "question and answer", ""))
    return f'<div class="scroll audited"><table class="figures num"><tr>{heads}</tr>{"".join(body)}</table></div>{more}'


def _cut(text: str) -> str:
    return veiled(text, 0, TEXT) + ("…" if len(text) > TEXT else "")
