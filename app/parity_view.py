"""Is a cache true to the live model? A badge that needs no model, and the check that makes it, with the worst example in colour."""

from html import escape
from typing import Any

import streamlit as st

from app import resources, state
from app.components.heatmap import token_heatmap, token_row
from app.engine import Engine
from app.facts import percent
from app.jobs import Job
from app.watched import busy, progress, trouble, watched
from explorer.cache import Cache
from explorer.parity_file import Parity, badge

S = st.session_state
JOB = "parity-job"
_TONES = {"ok": "causal", "stale": "plain", "mismatch": "warn", "unchecked": "plain"}


def tag(cache: Cache) -> str:
    """The badge as HTML, with its figures or its cause as a tooltip."""
    found = badge(cache)
    return f'<span class="tag {_TONES[found.state]}" title="{escape(found.detail)}">{found.words}</span>'


def compared(engine: Engine, job: Job) -> Parity:
    """Compare a cache with the engine's model and SAE, and keep what was found."""
    from explorer.parity import compare
    from explorer.parity_file import save

    coder = engine.steering(()).coder
    assert coder is not None  # an engine has one

    def tell(share: float) -> None:
        job.progress = share

    found = compare(engine.cache, engine.model, coder, progress=tell, should_stop=job.should_stop)
    save(engine.cache, found)
    return found


def check(cache: Cache) -> None:
    """Draw the section: what is known, the button, and what came of it."""
    st.html('<p class="sec">Is this cache true to the live model?</p>')
    watched(lambda: _draw(cache), lambda: _job(cache))


def _job(cache: Cache) -> Job | None:
    said = S.get(JOB)
    return said[1] if said and said[0] == cache.path else None


def _begin(cache: Cache) -> None:
    name = state.cache_name()
    assert name is not None  # the page has one
    engine = resources.engine(name)
    engine.start()
    S[JOB] = (cache.path, engine.job(lambda job: compared(engine, job)), engine)


def _button(cache: Cache, words: str) -> None:
    st.button(words, key="parity-go", on_click=_begin, args=(cache,))


def _draw(cache: Cache) -> None:
    job, found = _job(cache), badge(cache)
    if job is not None and busy(job):
        progress(job, S[JOB][2].warming or "reading cached examples again", key="parity-cancel")
        return
    if job is not None and trouble(job):
        _button(cache, "Try again")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="num words" role="status">{tag(cache)} {escape(found.detail)}</div>')
        _button(cache, "Check against the live model")
    if found.parity and found.state in ("ok", "mismatch"):
        if found.state == "mismatch":
            _cause(found.parity)
        if job is not None or found.state == "mismatch":
            worst(cache, found.parity)


def _cause(found: Parity) -> None:
    """The likely cause, the fix, and what was tried."""
    left = ""
    if found.remaining is not None:
        left = f" It explains the difference down to {percent(found.remaining)}, from {percent(found.error)}."
    st.html(
        f'<div class="trouble words" role="alert"><div><b>{escape(found.cause)}.</b>{left}</div><div>{escape(found.fix)}.</div></div>'
    )
    rows = "".join(
        f"<tr><td>{escape(one['name'])}</td><td>{escape(one['detail'])}</td>"
        f"<td>{'could not be tried' if one['error'] is None else percent(one['error'])}</td></tr>"
        for one in found.tested
    )
    with st.expander("What was tried"):
        st.html(
            f'<table class="tokens num"><tr><th>cause</th><th>what it would mean</th><th>error left</th></tr>{rows}</table>'
        )


def worst(cache: Cache, found: Parity) -> None:
    """The example that differs most, each token by how far the live model is off, and both readings of it."""
    one: dict[str, Any] = found.example
    off = [live - cached for live, cached in zip(one["live"], one["cached"], strict=True)]
    off = [value if counts else 0.0 for value, counts in zip(off, one["scored"], strict=True)]

    def row(values: list[float], group: str) -> dict[str, Any]:
        return token_row(cache.vocabulary, one["tokens"], values, one["scored"], group=group)

    href = escape(state.link("feature", feature=one["feature"]))
    st.html(
        f'<p class="say">The example that differs most, of <a href="{href}" target="_self">#{one["feature"]}</a>: the live model '
        "above the cache is orange, below it blue.</p>"
    )
    top = cache.maxima[one["feature"]] or 1.0
    token_heatmap(
        [row(off, "Live less cached")], vmax=top, signed=True, what="difference", blur=state.blurs(), key="parity-error"
    )
    token_heatmap(
        [row(one["cached"], "Cached"), row(one["live"], "Live")], vmax=top, blur=state.blurs(), key="parity-both"
    )
