"""Steer: one prompt, answered by the model as it is and with features turned up, down or off, side by side."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from html import escape

import streamlit as st

from app import answers, resources, settings, state
from app.engine import Engine
from app.facts import markdown_text, number, veiled
from app.runs import Question, Run
from app.settings import BOUNDS, MOST_SLIDERS, QUESTIONS, STEP, Settings, Slider
from explorer import presets, search
from explorer.cache import Cache
from explorer.errors import ExplorerError, SteeringError
from explorer.presets import Preset
from explorer.records import Edit
from explorer.steering import POSITIONS, STEERING_MODES

S = st.session_state
RUN, ASKED, NOW = "steer-run", "steer-asked", "steer-now"
PAINTS = 15  # a second, at most
STRENGTHS = ((0.5, "1"), (1.0, "2"), (1.5, "3"), (2.5, "4"), (-1.0, None))
PLACES = {"answer": "Answer", "prompt": "Prompt", "all": "All"}


def key(*parts: object) -> str:
    """Session key of a widget of this page."""
    return "-".join(("steer", *map(str, parts)))


def put(**values: object) -> None:
    """Bring widgets to what the link says; one that already says so is left alone, with the cursor in it.

    Every widget is given the same value as its default too: the browser falls back to it where a run of this script
    came so soon after the first that it never saw the value being set.
    """
    for name, value in values.items():
        if S.get(key(name)) != value:
            S[key(name)] = value


# --- callbacks: each makes new settings of those in view, writes them into the link, and may ask for a run


def keep(new: Settings, *, run: bool = False) -> None:
    """Make these the settings: the link is where they live."""
    S[NOW] = new  # for another callback of the same moment
    others = {k: st.query_params.get_all(k) for k in st.query_params if k not in settings.KEYS}
    st.query_params.from_dict({**others, **settings.write(new)})
    if run:
        S[ASKED] = True
        resources.engine(state.cache_name() or "").start()  # before the page is drawn, so that its top bar says so


def typed(*, run: bool = False) -> None:
    """The texts and numbers as they stand in their boxes."""
    now: Settings = S[NOW]
    numbers = {name: S.get(key(name)) for name in BOUNDS}
    sampling = replace(now.sampling, **{n: v for n, v in numbers.items() if v is not None})
    texts = {name: S.get(key(name)) for name in ("prompt", "system", "positions")}
    keep(replace(now, sampling=sampling, **{n: t for n, t in texts.items() if t is not None}), run=run)


def moved(feature: int) -> None:
    """The slider of a feature as it stands."""

    def read(slider: Slider) -> Slider:
        edit = slider.edit
        if edit.feature != feature:
            return slider
        mode = S.get(key("mode", feature), edit.mode)
        strength = S.get(key("strength", feature, edit.mode), edit.strength)
        return Slider(settings.fitted(Edit(feature, strength, mode)), S.get(key("on", feature), slider.on))

    keep(replace(S[NOW], sliders=tuple(read(s) for s in S[NOW].sliders)), run=True)


def take_question() -> None:
    if question := S.get(key("question")):
        S[key("question")] = None
        keep(replace(S[NOW], prompt=question), run=True)


def take_persona(known: Sequence[Preset]) -> None:
    if chosen := next((p for p in known if p.name == S.get(key("persona"))), None):
        keep(S[NOW].with_preset(chosen), run=True)


def scale(strength: float) -> None:
    keep(S[NOW].scaled(strength), run=True)


def add(feature: int) -> None:
    S[key("find")] = ""
    keep(S[NOW].adding(feature), run=True)


def take_away(feature: int) -> None:
    new = S[NOW].without(feature)
    keep(new, run=bool(new.sliders))


def stop() -> None:
    S.pop(ASKED, None)
    if run := S.get(RUN):
        run.stop()


def save_preset(cache: Cache) -> None:
    now: Settings = S[NOW]
    mine = Preset(S.get(key("preset-name"), ""), "", "", now.edits, prompt=now.prompt, positions=now.positions)
    change_presets(lambda: presets.save(cache, mine))
    if not S[key("preset-error")]:
        S[key("preset-name")] = ""


def change_presets(change: Callable[[], object]) -> None:
    """Do it, and keep what went wrong for the page to say."""
    S[key("preset-error")] = None
    try:
        change()
    except SteeringError as error:
        S[key("preset-error")] = error


# --- what is drawn


def prompt_side(engine: Engine, now: Settings) -> None:
    """The prompt, Run and Stop, strengths, and the settings that are seldom changed."""
    put(prompt=now.prompt, system=now.system)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        kind, words = (
            ("causal", "live") if engine.state == "ready" else ("plain", "warming up" if engine.busy else "no model")
        )
        st.html(f'<div class="head"><h1>Steer <span class="tag {kind}">{words}</span></h1></div>', width="content")
        st.selectbox(
            "Ready questions", QUESTIONS, index=None, key=key("question"), placeholder="Take a ready question",
            label_visibility="collapsed", on_change=take_question,
        )  # fmt: skip
    st.text_area(
        "Prompt", now.prompt, key=key("prompt"), height=92, max_chars=settings.LONGEST_PROMPT, on_change=typed,
        placeholder="Ask the model something", label_visibility="collapsed",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("actions")):
        st.button(
            "Run", type="primary", icon=":material/play_arrow:", shortcut="Mod+Enter", on_click=typed,
            kwargs={"run": True}, key=key("go"),
        )  # fmt: skip
        st.button("Stop", icon=":material/stop:", shortcut="Esc", on_click=stop, key=key("stop"))
        for strength, shortcut in STRENGTHS:
            st.button(
                f"{strength:+g}".replace("-", "−"), type="tertiary", shortcut=shortcut, disabled=not now.sliders,
                help="Sets the strongest slider to this, the others in proportion", key=key("scale", strength),
                on_click=scale, args=(strength,),
            )  # fmt: skip
    with st.expander("System prompt and sampling"):  # a title that changed with them would close it
        st.text_area(
            "System prompt", now.system, key=key("system"), height=68, max_chars=settings.LONGEST_SYSTEM, on_change=typed,
            placeholder="None",
        )  # fmt: skip
        sampling_boxes(now)
    st.html(f'<p class="say">{escape(_sampling_words(now))}</p>')


def _sampling_words(now: Settings) -> str:
    s = now.sampling
    drawn = f"temperature {s.temperature:g}, top-p {s.top_p:g}" if s.temperature else "greedy"
    system = "with a system prompt, " if now.system else ""
    return f"{system}seed {s.seed}, {drawn}, repetition penalty {s.repetition_penalty:g}, up to {s.max_tokens} tokens"


def sampling_boxes(now: Settings) -> None:
    """Seed, temperature, top-p, repetition penalty, length."""
    names = {
        "seed": ("Seed", 1, "The same seed draws the same answer."),
        "temperature": ("Temperature", 0.1, "0 always takes the likeliest token."),
        "top_p": ("Top-p", 0.05, "Draws from the likeliest tokens that together have this probability."),
        "repetition_penalty": ("Repetition penalty", 0.05, "Above 1, tokens that were used before become less likely."),
        "max_tokens": ("Most tokens", 10, "The answer is cut after so many."),
    }
    put(**asdict(now.sampling))
    for column, (name, (label, step, words)) in zip(st.columns(len(names)), names.items(), strict=True):
        low, high = BOUNDS[name]
        column.number_input(
            label,
            low,
            high,
            getattr(now.sampling, name),
            step=step,
            key=key(name),
            help=words,
            on_change=typed,
            kwargs={"run": True},
        )


def feature_side(cache: Cache, engine: Engine, now: Settings, labels: dict[int, str], known: list[Preset]) -> None:
    """Personas, the sliders, and what else belongs to the steering."""
    fits = next((p.name for p in known if now.is_preset(p)), None)
    if known:
        titles = {p.name: markdown_text(p.title, 30) for p in known}
        put(persona=fits)
        st.pills(
            "Personas", list(titles), default=fits, key=key("persona"), format_func=lambda name: titles.get(name, "?"),
            on_change=take_persona, args=(known,), label_visibility="collapsed",
        )  # fmt: skip
    for slider in now.sliders:
        slider_row(cache, engine, now, slider, labels.get(slider.edit.feature, ""))
    if not now.sliders:
        st.html('<p class="say">No feature is chosen: both answers will be the same. Add one below.</p>')
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("more")):
        with st.popover(
            "Add a feature", icon=":material/add:", disabled=len(now.sliders) >= MOST_SLIDERS, key=key("add")
        ):
            finder(cache, now, labels)
        put(positions=now.positions)
        st.segmented_control(
            "Steered tokens", list(POSITIONS), default=now.positions, key=key("positions"), format_func=lambda p: PLACES.get(p, str(p)),
            required=True, help="  \n".join(f"**{PLACES.get(n, n)}**: {words}" for n, words in POSITIONS.items()),
            on_change=typed, kwargs={"run": True}, label_visibility="collapsed", width="content",
        )  # fmt: skip
        with st.popover("Save", icon=":material/bookmark:", key=key("save")):
            own_presets(cache, now, known)
        with st.popover("Share", icon=":material/link:", key=key("share")):
            st.html('<p class="say">This link restores every setting of the page.</p>')
            st.code(share_link(now), language=None, wrap_lines=True)


def slider_row(cache: Cache, engine: Engine, now: Settings, slider: Slider, label: str) -> None:
    """One feature: on or muted, its name, mode, strength, and what the strength comes to."""
    edit, i = slider.edit, slider.edit.feature
    feature, mode = cache.feature(i), STEERING_MODES[edit.mode]
    strength_key = f"strength-{i}-{edit.mode}"  # the modes' ranges differ
    put(**{f"on-{i}": slider.on, f"mode-{i}": edit.mode})
    if mode.uses_strength:
        put(**{strength_key: edit.strength})
    said = {"on_change": moved, "args": (i,), "label_visibility": "collapsed"}
    with st.container(key=key("row", i, "on" if slider.on else "off")):
        on, name, how, strength, away = st.columns(
            [0.32, 2.6, 1.5, 3.6, 0.45], vertical_alignment="center", gap="small"
        )
        on.checkbox(f"Feature {i} steers", slider.on, key=key("on", i), **said)
        words = veiled(label) if label else f'<span class="dim">{veiled(feature.title) or "no words of its own"}</span>'
        href = escape(state.link("feature", feature=i))
        name.html(f'<div class="lever"><a href="{href}" target="_self" title="Open the feature">#{i}</a> {words}</div>')
        how.selectbox(
            f"Mode of feature {i}", list(STEERING_MODES), list(STEERING_MODES).index(edit.mode),
            key=key("mode", i),
            format_func=lambda m: STEERING_MODES[m].label, **said,
        )  # fmt: skip
        if mode.uses_strength:
            strength.slider(
                f"Strength of feature {i}", mode.lowest, mode.highest, edit.strength, step=STEP,
                format="%+.2f" if mode.lowest < 0 else "%.2f", key=key(strength_key), **said,
            )  # fmt: skip
        else:
            strength.html('<p class="say">No strength: the feature is taken out wherever it fires.</p>')
        away.button(
            "", icon=":material/close:", type="tertiary", key=key("away", i), help=f"Take feature {i} away",
            on_click=take_away, args=(i,),
        )  # fmt: skip
        facts = "".join(f"<span>{fact}</span>" for fact in strength_facts(engine, edit, feature.max))
        st.html(f'<div class="facts num dim lever-facts">{facts}</div>')


def strength_facts(engine: Engine, edit: Edit, maximum: float) -> list[str]:
    """What a strength comes to: the coefficient of the decoder vector, its length, and SAELens' number."""
    if not STEERING_MODES[edit.mode].uses_strength:
        return []
    if not maximum:
        return ["never fires in the corpus: it has no maximum to take a multiple of, and cannot be steered"]
    raw = edit.strength * maximum
    if edit.mode == "clamp":
        return [f"held at activation <b>{number(raw)}</b> (maximum {number(maximum)})"]
    facts = [
        f'<span title="Strength times the feature’s maximum of {number(maximum)}: what its decoder vector is '
        f'multiplied with">raw coefficient <b>{_signed(raw)}</b></span>'
    ]
    norm = engine.direction_norm(edit.feature)
    if norm is None:
        return [*facts, "length and SAELens’ number once the model is ready"]
    length = raw * norm
    return [
        *facts,
        f'<span title="Length of the change, over {number(engine.median_norm)}: the median length of the residual '
        f'stream here"><b>{length / engine.median_norm:+.2f}</b> residual norms</span>',
        '<span title="Coefficient of the decoder direction at length 1, as SAELens and Neuronpedia count">'
        f"SAELens <b>{_signed(length)}</b></span>",
    ]


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def finder(cache: Cache, now: Settings, labels: dict[int, str]) -> None:
    """A box for a number or words, and the features that were found."""
    query = st.text_input(
        "Number or words",
        key=key("find"),
        live=True,
        max_chars=200,
        placeholder="1760, or words of its label or tokens",
    )
    taken = {s.edit.feature for s in now.sliders}
    found = search.search(
        cache, query=query or "", sort="match" if query else "max", status="live", labels=labels, limit=8 + len(taken)
    )
    rows = [row for row in found.rows if row.index not in taken][:8]
    for row in rows:
        name = markdown_text(f"#{row.index} {row.label or row.title}")
        st.button(name, key=key("found", row.index), type="tertiary", on_click=add, args=(row.index,))
    if not rows:
        st.html('<p class="say" role="status">No other feature that fires holds these words.</p>')


