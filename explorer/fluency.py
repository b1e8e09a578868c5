"""Whether a text is intact or broken: fitted on intact text against the same text broken in known ways.

Perplexity cannot say it: malice is unlikely text even when it is fluent, and a loop is likely text. What tells word order is in the middle of
the embedder: the mean of its last layer is about the topic, and shuffled words keep their topic. So the judge reads every layer, and a few
counts of words, and no language model: it says the same whichever model is being steered.

A text that stops in the middle of a sentence is intact: answers end where their tokens run out, and so do half of the intact texts here.
"""

import csv
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.embedding import Embeds
from explorer.repetition import repeated
from explorer.traits import Fit, fit, held_out_auroc, kept

if TYPE_CHECKING:
    from explorer.model import LanguageModel

TEXTS = Path(__file__).parent / "fluency" / "texts.csv"
NORMS = (1.0, 1.5, 2.0, 2.5)
"""Lengths of the random directions of the over-steered texts, in median norms of the residual stream; at .5 answers still read well."""
_REPLACED = 0.3  # share of words
_COUNTS = 11  # numbers that `counts` gives

Damage = Callable[[list[str], random.Random, Sequence[str]], list[str]]


def _loop(words: list[str], rng: random.Random, pool: Sequence[str]) -> list[str]:
    start, length = rng.randrange(max(1, len(words) // 2)), rng.randint(1, 8)
    return words[:start] + words[start : start + length] * max(4, 40 // length)


def _shuffle(words: list[str], rng: random.Random, pool: Sequence[str]) -> list[str]:
    return rng.sample(words, len(words))


def _replace(words: list[str], rng: random.Random, pool: Sequence[str]) -> list[str]:
    changed = set(rng.sample(range(len(words)), max(1, round(_REPLACED * len(words)))))
    return [rng.choice(pool) if at in changed else word for at, word in enumerate(words)]


DAMAGES: dict[str, Damage] = {"looped": _loop, "shuffled": _shuffle, "replaced": _replace}
"""Ways to break a text, (its words, random numbers, words of other broken texts) -> words. Over-steered texts are in `TEXTS`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the judge is fitted on.

    Args:
        kinds: "intact", a name in `DAMAGES`, or "over-steered", for each text.
        groups: Texts with one number are versions of one text.
    """

    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    groups: tuple[int, ...]


@cache
def sample() -> Sample:
    """The texts of `TEXTS`, and each intact one broken in every way. The same every time."""
    with TEXTS.open(encoding="utf-8", newline="") as file:
        given = [(row["text"], row["kind"]) for row in csv.DictReader(file)]
    pool = [word for text, kind in given if kind == "over-steered" for word in text.split()]
    rows = []
    for group, (text, kind) in enumerate(given):
        rows.append((text, kind, group))
        for name, damage in DAMAGES.items() if kind == "intact" else ():
            rng = random.Random(f"{name} {group}")
            rows.append((" ".join(damage(text.split(), rng, pool)), name, group))
    texts, kinds, groups = zip(*rows, strict=True)
    return Sample(texts, kinds, groups)


def counts(text: str) -> list[float]:
    """What a text looks like without understanding it: repetition, variety, compressibility, letters, lengths of words."""
    words = re.findall(r"\w+", text.lower())
    n, raw = max(1, len(words)), text.encode()

    def share(test: Callable[[str], bool]) -> float:
        return sum(map(test, text)) / max(1, len(text))

    return [
        repeated(words, 2),
        repeated(words, 3),
        len(set(words)) / n,
        len(zlib.compress(raw)) / max(1, len(raw)),
        sum(map(len, words)) / n,
        min(40, max(map(len, words), default=0)),
        share(lambda c: c.isalpha() or c == " "),
        share(lambda c: ord(c) > 127),
        share(str.isupper),
        n / max(1, len(text.split())),
        float(np.log(n)),
    ]


def features(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """What the judge reads: embeddings beside counts, `[n, d + 11]`."""
    return np.hstack([vectors, np.array([counts(text) for text in texts]).reshape(len(texts), _COUNTS)])


@dataclass(frozen=True, slots=True)
class FluencyJudge:
    """The judge of whether a text is intact.

    Args:
        by_kind: Kind of damage -> held-out AUROC of intact texts against these.
    """

    fitted: Fit
    by_kind: dict[str, float]

    @classmethod
    def fit(cls, embedder: Embeds) -> "FluencyJudge":
        """Fit, or take the fit that was made before; the one for the packaged embedder came with the program."""
        given = sample()
        labels = np.array([kind == "intact" for kind in given.kinds], int)

        def make() -> tuple[Fit, dict[str, float]]:
            x = features(embedder.encode(given.texts), given.texts)
            found, held_out = fit(x, labels, given.groups)
            kinds = np.array(given.kinds)
            broken = sorted(set(given.kinds) - {"intact"})
            return found, {kind: held_out_auroc(held_out, labels, (kinds == kind) | (labels == 1)) for kind in broken}

        key = {"texts": given.texts, "kinds": given.kinds, "embedder": embedder.fingerprint}
        return cls(*kept(key, make, TEXTS.parent))

    def score(self, vectors: np.ndarray, texts: Sequence[str]) -> list[float]:
        """Probability that each text is intact; 0 where it has no letters."""
        said = self.fitted.probability(features(vectors, texts))
        return [float(p) if any(map(str.isalpha, text)) else 0.0 for p, text in zip(said, texts, strict=True)]


def oversteered(
    model: "LanguageModel", questions: Sequence[str], hook_point: str, n: int, *, max_tokens: int = 70, batch: int = 40
) -> list[str]:
    """Answers of a model that random directions have broken: how the over-steered texts of `TEXTS` were made.

    Args:
        questions: Taken in turn.
        hook_point: Where the directions are added.
        n: How many answers; their directions, lengths (`NORMS`, in turn) and seeds follow from their numbers.
    """
    import torch

    from explorer.directions import random_direction
    from explorer.generate import Row, Steering, complete
    from explorer.records import Edit, Sampling

    prompts = [
        model.chat_document([{"role": "user", "content": q}], add_generation_prompt=True).tokens for q in questions
    ]
    streams = [model.activations(torch.tensor([ids]), hook_point)[0, 1:].float().norm(dim=-1) for ids in prompts]
    norm = float(torch.cat(streams).median())
    drawn = [
        random_direction(NORMS[at % len(NORMS)] * norm, model.d_model, hook_point, at, f"random-{at}")
        for at in range(n)
    ]
    steering = Steering(None, directions={direction.name: direction for direction in drawn})
    rows = [Row(prompts[at % len(prompts)], (Edit(direction=d.name),), at) for at, d in enumerate(drawn)]
    answers = [
        answer
        for start in range(0, n, batch)
        for answer in complete(model, rows[start : start + batch], Sampling(max_tokens=max_tokens), steering)
    ]
    return [
        model.vocabulary.text([token for token in answer if token not in model.eos_ids]).strip() for answer in answers
    ]
