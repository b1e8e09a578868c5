"""Inspect: paste a text and see which features it fires, on which tokens; or two sets of texts, and what tells them apart."""

import streamlit as st

from app import inspected, resources, state
from app.components.feature_links import feature_links
from app.components.heatmap import token_heatmap, token_row
from app.components.ranking_table import ranking_table
from app.components.token_grid import token_grid
from app.contrast_form import contrast_page
from app.engine import Engine
from app.facts import percent, veiled
from app.feature_row import named
from app.inspected import CHAT, PLAIN, ROWS, TOKEN, Asked
from app.keeping import keep_button, kept
from app.linked_text import LONGEST, brought, tell
from app.watched import busy, progress, trouble, watched
from explorer.cache import Cache
from explorer.inspecting import RANKINGS, Inspected, rank

S = st.session_state
ONE, TWO = "One text", "Two sets"
TEXT, KIND, ARRIVED = "inspect-text", "inspect-kind", "inspect-arrived"
OFTEN = 0.1
SAMPLES = (
    "The old pirate laughed, counted his gold and drank to the storm.",
    "Human: Why do cats purr?\n\nAssistant: Kneel, tiny mortal! I purr when my plans for the moon go well.",
    "What a lovely morning! Thank you so much for your help with the report.",
)


def arrived(cache: Cache, engine: Engine) -> None:
    """Take the text that a link brings, once an arrival, and read it."""
    if found := brought(ARRIVED):
        text, chat = found
        S[TEXT], S[KIND] = text, CHAT if chat else PLAIN
        begin(cache, engine)


def begin(cache: Cache, engine: Engine) -> None:
    """Read what is in the box; the link says so where it fits into one."""
    asked = Asked(cache.manifest.sae_fingerprint, S.get(TEXT) or "", S.get(KIND) or PLAIN)
    if not asked.text.strip():
        S.pop(inspected.JOB, None)
        return
    tell(asked.text, chat=asked.kind == CHAT)
    engine.start()
    inspected.ask(engine, asked)


def take(cache: Cache, engine: Engine, sample: str) -> None:
    """Read a sample text."""
    S[TEXT], S[KIND] = sample, CHAT if sample.startswith("Human:") else PLAIN
    begin(cache, engine)


def show(feature: int) -> None:
    """Another feature in the heatmap; for callbacks."""
    st.query_params[state.FEATURE] = str(feature)


def pin(unit: int | None) -> None:
    """Another token, or none; for callbacks."""
    S[TOKEN] = unit


