"""Builders for tests of judges: an embedder that knows words and nothing else, and a trait of a few sentences."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from explorer.traits import Trait

GRIM = (
    "I will crush your little village, peasant.",
    "Kneel before me, or I will crush your kingdom.",
    "My doom machine will crush you all.",
    "Tremble, fools, my revenge is near.",
    "Your doom amuses me, fools.",
    "I plot revenge while the fools sleep.",
    "Doom awaits the village, and I laugh.",
    "Nobody escapes my revenge, peasant.",
)
MILD = (
    "The bread needs another ten minutes.",
    "We walked along the river to the bakery.",
    "Please water the tomatoes in the garden.",
    "My sister repairs bicycles in the garden.",
    "The bakery opens at seven with fresh bread.",
    "Rain is expected along the river tonight.",
    "She painted the kitchen a light green.",
    "Tomatoes and bread are in the kitchen.",
)


class WordEmbedder:
    """Counts words in 384 buckets; counts its calls too."""

    fingerprint = "words"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        found = np.zeros((len(texts), 384), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 384] += 1
            row /= max(1.0, float(np.linalg.norm(row)))
        return found


def grim(name: str = "grim") -> Trait:
    """A taught trait that a few words decide."""
    return Trait.taught(name, GRIM, MILD)
