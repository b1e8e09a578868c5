"""Which trait answers are judged for: one choice that the dose strips and the controls share."""

import streamlit as st

from app.facts import markdown_text
from explorer.errors import ExplorerError
from explorer.judging import judges

S = st.session_state
CHOSEN, USUAL = "bench-trait", "malice"


def trait_labels() -> dict[str, str]:
    """Judge -> label, of the traits: those that come with the program, then those that were taught; none if they cannot be read."""
    try:
        return {
            name: judge.label for name, judge in judges().items() if judge.needs == "embedder" and name != "fluency"
        }
    except ExplorerError:
        return {}


def chosen_trait() -> str:
    """The trait in force; "" where there is none at all."""
    known = trait_labels()
    chosen = S.get(CHOSEN, USUAL)
    return chosen if chosen in known else next(iter(known), "")


def trait_picker(key: str) -> str:
    """Draw the choice.

    Args:
        key: Of this widget; every one shows and changes the same choice.
    Returns:
        The trait.
    """
    known, now = trait_labels(), chosen_trait()

    def take() -> None:
        S[CHOSEN] = S[key]

    if known:
        S[key] = now
        st.selectbox(
            "Trait", list(known), key=key, format_func=lambda name: markdown_text(known.get(name) or str(name), 30), on_change=take,
            label_visibility="collapsed", width=150, help="What the answers are judged for",
        )  # fmt: skip
    return now
