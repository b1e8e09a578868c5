"""Pair: two features side by side, of one SAE or of two that read the same place."""

from html import escape

import streamlit as st

from app import resources, state
from app.components.heatmap import example_rows, token_heatmap
from app.facts import bare, logit_effects, number, percent, veiled
from app.neighbourhood import cosine_text, known_labels
from explorer.affinity import promoted
from explorer.cache import Cache
from explorer.decoder import decoder_row, unit
from explorer.errors import ExplorerError, UsageError

S = st.session_state
OTHER, WITH = "other", "with"
HERE = "this SAE"
EXAMPLES = 8


def number_box(name: str, key: str, n_features: int) -> int:
    """A box for the number of a feature, kept in the link."""
    if not st.query_params.get(key, "0").lstrip("-").isdecimal():
        # Streamlit takes most nonsense for the default, but trips over 1e400: open the page without it.
        state.go("pair", **{k: v for k, v in st.query_params.items() if k != key})
        st.rerun()
    now = S.get(key, 0)
    if not isinstance(now, int) or not 0 <= now < n_features:
        S[key] = 0
    return int(st.number_input(name, 0, n_features - 1, value=0, key=key, bind="query-params", width=130))


def swap() -> None:
    """Let the two change places; for callbacks."""
    S[state.FEATURE], S[OTHER] = S[OTHER], S[state.FEATURE]


def partner(cache: Cache) -> tuple[str | None, Cache]:
    """The cache of the second feature, and its name where that is another one; a link may name any."""
    siblings = resources.siblings(state.cache_name() or "")
    asked = st.query_params.get(WITH, HERE)
    if asked not in (HERE, "", *siblings):
        try:
            made = resources.cache(asked).manifest
            where = f"{asked} is at {made.hook_point} of {made.model}"
        except KeyError:
            where = f"There is no cache {asked!r}"
        except ExplorerError as error:
            where = error.found
        state.show_error(
            UsageError(where, expected="another SAE of the same model and hook point", do="Choose one that is offered")
        )
    if not siblings:
        return None, cache
    name = st.selectbox("Second feature of", [HERE, *siblings], key=WITH, bind="query-params", width=220)
    return (None, cache) if name == HERE or name not in siblings else (name, siblings[name])


def between(a: Cache, first: int, b: Cache, second: int) -> str:
    """What the two have in common, in figures, as HTML."""
    said = []
    try:
        cosine = float(unit(decoder_row(a, first)) @ unit(decoder_row(b, second)))
        said.append(f"decoder cosine <b>{cosine_text(cosine)}</b>")
    except (ExplorerError, ValueError):  # no SAE beside the cache
        listed = dict(a.feature(first).neighbours).get(second) if a is b else None
        known = f"decoder cosine <b>{cosine_text(listed)}</b>" if listed is not None else ""
        said.append(known or "decoder cosine not known: no SAE lies beside the cache")
    if a is b:
        share = dict(a.feature(first).coactive).get(second, dict(b.feature(second).coactive).get(first))
        said.append(
            f"both fire on <b>{percent(share)}</b> of the tokens on which either does"
            if share is not None
            else "neither is among those that fire most with the other"
        )
        windows = [{example.window for example in a.examples(i)} for i in (first, second)]
        said.append(f"<b>{len(windows[0] & windows[1])}</b> of their example windows in common")
    common = promoted(a, first) & promoted(b, second)
    said.append(f"<b>{len(common)}</b> of {len(promoted(a, first))} promoted tokens in common")
    return "".join(f"<span>{one}</span>" for one in said)


def side(cache: Cache, index: int, shared: frozenset[int], *, within: str | None, key: str) -> None:
    """One feature: its name, figures, promoted tokens and strongest examples."""
    feature, label = cache.feature(index), known_labels(cache).get(index)
    name = veiled(label) if label else f'<span class="dim">{veiled(feature.title) or "no words of its own"}</span>'
    params = {state.CACHE: within} if within else {}
    href = escape(state.link("feature", feature=index, **params))
    facts = [
        f"max <b>{number(feature.max)}</b>", f"mean where active <b>{number(feature.mean_active)}</b>",
        f"fires on <b>{percent(feature.density)}</b> of tokens", f"in <b>{feature.documents_active:,}</b> documents",
    ]  # fmt: skip
    if within:  # of another SAE than the first
        facts.append(f"{escape(bare(cache.name))}, {cache.n_features:,} features")
    st.html(
        f'<div class="head"><h2><a class="go" href="{href}" target="_self">#{index}</a> {name}</h2></div>'
        f'<div class="facts num dim words">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'
    )
    if effects := logit_effects(cache, feature, shared=shared):
        st.html(f'<p class="sec">Promoted and suppressed next tokens</p>{effects}')
    top = cache.examples(index, "top")[:EXAMPLES]
    if not top:
        st.html('<p class="say">No window in this corpus activates it.</p>')
        return
    st.html('<p class="sec">Strongest examples</p>')
    token_heatmap(example_rows(cache, top), vmax=feature.max, window=8, blur=state.blurs(), key=key)


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    state.labels(cache)  # says so where they cannot be read
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        title = st.container(width="stretch", key="pair-title")
        place = st.container(width="content")
        second_place = st.container(width="content")
        within, other = partner(cache)
    with place:
        first = number_box("First", state.FEATURE, cache.n_features)
    with second_place:
        second = number_box("Second", OTHER, other.n_features)
    with title:
        st.html(
            '<div class="head"><h1>Two features side by side</h1></div>'
            f'<div class="facts num dim words" role="status">{between(cache, first, other, second)}</div>'
        )
    with st.container(horizontal=True, gap="small"):
        if other is cache:
            st.button("Swap", on_click=swap, key="pair-swap")
            st.button(
                "Steer with both", type="primary", on_click=state.go, args=("steer",), kwargs={"edits": f"{first}:1:add,{second}:1:add"},
                key="pair-steer", disabled=first == second,
            )  # fmt: skip
    if other is cache and first == second:
        st.html('<p class="say" role="status">This is one feature twice: choose another number on the right.</p>')
    shared = promoted(cache, first) & promoted(other, second)
    if shared:
        st.html('<p class="say">Underlined tokens are promoted by both.</p>')
    left, right = st.columns(2, gap="large")
    with left:
        side(cache, first, shared, within=None, key="pair-left")
    with right:
        side(other, second, shared, within=within, key="pair-right")
    state.remember("pair")


main()
