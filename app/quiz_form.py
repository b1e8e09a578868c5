"""Test my label: held-out snippets one after another, the person says where the feature fires, and then sees where it does.

The snippets are text without colours. The keys work while no box has the cursor; whoever draws this must draw no other button with the
keys of `KEYS` while `test_my_label` gives back True.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import streamlit as st

from app import label_form, resources, state
from app.components.heatmap import token_heatmap, token_row
from app.facts import veiled
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.labels import NOT_INTERPRETABLE, Label
from explorer.quiz import Grade, grade, scored, told_before
from explorer.snippets import KINDS, Snippet, held_out, ranks_seen

KEYS = ("Y", "N", "B")
_COLUMNS = {
    "top": "strong",
    "weak": "weak",
    "near-miss": "near miss",
    "random": "random text",
    "elsewhere": "same text",
}


@dataclass(slots=True)
class Quiz:
    """A test under way, kept in the session.

    Args:
        text: The label that is tested; another one needs another test.
        snippets: What is asked, in order; `lacking`: what to say of them.
        answers: Snippet's id -> what was said.
        grade: Once all are answered.
        trouble: Why the score could not be kept.
    """

    text: str
    snippets: tuple[Snippet, ...]
    lacking: str = ""
    answers: dict[str, bool] = field(default_factory=dict)
    grade: Grade | None = None
    trouble: ExplorerError | None = None


def test_my_label(  # no test of ours: pytest never sees this module
    cache: Cache,
    sae: str,
    feature: int,
    label: Label | None,
    *,
    seen: Collection[int] | None = None,  # noqa: PT028
) -> bool:
    """Draw the button, the question, or the result.

    Args:
        sae: Fingerprint of the SAE.
        label: What the person has said of the feature; there is no test without it.
        seen: Ranks of the examples that the label was written from; None for those that it notes itself, else those that everybody is shown.
    Returns:
        Whether a question is in view, and the keys of `KEYS` are taken.
    """
    if label is None or not label.label or label.label == NOT_INTERPRETABLE:
        return False
    key = f"quiz-{sae[:12]}-{feature}"
    now: Quiz | None = st.session_state.get(key)
    if now is None or now.text != label.label:
        st.button(
            "Test my label",
            key=f"{key}-begin",
            shortcut="T",
            icon=":material/quiz:",
            on_click=_begin,
            args=(key, cache, sae, feature, label, seen),
            help="Snippets that you have not seen: say in which of them the feature fires, by your label alone",
        )
        return False
    if not now.snippets:
        st.html(f'<p class="say words" role="status">{veiled(now.lacking)}. So this label cannot be tested here.</p>')
        return False
    if now.grade is None:
        _question(cache, key, feature, label, now)
        return True
    _result(cache, key, feature, label, now, now.grade)
    return False


def _begin(key: str, cache: Cache, sae: str, feature: int, label: Label, seen: Collection[int] | None) -> None:
    trouble: ExplorerError | None = None
    told: set[int] = set()
    try:
        told = told_before(cache, resources.scores().of(sae, feature), label_form.author())
    except ExplorerError as error:
        trouble = error
    known = ranks_seen(cache, feature, label.evidence) if seen is None else set(seen)
    found = held_out(cache, feature, seen=known, told=told)
    st.session_state[key] = Quiz(label.label, found.snippets, found.lacking, trouble=trouble)


def _answer(key: str, cache: Cache, feature: int, snippet: str, fires: bool) -> None:
    now: Quiz = st.session_state[key]
    now.answers[snippet] = fires
    if len(now.answers) == len(now.snippets):
        now.grade = grade(now.snippets, now.answers)
        _keep(key, cache, feature)


def _keep(key: str, cache: Cache, feature: int) -> None:
    now: Quiz = st.session_state[key]
    assert now.grade is not None
    now.trouble = None
    try:
        resources.scores().add(scored(cache, feature, now.text, label_form.author(), now.grade, now.answers))
    except ExplorerError as error:
        now.trouble = error


def _back(key: str) -> None:
    now: Quiz = st.session_state[key]
    if now.answers:
        now.answers.popitem()


def _stop(key: str) -> None:
    st.session_state.pop(key, None)


def _question(cache: Cache, key: str, feature: int, label: Label, now: Quiz) -> None:
    snippet = next(s for s in now.snippets if s.id not in now.answers)
    st.html(
        f'<p class="sec" role="status">Snippet {len(now.answers) + 1} of {len(now.snippets)}</p>'
        f'<p class="say words">Your label: <b>{veiled(label.label)}</b></p>'
        f'<blockquote class="quiz words">{veiled(cache.vocabulary.text(snippet.tokens))}</blockquote>'
        f'<p class="say">Does feature {feature} fire on a word of it?</p>'
    )
    with st.container(horizontal=True, gap="small"):
        for name, shortcut, fires in (("It fires", "Y", True), ("It does not", "N", False)):
            st.button(
                name,
                shortcut=shortcut,
                key=f"{key}-{shortcut}",
                on_click=_answer,
                args=(key, cache, feature, snippet.id, fires),
                width="stretch",
            )
    with st.container(horizontal=True, gap="small"):
        st.button("Back", shortcut="B", key=f"{key}-B", type="tertiary", disabled=not now.answers, on_click=_back,
                  args=(key,))  # fmt: skip
        st.button("Stop the test", key=f"{key}-stop", type="tertiary", on_click=_stop, args=(key,))
    if now.lacking:
        st.html(f'<p class="say words">{veiled(now.lacking)}.</p>')


def _result(cache: Cache, key: str, feature: int, label: Label, now: Quiz, found: Grade) -> None:
    right = found.hits + found.rejections
    kinds = " · ".join(f"{_COLUMNS[kind]} <b>{ok} of {of}</b>" for kind, (ok, of) in found.kinds.items())
    st.html(
        f'<div role="status"><p class="sec">Your label was tested</p><p class="words"><b>{veiled(label.label)}</b></p>'
        f'<p class="num">You were right about <b>{right} of {found.n}</b>: score <b>{found.score:.2f}</b> '
        f'<span class="dim">(95 % interval {found.low:.2f} to {found.high:.2f}; .5 is guessing)</span></p>'
        f'<p class="say num">Told right: {kinds}</p>'
        f'<p class="say num">{found.misses} missed, {found.false_alarms} false alarms. {_advice(found)}</p></div>'
    )
    if now.trouble:
        state.show_error(now.trouble)
        st.button("Keep the score", key=f"{key}-keep", on_click=_keep, args=(key, cache, feature))
    rows = [
        token_row(cache.vocabulary, s.tokens, s.acts, s.scored, flagged=s.flagged, group=_group(s, now.answers[s.id]))
        for s in sorted(now.snippets, key=lambda s: (now.answers[s.id] == s.fires, not s.fires))
    ]
    token_heatmap(rows, vmax=cache.feature(feature).max, window=0, blur=state.blurs(), key=f"{key}-truth")
    with st.expander("What was asked"):
        st.html("".join(f'<p class="say"><b>{_COLUMNS[kind]}</b>: {KINDS[kind]}</p>' for kind in found.kinds))
    st.button("Close the test", key=f"{key}-close", shortcut="T", on_click=_stop, args=(key,))


def _group(snippet: Snippet, said: bool) -> str:
    if said == snippet.fires:
        return "Right: it fires" if snippet.fires else "Right: it does not fire"
    return "Missed: it fires" if snippet.fires else "False alarm: it does not fire"


def _advice(found: Grade) -> str:
    """What the errors say of a label, in a sentence."""
    if found.misses > found.false_alarms:
        return "The label may be too narrow."
    if found.false_alarms > found.misses:
        return "The label may be too wide."
    return "" if found.misses else "The label says where it fires."
