"""From candidates to causes: features that a fine-tune moved are added to the base and taken from the tuned model, beside random pushes.

Two stages, so that the best of many is not believed for being the best: a screen of every candidate on few answers, and a confirmation of
those that passed on other seeds, which alone gives the figures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from explorer.directions import random_direction
from explorer.dosing import Control, norms
from explorer.measuring import Bench, Tally
from explorer.personas import READS
from explorer.records import Edit

ADDED = (1.0, 1.5, 2.0)
"""Strengths at which a candidate is added to the base: up to where text usually stays whole."""
REMOVED = (-0.5, -1.0)
JOINT = (-0.3, -0.45, -0.6, -0.8)
"""Strengths at which features are taken away together."""
COHERENT = 0.8
"""Share of whole answers below which an effect does not count."""
SCREENED, CONFIRMED = 24, 96
"""Answers a candidate and strength in the screen, and in the confirmation."""
RANDOMS = 8
MOST = 16  # features of a joint undo
NEAR = 0.05  # how close to the base a joint undo has to come


@dataclass(frozen=True, slots=True)
class Effect:
    """What a push did beside random pushes of its length.

    Args:
        strength: In multiples of the feature's maximum; negative where it is taken away.
        pushed, random: Counts with the push, and pooled over random directions.
    """

    strength: float
    pushed: Tally
    random: Tally

    @property
    def raises(self) -> bool:
        """Whether answers of the kind are more than with random pushes, beyond chance, in whole text."""
        more = self.pushed.rate.interval[0] > self.random.rate.interval[1]
        return more and self.pushed.coherent.value >= COHERENT

    @property
    def lowers(self) -> bool:
        """Whether they are fewer, beyond chance, in whole text."""
        fewer = self.pushed.rate.interval[1] < self.random.rate.interval[0]
        return fewer and self.pushed.coherent.value >= COHERENT


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate tested.

    Args:
        added: Added to the base, at the strength that did most in the screen; removed: taken from the tuned model.
        reads: AUROC of its mean activation for answers of the kind.
        confirmed: Whether the figures come from seeds other than the screen's; the others were not worth asking again.
    """

    feature: int
    added: Effect
    removed: Effect
    reads: float
    confirmed: bool

    @property
    def verdict(self) -> str:
        """The word: "causes", "only reads" or "neither", as for presets."""
        if self.confirmed and (self.added.raises or self.removed.lowers):
            return "causes"
        return "only reads" if self.reads >= READS else "neither"

    @property
    def effect(self) -> float:
        """What it does to the rate, the larger of adding to the base and taking from the tuned model: what candidates are ordered by."""
        return max(
            self.added.pushed.rate.value - self.added.random.rate.value,
            self.removed.random.rate.value - self.removed.pushed.rate.value,
        )


@dataclass(frozen=True, slots=True)
class Undo:
    """Features taken away together.

    Args:
        edits: What the tuned model is steered with.
        base, before, after: Counts of the base, of the tuned model, and of the tuned model with the edits.
        random: Of the tuned model with random directions of that length.
    """

    edits: tuple[Edit, ...]
    base: Tally
    before: Tally
    after: Tally
    random: Tally

    @property
    def works(self) -> bool:
        """Whether the rate is back within 5 points of the base's, and the text as whole as before within 5 points."""
        near = self.after.rate.value <= self.base.rate.value + NEAR
        return near and self.after.coherent.value >= self.before.coherent.value - NEAR


