"""Which features a text fires: every feature at every token, ranked so that those that are always on sink."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.cache import Cache
    from explorer.model import LanguageModel
    from explorer.records import Document
    from explorer.sae import SparseCoder

_ENCODED = 512  # tokens encoded at once: a wide SAE's activations would not fit for a long text

RANKINGS: dict[str, str] = {
    "max": "Its strongest activation in the text, in SAE units.",
    "mean": "Its mean activation over the tokens that count, in SAE units.",
    "total": "The sum of its activations over the tokens that count, in SAE units.",
    "share": "Its strongest activation in the text as a share of its strongest in the corpus: is it much, for this feature?",
}
"""What features can be ranked by, each with what it means."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A feature that fires on a text.

    Args:
        feature: Its number.
        max, mean, total: Over the tokens that count, in SAE units.
        share: `max` as a share of its maximum in the corpus; nan where the corpus never fires it.
        tokens: On how many of the tokens that count it fires.
        rarity: What its rank is weighted with, 0 (fires on every token of the corpus) to 1 (on one at most).
        score: What it was ranked by, weighted if that was asked for.
    """

    feature: int
    max: float
    mean: float
    total: float
    share: float
    tokens: int
    rarity: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """Every activation of every feature on a text; only those above 0 are kept.

    Args:
        tokens: `[pos]` token ids, the chat template's included.
        scored: `[pos]`, whether the token counts as evidence.
        position, feature, value: `[active]`, sorted by position: where it fires, which, and how strongly (SAE units). What is not scored is
            here too.
        width: How many features there are.
    """

    tokens: tuple[int, ...]
    scored: tuple[bool, ...]
    position: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    width: int

    def of(self, feature: int) -> tuple[float, ...]:
        """One feature on every token, `[pos]`."""
        acts = np.zeros(len(self.tokens))
        mine = self.feature == feature
        acts[self.position[mine]] = self.value[mine]
        return tuple(acts.tolist())

    def at(self, position: int) -> list[tuple[int, float]]:
        """The features on one token, strongest first."""
        here = self.position == position
        order = np.argsort(-self.value[here], kind="stable")
        return list(zip(self.feature[here][order].tolist(), self.value[here][order].tolist(), strict=True))

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Maximum, sum and number of active tokens of each feature over the tokens that count, each `[features]`."""
        counts = np.array(self.scored, bool)[self.position] if len(self.position) else np.empty(0, bool)
        feature, value = self.feature[counts], self.value[counts].astype(float)
        most = np.zeros(self.width)
        np.maximum.at(most, feature, value)
        total = np.bincount(feature, value, minlength=self.width)
        return most, total, np.bincount(feature, minlength=self.width)


def rarity(density: np.ndarray, tokens: int) -> np.ndarray:
    """How much the firing of a feature says, from how seldom it does: log(1 / density) / log(tokens), as for words in documents.

    Args:
        density: `[features]`, share of the corpus' scored tokens on which each is active.
        tokens: Scored tokens of the corpus; a feature that fired on none of them counts as one that fired on one.
    Returns:
        `[features]`, 0 for a feature that is on everywhere, 1 for one that fires on a single token.
    Source:
        Sparck Jones' inverse document frequency (1972), with tokens for documents.
    """
    most = max(tokens, 2)
    return -np.log(np.clip(density, 1 / most, 1.0)) / np.log(most)


def rank(
    found: Inspected,
    cache: "Cache",
    *,
    by: str = "max",
    weighted: bool = True,
    limit: int = 50,
    max_density: float = 1.0,
) -> list[Fired]:
    """The features that fire on a text, the first is the one to look at.

    Args:
        by: One of `RANKINGS`.
        weighted: Multiply by `rarity`, so that features which are always on sink.
        max_density: Leave out features that fire on a larger share of the corpus.
    Raises:
        UsageError: If `by` is unknown.
    """
    if by not in RANKINGS:
        raise UsageError(f"{by!r} is nothing to rank by", expected=", ".join(RANKINGS), do="Use one of these")
    density = cache.table.column("density").to_numpy()
    usual = cache.table.column("max").to_numpy().astype(float)
    most, total, active = found.pooled()
    mean = total / max(1, sum(found.scored))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(usual > 0, most / usual, np.nan)
    weight = rarity(density, cache.manifest.tokens_scored)
    values = {"max": most, "mean": mean, "total": total, "share": np.nan_to_num(share, nan=0.0)}[by]
    score = values * weight if weighted else values
    fires = np.flatnonzero((active > 0) & (density <= max_density))
    order = fires[np.lexsort((fires, -most[fires], -score[fires]))][:limit]
    return [
        Fired(
            int(i), float(most[i]), float(mean[i]), float(total[i]), float(share[i]), int(active[i]), float(weight[i]),
            float(score[i]),
        )
        for i in order
    ]  # fmt: skip


def inspect(model: "LanguageModel", coder: "SparseCoder", document: "Document", sink_norm: float) -> Inspected:
    """Read a text and keep every activation.

    Args:
        sink_norm: A token whose residual stream is longer than this is an attention sink.
    Raises:
        ModelError: If the text is longer than the model's context.
    """
    import torch

    resid, scored = _stream(model, coder, document, sink_norm)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(resid), _ENCODED):
        with torch.inference_mode():
            acts = coder.encode(resid[start : start + _ENCODED]).float().cpu().numpy()
        position, feature = np.nonzero(acts > 0)
        parts.append((position + start, feature, acts[position, feature]))
    columns = [np.concatenate(column) if parts else np.empty(0, int) for column in zip(*parts, strict=True)]
    if not columns:
        columns = [np.empty(0, int), np.empty(0, int), np.empty(0)]
    position, feature, value = columns
    return Inspected(document.tokens, scored, position, feature, value, coder.n_features)


def read(
    model: "LanguageModel", coder: "SparseCoder", document: "Document", sink_norm: float, start: int = 0
) -> "tuple[Tensor, tuple[bool, ...]]":
    """Activations of all features on a text, from token `start` on, and which of these tokens count as evidence.

    Returns:
        `[pos, n_features]` float32 on the model's device; `[pos]`.
    Raises:
        ModelError: If the text is longer than the model's context.
    """
    import torch

    resid, scored = _stream(model, coder, document, sink_norm)
    with torch.inference_mode():
        return coder.encode(resid[start:]).float(), scored[start:]


def _stream(
    model: "LanguageModel", coder: "SparseCoder", document: "Document", sink_norm: float
) -> "tuple[Tensor, tuple[bool, ...]]":
    """The residual stream where the SAE reads, `[pos, d_model]`, and which tokens count as evidence."""
    import torch

    if len(document.tokens) > model.max_length:
        raise ModelError(
            f"The text has {len(document.tokens):,} tokens", expected=f"at most {model.max_length:,}", do="Shorten it"
        )
    if not document.tokens:
        return torch.empty(0, coder.d_in, device=model.device), ()
    with torch.inference_mode():
        resid = model.activations(torch.tensor([document.tokens]), coder.hook_point)[0]
        sinks = (torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32) > sink_norm).tolist()
    written = [False] * len(document.tokens)
    for first, stop in document.content:
        written[first:stop] = [True] * (stop - first)
    scored = tuple(
        at > 0 and inside and not sink and token not in model.vocabulary.special
        for at, (inside, sink, token) in enumerate(zip(written, sinks, document.tokens, strict=True))
    )
    return resid, scored
