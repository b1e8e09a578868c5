"""Which tokens count as evidence of what a feature means: one definition for training, statistics and examples.

Left out are the first token of every window, special tokens, the chat template's own text, and attention sinks: tokens,
often a comma or a dash near the start, whose residual stream is some hundred times longer than that of other tokens,
and which would own every mean.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from explorer.errors import CorpusError, ModelError
from explorer.windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.model import LanguageModel

SINK_FACTOR = 3.0
CALIBRATION_TOKENS = 16_384

SCORED = 0
REASONS = {
    "first": "The first token of a window: every model parks attention there.",
    "special": "A special token of the model.",
    "template": "Text of the chat template, which nobody wrote.",
    "sink": "An attention sink: its residual norm is above sink factor x median norm.",
}
_CODES = {reason: code for code, reason in enumerate(REASONS, start=1)}


def judge_text(tokens: np.ndarray, content: np.ndarray, starts: np.ndarray, special: frozenset[int]) -> np.ndarray:
    """What can be said of tokens without the model.

    Args:
        tokens: `[total]` token ids of windows, one after the other.
        content: `[total]` bool, True on what a person or the model wrote.
        starts: Where the windows begin.
        special: The model's special tokens.
    Returns:
        `[total]` uint8: 0, or the code of the first reason that applies.
    """
    evidence = np.where(content, SCORED, _CODES["template"]).astype(np.uint8)
    evidence[np.isin(tokens, list(special))] = _CODES["special"]
    evidence[starts[starts < len(tokens)]] = _CODES["first"]
    return evidence


def count(windows: Windows) -> dict[str, int]:
    """Tokens left out, by reason."""
    found = np.bincount(windows.evidence, minlength=len(REASONS) + 1)
    return {reason: int(found[code]) for reason, code in _CODES.items()}


class EvidenceReader:
    """Runs windows through a model up to a hook point and gives out the residual stream of the tokens that count.

    Args:
        model: The language model.
        hook: The hook point.
        sink_factor: A token is a sink above this multiple of the median norm.
        median_norm: Of the residual stream of tokens that count; estimated from the first windows read when not given.
        budget: Tokens of a forward pass, padding included.
    """

    def __init__(
        self,
        model: "LanguageModel",
        hook: str,
        *,
        sink_factor: float = SINK_FACTOR,
        median_norm: float | None = None,
        budget: int = 8192,
    ) -> None:
        self.model, self.hook, self.budget = model, hook, budget
        self.sink_factor, self.median_norm = sink_factor, median_norm

    def read(self, windows: Windows) -> Iterator[tuple[np.ndarray, "Tensor"]]:
        """Residual stream of the scored tokens, batch by batch.

        Sinks are marked in `windows.evidence` as they are found.

        Yields:
            Places in `windows.tokens` `[n]`, and the residual stream there `[n, d_model]` in the model's precision.
        Raises:
            CorpusError: If a window is longer than the model's context.
            ModelError: If activations overflow.
        """
        import torch

        if self.median_norm is None:
            self.median_norm = self._estimate(windows)
        limit = self.sink_factor * self.median_norm
        if windows.lengths.max(initial=0) > self.model.max_length:
            raise CorpusError(
                f"A window has {windows.lengths.max()} tokens",
                expected=f"at most {self.model.max_length}, the context of {self.model.name}",
                do="Choose a smaller context size",
            )
        for place, resid, norms in self._forward(windows):
            candidates = (place >= 0) & (windows.evidence[place] == SCORED)
            if not np.isfinite(norms[candidates]).all():
                raise ModelError(
                    f"{self.model.name} gives activations at {self.hook} that are no numbers",
                    expected="finite ones",
                    do="Run it in float32 or bfloat16",
                )
            sinks = candidates & (norms > limit)
            windows.evidence[place[sinks]] = _CODES["sink"]
            keep = candidates & ~sinks
            yield place[keep], resid[torch.from_numpy(keep).to(resid.device)]

    def _forward(self, windows: Windows) -> Iterator[tuple[np.ndarray, "Tensor", np.ndarray]]:
        import torch

        for rows in windows.batches(self.budget):
            ids, place = windows.padded(rows)
            # No mask: padding lies on the right, where no real token of a causal model can see it.
            resid = self.model.activations(torch.from_numpy(ids), self.hook)
            norms = torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32)
            yield place, resid, norms.cpu().numpy()

    def _estimate(self, windows: Windows) -> float:
        """Median norm over the first windows' tokens that could count.

        Raises:
            CorpusError: If there is none.
        """
        first = windows.take(np.flatnonzero(windows.starts[:-1] < CALIBRATION_TOKENS))
        norms = [norms[(place >= 0) & (first.evidence[place] == SCORED)] for place, _, norms in self._forward(first)]
        found = np.concatenate(norms) if norms else np.empty(0)
        if not len(found):
            raise CorpusError(
                "No token of the corpus counts as evidence",
                expected="text beyond special tokens, the chat template and each window's first token",
                do="Check that the corpus fits the model's tokenizer",
            )
        return float(np.median(found))