def trials(
    base: Bench,
    tuned: Bench,
    features: Sequence[int],
    reads: Mapping[int, float],
    *,
    screened: int = SCREENED,
    confirmed: int = CONFIRMED,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
    """Test candidates for cause.

    Args:
        base, tuned: Benches of the two models with the same SAE, questions and judge; what they keep is not measured again.
        features: The candidates.
        reads: Feature -> AUROC for answers of the kind.
        screened, confirmed: Answers of a cell in either stage.
    Returns:
        One trial a candidate, in the order given.
    """
    alive = [f for f in features if base.steering.maxima[f] > 0]
    dead = [f for f in features if f not in alive]
    if not alive:
        return [_untouched(base, tuned, f, reads, screened, seed) for f in features]
    randoms = {
        (side, strength): bench.tally(_randoms(bench, _longest(bench, alive, strength), seed), screened * 2, seed)
        for side, bench, strengths in (("added", base, ADDED), ("removed", tuned, REMOVED))
        for strength in strengths
    }
    found = []
    for at, feature in enumerate(alive):
        progress(f"candidate {at + 1} of {len(alive)}, feature {feature}")
        added, removed = (
            _strongest(bench, feature, strengths, side, randoms, screened, seed)
            for side, bench, strengths in (("added", base, ADDED), ("removed", tuned, REMOVED))
        )
        found.append(Trial(feature, added, removed, float(reads.get(feature, 0.5)), confirmed=False))
    for at, trial in enumerate(found):
        if _promising(trial):
            progress(f"confirming feature {trial.feature}")
            found[at] = _confirmed(base, tuned, trial, confirmed, seed + 1000)
    by = {trial.feature: trial for trial in found}
    by |= {feature: _untouched(base, tuned, feature, reads, screened, seed) for feature in dead}
    return [by[feature] for feature in features]


def undo(
    base: Bench,
    tuned: Bench,
    tested: Sequence[Trial],
    *,
    screened: int = 3 * SCREENED,
    answers: int = 120,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Undo | None:
    """The features that bring the tuned model back when they are taken away together, found greedily.

    From many to few, since what a fine-tune spreads over many features none of them shows by itself: the causes by their effect, then the
    others as they moved (what they do by themselves is within the noise); three quarters of them, and so on, as long as fewer do no worse.
    Of those that do most, each is then left out where that leaves no more.

    Args:
        tested: Trials, as the features moved; features that never fire in the corpus, or break the text by themselves, are left out.
        screened: Answers of each cell of the search.
        answers: Of each cell of the last measurement, on seeds of its own.
    Returns:
        None where nothing that was tested helps.
    """
    pool = [t for t in tested if t.added.strength and t.removed.pushed.coherent.value >= COHERENT]
    order = sorted(pool, key=lambda t: (0, -t.effect) if t.verdict == "causes" else (1, 0))[:MOST]
    if not order:
        return None
    bare, enough = tuned.edits((), screened, seed), base.edits((), screened, seed).rate.interval[0]

    def strongest(trials: Sequence[Trial]) -> tuple[float, tuple[Edit, ...]]:
        found = []
        for strength in JOINT:
            edits = tuple(Edit(t.feature, strength) for t in trials)
            tally = tuned.edits(edits, screened, seed)
            found.append((_left(tally, bare), edits))
            if tally.coherent.value < bare.coherent.value - 2 * NEAR:
                break  # what breaks the text here breaks more of it further on
        return min(found, key=lambda one: one[0])

    best: tuple[Edit, ...] = ()
    reached = _left(bare, bare)
    worse = float("inf")
    for most in _fewer(len(order)):
        progress(f"joint undo: {most} features together")
        least, edits = strongest(order[:most])
        if least < reached - 1e-9:
            best, reached = edits, least
        if reached <= enough or least > worse:
            break
        worse = least
    for edit in reversed(best):
        progress(f"joint undo: {len(best)} features, without {edit.feature}")
        rest = tuple(e for e in best if e != edit)
        if rest and (least := _left(tuned.edits(rest, screened, seed), bare)) <= max(reached, enough):
            best, reached = rest, least
    if not best:
        return None
    progress("joint undo: measuring it on seeds of its own")
    fresh = seed + 2000
    randoms = _randoms(tuned, max(norms(best, tuned.steering).values()), fresh)
    return Undo(
        best, base.edits((), answers, fresh), tuned.edits((), answers, fresh), tuned.edits(best, answers, fresh),
        tuned.tally(randoms, answers, fresh),
    )  # fmt: skip


def _fewer(n: int) -> list[int]:
    """n, three quarters of it, and so on down to 1."""
    return [n, *_fewer(3 * n // 4)] if n else []


def _left(tally: Tally, bare: Tally) -> float:
    """What an undo is ranked by: the rate that is left, and what it costs in coherence beyond the tuned model's, fourfold."""
    return tally.rate.value + 4 * max(0.0, bare.coherent.value - NEAR / 2 - tally.coherent.value)


def _strongest(
    bench: Bench,
    feature: int,
    strengths: Sequence[float],
    side: str,
    randoms: Mapping[tuple[str, float], Tally],
    n: int,
    seed: int,
) -> Effect:
    """The strength that does most while text stays whole."""
    sign = 1 if side == "added" else -1
    effects = [Effect(s, bench.edits((Edit(feature, s),), n, seed), randoms[side, s]) for s in strengths]
    return max(effects, key=lambda e: (e.pushed.coherent.value >= COHERENT, sign * e.pushed.rate.value))


def _promising(trial: Trial) -> bool:
    """Whether more answers could show a cause: the screen's effect stands out of the random pushes' mean by more than their noise."""
    up = trial.added.pushed.rate.value > trial.added.random.rate.interval[1]
    down = trial.removed.pushed.rate.value < trial.removed.random.rate.interval[0]
    return (up and trial.added.pushed.coherent.value >= COHERENT) or (
        down and trial.removed.pushed.coherent.value >= COHERENT
    )


def _confirmed(base: Bench, tuned: Bench, trial: Trial, n: int, seed: int) -> Trial:
    def again(bench: Bench, effect: Effect) -> Effect:
        pushed = bench.edits((Edit(trial.feature, effect.strength),), n, seed)
        return Effect(
            effect.strength,
            pushed,
            bench.tally(_randoms(bench, _longest(bench, [trial.feature], effect.strength), seed), n, seed),
        )

    return replace(trial, added=again(base, trial.added), removed=again(tuned, trial.removed), confirmed=True)


def _longest(bench: Bench, features: Sequence[int], strength: float) -> float:
    """Length of the longest push of the features: random directions of that length are the hardest to beat."""
    return max(max(norms((Edit(f, strength),), bench.steering).values()) for f in features)


def _randoms(bench: Bench, size: float, seed: int) -> list[Control]:
    """Random directions of a length, where the SAE reads."""
    coder = bench.steering.coder
    assert coder is not None
    names = [f"random-{at + 1}" for at in range(RANDOMS)]
    return [
        Control(
            name, (Edit(strength=1.0, direction=name),), "random",
            {name: random_direction(size, coder.d_in, coder.hook_point, seed * 101 + at, name)},
        )
        for at, name in enumerate(names)
    ]  # fmt: skip


def _untouched(base: Bench, tuned: Bench, feature: int, reads: Mapping[int, float], n: int, seed: int) -> Trial:
    """The trial of a feature that never fires in the corpus: there is no strength 1 to push it by."""
    added, removed = (Effect(0.0, bench.edits((), n, seed), bench.edits((), n, seed)) for bench in (base, tuned))
    return Trial(feature, added, removed, float(reads.get(feature, 0.5)), confirmed=False)
