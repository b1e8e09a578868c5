"""Compare: a model and its fine-tune, which features moved, which of them cause it, what undoes it, and how it came about."""

from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

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
    names_of,
    taking_away,
    tuned_here,
    undoing_in_steer,
)
from app.compared import KINDS, SOURCES, VERDICTS, Mover
from app.components.heatmap import token_heatmap, token_row
from app.components.ranking_table import ranking_table
from app.engine import Engine
from app.facts import veiled
from app.scrubber import judge_word, scrubbing
from app.train_watch import train_page
from app.watched import still_loading
from explorer import presets
from explorer.cache import Cache
from explorer.comparing import Compared
from explorer.errors import ExplorerError

S = st.session_state
READ, SAVED = "compare-read", "compare-saved"
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
    names, at = names_of(cache, [m.feature for m in listed], labels), chosen.feature if chosen else -1
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


# --- one feature, and its answers


def in_view(cache: Cache, engine: Engine, found: Compared, mover: Mover, labels: dict[int, str], word: str) -> None:
    """The feature that was clicked: the fine-tune's answers that drive it, each below the base's to the same question."""
    name = names_of(cache, [mover.feature], labels).get(mover.feature, "no words of its own")
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
                waits = engine.state == "loading"
                st.fragment(tokens, run_every=1.0 if waits else None)(cache, engine, found, mover, tuned, base, waits)


def tokens(
    cache: Cache, engine: Engine, found: Compared, mover: Mover, tuned: dict, base: dict | None, waited: bool
) -> None:
    """The two answers token by token, as the base model reads them; where it is not loaded, a button that loads it."""
    if still_loading(engine, waited, "the tokens come by themselves"):
        return
    if engine.state == "failed" and engine.error:
        state.show_error(engine.error)
    if engine.state != "ready":
        st.html('<p class="say">Token by token this needs the model.</p>')
        if st.button("Load the model and colour the tokens", key=key("load")):
            engine.start()
            st.rerun()
        return
    if found.facts["sae_fingerprint"] != cache.manifest.sae_fingerprint:
        st.html('<p class="say" role="status">The comparison was read with another autoencoder than this cache’s.</p>')
        return
    mark = (found.name, mover.feature, tuned["number"])
    if (known := S.get(READ)) is None or known[0] != mark:
        try:
            known = (
                mark,
                [(who, read(engine, one, mover.feature)) for who, one in (("Base", base), ("Fine-tune", tuned)) if one],
            )
        except ExplorerError as error:
            state.show_error(error)
            return
        S[READ] = known
    rows = [token_row(cache.vocabulary, r.tokens, r.acts, r.scored, group=who) for who, r in known[1]]
    highest = cache.feature(mover.feature).max or max((max(r.acts, default=0.0) for _, r in known[1]), default=0.0)
    st.html(
        '<p class="say">Where it fires. The base model reads both texts here, so that only what was written differs; '
        "the means on the left are of the fine-tune reading its own.</p>"
    )
    token_heatmap(rows, vmax=highest or 1.0, window=0, blur=state.blurs(), key=key("heatmap"))


def read(engine: Engine, said: dict, feature: int) -> Any:
    """Activations of a feature on a question with its answer."""
    if not engine.has_template:
        return engine.activations(said["question"] + said["text"], feature)
    asked = {"role": "user", "content": said["question"]}
    return engine.activations([asked, {"role": "assistant", "content": said["text"]}], feature)


# --- what undoes it


def save(cache: Cache, found: Compared) -> None:
    """Keep the joint undo as a preset of one's own."""
    try:
        S[SAVED] = (found.name, presets.save(cache, compared.as_preset(found)).name)
    except ExplorerError as error:
        S[SAVED] = (found.name, error)


def undoing(cache: Cache, found: Compared, names: dict[int, str], word: str) -> None:
    """Features taken away together: edits, figures, and the ways to use them."""
    st.html('<h2 class="part-head">Joint undo</h2>')
    undo = found.undo
    if undo is None:
        st.html('<p class="say" role="status">Taking the tested features away, alone or together, changes nothing.</p>')
        return
    edits = ", ".join(
        f"<b>{edit.strength:+.2f}".replace("-", "−") + f" × #{edit.feature}</b> {veiled(names.get(edit.feature, ''))}"
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
    edited = [edit.feature for edit in found.undo.edits] if found.undo else []
    undoing(cache, found, names_of(cache, edited, labels), word)
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
