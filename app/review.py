"""Monitor's review queue: one message after another, agreed with or not, with what was said around it."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from app import charts, label_form, monitored, score_charts, state
from app.components.heatmap import token_heatmap, token_row
from app.engine import Engine
from app.facts import veiled
from app.monitored import Talk
from explorer.cache import Cache
from explorer.errors import CacheError, ExplorerError
from explorer.monitor import Key, Review, Watch, sample
from explorer.offensive import flag

if TYPE_CHECKING:
    import pandas as pd

S = st.session_state
FLAGGED, STRONGEST, SAMPLE = "Flagged, drawn blindly", "Flagged, strongest first", "Random sample of all"
AT, BACK, DONE, ERROR = "monitor-on-at", "monitor-on-back", "monitor-on-done", "monitor-on-error"
READ = "monitor-read"
AROUND, CUT, MOST_TOKENS = 3, 900, 2048
"""Messages shown on each side; characters of one of them; tokens that are coloured at most."""


def queue_switch() -> str:
    """Which messages are reviewed; another queue is begun at its first that nobody has judged."""
    chosen = st.segmented_control(
        "Review",
        [FLAGGED, STRONGEST, SAMPLE],
        default=FLAGGED,
        required=True,
        key="monitor-on-queue",
        on_change=S.pop,
        args=(AT, None),
        label_visibility="collapsed",
    )
    return chosen or FLAGGED


def answer(run: Watch, queue: Sequence[Key], here: Key, agree: bool) -> None:
    """Keep what the person says of a message and go on to the next; for callbacks."""
    S.pop(ERROR, None)
    try:
        run.review(*here, agree, label_form.author())
    except OSError as error:
        S[ERROR] = _unwritten(run, error)
        return
    S.setdefault(DONE, []).append(here)
    known = run.reviews()
    after = here if S.get("monitor-on-queue") == STRONGEST else None  # a gap in what is drawn would end what counts
    S[AT] = monitored.following(queue, after, known.__contains__) or here


def undo(run: Watch, here: Key) -> None:
    """Take back what this session said last, else what is said of the message in view, and show it; for callbacks."""
    S.pop(ERROR, None)
    done: list[Key] = S.setdefault(DONE, [])
    back = done.pop() if done else here
    try:
        run.review(*back, None, label_form.author())
    except OSError as error:
        S[ERROR] = _unwritten(run, error)
        return
    S[AT] = S[BACK] = back  # it may lie in the other queue


def _unwritten(run: Watch, error: OSError) -> CacheError:
    return CacheError(
        f"{run.folder} cannot be written ({error.strerror or error})",
        do="Make room, or check who may write there; your answer was not kept",
    )


def step(queue: Sequence[Key], here: Key, by: int) -> None:
    """Show the next message of the queue, round its ends; for callbacks."""
    S[AT] = queue[(queue.index(here) + by) % len(queue)] if here in queue else queue[0]


def in_view(queue: Sequence[Key], reviews: Mapping[Key, Review]) -> Key:
    """The message that is looked at: where the session is, else the first that nobody has judged, else the first."""
    here: Key | None = S.get(AT)
    if here is None or (here not in queue and here != S.get(BACK)):
        here = monitored.following(queue, None, reviews.__contains__) or queue[0]
        S[AT] = here
    return here


def review(cache: Cache, engine: Engine, run: Watch, scores: "pd.DataFrame", probe: str, threshold: float) -> None:
    """The queue, the message in view, its conversation, and the ways to say what it is.

    Args:
        scores: As `Watch.scores` gives them, of the probe, statistic and role in view.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.html('<h2 class="part-head">Review</h2>', width="content")
        chosen = queue_switch()
        label_form.name_field()
    if chosen == SAMPLE:
        queue = sample(scores)
        said = (
            "Drawn blindly from all messages, whatever they score: only these tell what the threshold misses, so recall and AUROC need "
            "them. Answer them in their order."
        )
    elif chosen == STRONGEST:
        queue = monitored.flagged(scores, threshold)
        said = "To read the worst first. They are right more often than weaker flags, so precision waits for those drawn blindly, or for all."
    else:
        queue = sample(scores, threshold, None)
        said = "These tell how many flags are right: answer them in their order. What is missed they cannot tell: that needs the random sample."
    st.html(f'<p class="say">{said}</p>')
    if not queue:
        st.html(
            '<p class="say" role="status">No message is at or above the threshold: lower it, or review the random sample.</p>'
        )
        return
    reviews = run.reviews()
    here = in_view(queue, reviews)
    buttons(run, queue, here, reviews)
    if error := S.get(ERROR):
        state.show_error(error)
    try:
        talk = monitored.talk(run, here[0])
    except ExplorerError as error:
        state.show_error(error)
        return
    statistic = "largest" if st.query_params.get("statistic") == "largest" else "mean"
    values = [float(message[f"{probe} {statistic}"]) for message in talk]
    left, right = st.columns([1.6, 1], gap="large")
    with left, st.container(key="monitor-message"):
        conversation(cache, engine, run, probe, talk, here[1], values)
    with right:
        st.html('<p class="sec">From turn to turn</p>')
        st.plotly_chart(
            score_charts.trace(values, [message["role"] for message in talk], threshold, here[1]), config=charts.CONFIG, key="monitor-trace",
            alt=f"Scores of the {len(values)} messages of this conversation",
        )  # fmt: skip
        st.html(
            '<p class="say">Filled: the assistant. Orange: at or above the threshold, the teal line. Large: the message in view.</p>'
        )


