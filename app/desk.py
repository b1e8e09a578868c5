"""What the Steer page keeps in the session, and the callbacks that change it.

Settings live in the link. Each callback makes new settings of those in view, writes them there, and may ask for a run.
"""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from app import resources, settings, state
from app.engine import Engine
from app.runs import History, Question, Record, Run, Turn
from app.settings import BOUNDS, Settings, Slider
from explorer.presets import Preset
from explorer.records import Edit

S = st.session_state
RUN, ASKED, NOW, STAMP = "steer-run", "steer-asked", "steer-now", "steer-stamp"
TURNS, HISTORY = "steer-turns", "steer-history"


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
    return Question(now.prompt, now.system, now.edits, now.positions, now.sampling, turns(), now.shared, now.controls)


def run_in_view(engine: Engine, now: Settings) -> Run | None:
    """The run whose answers are shown; begun here if a callback asked for it."""
    before: Run | None = S.get(RUN)
    if before is not None and before.engine is not engine:  # another cache has been chosen
        before.stop()
        S.pop(RUN)
        S.pop(TURNS, None)
        before = None
    if S.pop(ASKED, False):
        run = S[RUN] = Run(engine, question(now), before).start()
        if before is not None and before.steered.pieces:
            history().keep(before.record())
        return run
    return before


def keep(new: Settings, *, run: bool = False) -> None:
    """Make these the settings: the link is where they live."""
    S[NOW] = new  # for another callback of the same moment
    others = {k: st.query_params.get_all(k) for k in st.query_params if k not in settings.KEYS}
    st.query_params.from_dict({**others, **settings.write(new), **S.get(STAMP, {})})
    if run:
        S[ASKED] = True
        resources.engine(state.cache_name() or "").start()  # before the page is drawn, so that its top bar says so


def typed(*, run: bool = False) -> None:
    """The texts, numbers and switches as they stand in their boxes."""
    now: Settings = S[NOW]
    numbers = {name: S.get(key(name)) for name in BOUNDS}
    sampling = replace(now.sampling, **{n: v for n, v in numbers.items() if v is not None})
    others = {name: S.get(key(name)) for name in ("prompt", "system", "positions", "shared", "controls")}
    keep(replace(now, sampling=sampling, **{n: t for n, t in others.items() if t is not None}), run=run)


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
        S[key("question")] = None
        keep(replace(S[NOW], prompt=chosen), run=True)


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
    S.pop(ASKED, None)
    if run := S.get(RUN):
        run.stop()


# --- the conversation


def go_on() -> None:
    """Ask what was typed, after the answers in view."""
    said, run = (S.get(key("next")) or "").strip(), S.get(RUN)
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


# --- earlier runs


def load(record: Record, *, run: bool) -> None:
    """The settings and the conversation of an earlier run."""
    asked = record.question
    S[TURNS] = asked.turns
    sliders = tuple(Slider(edit) for edit in asked.edits)
    texts = asked.prompt, asked.system
    keep(Settings(sliders, *texts, asked.positions, asked.sampling, asked.shared, asked.controls), run=run)
