"""The sliders of the Steer page: one row a feature or direction, what its strength comes to, and where more are found."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import streamlit as st

from app import state
from app.desk import add, key, moved, put, take_away
from app.engine import Engine
from app.facts import markdown_text, number, veiled
from app.settings import STEP, Settings, Slider
from explorer import search
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.records import Edit
from explorer.steering import ONE_MEANS, POSITIONS, STEERING_MODES

COLUMNS = (0.32, 2.6, 1.5, 3.6, 0.45)
"""Weights of a row: on, name, mode, strength, away."""
STRENGTH = 3
"""Place of the strength among them."""
PLACES = {"answer": "Answer", "prompt": "Prompt", "all": "All", "first": "First"}


def slider_row(
    cache: Cache,
    engine: Engine,
    slider: Slider,
    labels: dict[int, str],
    directions: Mapping[str, Direction],
    under: Callable[[str], object] | None = None,
) -> None:
    """One feature or direction: on or muted, its name, mode, strength, and what the strength comes to.

    Args:
        under: Draws the second line; it is given what else would stand there, as HTML.
    """
    edit, target, mode = slider.edit, slider.edit.target, STEERING_MODES[slider.edit.mode]
    what = f"direction {edit.direction}" if edit.direction else f"feature {target}"
    strength_key = f"strength-{target}-{edit.mode}"  # the modes' ranges differ
    put(**{f"on-{target}": slider.on, f"mode-{target}": edit.mode})
    if mode.uses_strength:
        put(**{strength_key: edit.strength})
    said: dict[str, Any] = {"on_change": moved, "args": (target,), "label_visibility": "collapsed"}
    with st.container(key=key("row", target, "on" if slider.on else "off")):
        on, name, how, strength, away = st.columns(COLUMNS, vertical_alignment="center", gap="small")
        on.checkbox(f"{what.capitalize()} steers", slider.on, key=key("on", target), **said)
        name.html(_name(cache, edit, labels, directions))
        how.selectbox(
            f"Mode of {what}", list(STEERING_MODES), list(STEERING_MODES).index(edit.mode), key=key("mode", target),
            format_func=lambda m: STEERING_MODES[m].label, **said,
        )  # fmt: skip
        if mode.uses_strength:
            strength.slider(
                f"Strength of {what}", mode.lowest, mode.highest, edit.strength, step=STEP,
                format="%+.2f" if mode.lowest < 0 else "%.2f", key=key(strength_key), **said,
            )  # fmt: skip
        else:
            strength.html(f'<p class="say">{escape(mode.help)}</p>')
        away.button(
            "", icon=":material/close:", type="tertiary", key=key("away", target), help=f"Take {what} away",
            on_click=take_away, args=(target,),
        )  # fmt: skip
        facts = _direction_facts(engine, edit, directions) if edit.direction else strength_facts(cache, engine, edit)
        unit = f'<span title="{escape(mode.help)}">{escape(mode.unit)}</span>' if mode.uses_strength else ""
        spans = "".join(f"<span>{fact}</span>" for fact in facts)
        (under or st.html)(f'<div class="facts num dim lever-facts">{unit}{spans}</div>')


def _name(cache: Cache, edit: Edit, labels: dict[int, str], directions: Mapping[str, Direction]) -> str:
    """A feature as a link with its label, or its own words; a direction with its tag."""
    if edit.direction:
        found = directions[edit.direction]
        made = f"Difference of means of {found.facts.get('n_positive', '?')} texts with and " + (
            f"{found.facts.get('n_negative', '?')} without the trait, at {found.hook_point}"
        )
        return (
            f'<div class="lever" title="{escape(made)}"><b>~{escape(found.name)}</b> {veiled(found.title)} '
            '<span class="tag direction">direction</span></div>'
        )
    i, label = edit.feature, labels.get(edit.feature, "")
    own = f'<span class="dim">{veiled(cache.feature(i).title) or "no words of its own"}</span>'
    href = escape(state.link("feature", feature=i))
    return (
        f'<div class="lever"><a href="{href}" target="_self" title="Open the feature">#{i}</a> '
        f"{veiled(label) if label else own}</div>"
    )


def strength_facts(cache: Cache, engine: Engine, edit: Edit) -> list[str]:
    """What the strength of a feature comes to: the coefficient of the decoder vector, its length, and SAELens' number."""
    maximum, mode = cache.feature(edit.feature).max, STEERING_MODES[edit.mode]
    if not mode.uses_strength:
        return []
    if not maximum:
        return ["never fires in the corpus: it has no maximum to take a multiple of, and cannot be steered"]
    raw = edit.strength * maximum
    if edit.mode != "add":
        return _said_of(edit, raw, maximum)
    facts = [
        f'<span title="Strength times the feature’s maximum of {number(maximum)}: what its decoder vector is '
        f'multiplied with">raw coefficient <b>{_signed(raw)}</b></span>'
    ]
    norm = engine.direction_norm(edit.feature)
    if norm is None:
        return [*facts, "length and SAELens’ number once the model is ready"]
    length = raw * norm
    return [
        *facts,
        _in_norms(engine, length),
        '<span title="Coefficient of the decoder direction at length 1, as SAELens and Neuronpedia count">'
        f"SAELens <b>{_signed(length)}</b></span>",
    ]


