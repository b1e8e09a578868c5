"""Steer: one prompt, answered by the model as it is and with features or directions turned, side by side."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from html import escape

import streamlit as st

from app import answers, resources, settings, state
from app.controls import controls
from app.conversation import earlier_turns, next_turn, plain_completion
from app.desk import (
    DESK,
    NOW,
    begin_anew,
    desk,
    history,
    key,
    link,
    put,
    question,
    run_in_view,
    scale,
    stop,
    take_model,
    take_persona,
    take_question,
    turns,
    typed,
)  # fmt: skip
from app.direction_form import make_a_direction
from app.dose import dose_bar, strips, under
from app.engine import Engine
from app.facts import bare, markdown_text
from app.ledger import side_effects
from app.next_tokens import next_tokens
from app.runs import Run
from app.settings import BOUNDS, MOST_SLIDERS, QUESTIONS, Settings
from app.shelf import shelf
from app.sliders import PLACES, finder, slider_row, what_modes_do, what_one_means
from explorer import presets
from explorer.adapters import titled
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ExplorerError, SteeringError
from explorer.presets import Preset
from explorer.steering import POSITIONS

S = st.session_state
PAINTS = 15  # a second, at most
STRENGTHS = ((0.5, "1"), (1.0, "2"), (1.5, "3"), (2.5, "4"), (-1.0, None))


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


def prompt_side(
    cache: Cache, base: Engine, engine: Engine, now: Settings, labels: dict[int, str], known: list[Preset]
) -> None:
    """The prompt, Run and Stop, strengths, the settings that are seldom changed, and what is done with all of them."""
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
    model_picker(base, engine, now)
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
        put(plain=now.plain)
        st.checkbox(
            "Plain text", now.plain, key=key("plain"), on_change=typed, kwargs={"run": True},
            help="The model goes on from the prompt as it stands, without its chat template: a completion, not an answer.",
        )  # fmt: skip
    st.html(f'<p class="say">{escape(_sampling_words(now))}</p>')
    plain_completion(engine)
    put(controls=now.controls)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("aside")):
        st.checkbox(
            "With controls", now.controls, key=key("controls"), on_change=typed, kwargs={"run": True},
            help="Random directions of the same length and the flipped sign answer along: would a random push do the same?",
        )  # fmt: skip
        with st.popover("Modes", icon=":material/help:", key=key("help")):
            what_modes_do()
        with st.popover("Save", icon=":material/bookmark:", key=key("save")):
            own_presets(cache, known)
        with st.popover("Share", icon=":material/link:", key=key("share")):
            share(cache, engine, now)
        st.button(
            "Reset", icon=":material/restart_alt:", type="tertiary", key=key("reset"), on_click=begin_anew,
            args=(first_visit(cache, labels, known),), help="Everything as on a first visit; earlier runs stay on the shelf",
        )  # fmt: skip


def model_picker(base: Engine, engine: Engine, now: Settings) -> None:
    """Which model is steered, where the cache has fine-tunes beside its own; nothing where it has none."""
    names = ["", *base.adapters()]
    if len(names) < 2:
        return
    put(model=now.model)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("whose")):
        st.selectbox(
            "Model", names, names.index(now.model), key=key("model"), on_change=take_model, width=260,
            format_func=lambda name: bare(titled(name))[:60] if name else "Base", label_visibility="collapsed",
        )  # fmt: skip
        if now.model:
            waits = engine.busy and base.state == "ready"
            st.fragment(whose_answers, run_every=0.7 if waits else None)(base, engine, waits)


def whose_answers(base: Engine, engine: Engine, waited: bool) -> None:
    """What a fine-tune is, and how far it is with loading."""
    if waited and not engine.busy:
        st.rerun()  # once: the clock stops
    words = f"{engine.warming}…" if engine.busy else "fine-tuned: the unsteered answer is the tuned model's own"
    st.html(f'<p class="say" role="status">{words}</p>')
    run = desk().run
    if engine.error and engine.error is not base.error and not (run and run.error is engine.error):
        state.show_error(engine.error)


def _sampling_words(now: Settings) -> str:
    s = now.sampling
    drawn = f"temperature {s.temperature:g}, top-p {s.top_p:g}" if s.temperature else "greedy"
    system = "with a system prompt, " if now.system else ""
    plain = "plain text, " if now.plain else ""
    return f"{plain}{system}seed {s.seed}, {drawn}, repetition penalty {s.repetition_penalty:g}, up to {s.max_tokens} tokens"


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
            label, low, high, getattr(now.sampling, name), step=step, key=key(name), help=words, on_change=typed,
            kwargs={"run": True},
        )  # fmt: skip


def steering_side(
    cache: Cache, engine: Engine, now: Settings, labels: dict[int, str], known: list[Preset], directions: Mapping[str, Direction]
) -> None:  # fmt: skip
    """Personas, the sliders, and what else belongs to the steering."""
    fits = next((p.name for p in known if now.is_preset(p)), None)
    if known:
        titles = {p.name: markdown_text(p.title, 30) for p in known}
        put(persona=fits)
        st.pills(
            "Personas", list(titles), default=fits, key=key("persona"), format_func=lambda name: titles.get(name, "?"),
            on_change=take_persona, args=(known,), label_visibility="collapsed",
        )  # fmt: skip
    measured = strips(engine, question(now))
    for slider in now.sliders:
        strip = measured.get(slider.edit.target) if slider.on else None
        slider_row(cache, engine, slider, labels, directions, strip and partial(under, slider, strip))
    if not now.sliders:
        st.html('<p class="say">No feature is chosen: both answers will be the same. Add one below.</p>')
    dose_bar(engine, question(now), measured, what_one_means(now))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key("more")):
        full = len(now.sliders) >= MOST_SLIDERS
        with st.popover("Add a feature", icon=":material/add:", disabled=full, key=key("add")):
            finder(cache, now, labels, directions)
        with st.popover("Make a direction", icon=":material/arrow_outward:", key=key("direction")):
            make_a_direction(cache, engine, directions, labels)
        st.html('<span class="say">Steered tokens</span>', width="content")
        put(positions=now.positions)
        st.segmented_control(
            "Steered tokens", list(POSITIONS), default=now.positions, key=key("positions"),
            format_func=lambda p: PLACES.get(p, str(p)), required=True,
            help="  \n".join(f"**{PLACES.get(n, n)}**: {words}" for n, words in POSITIONS.items()),
            on_change=typed, kwargs={"run": True}, label_visibility="collapsed", width="content",
        )  # fmt: skip


def own_presets(cache: Cache, known: list[Preset]) -> None:
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


def share(cache: Cache, engine: Engine, now: Settings) -> None:
    """The address of this page with every setting in it, and with what it was made."""
    base = (st.context.url or "").split("?")[0].rstrip("/")
    query = {**settings.write(now), **settings.stamp(cache.manifest, engine.adapter_fingerprint)}
    beside = ", not the earlier turns of a conversation" if turns() else ""
    st.html(
        f'<p class="say">This link restores every setting of the page{beside}. It warns where another model or SAE is.</p>'
    )
    st.code(f"{base.removesuffix('/steer')}/{state.link('steer', **query)}", language=None, wrap_lines=True)


def first_visit(cache: Cache, labels: dict[int, str], known: list[Preset]) -> Settings:
    """What is ready to run where the link says nothing: the first preset, else the strongest labelled feature."""
    if known:
        return Settings().with_preset(known[0])
    maxima = cache.maxima
    named = [i for i in labels if 0 <= i < len(maxima)]
    feature = max(named or range(len(maxima)), key=maxima.__getitem__)
    return Settings().adding(feature)


def follow(run: Run, box, changed: bool) -> None:
    """Paint the run until it ends, or until Streamlit ends this script because something was clicked."""
    seen = None
    while True:
        over = run.wait(1 / PAINTS if seen else 0)
        run.watch()
        if seen != (look := (run.version, answers.waiting(run))):
            seen = look
            box.html(answers.grid(run, changed=changed))
        if over:
            return
        S.get(DESK)  # a place where Streamlit may end this script


def follow_scores(run: Run, box, changed: bool) -> None:
    """Paint the answers once more when the judges have read them."""
    if not run.judging:
        return
    while not run.wait_scores(0.1):
        S.get(DESK)
    box.html(answers.grid(run, changed=changed))


def below(cache: Cache, run: Run, now: Settings, box, changed: bool, labels: dict[int, str]) -> None:
    """What there is to say of a run, from trouble to controls."""
    if run.error:
        state.show_error(run.error)
        st.button("Retry", key=key("retry"), on_click=typed, kwargs={"run": True})
    if warning := answers.notice(run):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(warning)
            if abs(now.strongest) > 1:
                st.button("Go to 1.00", key=key("calm"), on_click=scale, args=(1.0,))
    next_turn(run)
    broken, further = st.empty(), st.container()
    if run.steered.pieces:
        history().keep(run.record())
    shelf(cache, run)
    follow_scores(run, box, changed)
    broken.html(answers.is_it_broken(run))
    if run.steered.pieces:
        history().keep(run.record())  # with its scores
    with further:
        controls(cache, run, labels)
        side_effects(cache, run, labels)
        next_tokens(run)


cache = state.cache()
base = engine = resources.engine(state.cache_name() or "")
labels = state.label_texts(cache)
directions: Mapping[str, Direction] = {}
known: list[Preset] = []
troubles: list[ExplorerError] = []
try:
    directions = engine.directions()
except ExplorerError as error:
    troubles.append(error)
try:
    known = presets.load(cache)
except SteeringError as error:
    troubles.append(error)
query = link()
default = None if "edits" in query else first_visit(cache, labels, known)
now, nonsense = settings.read(query, cache, default, directions, base.adapters())
try:
    engine = base.on(now.model)
except ExplorerError as error:  # its folder cannot be read: the base goes on
    troubles.append(error)
    now = replace(now, model="")
S[NOW] = now
state.remember("steer")  # before the answer streams: who leaves meanwhile finds it again
run = run_in_view(engine, now)
if other := settings.foreign(query, cache.manifest, engine.adapter_fingerprint):
    st.html(
        f'<div class="trouble amber words" role="status">This link was made {escape(" and ".join(other))}. The same '
        "numbers may mean other features: the answers will differ.</div>"
    )
left, right = st.columns(2, gap="medium")
with left:
    prompt_side(cache, base, engine, now, labels, known)
with right:
    steering_side(cache, engine, now, labels, known, directions)
for trouble in troubles:
    state.show_error(trouble)
if nonsense:
    st.html(
        '<div class="trouble words" role="status">Not everything in this link made sense and was left out: '
        f"{escape('; '.join(nonsense[:4]))}.</div>"
    )
earlier_turns(now)
box = st.empty()
if run is None:
    box.html(answers.grid(None))
    st.html(answers.is_it_broken(None))
    shelf(cache, None)
else:
    changed = run.question != question(now)
    follow(run, box, changed)
    while run.abandoned:  # the machine was too busy to look at it in time
        desk().run = run = run.again()
        follow(run, box, changed)
    below(cache, run, now, box, changed, labels)
if engine is not base:
    engine.warm_up()
