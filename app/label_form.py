"""The form in which a person names a feature; the Feature page and the Label page share it.

Every box saves as it is left. The boxes show the label in the store; what could not be saved stays in them until it is.
"""

import time
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape

import streamlit as st

from app import resources
from app.components.browser import NAME_COOKIE, browser, decoded
from app.facts import veiled
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.evidence_lock import Evidence, changed, confirms, seen
from explorer.labels import BUNDLED, CONFIDENCES, LIMITS, Label, machine_user
from explorer.records import Example

AUTHOR = "label-author"
OWN = "label-own"
"""Session key: the changes that this session made, by their ids."""
DONE = "label-done"
"""Session key: the features that this session has saved, oldest first, as (sae, feature)."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Session keys of the form of one feature: three widgets, and what the form knows of the store."""

    place: str
    sae: str
    feature: int

    def __getattr__(self, name: str) -> str:
        return f"{self.place}-{name}-{self.sae[:12]}-{self.feature}"


def author() -> str:
    """Who labels here: the name typed in this browser, else the system's user, else "me"."""
    if AUTHOR not in st.session_state:
        st.session_state[AUTHOR] = decoded(st.context.cookies.get(NAME_COOKIE, "")) or machine_user()
    return st.session_state[AUTHOR]


def name_field() -> None:
    """A small menu with the name under which labels are saved; the browser remembers it."""

    def rename() -> None:
        name = " ".join(st.session_state["label-name"].split())[: LIMITS["author"]]
        if name and name != BUNDLED:
            st.session_state[AUTHOR] = name
            st.session_state["label-name-typed"] = name

    author()
    with st.popover("Your name", icon=":material/person:"):
        st.text_input("Your name", author(), key="label-name", max_chars=60, on_change=rename, autocomplete="name")
        st.caption("Saved with every label of yours. This browser remembers it; nobody needs to sign in.")
    browser(remember=st.session_state.get("label-name-typed"), key="label-name-keeper")


def clock(moment: datetime | None) -> str:
    """A time of today as 10:02 and another one as 31 Jan 2026 10:02, in the browser's time zone."""
    if moment is None:
        return ""
    try:
        zone = zoneinfo.ZoneInfo(st.context.timezone or "")
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        zone = None  # that of this machine
    local = moment.astimezone(zone)
    today = datetime.now(UTC).astimezone(zone).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local.day} {local:%b %Y %H:%M}"


def label_form(
    sae: str,
    feature: int,
    *,
    place: str = "feature",
    undo: bool = True,
    blind: bool = False,
    rests: tuple[Cache, Sequence[Example]] | None = None,
    letters: tuple[str, str, str] | None = None,
) -> Label | None:
    """Draw label, confidence and note of a feature; each saves as it is left.

    Args:
        sae: Fingerprint of the SAE.
        feature: Its feature.
        place: Names the page, so that two pages do not share widgets.
        undo: Draw an Undo button.
        blind: Do not tell what people have said so far.
        rests: The cache, and the examples in view: what a label that is saved here rests on.
        letters: Keys of three buttons: a flagged label still holds; of two people's words take theirs, or keep mine.
    Returns:
        The label as it is in the store, or the bundled one.
    """
    keys, state = Keys(place, sae, feature), st.session_state
    holds, other, own = letters or (None, None, None)
    state[keys.evidence] = seen(*rests).to_json() if rests and rests[1] else ""
    if keys.text not in state and (unsaved := state.get(keys.unsaved)):
        state[keys.text], state[keys.note], state[keys.sure] = unsaved  # Streamlit forgets boxes that are out of view
    try:
        store = resources.labels()
        shown, history = store.get(sae, feature), store.history(sae, feature)
    except ExplorerError:  # the head of the page says why
        if keys.text not in state:
            return None
        shown, history, unread = None, [], True  # what has been typed stays in its boxes
    else:
        unread = False
        if blind:
            shown = store.bundled(sae).get(feature)
        _fill(keys, shown, history)
        history = [] if blind else history
    st.text_input(
        "Label",
        key=keys.text,
        max_chars=LIMITS["label"],
        on_change=_left,
        args=(keys,),
        placeholder="What makes it fire?",
        autocomplete="off",
    )
    st.segmented_control(
        "Confidence",
        list(CONFIDENCES),
        format_func=lambda level: f"{level} {CONFIDENCES[level]}",
        key=keys.sure,
        on_change=_left,
        args=(keys,),
    )
    st.text_area(
        "Note",
        key=keys.note,
        max_chars=LIMITS["note"],
        on_change=_left,
        args=(keys,),
        height=68,
        placeholder="Optional",
    )
    if trouble := state.get(keys.trouble):
        if not unread:
            _complain(trouble)
        st.button("Try to save again", key=keys.again, on_click=_left, args=(keys,))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        told = "not saved" if unread or state.get(keys.trouble) else _said(shown, history)
        told = "none of yours yet; other people have named it" if blind and not (unread or shown) else told
        st.html(f'<div class="dim num" role="status">{told}</div>', width="stretch")
        if history:
            _history_menu(keys, history)
        if undo and history and history[-1].empty is False:
            st.button("Undo", key=keys.undo, on_click=_undo, args=(keys,), type="tertiary")
    if shown and rests and (moved := changed(shown.evidence, rests[0], feature)):
        _look_again(keys, moved, seen(*rests), holds)
    _conflict(keys, other, own)
    return shown


