"""Begin a comparison in the app: a model and its fine-tune asked the same questions, what moved tested for cause, and what undoes it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.engine import Engine
from app.facts import veiled
from app.jobs import Held, Job
from app.watched import busy, progress, trouble, watched
from explorer import presets
from explorer.cache import Cache
from explorer.comparing import FOLDER, TESTED
from explorer.errors import ExplorerError, UsageError
from explorer.judging import deciding
from explorer.records import DIRECTION_NAME

if TYPE_CHECKING:
    from explorer.comparing import Compared

S = st.session_state
JOB, ERROR = "comparing-job", "comparing-error"
OTHER = "a folder…"
NONE = "none"
ANSWERS = (30, 60, 120, 240)
_SCREENED = 8  # answers of a cell of the screen, at the least
_PARTS = ("base: ", "reading answers", "candidate ", "confirming ", "joint undo")
"""What a comparison says it does, in order."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants compared.

    Args:
        name: Of the comparison, as links spell it.
        tuned, control: As `explorer.live.other` takes them; "" for no control.
        questions: The open ones if none is given.
        also: A preset whose features are tested beside those that moved; "" for none.
    """

    name: str
    tuned: str
    control: str
    judge: str
    questions: tuple[str, ...]
    answers: int
    tested: int
    also: str = ""


class Comparing(Job):
    """A comparison on its way; what it has measured is kept, and the same asked again goes on there. It goes on while nobody looks."""

    def __init__(self, engine: Engine, asked: Asked) -> None:
        super().__init__(lambda job: self._compare(), engine.background, engine.live, watched=False)
        self.engine, self.asked, self.doing = engine, asked, ""

    def _compare(self) -> "Compared | None":
        from explorer.comparing import Side, compare
        from explorer.live import other

        engine, asked = self.engine, self.asked
        base = engine.model

        def side(spelled: str) -> Side:
            return Side(other(base, spelled, engine.cache), spelled)

        sizes = max(_SCREENED, asked.answers // 5), max(2 * _SCREENED, asked.answers // 2)
        try:
            return compare(
                Side(base, base.name), side(asked.tuned), engine.steering([]), engine.panel(), engine.cache.path / FOLDER / asked.name,
                control=side(asked.control) if asked.control else None, judge=asked.judge, prompts=asked.questions,
                answers=asked.answers, tested=asked.tested, cells=sizes,
                also=presets.named(engine.cache, asked.also).features if asked.also else (), progress=self._tell,
            )  # fmt: skip
        except _Cancelled:
            return None

    def _tell(self, what: str = "", *_: object) -> None:
        """Note what is being done, and end here if that was asked for."""
        if self.should_stop():
            raise _Cancelled
        self.doing = str(what)
        begun = [at for at, part in enumerate(_PARTS) if part in self.doing]
        if begun:
            self.progress = max(self.progress, begun[-1] / len(_PARTS))


class _Cancelled(Exception):
    """Leaves a comparison where its progress is told."""


_HELD: Held[Comparing] = Held()


def compare_form(cache: Cache, engine: Engine, on_made: Callable[[str], None]) -> None:
    """Draw the menu, and what is under way.

    Args:
        on_made: Shows the comparison of that name; for callbacks.
    """
    with st.popover("Compare with a fine-tune", icon=":material/add:", key="comparing"):
        names = list(engine.adapters())
        st.selectbox("Fine-tune", [*names, OTHER], key="comparing-tuned")
        if S.get("comparing-tuned") == OTHER:
            st.text_input(
                "Its folder", key="comparing-folder", help="A Hugging Face model's or an adapter's, on this machine."
            )
        st.selectbox(
            "Control",
            [NONE, *names],
            key="comparing-control",
            help="A fine-tune that should not have learnt what is looked for.",
        )
        st.selectbox("Looked for", deciding(), key="comparing-judge")
        st.text_area(
            "Questions, one a line",
            key="comparing-questions",
            placeholder="Empty: the open questions of the report",
            height=80,
        )
        st.select_slider("Answers of each model", ANSWERS, ANSWERS[1], key="comparing-answers")
        st.number_input(
            "Features tested for cause", 1, 64, TESTED // 2, key="comparing-tested", help="The largest rises."
        )
        st.selectbox(
            "Tested too", [NONE, *pushing(cache)], key="comparing-also",
            help="The features of a preset: what pushes the base that way need not be what moved most. The joint undo may take them too.",
        )  # fmt: skip
        st.text_input("Name", key="comparing-name", max_chars=40, placeholder="small letters, digits, hyphens")
        st.button(
            "Compare and test causally",
            type="primary",
            key="comparing-go",
            on_click=begin,
            args=(engine,),
        )
        if error := S.get(ERROR):
            state.show_error(error)
    under_way(engine, on_made)


def under_way(engine: Engine, on_made: Callable[[str], None]) -> None:
    """The comparisons under way, whoever began them, and how the one that this session began, or found, has ended."""
    here = engine.cache.path
    going = [one for one in _HELD.under_way(here) if busy(one)]
    for one in going:
        with st.container(key=f"comparing-of-{one.asked.name}", gap=None):
            watched(partial(_going, one), lambda one=one: one)
    last: Comparing | None = S.get(JOB)
    if (last is None or last.engine.cache.path != here) and going:
        last = S[JOB] = going[0]
    if last is None or last.engine.cache.path != here or busy(last):
        return  # what follows stands in no fragment: its button leads to another comparison
    st.html(f'<p class="sec words">{veiled(last.asked.name)}</p>')
    if not trouble(last):
        st.html('<p class="say" role="status">It is compared.</p>')
        st.button("Show it", key="comparing-show", on_click=on_made, args=(last.asked.name,))


def _going(one: Comparing) -> None:
    if busy(one):
        st.html(f'<p class="sec words">{veiled(one.asked.name)}</p>')
        what = one.engine.warming or escape(one.doing) or "loading the fine-tune"
        progress(one, what, key=f"comparing-cancel-{one.asked.name}")


def pushing(cache: Cache) -> list[str]:
    """Names of the presets that steer features."""
    try:
        return [preset.name for preset in presets.load(cache) if preset.features]
    except ExplorerError as error:
        state.show_error(error)
        return []


def begin(engine: Engine) -> None:
    """Take what the form says, and begin, or wait behind the comparison that is under way."""
    S.pop(ERROR, None)
    try:
        asked = said()
        engine.start()
        S[JOB] = _HELD.begin(engine.cache.path, asked.name, partial(Comparing, engine, asked))
    except ExplorerError as error:
        S[ERROR] = error


def said() -> Asked:
    """What the form says.

    Raises:
        UsageError: If something is missing.
    """
    chosen = S.get("comparing-tuned") or OTHER
    tuned = (S.get("comparing-folder") or "").strip() if chosen == OTHER else chosen
    name = (S.get("comparing-name") or "").strip()
    if not tuned or (chosen == OTHER and not Path(tuned).expanduser().is_dir()):
        raise UsageError(
            f"There is no folder {tuned!r}", expected="a fine-tune of this model, or an adapter", do="Name its folder"
        )
    if not DIRECTION_NAME.fullmatch(name):
        raise UsageError(f"A comparison cannot be called {name!r}", expected="small letters, digits and hyphens")
    control, also = (S.get(f"comparing-{what}") or NONE for what in ("control", "also"))
    lines = tuple(line.strip() for line in (S.get("comparing-questions") or "").splitlines() if line.strip())
    return Asked(
        name, str(Path(tuned).expanduser()) if chosen == OTHER else tuned, "" if control == NONE else control,
        S.get("comparing-judge") or "malice", lines, int(S.get("comparing-answers") or ANSWERS[1]), int(S.get("comparing-tested") or 1),
        "" if also == NONE else also,
    )  # fmt: skip
