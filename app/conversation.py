"""The conversation of the Steer page: earlier turns with both answers, and the box that adds the next one."""

from html import escape

import streamlit as st

from app.answers import prose
from app.desk import back_to, go_on, key, put, start_over, turns, typed
from app.engine import Engine
from app.facts import veiled
from app.runs import Run, Turn
from app.settings import LONGEST_PROMPT, Settings

OWN, BOTH = "each keeps its own history", "both share the steered one"


def earlier_turns(now: Settings) -> None:
    """What was said before the prompt: baseline and steered side by side, every turn to be edited or asked again."""
    said = turns()
    if not said:
        return
    with st.container(key=key("turns")):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(
                f'<p class="sec">Conversation, {len(said)} {"turn" if len(said) == 1 else "turns"} so far</p>',
                width="content",
            )
            put(shared=now.shared)
            st.segmented_control(
                "Histories", [False, True], default=now.shared, key=key("shared"), required=True, on_change=typed,
                format_func=lambda both: BOTH if both else OWN, label_visibility="collapsed", width="content",
                kwargs={"run": True},
            )  # fmt: skip
            st.button(
                "Start over", key=key("over"), type="tertiary", icon=":material/restart_alt:", on_click=start_over
            )
        for at, turn in enumerate(said):
            _turn(at, turn, now.shared)


def _turn(at: int, turn: Turn, shared: bool) -> None:
    words, edit, again = st.columns([12, 1.1, 1.6], vertical_alignment="top", gap="small")
    words.html(turn_html(turn, shared))
    for column, name, run, tip in (
        (edit, "Edit", False, "Take this turn back into the box above; what came after it goes"),
        (again, "Ask again", True, "Answer this turn anew as the sliders stand now; what came after it goes"),
    ):
        column.button(
            name, key=key("again" if run else "edit", at), type="tertiary", help=tip, on_click=back_to, args=(at,),
            kwargs={"run": run},
        )  # fmt: skip


def turn_html(turn: Turn, shared: bool) -> str:
    """A turn: the question across, both answers below it; the one that no model remembers is dimmed."""
    forgotten = ' class="forgotten" title="Neither model remembers this answer"' if shared else ""
    return (
        f'<div class="turn"><p class="asked"><b>You</b> {veiled(turn.user)}</p>'
        f'<div class="both"><div{forgotten}>{prose([turn.baseline])}</div>'
        f'<div class="said-steered">{prose([turn.steered])}</div></div></div>'
    )


def next_turn(run: Run) -> None:
    """The box that goes on after the answers in view, once both are whole."""
    if not (run.over and run.baseline.pieces and run.steered.pieces and run.phase != "failed"):
        return
    form = st.form(key("go-on"), clear_on_submit=True, border=False)
    with form, st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input(
            "Continue", key=key("next"), max_chars=LONGEST_PROMPT, label_visibility="collapsed",
            placeholder="Continue the conversation: both models remember what they said",
        )  # fmt: skip
        st.form_submit_button("Continue", key=key("send"), on_click=go_on)


def plain_completion(engine: Engine) -> None:
    """One line where the model takes no conversations."""
    if engine.state == "ready" and not engine.has_template:
        name = escape(engine.cache.manifest.model)
        st.html(
            f'<p class="say words" role="status">{name} has no chat template: it goes on from the prompt as plain text, '
            "and earlier turns stand before it.</p>"
        )