def own_presets(cache: Cache, now: Settings, known: list[Preset]) -> None:
    """Save the sliders under a name; take saved ones away."""
    st.text_input("Name", key=key("preset-name"), max_chars=presets.LONGEST_NAME, placeholder="Name of your preset")
    st.button("Save these sliders", key=key("preset-save"), on_click=save_preset, args=(cache,))
    if error := S.get(key("preset-error")):
        state.show_error(error)
    for at, preset in enumerate(p for p in known if not p.bundled):
        st.button(
            f"Remove {markdown_text(preset.title, 30)}", icon=":material/delete:", type="tertiary", key=key("forget", at),
            on_click=change_presets, args=(partial(presets.remove, cache, preset.name),),
        )  # fmt: skip


def share_link(now: Settings) -> str:
    """The address of this page with every setting in it."""
    base = (st.context.url or "").split("?")[0].rstrip("/")
    return f"{base.removesuffix('/steer')}/{state.link('steer', **settings.write(now))}"


def exports(run: Run, cache: Cache) -> None:
    """The run as a file."""
    question = run.question
    record = {
        "cache": cache.name,
        "model": cache.manifest.model,
        "model_fingerprint": cache.manifest.model_fingerprint,
        "sae_fingerprint": cache.manifest.sae_fingerprint,
        "prompt": question.prompt,
        "system": question.system,
        "positions": question.positions,
        "sampling": asdict(question.sampling),
        "edits": [{**asdict(e), "maximum": cache.feature(e.feature).max} for e in question.edits],
        "baseline": run.baseline.text,
        "steered": run.steered.text,
        "state": run.phase,
    }
    table = io.StringIO()
    flat = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in record.items()}
    # a spreadsheet would take a cell that begins with one of these for a formula
    safe = {k: f"'{v}" if v[:1] in ("=", "+", "-", "@", "\t", "\r") else v for k, v in flat.items()}
    writer = csv.DictWriter(table, list(safe))
    writer.writeheader()
    writer.writerow(safe)
    with st.container(horizontal=True, gap="small"):
        for name, data, mime in (
            ("JSON", json.dumps(record, ensure_ascii=False, indent=1), "application/json"),
            ("CSV", table.getvalue(), "text/csv"),
        ):
            st.download_button(
                name, data, f"steer.{name.lower()}", mime, key=key("export", name), type="tertiary",
                icon=":material/download:", on_click="ignore",
            )  # fmt: skip