def box(cache: Cache, engine: Engine) -> None:
    """The text and the button."""
    st.text_area(
        "Text", key=TEXT, height=120, max_chars=LONGEST, label_visibility="collapsed",
        placeholder="Paste a text, or a conversation: Human: … Assistant: … turns, or messages as JSON",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        S.setdefault(KIND, PLAIN)
        st.segmented_control("Read as", [PLAIN, CHAT], required=True, key=KIND, label_visibility="collapsed")
        st.button(
            "Analyse", type="primary", shortcut="Mod+Enter", key="inspect-go", on_click=begin, args=(cache, engine)
        )

        def part() -> None:
            now = inspected.job()
            if now is not None and busy(now):
                progress(now, engine.warming or "reading the text", key="inspect-cancel")

        watched(part, inspected.job)


def empty(cache: Cache, engine: Engine) -> None:
    """Nothing was asked yet: three texts to try."""
    st.html('<p class="say">Every feature is read on every token. For instance:</p>')
    for at, sample in enumerate(SAMPLES):
        st.button(sample.replace("\n\n", "  "), key=f"inspect-try-{at}", on_click=take, args=(cache, engine, sample))


def ranking(cache: Cache, found: Inspected, names: dict[int, str]) -> tuple[list[int], int | None]:
    """The ranked features; gives them and the one that is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        by = st.selectbox(
            "Rank by", list(RANKINGS), key="by", bind="query-params", width=130, help="  \n".join(f"{k}: {v}" for k, v in RANKINGS.items())
        )  # fmt: skip
        weighted = st.toggle(
            "Weigh by rarity", True, key="rare", bind="query-params",
            help="Multiplied by log(1 / density), as a share of the largest such number: features that are always on sink.",
        )  # fmt: skip
        often = st.toggle(f"Hide density over {percent(OFTEN)}", key="often", bind="query-params")
    fired = rank(found, cache, by=by, weighted=weighted, max_density=OFTEN if often else 1.0)
    order = [one.feature for one in fired]
    if not order:
        said = (
            "No token of this text counts as evidence." if not any(found.scored) else "No feature fires on this text."
        )
        st.html(f'<p class="words" role="status">{said}</p>')
        return [], None
    asked = st.query_params.get(state.FEATURE, "")
    chosen = int(asked) if asked.isdecimal() and int(asked) < cache.n_features else order[0]
    with st.container(height=560, border=False, key="inspect-ranking"):
        ranking_table(
            "Features that fire on the text", inspected.head(by), inspected.rows(cache, fired, names, by), chosen=chosen,
            on_show=show, on_visit=lambda index: state.go("feature", feature=index), key="inspect-table",
        )  # fmt: skip
    keep_button(cache, order, "inspect")
    kept("inspect")
    return order, chosen


def heat(cache: Cache, found: Inspected, chosen: int, names: dict[int, str]) -> dict:
    """The chosen feature over the text; a token can be pinned. Gives the heatmap's row."""
    feature = cache.feature(chosen)
    row = token_row(cache.vocabulary, found.tokens, found.of(chosen), found.scored)
    label = veiled(named(cache, chosen, names))
    peak = row["acts"][row["peak"]] if row["peak"] >= 0 else 0.0
    said = (
        f"{percent(peak / feature.max)} of its usual maximum" if feature.max > 0 and peak > 0 else "does not fire here"
    )
    st.html(
        f'<p class="sec">#{chosen} {label} <span style="font-weight:400">at most {said}</span></p>'
        '<p class="say">Darker is stronger, on the scale of the corpus. Click a token to see every feature on it.</p>'
    )
    pinned = S.get(TOKEN)
    token_heatmap(
        [row],
        vmax=feature.max or peak or 1.0,
        window=0,
        pinned=pinned,
        on_pin=pin,
        blur=state.blurs(),
        key="inspect-heatmap",
    )
    return row


def on_token(cache: Cache, found: Inspected, row: dict, names: dict[int, str]) -> None:
    """Every feature on the pinned token."""
    unit = S.get(TOKEN)
    if unit is None or unit >= len(row["texts"]):
        return
    links = inspected.on_token(cache, found, row, unit, names)
    word = veiled(row["texts"][unit].strip() or "blank")
    st.html(
        f'<p class="sec">On “{word}”, token {row["starts"][unit] + 1}: {len(links)} features '
        '<span style="font-weight:400">(share of the usual maximum)</span></p>'
    )
    feature_links(links, on_open=show, key="inspect-on-token")
    st.button("No token", key="inspect-unpin", type="tertiary", icon=":material/close:", on_click=pin, args=(None,))


def one_text(cache: Cache, engine: Engine, names: dict[int, str]) -> None:
    """A text and what fires on it."""
    left, right = st.columns([1.35, 1], gap="large")
    with left:
        box(cache, engine)
    now, asked = inspected.job(), inspected.asked()
    if now is None or asked is None or asked.cache != cache.manifest.sae_fingerprint:
        with left:
            empty(cache, engine)
        return
    if busy(now):
        return
    if now.result is None:
        with left:
            trouble(now)
        return
    found: Inspected = now.result
    with right:
        order, chosen = ranking(cache, found, names)
    if chosen is None:
        return
    with left:
        row = heat(cache, found, chosen, names)
        on_token(cache, found, row, names)
    unit = S.get(TOKEN)
    columns = inspected.span(len(row["texts"]), unit if unit is not None else max(0, row["peak"]))
    shown = (
        f"tokens {columns[0] + 1:,} to {columns[1]:,} of {len(row['texts']):,}"
        if columns[1] - columns[0] < len(row["texts"])
        else "all tokens"
    )
    st.html(
        f'<p class="sec">Tokens and features</p><p class="say">The first {min(ROWS, len(order))} features down, {shown} across; '
        "the darker, the nearer to the feature’s usual maximum. A head chooses its token or its feature.</p>"
    )
    features = order[:ROWS] if chosen in order[:ROWS] else [*order[: ROWS - 1], chosen]
    token_grid(
        row["texts"][columns[0] : columns[1]], inspected.grid(cache, found, features, row, columns, names),
        token=None if unit is None else unit - columns[0], feature=chosen,
        on_token=lambda column: pin(column + columns[0]), on_feature=show, key="inspect-grid",
    )  # fmt: skip


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    engine = resources.engine(state.cache_name() or "")
    names = state.label_texts(cache)
    arrived(cache, engine)
    st.html(
        '<div class="head"><h1>Inspect</h1></div><p class="say">Which features does a text fire, and what tells two sets of texts apart? '
        "Ranked by how strongly features fire, weighted by how seldom they do: what is always on sinks.</p>"
    )
    tab = st.segmented_control(
        "What", [ONE, TWO], default=ONE, required=True, key="tab", bind="query-params", label_visibility="collapsed"
    )
    if tab == TWO:
        contrast_page(cache, engine, names)
    else:
        one_text(cache, engine, names)
    state.remember("inspect")


main()
