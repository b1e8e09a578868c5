"""Keep what was found as a list of features: the button that a ranking has, and what came of it."""

from collections.abc import Sequence
from html import escape

import streamlit as st

from app import resources, state
from app.label_form import author
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.lists import LONGEST_NAME

S = st.session_state


def keep_button(cache: Cache, features: Sequence[int], key: str) -> None:
    """A name, and a button that puts the features into the list of that name, behind those that are there.

    Args:
        key: Begins the keys of its widgets.
    """
    with st.popover("Keep as a list", key=f"{key}-keep"):
        st.text_input("Name of the list", key=f"{key}-list", max_chars=LONGEST_NAME)
        st.button("Keep", key=f"{key}-keep-go", on_click=_keep, args=(cache, tuple(features), key))


def kept(key: str) -> None:
    """What came of the last press, once."""
    said = S.pop(f"{key}-kept", None)
    if isinstance(said, ExplorerError):
        state.show_error(said)
    elif said:
        st.html(f'<p class="say" role="status">{escape(said)}</p>')


def _keep(cache: Cache, features: tuple[int, ...], key: str) -> None:
    sae, name = cache.manifest.sae_fingerprint, S.get(f"{key}-list") or ""
    try:
        made = resources.lists().add(sae, name, features, author=author())
        S[f"{key}-kept"] = f"The list {made.name} has {len(made.features):,} features now."
    except ExplorerError as error:
        S[f"{key}-kept"] = error