def first_visit(cache: Cache, labels: dict[int, str], known: list[Preset]) -> Settings:
    """What is ready to run where the link says nothing: the first preset, else the strongest labelled feature."""
    if known:
        return Settings().with_preset(known[0])
    maxima = cache.table.column("max").to_pylist()
    named = [i for i in labels if 0 <= i < len(maxima)]
    feature = max(named or range(len(maxima)), key=maxima.__getitem__)
    return Settings().adding(feature)


def follow(run: Run, box, changed: bool) -> None:
    """Paint the run until it ends, or until Streamlit ends this script because something was clicked."""
    seen = None
    while True:
        over = run.wait(1 / PAINTS if seen else 0)
        run.watch()
        if run.version != seen:
            seen = run.version
            box.html(answers.grid(run, changed=changed))
        if over:
            return
        S.get(RUN)  # a place where Streamlit may end this script


def known_presets(cache: Cache) -> tuple[list[Preset], ExplorerError | None]:
    try:
        return presets.load(cache), None
    except ExplorerError as error:
        return [], error


cache = state.cache()
engine = resources.engine(state.cache_name() or "")
labels = state.label_texts(cache)
known, preset_error = known_presets(cache)
query = dict(st.query_params)
now, nonsense = settings.read(query, cache, None if "edits" in query else first_visit(cache, labels, known))
S[NOW] = now
state.remember("steer")  # before the answer streams: who leaves meanwhile finds it again
question = Question(now.prompt, now.system, now.edits, now.positions, now.sampling)
before: Run | None = S.get(RUN)
if before is not None and before.engine is not engine:  # another cache has been chosen
    before.stop()
    before = None
if S.pop(ASKED, False):
    before = S[RUN] = Run(engine, question, before).start()
left, right = st.columns(2, gap="medium")
with left:
    prompt_side(engine, now)
with right:
    feature_side(cache, engine, now, labels, known)
if preset_error:
    state.show_error(preset_error)
if nonsense:
    st.html(
        '<div class="trouble words" role="status">Not everything in this link made sense and was left out: '
        f"{escape('; '.join(nonsense[:4]))}.</div>"
    )
box = st.empty()
run = before
if run is None:
    box.html(answers.grid(None))
else:
    follow(run, box, changed=run.question != question)
    if run.error:
        state.show_error(run.error)
        st.button("Retry", key=key("retry"), on_click=typed, kwargs={"run": True})
    if warning := answers.notice(run):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(warning)
            if abs(now.strongest) > 1:
                st.button("Go to 1.00", key=key("calm"), on_click=scale, args=(1.0,))
    if run.steered.pieces:
        exports(run, cache)
