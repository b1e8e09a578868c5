"""What only the browser can do: put the cursor into a box, choose by a digit, and remember a name between visits."""

import urllib.parse

import streamlit as st
from streamlit.components.v2 import component

from app.components.listening import LISTENING

NAME_COOKIE = "persona_explorer_name"

_JS = """
const focused = new WeakMap(), boxes = new WeakMap(); // the same key keeps the same parentElement, another visit has another
const typing = (e) => e && (e.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName));
export default function ({ data, parentElement }) {
  const ear = listening(parentElement);
  if (data.remember) {
    const year = 365 * 24 * 3600;
    document.cookie = `${data.cookie}=${encodeURIComponent(data.remember)}; path=/; max-age=${year}; SameSite=Strict`;
  }
  const here = new URL(location.href);
  const missing = Object.entries(data.query).filter(([key]) => !here.searchParams.has(key));
  if (missing.length) {
    for (const [key, value] of missing) here.searchParams.set(key, value);
    history.replaceState(history.state, "", here);
  }
  if (!data.box) return;
  const box = () => document.querySelector(`.st-key-${CSS.escape(data.box)} :is(input, textarea)`);
  if (data.focus !== null && boxes.get(parentElement) !== data.box) { // something else to look at: from its beginning
    boxes.set(parentElement, data.box);
    document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
  }
  if (data.focus !== null && data.focus !== focused.get(parentElement)) {
    focused.set(parentElement, data.focus);
    const until = Date.now() + 30_000; // the box may be drawn after this, on a busy machine long after
    const put = () => {
      const b = box();
      if (b) { b.focus(); b.select(); } else if (Date.now() < until) setTimeout(put, 50);
    };
    put();
  }
  const onEnter = (event) => {
    const at = document.activeElement; // a button would take it for a click of its own, and the page would not hear it
    if (!event.isTrusted || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    if (!at || at === document.body || typing(at)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    at.blur();
    const { key, code, ctrlKey, metaKey } = event;
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, code, ctrlKey, metaKey, bubbles: true }));
  };
  const onKey = (event) => {
    const active = document.activeElement;
    if (event.key === "Escape" && typing(active)) { active.blur(); return; } // leaving a box saves it
    if (event.ctrlKey || event.metaKey || event.altKey || typing(active)) return;
    if (event.key.toLowerCase() === data.shortcut) { event.preventDefault(); box()?.focus(); }
    if (!data.choices || event.repeat || !/^[1-9]$/.test(event.key)) return; // held down, a choice would come and go
    document.querySelectorAll(`.st-key-${CSS.escape(data.choices)} button`)[event.key - 1]?.click();
  };
  document.addEventListener("keydown", onEnter, { capture: true, signal: ear.signal });
  document.addEventListener("keydown", onKey, { signal: ear.signal });
  return () => ear.abort();
}
"""
_component = component("browser", html="<span></span>", js=LISTENING + _JS)


def browser(
    *,
    box: str | None = None,
    focus: int | None = None,
    shortcut: str = "e",
    choices: str | None = None,
    remember: str | None = None,
    query: dict[str, str] | None = None,
    key: str,
) -> None:
    """Draw nothing, and do in the browser what Streamlit cannot.

    Args:
        box: Key of the widget that `shortcut` puts the cursor into; Escape leaves any box.
        choices: Key of the widget whose buttons are pressed by the digits, the first by 1, while no box has the cursor.
        focus: A number that changes whenever the cursor is to go there by itself; with one, another box scrolls the
            page to its top.
        remember: A name for this browser to keep, for a year.
        query: What the URL is to say where it says nothing, without a step in the browser's history.
    """
    with st.container(key=f"{key}-place", height="content"):
        _component(
            data={
                "box": box,
                "focus": focus,
                "shortcut": shortcut,
                "choices": choices,
                "remember": remember,
                "query": query or {},
                "cookie": NAME_COOKIE,
            },
            key=key,
        )


def decoded(cookie: str) -> str:
    """The name in a cookie, on one line and of a sane length."""
    name = " ".join(urllib.parse.unquote(cookie, errors="replace").split())[:60]
    return name.replace("\0", "")
