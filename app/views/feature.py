"""Feature: what one feature fires on, what it does to the next token, what people call it."""

from html import escape

import streamlit as st

from app import charts, resources, state
from app.ablation_view import what_it_does
from app.components.browser import browser
from app.components.copier import copier
from app.components.feature_links import feature_links
from app.components.heatmap import example_rows, token_heatmap, token_row
from app.copies import copies
from app.facts import logit_effects, number, percent, veiled
from app.label_form import author, label_form
from app.linked_text import LONGEST, brought, tell
from app.neighbourhood import LINKS, abroad, cosine_text, link_rows, related
from app.parity_view import tag
from app.remarks_form import others, past, remarks
from app.watched import still_loading
from app.workbench import Reading
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.labels import Label
from explorer.records import Feature
from explorer.schema import INTERVALS

TOP, SPREAD, ALL = "Top", "Intervals", "All"
SNIPPET, WHOLE = "Snippet", "Whole"
BY_FEATURE, BY_ROW = "Feature max", "Row max"
PLAIN, CHAT = "Plain text", "Chat message"
TEXT, KIND, FOCUS = "own-text", "own-kind", "own-focus"
PASSED = "feature-passed"
"""(Features that presses led away from, the one that they led to), until another one is chosen."""
ASKED, READ, ARRIVED = "own-asked", "own-read", "own-arrived"


def open_feature(index: int) -> None:
    """Show another feature; for callbacks."""
    passed, _ = st.session_state.get(PASSED, ((), None))
    st.session_state[PASSED] = ((*passed[-20:], in_view()), index)
    st.session_state[state.FEATURE] = index


def in_view() -> int:
    """The feature of the box; where the browser has not heard yet of what a press put there and says an older one, that of the press."""
    said = st.session_state[state.FEATURE]
    passed, now = st.session_state.get(PASSED, ((), None))
    return now if said in passed else said


def step(by: int, n_features: int) -> None:
    """Show the feature next to the one in view, round the ends."""
    open_feature((in_view() + by) % n_features)


def controls(cache: Cache) -> int:
    """Which feature, and the ways from here to another one and to Steer; gives the feature in view."""
    last = cache.n_features - 1
    if not st.query_params.get(state.FEATURE, "0").lstrip("-").isdecimal():
        # Streamlit takes most nonsense for the default, but trips over 1e400: open the page without it.
        state.go("feature", **{k: v for k, v in st.query_params.items() if k != state.FEATURE})
        st.rerun()
    now = st.session_state.get(state.FEATURE, 0)
    if not isinstance(now, int) or not 0 <= now <= last:  # another cache has been chosen, a smaller one
        st.session_state[state.FEATURE] = 0
    index = st.number_input(
        "Feature",
        min_value=0,
        max_value=last,
        value=0,
        key=state.FEATURE,
        bind="query-params",
        label_visibility="collapsed",
        width=130,
    )
    index = int(index)
    if index != st.session_state.get(PASSED, ((), index))[1]:  # it was chosen in the box or by a link
        del st.session_state[PASSED]
    st.button("Previous", shortcut="K", on_click=step, args=(-1, cache.n_features), key="previous")
    st.button("Next", shortcut="J", on_click=step, args=(1, cache.n_features), key="next")
    st.button(
        "Random",
        shortcut="X",
        on_click=lambda: open_feature(state.live_feature(cache)),
        key="random",
        help="Any feature that fires",
    )
    st.button(
        "Steer with this feature",
        type="primary",
        shortcut="S",
        on_click=state.go,
        args=("steer",),
        kwargs={"edits": f"{index}:1:add"},
        key="steer",
    )
    return index


def header(cache: Cache, feature: Feature, label: Label | None) -> None:
    """Number, name and facts."""
    manifest = cache.manifest
    if label and label.label:
        name = veiled(label.label)
    else:
        own = veiled(feature.title) or "no words of its own"
        name = f'<span class="dim" title="Provisional: the feature’s own words, not a label">{own}</span>'
    facts = [
        f"max <b>{number(feature.max)}</b>",
        f"fires on <b>{percent(feature.density)}</b> of tokens",
        f"in <b>{feature.documents_active:,}</b> of {manifest.documents:,} documents",
        escape(manifest.hook_point),
        f"{escape(cache.name)}, {cache.n_features:,} features",
    ]
    spans = "".join(f"<span>{fact}</span>" for fact in facts)
    st.html(
        f'<div class="head"><h1><b>#{feature.index}</b> {name}</h1></div><div class="facts num dim words">{spans}{tag(cache)}</div>'
    )


