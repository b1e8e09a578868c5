"""The figures that the README and the app quote, each with what it was computed from and the command that computes it again.

`report.json` holds one entry a figure and is written after each, so a report that was cut off goes on; REPORT.md is printed from it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.corpus import chunks, read
from explorer.errors import CacheError
from explorer.evidence import SCORED, EvidenceReader
from explorer.hooks import edited
from explorer.intervals import bootstrap, wilson
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from explorer.windows import Windows

REPORT, PRINTED, HELD_OUT, SWEEP = "report.json", "REPORT.md", "heldout.parquet", "sweep.json"
COMMAND = "persona-explorer report"
_LOSS_WINDOWS = 600  # three passes with all logits each: the interval is narrow by then


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report.

    Args:
        value: The figure.
        n: What it was computed from: how many, and of what.
        low, high: Its 95 % interval; None where it is exact.
        control: The same figure without what it is about; None where there is none.
        target: What it was meant to reach; "" where it is only reported.
        meaning: One sentence for people.
        command: What computes it again.
    """

    value: float
    n: str
    low: float | None
    high: float | None
    control: float | None
    target: str
    meaning: str
    command: str = COMMAND


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


def report(
    folder: Path,
    model: LanguageModel,
    coder: SparseCoder,
    *,
    outside: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Figure]:
    """Compute the figures that are missing and print the report.

    Args:
        folder: The world: its held-out documents, and where the report goes.
        outside: A corpus that the model did not write; its figures end in `_outside`, and its text goes nowhere.
    Returns:
        All figures.
    Raises:
        CacheError: If the world ships no held-out documents.
    """
    held_out = folder / HELD_OUT
    if not held_out.exists():
        raise CacheError(
            f"There is no {held_out}", expected="the held-out documents", do="Make the world with persona-explorer make"
        )
    figures = load(folder)
    key = {"model": model.fingerprint, "sae": coder.fingerprint}
    if figures and _key(folder) != key:
        figures = {}
    corpora = [("", read(held_out, model))] + (
        [("_outside", map(model.begun, read(outside, model)))] if outside else []
    )
    for suffix, documents in corpora:
        if suffix == "" and f"loss_recovered{suffix}" in figures:
            continue
        for name, figure in _fidelity(model, coder, list(documents), suffix, progress).items():
            figures[name + suffix] = figure
            _write(folder, key, figures)
            progress(f"{name}{suffix} {figure.value:.4f}")
    _write(folder, key, figures)
    return figures


def _fidelity(
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
            "" if suffix else "at least 0.85", "Share of the activations' variance that the SAE's reconstruction keeps; control: the mean.",
        ),
        "dead_latents": Figure(
            dead / len(fired), f"{len(fired):,} latents on {tokens:,} scored tokens", *wilson(dead, len(fired)), None,
            "" if suffix else "at most 0.01", f"Share of latents that fire on no {held} token.",
        ),
        "loss_recovered": Figure(
            recovered(with_loss.sum(0)), f"{predicted:,} predicted tokens of {len(with_loss):,} {held} windows",
            *interval(with_loss, recovered), 0.0, "" if suffix else "at least 0.95",
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


def load(folder: Path) -> dict[str, Figure]:
    """The figures of a world; none where there is no report."""
    path = folder / REPORT
    if not path.exists():
        return {}
    return {name: Figure(**entry) for name, entry in json.loads(path.read_text(encoding="utf-8"))["figures"].items()}


def _key(folder: Path) -> dict[str, str]:
    return json.loads((folder / REPORT).read_text(encoding="utf-8"))["of"]


def _write(folder: Path, key: dict[str, str], figures: dict[str, Figure]) -> None:
    for name, text in (
        (REPORT, json.dumps({"of": key, "figures": {n: asdict(f) for n, f in figures.items()}}, indent=1) + "\n"),
        (PRINTED, printed(folder.resolve().name, figures, _sweep(folder))),
    ):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def _sweep(folder: Path) -> list[dict[str, Any]]:
    path = folder / SWEEP
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def printed(name: str, figures: dict[str, Figure], sweep: Iterable[dict[str, Any]] = ()) -> str:
    """The report as Markdown."""
    lines = [f"# Report: {name}", "", "Printed from report.json; every figure is computed again by its command.", ""]
    lines += ["| Figure | Value | 95 % interval | Target | From | Meaning |", "|---|---|---|---|---|---|"]
    for key, f in figures.items():
        interval = "" if f.low is None or f.high is None else f"{f.low:.4f} to {f.high:.4f}"
        lines.append(f"| `{key}` | {f.value:.4f} | {interval} | {f.target} | {f.n} | {f.meaning} |")
    runs = list(sweep)
    if runs:
        lines += [
            "",
            "## Layer, width and k",
            "",
            "Short trainings on the same corpus, compared on held-out tokens.",
            "",
        ]
        lines += [
            "| Hook point | Latents | k | Steps | Variance explained | Dead latents |",
            "|---|---|---|---|---|---|",
        ]
        for r in runs:
            lines.append(
                f"| `{r['hook_point']}` | {r['n_features']:,} | {r['k']} | {r['steps']:,} "
                f"| {r['variance_explained']:.3f} | {r['dead_latents']:.3f} |"
            )
    return "\n".join(lines) + "\n"
