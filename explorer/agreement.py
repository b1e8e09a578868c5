"""Do two people who named the same feature without seeing each other's words mean the same?

Four measures, each with how many features it stands on and an interval:

*   interpretable: Krippendorff's alpha, nominal, on whether one meaning was found at all;
*   confidence: alpha, ordinal, on how sure they were;
*   answers: alpha, nominal, on what each said of the same held-out snippets, fires or not: do the labels pick out the same texts?
*   meaning: mean cosine of the labels as sentences, where an embedder is at hand; a similarity and not corrected for chance.

Alpha is 1 where people always agree and 0 where they agree as often as chance would have it. It needs variation: where everybody says the
same of everything there is nothing that chance could have got wrong, and alpha is undefined. The newest word of each person counts. The
Label page hides other people's words until one has said something; whoever changed a label after that was no longer blind.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from explorer.evidence_lock import confirms
from explorer.intervals import bootstrap
from explorer.label_files import CONFIDENCES, NOT_INTERPRETABLE, Label
from explorer.meaning import sentence_vectors

if TYPE_CHECKING:
    from explorer.embedding import Embeds

MEASURES = {
    "interpretable": "Krippendorff's alpha on whether a feature has one meaning at all.",
    "confidence": "Krippendorff's alpha, ordinal, on how sure people were of their labels.",
    "answers": "Krippendorff's alpha on which held-out snippets people say the feature fires in.",
    "meaning": "Mean cosine of the labels' sentence vectors; 1 is the same words. Not corrected for chance.",
}
_RESAMPLES = 500

Answers = Mapping[int, Mapping[str, Mapping[str, bool]]]
"""Feature -> person -> snippet's id -> whether it was said to fire."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of agreement.

    Args:
        value: Alpha, or a mean similarity; None where it is undefined, and `why` says so.
        low, high: Its 95 % interval, by drawing features again; None where there are too few.
        features: On which at least two people's words meet.
        units: What was judged by at least two: features, or snippets.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    features: int = 0
    units: int = 0
    why: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return self.why
        within = "" if self.low is None or self.high is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{within}"


@dataclass(frozen=True, slots=True)
class Pair:
    """What people said of one feature that at least two have named.

    Args:
        labels: Person -> newest word.
        interpretable: Whether they agree on whether it has one meaning.
        spread: Largest difference between their confidences; None where fewer than two gave one.
        meaning: Mean cosine of their labels; None without an embedder, or where fewer than two found a meaning.
        answers: Alpha on the snippets that two have answered.
        differ: Share of pairs of answers to one snippet that differ; None where there are none.
    """

    feature: int
    labels: dict[str, Label]
    interpretable: bool
    spread: int | None
    meaning: float | None
    answers: Measure
    differ: float | None

    @property
    def distance(self) -> float:
        """How far apart they are, for ranking: 1 where only one found a meaning, plus the share of differing answers, plus 1 - meaning,
        plus a tenth for each step of confidence."""
        apart = 0.0 if self.interpretable else 1.0
        unlike = 0.0 if self.meaning is None else 1 - self.meaning
        return apart + (self.differ or 0.0) + unlike + (self.spread or 0) / 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """All measures, and the features in order of disagreement, worst first."""

    measures: dict[str, Measure]
    pairs: tuple[Pair, ...] = field(default_factory=tuple)


def latest(changes: Iterable[Label]) -> dict[int, dict[str, Label]]:
    """Feature -> person -> their newest word; what they took back, and labels that came with a cache, are left out.

    So is who looked at a label again and left it as it was: whoever confirms somebody else's words has not said their own.

    Args:
        changes: Of one SAE, oldest first within a feature, as `LabelStore.changes` gives them.
    """
    found: dict[int, dict[str, Label]] = {}
    for change in changes:
        if not (change.bundled or confirms(change)):
            found.setdefault(change.feature, {})[change.author] = change
    said = {f: {who: label for who, label in by.items() if label.label} for f, by in found.items()}
    return {feature: by for feature, by in said.items() if by}


def agreement(
    labels: Mapping[int, Mapping[str, Label]], answers: Answers, embedder: "Embeds | None" = None
) -> Agreement:
    """Measure agreement.

    Args:
        labels: As `latest` gives them.
        answers: What each person said of held-out snippets.
        embedder: For the meaning of labels.
    """
    double = {f: dict(by) for f, by in labels.items() if len(by) > 1}
    cosines = _cosines(double, embedder) if embedder is not None else {}
    pairs = [_pair(f, by, answers.get(f, {}), cosines.get(f)) for f, by in double.items()]
    kinds = [[_interpretable(label) for label in by.values()] for by in double.values()]
    sure = [[s for label in by.values() if (s := label.confidence) is not None] for by in double.values()]
    told = {f: _by_snippet(by) for f, by in answers.items()}
    rows = [(f, votes) for f, snippets in told.items() for votes in snippets.values()]
    measures = {
        "interpretable": alpha(kinds, (False, True)),
        "confidence": alpha(sure, tuple(CONFIDENCES), "ordinal"),
        "answers": alpha([votes for _, votes in rows], (False, True), groups=[f for f, _ in rows]),
        "meaning": _mean([c for c in cosines.values() if c is not None], embedder is not None),
    }
    return Agreement(measures, tuple(sorted(pairs, key=lambda pair: (-pair.distance, pair.feature))))


