"""Keys of a presentation that Streamlit's shortcuts miss: a clicker's Page keys, and Escape inside a box."""

import streamlit as st
from streamlit.components.v2 import component

_JS = """
const typing = (e) => e && (e.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName));
const SENT = { PageDown: "ArrowRight", PageUp: "ArrowLeft" };
export default function () {
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.isTrusted) return;
    const active = document.activeElement;
    if (event.key === "Escape" && typing(active)) { // out of the box, not out of the presentation
      event.stopImmediatePropagation();
      active.blur();
    } else if (SENT[event.key]) {
      event.preventDefault();
      event.stopImmediatePropagation();
      const key = SENT[event.key];
      for (const type of ["keydown", "keyup"]) // without the second it would count as held down
        document.body.dispatchEvent(new KeyboardEvent(type, { key, code: key, bubbles: true }));
    }
  };
  window.addEventListener("keydown", onKey, true);
  return () => window.removeEventListener("keydown", onKey, true);
}
"""
_component = component("clicker", html="<span></span>", js=_JS)


def clicker(key: str = "clicker") -> None:
    """Draw nothing; Page Down and Page Up are Right and Left, and Escape in a box only leaves the box."""
    with st.container(key=f"{key}-browser-place", height="content"):
        _component(data={}, key=key)
