"""Which features point the same way."""

import torch
from torch import Tensor


def nearest(directions: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The nearest decoder directions of each feature.

    Args:
        directions: `[features, d_model]`.
        most: How many.
    Returns:
        Indices and cosines, `[features, most]`, nearest first; a feature is no neighbour of itself.
    """
    unit = torch.nn.functional.normalize(directions.float(), dim=1)
    most = min(most, len(unit) - 1)
    ids, cosines = [], []
    for start in range(0, len(unit), 1024):
        cosine = unit[start : start + 1024] @ unit.T
        rows = torch.arange(len(cosine))
        cosine[rows, start + rows] = -2
        best = cosine.topk(most)
        ids.append(best.indices)
        cosines.append(best.values)
    return torch.cat(ids), torch.cat(cosines)
