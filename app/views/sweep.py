"""Sweep: strengths on several questions, or several features at several strengths, in one table of judged answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from app import resources, settings, state, sweep_grid, sweeps
from app.engine import Engine
from app.facts import bare, markdown_text, veiled
from app.feature_row import named
from app.sliders import PLACES
from app.sweeps import KINDS, Sweep
from app.watched import busy, progress, trouble, watched
from explorer import presets, search
from explorer.adapters import titled
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ExplorerError
from explorer.judging import COHERENT_RULE, judges
from explorer.presets import Preset
from explorer.records import Sampling
from explorer.steering import POSITIONS

S = st.session_state
NOW, JOB = "sweep-now", "sweep-job"
FOUND = 12


def key(name: str) -> str:
    return f"sweep-{name}"


def put(**values: object) -> None:
    """Bring widgets to what the link says."""
    for name, value in values.items():
        if S.get(key(name)) != value:
            S[key(name)] = value


def keep(sweep: Sweep, default: Sweep) -> None:
    """Make this the set-up: the link is where it lives."""
    others = {k: st.query_params.get_all(k) for k in st.query_params if k not in sweeps.KEYS}
    st.query_params.from_dict({**others, **sweeps.write(sweep, default)})


def typed(cache: Cache, default: Sweep, directions: Mapping[str, Direction]) -> None:
    """The set-up as it stands in the boxes."""
    now: Sweep = S[NOW]
    said = {"edits": S.get(key("edits"), "") or settings.NO_EDITS}
    said |= {name: S[key(name)] for name in ("strengths", "features", "questions") if key(name) in S}
    read, bad = sweeps.read(said, cache, now, directions)
    S[key("bad")] = bad
    chosen = {name: S.get(key(name)) or getattr(now, name) for name in ("kind", "trait", "positions")}
    numbers = [S.get(key(name)) for name in ("seed", "max_tokens")]
    sampling = Sampling(seed=int(numbers[0] or 0), max_tokens=int(numbers[1] or now.sampling.max_tokens))
    keep(replace(read, **chosen, sampling=sampling, model=S.get(key("model"), now.model) or ""), default)


def take_persona(known: list[Preset], default: Sweep) -> None:
    """The edits of a preset."""
    if chosen := next((p for p in known if p.name == S.get(key("persona"))), None):
        keep(replace(S[NOW], edits=chosen.edits[: settings.MOST_SLIDERS], positions=chosen.positions), default)


def take_found(cache: Cache, labels: dict[int, str], default: Sweep) -> None:
    """The features that a search finds."""
    found = search.search(cache, query=S.get(key("find"), ""), sort="match", status="live", labels=labels, limit=FOUND)
    keep(replace(S[NOW], features=tuple(row.index for row in found.rows)), default)


def start(base: Engine, engine: Engine, sweep: Sweep) -> None:
    """Begin to decode and judge; what was under way ends."""
    stop()
    S[JOB] = (base, sweep, engine.grid(sweep))


def stop() -> None:
    if said := S.get(JOB):
        said[2].stop()


# --- what is drawn


def what_is_pushed(
    cache: Cache,
    now: Sweep,
    default: Sweep,
    labels: dict[int, str],
    known: list[Preset],
    directions: Mapping[str, Direction],
) -> None:
    """Left: features or one set of edits."""
    change = {"on_change": typed, "args": (cache, default, directions)}
    put(kind=now.kind)
    st.segmented_control(
        "Kind", list(KINDS), default=now.kind, key=key("kind"), format_func=lambda k: KINDS.get(k) or str(k), required=True,
        label_visibility="collapsed", **change,
    )  # fmt: skip
    if now.kind == "questions":
        edits = sweeps.write(now, now)["edits"].replace(",", ", ")
        put(edits="" if edits == settings.NO_EDITS else edits)
        left, right = st.columns([1.6, 1], vertical_alignment="bottom")
        left.text_input(
            "Steered with", key=key("edits"), placeholder="1760:1:add, 808:0.5:add", max_chars=300,
            help="feature:strength:mode, as in a link of Steer; ~name for a direction. Of several the proportions count.", **change,
        )  # fmt: skip
        if known:
            titles = {p.name: markdown_text(p.title, 30) for p in known}
            right.selectbox(
                "or a persona", list(titles), index=None, key=key("persona"), format_func=lambda name: titles.get(name) or "?",
                placeholder="Take a persona", on_change=take_persona, args=(known, default),
            )  # fmt: skip
        st.html(f'<p class="say words">{pushed_words(cache, now, labels)}</p>')
    else:
        put(features=" ".join(map(str, now.features)))
        st.text_area(
            "Candidates, as numbers",
            key=key("features"),
            height=68,
            placeholder="12 88 1207 1760",
            max_chars=400,
            **change,
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.text_input("or the best of a search", key=key("find"), max_chars=200, placeholder="king, laughter, cold")
            st.button(f"Take its first {FOUND}", key=key("take"), on_click=take_found, args=(cache, labels, default))


def pushed_words(cache: Cache, now: Sweep, labels: dict[int, str]) -> str:
    """What the edits are called, as HTML."""
    if not now.edits:
        return "Name at least one feature or direction, or take a persona."
    said = []
    for edit in now.edits:
        name = "direction" if edit.direction else named(cache, edit.feature, labels)
        said.append(f"{edit.strength:+.2f} × {sweep_grid.spelt(edit.target)} {veiled(name)}")
    return "; ".join(said)


def how_it_is_asked(
    cache: Cache, now: Sweep, default: Sweep, directions: Mapping[str, Direction], models: Sequence[str]
) -> None:
    """Right: strengths, questions, the judge, and whose answers where there are fine-tunes."""
    change = {"on_change": typed, "args": (cache, default, directions)}
    put(
        strengths=" ".join(f"{s:g}" for s in now.strengths),
        questions="\n".join(now.questions),
        seed=now.sampling.seed,
        max_tokens=now.sampling.max_tokens,
    )
    known = {name: judge.label for name, judge in judges().items() if judge.needs in ("nothing", "embedder")}
    put(trait=now.trait if now.trait in known else next(iter(known)), positions=now.positions)
    top = st.columns([2, 1.3, 1.2, 1, 1])
    top[0].text_input("Strengths", key=key("strengths"), max_chars=120, help="In multiples of the maximum", **change)
    top[1].selectbox(
        "Judged for", list(known), key=key("trait"), format_func=lambda n: known.get(n) or str(n), **change
    )
    top[2].selectbox(
        "Steered tokens", list(POSITIONS), key=key("positions"), format_func=lambda p: PLACES.get(p) or str(p), **change
    )
    top[3].number_input("Seed", 0, 2**31 - 1, key=key("seed"), **change)
    top[4].number_input("Most tokens", 4, 200, step=8, key=key("max_tokens"), **change)
    st.text_area("Questions, one a line", key=key("questions"), height=96, **change)
    if models:
        put(model=now.model)
        st.selectbox(
            "Model", ["", *models], key=key("model"), width=260, label_visibility="collapsed",
            format_func=lambda name: bare(titled(name))[:60] if name else "Base", **change,
        )  # fmt: skip


def results(cache: Cache, base: Engine, engine: Engine, now: Sweep, labels: dict[int, str]) -> None:
    """The run, its progress, and the table.

    Args:
        base: The engine of the cache's own model; `engine` is that of the model that `now` asks.
    """
    said = S.get(JOB)
    sweep, job = said[1:] if said and said[0] is base else (now, None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        wrong = now.missing or (now.answers > sweeps.MOST_ANSWERS and "fewer answers")
        st.button(
            f"Run {now.answers} answers", type="primary", icon=":material/play_arrow:", shortcut="Mod+Enter", key=key("go"),
            on_click=start, args=(base, engine, now), disabled=bool(wrong) or busy(job),
        )  # fmt: skip
        st.html(f'<p class="say">{verdict(now)}</p>')
    with st.container(key=key("results")):
        if job is None:
            st.html('<p class="say">Here comes a table of answers, deeper teal for more of the trait.</p>')
        elif busy(job):
            progress(job, engine.warming or "answering and judging", key=key("cancel"))
        elif not trouble(job):
            table(cache, sweep, job.result, now, labels)


def verdict(now: Sweep) -> str:
    if now.missing:
        return f"Choose {now.missing} first."
    if now.answers > sweeps.MOST_ANSWERS:
        return f"That is {now.answers:,} answers; at most {sweeps.MOST_ANSWERS} go at once: take fewer of something."
    return "Decoded together in the background; live answers go first. The link of this page holds the set-up."


def table(cache: Cache, sweep: Sweep, cells: list, now: Sweep, labels: dict[int, str]) -> None:
    """The answers, and the files to take away."""
    judge = judges().get(sweep.trait)
    label = judge.label if judge else sweep.trait
    found = sweeps.groups(cells, sweep.trait)
    if sweep != now:
        st.html('<p class="say" role="status">The set-up has changed since: run again.</p>')
    st.html(
        f'<p class="say words">Each box is what the model answered; the deeper its teal, the higher “{escape(label)}”. '
        f"Sorted by effect among answers that are whole. {escape(COHERENT_RULE)}</p>"
    )
    if sweep.kind == "questions":
        st.html(sweep_grid.by_question(found[0], sweep.trait, label))
    else:
        names = {group.edits[0].target: named(cache, group.edits[0].feature, labels) for group in found}
        links = {
            group.edits[0].target: state.link(
                "steer", edits=f"{group.edits[0].target}:{group.best:g}:add", model=sweep.model or None
            )
            for group in found
        }
        st.html(sweep_grid.by_feature(found, sweep.trait, label, names, links.__getitem__))
    exports(cache, sweep, cells)


def exports(cache: Cache, sweep: Sweep, cells: list) -> None:
    """The table as CSV, and as one HTML file that needs no network."""
    from explorer import sheets

    made = cache.manifest
    whose = f", fine-tuned: {titled(sweep.model)}" if sweep.model else ""
    note = f"{made.model} ({made.model_fingerprint[:12]}){whose}, {sweep.positions} steered, seed {sweep.sampling.seed}. {COHERENT_RULE}"
    with st.container(horizontal=True, gap="small"):
        for name, data, mime in (
            ("CSV", sheets.as_csv(cells), "text/csv"),
            ("HTML", sheets.as_html(cells, title=f"Sweep of {cache.name}", judge=sweep.trait, note=note), "text/html"),
        ):
            st.download_button(
                name, data, f"sweep.{name.lower()}", mime, key=key(f"export-{name}"), type="tertiary",
                icon=":material/download:", on_click="ignore",
            )  # fmt: skip


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    base = engine = resources.engine(state.cache_name() or "")
    labels = state.label_texts(cache)
    known, directions = [], {}
    try:
        known, directions = presets.load(cache), base.directions()
    except ExplorerError as error:
        state.show_error(error)
    default = Sweep(edits=known[0].edits[: settings.MOST_SLIDERS] if known else ())
    now, bad = sweeps.read(st.query_params.to_dict(), cache, default, directions, models := base.adapters())
    try:
        engine = base.on(now.model)
    except ExplorerError as error:  # its folder cannot be read: the base goes on
        state.show_error(error)
        now = replace(now, model="")
    S[NOW] = now
    state.remember("sweep")
    st.html(
        '<div class="head"><h1>Sweep</h1></div><p class="say">One push at many strengths on many questions, or many features: '
        "“which of these does it?” Strength 1 is a feature's own maximum in the corpus.</p>"
    )
    left, right = st.columns([1, 1.5], gap="large")
    with left:
        what_is_pushed(cache, now, default, labels, known, directions)
    with right:
        how_it_is_asked(cache, now, default, directions, list(models))
    if bad := [*bad, *S.pop(key("bad"), [])]:
        st.html(
            '<div class="trouble words" role="status">Not everything here made sense and was left out: '
            f"{escape('; '.join(bad[:4]))}.</div>"
        )
    watched(lambda: results(cache, base, engine, now, labels), lambda: (S.get(JOB) or (None, None, None))[2])


main()