def _left(keys: Keys) -> None:
    save(keys)


def _undo(keys: Keys) -> None:
    undo_change(keys)


def save(keys: Keys) -> bool:
    """Store what is in the boxes if it differs from what was shown; whether nothing is left to save."""
    state = st.session_state
    said = _boxes(keys)
    if keys.text not in state:
        return True
    if said == state.get(keys.filled):
        state[keys.trouble] = state[keys.unsaved] = None
        return True
    try:
        saved, theirs = _lay(keys, state.get(keys.evidence, ""))
    except ExplorerError as error:
        state[keys.trouble], state[keys.unsaved] = error, said
        return False
    state[OWN].add(saved.id)
    state[keys.theirs] = theirs
    state[keys.seen], state[keys.filled] = saved.id, said
    state[keys.trouble] = state[keys.unsaved] = None
    state.setdefault(DONE, []).append((keys.sae, keys.feature))
    return True


def _confirm(keys: Keys, evidence: Evidence) -> None:
    """Say that somebody looked again and the label still holds: one more change, which rests on what is in view now.

    Args:
        evidence: What is in view.
    """
    state = st.session_state
    if _boxes(keys) != state.get(keys.filled):  # new words rest on what is in view anyway
        save(keys)
        return
    try:
        saved, theirs = _lay(keys, replace(evidence, again=True).to_json())
    except ExplorerError as error:
        state[keys.unheld] = error
        return
    if theirs:
        state[keys.theirs] = theirs
    state[keys.unheld], state[keys.seen] = None, saved.id
    if saved.id not in state[OWN]:  # pressed twice, it is there once
        state[OWN].add(saved.id)
        state.setdefault(DONE, []).append((keys.sae, keys.feature))


def _lay(keys: Keys, evidence: str) -> tuple[Label, Label | None]:
    """Store what the boxes say over what this session knows of; see `LabelStore.lay`."""
    label = Label(keys.sae, keys.feature, *_boxes(keys), author=author(), evidence=evidence)
    known = st.session_state.setdefault(OWN, set())
    return resources.labels().lay(label, {st.session_state.get(keys.seen), *known})


def undo_change(keys: Keys) -> bool:
    """Take the newest change of the feature back; whether there was one."""
    try:
        undone = resources.labels().undo(keys.sae, keys.feature, author=author())
    except ExplorerError as error:
        st.session_state[keys.trouble] = error
        return False
    st.session_state[keys.theirs] = st.session_state[keys.trouble] = None
    return undone is not None


def fill(keys: Keys, text: str) -> None:
    """Put words into the label's box, as if they had been typed; from a callback, before the form is drawn."""
    st.session_state[keys.text] = text


