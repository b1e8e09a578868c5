"""Personas that a model really has: features ranked by contrast, joined by what they do to answers, measured beside controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer.cache import Cache
from explorer.directions import QUESTIONS, answer_document, difference_of_means
from explorer.dosing import Rate, scaled
from explorer.intervals import auroc
from explorer.measuring import Bench, Comparison, Tally
from explorer.presets import Preset
from explorer.records import Edit
from explorer.traits import Trait

if TYPE_CHECKING:
    from explorer.directions import Direction
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

STRENGTHS = (0.6, 1.0, 1.5)
JOINT = (0.4, 0.7, 1.0, 1.4)
CANDIDATES, MOST, COHERENT, ANSWERED = 24, 4, 0.8, 120
READS = 0.75
"""Held-out AUROC from which a feature is said to tell the texts apart."""
_FOLDS = 5
_LONGEST = 256  # tokens of a sentence that are read


@dataclass(frozen=True, slots=True)
class Contrast:
    """How a feature tells a trait's sentences from the others.

    Args:
        auroc: Held-out, mean over folds; which summary of a sentence (mean or largest activation) counts is chosen on the other folds.
        effect: Difference of the means in standard deviations.
        score: What candidates are ranked by: both, less for features that fire everywhere.
    """

    feature: int
    auroc: float
    effect: float
    score: float


@dataclass(frozen=True, slots=True)
class Persona:
    """What was found for a trait.

    Args:
        edits: The push that makes most answers of the kind while they stay coherent.
        direction: The difference of means, where `edits` name it.
        reads: Best held-out AUROC of a feature.
        found: The push beside its controls.
        verdict: "causes", "only reads" or "neither".
    """

    trait: str
    title: str
    edits: tuple[Edit, ...]
    direction: "Direction | None"
    reads: float
    found: Comparison
    verdict: str


def contrasts(
    model: "LanguageModel", coder: "SparseCoder", trait: Trait, density: np.ndarray, *, seed: int = 0
) -> list[Contrast]:
    """All features by how well they tell the trait's sentences apart, best first, after one pass over the sentences.

    Args:
        density: `[n_features]`, share of the corpus' tokens on which each fires.
    """
    mean, largest = _read(model, coder, trait.sentences)
    labels = trait.labels.astype(bool)
    folds = np.empty(len(labels), int)
    for side in (labels, ~labels):
        folds[side] = np.random.default_rng(seed).permutation(int(side.sum())) % _FOLDS
    held = []
    for fold in range(min(_FOLDS, int(labels.sum()), int((~labels).sum()))):
        own, rest = folds == fold, folds != fold
        better = auroc(largest[rest], labels[rest]) > auroc(mean[rest], labels[rest])
        held.append(np.where(better, auroc(largest[own], labels[own]), auroc(mean[own], labels[own])))
    reads = np.mean(held, axis=0)
    spread = np.sqrt((mean[labels].var(0) + mean[~labels].var(0)) / 2) + 1e-6 + 0.01 * mean.max(0)
    effect = (mean[labels].mean(0) - mean[~labels].mean(0)) / spread
    score = np.clip(2 * reads - 1, 0, None) * np.clip(effect, 0, 3) * (1 - density)
    order = np.argsort(-score, kind="stable")
    return [Contrast(int(f), float(reads[f]), float(effect[f]), float(score[f])) for f in order]


def find(
    bench: Bench,
    cache: Cache,
    trait: Trait,
    *,
    candidates: int = CANDIDATES,
    strengths: Sequence[float] = STRENGTHS,
    answers: int = ANSWERED,
    seed: int = 0,
    progress: Callable[..., None] = lambda *_: None,
) -> Persona:
    """Find the push that makes a trait speak, and measure it beside its controls.

    Args:
        bench: Judges by the trait; what it keeps is not measured again, so a search that was cut off goes on.
        candidates: Features that are steered, of those that read best.
        answers: Of each cell of the last measurement; the search asks every question once.
    """
    coder = bench.steering.coder
    assert coder is not None
    progress(f"{trait.name}: reading {len(trait.sentences)} sentences")
    density = np.asarray(cache.table.column("density").to_numpy(), float)
    ranked = [
        c for c in contrasts(bench.model, coder, trait, density, seed=seed) if bench.steering.maxima[c.feature] > 0
    ]
    direction = difference_of_means(
        bench.model, trait.positive, trait.negative, coder.hook_point, name=trait.name, title=trait.title,
        note="from the sentences of the trait's judge",
    )  # fmt: skip
    bench.steering = replace(bench.steering, directions={**bench.steering.directions, trait.name: direction})
    pushes = [(Edit(c.feature),) for c in ranked[:candidates]] + [(Edit(direction=trait.name),)]
    tried: list[tuple[tuple[Edit, ...], Tally]] = []
    for at, push in enumerate(pushes):
        progress(f"{trait.name}: candidate {at + 1} of {len(pushes)}, {push[0].target}")
        tried.append(_best(bench, [scaled(push, s) for s in strengths], seed))
    edits = joined(tried, lambda options: _best(bench, options, seed))
    progress(f"{trait.name}: measuring {' '.join(f'{e.target}:{e.strength:g}' for e in edits)} beside its controls")
    found = bench.compare(edits, answers, seed + 1000)  # other seeds than the search's: the winner is measured afresh
    reads = max((c.auroc for c in ranked[:candidates]), default=0.5)
    used = direction if any(e.direction for e in edits) else None
    return Persona(trait.name, trait.title, edits, used, reads, found, verdict(found, reads))


def joined(
    tried: Sequence[tuple[tuple[Edit, ...], Tally]],
    measure: Callable[[Sequence[tuple[Edit, ...]]], tuple[tuple[Edit, ...], Tally]],
) -> tuple[Edit, ...]:
    """The best single push, joined with the next best ones as long as that helps, up to `MOST` edits.

    Args:
        tried: Single pushes at their best strength, with their counts.
        measure: Tries pushes and gives back the best with its counts.
    """
    order = sorted(tried, key=lambda one: worth(one[1]), reverse=True)
    best, tally = order[0]
    for push, alone in order[1 : 2 * MOST]:
        if len(best) >= MOST or worth(alone) <= 0:
            break
        more, found = measure([scaled((*best, *push), strength) for strength in JOINT])
        if worth(found) > worth(tally):
            best, tally = more, found
    return best


def worth(tally: Tally) -> float:
    """What a push is ranked by: the share of whole answers that are of the kind, less what is missing of coherence, fourfold."""
    return tally.rate_of_whole - 4 * max(0.0, COHERENT - tally.coherent.value)


def verdict(found: Comparison, reads: float) -> str:
    """Whether a push causes its trait, only reads it, or neither."""
    if found.causes:
        return "causes"
    return "only reads" if reads >= READS else "neither"


def as_preset(persona: Persona, prompt: str) -> Preset:
    """A persona as a preset with its figures; what does not work is one too, with its verdict.

    Args:
        prompt: The question that the preset offers.
    """
    found = persona.found
    edits = tuple(replace(edit, strength=round(edit.strength, 3)) for edit in persona.edits)
    rates = {name: _triple(rate) for name, rate in found.rates.items()}
    measured = {"judge": persona.trait, "n": found.steered.n, **rates, "verdict": persona.verdict}
    return Preset(persona.trait, persona.title, _described(persona), edits, prompt, measured=measured)


def _described(persona: Persona) -> str:
    features = sum(not e.direction for e in persona.edits)
    parts = [f"{features} feature{'s' * (features > 1)}"] * bool(features) + ["a direction"] * (
        persona.direction is not None
    )
    steered, random = persona.found.steered.rate.value, persona.found.random.rate.value
    return f"Steered with {' and '.join(parts)}: {steered:.0%} of answers, against {random:.0%} with random pushes of that size."


def _triple(rate: Rate) -> tuple[float, float, float]:
    value, (low, high) = rate.value, rate.interval
    return round(value, 4), round(min(low, value), 4), round(max(high, value), 4)


def _best(bench: Bench, options: Sequence[tuple[Edit, ...]], seed: int) -> tuple[tuple[Edit, ...], Tally]:
    measured = [(edits, bench.edits(edits, len(bench.prompts), seed)) for edits in options]
    return max(measured, key=lambda one: worth(one[1]))


def _read(model: "LanguageModel", coder: "SparseCoder", texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest activation of every feature over each text's tokens that count, `[texts, n_features]` float32 each."""
    from explorer.corpus import chunks
    from explorer.evidence import EvidenceReader

    size = min(_LONGEST, model.max_length)
    documents = [answer_document(model, text, QUESTIONS[at % len(QUESTIONS)], size) for at, text in enumerate(texts)]
    total, largest = (np.zeros((len(texts), coder.n_features), np.float32) for _ in range(2))
    count = np.zeros(len(texts))
    reader = EvidenceReader(model, coder.hook_point, median_norm=coder.metadata.get("median_norm"))
    for windows in chunks(documents, model.vocabulary.special, context_size=size, windows=1 << 30):
        rows = windows.document[windows.rows()]
        for place, resid in reader.read(windows):
            acts = coder.encode(resid).float().cpu().numpy()
            np.add.at(total, rows[place], acts)
            np.maximum.at(largest, rows[place], acts)
            np.add.at(count, rows[place], 1)
    return total / np.maximum(count, 1)[:, None].astype(np.float32), largest
