"""How often the promoted tokens of a feature bear it out: over many features, beside other features' tokens as the control."""

from collections.abc import Callable

import numpy as np

from explorer.ablation import CONFIRMED, PARTLY, verdicts
from explorer.cache import Cache
from explorer.fidelity import Figure
from explorer.intervals import bootstrap, wilson
from explorer.model import LanguageModel
from explorer.sae import SparseCoder

PROMOTED_FIGURES = CONFIRMED_FIGURE, PARTLY_FIGURE, MEAN_FIGURE = (
    "promoted_tokens_confirmed",
    "promoted_tokens_partly",
    "promoted_tokens_percentile",
)
FEATURES = 200


def promoted_figures(
    cache: Cache,
    model: LanguageModel,
    coder: SparseCoder,
    *,
    features: int = FEATURES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Figure]:
    """Zero features drawn at random, each in its strongest example, and see whether its promoted tokens are what falls.

    Args:
        features: How many are drawn of those that fire.
    """
    drawn = np.random.default_rng(seed).permutation(cache.live)[:features].tolist()
    promoted = {feature: [token for token, _ in cache.feature(feature).promoted] for feature in drawn}
    own, others = [], []
    for at, feature in enumerate(drawn):
        other = drawn[at - 1]  # as random as this one
        found = verdicts(model, coder, feature, cache.examples(feature)[0].tokens, [promoted[feature], promoted[other]])
        if found[0].words != "silent":
            own.append(found[0].percentile)
            others.append(found[1].percentile)
        if at % 20 == 0:
            progress(f"promoted tokens: {at + 1} of {len(drawn)} features zeroed")
    n = f"{len(own):,} features, each in its strongest example"

    def figure(limit: float) -> Figure:
        hits, chance = (sum(value >= limit for value in values) for values in (own, others))
        return Figure(
            hits / max(1, len(own)), n, *wilson(hits, len(own)), chance / max(1, len(own)), "",
            f"Share of features whose promoted tokens fall, when it is zeroed, more than {limit:.0%} of the vocabulary on average; "
            "control: the promoted tokens of another feature.",
        )  # fmt: skip

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        CONFIRMED_FIGURE: figure(CONFIRMED),
        PARTLY_FIGURE: figure(PARTLY),
        MEAN_FIGURE: Figure(
            mean(own), n, *(bootstrap(np.array(own), lambda total: float(total) / len(own)) if own else (None, None)), mean(others), "",
            "Share of the vocabulary whose logits fall less than a promoted token's when the feature is zeroed, averaged; 0.5 is chance; "
            "control: the promoted tokens of another feature.",
        ),
    }  # fmt: skip
