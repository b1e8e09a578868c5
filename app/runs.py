"""One question answered twice, decoded by a thread of its own while pages come and go.

A page only watches: whatever else is clicked meanwhile does not disturb the answers, and a run that nobody watches any more ends by itself.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.engine import Engine, Prompt
from explorer.errors import ExplorerError, ModelError, SteeringError
from explorer.records import Edit, Sampling
from explorer.repetition import first_loop

PATIENCE = 3.0  # seconds without anybody watching
Phase = Literal["warming", "waiting", "live", "stopped", "done", "failed"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What a run was asked; nothing else decides its answers."""

    prompt: str
    system: str
    edits: tuple[Edit, ...]
    positions: str
    sampling: Sampling

    def same_baseline(self, other: "Question") -> bool:
        """Whether the unsteered answers are the same."""
        return (self.prompt, self.system, self.sampling) == (other.prompt, other.system, other.sampling)

    def messages(self, chat: bool) -> Prompt:
        """A conversation, or plain text for a model that takes none."""
        if not chat:
            return f"{self.system}\n\n{self.prompt}" if self.system else self.prompt
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(slots=True)
class Answer:
    """An answer so far.

    Args:
        pieces: Its text, a piece a token.
        ended: Whether nothing more will come.
        looped: Whether it was cut because it repeats itself from there on.
        most: How many tokens it may have; what comes after them is the rest of the last one.
    """

    pieces: list[str] = field(default_factory=list)
    ended: bool = False
    looped: bool = False
    most: int = 10**9

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def take(self, piece: str | None) -> None:
        """One more piece, or the end."""
        if self.ended:
            return
        if piece is None:
            self.ended = True
            while self.pieces and not self.pieces[-1]:  # the token that ends an answer has no text
                self.pieces.pop()
            return
        if len(self.pieces) >= self.most:
            self.pieces[-1] += piece
            return
        self.pieces.append(piece)
        if (at := first_loop(self.pieces)) is not None:
            del self.pieces[at:]
            self.ended = self.looped = True


class Run:
    """A question on its way to two answers.

    Args:
        engine: Who answers.
        question: What is asked.
        before: The run in view until now: its texts stay until new ones come, and its baseline is taken over if it is the same.
    """

    def __init__(self, engine: Engine, question: Question, before: "Run | None" = None) -> None:
        self.engine, self.question = engine, question
        self.baseline, self.steered = (Answer(most=question.sampling.max_tokens) for _ in range(2))
        self.old_baseline: Sequence[str] = ()
        self.old_steered: Sequence[str] = ()
        self.reused = False
        self.error: ExplorerError | None = None
        self.first: float | None = None  # seconds to the first token
        self.seconds = 0.0  # of decoding
        self._end: Phase | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._watched = time.monotonic()
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: "Run") -> None:
        before.stop()
        with before._lock:
            if before.baseline.ended and before.question.same_baseline(self.question):
                self.baseline, self.reused = before.baseline, True
            self.old_baseline = before.baseline.pieces or before.old_baseline
            self.old_steered = before.steered.pieces or before.old_steered

    def start(self) -> "Run":
        """Begin to decode; this run."""
        threading.Thread(target=self._work, name="steer-run", daemon=True).start()
        return self

    def stop(self) -> None:
        """End at the next token; what is there stays."""
        self._finish("stopped")

    def watch(self) -> None:
        """Say that somebody still looks."""
        self._watched = time.monotonic()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._over.wait(timeout)

    @property
    def over(self) -> bool:
        return self._end is not None

    @property
    def phase(self) -> Phase:
        """What to tell people."""
        if self._end:
            return self._end
        if self.steered.pieces or (self.baseline.pieces and not self.reused):
            return "live"
        return "waiting" if self.engine.state == "ready" else "warming"

    @property
    def version(self) -> tuple[object, ...]:
        """Changes whenever there is something new to see."""
        return (self.phase, len(self.baseline.pieces), len(self.steered.pieces), self.steered.ended)

    def _should_stop(self) -> bool:
        if time.monotonic() - self._watched > PATIENCE:
            self.stop()
        return self.over

    def _finish(self, phase: Phase, error: ExplorerError | None = None) -> None:
        with self._lock:
            if self._end is None:
                self._end, self.error = phase, error
        self._over.set()

    def _work(self) -> None:
        try:
            self._decode()
        except ExplorerError as error:
            self._finish("failed", error)
        except Exception as error:  # a thread must leave a sentence behind, whatever went wrong
            _log.exception("An answer broke off")
            self._finish("failed", _explained(error))

    def _decode(self) -> None:
        question = self.question
        if not question.prompt.strip():
            raise SteeringError("There is no prompt", do="Write one, or take a ready question")
        self.engine.start()
        while not self.engine.wait(0.2) and self.engine.state == "loading":
            if self._should_stop():
                return
        if self.engine.state != "ready":
            raise self.engine.error or ModelError("The model was let go", do="Reload the page")
        began = time.perf_counter()
        steps = self.engine.stream(
            question.messages(self.engine.has_template),
            question.edits,
            question.sampling,
            positions=question.positions,
            baseline=not self.reused,
            should_stop=self._should_stop,
        )
        try:
            for step in steps:
                self.seconds = time.perf_counter() - began
                if self.first is None:
                    self.first = self.seconds
                if not self._take(step) or (self.steered.ended and self.baseline.ended):
                    break
        finally:
            if close := getattr(steps, "close", None):
                close()
        if not self.over:
            self._take([None, None])
        self._finish("done")

    def _take(self, step: list[str | None]) -> bool:
        """Keep what has come, unless the run was stopped meanwhile."""
        with self._lock:
            if self.over:
                return False
            if not self.reused:
                self.baseline.take(step[0])
            self.steered.take(step[-1])
            return True


def _explained(error: Exception) -> ExplorerError:
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ModelError(
            "The memory did not suffice", do="Lower the number of tokens or shorten the prompt; run again"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"The answer broke off ({reason})", do="Run again; the terminal has the details")
