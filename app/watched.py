"""The part of a page that watches work in the background without running the page again."""

from collections.abc import Callable

import streamlit as st

from app import state
from app.engine import Engine
from app.jobs import Job
from app.runs import Run

QUEUED = "waits for its turn: live answers and work begun before go first"
ENDING = "ends after this step"
_PATIENCE = 0.4  # seconds that a page waits for an answer before it says that it waits


def busy(job: Job | None) -> bool:
    """Whether there is still something to wait for."""
    return job is not None and job.phase in ("queued", "running")


def job_of(key: str, run: Run) -> Job | None:
    """The job that the session keeps under `key` as (run, job); None where it is of another run."""
    said = st.session_state.get(key)
    return said[1] if said and said[0] is run else None


def begun(key: str, asked: object, begin: Callable[[], Job]) -> Job:
    """The job that the session keeps under `key` for what is asked: begun where something else was, or nobody had looked at it any more.

    Returns:
        It; where it takes no longer than a moment, it is done.
    """
    held = st.session_state.get(key)
    if held is None or held[0] != asked or held[1].phase == "stopped":
        held = st.session_state[key] = (asked, begin())
    job: Job = held[1]
    job.wait(_PATIENCE)
    return job


def watched(draw: Callable[[], None], job: Callable[[], Job | None], *, every: float = 0.7) -> None:
    """Draw a part of a page that polls by itself while its job is under way; the clock stops with the job.

    Args:
        draw: Draws it, whatever state the job is in.
        job: The job as it is now; None where there is none.
    """
    polled = busy(job())

    def part() -> None:
        if busy(job()) != polled:
            st.rerun()  # once: a clock is set and stopped by the page, and by nobody else
        draw()

    st.fragment(part, run_every=every if polled else None)()


def progress(job: Job, what: str, *, key: str) -> None:
    """How far a job is, with a button that ends it.

    Args:
        what: What is being done, such as "measuring", as HTML.
    """
    said = ENDING if job.stopping else QUEUED if job.phase == "queued" else f"{what}, {100 * job.progress:.0f} %"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(
            f'<div class="bar"><i style="width:{100 * job.progress:.0f}%"></i></div><p class="say" role="status">{said}</p>'
        )
        st.button("Cancel", key=key, on_click=job.stop, type="tertiary", icon=":material/close:")


def still_loading(engine: Engine, waited: bool, what: str) -> bool:
    """Whether a fragment that needs the model has to wait for it, and says so; its clock stops once it need not.

    Args:
        waited: Whether the fragment has a clock.
        what: What comes then, such as "the result comes by itself".
    """
    if engine.state == "loading":
        st.html(f'<p class="say" role="status">The model is still loading; {what}.</p>')
        return True
    if waited:
        st.rerun()  # once, so that the clock stops
    return False


def trouble(job: Job) -> bool:
    """Say why a job has come to nothing; whether it has."""
    if job.error:
        state.show_error(job.error)
    elif job.phase == "stopped":
        st.html('<p class="say" role="status">Cancelled.</p>')
    return job.result is None
