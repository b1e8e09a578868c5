"""Overview: what this cache is, ways in, how often its features fire, and how far the labels have come."""

from html import escape

import streamlit as st

from app import charts, parity_view, resources, settings, state
from app.cards import card
from app.facts import markdown_text, veiled
from app.settings import Settings
from explorer import presets
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.presets import Preset

MOST_CARDS = 12
MOST_TRIES = 6
MOST_CHANGES = 6


def _count(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1_000_000 else f"{number:,}"


def header(cache: Cache) -> None:
    """Name and facts, and the way to Browse."""
    manifest = cache.manifest
    dead = cache.n_features - len(cache.live)
    facts = [
        (f"{manifest.n_features:,}", "features" + (f", {dead:,} of them silent in this corpus" if dead else "")),
        (_count(manifest.tokens_seen), f"tokens read, {_count(manifest.tokens_scored)} scored"),
        (f"{manifest.documents:,}", "documents"),
    ]
    left, right = st.columns([4, 1], vertical_alignment="center")
    spans = "".join(f"<span><b>{escape(number)}</b> {escape(what)}</span>" for number, what in facts)
    left.html(
        f'<div class="head words"><h1>{escape(cache.name)}</h1></div><div class="facts num dim words">'
        f"<span>{escape(manifest.model)}</span><span>{escape(manifest.hook_point)}</span>{spans}{parity_view.tag(cache)}</div>"
        '<p class="say">What a language model notices while it reads and writes, as features that a sparse autoencoder found: see what '
        "each fires on, name it, turn it up and hear what changes.</p>"
    )
    with right.container(horizontal=True, horizontal_alignment="right"):
        st.button("Browse features", type="primary", on_click=state.go, args=("browse",), key="to-browse")


def tries(cache: Cache, labels: dict[int, str], personas: list[Preset]) -> None:
    """Features to begin with: the labelled ones that personas turn up, the first of each; else the strongest; or any that fires."""
    strength = cache.table.column("max").to_numpy()
    known = {i for i in labels if 0 <= i < cache.n_features}
    turned = [[e.feature for e in preset.edits if not e.direction and e.feature in known] for preset in personas]
    order = dict.fromkeys([*(some[0] for some in turned if some), *sorted(known, key=lambda i: -strength[i])])
    chips = [(labels[i], i) for i in list(order)[:MOST_TRIES]]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html('<span class="dim">Try</span>', width="content")
        for number, (label, index) in enumerate(chips):
            # button texts are markdown: what people wrote is escaped there
            st.button(
                markdown_text(label, 40),
                key=f"try-{number}",
                on_click=state.go,
                args=("feature",),
                kwargs={"feature": index},
            )
        st.button("Random", shortcut="X", on_click=state.any_feature, args=(cache,), key="random")


def cards(cache: Cache, labels: dict[int, str], found: list[Preset]) -> None:
    """Presets that came with the cache and one's own, each with its figures and a way to Steer ready to run."""
    if not found:
        return
    st.html('<p class="sec">Personas: steer the live model with one of these</p>')
    per = 3 if len(found) in (3, 5, 6, 9) else 4  # the last row as full as can be
    for row in range(0, len(found), per):
        for number, (column, preset) in enumerate(
            zip(st.columns(per), found[row : row + per], strict=False), start=row
        ):
            with column, st.container(key=f"card-{number}"):
                st.html(card(cache, preset, labels))
                st.button(
                    "Steer",
                    key=f"steer-{number}",
                    on_click=state.go,
                    args=("steer",),
                    kwargs=settings.write(Settings().with_preset(preset)),
                )


def progress(cache: Cache) -> None:
    """How many features are labelled, what changed last, and where the labels are kept."""
    st.html('<p class="sec">Labels</p>')
    try:
        store = resources.labels()
        sae = cache.manifest.sae_fingerprint
        labels, recent = store.all(sae), store.changes(sae, history=True)
    except ExplorerError:  # said at the head of the page
        st.html('<p class="say">They cannot be read.</p>')
        return
    bundled = sum(label.bundled for label in labels.values())
    share = 100 * len(labels) / max(1, cache.n_features)
    st.html(
        f'<div class="num"><b>{len(labels):,}</b> of {cache.n_features:,} labelled'
        + (f'<span class="dim">, {bundled:,} of them came with the cache</span>' if bundled else "")
        + f'</div><div class="bar"><i style="width:{share:.1f}%"></i></div>'
    )
    newest = sorted(recent, key=lambda c: str(c.created_at), reverse=True)[:MOST_CHANGES]
    if newest:
        lines = "".join(
            f'<div><a class="dim num" href="{escape(state.link("feature", feature=c.feature))}" target="_self">'
            f"#{c.feature}</a><span>{veiled(c.label) or '<i>label removed</i>'}</span>"
            f'<span class="dim">{escape(c.author)}</span></div>'
            for c in newest
        )
        st.html(f'<p class="say">Last changes</p><div class="changes">{lines}</div>')
    else:
        st.html('<p class="say">Nobody has labelled anything here yet. The Label page works through a queue.</p>')
    st.html(f'<p class="say">Labels are kept in</p><div class="path">{escape(store.where)}</div>')


cache = state.cache()
labels = state.label_texts(cache)
header(cache)
personas: list[Preset] = []
unread: ExplorerError | None = None
try:
    personas = presets.load(cache)[:MOST_CARDS]
except ExplorerError as error:
    unread = error
tries(cache, labels, personas)
if unread:
    state.show_error(unread)
cards(cache, labels, personas)
frame = cache.frame
first, second, third = st.columns([1, 1, 1], gap="large")
with first:
    st.html(
        '<p class="sec">How often features fire</p>'
        '<p class="say">Each bar counts features; the further left, the rarer they are.</p>'
    )
    st.plotly_chart(
        charts.density_histogram(frame["density"].to_numpy()),
        config=charts.CONFIG,
        key="densities",
        alt="Histogram of feature densities",
    )
with second:
    st.html(
        '<p class="sec">How often and how strongly</p>'
        '<p class="say">Each dot is a feature; labelled ones are teal. Choose a dot to open it.</p>'
    )

    def _picked() -> None:
        points = st.session_state["activity"].selection.points
        if points:
            state.go("feature", feature=int(points[0]["customdata"][0]))

    st.plotly_chart(
        charts.activity_map(frame.index.to_numpy(), frame["density"].to_numpy(), frame["max"].to_numpy(), labels),
        config=charts.CONFIG,
        key="activity",
        on_select=_picked,
        selection_mode="points",
        alt="Every feature by density and maximum activation",
    )
    st.button("See the map of directions", on_click=state.go, args=("map",), key="to-map")
with third:
    progress(cache)
parity_view.check(cache)
