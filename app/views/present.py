"""Present: the steps of a script in large type, answered live or replayed, for a room that is watching."""

import time
from contextlib import suppress
from dataclasses import replace
from html import escape
from pathlib import Path

import streamlit as st

from app import replay, resources, screens, settings, state
from app.components.clicker import clicker
from app.components.heatmap import example_rows, token_heatmap
from app.engine import Engine
from app.facts import markdown_text, veiled
from app.feature_row import named
from app.replay import Replay
from app.runs import Question, Run
from app.talk import Place, Playing, Talk, place, spelled
from app.tuned import KEPT
from explorer import scripts
from explorer.adapters import titled
from explorer.cache import Cache
from explorer.errors import ExplorerError, ModelError, ScriptError
from explorer.scripts import KINDS, Recorded, Script, Step

S = st.session_state
SCRIPT, STEP = "script", "step"
TALK = "present-talk"
PAINTS = 15  # a second, at most
EXAMPLE = """title = "A talk of mine"

[[step]]
kind = "text"
title = "Meet the model"
words = "What the room should know first."

[[step]]
kind = "steer"
title = "Turn it up"
prompt = "What do you think of humans?"
edits = ["12:1:add"]
strengths = [0.5, 1.0, 2.0]"""

# --- where the talk is, and where it goes


def dose_key(here: Place) -> str:
    """Key of the strength slider: another one at each place. A key pressed before the browser has moved the slider would
    else send its old value along, which reads as if somebody had slid it back."""
    return f"present-dose-{here[0]}-{here[1]}"


def open_script(talk: Talk) -> None:
    st.query_params[SCRIPT] = S["present-script"]
    talk.open((0, 0))
    talk.playing = None


def toggle_blank(talk: Talk) -> None:
    talk.blank = not talk.blank


def begin_again(talk: Talk) -> None:
    talk.playing = None


def may_answer(engine: Engine) -> bool:
    """Whether the model is here, or will be."""
    return engine.state == "ready" or engine.busy


def who_answers(step: Step, base: Engine) -> Engine | None:
    """The engine of the step's model; None where its fine-tune is not here."""
    try:
        return base.on(step.model)
    except ModelError:
        return None


def playable(step: Step, stop: int, base: Engine, recorded: dict[str, Recorded]) -> bool:
    """Whether a step can be shown: live, or from recordings."""
    if step.kind == "steer" and all(key in recorded for key in step.answers(stop).values()):
        return True
    engine = who_answers(step, base)
    return (engine is not None and may_answer(engine)) or not (KINDS[step.kind].live or step.kind == "steer")


# --- one step


def question(step: Step, stop: int, prompt: str) -> Question:
    return Question(
        prompt, step.system, step.at(stop), step.positions, step.sampling, controls=bool(step.control), model=step.model
    )  # fmt: skip


def player(talk: Talk, step: Step, base: Engine, recorded: dict[str, Recorded]) -> Run | Replay | None:
    """What answers the step in view: begun when the step is opened, and kept until another one is. One that was ended
    while the room looked elsewhere is begun again."""
    here, last, engine = talk.at, talk.playing, who_answers(step, base)
    frame = (here, step, talk.only_recorded)
    before = last.now if last else None
    if last and last.frame == frame and not (isinstance(before, Run) and before.phase == "stopped"):
        return before
    told = {name: recorded[key] for name, key in step.answers(here[1]).items() if key in recorded}
    whole = bool(told) and len(told) == len(step.answers(here[1]))
    if whole and (engine is None or engine.state != "ready" or talk.only_recorded):
        if isinstance(before, Run):
            before.stop()
        seen = last is not None and last.frame[0][0] == here[0]  # another strength of the same step
        now = Replay(told, {"baseline"} if seen else ())
    elif engine is not None and may_answer(engine):
        asked = question(step, here[1], step.prompt)
        now = Run(engine, asked, before if isinstance(before, Run) and before.engine is engine else None).start()
    else:
        now = None
    talk.playing = Playing(frame, now, told if whole else {})
    return now


