"""What people say round a label: suggestions to accept, votes on others' words, tags, comments, lists. Drawn beside the form of a feature."""

from dataclasses import replace
from html import escape

import streamlit as st

from app import resources, state
from app.facts import markdown_text, percent, veiled
from app.label_form import author, clock
from explorer.errors import ExplorerError
from explorer.evidence_lock import confirms
from explorer.labels import Label
from explorer.lists import LONGEST_NAME, FeatureList
from explorer.remarks import LONGEST, Comment
from explorer.suggestions import Suggestion

S = st.session_state
ERROR = "remarks-error"
MOST_LISTS = 30
"""Lists that are offered; a name that is typed reaches the others."""


def past(sae: str, feature: int) -> list[Label]:
    """Every change of a feature; none where the labels cannot be read, which the form says."""
    try:
        return resources.labels().history(sae, feature)
    except ExplorerError:
        return []


def others(history: list[Label], me: str) -> list[Label]:
    """The newest word of everybody else who has one, newest first; its id is that of the first change that said it, which votes stand by.

    Whoever only confirmed what stood there has no word of their own by that.
    """
    newest: dict[str, Label] = {}
    first: dict[tuple[str, str], int | None] = {}
    for change in history:
        if change.author != me and not confirms(change):
            newest[change.author] = replace(change, id=first.setdefault((change.author, change.label), change.id))
    return sorted((c for c in newest.values() if not c.empty), key=lambda c: str(c.created_at), reverse=True)


def remarks(sae: str, feature: int, others: list[Label]) -> None:
    """Draw all of it, in a few lines that open.

    Args:
        others: The newest words of other people, which can be voted on.
    """
    key = f"{sae[:12]}-{feature}"
    try:
        store = resources.remarks()
        votes, tags, comments = (
            store.votes(sae, feature),
            store.tags(sae).get(feature, set()),
            store.comments(sae, feature),
        )
        open_ = resources.suggestions().of(sae, feature)
        lists = resources.lists().all(sae)
    except ExplorerError:  # the head of the page says why
        return
    if error := S.pop(ERROR, None):
        state.show_error(error)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if open_:
            with st.popover(f"{len(open_)} suggested", icon=":material/lightbulb:", key=f"suggested-{key}"):
                for one in open_[:6]:
                    _suggestion(one, key)
        with st.popover(f"Tags ({len(tags)})" if tags else "Tags", icon=":material/sell:", key=f"tags-{key}"):
            _tags(sae, feature, tags, key)
        called = f"Comments ({len(comments)})" if comments else "Comments"
        with st.popover(called, icon=":material/chat_bubble:", key=f"comments-{key}"):
            _comments(sae, feature, comments, key)
        kept = sum(feature in one.features for one in lists)
        with st.popover(f"Lists ({kept})" if kept else "Lists", icon=":material/bookmark:", key=f"lists-{key}"):
            _lists(sae, feature, lists, key)
        if others:
            with st.popover("Votes", icon=":material/thumbs_up_down:", key=f"votes-{key}"):
                for label in others[:12]:
                    _vote(sae, feature, label, votes.get(label.id or 0, {}), key)
    if tags:
        st.html(" ".join(f'<span class="tag plain">{escape(tag)}</span>' for tag in sorted(tags)))


def _do(work) -> None:
    try:
        work()
    except ExplorerError as error:
        S[ERROR] = error


def _suggestion(one: Suggestion, key: str) -> None:
    score = f", {percent(one.score)}" if one.score is not None else ""
    st.html(f'<p class="words"><b>{veiled(one.text)}</b> <span class="dim num">{escape(one.source)}{score}</span></p>')
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Accept", key=f"accept-{key}-{one.id}", help="It becomes your label.", on_click=_do,
            args=(lambda: resources.suggestions().accept(one, resources.labels(), author=author()),),
        )  # fmt: skip
        st.button(
            "Dismiss", key=f"dismiss-{key}-{one.id}", type="tertiary", on_click=_do,
            args=(lambda: resources.suggestions().dismiss(one, author=author()),),
        )  # fmt: skip


def _tags(sae: str, feature: int, tags: set[str], key: str) -> None:
    def add() -> None:
        said = S[f"tag-{key}"]
        if said.strip():
            _do(lambda: resources.remarks().tag(sae, feature, said, author=author()))
        S[f"tag-{key}"] = ""

    st.text_input("A tag", key=f"tag-{key}", max_chars=LONGEST["tag"], on_change=add, placeholder="Enter adds it")
    for tag in sorted(tags):
        st.button(
            markdown_text(tag), key=f"untag-{key}-{tag}", icon=":material/close:", type="tertiary", help="Take it off",
            on_click=_do, args=(lambda tag=tag: resources.remarks().tag(sae, feature, tag, author=author(), on=False),),
        )  # fmt: skip


def _lists(sae: str, feature: int, lists: list[FeatureList], key: str) -> None:
    def put(name: str) -> None:
        _do(lambda: resources.lists().add(sae, name, [feature], author=author()))

    def begin() -> None:
        if said := S[f"list-{key}"].strip():
            put(said)
        S[f"list-{key}"] = ""

    def take(name: str) -> None:
        _do(lambda: resources.lists().take_away(sae, name, [feature], author=author()))

    st.text_input(
        "A list", key=f"list-{key}", max_chars=LONGEST_NAME, on_change=begin, placeholder="Enter keeps it there"
    )
    for at, one in enumerate(lists[:MOST_LISTS]):
        held = feature in one.features
        st.button(
            markdown_text(one.name), key=f"listed-{key}-{at}", type="tertiary", args=(one.name,),
            icon=":material/bookmark_remove:" if held else ":material/bookmark_add:",
            help="Take it out" if held else "Put it in", on_click=take if held else put,
        )  # fmt: skip


def _comments(sae: str, feature: int, comments: list[Comment], key: str) -> None:
    for one in comments:
        st.html(
            f'<p class="words">{veiled(one.text)}<br><span class="dim num">{escape(one.author)} · {clock(one.created_at)}</span></p>'
        )
        if one.author == author():
            st.button(
                "Take back", key=f"uncomment-{key}-{one.id}", type="tertiary", on_click=_do,
                args=(lambda one=one: resources.remarks().take_back(sae, one, author=author()),),
            )  # fmt: skip

    def say() -> None:
        said = S[f"comment-{key}"]
        _do(lambda: resources.remarks().comment(sae, feature, said, author=author()))
        if ERROR not in S:
            S[f"comment-{key}"] = ""

    st.text_area("Say something of this feature", key=f"comment-{key}", max_chars=LONGEST["comment"], height=80)
    st.button("Comment", key=f"comment-go-{key}", on_click=say)


def _vote(sae: str, feature: int, label: Label, votes: dict[str, int], key: str) -> None:
    up, down = (sum(v == value for v in votes.values()) for value in (1, -1))
    mine = votes.get(author(), 0)
    st.html(
        f'<p class="words"><b>{veiled(label.label) or "<i>no label</i>"}</b> <span class="dim num">{escape(label.author)}: '
        f"{up} for, {down} against</span></p>"
    )
    with st.container(horizontal=True, gap="small"):
        for value, word in ((1, "For"), (-1, "Against")):
            st.button(
                word, key=f"vote-{key}-{label.id}-{value}", type="primary" if mine == value else "secondary",
                on_click=_do,
                args=(
                    lambda value=value: resources.remarks().vote(
                        sae, feature, label.id or 0, 0 if mine == value else value, author=author()
                    ),
                ),
            )  # fmt: skip
