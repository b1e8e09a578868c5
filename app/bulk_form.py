"""What can be done with several features at once: keep them as a list, give them to people as a queue, name or tag them all."""

import re
from collections.abc import Callable, Sequence

import streamlit as st

from app import resources, state
from app.label_form import author
from app.shared_queues import SHARED
from explorer.assignments import Queue
from explorer.cache import Cache
from explorer.errors import ExplorerError, LabelError
from explorer.label_files import LIMITS
from explorer.lists import LONGEST_NAME

S = st.session_state
SAID, ERROR = "bulk-said", "bulk-error"
MOST = 2_000


def bulk(cache: Cache, everything: Callable[[int], list[int]], total: int, shown: Sequence[int], query: str) -> None:
    """Draw the menu.

    Args:
        everything: Gives the first so many of all that were found; asked only once something is done with them.
        total: How many were found; of more than `MOST`, the first are taken.
        shown: Those in view.
        query: What was looked for, kept with a queue.
    """
    with st.popover("With these", icon=":material/checklist:", key="bulk"):
        which = st.segmented_control(
            "Which", ["This page", "All found", "These"], default="This page", required=True, key="bulk-which",
            label_visibility="collapsed",
        )  # fmt: skip
        if which == "These":
            st.text_input("Numbers of features", key="bulk-numbers", placeholder="12, 40, 41", max_chars=4_000)
        count = {"This page": len(shown), "All found": min(total, MOST)}.get(which or "")
        st.html(f'<p class="say num">{"Those named above." if count is None else f"{count:,} features."}</p>')

        def chosen() -> list[int]:
            if which == "These":
                return numbers(cache, S.get("bulk-numbers") or "")
            return everything(MOST) if which == "All found" else list(shown)

        def do(work: Callable[[list[int]], str]) -> None:
            S.pop(ERROR, None)
            try:
                S[SAID] = work(chosen())
            except ExplorerError as error:
                S[ERROR] = error

        sae = cache.manifest.sae_fingerprint
        st.text_input("Name of a list or a queue", key="bulk-name", max_chars=LONGEST_NAME)
        st.text_input(
            "People",
            key="bulk-people",
            placeholder="ana, ben; nobody: whoever comes",
            help="Whom a queue is dealt out to.",
        )
        st.toggle("Blind, two people a feature", key="bulk-blind")
        with st.container(horizontal=True, gap="small"):
            st.button("Keep as a list", key="bulk-list", on_click=do, args=(lambda some: keep(sae, some),))
            st.button("Make a queue", key="bulk-queue", on_click=do, args=(lambda some: give(sae, some, query),))
        st.text_input("A label or a tag for all of them", key="bulk-words", max_chars=LIMITS["label"])
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Label those without one", key="bulk-label", on_click=do, args=(lambda some: name(sae, some),),
                help="A feature that somebody has named keeps its name.",
            )  # fmt: skip
            st.button("Tag all", key="bulk-tag", on_click=do, args=(lambda some: tag(sae, some),))
        if error := S.get(ERROR):
            state.show_error(error)
        elif said := S.pop(SAID, None):
            st.html(f'<p class="say" role="status">{said}</p>')


def numbers(cache: Cache, text: str) -> list[int]:
    """The features that somebody typed.

    Raises:
        LabelError: If one of them is none.
    """
    said = [part for part in re.split(r"[\s,;#]+", text) if part]
    wrong = [part for part in said if not part.isdecimal() or len(part) > 9 or int(part) >= cache.n_features]
    if wrong or not said:
        raise LabelError(
            f"{wrong[0]!r} is no feature" if wrong else "No feature is named",
            expected=f"numbers from 0 to {cache.n_features - 1:,}",
        )
    return list(dict.fromkeys(map(int, said)))


def keep(sae: str, features: list[int]) -> str:
    """Add to the list of the name that was typed."""
    made = resources.lists().add(sae, S.get("bulk-name") or "", features, author=author())
    return f"The list has {len(made.features):,} features now."


def give(sae: str, features: list[int], query: str) -> str:
    """Make a queue and deal it out."""
    people = tuple(part.strip() for part in (S.get("bulk-people") or "").split(",") if part.strip())
    made = resources.assignments().put(
        Queue(sae, S.get("bulk-name") or "", tuple(features), people, query, bool(S.get("bulk-blind")), author())
    )
    link = state.link("label", queue=f"{SHARED}{made.name}")
    return f'Queued. <a class="go" href="{link}" target="_self">Label them</a>'


def name(sae: str, features: list[int]) -> str:
    """Give a label to those that have none."""
    words = (S.get("bulk-words") or "").strip()
    if not words:
        raise LabelError("There is no label to give", expected="some words")
    named = resources.labels().fill(sae, features, words, author=author())
    left = len(features) - len(named)
    return f"{len(named):,} named{f'; {left:,} kept the names that they had' if left else ''}."


def tag(sae: str, features: list[int]) -> str:
    """Put a tag on all of them."""
    resources.remarks().tag(sae, features, S.get("bulk-words") or "", author=author())
    return f"{len(features):,} tagged."
