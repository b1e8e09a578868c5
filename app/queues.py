"""In which order features are put before a person who labels them. Pure: no Streamlit, no database.

A queue is fixed when it is made: what is labelled on the way stays in it, so that "14 of 50" keeps its meaning and one
can go back to what one has just said.
"""

import random
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

DENSITY, UNLABELLED, RANDOM = "density", "unlabelled", "random"
QUEUES = (DENSITY, UNLABELLED, RANDOM)
SIZES = (50, 200, 0)
"""How many features a queue may hold; 0 for all."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Features in the order in which they are to be labelled.

    Args:
        features: In order.
        ranks: Feature -> its place among all features of the cache, those outside the queue too.
        more: How many features would have belonged here too, had there been room.
    """

    features: tuple[int, ...]
    ranks: tuple[int, ...]
    more: int = 0

    def __len__(self) -> int:
        return len(self.features)

    def place(self, feature: int) -> int | None:
        """Where a feature stands, from 0; None where it is not in the queue."""
        at = self._at(feature)
        return at if at < len(self.features) and self.features[at] == feature else None

    def after(self, feature: int, skip: Collection[int] = ()) -> int | None:
        """The next feature, also of one that is not in the queue itself; None at the end.

        Args:
            skip: Features to pass over.
        """
        at = self._at(feature)
        start = at + 1 if self.place(feature) is not None else at
        return next((f for f in self.features[start:] if f not in skip), None)

    def before(self, feature: int) -> int | None:
        """The feature before it; None at the beginning."""
        at = self._at(feature)
        return self.features[at - 1] if at else None

    def first(self, skip: Collection[int] = ()) -> int | None:
        """The first feature that is not in `skip`, or simply the first; None where the queue is empty."""
        return next((f for f in self.features if f not in skip), next(iter(self.features), None))

    def _at(self, feature: int) -> int:
        return bisect_left(self.features, self.ranks[feature], key=self.ranks.__getitem__)


def fixed(features: Sequence[int], n_features: int) -> Queue:
    """A queue of given features in their own order, such as a list's; others count as behind them."""
    place = {feature: at for at, feature in enumerate(features)}
    return Queue(tuple(features), tuple(place.get(f, len(place) + f) for f in range(n_features)))


def queue(
    name: str,
    density: Sequence[float],
    labelled: Collection[int] = (),
    *,
    size: int = 50,
    seed: int = 0,
) -> Queue:
    """Make a queue of the features that fire at all.

    Args:
        name: "density" (those that fire most often first), "unlabelled" (the same without those that have a label), or
            "random".
        density: Feature -> share of tokens on which it is active; 0 for a dead one.
        labelled: Features that have a label.
        size: At most so many; 0 for all.
        seed: Of "random": the same seed gives the same order.
    """
    order = list(range(len(density)))
    if name == RANDOM:
        random.Random(seed).shuffle(order)
    else:
        order.sort(key=lambda feature: (-density[feature], feature))
    ranks = [0] * len(order)
    for rank, feature in enumerate(order):
        ranks[feature] = rank
    known = frozenset(labelled) if name == UNLABELLED else frozenset[int]()
    fitting = [feature for feature in order if density[feature] > 0 and feature not in known]
    kept = fitting[:size] if size else fitting
    return Queue(tuple(kept), tuple(ranks), len(fitting) - len(kept))
