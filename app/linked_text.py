"""A text of one's own in the link: Inspect and Feature read one, and take the one that a link brings."""

import streamlit as st

from app import state

LONGEST, LINKED = 20_000, 1_500
"""Characters of a text, and of one that a link holds."""
_TEXT, _AS = "text", "as"


def brought(key: str) -> tuple[str, bool] | None:
    """The text that a link brings, and whether it is a chat; once an arrival, then and without a text None.

    Args:
        key: Session key of the last arrival at the page.
    """
    if st.session_state.get(key) == state.arrival():
        return None
    st.session_state[key] = state.arrival()
    text = st.query_params.get(_TEXT, "")[:LONGEST]
    return (text, st.query_params.get(_AS) == "chat") if text.strip() else None


def tell(text: str, *, chat: bool) -> None:
    """Let the link say the text, where it fits into one, and whether it is a chat."""
    for key, value in ((_TEXT, text if len(text) <= LINKED else ""), (_AS, "chat" if chat else "")):
        if value:
            st.query_params[key] = value
        else:
            st.query_params.pop(key, None)
