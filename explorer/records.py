"""What the layers hand to each other: frozen records without behaviour and without torch."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

ExampleKind = Literal["top", "interval"]
DIRECTION_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Edit:
    """One steering edit: of a feature, or along a direction.

    Args:
        feature: Index of the feature in its SAE; -1 for a direction.
        strength: In multiples of the feature's own maximum in the corpus, or of the direction as it was found.
        mode: A name in `explorer.steering.STEERING_MODES`.
        direction: Name of a direction (see `explorer.directions`); "" for a feature.
    """

    feature: int = -1
    strength: float = 1.0
    mode: str = "add"
    direction: str = ""

    @classmethod
    def of(cls, target: str, strength: float = 1.0, mode: str = "add") -> "Edit":
        """An edit of what `target` spells: "12" or "~villain".

        Raises:
            ValueError: If it spells neither.
        """
        if target.startswith("~"):
            if not DIRECTION_NAME.fullmatch(target[1:]):
                raise ValueError(target)
            return cls(-1, strength, mode, target[1:])
        if not target.isdecimal() or len(target) > 9:
            raise ValueError(target)
        return cls(int(target), strength, mode)

    @property
    def target(self) -> str:
        """What is edited, as links, files and the command line spell it: "12", or "~villain" for a direction."""
        return f"~{self.direction}" if self.direction else str(self.feature)

    @property
    def spelled(self) -> str:
        """The whole edit, as links and the command line spell it: "12:1.5:add"."""
        return f"{self.target}:{self.strength:g}:{self.mode}"

    @classmethod
    def read(cls, spelled: str) -> "Edit":
        """The edit that `spelled` gives; without a mode it adds, without a strength as well it is of strength 1.

        Raises:
            ValueError: If it is none, the strength is no finite number, or there is no such mode.
        """
        from explorer.steering import STEERING_MODES  # which stands on this module

        target, strength, mode, *more = [*spelled.split(":"), *("1", "add")[spelled.count(":") :]]
        edit = cls.of(target, float(strength), mode)
        if more or mode not in STEERING_MODES or not math.isfinite(edit.strength):
            raise ValueError(spelled)
        return edit


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