def _boxes(keys: Keys) -> tuple[str, str, int | None]:
    state = st.session_state
    return (state.get(keys.text) or "").strip(), state.get(keys.note) or "", state.get(keys.sure)


def _content(label: Label | None) -> tuple[str, str, int | None]:
    return (label.label, label.note, label.confidence) if label else ("", "", None)


def seen_since(theirs: Label) -> float:
    """When somebody else's words came into view here, by `time.monotonic`."""
    return st.session_state.setdefault(f"label-differ-{theirs.id}", time.monotonic())


def _fill(keys: Keys, shown: Label | None, history: list[Label]) -> None:
    """Put the store's label into the boxes, unless they hold something that could not be saved."""
    state = st.session_state
    newest = history[-1].id if history else None
    if keys.text in state and (state.get(keys.trouble) or state.get(keys.seen) == newest):
        return
    state[keys.text], state[keys.note], state[keys.sure] = _content(shown)
    state[keys.filled], state[keys.seen] = _boxes(keys), newest


def _look_again(keys: Keys, moved: str, evidence: Evidence, shortcut: str | None) -> None:
    """The label's evidence has changed: say so, and let the person say that it still holds."""
    with st.container(border=True, key=keys.look):
        st.html(f'<div class="say" role="note"><b>Look again:</b> {escape(moved)}.</div>')
        if error := st.session_state.get(keys.unheld):
            _complain(error)
        st.button(
            "It still holds", key=keys.holds, shortcut=shortcut, on_click=_confirm, args=(keys, evidence),
            help="You have looked at the examples that are here now: the label rests on them, as it stands.",
        )  # fmt: skip


def _said(shown: Label | None, history: list[Label]) -> str:
    if history and not (history[-1].empty and shown):
        what = "taken back" if history[-1].empty else "confirmed" if confirms(history[-1]) else "saved"
        return f"{what} <b>{clock(history[-1].created_at)}</b> by {escape(history[-1].author)}"
    return "came with the cache" if shown else "no label yet"


def _history_menu(keys: Keys, history: list[Label]) -> None:
    with st.popover(f"{len(history)} change{'s' if len(history) > 1 else ''}", type="tertiary", key=keys.history):
        lines = []
        for change in reversed(history[-30:]):
            sure = f" · {CONFIDENCES[change.confidence]}" if change.confidence else ""
            text = veiled(change.label) if change.label else "<i>no label</i>"
            note = f'<div class="dim">{veiled(change.note)}</div>' if change.note else ""
            if confirms(change):
                text, note = f"looked again, it still holds: {text}", ""
            lines.append(
                f'<div style="padding:.3rem 0"><b>{text}</b>{note}'
                f'<div class="dim num">{clock(change.created_at)} · {escape(change.author)}{sure}</div></div>'
            )
        st.html(f'<div style="min-width:18rem;overflow-wrap:anywhere">{"".join(lines)}</div>')


def _conflict(keys: Keys, other: str | None, own: str | None) -> None:
    """Two people wrote at the same time: say so, and let this one choose."""
    theirs: Label | None = st.session_state.get(keys.theirs)
    if theirs is None:
        return
    seen_since(theirs)

    def take() -> None:
        state = st.session_state
        state[keys.text], state[keys.note], state[keys.sure] = _content(theirs)
        save(keys)

    def keep() -> None:
        st.session_state[keys.theirs] = None

    words = f"“{veiled(theirs.label)}”" if theirs.label else "no label"
    with st.container(border=True):
        st.html(
            f'<div role="alert">{escape(theirs.author)} saved {words} at {clock(theirs.created_at)} while you were '
            "writing. Both are kept; yours is the label now.</div>"
        )
        with st.container(horizontal=True):
            st.button("Take theirs", key=keys.take, shortcut=other, on_click=take)
            st.button("Keep mine", key=keys.keep, shortcut=own, on_click=keep)


def _complain(error: ExplorerError) -> None:
    from app import state

    state.show_error(error)
