"""Map: every feature as a dot, near those whose decoder directions are like its own."""

import shlex
from html import escape

import numpy as np
import streamlit as st

from app import map_charts, map_colours, resources, state
from app.browse_filters import listed
from app.components.feature_links import feature_links
from app.feature_row import feature_row
from app.label_form import author
from explorer.cache import Cache
from explorer.comparing import known
from explorer.errors import ExplorerError
from explorer.lists import LONGEST_NAME
from explorer.mapping import Map, thinned
from explorer.search import matches

S = st.session_state
CHART, CHOSEN, SAVED = "map-chart", "map-chosen", "map-saved"
LISTED = 100  # rows of the selection that are drawn; all of it is saved


def picked(sae: str) -> None:
    """A click on a dot opens its feature; a lasso or a box chooses those inside."""
    said = S[CHART].selection
    features = sorted({int(np.ravel(point["customdata"])[0]) for point in said.points})
    if len(features) == 1 and not (said.get("box") or said.get("lasso")):
        state.go("feature", feature=features[0])
        return
    S[CHOSEN] = (sae, tuple(features))
    S.pop(SAVED, None)


def save(cache: Cache, features: tuple[int, ...], *, browse: bool) -> None:
    """Keep the selection as a list, and perhaps go and look at it."""
    try:
        made = resources.lists().add(cache.manifest.sae_fingerprint, S.get("map-name") or "", features, author=author())
    except ExplorerError as error:
        S[SAVED] = error
        return
    S[SAVED] = f"The list {made.name} has {len(made.features):,} features."
    if browse:
        state.go("browse", list=made.name)


def empty(cache: Cache) -> None:
    """No map: the one command that makes it."""
    st.html(
        '<div class="head"><h1>No map of this cache yet</h1></div><p class="say">A map lays the features out so that those whose '
        "decoder directions are alike lie together. This command makes it, in about a minute for ten thousand features; the "
        "model is not needed:</p>"
    )
    st.code(f"persona-explorer map {shlex.quote(str(cache.path))}", language=None)


def selection(cache: Cache, labels: dict[int, str]) -> None:
    """What was chosen, as a list, and where it can go."""
    sae, features = S.get(CHOSEN, ("", ()))
    if sae != cache.manifest.sae_fingerprint or not features:
        st.html(
            '<p class="sec">Chosen features</p><p class="say">A click on a dot opens its feature. To choose several, take '
            "the lasso or the box from the buttons over the map and draw round them: they are listed here.</p>"
        )
        return
    count = "1 feature" if len(features) == 1 else f"{len(features):,} features"
    st.html(f'<p class="sec">Chosen features</p><p class="say num" role="status">{count}.</p>')
    st.text_input("Name of a list", key="map-name", max_chars=LONGEST_NAME, placeholder="a new list, or one to add to")
    with st.container(horizontal=True, gap="small"):
        st.button("Save as a list", key="map-save", on_click=save, args=(cache, features), kwargs={"browse": False})
        st.button(
            "Save, open in Browse", key="map-browse", on_click=save, args=(cache, features), kwargs={"browse": True}
        )
    said = S.get(SAVED)
    if isinstance(said, ExplorerError):
        state.show_error(said)
    elif said:
        st.html(f'<p class="say words" role="status">{escape(said)}</p>')
    most = cache.table.column("max")
    strongest = sorted(features, key=lambda i: -most[i].as_py())[:LISTED]
    rows = [{**feature_row(cache, i, labels), "value": f"{most[i].as_py():.3g}"} for i in strongest]
    left = f"; the {LISTED} strongest" if len(features) > LISTED else ""
    st.html(f'<p class="say">By maximum activation (SAE units){left}:</p>')
    with st.container(height=380, border=False):
        feature_links(rows, on_open=lambda i: state.go("feature", feature=i), key="map-links")


def draw(cache: Cache, found: Map) -> None:
    """The controls, the map, what it shows."""
    said = state.labels(cache)
    labels = {i: label.label for i, label in said.items()}
    lists, diffs = listed(cache), known(cache.path)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        colour = st.selectbox("Colour", map_colours.choices(lists, diffs), key="colour", bind="query-params", width=230)
        query = st.text_input(
            "Search", key="q", type="search", bind="query-params", max_chars=200,
            placeholder="Ring what matches: labels, tokens, examples    /", label_visibility="collapsed",
        )  # fmt: skip
        st.button("Random", shortcut="X", on_click=state.any_feature, args=(cache,), help="Open any feature that fires")
    hits = matches(cache, query or "", labels, {i: label.note for i, label in said.items() if label.note})
    keep = np.union1d(np.array([i for i in labels if 0 <= i < cache.n_features], np.int64), hits)
    shown = thinned(cache.n_features, keep, map_charts.MOST)
    try:
        colours = map_colours.coloured(cache, colour, labels, lists, lambda name: resources.comparison(diffs[name]))
    except ExplorerError as error:
        state.show_error(error)
        colours = map_colours.coloured(
            cache, map_colours.LABEL, labels, lists, lambda name: resources.comparison(diffs[name])
        )
    wide, side = st.columns([3, 1], gap="medium")
    with wide:
        st.html(
            f'<h1 class="unseen">Map</h1><p class="say" role="status">{escape(words(cache, colour, shown, query or "", hits))}</p>'
        )
        st.plotly_chart(
            map_charts.figure(
                found.places, shown, colours, map_charts.hover_names(cache, labels), hits, method=found.facts.method.upper()
            ),
            config=map_charts.config(len(shown)), key=CHART, selection_mode=("points", "box", "lasso"),
            on_select=lambda: picked(cache.manifest.sae_fingerprint),
            alt=f"{len(shown):,} features as dots, coloured by {colour}; features with like decoder directions lie together",
        )  # fmt: skip
    with side:
        selection(cache, labels)


def words(cache: Cache, colour: str, shown: np.ndarray, query: str, hits: np.ndarray) -> str:
    """What one looks at, in a line."""
    about = map_colours.about(colour)
    said = (
        "Each dot is a feature; dots that lie together have decoder directions of high cosine. Distances between far groups, and the "
        f"axes, mean little. Colour: {about[:1].lower()}{about[1:]}"
    )
    if query.strip():
        found = "1 feature matches." if len(hits) == 1 else f"{len(hits):,} features match."
        said += f" {found}" if len(hits) else " Nothing matches the search."
    if len(shown) < cache.n_features:
        said += (
            f" {len(shown):,} of {cache.n_features:,} features are drawn: those that are labelled or match, and of the others a "
            "sample by chance, the same one each time."
        )
    return said


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    try:
        found = resources.feature_map(cache)
    except ExplorerError as error:
        state.show_error(error, retry=True)
        empty(cache)
        return
    if found is None:
        empty(cache)
    else:
        draw(cache, found)
    state.remember("map")


main()
