"""Keys of a presentation: arrows, a clicker's Page keys and B are counted, and Escape inside a box only leaves the box.

A count is kept by the browser and sent whole, so that a key still counts where the script that its press started was
overtaken by the next one, or two presses came in one request; of a button's presses one would be lost.
"""

import streamlit as st
from streamlit.components.v2 import component

from app.components.listening import LISTENING

_JS = """
const typing = (e) => e && (e.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName));
const MOVES = { PageDown: 1, PageUp: -1, ArrowRight: 1, ArrowLeft: -1 };
const NAME = Math.random().toString(36).slice(2); // another page load counts anew
let moves = 0, blanks = 0;
export default function ({ parentElement, setStateValue }) {
  const ear = listening(parentElement);
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.isTrusted) return;
    const active = document.activeElement, key = event.key;
    if (key === "Escape" && typing(active)) { // out of the box, not out of the presentation
      event.stopImmediatePropagation();
      active.blur();
      return;
    }
    const by = MOVES[key] ?? 0, blank = key.toLowerCase() === "b";
    if (!(by || blank) || (typing(active) && !key.startsWith("Page"))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.repeat) return;
    moves += by;
    blanks += blank ? 1 : 0;
    setStateValue("presses", `${NAME} ${moves} ${blanks}`);
  };
  window.addEventListener("keydown", onKey, { capture: true, signal: ear.signal });
  return () => ear.abort();
}
"""
_component = component("clicker", html="<span></span>", js=LISTENING + _JS)


def clicker(key: str = "clicker") -> str:
    """Draw nothing, and listen.

    Returns:
        What `Talk.hear` takes; "" before the first key.
    """
    with st.container(key=f"{key}-browser-place", height="content"):
        said = _component(data={}, key=key, on_presses_change=lambda: None)
    return str(said.get("presses") or "")
