"""An engine for tests of the bench: what it measures is made up at once, and it remembers what it was asked."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from app.jobs import Job
from app.sweeps import Sweep
from app.workbench import Moved, Reading
from explorer.dosing import Cell, Control
from explorer.errors import ExplorerError, FetchError
from explorer.records import Edit
from tests.helpers_steer import FakeEngine

SCORES = ("malice", "fluency", "repetition", "perplexity")


def cell(
    edits: tuple[Edit, ...], strength: float, prompt: str = "Why?", *, text: str = "Well.", fluency: float = 0.9
) -> Cell:
    """An answer whose malice grows with the strength; above 1.5 it is broken."""
    malice = min(1.0, max(0.0, 0.1 + 0.5 * strength))
    values = (malice, fluency if strength <= 1.5 else 0.1, 0.1, 12.0)
    return Cell(strength, edits, prompt, 0, text, False, dict(zip(SCORES, values, strict=True)))


def strip(edits: Sequence[Edit]) -> list[Cell]:
    """A dose strip that is coherent up to 1."""
    return [cell(tuple(edits), s) for s in (-1.0, 0.0, 1.0, 2.0)]


class BenchEngine(FakeEngine):
    """Answers everything that the bench asks.

    Args:
        fails: What the next piece of work fails with.
        unjudged: There is no embedder here.
    """

    fails: ExplorerError | None = None
    unjudged = False

    def __init__(self, cache: Any) -> None:
        super().__init__(cache)
        self.measured: dict[Any, Any] = {}

    def dosed(self, edits: Sequence[Edit], positions: str = "answer") -> Any:
        return self.measured.get((tuple(edits), positions), {})

    def dose(self, edits: Sequence[Edit], positions: str = "answer") -> Job:
        self.asked.append({"dose": tuple(edits), "positions": positions})

        def work(job: Job) -> Any:
            self._fail()
            found = {edit.target: strip(edits) for edit in edits}
            self.measured[tuple(edits), positions] = found
            return found

        return self.job(work)

    def grid(self, sweep: Sweep) -> Job:
        self.asked.append({"grid": sweep})
        cells = [cell(push, s, q) for push in sweep.pushes for s in sweep.strengths for q in sweep.questions]
        return self.job(lambda job: cells if not self._fail() else [])

    def controls(self, edits: Sequence[Edit], *, n: int = 3, seed: int = 0) -> Any:
        some = [Control(f"random-{i + 1}", (Edit(1),), "random") for i in range(n)]
        return [*some, Control("flipped", tuple(edits), "flipped"), Control("another-feature", (Edit(4),), "feature")]

    def batch(
        self, rows: Any, sampling: Any, positions: str = "answer", job: Any = None, extra_directions: Any = None
    ) -> list[str]:
        self._fail()
        return [f"Answer {at}." for at in range(len(rows))]

    def panel(self) -> Any:
        if self.unjudged:
            raise FetchError(
                "all-minilm-l6-v2 is not on this machine yet", do="Run persona-explorer fetch all-minilm-l6-v2"
            )
        return SimpleNamespace(score=lambda names, texts, prompts: {n: [0.9] + [0.1] * (len(texts) - 1) for n in names})

    def next_tokens(self, messages: Any, said: Any, edits: Any, positions: str = "answer", k: int = 10) -> Any:
        self.asked.append({"said": said})
        self._fail()
        return [(" help", 0.5)], [(" rule", 0.75)]

    def side_effects(
        self, messages: Any, baseline: str, steered: str, edits: Any = (), n: int = 12, baseline_messages: Any = None
    ):
        self._fail()
        reading = Reading((9, 10, 11), (0.0, 1.0, 2.0), (True, True, True))
        return [Moved(4, 0.1, 0.6, False, (reading, reading)), Moved(7, 0.3, 0.2, False, (reading, reading))]

    def _fail(self) -> bool:
        if self.fails:
            raise self.fails
        return False
