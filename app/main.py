"""Persona Explorer in the browser: the frame around every page. Start it with `persona-explorer app`."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from app import resources, state
from app.components.commands import commands
from explorer.errors import ExplorerError

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the app.

    Args:
        title: Its name in the top bar.
        url: Its path; the first page answers at "/" only.
        keys: (key, what it does), for the key sheet.
        search: Whether it has a search box, which `/` goes to.
    """

    title: str
    url: str
    keys: tuple[tuple[str, str], ...] = ()
    search: bool = False

    @property
    def view(self) -> Path:
        return HERE / "views" / f"{self.url}.py"


_STEPS = (("J", "next feature"), ("K", "previous feature"), ("X", "random feature"))
_TOKENS = (("↑ ↓", "example"), ("← →", "token"), ("Enter", "pin the token"), ("Space", "whole window"), ("Y", "copy"))
_LABELS = (("J K", "next, previous"), ("N", "not interpretable"), ("U", "undo"), ("E", "edit the label"))
_ROWS = (("↑ ↓", "row"), ("Enter", "open the feature"), ("J K", "next, previous page"), ("X", "random feature"))
_REVIEW = (("A", "agree"), ("D", "disagree"), ("U", "undo"), ("J K", "next, previous message"))
PAGES = (
    Page("Overview", "overview", (("X", "random feature"),)),
    Page("Browse", "browse", _ROWS, search=True),
    Page("Feature", "feature", (*_STEPS, ("S", "steer with it"), *_TOKENS)),
    Page("Steer", "steer", (("Ctrl+Enter", "run"), ("Esc", "stop"), ("1 2 3 4", "strength presets"))),
    Page("Sweep", "sweep", (("Ctrl+Enter", "run"),)),
    Page("Compare", "compare", (("↑ ↓", "feature"), ("Enter", "its answers"))),
    Page("Monitor", "monitor", _REVIEW),
    Page("Judges", "judges", (("Y", "the sentence shows the trait"), ("N", "it does not"))),
    Page("Label", "label", (("Ctrl+Enter", "save and next"), *_LABELS)),
    Page("Present", "present", (("→", "next"), ("←", "back"), ("B", "blank"), ("Esc", "leave"))),
)


def navigation() -> dict[str, st.Page]:
    """Url -> Streamlit's page, for the pages whose view exists."""
    return {
        page.url: st.Page(page.view, title=page.title, url_path=page.url, default=page is PAGES[0])
        for page in PAGES
        if page.view.is_file()
    }


def main() -> None:
    """Draw the frame, then the page; warm the model up once the page is out."""
    st.set_page_config(page_title="Persona Explorer", page_icon=str(HERE / "static" / "icon.svg"), layout="wide")
    st.html(f"<style>{(HERE / 'style.css').read_text(encoding='utf-8')}</style>")
    st.logo(HERE / "static" / "logo.svg", size="medium")
    pages = navigation()
    chosen = st.navigation(list(pages.values()), position="top")
    state.carried()
    state.pin()
    if wanted := state.wanted_page():
        _go(pages, *wanted)
    page = next((p for p in PAGES if p.url == chosen.url_path), PAGES[0])
    _come_back(pages, page.url)
    st.session_state["_blur_drawn"] = state.blurs()
    if not state.blurs():
        st.html("<style>[data-testid='stApp'] { --veil: none; --veil-select: auto }</style>")
    topbar()
    pinned = {state.CACHE: name} if (name := state.pinned_cache()) else {}
    commands([(page.title, list(page.keys))], search=page.search, query=pinned, on_search=lambda: state.go("browse"))
    try:
        chosen.run()
    except ExplorerError as error:
        state.show_error(error, retry=True)
    finally:
        warm_up()


def _go(pages: dict[str, st.Page], url: str, query: Mapping[str, str | list[str]]) -> None:
    if url in pages:
        state.arrive()
        if name := state.pinned_cache():
            query = {state.CACHE: name, **query}
        st.switch_page(pages[url], query_params=state.unbound(query))


