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
a.pair { flex: none; color: light-dark(#5B6270, #9AA2B1) }
li > span { min-width: 2.6em; text-align: right }
.hidden { filter: var(--veil, blur(.3em)) } a:focus-visible .hidden { filter: none }
"""
_JS = """
const make = (tag, text) => { const el = document.createElement(tag); if (text !== undefined) el.textContent = text; return el; };
export default function ({ data, parentElement, setTriggerValue }) {
  const tell = (event, what, index) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setTriggerValue(what, index);
  };
  parentElement.querySelector("ul").replaceChildren(...data.rows.map((row) => {
    const line = make("li"), link = make("a"), name = make(row.labelled ? "span" : "i", row.name);
    if (row.blurred) { name.className = "hidden"; name.ariaHidden = "true"; }
    else link.title = row.labelled ? row.name : `${row.name} (provisional: the feature's own words)`;
    link.href = row.href; // a new tab with Ctrl or the middle button
    link.append(make("b", `#${row.index}`), " ", name);
    link.onclick = (event) => tell(event, "open", row.index);
    line.append(link);
    if (row.pair) {
      const pair = make("a", "\u21c4");
      pair.className = "pair";
      pair.href = row.pair;
      pair.title = "Side by side";
      pair.ariaLabel = `#${row.index} side by side`;
      pair.onclick = (event) => tell(event, "pair", row.index);
      line.append(pair);
    }
    line.append(make("span", row.value));
    return line;
  }));
}
"""
_component = component("feature_links", html="<ul></ul>", css=_CSS, js=_JS)


def feature_links(
    rows: Sequence[dict[str, object]],
    *,
    on_open: Callable[[int], None],
    on_pair: Callable[[int], None] | None = None,
    key: str,
) -> None:
    """Draw links to features.

    Args:
        rows: dicts `{index, name, labelled, blurred, value, href}`, and perhaps `pair`, where it stands beside another.
        on_open: Called with a feature's index.
        on_pair: Called with the index of the one to put beside; needed where rows have `pair`.
    """

    def opened() -> None:
        if (index := st.session_state[key].open) is not None:
            on_open(int(index))

    def paired() -> None:
        if on_pair and (index := st.session_state[key].pair) is not None:
            on_pair(int(index))

    _component(data={"rows": list(rows)}, key=key, on_open_change=opened, on_pair_change=paired)