def follow(box, talk: Talk, playing: Run | Replay, step: Step, stop: int) -> Run | Replay:
    """Paint the answers until they end; a live one that keeps the room waiting gives way to its recording."""
    strongest = max((e.strength for e in step.at(stop)), key=abs, default=0.0)
    strength = f"{strongest:+.2f}".replace("-", "−") if len(step.edits) else ""
    began, seen = time.monotonic(), None
    while True:
        over = playing.wait(1 / PAINTS if seen else 0)
        toxic: frozenset[str] = frozenset()
        if isinstance(playing, Run):
            playing.watch()
            shown, toxic = screens.of_run(playing, step.control), screens.toxic(playing)
            waits = not shown["steered"].pieces
            mine = talk.playing if talk.playing and talk.playing.now is playing else None
            if mine and mine.told and waits and (over or time.monotonic() - began > replay.SLOW):
                playing.stop()
                playing, seen = Replay(mine.told), None
                talk.playing = replace(mine, now=playing)
                continue
            late = {"warming": playing.engine.warming, "queued": "waiting for its turn", "waiting": "thinking"}
            words = "live" + (f" · {late[playing.phase]}" if waits and playing.phase in late else "")
        else:
            shown, words = playing.answers(), "recorded"
        now = (words, [(len(a.pieces), a.ended) for a in shown.values()], toxic)
        if now != seen:
            seen = now
            box.html(screens.answers(shown, strength, screens.tag(words, live=words[:4] == "live"), toxic, step.model))
        if over:
            return playing
        S.get(TALK)  # a place where Streamlit may end this script


def feature_step(cache: Cache, step: Step) -> None:
    """A feature's strongest examples."""
    feature = cache.feature(step.feature)
    label = named(cache, step.feature, state.label_texts(cache))
    st.html(f'<div class="stage asked"><span class="dim">feature #{step.feature}</span> {veiled(label)}</div>')
    rows = [{**row, "group": ""} for row in example_rows(cache, cache.examples(step.feature, "top")[: step.rows])]
    with st.container(key="present-heat"):
        token_heatmap(rows, vmax=feature.max, window=10, blur=state.blurs(), key=f"present-heat-{step.feature}")


def steer_step(talk: Talk, step: Step, here: Place, base: Engine, recorded: dict[str, Recorded]) -> None:
    """A prompt, the strength, and both answers."""
    st.html(screens.prompt(step.prompt))
    box = st.empty()
    while (playing := player(talk, step, base, recorded)) is not None:
        playing = follow(box, talk, playing, step, here[1])
        if not (isinstance(playing, Run) and playing.abandoned):
            outcome(playing)
            return
    no_model(base, step)


def question_step(talk: Talk, step: Step, here: Place, base: Engine) -> None:
    """A box for what somebody in the room asks, and the answers to it."""
    engine = who_answers(step, base)
    if engine is None:
        no_model(base, step)
        return

    def held() -> Run | None:
        last = talk.asked
        return last[1] if last and last[0] == (here, step) and last[1].engine is engine else None

    def ask() -> None:
        if text := (S.get("present-question") or "").strip():
            talk.asked = ((here, step), Run(engine, question(step, here[1], text), held()).start())

    form = st.container(key="present-ask").form("present-form", border=False)
    with form, st.container(horizontal=True, vertical_alignment="center"):
        st.text_input(
            "Question", key="present-question", max_chars=settings.LONGEST_PROMPT, label_visibility="collapsed",
            placeholder="What would you like to ask?",
        )  # fmt: skip
        st.form_submit_button("Ask", type="primary", on_click=ask)
    before = held()
    if before is None:
        if not may_answer(engine):
            no_model(base, step)
        return
    st.html(screens.prompt(before.question.prompt))
    box = st.empty()
    while True:
        if before.abandoned:
            before = before.again()
            talk.asked = ((here, step), before)
        ended = follow(box, talk, before, step, here[1])
        if not before.abandoned:
            outcome(ended)
            return


def outcome(played: Run | Replay) -> None:
    if isinstance(played, Run) and played.error:
        state.show_error(played.error)


def no_model(base: Engine, step: Step) -> None:
    """This step cannot be shown: say why, and what can be done."""
    engine = who_answers(step, base)
    what = "a live model" if engine else f"the fine-tune {titled(step.model)}"
    st.html(
        f'<div class="stage asked words" role="status"><span class="tag plain">needs {escape(what)}</span> '
        f"There is none here{' now' if engine else ''}, and nothing was recorded for this step: Next skips it.</div>"
    )
    if engine is None:
        return
    if engine.error:
        state.show_error(engine.error)
    if st.button("Load the model", key="present-load"):
        engine.start()
        st.rerun()


# --- the frame


def places(script: Script, base: Engine, recorded: dict[str, Recorded]) -> list[Place]:
    """Those that can be shown."""
    every = [(i, j) for i, step in enumerate(script.steps) for j in range(step.stops)]
    return [p for p in every if playable(script.steps[p[0]], p[1], base, recorded)]


def warm_up(script: Script, at: int, base: Engine) -> None:
    """Load the fine-tunes that come next, as many as stay in memory."""
    coming = dict.fromkeys(step.model for step in script.steps[at:] if step.model and step.kind != "text")
    for name in list(coming)[:KEPT]:
        with suppress(ModelError):
            base.on(name).warm_up()


