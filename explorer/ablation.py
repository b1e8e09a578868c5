"""What a feature does in a text: it is zeroed where it fires, and the model's next tokens are compared.

Zeroing takes `activation * decoder direction` off the residual stream where the SAE reads and leaves everything else of it as it is: the
other features, the SAE's biases, and its error term (what it does not reconstruct). It is the steering mode "ablate", no second mechanism.
Two effects are told apart. Everywhere: the feature is zeroed at every token, so a prediction also misses what the feature wrote at earlier
tokens and attention carried on. Here only: it is zeroed at one token, and the prediction at that very token is looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explorer.errors import SteeringError
from explorer.generate import Steering, steered_block
from explorer.hooks import edited
from explorer.records import Edit
from explorer.steering import change

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

MOST_DIRECT = 16  # firing tokens at which the feature is zeroed alone, the strongest first: each costs a forward pass
LISTED = 10
CONFIRMED, PARTLY = 0.99, 0.9


@dataclass(frozen=True, slots=True)
class Moved:
    """A token whose chance to come next the feature changes.

    Args:
        token: Its id.
        logit: Change of its logit when the feature is zeroed, averaged over the firing tokens.
        before, after: Its probability at temperature 1 with the feature and without, averaged likewise.
    """

    token: int
    logit: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the tokens that the feature's direction promotes are those that lose when the feature is zeroed.

    Args:
        words: confirmed, partly, not borne out, or silent (it does not fire, so nothing can be said).
        overlap, listed: Of `listed` promoted tokens, those among the `listed` tokens whose logits fall most.
        percentile: Share of the vocabulary whose logits fall less than a promoted token's, averaged over these; 0.5 is chance.
        correlation: Spearman's, over the vocabulary, of the direct effect (direction times unembedding) and the fall; 0 is chance.
    """

    words: str
    overlap: int
    listed: int
    percentile: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Ablation:
    """What zeroing a feature does to a text; one entry a token, at which the next token is predicted.

    Args:
        tokens: Token ids.
        acts: The feature's activation, SAE units.
        loss: Change of the loss on the token that really follows, in nats: above 0 the model expects it less without the feature.
            The last entry is 0, nothing follows.
        divergence: Kullback-Leibler divergence of the next-token distribution with the feature from the one without, nats.
        direct_loss, direct_divergence: The same with the feature zeroed at this token only; nan where it does not fire, or beyond the
            `MOST_DIRECT` strongest.
        lose, gain: The tokens whose logits fall and rise most where the feature fires.
        verdict: On the cached promoted tokens.
    """

    feature: int
    tokens: tuple[int, ...]
    acts: tuple[float, ...]
    loss: tuple[float, ...]
    divergence: tuple[float, ...]
    direct_loss: tuple[float, ...]
    direct_divergence: tuple[float, ...]
    lose: tuple[Moved, ...]
    gain: tuple[Moved, ...]
    verdict: Verdict

    @property
    def fires(self) -> int:
        """On how many tokens the feature fires, what does not count as evidence included."""
        return sum(act > 0 for act in self.acts)


@torch.inference_mode()
def ablate(
    model: "LanguageModel",
    coder: "SparseCoder",
    feature: int,
    tokens: Sequence[int],
    promoted: Sequence[int] = (),
) -> Ablation:
    """Zero a feature in a text.

    Args:
        tokens: The text, as the model reads it.
        promoted: The cached promoted tokens, strongest first.
    Raises:
        SteeringError: If there is no such feature, the text is empty or too long, or the SAE's place cannot be edited.
    """
    if not 0 < len(tokens) <= model.max_length:
        raise SteeringError(
            f"The text has {len(tokens):,} tokens", expected=f"1 to {model.max_length:,}", do="Choose another"
        )
    pair = _Pair(model, coder, feature, tokens)
    ids, acts, before, after = pair.ids, pair.acts, pair.before, pair.after
    loss, divergence = _effects(before, after, ids[0])
    direct = torch.full((2, len(tokens)), float("nan"))
    for at in _strongest(acts):
        # what comes later cannot be seen at this token, so it need not be read
        here = pair.without(ids[:, : at + 1], only=at)
        follows = ids[0, at : at + 2]
        direct[:, at] = torch.stack([part[0] for part in _effects(before[at : at + 1], here, follows)]).cpu()
    firing, usable, change_of = pair.firing, pair.usable, -pair.fall
    shares = [x[firing].softmax(-1).mean(0).cpu() for x in (before, after)] if len(firing) else [change_of] * 2
    lose = change_of.masked_fill(~usable, torch.inf).topk(LISTED, largest=False).indices
    gain = change_of.masked_fill(~usable, -torch.inf).topk(LISTED).indices

    def moved(chosen: Tensor, sign: float) -> tuple[Moved, ...]:
        return tuple(
            Moved(t, float(change_of[t]), float(shares[0][t]), float(shares[1][t]))
            for t in chosen.tolist()
            if change_of[t] * sign > 0
        )

    return Ablation(
        feature, tuple(tokens), _list(acts), _list(loss), _list(divergence), _list(direct[0]), _list(direct[1]),
        moved(lose, -1), moved(gain, 1), judge(promoted, -change_of, pair.direct, usable),
    )  # fmt: skip