def _direction_facts(engine: Engine, edit: Edit, directions: Mapping[str, Direction]) -> list[str]:
    """What the strength of a direction comes to, and how well it tells texts apart."""
    found = directions[edit.direction]
    auroc = found.facts.get("auroc")
    held_out = "" if auroc is None else f'<span title="AUROC on texts that were held out">separation {auroc:.2f}</span>'
    if not STEERING_MODES[edit.mode].uses_strength:
        return [held_out]
    length = edit.strength * found.norm
    facts = _said_of(edit, length, found.norm) if edit.mode != "add" else [f"length <b>{_signed(length)}</b>"]
    if edit.mode == "add" and found.hook_point == engine.cache.manifest.hook_point:
        facts.append(_in_norms(engine, length))
    return [*facts, held_out, escape(found.hook_point)]


def _said_of(edit: Edit, raw: float, maximum: float) -> list[str]:
    """What a mode that looks at the stream does with a strength."""
    if edit.mode == "scale":
        return [f"<b>{edit.strength:.2f}</b> times what it says itself"]
    verb = {"clamp": "held at activation", "orthogonal": "component set to", "cap": "component at most"}[edit.mode]
    return [f"{verb} <b>{_signed(raw) if raw < 0 else number(raw)}</b> (maximum {number(maximum)})"]


def _in_norms(engine: Engine, length: float) -> str:
    return (
        f'<span title="Length of the change, over {number(engine.median_norm)}: the median length of the residual '
        f'stream here"><b>{length / engine.median_norm:+.2f}</b> residual norms</span>'
    )


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def what_one_means(now: Settings) -> str:
    """The sentence that answers "what does 1.0 mean?" for the sliders in view, as HTML."""
    kinds = dict.fromkeys("direction" if slider.edit.direction else "feature" for slider in now.sliders)
    return f'<p class="say">{" ".join(escape(ONE_MEANS[kind]) for kind in kinds or ("feature",))}</p>'


def what_modes_do() -> None:
    """Every mode with unit and help, and every choice of steered tokens."""
    modes = "".join(
        f"<dt>{escape(m.label)} <span>{escape(m.unit)}</span></dt><dd>{escape(m.help)}</dd>"
        for m in STEERING_MODES.values()
    )
    places = "".join(
        f"<dt>{escape(PLACES.get(name, name))}</dt><dd>{escape(words)}</dd>" for name, words in POSITIONS.items()
    )
    st.html(
        f'<p class="sec">Modes</p><dl class="help">{modes}</dl><p class="sec">Steered tokens</p><dl class="help">{places}</dl>'
    )


def finder(cache: Cache, now: Settings, labels: dict[int, str], directions: Mapping[str, Direction]) -> None:
    """A box for a number or words, and the features and directions that were found."""
    query = st.text_input(
        "Number or words", key=key("find"), live=True, max_chars=200,
        placeholder="1760, or words of its label or tokens",
    )  # fmt: skip
    taken = {slider.edit.target for slider in now.sliders}
    wanted = (query or "").casefold().removeprefix("~").strip()
    for name, direction in directions.items():
        if f"~{name}" not in taken and (wanted in name or wanted in direction.title.casefold()):
            words = f"~{name} {direction.title} (direction)"
            st.button(
                markdown_text(words), key=key("found", f"~{name}"), type="tertiary", on_click=add, args=(f"~{name}",)
            )
    found = search.search(
        cache, query=query or "", sort="match" if query else "max", status="live", labels=labels, limit=8 + len(taken)
    )
    rows = [row for row in found.rows if str(row.index) not in taken][:8]
    for row in rows:
        name = markdown_text(f"#{row.index} {row.label or row.title}")
        st.button(name, key=key("found", row.index), type="tertiary", on_click=add, args=(row.index,))
    if not rows:
        st.html('<p class="say" role="status">No other feature that fires holds these words.</p>')
