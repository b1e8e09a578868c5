"""What the layers hand to each other: frozen records without behaviour and without torch."""

from dataclasses import dataclass, field
from typing import Literal

ExampleKind = Literal["top", "interval"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One steering edit of a feature.

    Args:
        feature: Index of the feature in its SAE.
        strength: In multiples of the feature's own maximum in the corpus.
        mode: A name in `explorer.steering.STEERING_MODES`.
    """

    feature: int
    strength: float = 1.0
    mode: str = "add"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Temperature 0 is greedy decoding."""

    max_tokens: int = 80
    temperature: float = 0.7
    top_p: float = 0.95
    repetition_penalty: float = 1.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A tokenised text.

    Args:
        tokens: Token ids exactly as the tokenizer, or the sampling model, gave them.
        content: Half-open token spans of what a person or the model wrote; template text lies outside.
        source: Where it comes from, for people: a file and line, "sampled chat", ...
    """

    tokens: tuple[int, ...]
    content: tuple[tuple[int, int], ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A corpus window on which a feature fires.

    Args:
        kind: "top" (strongest, from distinct documents) or "interval" (a sample of one range of activations).
        interval: 0 (weakest fifth of the feature's range) to 4; -1 for top examples.
        window, document, offset: The window's row in the cache, its document, and where it starts in that document.
        tokens: Token ids of the whole window.
        acts: Activation of the feature at each token, in SAE units; 0 where it is not active or the token is no evidence.
        scored: Whether each token is evidence (see `explorer.evidence`).
        peak: Position of the strongest activation.
        flagged: The window holds words that the app blurs until asked for.
    """

    feature: int
    rank: int
    kind: ExampleKind
    interval: int
    window: int
    document: int
    offset: int
    tokens: tuple[int, ...]
    acts: tuple[float, ...]
    scored: tuple[bool, ...]
    peak: int
    flagged: bool = False

    @property
    def value(self) -> float:
        """The strongest activation in the window."""
        return self.acts[self.peak]


@dataclass(frozen=True, slots=True)
class Feature:
    """The statistics of one feature over the scored tokens of a corpus.

    Args:
        density: Share of scored tokens on which the feature is active (activation > 0).
        max, mean_active: Of the active values, in SAE units; 0 for a dead feature.
        quantiles: Quantile -> active value, for .5, .9 and .99.
        histogram: Counts of active tokens in equal bins from 0 to `max`.
        promoted, suppressed: (token id, logit effect of one unit of activation), strongest first.
        neighbours: (feature, cosine of decoder directions), nearest first.
        coactive: (feature, share of tokens active in either that are active in both), most first.
        title: A provisional title made of the feature's own words; not a label.
    """

    index: int
    density: float
    max: float
    mean_active: float
    tokens_active: int
    documents_active: int
    title: str
    quantiles: dict[float, float] = field(default_factory=dict)
    histogram: tuple[int, ...] = ()
    promoted: tuple[tuple[int, float], ...] = ()
    suppressed: tuple[tuple[int, float], ...] = ()
    neighbours: tuple[tuple[int, float], ...] = ()
    coactive: tuple[tuple[int, float], ...] = ()

    @property
    def dead(self) -> bool:
        """Whether no scored token of the corpus activates the feature."""
        return self.tokens_active == 0
