"""Recorded answers, told again at the pace at which they were given: what Present shows where no model answers in time."""

import time
from bisect import bisect_right
from collections.abc import Callable, Container, Mapping

from app.runs import Answer
from explorer.scripts import Recorded

SLOW = 4.0
"""Seconds without a token, after which a recording takes over from the live model."""


class Replay:
    """Answers that come as they once came. The clock alone decides how far they are, so nothing has to be stopped.

    Args:
        recorded: Name of an answer -> its recording.
        whole: Names of those that are there at once, because the room has just read them.
        clock: Seconds; for tests.
    """

    def __init__(
        self,
        recorded: Mapping[str, Recorded],
        whole: Container[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._began = clock, clock()
        self._all: dict[str, tuple[Answer, tuple[float, ...]]] = {}
        for name, said in recorded.items():
            answer = Answer()
            for piece in (*said.pieces, None):
                answer.take(piece)
            self._all[name] = answer, () if name in whole else said.times

    def answers(self) -> dict[str, Answer]:
        """Name -> the answer as far as it has come."""
        passed = self._clock() - self._began
        found = {}
        for name, (answer, times) in self._all.items():
            n = bisect_right(times, passed) if times else len(answer.pieces)
            ended = n >= len(answer.pieces)
            found[name] = Answer(answer.pieces[:n], ended, ended and answer.looped)
        return found

    @property
    def over(self) -> bool:
        return all(answer.ended for answer in self.answers().values())

    def wait(self, timeout: float) -> bool:
        """Let `timeout` seconds pass, unless the end has come; whether it has."""
        if not self.over:
            time.sleep(timeout)
        return self.over