def _come_back(pages: dict[str, st.Page], url: str) -> None:
    """A page that is entered without a query is found as it was left, if it asked for that (`state.remember`)."""
    entered = st.session_state.get("_page") != url
    if entered or state.through_history():
        state.arrive()
    st.session_state["_page"] = url
    query = state.remembered(url)
    if entered and query and not set(st.query_params) - {state.CACHE}:
        _go(pages, url, query)


def topbar() -> None:
    """Model status, cache picker and settings, inside Streamlit's top bar."""
    name = state.cache_name()
    if name is None:
        return
    known = list(resources.caches())
    with st.container(key="topbar", horizontal=True, vertical_alignment="center"):
        if len(known) > 1:

            def pick() -> None:
                state.choose_cache(st.session_state["pick-cache"])

            st.session_state["pick-cache"] = name
            st.selectbox("Feature cache", known, key="pick-cache", on_change=pick, label_visibility="collapsed")
        _status(name)


def _status(name: str) -> None:
    try:
        engine = resources.engine(name)
    except ExplorerError:
        return  # the page itself says what is wrong with the cache
    busy = engine.busy
    st.fragment(_draw_status, run_every=1.5 if busy else None)(name, busy)


def _draw_status(name: str, polled: bool) -> None:
    engine = resources.engine(name)
    if engine.busy != polled:
        st.rerun()  # once: the clock starts or stops, and the page hears of it
    words = {
        "cold": "model not loaded",
        "loading": "model warming up…",
        "ready": "model ready",
        "failed": "model could not be loaded",
        "closed": "model not loaded",
    }
    mark = "loading" if engine.busy else engine.state
    said = escape(words[mark])
    place = st.container(horizontal=True, vertical_alignment="center", gap="small", width="content")
    place.html(
        f'<div class="status {mark}" role="status" title="{said}"><i></i><span>{said}</span></div>',
        width="content",
    )
    with place.popover("", icon=":material/settings:", type="tertiary", key="settings"):
        _settings(name)


def _settings(name: str) -> None:
    engine = resources.engine(name)
    manifest = engine.cache.manifest
    st.html(f'<p class="sec">Model of this cache</p><div class="words">{escape(manifest.model)}</div>')
    if engine.error:
        state.show_error(engine.error)

    def switch() -> None:
        engine.warmup = st.session_state["warmup"]
        engine.warm_up()

    st.session_state["warmup"] = engine.warmup  # another session may have switched it
    st.toggle(
        "Load it in the background", key="warmup", on_change=switch,
        help="After the first page, once for everybody who uses this app. Off: loaded when somebody first needs it.",
    )  # fmt: skip
    blur_switch()
    again = {"cold": "Load now", "failed": "Try again"}.get(engine.state)
    if again and st.button(again, key="load-now"):  # no callback: in a fragment the page would not hear of it
        engine.start()
        st.rerun()
    st.html('<p class="say">Press <kbd>?</kbd> for the keys of this page.</p>')


def blur_switch() -> None:
    """Whether offensive words are blurred; Present has a choice of its own."""
    st.session_state["blur-words"] = state.blurs()
    here = " in Present" if st.session_state.get("_page") == state.PRESENT else ""
    wanted = st.toggle(
        f"Blur offensive words{here}", key="blur-words", on_change=lambda: state.blur(st.session_state["blur-words"]),
        help="Focus or click such a word to read it. Names of buttons and charts keep its first letter only.",
    )  # fmt: skip
    if wanted != st.session_state.setdefault("_blur_drawn", True):  # the fragment has run, the page has not
        st.session_state["_blur_drawn"] = wanted
        st.rerun()


def warm_up() -> None:
    """Load the model of the cache in view in the background, once, if that is switched on."""
    name = state.cache_name()
    if name is None:
        return
    try:
        resources.engine(name).warm_up()
    except ExplorerError:
        return


if __name__ == "__main__":
    main()
