"""Persona Explorer in the browser: the frame around every page. Start it with `persona-explorer app`."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from app import presses, resources, state
from app.cache_picker import cache_picker
from app.components.commands import commands
from explorer.errors import ExplorerError

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the app.

    Args:
        title: Its name in the top bar.
        url: Its path; the first page answers at "/" only.
        about: What it is for, in a sentence, for the sheet that `?` opens.
        keys: (key, what it does), for the key sheet.
        search: Whether it has a search box, which `/` goes to.
        hidden: Reached from other pages only; the top bar does not name it.
    """

    title: str
    url: str
    about: str
    keys: tuple[tuple[str, str], ...] = ()
    search: bool = False
    hidden: bool = False

    @property
    def view(self) -> Path:
        return HERE / "views" / f"{self.url}.py"


_STEPS = (("J", "next feature"), ("K", "previous feature"), ("X", "random feature"))
_TOKENS = (("↑ ↓", "example"), ("← →", "token"), ("Enter", "pin the token"), ("Space", "whole window"), ("Y", "copy"))
_LABELS = (
    ("1 2 3", "a guess, likely, sure"), ("J K", "next, previous"), ("N", "not interpretable"), ("U", "undo"),
    ("H", "a flagged label still holds"), ("O M", "of two people's words: the other's, mine"), ("E", "edit the label"),
    ("T", "test my label"), ("Y N B", "in a test: fires, does not, back"),
)  # fmt: skip
_ROWS = (("↑ ↓", "row"), ("Enter", "open the feature"), ("J K", "next, previous page"), ("X", "random feature"))
_REVIEW = (("A", "agree"), ("D", "disagree"), ("U", "undo"), ("J K", "next, previous message"))
PAGES = (
    Page(
        "Overview",
        "overview",
        "What this cache is: its model, autoencoder and corpus, how good they are, and ways in.",
        (("X", "random feature"),),
    ),
    Page(
        "Browse",
        "browse",
        "The table of all features: search it, filter it, sort it, and take what is found along as a list.",
        _ROWS,
        search=True,
    ),
    Page(
        "Map",
        "map",
        "Every feature as a dot; those with like decoder directions lie together. Choose dots, keep them as a list.",
        (("X", "random feature"),),
        search=True,
    ),
    Page(
        "Feature",
        "feature",
        "One feature: the text it fires on, the tokens it promotes, its neighbours, and what it does on text of yours.",
        (*_STEPS, ("S", "steer with it"), *_TOKENS, ("T", "try the example, or a text of your own")),
    ),
    Page(
        "Pair",
        "pair",
        "Two features side by side, to see what they share and where they part.",
        _TOKENS,
        hidden=True,
    ),
    Page(
        "Inspect",
        "inspect",
        "Read a text for every feature that it fires, or two sets of texts for what tells them apart.",
        (("Ctrl+Enter", "analyse"), *_TOKENS),
    ),
    Page(
        "Steer",
        "steer",
        "Turn features up or down, and read what the model answers by itself beside what it answers then.",
        (("Ctrl+Enter", "run"), ("Esc", "stop"), ("1 2 3 4", "strength presets")),
    ),
    Page(
        "Sweep",
        "sweep",
        "Many strengths, questions or features at once, answered and judged in one table.",
        (("Ctrl+Enter", "run"),),
    ),
    Page(
        "Compare",
        "compare",
        "A model beside its fine-tune: which features moved, which of them cause the change, and what undoes it.",
        (("↑ ↓", "feature"), ("Enter", "its answers")),
    ),
    Page(
        "Monitor",
        "monitor",
        "Watch a chat log, or a training set before training, for messages in which a feature speaks.",
        _REVIEW,
    ),
    Page(
        "Judges",
        "judges",
        "Who says whether an answer shows a trait, how well they do, and where you teach one of your own.",
        (("Y", "the sentence shows the trait"), ("N", "it does not")),
    ),
    Page(
        "Label",
        "label",
        "Name one feature after the other from a queue, test your label, and see where people differ.",
        (("Ctrl+Enter", "save and next"), *_LABELS),
    ),
    Page(
        "Present",
        "present",
        "A talk in steps, in large type, run live or from recorded answers.",
        (("→", "next"), ("←", "back"), ("B", "blank"), ("Esc", "leave")),
    ),
)


def navigation() -> dict[str, st.Page]:
    """Url -> Streamlit's page, for the pages whose view exists."""
    return {
        page.url: st.Page(
            page.view,
            title=page.title,
            url_path=page.url,
            default=page is PAGES[0],
            visibility="hidden" if page.hidden else "visible",
        )
        for page in PAGES
        if page.view.is_file()
    }


def main() -> None:
    """Draw the frame, then the page; warm the model up once the page is out."""
    presses.take_whole()
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
    commands(
        [(page.title, list(page.keys))], about=page.about, search=page.search, query=pinned, on_search=lambda: state.go("browse")
    )  # fmt: skip
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
    with st.container(key="topbar", horizontal=True, vertical_alignment="center"):
        cache_picker(name)
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
