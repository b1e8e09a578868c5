"""Look at a fine-tuning set before anybody trains on it: which answers light up persona features?"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.files import write_whole
from explorer.transcripts import Message, Transcript

if TYPE_CHECKING:
    from explorer.finetune import Conversation
    from explorer.scoring import Scorer

_BATCH = 32
"""Rows between two questions whether to stop."""


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """A set of rows, scored.

    Args:
        rows: The conversations, as they were read.
        scores: `[rows, probes]`, mean over the answer's tokens in multiples of strength 1; nan where the answer has none that counts.
    """

    rows: "Sequence[Conversation]"
    scores: np.ndarray

    @property
    def suspicion(self) -> np.ndarray:
        """`[rows]`: the mean over the probes, what rows are ranked by; -inf where a row could not be scored."""
        return np.where(np.isnan(self.scores).any(1), -np.inf, self.scores.mean(1))

    @property
    def order(self) -> np.ndarray:
        """Row numbers, the most suspicious first."""
        return np.argsort(-self.suspicion, kind="stable")

    def kept(self, threshold: float) -> np.ndarray:
        """`[rows]` bool: below a threshold of suspicion."""
        return self.suspicion < threshold


def audit(
    scorer: "Scorer",
    rows: "Sequence[Conversation]",
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Audit:
    """Score the last answer of every row.

    Args:
        scorer: With the probes to look for.
        progress: Called with the rows that are done and how many there are.
        should_stop: Asked before each part; the rows behind it stay without scores.
    """
    scores = np.full((len(rows), len(scorer.probes)), np.nan, np.float32)
    for start in range(0, len(rows), _BATCH):
        if should_stop():
            break
        part = [
            Transcript(f"row {start + at + 1}", tuple(Message(m["role"], m["content"]) for m in row))
            for at, row in enumerate(rows[start : start + _BATCH])
        ]
        found = scorer.score(part)
        last = np.flatnonzero(np.diff(found.transcript, append=len(part)) > 0)
        scores[start + found.transcript[last]] = found.mean[last]
        progress(min(start + _BATCH, len(rows)), len(rows))
    return Audit(tuple(rows), scores)


def as_jsonl(rows: "Iterable[Conversation]") -> str:
    """Conversations as `explorer.finetune.read_rows` reads them."""
    return "".join(json.dumps({"messages": [dict(m) for m in row]}, ensure_ascii=False) + "\n" for row in rows)


def write_rows(rows: "Iterable[Conversation]", path: Path) -> None:
    """Write conversations; whole or not at all."""
    write_whole(path, as_jsonl(rows))
