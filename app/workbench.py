"""What the engine reads off the model in one go: the next token at a cursor, and which features moved in a steered answer.

Torch is imported by the functions that need it; pages may import the records.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.generate import Row, Steering
    from explorer.model import LanguageModel
    from explorer.records import Document
    from explorer.sae import SparseCoder

Choices = list[tuple[str, float]]
"""Text of a token and its probability at temperature 1, likeliest first."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Activations of one feature on a text.

    Args:
        tokens: Token ids, the chat template's included.
        acts: Activation at each token, in SAE units; what is not scored has its true value here too.
        scored: Whether the token counts as evidence.
    """

    tokens: tuple[int, ...]
    acts: tuple[float, ...]
    scored: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A feature and what steering did to it: how active it is in either answer, as the unsteered model reads them.

    Args:
        baseline, steered: Mean activation over the answer's scored tokens, as a share of the feature's maximum in the corpus.
        edited: It was turned itself, so it is no side effect.
        readings: It on the tokens of the baseline answer, and of the steered one.
    """

    feature: int
    baseline: float
    steered: float
    edited: bool
    readings: tuple[Reading, Reading]

    @property
    def change(self) -> float:
        """Steered less baseline, in shares of the maximum."""
        return self.steered - self.baseline


def next_tokens(model: "LanguageModel", row: "Row", steering: "Steering", k: int) -> tuple[Choices, Choices]:
    """The likeliest next tokens after `row`, unsteered and steered.

    Args:
        row: Prompt and answer so far, and the edits.
    """
    from dataclasses import replace

    from explorer.generate import next_logits

    logits = next_logits(model, [replace(row, edits=()), row], steering)
    shares, tokens = logits.softmax(-1).topk(min(k, logits.shape[-1]), -1)
    baseline, steered = (
        [(_spelt(model, token), share) for token, share in zip(tokens[at].tolist(), shares[at].tolist(), strict=True)]
        for at in (0, 1)
    )
    return baseline, steered


def _spelt(model: "LanguageModel", token: int) -> str:
    """A token as text: as it is where its bytes are whole characters, else as the tables of the app spell it."""
    try:
        return model.vocabulary.bytes_of[token].decode()
    except UnicodeDecodeError:
        return model.vocabulary.piece(token)


def side_effects(
    model: "LanguageModel",
    coder: "SparseCoder",
    answers: "Sequence[tuple[Document, int]]",
    maxima: Mapping[int, float],
    edited: Collection[int],
    *,
    sink_norm: float,
    n: int,
) -> list[Moved]:
    """The features that differ most between a baseline answer and a steered one, the largest change first.

    Args:
        answers: Both as the unsteered model reads them: the whole text, and the token at which the answer begins.
        maxima: Feature -> its maximum in the corpus; features without one are left out.
        edited: Features that were turned.
    """
    import torch

    from explorer.inspecting import read

    acts, scored = zip(*(read(model, coder, text, sink_norm, start) for text, start in answers), strict=True)
    limits = torch.tensor([maxima.get(feature, 0.0) for feature in range(coder.n_features)], device=acts[0].device)
    means = []
    for values, counts in zip(acts, scored, strict=True):
        chosen = values[torch.tensor(counts, device=values.device, dtype=torch.bool)]
        mean = chosen.mean(0) if len(chosen) else torch.zeros_like(limits)
        means.append(torch.where(limits > 0, mean / limits.clamp(min=1e-9), 0))
    change = (means[1] - means[0]).abs()
    order = [i for i in change.topk(min(n + len(edited), len(change))).indices.tolist() if change[i] > 0]
    side = [i for i in order if i not in edited][:n]
    shown = sorted([*side, *(i for i in edited if 0 <= i < len(change))], key=lambda i: -float(change[i]))

    def reading(which: int, feature: int) -> Reading:
        document, start = answers[which]
        return Reading(document.tokens[start:], tuple(acts[which][:, feature].cpu().tolist()), scored[which])

    return [
        Moved(i, float(means[0][i]), float(means[1][i]), i in edited, (reading(0, i), reading(1, i))) for i in shown
    ]
