"""One feature of a comparison: the fine-tune's answers that drive it, each below the base's, and both token by token."""

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import streamlit as st

from app import compared, standings, state
from app.compare_link import key, taking_away, tuned_here
from app.compared import VERDICTS, Mover
from app.components.heatmap import token_heatmap, token_row
from app.engine import Engine
from app.facts import veiled
from app.feature_row import named
from app.jobs import Job
from app.watched import begun, busy, trouble, watched
from app.workbench import Reading
from explorer.cache import Cache
from explorer.comparing import Compared

S = st.session_state
READ = "compare-read"
Readings = list[tuple[str, Reading]]
"""Whose answer it is, and how active the feature is on it."""


def in_view(cache: Cache, engine: Engine, found: Compared, mover: Mover, labels: dict[int, str], word: str) -> None:
    """The feature that was clicked: the fine-tune's answers that drive it, each below the base's to the same question."""
    name = named(cache, mover.feature, labels)
    tone = "causal" if mover.verdict == "causes" else "plain"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("feature-head")):
        st.html(
            f'<h2 class="part-head words"><span class="dim num">#{mover.feature}</span> {veiled(name)}'
            f'<span class="tag {tone}" title="{escape(VERDICTS[mover.verdict])}">{mover.verdict}</span></h2>',
            width="stretch",
        )
        st.button(
            "Open feature", key=key("open"), on_click=state.go, args=("feature",), kwargs={"feature": mover.feature}
        )
        strength = mover.trial.added.strength if mover.trial else 1.0
        st.button(
            "Steer with it", key=key("steer-one"), on_click=state.go, args=("steer",),
            kwargs={"edits": f"{mover.feature}:{strength or 1:g}:add"},
        )  # fmt: skip
        if model := tuned_here(cache, found):
            less = mover.trial.removed.strength if mover.trial else -1.0
            st.button(
                "Take it from the fine-tune", key=key("steer-tuned"), on_click=state.go, args=("steer",),
                kwargs=taking_away(model, mover.feature, less or -1),
            )  # fmt: skip
    pairs = compared.pairs(found, mover.feature)
    if not pairs:
        st.html(
            '<p class="say" role="status">Answers are kept for tested features and the largest rises on own answers only; '
            "this one has none.</p>"
        )
        return
    st.html(
        '<p class="say">The fine-tune’s answers on which it is most active, each below what the base said to the same question.</p>'
    )
    for at, (value, tuned, base) in enumerate(pairs):
        st.html(f'<p class="asked-there words">{veiled(tuned["question"])}</p>')
        left, right = st.columns([1, 1.1], gap="large") if at == 0 else (st.container(), None)
        with left:
            if base:
                st.html(standings.answer(base, "Base", word))
            st.html(standings.answer(tuned, "Fine-tune", word, f"mean {value:.2f}"))
        if right:
            with right, st.container(key=key("heat"), gap="small"):
                tokens(cache, engine, found, mover.feature, tuned, base)


def tokens(cache: Cache, engine: Engine, found: Compared, feature: int, tuned: dict, base: dict | None) -> None:
    """The two answers token by token, read in the background; where the model is not loaded, a button that loads it."""
    if found.facts["sae_fingerprint"] != cache.manifest.sae_fingerprint:
        st.html('<p class="say" role="status">The comparison was read with another autoencoder than this cache’s.</p>')
        return
    if engine.state == "failed" and engine.error:
        state.show_error(engine.error)
    if engine.state not in ("loading", "ready"):
        st.html('<p class="say">Token by token this needs the model.</p>')
        st.button("Load the model and colour the tokens", key=key("load"), on_click=engine.start)
        return
    model = tuned_here(cache, found)
    said = {"Base": base, "Fine-tune": tuned} if base else {"Fine-tune": tuned}
    job = begun(
        READ,
        (str(found.folder), feature, tuned["number"], model),
        lambda: engine.job(partial(readings, engine, model, feature, said)),
    )
    watched(partial(heat, cache, engine, feature, model, job), lambda: job)


def heat(cache: Cache, engine: Engine, feature: int, model: str, job: Job) -> None:
    """What was read, in colour, or what it waits for."""
    if busy(job):
        waits = engine.warming or "the answers are being read"
        st.html(f'<p class="say" role="status">{waits[:1].upper() + waits[1:]}; the tokens come by themselves.</p>')
        return
    if trouble(job):
        st.button("Try again", key=key("again"), on_click=S.pop, args=(READ, None))
        return
    read: Readings = job.result
    rows = [token_row(cache.vocabulary, r.tokens, r.acts, r.scored, group=who) for who, r in read]
    highest = cache.feature(feature).max or max((max(r.acts, default=0.0) for _, r in read), default=0.0)
    words = (
        "Each model reads its own answer, as for the means on the left."
        if model
        else "The fine-tune is not among the adapters of this cache, so the base model reads both texts: only what was written differs. "
        "The means on the left are of the fine-tune reading its own."
    )
    st.html(f'<p class="say">Where it fires. {words}</p>')
    token_heatmap(rows, vmax=highest or 1.0, window=0, blur=state.blurs(), key=key("heatmap"))


def readings(engine: Engine, model: str, feature: int, said: Mapping[str, dict], job: Job) -> Readings:
    """How active a feature is on each answer, as the model that wrote it reads it.

    Args:
        engine: Of the base.
        model: The fine-tune's name among the adapters; "" where it is not there: then the base reads both.
        said: "Base" or "Fine-tune" -> the answer.
    """
    template, found = engine.model.has_template, []
    for who, one in said.items():
        if job.should_stop():
            break
        reader = engine.on(model if who == "Fine-tune" else "")
        found.append((who, reader.activations(conversation(one, template), feature)))
    return found


def conversation(said: dict, template: bool) -> "str | Sequence[dict[str, str]]":
    """A question with its answer, as the model takes it."""
    if not template:
        return said["question"] + said["text"]
    return [{"role": "user", "content": said["question"]}, {"role": "assistant", "content": said["text"]}]