def buttons(run: Watch, queue: Sequence[Key], here: Key, reviews: Mapping[Key, Review]) -> None:
    """Agree, disagree, undo, and steps through the queue."""
    known = reviews.get(here)
    judged = sum(one in reviews for one in queue)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="monitor-buttons"):
        for name, letter, agree in (("Agree", "A", True), ("Disagree", "D", False)):
            st.button(
                name, shortcut=letter, key=f"monitor-{letter}", on_click=answer, args=(run, queue, here, agree),
                icon=":material/check:" if known and known.agree is agree else None,
                help="It is of the kind that is looked for" if agree else "It is not",
            )  # fmt: skip
        st.button(
            "Undo", shortcut="U", key="monitor-U", on_click=undo, args=(run, here), type="tertiary",
            disabled=not S.get(DONE) and known is None,
        )  # fmt: skip
        st.button("Previous", shortcut="K", key="monitor-K", on_click=step, args=(queue, here, -1), type="tertiary")
        st.button("Next", shortcut="J", key="monitor-J", on_click=step, args=(queue, here, 1), type="tertiary")
        place = f"{queue.index(here) + 1:,} of {len(queue):,}" if here in queue else f"1 beside {len(queue):,}"
        st.html(f'<p class="say num" role="status">{place}, {judged:,} answered{_by(known)}</p>', width="content")


def _by(review: Review | None) -> str:
    if review is None:
        return ""
    said = "of the kind" if review.agree else "not of the kind"
    return f"; this one: {said}" + (f", says {veiled(review.author)}" if review.author else "")


# --- the conversation


def conversation(
    cache: Cache, engine: Engine, run: Watch, probe: str, talk: Talk, here: int, values: Sequence[float]
) -> None:
    """The message in view with what was said before and after it."""
    before, after = range(max(0, here - AROUND), here), range(here + 1, min(len(talk), here + 1 + AROUND))
    roles, texts = [message["role"] for message in talk], [message["text"] for message in talk]
    left_out = f'<p class="say">{before.start} earlier messages</p>' if before.start else ""
    source = str(talk[0]["source"])
    st.html(
        f'<p class="say words">{veiled(source)}</p>{left_out}'
        + "".join(aside(roles[n], texts[n], values[n]) for n in before)
    )
    row = heat(cache, engine, run, probe, talk, here) if texts[here].strip() else None
    with st.container(key="monitor-here"):
        head = message_head(roles[here], values[here])
        if row is None:
            st.html(f'<div class="chat here">{head}<div>{long(texts[here])}</div></div>')
        else:
            st.html(f'<div class="chat here">{head}</div>')
            signed = probe.startswith("~")
            token_heatmap(
                [row], vmax=1.0 if signed else cache.maxima[int(probe)], window=0, signed=signed, blur=state.blurs(),
                breaks=True, key="monitor-heat",
            )  # fmt: skip
    rest = len(talk) - after.stop
    left_out = f'<p class="say">{rest} later messages</p>' if rest > 0 and len(talk) > here + 1 else ""
    st.html(
        "".join(aside(roles[n], texts[n], values[n]) for n in after)
        + left_out
        + f'<p class="say">{why(engine, run, row)}</p>'
    )


def message_head(role: str, value: float) -> str:
    """Who says it, and its score."""
    score = "not scored" if math.isnan(value) else f"{value:.3f}".replace("-", "−")
    return f'<header><b>{veiled(role)}</b><span class="num">{score}</span></header>'


def aside(role: str, text: str, value: float) -> str:
    """A message beside the one in view, as HTML."""
    return f'<div class="chat">{message_head(role, value)}<div>{long(text)}</div></div>'


def long(text: str) -> str:
    """A text as HTML; of a long one the rest opens on demand."""
    if len(text) <= CUT:
        return veiled(text)
    return f"{veiled(text, 0, CUT)}<details><summary>{len(text) - CUT:,} more characters</summary>{veiled(text, CUT)}</details>"


def same_model(engine: Engine, run: Watch) -> bool:
    """Whether the live model and SAE are those of the run."""
    made = engine.cache.manifest
    return (run.facts["model_fingerprint"], run.facts["sae_fingerprint"]) == (
        made.model_fingerprint,
        made.sae_fingerprint,
    )


def why(engine: Engine, run: Watch, row: object) -> str:
    """Why the message has no colours, as HTML; "" where it has."""
    if row is not None:
        return ""
    if not same_model(engine, run):
        return escape(f"Made with {run.facts['model']} and another SAE, so its tokens have no colours here.")
    return "" if engine.state == "ready" else "Tokens get their colours once the model is loaded."


def heat(cache: Cache, engine: Engine, run: Watch, probe: str, talk: Talk, here: int) -> dict | None:
    """The message as a row of the heatmap; None where the model is not here, or would need too long."""
    if engine.state != "ready" or not same_model(engine, run) or talk[here]["tokens"] > MOST_TOKENS:
        return None
    asked = (str(run.folder), talk[0]["transcript"], here, probe)
    known = S.get(READ)
    if known is None or known[0] != asked:
        try:
            known = (asked, monitored.tokens(engine, run, probe, talk, here))
        except ExplorerError:  # such as a direction that is gone: the text is shown without colours
            return None
        S[READ] = known
    ids, values = known[1]
    scale = 1.0 if probe.startswith("~") else cache.maxima[int(probe)]
    scored = [not math.isnan(value) for value in values]
    acts = [float(value) * scale if there else 0.0 for value, there in zip(values, scored, strict=True)]
    return token_row(cache.vocabulary, ids.tolist(), acts, scored, flagged=bool(flag(talk[here]["text"])))
