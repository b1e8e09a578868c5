"""A short list of features, each with a number, that opens one in place."""

from collections.abc import Callable, Sequence

import streamlit as st
from streamlit.components.v2 import component

_CSS = """
ul { list-style: none; margin: 0; padding: 0; font: 400 .93rem/1.65 var(--st-font); color: var(--st-text-color) }
li { display: flex; gap: .6rem; border-bottom: 1px solid light-dark(#E7EAEF, #282C35); font-variant-numeric: tabular-nums }
a { color: inherit; text-decoration: none; flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
a:hover { color: var(--st-primary-color); text-decoration: underline }
a:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: -2px; border-radius: 3px }
b, i { font-weight: 400; font-style: normal; color: light-dark(#5B6270, #9AA2B1) } b { display: inline-block; min-width: 3.1em }
.hidden { filter: var(--veil, blur(.3em)) } a:focus-visible .hidden { filter: none }
"""
_JS = """
const make = (tag, text) => { const el = document.createElement(tag); if (text !== undefined) el.textContent = text; return el; };
export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector("ul").replaceChildren(...data.rows.map((row) => {
    const line = make("li"), link = make("a"), name = make(row.labelled ? "span" : "i", row.name);
    if (row.blurred) { name.className = "hidden"; name.ariaHidden = "true"; }
    else link.title = row.labelled ? row.name : `${row.name} (provisional: the feature's own words)`;
    link.href = row.href; // a new tab with Ctrl or the middle button
    link.append(make("b", `#${row.index}`), " ", name);
    link.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      setTriggerValue("open", row.index);
    };
    line.append(link, make("span", row.value));
    return line;
  }));
}
"""
_component = component("feature_links", html="<ul></ul>", css=_CSS, js=_JS)


def feature_links(rows: Sequence[dict[str, object]], *, on_open: Callable[[int], None], key: str) -> None:
    """Draw links to features.

    Args:
        rows: dicts `{index, name, labelled, blurred, value, href}`.
        on_open: Called with a feature's index.
    """

    def opened() -> None:
        if (index := st.session_state[key].open) is not None:
            on_open(int(index))

    _component(data={"rows": list(rows)}, key=key, on_open_change=opened)
