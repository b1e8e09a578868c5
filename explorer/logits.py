"""Which next tokens a direction promotes and suppresses, straight through the unembedding."""

import torch
from torch import Tensor


def logit_effects(
    directions: Tensor, unembedding: Tensor, usable: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tokens whose logits one unit of each direction moves most, up to the final norm's scale.

    Args:
        directions: `[features, d_model]`.
        unembedding: `[vocabulary, d_model]`, from `LanguageModel.unembedding`.
        usable: `[vocabulary]`, False for tokens that are not shown (special, unused).
        most: How many each way.
    Returns:
        promoted ids and logits, suppressed ids and logits, each `[features, most]`, strongest first.
    """
    found: list[tuple[Tensor, ...]] = []
    for part in directions.float().split(256):
        effects = part @ unembedding.T
        up = effects.masked_fill(~usable, -torch.inf).topk(most)
        down = effects.masked_fill(~usable, torch.inf).topk(most, largest=False)
        found.append((up.indices, up.values, down.indices, down.values))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))  # type: ignore[return-value]