def alpha(
    units: Sequence[Sequence[Any]],
    domain: tuple[Any, ...],
    level: Literal["nominal", "ordinal"] = "nominal",
    *,
    groups: Sequence[int] | None = None,
    seed: int = 0,
) -> Measure:
    """Krippendorff's alpha with an interval.

    Args:
        units: The ratings of each unit, one a person who rated it; units with fewer than two count for nothing.
        domain: The values, in order.
        groups: Of each unit: units of one group (snippets of one feature) are drawn together. By default each stands alone.
    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability; the interval is a percentile bootstrap.
    """
    of = list(range(len(units))) if groups is None else list(groups)
    kept = [(g, unit) for g, unit in zip(of, units, strict=True) if len(unit) > 1]
    if not kept:
        return Measure(None, why="Nothing has been judged by two people yet")
    place = {value: at for at, value in enumerate(domain)}
    counts = np.zeros((len(kept), len(domain)), int)
    for row, (_, unit) in enumerate(kept):
        for value in unit:
            counts[row, place[value]] += 1
    names = {g: at for at, g in enumerate(dict.fromkeys(g for g, _ in kept))}
    rows = [np.flatnonzero([names[g] == at for g, _ in kept]) for at in range(len(names))]
    value = _alpha(counts, level)
    if value is None:
        return Measure(
            None, features=len(rows), units=len(kept), why="Everybody says the same of everything: alpha is undefined"
        )
    rng = np.random.default_rng(seed)
    drawn = [_alpha(counts[np.concatenate([rows[g] for g in pick])], level) for pick in
             rng.integers(len(rows), size=(_RESAMPLES if len(rows) > 1 else 0, len(rows)))]  # fmt: skip
    some = [d for d in drawn if d is not None]
    low, high = np.quantile(some, [0.025, 0.975]) if len(some) > _RESAMPLES / 2 else (None, None)
    return Measure(
        value, None if low is None else float(low), None if high is None else float(high), len(rows), len(kept)
    )


def _alpha(counts: np.ndarray, level: Literal["nominal", "ordinal"]) -> float | None:
    import krippendorff

    if np.count_nonzero(counts.sum(0)) < 2:  # no variation: expected disagreement is 0
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement=level))


def _pair(feature: int, by: dict[str, Label], answers: Mapping[str, Mapping[str, bool]], cosine: float | None) -> Pair:
    sure = [label.confidence for label in by.values() if label.confidence is not None]
    votes = list(_by_snippet(answers).values())
    twos = [a != b for vote in votes for a, b in itertools.combinations(vote, 2)]
    return Pair(
        feature,
        by,
        len({_interpretable(label) for label in by.values()}) == 1,
        max(sure) - min(sure) if len(sure) > 1 else None,
        cosine,
        alpha(votes, (False, True)),
        fmean(twos) if twos else None,
    )


def _interpretable(label: Label) -> bool:
    return label.label.strip().casefold() != NOT_INTERPRETABLE


def _by_snippet(answers: Mapping[str, Mapping[str, bool]]) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for said in answers.values():
        for snippet, fires in said.items():
            found.setdefault(snippet, []).append(bool(fires))
    return found


def _cosines(double: Mapping[int, Mapping[str, Label]], embedder: "Embeds") -> dict[int, float | None]:
    """Feature -> mean cosine of the labels of people who found a meaning."""
    texts = {f: [label.label for label in by.values() if _interpretable(label)] for f, by in double.items()}
    every = list(dict.fromkeys(text for some in texts.values() for text in some))
    if not every:
        return dict.fromkeys(double)
    of = dict(zip(every, sentence_vectors(embedder, every), strict=True))
    return {
        f: fmean(float(of[a] @ of[b]) for a, b in itertools.combinations(some, 2)) if len(some) > 1 else None
        for f, some in texts.items()
    }


def _mean(cosines: list[float], embeds: bool) -> Measure:
    if not cosines:
        return Measure(
            None, why="No feature has two labels that name a meaning" if embeds else "Needs the sentence embedder"
        )
    value, n = fmean(cosines), len(cosines)
    if n < 2:
        return Measure(value, features=n, units=n)
    parts = np.array([[cosine, 1.0] for cosine in cosines])
    low, high = bootstrap(parts, lambda row: float(row[0] / row[1]))
    return Measure(value, low, high, n, n)
