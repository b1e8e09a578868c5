"""Buttons that copy: a link, a vector, a reference. What is long is fetched from the server when the button is pressed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_component = component(
    "copier",
    html='<div class="copier"></div>',
    css=(_HERE / "copier.css").read_text(encoding="utf-8"),
    js=(_HERE / "copier.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class Copy:
    """One button.

    Args:
        name: What it copies, for its label: "link".
        text: The text; `{page}` in it stands for the address of the page as the browser has it.
        url: Where the text comes from instead, an address of this server that answers JSON.
        field: The part of that JSON that is copied.
        help: What is copied, in a few words.
    """

    name: str
    text: str = ""
    url: str = ""
    field: str = ""
    help: str = ""


def copier(copies: Sequence[Copy], *, key: str) -> None:
    """Draw the buttons; a browser without a clipboard (plain http from another machine) gets the text selected in a box."""
    rows = [{"name": c.name, "text": c.text, "url": c.url, "field": c.field, "help": c.help} for c in copies]
    with st.container(key=f"{key}-place", width="content"):
        _component(data={"copies": rows}, key=key)
