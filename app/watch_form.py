"""Monitor before there is a result: what is looked for, in which log, and the runs that are here."""

from html import escape
from typing import Any

import streamlit as st

from app import monitored, state
from app.engine import Engine
from app.facts import markdown_text, veiled
from app.jobs import Job
from app.watched import busy, progress, trouble, watched
from explorer import presets
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.scoring import Probe
from explorer.transcripts import truth_of

S = st.session_state
JOB, ERROR = "monitor-job", "monitor-error"
UNIT = "Scores are in multiples of strength 1: a feature's own maximum in the corpus, a direction as it was found."


def key(name: str) -> str:
    return f"monitor-{name}"


def open_run(name: str) -> None:
    """Show a run; for callbacks. What was set for another one is left."""
    said = {state.CACHE: st.query_params[state.CACHE]} if state.CACHE in st.query_params else {}
    st.query_params.from_dict({**said, "set": name} if name else said)
    for one in [name for name in S if str(name).startswith("monitor-on-")]:
        S.pop(one)


def job_of(name: str = "") -> Job | None:
    """The work under way, or just ended, on the run of that name; on any if ""."""
    said = S.get(JOB)
    return said[1] if said and (not name or said[0] == name) else None


def probes_fields(cache: Cache, place: str) -> None:
    """Boxes for what is looked for.

    Args:
        place: Keeps the boxes of two forms apart.
    """
    try:
        known = {preset.name: preset for preset in presets.load(cache)}
    except ExplorerError as error:
        state.show_error(error)
        known = {}

    def take() -> None:
        if chosen := known.get(S.get(key(f"{place}-preset"), "")):
            S[key(f"{place}-features")] = " ".join(edit.target for edit in chosen.edits)

    left, right = st.columns([1.5, 1], vertical_alignment="bottom")
    left.text_input(
        "Look for", key=key(f"{place}-features"), max_chars=200, placeholder="1207 88 ~cruel",
        help="Features by number, directions as ~name. Each is scored by itself.",
    )  # fmt: skip
    if known:
        right.selectbox(
            "or what a preset pushes", list(known), index=None, key=key(f"{place}-preset"), placeholder="Take a preset",
            format_func=lambda name: markdown_text(known[name].title, 30) if name in known else "?", on_change=take,
        )  # fmt: skip


def probes_said(place: str) -> list[Probe]:
    """What the boxes of a form say.

    Raises:
        SteeringError, UsageError: If that is nothing that can be looked for.
    """
    return monitored.probes_of(S.get(key(f"{place}-features"), ""))


def start(engine: Engine) -> None:
    """Begin to watch the uploaded log; what was under way ends."""
    upload = S[key("log")]
    S.pop(ERROR, None)
    try:
        probes, truth = probes_said("watch"), truth_of(S.get(key("truth"), ""))
        if job := job_of():
            job.stop()
        S[JOB] = monitored.watch(engine, upload.name, upload.getvalue(), probes, truth)
    except ExplorerError as error:
        S[ERROR] = error


def form(cache: Cache, engine: Engine) -> None:
    """Upload a log and say what to look for."""
    log = st.file_uploader(
        "Log: chats as JSONL, JSON, CSV or text", type=list(monitored.LOGS), key=key("log"), max_upload_size=monitored.MOST_MB,
        help="OpenAI's or ShareGPT's form, “Human: / Assistant:”, or rows: messages with a role, questions with answers, texts. "
        "It stays on this machine.",
    )  # fmt: skip
    probes_fields(cache, "watch")
    if log is not None and (names := monitored.fields(log.name, bytes(log.getbuffer()[: 1 << 20]))):
        st.text_input(
            "Does the log itself say what is of that kind?", key=key("truth"), max_chars=120, placeholder="FIELD=VALUE, or leave it empty",
            help="Rows where the field has this value are of the kind, other rows are not: thresholds then come with figures at once.",
        )  # fmt: skip
        st.html(f'<p class="say words">Fields of its rows: {veiled(", ".join(names))}</p>')

    def run() -> None:
        job = job_of()
        st.button(
            "Run", type="primary", icon=":material/play_arrow:", key=key("go"), on_click=start, args=(engine,),
            disabled=log is None or busy(job), help=None if log else "Choose a log first",
        )  # fmt: skip
        if error := S.get(ERROR):
            state.show_error(error)
        under_way(engine, job)

    watched(run, job_of)


def under_way(engine: Engine, job: Job | None) -> None:
    """How far the work is; once it has ended the page shows what it made."""
    if job is None:
        st.html(
            '<p class="say">It runs in the background while this page is open, and live answers go first. What is finished is '
            "kept: cut off, it goes on from there.</p>"
        )
    elif busy(job):
        progress(job, engine.warming or "reading the log", key=key("cancel"))
    elif not trouble(job):
        S.pop(JOB, None)
        if st.query_params.get("set") != job.result:
            open_run(job.result)
        st.rerun()


def list_of_runs() -> None:
    """The runs that are here, each with a button, and a box for one that lies elsewhere."""
    st.html('<p class="sec">Runs that are here</p>')
    found = monitored.kept()
    if not found:
        st.html('<p class="say">None yet. Each run is kept with what people say of it, and is found here.</p>')
    with st.container(key=key("runs")):
        for number, run in enumerate(found[:20]):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key(f"run-{number}")):
                st.html(run_words(run.facts, run.messages), width="stretch")
                st.button("Open", key=key(f"open-{run.name}"), on_click=open_run, args=(run.name,))
    if len(found) > 20:
        st.html(f'<p class="say">And {len(found) - 20} older ones; open them by path.</p>')

    def go() -> None:
        if said := S.get(key("path"), "").strip():
            open_run(said if "/" in said or "\\" in said else f"./{said}")

    st.text_input(
        "Open the folder of another run", key=key("path"), max_chars=400, placeholder="chats.jsonl.monitor", on_change=go,
        help="As persona-explorer monitor leaves it; in full, or from where the app was started",
    )  # fmt: skip


def run_words(facts: Any, messages: int) -> str:
    """What a run is of, as HTML."""
    cut = "" if facts.get("complete") else ' <span class="tag plain">cut off</span>'
    probes = ", ".join(f"#{probe}".replace("#~", "~") for probe in facts.get("probes", ()))
    said = f"{messages:,} messages for {probes}"
    return (
        f'<div class="words"><b>{veiled(str(facts.get("log", "")))}</b>{cut}<p class="say num">{escape(said)}</p></div>'
    )


def start_page(cache: Cache, engine: Engine) -> None:
    """The page without a run."""
    left, right = st.columns([1.3, 1], gap="large")
    with left, st.container(key=key("start")):
        form(cache, engine)
    with right:
        list_of_runs()
