"""Keys of the whole app: `/` to the search box, `?` for the key sheet, Escape out of a box."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from app.components.listening import LISTENING

_HERE = Path(__file__).parent
_component = component(
    "commands",
    html='<dialog aria-label="Keys" tabindex="-1"></dialog>',
    css=(_HERE / "commands.css").read_text(encoding="utf-8"),
    js=LISTENING + (_HERE / "commands.js").read_text(encoding="utf-8"),
)

COMMON = [("/", "search"), ("?", "this sheet"), ("Esc", "leave a box")]


def commands(
    keys: list[tuple[str, list[tuple[str, str]]]],
    *,
    about: str,
    search: bool,
    query: dict[str, str],
    on_search: Callable[[], None],
) -> None:
    """Listen for the common keys; draws nothing until `?`.

    Args:
        keys: (title, [(key, what it does)]) of this page, for the sheet.
        about: What this page is for, at the head of the sheet.
        search: Whether this page has a search box; if not, `/` calls `on_search`.
        query: What the URL is to say besides; put there without a step in the browser's history, which Python cannot.
    """
    with st.container(key="commands-place"):
        _component(
            data={"keys": [*keys, ("Everywhere", COMMON)], "about": about, "search": search, "query": query},
            key="commands",
            on_search_change=on_search,
        )
