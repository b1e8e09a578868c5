"""How well an SAE stands for a model's activations, on documents it was not trained on: the figures, and what one of a report is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from explorer.corpus import chunks
from explorer.evidence import SCORED, EvidenceReader
from explorer.hooks import edited
from explorer.intervals import bootstrap, wilson
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from explorer.windows import Windows

COMMAND = "persona-explorer report"
_LOSS_WINDOWS = 600  # three passes with all logits each: the interval is narrow by then


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is meant to reach.

    Args:
        limit: The least that it may be, or the most.
        most: Whether it is the most.
        what: What the limit is, where it is no mere number.
    """

    limit: float
    most: bool = False
    what: str = ""

    def __str__(self) -> str:
        return f"at {'most' if self.most else 'least'} {self.limit:.3g}{self.what and f', {self.what}'}"

    def met_by(self, value: float) -> bool:
        return value <= self.limit if self.most else value >= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report.

    Args:
        value: The figure.
        n: What it was computed from: how many, and of what.
        low, high: Its 95 % interval; None where it is exact.
        control: The same figure without what it is about; None where there is none.
        target: What it was meant to reach, as people read it; "" where it is only reported.
        meaning: One sentence for people.
        command: What computes it again.
        met: Whether the target is reached; None where there is none.
    """

    value: float
    n: str
    low: float | None
    high: float | None
    control: float | None
    target: str
    meaning: str
    command: str = COMMAND
    met: bool | None = None

    def aimed(self, target: Target) -> "Figure":
        """The figure with what it was meant to reach, and whether it does."""
        return replace(self, target=str(target), met=target.met_by(self.value))


@dataclass(frozen=True, slots=True)
class Reading:
    """Sums over the scored tokens of one window, from which the figures follow.

    Args:
        squared_error: Of the SAE's reconstruction.
        total: Squared distance from the mean.
        losses: Summed next-token loss of the model as it is, with the SAE's reconstruction, and with the mean, in nats.
        tokens: Scored tokens; predicted: tokens whose loss was summed.
    """

    squared_error: float
    total: float
    tokens: int
    losses: tuple[float, float, float]
    predicted: int


def fidelity(
    model: LanguageModel,
    coder: SparseCoder,
    documents: Sequence[Document],
    suffix: str,
    progress: Callable[[str], None],
) -> dict[str, Figure]:
    """How well the SAE stands for the model's activations on documents it was not trained on."""
    facts = coder.metadata
    windows = Windows.join(
        list(chunks(documents, model.vocabulary.special, context_size=facts.get("context_size") or 128))
    )
    reader = EvidenceReader(model, coder.hook_point, median_norm=facts.get("median_norm"))
    mean, fired = _first_pass(reader, windows, coder)
    progress(f"read {int((windows.evidence == SCORED).sum()):,} scored tokens of {len(windows):,} windows")
    readings = list(_second_pass(model, coder, windows, mean, progress))
    sums = np.array([[r.squared_error, r.total, *r.losses] for r in readings])
    tokens, predicted = sum(r.tokens for r in readings), sum(r.predicted for r in readings)
    dead = int((~fired).sum())

    def explained(s: np.ndarray) -> float:
        return float(1 - s[0] / s[1])

    def recovered(s: np.ndarray) -> float:
        return float((s[4] - s[3]) / (s[4] - s[2]))

    held = "held-out" if not suffix else "outside"
    total = sums.sum(0)
    with_loss = sums[: _loss_rows(len(sums))]
    of = windows.document  # windows of one document are no independent draws

    def interval(rows: np.ndarray, figure: Callable[[np.ndarray], float]) -> tuple[float, float]:
        whole = np.zeros((of.max() + 1, rows.shape[1]))
        np.add.at(whole, of[: len(rows)], rows)
        return bootstrap(whole[np.unique(of[: len(rows)])], figure)

    return {
        "variance_explained": Figure(
            explained(total), f"{tokens:,} scored tokens of {len(readings):,} {held} windows", *interval(sums, explained), 0.0,
            "", "Share of the activations' variance that the SAE's reconstruction keeps; control: the mean.",
        ),
        "dead_latents": Figure(
            dead / len(fired), f"{len(fired):,} latents on {tokens:,} scored tokens", *wilson(dead, len(fired)), None,
            "", f"Share of latents that fire on no {held} token.",
        ),
        "loss_recovered": Figure(
            recovered(with_loss.sum(0)), f"{predicted:,} predicted tokens of {len(with_loss):,} {held} windows",
            *interval(with_loss, recovered), 0.0, "",
            "Share of the next-token loss between mean ablation (control) and the model that the SAE's reconstruction keeps.",
        ),
    }  # fmt: skip


def _loss_rows(n: int) -> int:
    return min(n, _LOSS_WINDOWS)


@torch.inference_mode()
def _first_pass(reader: EvidenceReader, windows: Windows, coder: SparseCoder) -> tuple[Tensor, Tensor]:
    """The mean of the scored activations and which latents fire; marks the sinks in `windows` on the way."""
    total, count = torch.zeros(coder.d_in, dtype=torch.float64), 0
    fired = torch.zeros(coder.n_features, dtype=torch.bool)
    for _, resid in reader.read(windows):
        total += resid.cpu().double().sum(0)
        count += len(resid)
        fired |= (coder.encode(resid) > 0).any(0).cpu()
    return (total / max(1, count)).float(), fired


@torch.inference_mode()
def _second_pass(
    model: LanguageModel, coder: SparseCoder, windows: Windows, mean: Tensor, progress: Callable[[str], None]
) -> Iterator[Reading]:
    """Window by window: reconstruction error, and for the first ones the loss with three kinds of activations."""
    point = model.hook_point(coder.hook_point)
    module = model.blocks[point.layer - 1 if point.before else point.layer]
    for row in range(len(windows)):
        at = slice(windows.starts[row], windows.starts[row + 1])
        ids = torch.from_numpy(windows.tokens[at].astype(np.int64))[None]
        keep = torch.from_numpy(windows.evidence[at] == SCORED)
        resid = model.activations(ids, coder.hook_point)[0][keep].float().cpu()
        rebuilt = coder.decode(coder.encode(resid)).float().cpu()
        losses, predicted = (0.0, 0.0, 0.0), 0
        if row < _loss_rows(len(windows)):
            kinds = (None, rebuilt, mean.expand_as(rebuilt))
            losses = tuple(_loss(model, module, ids, keep, kind) for kind in kinds)
            predicted = ids.shape[1] - 1
            if row % 100 == 0:
                progress(f"loss of window {row:,} of {_loss_rows(len(windows)):,}")
        error, spread = (resid - rebuilt).pow(2).sum().item(), (resid - mean).pow(2).sum().item()
        yield Reading(error, spread, int(keep.sum()), losses, predicted)  # type: ignore[arg-type]


def _loss(model: LanguageModel, module: torch.nn.Module, ids: Tensor, keep: Tensor, instead: Tensor | None) -> float:
    """Summed next-token loss of one window, in nats, with `instead` in the place of the scored activations."""

    def replace(resid: Tensor) -> Tensor:
        changed = resid.clone()
        assert instead is not None
        changed[0, keep] = instead.to(resid.dtype).to(resid.device)
        return changed

    with model.lock, nullcontext() if instead is None else edited(module, replace):
        logits = model.logits(ids)[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:].to(logits.device), reduction="sum").item()
