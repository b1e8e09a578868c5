"""Session and URL keys with typed getters, moving between pages, and the one way to show an error.

A page is left through `go` (a callback), never through `st.switch_page` in a view: Streamlit raises there as soon as a
widget bound to the URL has been drawn. `main.py` does what `go` asked for before anything is drawn.
"""

import random
from collections.abc import Mapping
from html import escape

import streamlit as st
from streamlit.errors import StreamlitAPIException
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app import resources
from app.facts import markdown_text
from explorer.cache import Cache
from explorer.errors import CacheError, ExplorerError
from explorer.labels import Label

CACHE = "cache"
"""URL and session key: name of the cache in view."""
FEATURE = "feature"
"""URL and session key: index of the feature in view."""
PRESENT = "present"
"""The page with a blur switch of its own: on, whatever was chosen elsewhere."""
_BLUR = "_blur"
_GOTO = "_goto"
_CACHE = "_cache"
_PINNED = "_pinned"
_LAST = "_last_query"
_CARRY = "_carry"
_ARRIVAL = "_arrival"


def go(page: str, **params: object) -> None:
    """Open another page; for callbacks.

    Args:
        page: A url in `main.PAGES`, such as "feature".
        params: Query parameters; None leaves one out. The cache in view goes along by itself.
    """
    st.session_state[_GOTO] = (page, {k: str(v) for k, v in params.items() if v is not None})


def wanted_page() -> tuple[str, dict[str, str]] | None:
    """What `go` asked for, once."""
    return st.session_state.pop(_GOTO, None)


def arrive() -> None:
    """Note that somebody has come by a link: a page was opened, or the browser went through its history."""
    st.session_state[_ARRIVAL] = arrival() + 1


def arrival() -> int:
    """Counts the links that somebody has come by.

    A page that writes its link from callbacks reads it once an arrival and else goes by what it has in the session: a
    browser sends the link that it knows, which may be older than what a callback has just written.
    """
    return st.session_state.get(_ARRIVAL, 0)


def through_history() -> bool:
    """Whether this script runs because the browser went back or forward."""
    return getattr(get_script_run_ctx(), "is_history_navigation", False)


def unbound(query: Mapping[str, str | list[str]]) -> dict[str, str | list[str]]:
    """The part of a query that `st.switch_page` accepts; `carried` brings the rest to the page's widgets.

    A parameter that a widget of the page being left is bound to cannot be set, and there is no public way to ask.
    """
    free: dict[str, str | list[str]] = {}
    carry: dict[str, object] = {}
    for key, value in query.items():
        try:
            st.query_params[key] = value
            free[key] = value
        except StreamlitAPIException:
            carry[key] = _like(st.session_state.get(key), value)
    st.session_state[_CARRY] = carry
    return free


def _like(now: object, value: str | list[str]) -> object:
    """What a URL says, as the kind of value that a widget has now."""
    if isinstance(now, list | tuple):
        return type(now)([value] if isinstance(value, str) else value)
    text = value if isinstance(value, str) else value[-1]
    if isinstance(now, bool):
        return text == "true"
    return type(now)(text) if isinstance(now, int | float | str) else text


def carried() -> None:
    """Hand on what `unbound` kept back; before any widget is drawn."""
    for key, value in st.session_state.pop(_CARRY, {}).items():
        st.session_state[key] = value


def cache_name() -> str | None:
    """The cache in view: that of the URL, which may not be here (None), else the one chosen last, else the first."""
    known = resources.caches()
    asked = st.query_params.get(CACHE)
    name = asked or st.session_state.get(_CACHE)
    if name in known:
        st.session_state[_CACHE] = name
        return name
    return None if asked else next(iter(known), None)


def choose_cache(name: str) -> None:
    """Look at another cache; for callbacks.

    The picker is not bound to the URL: a bound parameter could not be set when a page is opened from a callback.
    """
    st.session_state[_CACHE] = name
    st.query_params[CACHE] = name


def pin() -> None:
    """Note what `pinned_cache` gives: once a page run, for its many links."""
    st.session_state[_PINNED] = cache_name() if len(resources.caches()) > 1 else None


def pinned_cache() -> str | None:
    """What the URL has to say of the cache so that the link shows the same to others; None where there is only one."""
    return st.session_state.get(_PINNED)


def cache() -> Cache:
    """The cache in view; where there is none or it is refused, the page says so and stops."""
    name = cache_name()
    if name is None:
        other_caches() if resources.caches() else no_cache()
        st.stop()
    try:
        return resources.cache(name)
    except ExplorerError as error:
        show_error(error, retry=True)
        st.stop()


