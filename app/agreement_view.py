"""Disagreements: features that two people have named, those on which they differ most first, both texts side by side."""

from html import escape
from typing import Any

import streamlit as st

from app import resources, state
from app.facts import veiled
from app.jobs import Job
from app.watched import begun, busy, trouble, watched
from explorer.agreement import MEASURES, Agreement, Measure, Pair, agreement, latest
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.labels import CONFIDENCES, Label
from explorer.quiz import answers_of

PAGE = 20
MEANT = "agreement-meant"
_NAMES = {
    "interpretable": "Has one meaning",
    "confidence": "Confidence",
    "answers": "Same snippets",
    "meaning": "Meaning of the labels",
}


def disagreements(cache: Cache) -> None:
    """Draw the measures and the ranking; where nobody has named a feature twice, how to get there."""
    sae = cache.manifest.sae_fingerprint
    try:
        labels, answers = latest(resources.labels().changes(sae)), answers_of(resources.scores().all(sae))
    except ExplorerError as error:
        state.show_error(error, retry=True)
        return
    if not any(len(by) > 1 for by in labels.values()):
        st.html(
            '<div class="head"><h1>Nobody has named the same feature twice yet</h1></div>'
            '<p class="say">When two people label the same features, each without seeing what the other said, this page shows where they '
            "agree and where they do not. The Label page hides other people's words until one has said something; give two people the same "
            "queue to begin.</p>"
        )
        return
    job = _meant((sae, labels, answers))
    found: Agreement = job.result or agreement(labels, answers)  # of thousands of labels, intervals take seconds
    st.html(_measures(found))

    def part() -> None:
        if busy(job):
            st.html('<p class="say" role="status">Reading what the labels mean…</p>')
        elif not job.result:
            trouble(job)

    watched(part, lambda: job)
    shown = st.session_state.get("agreement-shown", PAGE)
    st.html("".join(_pair(pair) for pair in found.pairs[:shown]))
    if (left := len(found.pairs) - shown) > 0:
        st.button(f"Show {min(PAGE, left)} more", key="agreement-more", on_click=_more, args=(shown,))


def _meant(said: tuple[str, Any, Any]) -> Job:
    """The same measures with the likeness of what the labels mean; the job is done anew when people have said something."""
    engine, (_, labels, answers) = resources.engine(state.cache_name() or ""), said
    return begun(MEANT, said, lambda: engine.job(lambda job: agreement(labels, answers, engine.embedder())))


def _more(shown: int) -> None:
    st.session_state["agreement-shown"] = shown + PAGE


def _measures(found: Agreement) -> str:
    rows = "".join(
        f'<tr title="{escape(MEASURES[name])}"><th scope="row">{_NAMES[name]}</th><td class="num">{_value(measure)}</td>'
        f'<td class="num dim">{_basis(name, measure)}</td></tr>'
        for name, measure in found.measures.items()
    )
    return (
        '<div class="head"><h1>Where people differ</h1></div>'
        f'<p class="sec">Agreement on the {len(found.pairs):,} features that at least two people have named</p>'
        f'<table class="agreement"><tbody>{rows}</tbody></table>'
        '<p class="say">The first three are Krippendorff\'s alpha: 1 is full agreement, 0 is what chance would give. The last is a mean '
        "cosine. In brackets: 95 % intervals.</p>"
    )


def _value(measure: Measure) -> str:
    if measure.value is None:
        return f'<span class="dim">{escape(measure.why)}</span>'
    interval = (
        f' <span class="dim">({_signed(measure.low)} to {_signed(measure.high)})</span>'
        if measure.low is not None and measure.high is not None
        else ""
    )
    return f"<b>{_signed(measure.value)}</b>{interval}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _basis(name: str, measure: Measure) -> str:
    if not measure.units:
        return ""
    if name == "answers":
        return f"{measure.units:,} snippets of {measure.features:,} features"
    return f"{measure.features:,} features"


def _pair(pair: Pair) -> str:
    facts = [] if pair.interpretable else ["<b>only one found a meaning</b>"]
    if pair.differ is not None:
        facts.append(f"different answers to {pair.differ:.0%} of {pair.answers.units} snippets")
    if pair.meaning is not None:
        facts.append(f"similarity {_signed(pair.meaning)}")
    if pair.spread:
        facts.append(f"confidence {pair.spread} apart")
    link = escape(state.link("feature", feature=pair.feature))
    sides = "".join(_side(who, label) for who, label in sorted(pair.labels.items()))
    return (
        f'<section class="pair"><p class="sec"><a href="{link}" target="_self">Feature {pair.feature}: its examples</a>'
        f'<span class="dim num"> {" · ".join(facts)}</span></p><div class="sides">{sides}</div></section>'
    )


def _side(who: str, label: Label) -> str:
    sure = f" · {CONFIDENCES[label.confidence]}" if label.confidence else ""
    note = f'<p class="say words">{veiled(label.note[:300])}</p>' if label.note else ""
    return f'<div class="words"><p><b>{veiled(label.label)}</b></p><p class="say">{escape(who)}{sure}</p>{note}</div>'
