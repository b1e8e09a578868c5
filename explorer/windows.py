"""Token windows: what the model reads in one go, kept as one ragged table without padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, slots=True)
class Windows:
    """Consecutive cuts of documents.

    Args:
        index: `[n]` int64, the window's number in the corpus.
        document: `[n]` int32, the document it was cut from.
        offset: `[n]` int32, where it starts in that document.
        starts: `[n + 1]` int64, where each window begins in `tokens`; the last entry is their number.
        tokens: `[total]` int32, the windows' tokens one after the other.
        evidence: `[total]` uint8, 0 where a token counts as evidence, else the reason why not (`explorer.evidence`).
    """

    index: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    evidence: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> np.ndarray:
        """`[n]`, tokens of each window."""
        return np.diff(self.starts)

    def rows(self) -> np.ndarray:
        """`[total]` int32, the row of each token's window."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    def take(self, rows: np.ndarray) -> "Windows":
        """The windows at `rows`, in that order."""
        at, starts = ragged(self.starts, rows)
        return Windows(
            self.index[rows], self.document[rows], self.offset[rows], starts, self.tokens[at], self.evidence[at]
        )

    @classmethod
    def join(cls, parts: Sequence["Windows"]) -> "Windows":
        """All windows of `parts`, in order."""
        arrays = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls) if f.name != "starts"
        }
        lengths = np.concatenate([p.lengths for p in parts])
        return cls(**arrays, starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def batches(self, budget: int) -> Iterator[np.ndarray]:
        """Rows of windows of similar length, so that little is padded.

        Args:
            budget: Tokens of a batch, padding included; a window longer than that is a batch by itself.
        """
        order = np.argsort(-self.lengths, kind="stable")
        at = 0
        while at < len(order):
            size = max(1, budget // max(1, int(self.lengths[order[at]])))
            yield order[at : at + size]
            at += size

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A rectangle for the model.

        Returns:
            Token ids `[batch, pos]` int64, zeros on the right; and the place of each of them in `tokens`, -1 where padded.
        """
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=0))
        place = np.where(columns < lengths[:, None], self.starts[rows][:, None] + columns, -1)
        return np.where(place >= 0, self.tokens[place], 0).astype(np.int64), place


def ragged(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the entries of some rows of a ragged table lie.

    Args:
        starts: `[n + 1]`, where each row begins.
        rows: The rows wanted.
    Returns:
        The entries' places, row after row; and where each wanted row begins among them, with their number at the end.
    """
    lengths = starts[rows + 1] - starts[rows]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(new[-1]) + np.repeat(starts[rows] - new[:-1], lengths), new
