"""The picker in the top bar where there are several caches: by model, by layer, by SAE."""

import re
from collections.abc import Mapping

import streamlit as st

from app import resources, state
from app.facts import markdown_text
from explorer.schema import Manifest

S = st.session_state
MODEL, LAYER, CACHE = "pick-model", "pick-layer", "pick-cache"
UNREAD = "cannot be read"

Place = tuple[str, str]
"""Model and layer."""


def cache_picker(name: str) -> None:
    """Draw it, unless there is nothing to choose; the cache in view is `name`."""
    known = resources.manifests()
    if len(known) < 2:
        return
    places = {each: _place(manifest) for each, manifest in known.items()}
    model, layer = places[name]
    layers = {place[1] for place in places.values() if place[0] == model}
    here = [each for each, place in places.items() if place == (model, layer)]
    S[MODEL], S[LAYER], S[CACHE] = model, layer, name
    with st.popover(markdown_text(name), icon=":material/database:", key="pick"):
        st.selectbox(
            "Model", sorted({place[0] for place in places.values()}), key=MODEL, on_change=_pick_place, args=(places,)
        )
        st.selectbox("Layer", sorted(layers, key=_counted), key=LAYER, on_change=_pick_place, args=(places,))
        st.selectbox(
            "SAE, by its feature cache", here, key=CACHE, on_change=_pick,
            format_func=lambda each: _said(each, known[each]),
        )  # fmt: skip
        st.caption("Labels and lists stay with their SAE.")


def nearest(places: Mapping[str, Place], wanted: Place) -> str:
    """The first cache of a model and layer; of the model, if it has none at that layer."""
    of_model = [name for name, place in places.items() if place[0] == wanted[0]]
    return next((name for name in of_model if places[name] == wanted), of_model[0])


def _pick_place(places: Mapping[str, Place]) -> None:
    state.choose_cache(nearest(places, (S[MODEL], S[LAYER])))


def _pick() -> None:
    state.choose_cache(S[CACHE])


def _place(manifest: Manifest | None) -> Place:
    return (manifest.model, manifest.hook_point) if manifest else (UNREAD, UNREAD)


def _said(name: str, manifest: Manifest | None) -> str:
    return f"{name}: {manifest.n_features:,} features, {manifest.corpus}" if manifest else name


def _counted(layer: str) -> list[tuple[int, str]]:
    """Block 9 before block 13."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", layer)]