def effects(cache: Cache, feature: Feature) -> None:
    """Next tokens that it makes likelier, and less likely."""
    if said := logit_effects(cache, feature):
        st.html(f'<p class="sec" title="Direct logit effect">Promoted and suppressed next tokens</p>{said}')


def histogram(feature: Feature) -> None:
    """How strongly it fires where it does."""
    st.html(
        '<p class="sec">How strongly it fires</p>'
        '<p class="say">Each bar counts corpus tokens by activation; the counts are on a log scale.</p>'
    )
    st.plotly_chart(
        charts.activation_histogram(feature.histogram, feature.max),
        config=charts.CONFIG,
        key="histogram",
        alt=f"Histogram of activations from 0 to {number(feature.max)}",
    )


def choice(name: str, options: tuple[str, ...], key: str) -> str:
    """One of a few options, kept in the link; the first is the default."""
    chosen = st.segmented_control(
        name, options, default=options[0], required=True, key=key, bind="query-params", label_visibility="collapsed"
    )
    return chosen or options[0]  # a link may say `show=`


def examples(cache: Cache, feature: Feature, names: dict[int, str]) -> None:
    """The corpus text that it fires on; the controls are there for a silent one too, or stepping on would reset them."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="heat-controls"):
        show = choice("Examples", (TOP, SPREAD, ALL), "show")
        context = choice("Context", (SNIPPET, WHOLE), "ctx")
        scale = choice("Colour", (BY_FEATURE, BY_ROW), "scale")
        breaks = st.toggle("Line breaks", key="breaks", bind="query-params")
    if feature.dead:
        silent(cache, feature, names)
        return
    found = cache.examples(feature.index)
    spread = [e for k in reversed(range(INTERVALS)) for e in found if e.interval == k]  # from strong to weak
    top = [e for e in found if e.kind == "top"]
    token_heatmap(
        example_rows(cache, {TOP: top, SPREAD: spread, ALL: top + spread}[show]),
        vmax=feature.max,
        scale="feature" if scale == BY_FEATURE else "row",
        window=12 if context == SNIPPET else 0,
        breaks=breaks,
        blur=state.blurs(),
        on_take=take,
        key="heatmap",
    )


def silent(cache: Cache, feature: Feature, names: dict[int, str]) -> None:
    """A feature that never fires: say so, and offer those that point the same way and do."""
    st.html(
        '<div class="head" role="status"><h1>No window in this corpus activates this feature</h1></div>'
        f'<p class="say">{cache.manifest.tokens_scored:,} scored tokens were read. Other text may still fire it: '
        "try your own below.</p>"
    )
    fires = set(cache.live)
    alive = tuple((f, cosine_text(value)) for f, value in feature.neighbours if f in fires)[:LINKS]
    if alive:
        with st.container(gap=None):
            st.html('<p class="sec">Nearest features that fire <span style="font-weight:400">(cosine)</span></p>')
            feature_links(link_rows(cache, alive, names), on_open=open_feature, key="links-alive")


def ask(cache: Cache, feature: Feature, text: str, kind: str) -> None:
    """Have a text read; the link holds it where it fits into one."""
    st.session_state[ASKED] = (cache.manifest.sae_fingerprint, feature.index, text, kind)
    st.session_state.pop(READ, None)
    tell(text, chat=kind == CHAT)


def take(text: str) -> None:
    """Put the text of an example into the box, and the cursor with it."""
    st.session_state[TEXT], st.session_state[KIND] = text.strip()[:LONGEST], PLAIN
    st.session_state[FOCUS] = st.session_state.get(FOCUS, 0) + 1


def analyse(cache: Cache, feature: Feature) -> None:
    """Have the text in the box read."""
    ask(cache, feature, st.session_state[TEXT], st.session_state[KIND] or PLAIN)


def arrived(cache: Cache, feature: Feature) -> None:
    """Take the text that a link brings, once an arrival, and have it read."""
    if found := brought(ARRIVED):
        text, chat = found
        st.session_state[TEXT], st.session_state[KIND] = text, CHAT if chat else PLAIN
        ask(cache, feature, text, st.session_state[KIND])


def own_text(cache: Cache, feature: Feature) -> None:
    """A box for somebody's own text, and what the feature does on it."""
    arrived(cache, feature)
    st.text_area(
        "Test your own text",
        key=TEXT,
        height=96,
        max_chars=LONGEST,
        placeholder="A sentence that should fire this feature, or should not",
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.session_state.setdefault(KIND, PLAIN)
        st.segmented_control("Read as", [PLAIN, CHAT], required=True, key=KIND, label_visibility="collapsed")
        st.button("Analyse", key="own-analyse", on_click=analyse, args=(cache, feature))
    browser(box=TEXT, focus=st.session_state.get(FOCUS), shortcut="t", key="own-browser")
    asked = st.session_state.get(ASKED)
    if not asked or asked[:2] != (cache.manifest.sae_fingerprint, feature.index):
        return
    if not asked[2].strip():
        st.html('<p class="say" role="status">Type or paste some text first.</p>')
        return
    name = state.cache_name()
    assert name is not None  # the page has one
    engine = resources.engine(name)
    if engine.state == "cold":
        engine.start()
        st.rerun()  # the top bar has been drawn without it
    waits = engine.state == "loading"
    st.fragment(answer, run_every=1.0 if waits else None)(cache, feature, name, waits)


def answer(cache: Cache, feature: Feature, name: str, waited: bool) -> None:
    """The activations on the text that was asked about, as soon as there is a model to ask."""
    engine = resources.engine(name)
    if still_loading(engine, waited, "the result comes by itself"):
        return
    if engine.state == "failed" and engine.error:
        state.show_error(engine.error)
        if st.button("Try again", key="own-again"):
            engine.start()
            st.rerun()
        return
    asked = st.session_state[ASKED]
    known = st.session_state.get(READ)
    if known is None or known[0] != asked:
        _, index, text, kind = asked
        try:
            known = (asked, engine.activations([{"role": "user", "content": text}] if kind == CHAT else text, index))
        except ExplorerError as error:
            state.show_error(error)
            return
        st.session_state[READ] = known
    verdict(cache, feature, known[1])


def verdict(cache: Cache, feature: Feature, reading: Reading) -> None:
    """The text in colour, and how its maximum compares with the feature's."""
    row = token_row(cache.vocabulary, reading.tokens, reading.acts, reading.scored)
    highest = row["acts"][row["peak"]] if row["peak"] >= 0 else 0.0
    if highest <= 0:
        said = "The feature does not fire on this text."
    else:
        where = veiled(row["texts"][row["peak"]].strip() or cache.vocabulary.piece(row["ids"][row["peak"]][0]))
        said = f"Maximum <b>{number(highest)}</b> on “{where}”: "
        if feature.dead:
            said += "the corpus never fires it."
        else:
            said += f"{100 * highest / feature.max:.0f} % of the corpus maximum ({number(feature.max)})."
    st.html(f'<div class="num words" role="status">{said}</div>')
    token_heatmap([row], vmax=feature.max or highest or 1.0, window=0, key="own-heatmap")


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    names = state.label_texts(cache)
    top = st.container(horizontal=True, vertical_alignment="center", gap="small")
    title = top.container(width="stretch", key="feature-title")
    with top:
        index = controls(cache)
    feature = cache.feature(index)
    side, wide = st.columns([1, 2.6], gap="large")
    with side:
        sae = cache.manifest.sae_fingerprint
        label = label_form(sae, index, place="feature", rests=(cache, cache.examples(index, "top")))
        remarks(sae, index, others(past(sae, index), author()))
        effects(cache, feature)
        if not feature.dead:
            histogram(feature)
            related(cache, feature, names, on_open=open_feature)
        abroad(feature)
    with title:
        header(cache, feature, label)
        copier(copies(cache, state.cache_name() or "", index, label.label if label else ""), key="copies")
    with wide:
        examples(cache, feature, names)
        what_it_does(cache, feature)
        own_text(cache, feature)
    state.remember("feature")


main()
