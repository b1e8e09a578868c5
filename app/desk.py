"""What the Steer page keeps in the session, and the callbacks that change it.

Each callback makes new settings of those in view, writes them into the link, and may ask for a run. The session has the last word on what
the link says: the one that a browser sends may be older than what a callback has just written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from app import resources, settings, state
from app.engine import Engine
from app.runs import History, Question, Record, Run, Turn
from app.settings import BOUNDS, Settings, Slider
from explorer.errors import ModelError
from explorer.presets import Preset
from explorer.records import Edit

S = st.session_state
DESK, NOW = "steer-desk", "steer-now"
TURNS, HISTORY = "steer-turns", "steer-history"


@dataclass(slots=True)
class Desk:
    """What has to change in one go, which Streamlit's session does not: a script may be ended at any touch of it.

    Args:
        run: The run in view.
        asked: Whether another one is asked for.
        said: What the link says of the settings; None before one was read.
        arrival: The arrival (`state.arrival`) that it was read at.
        linked: What the browser was last told, or came with.
    """

    run: Run | None = None
    asked: bool = False
    said: dict[str, str] | None = None
    arrival: int | None = None
    linked: dict[str, str] | None = None


def desk() -> Desk:
    return S.setdefault(DESK, Desk())


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


def turns() -> tuple[Turn, ...]:
    """The conversation before the prompt; a link does not hold it."""
    return S.get(TURNS, ())


def history() -> History:
    """The last runs of this session."""
    return S.setdefault(HISTORY, History())


def question(now: Settings) -> Question:
    """What a run would be asked now."""
    return Question(
        now.prompt, now.system, now.edits, now.positions, now.sampling, turns(), now.shared, now.controls,
        now.plain, now.model,
    )  # fmt: skip


def link() -> dict[str, str]:
    """The link as the session has it; the browser is told where it says otherwise."""
    held, arrival, query = desk(), state.arrival(), _said()
    if held.said is None or held.arrival != arrival:
        held.arrival, held.said, held.linked = arrival, query, query
    elif not query == held.linked == held.said:
        _tell(held)
    return held.said or {}


def _said() -> dict[str, str]:
    return {k: st.query_params[k] for k in settings.KEYS if k in st.query_params}


def _tell(held: Desk) -> None:
    """Write the link into the browser's address."""
    others = {k: st.query_params.get_all(k) for k in st.query_params if k not in settings.KEYS}
    st.query_params.from_dict({**others, **(held.said or {})})
    held.linked = held.said


def run_in_view(engine: Engine, now: Settings) -> Run | None:
    """The run whose answers are shown; begun here if a callback asked for it, or if it ended because nobody looked."""
    held, asked, kept = desk(), question(now), history()
    before = held.run
    if before is not None and before.engine is not engine:  # another cache or another model has been chosen
        before.stop()
        if before.steered.pieces:
            kept.keep(before.record())
        held.run = None
        if before.question.turns == turns():
            S.pop(TURNS, None)
        before, asked = None, question(now)
    if held.asked:  # from here to the next note nothing touches the session
        held.asked = False
        held.run = Run(engine, asked, before).start()
        if before is not None and before.steered.pieces:
            kept.keep(before.record())
    elif before is not None and before.abandoned:
        held.run = before.again()
    return held.run


def keep(new: Settings, *, run: bool = False) -> None:
    """Make these the settings: the link is where they live."""
    S[NOW] = new  # for another callback of the same moment
    held, base = desk(), resources.engine(state.cache_name() or "")
    try:
        engine = base.on(new.model)
    except ModelError:  # the fine-tune is gone: the page says so when it reads the link
        engine = base
    held.said = {**settings.write(new), **settings.stamp(base.cache.manifest, engine.adapter_fingerprint)}
    if run:
        held.asked = True
        base.start()  # before the page is drawn, so that its top bar says so
        engine.start()
    _tell(held)


def typed(*, run: bool = False) -> None:
    """The texts, numbers and switches as they stand in their boxes."""
    now: Settings = S[NOW]
    numbers = {name: S.get(key(name)) for name in BOUNDS}
    sampling = replace(now.sampling, **{n: v for n, v in numbers.items() if v is not None})
    others = {name: S.get(key(name)) for name in ("prompt", "system", "positions", "shared", "controls", "plain")}
    keep(replace(now, sampling=sampling, **{n: t for n, t in others.items() if t is not None}), run=run)


def take_model() -> None:
    """The model that was chosen, asked at once; a conversation with another one is not its own."""
    S.pop(TURNS, None)
    keep(replace(S[NOW], model=S.get(key("model")) or ""), run=True)


def moved(target: str) -> None:
    """The slider of a feature or direction as it stands."""

    def read(slider: Slider) -> Slider:
        edit = slider.edit
        if edit.target != target:
            return slider
        mode = S.get(key("mode", target), edit.mode)
        strength = S.get(key("strength", target, edit.mode), edit.strength)
        return Slider(settings.fitted(Edit.of(target, strength, mode)), S.get(key("on", target), slider.on))

    keep(replace(S[NOW], sliders=tuple(read(s) for s in S[NOW].sliders)), run=True)


def take_question() -> None:
    """The ready question that was chosen, asked at once."""
    if chosen := S.get(key("question")):
        keep(replace(S[NOW], prompt=chosen), run=True)
        S[key("question")] = None


def take_persona(known: Sequence[Preset]) -> None:
    """The persona that was chosen, asked its own question."""
    if chosen := next((p for p in known if p.name == S.get(key("persona"))), None):
        keep(S[NOW].with_preset(chosen), run=True)


def scale(strength: float) -> None:
    """The strongest slider to `strength`, the others in proportion."""
    keep(S[NOW].scaled(strength), run=True)


def add(target: int | str) -> None:
    """A slider for a feature or direction."""
    S[key("find")] = ""
    keep(S[NOW].adding(target), run=True)


def take_away(target: str) -> None:
    """No slider for it any more."""
    new = S[NOW].without(target)
    keep(new, run=bool(new.sliders))


def stop() -> None:
    """End the run in view; its text stays."""
    held = desk()
    held.asked = False
    if held.run:
        held.run.stop()


# --- the conversation


def go_on() -> None:
    """Ask what was typed, after the answers in view."""
    said, run = (S.get(key("next")) or "").strip(), desk().run
    if said and run is not None and run.over:
        S[TURNS] = run.question.followed_by(said, run.baseline.text, run.steered.text).turns
        keep(replace(S[NOW], prompt=said[: settings.LONGEST_PROMPT]), run=True)


def back_to(turn: int, *, run: bool) -> None:
    """The conversation as it was when a turn was asked: to ask it again now, or to write it otherwise first."""
    asked = question(S[NOW]).back_to(turn)
    S[TURNS] = asked.turns
    keep(replace(S[NOW], prompt=asked.prompt), run=run)


def start_over() -> None:
    """No earlier turns; the prompt stays."""
    S.pop(TURNS, None)


def begin_anew(first: Settings) -> None:
    """The page as it is on a first visit, to be run."""
    S.pop(TURNS, None)
    keep(first)


# --- earlier runs


def load(record: Record, *, run: bool) -> None:
    """The settings and the conversation of an earlier run."""
    asked = record.question
    S[TURNS] = asked.turns
    sliders = tuple(Slider(edit) for edit in asked.edits)
    switches = asked.shared, asked.controls, asked.model, asked.plain
    keep(Settings(sliders, asked.prompt, asked.system, asked.positions, asked.sampling, *switches), run=run)
