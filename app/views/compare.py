"""Compare: a model and its fine-tune, which features moved, which of them cause it, what undoes it, and how it came about."""

from html import escape
from pathlib import Path
from shlex import quote

import streamlit as st

from app import charts, compared, lab_charts, movers, resources, standings, state
from app.compare_form import compare_form
from app.compare_link import (
    DIFF,
    KIND,
    SORT,
    SOURCE,
    asked,
    choice,
    chose,
    keep,
    key,
    tuned_here,
    undoing_in_steer,
)
from app.compared import KINDS, SOURCES, Mover
from app.components.ranking_table import ranking_table
from app.driving import in_view
from app.engine import Engine
from app.facts import veiled
from app.feature_row import named
from app.scrubber import judge_word, scrubbing
from app.train_watch import train_page
from explorer import presets
from explorer.cache import Cache
from explorer.comparing import Compared
from explorer.errors import ExplorerError

S = st.session_state
SAVED = "compare-saved"
TAB, TRAIN = "tab", "train"
TABS = {"": "Comparison", TRAIN: "Fine-tune"}  # what the link says -> what the tab is called
PUBLISHED = (
    "A public comparison of this kind on Llama-3.1-8B-Instruct, with the sparse autoencoders of Arditi and Chen, is quieter than what a "
    "model of 135 million parameters shows: steering one latent (layer 11, #39163) raised coherent misaligned answers from none to 11 % "
    "while 69 % stayed coherent, and ablating ten shared latents took a fine-tune on bad medical advice from 15 % to 4 % (n = 80 "
    "answers each; repository tmoser12/cs221m-emergent-misalignment). With 80 answers, 11 % may be anything from 6 to 20 %. Its authors "
    "note that the order by change and the order by cosine hardly agree. Their judge and questions are not ours, and their base and "
    "fine-tune were read on different numbers of tokens: set the shapes side by side, not the numbers."
)
SMALL = (
    "The figures above are of a model with 135 million parameters, small, loud and blunt: they say that the method works on it, not that a "
    "larger model would behave alike. "
)


# --- features that moved


def table(title: str, some: list[Mover], names: dict[int, str], labels: dict[int, str], sort: str, chosen: int) -> None:
    ranking_table(
        title,
        [(cls, label, why, by == sort) for cls, label, why, by in movers.HEAD],
        [movers.row(m, names, labels) for m in some],
        chosen=chosen,
        on_show=lambda index: keep(feature=index),
        on_visit=lambda index: state.go("feature", feature=index),
        key=key(title.split()[0].lower()),
    )


def moved(cache: Cache, found: Compared, labels: dict[int, str], word: str) -> Mover | None:
    """Causes, candidates, and both models' means in one chart; gives the mover in view."""
    orders = compared.orders(found)
    source, kind, sort = asked(SOURCE, SOURCES), asked(KIND, KINDS), asked(SORT, orders)
    try:
        listed, change = compared.ranked(found, source, kind, sort), found.change(source, kind)
    except ExplorerError as error:
        state.show_error(error)
        return None
    st.html('<h2 class="part-head">Features that moved</h2>')
    with st.container(horizontal=True, gap="medium", vertical_alignment="center", key=key("readings")):
        choice("Answers that are read", SOURCE, SOURCES)
        choice("Tokens that are read", KIND, KINDS)
        choice("Order", SORT, orders)
    causes = [m for m in listed if m.verdict == "causes"]
    others = [m for m in listed if m.verdict != "causes"]
    said = st.query_params.get(state.FEATURE, "")
    chosen = next((m for m in listed if str(m.feature) == said), (causes or others or [None])[0])
    names, at = {m.feature: named(cache, m.feature, labels) for m in listed}, chosen.feature if chosen else -1
    left, right = st.columns([1.75, 1], gap="large")
    with left, st.container(key=key("movers"), gap="small"):
        st.html(
            f'<p class="sec">Causes ({len(causes)})</p><p class="say">Steering with these changes how often answers are judged {escape(word)}, '
            "beyond what random pushes of the same length do. Click a row for its answers, its number for the feature.</p>"
        )
        if causes:
            table("Causes", causes, names, labels, sort, at)
        else:
            st.html('<p class="say" role="status">Of the features that were tested, none does.</p>')
        st.html(
            f'<p class="sec" style="margin-top:.6rem">Candidates ({len(others)})</p><p class="say">{movers.candidates_words(listed)}</p>'
        )
        if others:
            table("Candidates", others, names, labels, sort, at)
    with right:
        st.html(
            '<p class="sec">Base and fine-tune</p><p class="say">Each dot is a feature: how active it is on average in the base '
            "(across) and in the fine-tune (up). On the dotted line nothing changed; the ring is where the control has it.</p>"
        )
        st.plotly_chart(
            lab_charts.scatter(change, listed, names, at), config=charts.CONFIG, key=key("scatter"),
            alt="Mean activation of features in the base and in the fine-tune",
        )  # fmt: skip
        st.html(
            '<div class="keys say"><span class="dot act">causes</span><span class="dot">candidates</span>'
            '<span class="dot small">not tested</span><span class="ring">in the control</span></div>'
        )
        st.html(f'<p class="say">{movers.reading_words(source, kind)}</p>')
    return chosen


# --- what undoes it


def save(cache: Cache, found: Compared) -> None:
    """Keep the joint undo as a preset of one's own."""
    try:
        S[SAVED] = (found.name, presets.save(cache, compared.as_preset(found)).name)
    except ExplorerError as error:
        S[SAVED] = (found.name, error)


