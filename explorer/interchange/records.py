"""What other programs' files say of features, read into plain records before a cache is made of them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One text on which a feature was seen.

    Args:
        tokens: As the file spells them.
        values: Activation at each token.
        top: Whether it stands among the strongest, not among the samples of a range of activations.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    top: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a file says of one feature.

    Args:
        density: Share of tokens on which it is active.
        maximum: The strongest activation; 0 where the file does not say.
        bars: (middle, count) of each bar of the histogram of active values, bars of one width from the left.
        promoted, suppressed: (token as the file spells it, logit), strongest first.
        neighbours: (feature, cosine of decoder directions), nearest first.
    """

    index: int
    density: float = 0.0
    maximum: float = 0.0
    bars: tuple[tuple[float, int], ...] = ()
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()
    neighbours: tuple[tuple[int, float], ...] = ()
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """An explanation of a feature that came with a file; `scores` says in words how well it did there."""

    feature: int
    text: str
    by: str = ""
    scores: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that a set of files says about one SAE.

    Args:
        program: Whose files they are.
        model, source: The model, and the SAE as `LAYER-SET`.
        hook_point: Where the SAE reads, as far as the files say.
        dataset: What was read.
        prompts, prompt_tokens: How many texts of how many tokens; 0 where the files do not say.
    """

    program: str
    model: str
    source: str
    hook_point: str
    dataset: str = ""
    prompts: int = 0
    prompt_tokens: int = 0
    sheets: dict[int, Sheet] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """What became of the rows of a set of files.

    Args:
        features, examples: How many the cache holds.
        merged: Rows that repeat a text of the same feature, once a range of activations or once a firing token.
        silent: Rows on which the feature is nowhere active.
        special: Rows on which it is active on special tokens only.
        labels: Explanations that became labels of the cache.
    """

    features: int = 0
    examples: int = 0
    merged: int = 0
    silent: int = 0
    special: int = 0
    labels: int = 0
