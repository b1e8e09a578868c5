"""Where a talk is and what answers in it: one plain object a session, and the truth about both.

Streamlit may end a script at any touch of the page or of the session, and a browser sends the link as it was when a key was pressed. So
callbacks change this object and touch nothing else, an answer is begun and noted without a touch in between, and the link is read only
when somebody arrives by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.replay import Replay
from app.runs import Run
from explorer.scripts import Recorded, Script, Step

Place = tuple[int, int]  # a step and a stop on it, both from 0


@dataclass(frozen=True, slots=True)
class Playing:
    """What answers the step in view.

    Args:
        frame: What it was begun for: the place, its step, and whether only recordings are wanted.
        now: The answers; None where nothing can answer.
        told: Recordings that take over where the model is slow.
    """

    frame: tuple[Place, Step, bool]
    now: Run | Replay | None
    told: dict[str, Recorded]


class Talk:
    """A talk under way.

    Args:
        at: The place in view.
        blank: Whether the room sees nothing.
        arrival: The arrival (`state.arrival`) whose link has been read.
        linked: The place that the browser was last told, or came with: what it sends may be older.
        asked: What somebody in the room asked, where, and its answers.
    """

    def __init__(self) -> None:
        self.at: Place = (0, 0)
        self.blank = self.only_recorded = False
        self.arrival: int | None = None
        self.linked = ""
        self.playing: Playing | None = None
        self.asked: tuple[tuple[Place, Step], Run] | None = None
        self._heard = ("", 0, 0)

    def open(self, where: Place) -> None:
        """Go there."""
        self.at, self.blank = where, False

    def move(self, can: Sequence[Place], by: int) -> None:
        """Go so many places on, or back, among those that can be shown."""
        for _ in range(abs(by)):
            ways = [p for p in can if p > self.at] if by > 0 else [p for p in reversed(can) if p < self.at]
            self.open(ways[0] if ways else self.at)

    def slid(self, here: Place, stop: int) -> None:
        """The slider of a place was moved to a stop; one that is no longer in view says nothing."""
        if self.at == here:
            self.open((here[0], stop))

    def hear(self, presses: str, can: Sequence[Place]) -> None:
        """Do what keys ask for that has not been done yet.

        Args:
            presses: "NAME MOVES BLANKS", counted by the browser since it opened: none is lost where the next one comes
                before this script has seen it.
            can: Places that can be shown.
        """
        name, *counts = presses.split(" ")
        if len(counts) != 2 or not all(n.lstrip("-").isascii() and n.lstrip("-").isdigit() for n in counts):
            return
        moves, blanks = map(int, counts)
        moved, blanked = self._heard[1:] if self._heard[0] == name else (0, 0)
        self._heard = (name, moves, blanks)
        by = moves - moved
        self.move(can, max(-len(can), min(by, len(can))))
        if (blanks - blanked) % 2:
            self.blank = not self.blank


def place(script: Script, said: str) -> Place:
    """What a link says: "4" is a step, "4.2" the second strength of it; both from 1."""
    step, _, stop = said.partition(".")
    i = min(max(int(step), 1), len(script.steps)) - 1 if step.isascii() and step.isdigit() else 0
    j = min(max(int(stop), 1), script.steps[i].stops) - 1 if stop.isascii() and stop.isdigit() else 0
    return i, j


def spelled(where: Place) -> str:
    """The place as the link says it."""
    return f"{where[0] + 1}" + (f".{where[1] + 1}" if where[1] else "")
