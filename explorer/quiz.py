"""Does a label say where its feature fires? Answers about held-out snippets, and how good they are.

People and machines answer the same question about the same snippets (`explorer.snippets`), so their scores lie on one scale: balanced
accuracy, .5 for somebody who guesses or always says the same, 1 for somebody who is always right.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.evidence_lock import fingerprint
from explorer.intervals import wilson
from explorer.scores import Score
from explorer.snippets import KINDS, Snippet, windows_of


@dataclass(frozen=True, slots=True)
class Grade:
    """How well somebody told where a feature fires.

    Args:
        score: Balanced accuracy, 0 to 1: the mean of the shares of firing and of silent snippets that were told right.
        low, high: Its 95 % interval.
        n: Snippets answered.
        hits, misses: Firing snippets that were said to fire, and not to.
        false_alarms, rejections: Silent snippets that were said to fire, and not to.
        kinds: Kind -> (told right, asked).
    """

    score: float
    low: float
    high: float
    n: int
    hits: int
    misses: int
    false_alarms: int
    rejections: int
    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.score:.2f} ({self.low:.2f} to {self.high:.2f}, {self.n} snippets)"

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        names = ("score", "low", "high", "n", "hits", "misses", "false_alarms", "rejections")
        return {name: getattr(self, name) for name in names} | {"kinds": {k: list(v) for k, v in self.kinds.items()}}


def grade(snippets: Sequence[Snippet], answers: Mapping[str, bool]) -> Grade:
    """Grade answers.

    Args:
        answers: Snippet's id -> whether it was said to fire. Snippets without an answer are left out.
    Raises:
        UsageError: If no firing or no silent snippet was answered, so that guessing could not be told from knowing.
    """
    asked = [(s, answers[s.id]) for s in snippets if s.id in answers]
    fires = [said for s, said in asked if s.fires]
    silent = [said for s, said in asked if not s.fires]
    if not fires or not silent:
        raise UsageError(
            f"{len(fires)} firing and {len(silent)} silent snippets were answered",
            expected="at least one of each",
            do="Answer the others too",
        )
    hits, false_alarms = sum(fires), sum(silent)
    rejections = len(silent) - false_alarms
    score, low, high = balanced(hits, len(fires), rejections, len(silent))
    kinds = {
        kind: (sum(said == s.fires for s, said in asked if s.kind == kind), of)
        for kind in KINDS
        if (of := sum(s.kind == kind for s, _ in asked))
    }
    return Grade(score, low, high, len(asked), hits, len(fires) - hits, false_alarms, rejections, kinds)


def balanced(hits: int, firing: int, rejections: int, silent: int) -> tuple[float, float, float]:
    """Balanced accuracy and its 95 % interval.

    The two rates are of independent samples of fixed size; each has Wilson's interval, and their mean has the square root of the summed
    squared distances to its limits, halved.

    Args:
        hits, firing: How many of how many firing snippets were told right; `rejections`, `silent`: the same of silent ones.
    Source: Newcombe (1998), method 10, for the mean of two rates instead of their difference.
    """
    rates = [(right / of, *wilson(right, of)) for right, of in ((hits, firing), (rejections, silent))]
    score = sum(rate for rate, _, _ in rates) / 2
    below = math.hypot(*(rate - low for rate, low, _ in rates)) / 2
    above = math.hypot(*(high - rate for rate, _, high in rates)) / 2
    return score, max(0.0, score - below), min(1.0, score + above)


def scored(cache: Cache, feature: int, label: str, who: str, found: Grade, answers: Mapping[str, bool]) -> Score:
    """A person's grade as scores of labels are kept, with every answer."""
    details = {"cache": fingerprint(cache), "answers": dict(answers), "grade": found.plain()}
    sae = cache.manifest.sae_fingerprint
    return Score(sae, feature, label, who, "person", "quiz", found.score, found.n, details)


def told_before(cache: Cache, scores: Iterable[Score], who: str) -> set[int]:
    """The windows whose truth earlier tests have told somebody.

    Args:
        scores: Of one feature.
    """
    ids = [name for score in scores if score.kind == "person" and score.who == who for name in _answers(score)]
    return windows_of(cache, ids)


def answers_of(scores: Iterable[Score]) -> dict[int, dict[str, dict[str, bool]]]:
    """Feature -> person -> snippet's id -> whether it was said to fire, by each person's newest test.

    Args:
        scores: Of one SAE, oldest first.
    """
    found: dict[int, dict[str, dict[str, bool]]] = {}
    for score in scores:
        if score.kind == "person" and (answers := _answers(score)):
            found.setdefault(score.feature, {})[score.who] = answers
    return found


def _answers(score: Score) -> dict[str, bool]:
    said = score.details.get("answers")
    return {str(name): bool(fires) for name, fires in said.items()} if isinstance(said, dict) else {}
