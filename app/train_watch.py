"""Compare's second tab, its right side: the training under way, its loss, and what came of it."""

from html import escape
from shlex import quote

import streamlit as st

from app import charts, state, trained
from app.engine import Engine
from app.facts import veiled
from app.train_chart import loss_curve
from app.train_form import FOCUS, form, key
from app.trained import Training
from app.watched import ENDING, QUEUED, busy, watched
from explorer.adapters import Adapter, known
from explorer.cache import Cache

S = st.session_state
LOOKING = (
    "How surprised the model is by the answers that it is to learn, step by step: it should fall, and near 0 the rows are known by heart. "
    "Each step has other rows, so it jumps; dotted lines are finished checkpoints."
)


def focus(engine: Engine) -> Training | None:
    """The training in view: the one that this session began last, or one under way that somebody else began."""
    mine: Training | None = S.get(FOCUS)
    if mine is not None and mine.engine.cache.path == engine.cache.path:
        return mine
    return next(iter(trained.under_way(engine)), None)


def train_page(cache: Cache, engine: Engine) -> None:
    """The form and what came of it."""
    left, right = st.columns([1, 1.25], gap="large")
    with left, st.container(key=key("form")):
        form(cache, engine)
    with right, st.container(key=key("watch")):
        now = focus(engine)
        if now is None:
            nothing_yet(cache)
        elif busy(now):
            watched(lambda: training(cache, engine, now), lambda: now)
        else:  # no fragment: its buttons lead to other pages
            training(cache, engine, now)


def nothing_yet(cache: Cache) -> None:
    """The empty state: what comes here, and the adapters that are here."""
    st.html(
        '<p class="say">Here comes the loss, step by step, and at the end the adapter: small matrices beside the model’s own weights, '
        "which stay as they are. It is trained in the background and goes on when you leave the page.</p>"
    )
    runs: dict[str, list[Adapter]] = {}
    for adapter in known(cache.path).values():
        runs.setdefault(adapter.run, []).append(adapter)
    if runs:
        lines = "".join(
            f'<tr><th class="words">{escape(run)}</th><td>{", ".join(f"{a.step:,}" for a in made)}</td>'
            f'<td class="words">{escape(str((made[-1].facts.get("data") or {}).get("name", "")))}</td></tr>'
            for run, made in runs.items()
        )
        st.html(
            '<p class="sec">Adapters that are here</p><div class="scroll"><table class="figures num">'
            f"<tr><th>run</th><th>steps</th><th>rows</th></tr>{lines}</table></div>"
        )
    else:
        st.html('<p class="say">No adapter is here yet.</p>')


def training(cache: Cache, engine: Engine, now: Training) -> None:
    """A training, whatever state it is in."""
    asked = now.asked
    st.html(f'<h2 class="part-head words">{veiled(asked.name)}</h2>')
    if busy(now):
        under_way(engine, now)
    others = [one for one in trained.under_way(engine) if one is not now]
    for number, one in enumerate(others):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(f'<p class="say words num">{veiled(one.asked.name)}: {said(engine, one)}</p>')
            st.button(
                "Cancel", key=key(f"cancel-other-{number}"), on_click=one.stop, type="tertiary", icon=":material/close:"
            )
    if now.losses:
        curve(now)
    if not busy(now):
        ended(cache, now)


def under_way(engine: Engine, now: Training) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(
            f'<div class="bar"><i style="width:{100 * now.progress:.0f}%"></i></div>'
            f'<p class="say num words" role="status">{said(engine, now)}</p>'
        )
        st.button("Cancel", key=key("cancel"), on_click=now.stop, type="tertiary", icon=":material/close:")
    st.html(
        '<p class="say">It goes on when you leave this page. Cancelled, it keeps the checkpoints that are finished.</p>'
    )


def said(engine: Engine, one: Training) -> str:
    """How far a training is, as HTML."""
    step, steps = len(one.losses), one.asked.plan.steps
    if one.stopping:
        return f"step {step:,} of {steps:,}; {ENDING}"
    if one.phase == "queued":
        before = trained.under_way(engine)
        ahead = [other.asked.name for other in before[: before.index(one)]] if one in before else []
        if ahead:
            return f"waits for {veiled(ahead[-1])}, which is trained before"
        return engine.warming or QUEUED
    if waiting := engine.warming:
        return waiting
    way = "; lets live answers go first" if one.gives_way else ""
    left = f"; about {trained.spelled(one.left)} left" if one.left is not None else ""
    return f"step {step:,} of {steps:,}{left}{way}"


def curve(now: Training) -> None:
    losses, plan = list(now.losses), now.asked.plan
    st.plotly_chart(
        loss_curve(losses, plan.steps, plan.kept), config=charts.CONFIG, key=key("loss"),
        alt=f"Loss over {len(losses)} steps, {losses[-1]:.2f} at the last",
    )  # fmt: skip
    st.html(f'<p class="say">{LOOKING}</p>')


def ended(cache: Cache, now: Training) -> None:
    """What came of it: the last loss, the checkpoints, and the ways to use them."""
    made = now.made if now.losses else []
    if now.error:
        state.show_error(now.error)
    elif now.phase == "stopped":
        after = f"after step {len(now.losses):,}" if now.losses else "before the first step"
        kept = (
            "what is below was finished before, and stays" if made else "no checkpoint was finished, so nothing is kept"
        )
        st.html(f'<p class="say num" role="status">Cancelled {after}; {kept}.</p>')
    if not made:
        return
    steps = ", ".join(f"{a.step:,}" for a in made)
    st.html(
        f'<div class="facts num"><span>last loss <b>{now.losses[-1]:.2f}</b></span><span>checkpoints after steps <b>{steps}</b></span>'
        f"<span>{len(now.asked.rows):,} rows of {veiled(now.asked.data)}</span></div>"
    )
    names = {a.name: a for a in made}
    if S.get(key("open")) not in names:
        S[key("open")] = made[-1].name
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox("Checkpoint", list(names), key=key("open"), width=280)
        st.button(
            "Open in Steer",
            type="primary",
            key=key("steer"),
            on_click=state.go,
            args=("steer",),
            kwargs={"model": name},
        )
    chosen = names[name]
    st.html('<p class="sec">Load it anywhere with peft</p>')
    st.code(trained.snippet(chosen, trained.base_of(cache)), language="python", wrap_lines=True)
    folder = quote(str(cache.path))
    st.html('<p class="sec">Compare it with its base: what moved, what causes it, what undoes it</p>')
    st.code(
        f"persona-explorer diff --base {quote(cache.manifest.model)} --tuned {name} --cache {folder} --out {folder}/diffs/{chosen.run}",
        language=None, wrap_lines=True,
    )  # fmt: skip