@torch.inference_mode()
def verdicts(
    model: "LanguageModel", coder: "SparseCoder", feature: int, tokens: Sequence[int], lists: Sequence[Sequence[int]]
) -> list[Verdict]:
    """Zero a feature in a text, and hold several lists of promoted tokens against what falls: its own, and others' for comparison."""
    pair = _Pair(model, coder, feature, tokens)
    return [judge(promoted, pair.fall, pair.direct, pair.usable) for promoted in lists]


class _Pair:
    """A text read twice, as it is and with one feature zeroed.

    Attributes:
        ids: `[1, pos]`; acts: `[pos]`, the feature's activations; firing: the positions at which it fires.
        before, after: `[pos, vocabulary]`, logits as the model is and with the feature zeroed.
        usable: `[vocabulary]`, False for special tokens.
    """

    def __init__(self, model: "LanguageModel", coder: "SparseCoder", feature: int, tokens: Sequence[int]) -> None:
        self.model, self.edit = model, Edit(feature, 1.0, "ablate")
        hook, self.lever = Steering(coder, {feature: 1.0}).lever(self.edit, model.device)
        self.block = model.blocks[steered_block(model, hook, self.edit, len(self.lever.direction))]
        self.ids = torch.tensor([list(tokens)], device=model.device)
        with model.lock:
            self.before = model.hf(self.ids, use_cache=False).logits[0].float()
        self.acts = coder.encode(model.activations(self.ids, hook)[0])[:, feature].float().cpu()
        self.after = self.without(self.ids)
        self.firing = torch.nonzero(self.acts > 0)[:, 0]
        self.usable = torch.tensor([t not in model.vocabulary.special for t in range(self.before.shape[1])])

    def without(self, read: Tensor, only: int | None = None) -> Tensor:
        """Logits with the feature zeroed `[pos, vocabulary]`; at one token only, those of that token `[1, vocabulary]`."""

        def zero(resid: Tensor) -> Tensor:
            delta = change(resid.float(), [(self.edit, self.lever)])
            if only is not None:
                delta[:, :only] = 0
            return resid + delta.to(resid.dtype)

        with self.model.lock, edited(self.block, zero):
            return self.model.hf(read, use_cache=False, logits_to_keep=0 if only is None else 1).logits[0].float()

    @property
    def fall(self) -> Tensor:
        """`[vocabulary]`, how far each logit falls, averaged over the firing tokens; 0 where the feature does not fire."""
        if not len(self.firing):
            return torch.zeros(self.before.shape[1])
        return (self.before - self.after)[self.firing].mean(0).cpu()

    @property
    def direct(self) -> Tensor:
        """`[vocabulary]`, the direction's effect on each logit through the unembedding."""
        return (self.lever.direction.float() @ self.model.unembedding().T).cpu()


def judge(promoted: Sequence[int], fall: Tensor, direct: Tensor, usable: Tensor) -> Verdict:
    """Compare the cached promoted tokens with what really loses.

    Args:
        promoted: Strongest first.
        fall: `[vocabulary]`, how far each logit falls when the feature is zeroed.
        direct: `[vocabulary]`, the direction's effect on each logit through the unembedding.
        usable: `[vocabulary]`, False for tokens that are not counted.
    """
    listed = [token for token in promoted[:LISTED] if 0 <= token < len(usable) and usable[token]]
    if not listed or not fall.any():
        return Verdict("silent", 0, len(listed), 0.5, 0.0)
    counted = fall[usable]
    most = set(fall.masked_fill(~usable, -torch.inf).topk(len(listed)).indices.tolist())
    overlap = sum(token in most for token in listed)
    below = torch.stack([(counted < fall[token]).float().mean() for token in listed])
    percentile = float(below.mean())
    words = "confirmed" if percentile >= CONFIRMED else "partly" if percentile >= PARTLY else "not borne out"
    return Verdict(words, overlap, len(listed), percentile, _spearman(direct[usable], counted))


def _effects(before: Tensor, after: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Change of the loss on the token that follows, and KL(before || after); each `[pos]`."""
    old, new = before.log_softmax(-1), after.log_softmax(-1)
    divergence = (old.exp() * (old - new)).sum(-1)
    loss = torch.zeros_like(divergence)
    following = ids[1 : len(before) + 1]
    rows = torch.arange(len(following), device=ids.device)
    loss[: len(following)] = old[rows, following] - new[rows, following]
    return loss, divergence


def _strongest(acts: Tensor) -> list[int]:
    """The tokens at which the feature fires most."""
    order = acts.argsort(descending=True, stable=True)[:MOST_DIRECT].tolist()
    return [at for at in order if acts[at] > 0]


def _spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation; ties go by their order."""
    ranks = [x.argsort(stable=True).argsort(stable=True).double() for x in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    return float((centred[0] @ centred[1]) / (centred[0].norm() * centred[1].norm()).clamp(min=1e-12))


def _list(values: Tensor) -> tuple[float, ...]:
    return tuple(values.cpu().tolist())