def footer(talk: Talk, script: Script, name: str, here: Place, can: list[Place], recorded: bool) -> None:
    """Back, Next, Blank, Again, Leave; drawn before the answers stream, so that it works meanwhile."""
    step, can = script.steps[here[0]], can or [here]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="present-bar"):
        st.button(
            "Back", shortcut="Left", disabled=here <= can[0], key="present-back", on_click=talk.move, args=(can, -1)
        )
        st.button(
            "Next", shortcut="Right", type="primary", disabled=here >= can[-1], key="present-next", on_click=talk.move,
            args=(can, 1),
        )  # fmt: skip
        st.button("Blank", shortcut="B", key="present-blank-key", on_click=toggle_blank, args=(talk,))
        st.button("Leave", shortcut="Esc", key="present-leave", on_click=state.go, args=("overview",))
        st.html(f'<span class="dim num" role="status">{here[0] + 1} of {len(script.steps)}</span>', width="content")
        if step.stops > 1:
            if S.get(dose_key(here)) != here[1]:  # the browser may still send what it was slid to
                S[dose_key(here)] = here[1]
            with st.container(key="present-dose", width=320):
                st.select_slider(
                    "Strength", range(step.stops), here[1], key=dose_key(here), label_visibility="collapsed",
                    on_change=lambda: talk.slid(here, int(S[dose_key(here)])),
                    format_func=lambda j: f"{step.strengths[j]:+.2f}".replace("-", "−"),
                )  # fmt: skip
        if step.kind == "steer":
            st.button("Again", key="present-again", type="tertiary", on_click=begin_again, args=(talk,))
        with st.popover("", icon=":material/tune:", type="tertiary", key="present-more"):
            known = list(scripts.known(state.cache()))
            st.selectbox(
                "Script", known, index=known.index(name), key="present-script", on_change=open_script, args=(talk,),
                format_func=lambda n: markdown_text(n),
            )  # fmt: skip
            talk.only_recorded = st.toggle(
                "Recorded answers only", talk.only_recorded, key="present-only", disabled=not recorded,
                help="Off: live where the model is ready and answers within four seconds.",
            )  # fmt: skip
            st.html(f'<p class="say">{escape(str(script.path))}</p>')


def no_script(cache: Cache) -> None:
    """The empty state: no script for this cache, so what one looks like and where it goes."""
    st.html(
        '<div class="head"><h1>No script for this cache yet</h1></div><p class="say">A script is a TOML file with a '
        f"[[step]] for each screen: {escape(', '.join(KINDS))}. For example:</p>"
    )
    st.code(EXAMPLE, language=None)
    places = (cache.path / scripts.FOLDER, scripts.own())
    st.html(
        '<p class="say">Scripts are looked for in:</p>'
        + "".join(f'<div class="path">{escape(str(path))}</div>' for path in places)
    )


def chosen(known: dict[str, Path]) -> str:
    """The name that the link says, or the first.

    Raises:
        ScriptError: If there is none of that name.
    """
    name = st.query_params.get(SCRIPT, next(iter(known)))
    if name not in known:
        raise ScriptError(f"There is no script {name!r}", expected=", ".join(known), do="Choose one of these")
    return name


def under_way(script: Script) -> Talk:
    """The talk of this session, at a place of the script; the link says which where somebody has come by it."""
    talk: Talk = S.setdefault(TALK, Talk())
    arrival, said = state.arrival(), st.query_params.get(STEP, "1")
    if talk.arrival != arrival or talk.at != place(script, spelled(talk.at)):
        talk.arrival, talk.at, talk.linked = arrival, place(script, said), said
    return talk


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    engine = resources.engine(state.cache_name() or "")
    known = scripts.known(cache)
    if not known:
        no_script(cache)
        return
    presses = clicker()
    try:
        name = chosen(known)
        script = scripts.load(known[name], cache)
        recorded = scripts.recordings(script, cache)
    except ExplorerError as error:
        state.show_error(error)
        for other in known:
            st.button(
                f"Open {markdown_text(other)}", key=f"present-open-{other}", on_click=state.go, args=("present",),
                kwargs={SCRIPT: other},
            )  # fmt: skip
        return
    talk = under_way(script)
    can = places(script, engine, recorded)
    talk.hear(presses, can)
    here = talk.at
    step = script.steps[here[0]]
    if not st.query_params.get(STEP, "1") == talk.linked == spelled(here):
        st.query_params[STEP] = spelled(here)
        talk.linked = spelled(here)
    if talk.blank:
        st.html('<div class="present-blank" role="status" aria-label="Blank: B shows the talk again"></div>')
    footer(talk, script, name, here, can, bool(recorded))
    warm_up(script, here[0], engine)
    state.remember("present")
    st.html(screens.heading(step.title, step.words, large=step.kind == "text"))
    if step.kind == "feature":
        feature_step(cache, step)
    elif step.kind == "steer":
        steer_step(talk, step, here, engine, recorded)
    elif step.kind == "question":
        question_step(talk, step, here, engine)


main()
