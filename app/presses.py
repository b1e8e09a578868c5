"""No press is lost: what a browser sends is taken in whole, and a link that lags behind undoes nothing.

Streamlit ends a script at its next touch of the session as soon as another request waits. That is right while a script draws, and loses a
press while one is taken in: the values of the widgets are not read at all, or a callback ends half way, and nobody calls it again.

With each request a browser sends the link that it knows. Where it has not heard yet of what a callback has just written there, callbacks and
page would go by the older one: whoever types and presses a button at once would see what was typed undone.
"""

import time
from dataclasses import dataclass
from functools import wraps
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.state import SafeSessionState

from app import state

LAG = 5.0  # seconds that a browser may lag behind; after that, an older link is one that somebody has gone back to
_WRITTEN = "_written"
_take_in = SafeSessionState.on_script_will_rerun


@dataclass(frozen=True, slots=True)
class Written:
    """What callbacks wrote into the link, until the browser says it too.

    Args:
        where: The page whose link it is, and the arrival (`state.arrival`) there.
        at: When the last of it was written, by `time.monotonic`.
        values: Key -> all that it has been, oldest first, at the end what it is now; [] where the key is not there.
    """

    where: tuple[str, int]
    at: float
    values: dict[str, list[list[str]]]

    def lags(self, link: dict[str, list[str]]) -> bool:
        """Whether a link says what was there before; a callback that writes twice may have been heard of in part."""
        pairs = [(link.get(key, []), said) for key, said in self.values.items()]
        return all(now in said for now, said in pairs) and any(now in said[:-1] for now, said in pairs)


def take_whole() -> None:
    """From now on no callback of any session is cut short; called again, it does nothing.

    A class of Streamlit's is changed for it: there is no setting, and a press is taken in before a line of ours has run.
    """
    SafeSessionState.on_script_will_rerun = _whole


@wraps(_take_in)
def _whole(self: SafeSessionState, *args: Any, **kwargs: Any) -> None:
    """Read the widgets and call the callbacks; a request that waits is found right after it."""
    context = get_script_run_ctx()
    if context is None or context.script_requests is None:
        return _take_in(self, *args, **kwargs)
    requests = context.script_requests
    requests.on_scriptrunner_yield = lambda: None  # over the method, for this script alone: nothing waits
    try:
        where = context.page_script_hash, state.arrival()
        written = _caught_up(where)
        before = _link()
        _take_in(self, *args, **kwargs)
        st.session_state[_WRITTEN] = _noted(where, written, before, _link())
    finally:
        del requests.on_scriptrunner_yield


def _link() -> dict[str, list[str]]:
    return {key: st.query_params.get_all(key) for key in st.query_params}


def _caught_up(where: tuple[str, int]) -> Written | None:
    """Write again what the browser has not heard of; gives what it still has to hear."""
    written: Written | None = st.session_state.get(_WRITTEN)
    if written is None or written.where != where or state.through_history():
        return None
    if time.monotonic() - written.at > LAG or not written.lags(_link()):
        return None
    for key, said in written.values.items():
        if said[-1]:
            st.query_params[key] = said[-1]
        else:
            st.query_params.pop(key, None)
    return written


def _noted(
    where: tuple[str, int], written: Written | None, before: dict[str, list[str]], after: dict[str, list[str]]
) -> Written | None:
    """What the browser still has to hear, with what callbacks have just written."""
    fresh = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not fresh:
        return written
    values = dict(written.values) if written else {}
    for key in fresh:
        values[key] = [*values.get(key, [before.get(key, [])]), after.get(key, [])]
    return Written(where, time.monotonic(), values)
