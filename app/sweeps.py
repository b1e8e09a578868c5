"""What a sweep is asked, and the link that holds it; its answers in order. No streamlit here."""

import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from app import settings
from app.settings import QUESTIONS, Settings
from explorer.cache import Cache
from explorer.records import Edit, Sampling

if TYPE_CHECKING:
    from explorer.dosing import Cell

Kind = Literal["questions", "features"]
KINDS: dict[Kind, str] = {
    "questions": "Strengths × questions",
    "features": "Features × strengths",
}
STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
MOST_STRENGTHS, MOST_QUESTIONS, MOST_FEATURES, MOST_ANSWERS = 13, 24, 24, 240
LONGEST_QUESTION, LOWEST, HIGHEST = 400, -3.0, 3.0
TRAIT = "malice"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything that decides a sweep's answers, and what they are judged by.

    Args:
        kind: "questions" pushes `edits` to every strength on every question; "features" does so with each of `features`.
        edits: What is pushed; their proportions count.
        features: Candidates of the kind "features".
        strengths: In multiples of a maximum; of several edits the strongest gets it.
        model: Name of the adapter that answers; "" for the cache's own model.
    """

    kind: Kind = "questions"
    edits: tuple[Edit, ...] = ()
    features: tuple[int, ...] = ()
    strengths: tuple[float, ...] = STRENGTHS
    questions: tuple[str, ...] = QUESTIONS[:3]
    trait: str = TRAIT
    positions: str = "answer"
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=48))
    model: str = ""

    @property
    def pushes(self) -> tuple[tuple[Edit, ...], ...]:
        """What is pushed, one a group of rows."""
        return (self.edits,) if self.kind == "questions" else tuple((Edit(feature),) for feature in self.features)

    @property
    def answers(self) -> int:
        """How many answers it takes: one a push, strength and question."""
        return len(self.pushes) * len(self.strengths) * len(self.questions)

    @property
    def missing(self) -> str:
        """What has to be chosen before it can run; "" if nothing."""
        for name, what in (("strengths", "a strength"), ("questions", "a question")):
            if not getattr(self, name):
                return what
        if not all(self.pushes) or not self.pushes:
            return "a feature"
        return ""


def numbers(text: str, lowest: float = LOWEST, highest: float = HIGHEST) -> tuple[tuple[float, ...], list[str]]:
    """The numbers in a text, sorted, each once; and what was none, or out of bounds."""
    good, bad = set(), []
    for word in re.split(r"[\s,;]+", text.strip()):
        try:
            value = round(float(word.replace("−", "-").removeprefix("+")), 2) + 0.0
        except ValueError:
            value = math.nan
        if lowest <= value <= highest:
            good.add(value)
        elif word:
            bad.append(word[:20])
    return tuple(sorted(good)), bad


def feature_numbers(text: str, n_features: int) -> tuple[tuple[int, ...], list[str]]:
    """The features that a pasted text names ("12, #88 1207"), in its order, each once; and what named none."""
    good: dict[int, None] = {}
    bad = []
    for word in re.split(r"[\s,;]+", text.strip()):
        number = word.removeprefix("#")
        if number.isascii() and number.isdigit() and len(number) < 10 and int(number) < n_features:
            good[int(number)] = None
        elif word:
            bad.append(word[:20])
    return tuple(good), bad


def lines(text: str) -> tuple[str, ...]:
    """The questions in a text, one a line, each once."""
    cut = (" ".join(line.split())[:LONGEST_QUESTION] for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in cut if line))[:MOST_QUESTIONS]


def read(
    query: Mapping[str, str], cache: Cache, default: Sweep, directions: Container[str] = (), models: Container[str] = ()
) -> tuple[Sweep, list[str]]:
    """What a link says; and what in it made no sense, which is as in `default`.

    Args:
        directions, models: Names of the directions and of the adapters that are here.
    """
    bad: list[str] = []
    steered = {k: query[k] for k in ("edits", "positions", "model") if k in query}
    found, said = settings.read(steered, cache, directions=directions, models=models)
    bad += said
    edits = found.edits if "edits" in query else default.edits
    kind = query.get("kind", default.kind)
    if kind not in KINDS:
        bad.append(f"kind {kind[:20]!r}")
        kind = default.kind
    strengths, wrong = numbers(query["strengths"]) if "strengths" in query else (default.strengths, [])
    bad += [f"strength {word!r}" for word in wrong]
    features, wrong = (
        feature_numbers(query["features"], cache.n_features) if "features" in query else (default.features, [])
    )
    bad += [f"feature {word!r}" for word in wrong]
    sampling, wrong = _sampling(query, default.sampling)
    bad += wrong
    return (
        Sweep(
            kind,  # type: ignore[arg-type]
            edits,
            features[:MOST_FEATURES],
            strengths[:MOST_STRENGTHS],
            lines(query["questions"]) if "questions" in query else default.questions,
            query.get("trait", default.trait)[:40],
            found.positions if "positions" in query else default.positions,
            sampling,
            found.model,
        ),
        bad,
    )


def _sampling(query: Mapping[str, str], default: Sampling) -> tuple[Sampling, list[str]]:
    values, bad = {"seed": default.seed, "max_tokens": default.max_tokens}, []
    for name in values:
        low, high = (0, 2**31 - 1) if name == "seed" else (4, 200)
        text = query.get(name, str(values[name]))
        if text.isascii() and text.isdigit() and len(text) < 11 and low <= int(text) <= high:
            values[name] = int(text)
        else:
            bad.append(f"{name} {text[:20]!r}")
    return Sampling(**values), bad


def write(sweep: Sweep, default: Sweep) -> dict[str, str]:
    """The parameters that make a link to this sweep; what is as always is left out."""
    usual = _said(default)
    return {name: text for name, text in _said(sweep).items() if text != usual[name] or name == "edits"}


def _said(sweep: Sweep) -> dict[str, str]:
    sliders = tuple(settings.Slider(edit) for edit in sweep.edits)
    return {
        "kind": sweep.kind,
        "edits": settings.write(Settings(sliders))["edits"],
        "features": ",".join(map(str, sweep.features)),
        "strengths": ",".join(f"{s:g}" for s in sweep.strengths),
        "questions": "\n".join(sweep.questions),
        "trait": sweep.trait,
        "positions": sweep.positions,
        "seed": str(sweep.sampling.seed),
        "max_tokens": str(sweep.sampling.max_tokens),
        "model": sweep.model,
    }


KEYS = ("kind", "edits", "features", "strengths", "questions", "trait", "positions", "seed", "max_tokens", "model")


@dataclass(frozen=True, slots=True)
class Group:
    """The answers of one push, and how far it moves the trait.

    Args:
        effect: Highest mean of the trait over the strengths at which the answers are mostly coherent, less its mean at
            strength 0 (at the strength nearest to it, where 0 was not asked for).
        best: The strength of that highest mean.
    """

    edits: tuple[Edit, ...]
    cells: "tuple[Cell, ...]"
    effect: float
    best: float


def groups(cells: "Iterable[Cell]", trait: str) -> list[Group]:
    """Cells by what was pushed, the largest effect first."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(f"{e.target}:{e.mode}" for e in cell.edits), []).append(cell)
    return sorted((_group(members, trait) for members in found.values()), key=lambda group: -group.effect)


def _group(cells: "Sequence[Cell]", trait: str) -> Group:
    by: dict[float, list[Cell]] = {}
    for cell in cells:
        by.setdefault(cell.strength, []).append(cell)
    means = {s: sum(c.scores.get(trait, 0.0) for c in some) / len(some) for s, some in by.items()}
    whole = [s for s, some in by.items() if 2 * sum(c.coherent for c in some) > len(some)]
    rest = min(by, key=abs)
    best = max(whole or [rest], key=means.__getitem__)
    strongest = max(cells, key=lambda cell: max((abs(e.strength) for e in cell.edits), default=0.0))
    return Group(strongest.edits, tuple(cells), means[best] - means[rest], best)