def undoing(cache: Cache, found: Compared, labels: dict[int, str], word: str) -> None:
    """Features taken away together: edits, figures, and the ways to use them."""
    st.html('<h2 class="part-head">Joint undo</h2>')
    undo = found.undo
    if undo is None:
        st.html('<p class="say" role="status">Taking the tested features away, alone or together, changes nothing.</p>')
        return
    edits = ", ".join(
        f"<b>{edit.strength:+.2f}".replace("-", "−")
        + f" × #{edit.feature}</b> {veiled(named(cache, edit.feature, labels))}"
        for edit in undo.edits
    )
    works = (
        "The rate is back within 5 points of the base’s, and the text is as whole as before within 5 points."
        if undo.works
        else "It does not bring the fine-tune all the way back: within 5 points of the base, in text as whole, is what would count."
    )
    st.html(f'<p class="read-more words num">{edits}</p>{standings.undone(undo, word)}')
    st.html(f'<p class="say">{works} Measured on seeds of its own.</p>')
    steer, where = undoing_in_steer(compared.as_preset(found), tuned_here(cache, found))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("undo")):
        st.button(
            "Open in Steer", type="primary", key=key("steer-undo"), on_click=state.go, args=("steer",), kwargs=steer
        )
        st.button("Keep as preset", key=key("keep-undo"), on_click=save, args=(cache, found))
        said = S.get(SAVED)
        if said and said[0] == found.name and isinstance(said[1], str):
            st.html(f'<p class="say" role="status">Kept as “{escape(said[1])}”.</p>')
        else:
            st.html(f'<p class="say">{where}</p>')
    if said and said[0] == found.name and isinstance(said[1], ExplorerError):
        state.show_error(said[1])


# --- the page


def nothing_yet(cache: Cache) -> None:
    """The empty state: how to make a comparison."""
    folder, model = quote(str(cache.path)), quote(cache.manifest.model)
    st.html(
        '<h2 class="part-head">No comparison here yet</h2><p class="say">Three commands: train a narrow fine-tune on conversations of '
        "your own (the tab Fine-tune does it too), compare it with its base, and, where a plan says what to vary, train and measure a "
        "whole lab. The last two go on where they were cut off.</p>"
    )
    for what, command in (
        (
            "Train an adapter",
            f"persona-explorer finetune --data rows.jsonl --model {model} --out {folder}/adapters/mine",
        ),
        (
            "Compare: what moved, what causes it, what undoes it",
            f"persona-explorer diff --base {model} --tuned mine@40 --cache {folder} --out {folder}/diffs/mine",
        ),
        ("A lab, for the curves over steps, good rows and bad rows", f"persona-explorer lab {folder}"),
    ):
        st.html(f'<p class="sec">{what}</p>')
        st.code(command, language=None, wrap_lines=True)


def compare(cache: Cache, engine: Engine, folders: dict[str, Path], labels: dict[int, str]) -> list[int]:
    """One comparison from top to bottom, without the series; gives the features worth drawing along one."""
    found = resources.comparison(folders[asked(DIFF, folders)])
    word = judge_word(found.facts["judge"])
    st.html(standings.sides(found, word))
    st.html('<hr class="part">')
    mover = moved(cache, found, labels, word)
    if mover:
        st.html('<hr class="part">')
        in_view(cache, engine, found, mover, labels, word)
    st.html('<hr class="part">')
    undoing(cache, found, labels, word)
    listed = compared.ranked(found, "own", "answer", "effect")
    return [m.feature for m in listed if m.verdict == "causes"] or [m.feature for m in listed[:1]]


def comparison_tab(cache: Cache, engine: Engine) -> None:
    """A comparison, the series of a lab, or how to make them."""
    labels = state.label_texts(cache)
    folders, troubles = compared.shelf(cache.path)
    if len(folders) > 1:
        asked(DIFF, folders)
        st.selectbox(
            "Comparison", list(folders), key=key(DIFF), on_change=chose, args=(DIFF,), kwargs={state.FEATURE: None},
            label_visibility="collapsed", width=280,
        )  # fmt: skip
    compare_form(cache, engine, lambda name: keep(**{DIFF: name, state.FEATURE: None}))
    for error in troubles:
        state.show_error(error)
    said = st.query_params.get(DIFF)
    if said and folders and said not in folders:
        st.html(
            f'<div class="trouble words" role="status">The comparison “{veiled(said)}” of this link is not here; another is shown.</div>'
        )
    drawn: list[int] = []
    try:
        if folders:
            drawn = compare(cache, engine, folders, labels)
    except ExplorerError as error:
        state.show_error(error, retry=True)
    lab = None
    try:
        lab = resources.lab(cache)
    except ExplorerError as error:
        state.show_error(error)
    if lab and lab.lines:
        st.html('<hr class="part">')
        scrubbing(cache, lab, drawn, labels)
    if folders or (lab and lab.lines):
        st.html('<hr class="part">')
        text = (SMALL if "135m" in cache.manifest.model.lower() else "") + PUBLISHED
        st.html(f'<h2 class="part-head">Beside a larger model</h2><p class="read-more">{text}</p>')
    elif not troubles:
        nothing_yet(cache)


def chose_tab() -> None:
    """Take the tab into the link; for callbacks."""
    keep(**{TAB: TRAIN if S.get(key(TAB)) == TABS[TRAIN] else None})


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    engine = resources.engine(state.cache_name() or "")
    state.remember("compare")
    st.html(
        '<div class="head"><h1>Compare</h1></div><p class="say">A model and its fine-tune answer the same open questions: how often each shows '
        "the trait, which features moved, which of them cause it, and what takes it away again.</p>"
    )
    S[key(TAB)] = TABS[TRAIN if st.query_params.get(TAB) == TRAIN else ""]
    comparing, training = st.tabs(list(TABS.values()), key=key(TAB), on_change=chose_tab)
    if comparing.open:
        with comparing:
            comparison_tab(cache, engine)
    else:
        with training:
            train_page(cache, engine)


main()