def labels(cache: Cache) -> dict[int, Label]:
    """Feature -> label; where they cannot be read there are none, and the page says why and goes on."""
    try:
        said, trouble = resources.labels().all(cache.manifest.sae_fingerprint), resources.bundled_trouble(cache)
    except ExplorerError as error:
        said, trouble = {}, error
    if trouble:
        show_error(trouble)
        st.button("Retry", on_click=resources.forget, key="retry-labels")
    return {index: label for index, label in said.items() if label.label}


def label_texts(cache: Cache) -> dict[int, str]:
    """`labels`, for tables and titles."""
    return {index: label.label for index, label in labels(cache).items()}


def feature(cache: Cache) -> int:
    """The feature in view, kept within the cache; 0 where the URL says nothing sensible.

    A page that draws a number input with the key `FEATURE` bound to the URL reads the session instead.
    """
    said = st.query_params.get(FEATURE, st.session_state.get(FEATURE, 0))
    try:
        return min(max(int(said), 0), cache.n_features - 1)
    except (TypeError, ValueError):
        return 0


def live_feature(cache: Cache) -> int:
    """Any feature that fires."""
    return random.choice(cache.live or [0])


def any_feature(cache: Cache) -> None:
    """Open any feature that fires; for callbacks."""
    go("feature", feature=live_feature(cache))


def link(page: str, **params: object) -> str:
    """A relative link to a page; quoted, safe inside an HTML attribute after `html.escape`."""
    from urllib.parse import urlencode

    query = {k: v for k, v in params.items() if v is not None}
    if name := pinned_cache():
        query.setdefault(CACHE, name)
    return f"{page}?{urlencode(query)}" if query else page


def remember(page: str) -> None:
    """Keep the query of `page`, so that coming back through the top bar finds it as it was left."""
    query = {key: st.query_params.get_all(key) for key in st.query_params if key != CACHE}
    st.session_state.setdefault(_LAST, {})[page] = query


def remembered(page: str) -> dict[str, list[str]]:
    """The query that `page` was left with."""
    return dict(st.session_state.get(_LAST, {}).get(page, {}))


def blurs() -> bool:
    """Whether offensive words are blurred until asked for, on the page in view."""
    return st.session_state.get(_BLUR, {}).get(_room(), True)


def blur(on: bool) -> None:
    """Blur offensive words, or do not; in Present the choice stands by itself."""
    st.session_state[_BLUR] = {**st.session_state.get(_BLUR, {}), _room(): on}


def _room() -> bool:
    return st.session_state.get("_page") == PRESENT


def show_error(error: ExplorerError, *, retry: bool = False) -> None:
    """Show what was found, what was expected and what to do, as plain text; never a traceback.

    Args:
        retry: Offer to open every resource afresh and run the page again.
    """
    parts = [("", error.found), ("Expected: ", error.expected), ("", error.do)]
    # An alert of our own: st.error reads its text as markdown, and paths and names come from other people.
    said = "".join(
        f"<div>{'<b>' if i == 0 else ''}{lead}{escape(text.rstrip('.'))}.{'</b>' if i == 0 else ''}</div>"
        for i, (lead, text) in enumerate(parts)
        if text
    )
    st.html(f'<div class="trouble words" role="alert">{said}</div>')
    if retry:
        st.button("Retry", on_click=resources.forget, key="retry")


def other_caches() -> None:
    """The link names a cache that is not here: say so, and offer those that are."""
    show_error(
        CacheError(
            f"The feature cache {st.query_params.get(CACHE)!r} of this link is not here",
            expected=", ".join(resources.caches()),
            do=f"Bring it to one of {', '.join(map(str, resources.cache_folders()))}, or look at another one",
        )
    )
    for name in resources.caches():
        st.button(f"Look at {markdown_text(name)}", key=f"look-{name}", on_click=choose_cache, args=(name,))


def no_cache() -> None:
    """The empty state: no cache anywhere, so the one command that builds one."""
    st.html(
        '<div class="head"><h1>No feature cache yet</h1></div><p class="say">A cache holds what the features of '
        "a model fire on. This command builds the bundled one (it can be cut off and started again):</p>"
    )
    st.code("persona-explorer make cached_features/smollm2-135m/recipe.toml", language=None)
    st.html(
        '<p class="say">For a model and an SAE of your own: <code>persona-explorer build --help</code>. '
        "Caches are looked for in:</p>"
        + "".join(f'<div class="path">{escape(str(place))}</div>' for place in resources.cache_folders())
    )
