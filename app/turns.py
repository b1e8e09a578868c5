"""Whose turn it is at the model, and how long the others will wait.

Live runs have two places and take their steps in turn; the third one waits. Work in the background has one place, and takes no step while
a live run is there.
"""

import threading
import time
from collections.abc import Callable

GUESS = 0.1  # seconds a step, until one has been measured


class Ticket:
    """A claim to a place.

    Args:
        left: How many steps it will take at most.
    """

    def __init__(self, left: int = 0) -> None:
        self.left = left


class Lane:
    """Places that are given in the order in which they were asked for.

    Args:
        places: How many may be taken at once.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.pace = GUESS
        self._changed = threading.Condition()
        self._inside: list[Ticket] = []
        self._waiting: list[Ticket] = []
        self._last = 0.0

    def enter(self, ticket: Ticket, give_up: Callable[[], bool]) -> bool:
        """Wait for a place; False where `give_up` said so first."""
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or len(self._inside) >= self.places:
                    if give_up():
                        return False
                    self._changed.wait(0.1)
                if not self._inside:
                    self._last = time.perf_counter()
                self._inside.append(ticket)
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def leave(self, ticket: Ticket) -> None:
        """Free the place, if there is one."""
        with self._changed:
            if ticket in self._inside:
                self._inside.remove(ticket)
                self._changed.notify_all()

    def stepped(self, ticket: Ticket) -> None:
        """Count a step: how long steps take is measured over all places together."""
        with self._changed:
            now = time.perf_counter()
            took, self._last = now - self._last, now
            self.pace = took if self.pace == GUESS else 0.9 * self.pace + 0.1 * took
            ticket.left = max(0, ticket.left - 1)

    def empty(self, give_up: Callable[[], bool]) -> None:
        """Wait until nobody is here or wants to be, or `give_up` says so."""
        with self._changed:
            while (self._inside or self._waiting) and not give_up():
                self._changed.wait(0.1)

    def ahead(self, ticket: Ticket) -> tuple[int, float]:
        """How many go before `ticket`, and for how many seconds at most; (0, 0) once it has a place.

        Those who are inside share the model: each takes as many times longer as there are of them.
        """
        with self._changed:
            if ticket not in self._waiting:
                return 0, 0.0
            before = self._waiting[: self._waiting.index(ticket)]
            going, steps = [other.left for other in self._inside], 0
            for left in (*(other.left for other in before), 0):
                if len(going) >= self.places:
                    shortest = min(going)
                    steps += shortest * len(going)
                    going = sorted(g - shortest for g in going)[1:]
                going.append(left)
            return len(self._inside) + len(before), steps * self.pace
