"""Teach a trait: sentences that show it and sentences that do not, pasted or labelled one by one, make a judge."""

import re
from collections.abc import Callable

import streamlit as st

from app import state
from app.facts import veiled
from explorer.errors import ExplorerError
from explorer.traits import FEWEST, Trait, save_trait

S = st.session_state
NAME, YES, NO, PILE, DONE = (
    "teach-name",
    "teach-yes",
    "teach-no",
    "teach-pile",
    "teach-done",
)
ERROR, SAVED = "teach-error", "teach-saved"
LONGEST_SENTENCE, MOST_SENTENCES = 400, 2000


def sentences(text: str) -> tuple[str, ...]:
    """The sentences in a text, one a line, each once."""
    cut = (" ".join(line.split())[:LONGEST_SENTENCE] for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in cut if line))[:MOST_SENTENCES]


def name_of(title: str) -> str:
    """What a trait is called in files and links: "Talks of food!" is talks-of-food."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-")[:40]


def waiting() -> tuple[str, ...]:
    """What is on the pile and has no label yet."""
    known = {*sentences(S.get(YES, "")), *sentences(S.get(NO, "")), *S.get(DONE, ())}
    return tuple(line for line in sentences(S.get(PILE, "")) if line not in known)


def teach(on_taught: Callable[[Trait], None]) -> None:
    """Draw the form.

    Args:
        on_taught: Called, in a callback, with a trait that has just been saved.
    """
    st.html(
        '<p class="sec">Teach a trait</p><p class="say">Give sentences that show it and sentences of the same kind that do '
        "not. A judge is fitted on them; how often it errs on sentences that it was not shown stands in the table at once. "
        f"At least {FEWEST} of each; thirty make a usable judge.</p>"
    )
    st.text_input("Name of the trait", key=NAME, max_chars=40, placeholder="Talks of food")
    left, right = st.columns(2)
    for box, name, label in ((left, YES, "Sentences that show it"), (right, NO, "Sentences that do not")):
        box.text_area(f"{label}, one a line", key=name, height=150)
        box.html(f'<p class="say num">{len(sentences(S.get(name, "")))} sentences</p>')
    with st.expander("One by one: paste a pile, answer with Y and N"):
        _one_by_one()
    st.button("Teach this trait", type="primary", key="teach-go", on_click=_teach, args=(on_taught,))
    if error := S.get(ERROR):
        state.show_error(error)
    elif saved := S.get(SAVED):
        st.html(f'<p class="say" role="status">“{veiled(saved)}” is a judge now, wherever a trait is chosen.</p>')


def _one_by_one() -> None:
    st.text_area("The pile, one sentence a line", key=PILE, height=90)
    pile = waiting()
    shown = veiled(pile[0]) if pile else "The pile is empty."
    st.html(f'<div class="pile words" role="status">{shown}</div>')
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for label, key, where in (("Shows it", "Y", YES), ("Does not", "N", NO), ("Skip", None, None)):
            st.button(
                label,
                shortcut=key,
                key=f"teach-key-{key or label}",
                disabled=not pile,
                on_click=_label,
                args=(pile[:1], where),
            )
        st.html(f'<p class="say num">{len(pile)} left</p>', width="content")


def _label(pile: tuple[str, ...], where: str | None) -> None:
    for line in pile:
        S[DONE] = (*S.get(DONE, ()), line)
        if where:
            S[where] = f"{S.get(where, '').rstrip()}\n{line}".strip()


def _teach(on_taught: Callable[[Trait], None]) -> None:
    title = " ".join(S.get(NAME, "").split())
    S[ERROR] = S[SAVED] = None
    try:
        trait = Trait.taught(name_of(title), sentences(S.get(YES, "")), sentences(S.get(NO, "")))
        save_trait(trait)
    except ExplorerError as error:
        S[ERROR] = error
        return
    S[SAVED] = title
    on_taught(trait)
