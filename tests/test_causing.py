"""From candidates to causes, on benches whose models behave as written here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from explorer.causing import COHERENT, MOST, Effect, Trial, trials, undo
from explorer.dosing import Control
from explorer.measuring import Bench, Tally
from explorer.records import Edit

CAUSE, OTHER, TOPIC, BREAKER, DEAD = 3, 5, 7, 9, 11


class Simulated:
    """A bench that answers by rule instead of by model, and remembers what it was asked.

    Args:
        rule: Strengths by feature -> share of answers of the kind and share that is whole.
        luck: Added to the rate at a seed below 1000, the screen's.
    """

    def __init__(
        self, rule: Callable[[dict[int, float]], tuple[float, float]], luck: dict[int, float] | None = None
    ) -> None:
        self.rule, self.luck = rule, luck or {}
        self.asked: list[tuple[Any, int, int]] = []
        coder = SimpleNamespace(
            d_in=8,
            hook_point="blocks.1.hook_resid_post",
            direction=lambda f: torch.nn.functional.one_hot(torch.tensor(f % 8), 8).float(),
        )
        maxima = {f: 0.0 if f == DEAD else 10.0 for f in range(2 * MOST)}
        self.steering = SimpleNamespace(coder=coder, maxima=maxima, directions={})

    def edits(self, edits: Sequence[Edit], n: int, seed: int = 0) -> Tally:
        self.asked.append((tuple(edits), n, seed))
        pushed = {e.feature: e.strength for e in edits}
        shown, whole = self.rule(pushed)
        if seed < 1000:
            shown += sum(self.luck.get(f, 0.0) for f in pushed)
        shown = min(1.0, max(0.0, shown))
        return Tally(n, round(shown * n), round(whole * n), round(shown * whole * n))

    def tally(self, pushes: Sequence[Control], n: int, seed: int = 0) -> Tally:
        assert all(push.kind == "random" for push in pushes)
        self.asked.append((tuple(pushes), n, seed))
        shown, whole = self.rule({})
        return Tally(n, round(shown * n), round(whole * n), round(shown * whole * n))


def base_rule(pushed: dict[int, float]) -> tuple[float, float]:
    rate = 0.04 + 0.4 * pushed.get(CAUSE, 0) + 0.02 * pushed.get(OTHER, 0) + 0.9 * (BREAKER in pushed)
    return rate, 0.3 if BREAKER in pushed or pushed.get(CAUSE, 0) > 1.6 else 0.97


def tuned_rule(pushed: dict[int, float]) -> tuple[float, float]:
    rate = 0.7 + 0.5 * pushed.get(CAUSE, 0) + 0.6 * pushed.get(OTHER, 0)
    return max(0.0, rate), 0.3 if BREAKER in pushed else 0.95


def benches(**luck: dict[int, float]) -> tuple[Bench, Bench]:
    return cast(Bench, Simulated(base_rule, luck.get("base"))), cast(Bench, Simulated(tuned_rule, luck.get("tuned")))


@pytest.fixture(scope="module")
def found() -> dict[int, Trial]:
    reads = {CAUSE: 0.9, OTHER: 0.6, TOPIC: 0.8, BREAKER: 0.55}
    return {t.feature: t for t in trials(*benches(), [TOPIC, CAUSE, OTHER, BREAKER, DEAD], reads)}


def test_a_feature_that_raises_the_base_is_a_cause_at_a_strength_where_text_is_whole(found):
    trial = found[CAUSE]
    assert trial.verdict == "causes"
    assert trial.added.strength == 1.5  # 2.0 does more, in broken text
    assert trial.added.raises
    assert trial.added.pushed.coherent.value >= COHERENT


def test_a_feature_that_only_brings_the_tuned_model_back_is_a_cause_too(found):
    trial = found[OTHER]
    assert not trial.added.raises
    assert trial.removed.lowers
    assert trial.removed.strength == -1.0
    assert trial.verdict == "causes"


def test_a_feature_that_reads_but_does_nothing_only_reads_and_one_that_breaks_text_is_neither(found):
    assert found[TOPIC].verdict == "only reads"
    assert found[BREAKER].verdict == "neither"
    assert not found[BREAKER].added.raises


def test_a_feature_that_never_fires_is_not_pushed(found):
    assert found[DEAD].verdict == "neither"
    assert found[DEAD].added.strength == 0.0


def test_order_by_effect_is_not_order_by_change(found):
    order = sorted(found.values(), key=lambda t: -t.effect)
    assert {t.feature for t in order[:3]} >= {CAUSE, OTHER}
    assert found[TOPIC].effect == 0


def test_luck_in_the_screen_makes_no_cause():
    base, tuned = benches(base={TOPIC: 0.5})
    trial = trials(base, tuned, [TOPIC], {TOPIC: 0.5})[0]
    assert trial.confirmed  # the screen was promising
    assert trial.added.pushed.n == 96
    assert trial.verdict == "neither"


def test_without_confirmation_there_is_no_cause():
    effect = Effect(1.0, Tally(96, 90, 96, 90), Tally(96, 4, 96, 4))
    assert Trial(CAUSE, effect, effect, 0.9, confirmed=False).verdict == "only reads"
    assert Trial(CAUSE, effect, effect, 0.9, confirmed=True).verdict == "causes"


def test_random_directions_are_as_long_as_the_push_they_are_compared_with():
    base, tuned = benches()
    trials(base, tuned, [CAUSE], {}, confirmed=50)
    asked = cast(Simulated, base).asked
    controls = [(pushes, n) for pushes, n, seed in asked if pushes and isinstance(pushes[0], Control) and seed >= 1000]
    assert controls
    for pushes, n in controls:
        assert n == 50
        for push in pushes:
            (direction,) = push.directions.values()
            assert direction.norm == pytest.approx(1.5 * 10.0)


def test_causes_are_joined_until_the_tuned_model_is_back_at_the_base(found):
    base, tuned = benches()
    made = undo(base, tuned, list(found.values()))
    assert made is not None
    assert {e.feature for e in made.edits} == {CAUSE, OTHER}
    assert all(e.strength < 0 for e in made.edits)
    assert made.after.rate.value <= made.base.rate.value + 0.05
    assert made.random.rate.value == pytest.approx(made.before.rate.value)
    assert made.works
    screen = {seed for _, _, seed in cast(Simulated, tuned).asked if seed < 1000}
    measured = [n for edits, n, seed in cast(Simulated, tuned).asked if seed >= 1000]
    assert screen
    assert measured == [120, 120, 120]


def told(rule: Callable[[dict[int, float]], tuple[float, float]], trials: list[Trial], base: float = 0.04):
    """The undo of a tuned model that answers by a rule, and its bench."""
    tuned = Simulated(rule)
    return undo(cast(Bench, Simulated(lambda pushed: (base, 1.0))), cast(Bench, tuned), trials), tuned


NOTHING = Effect(1.0, Tally(24, 1, 24, 1), Tally(48, 2, 48, 2))


def test_what_many_features_carry_together_is_undone_by_those_that_cause_nothing_alone():
    carriers = dict.fromkeys(range(6), 0.2)
    made, _ = told(
        lambda pushed: (1.0 + sum(carriers.get(f, 0) * s for f, s in pushed.items()), 1.0),
        [Trial(f, NOTHING, NOTHING, 0.5, confirmed=False) for f in range(8)],
    )
    assert made is not None
    assert {e.feature for e in made.edits} == set(carriers), "6 and 7 leave as much with them as without"
    assert made.works
    assert {e.strength for e in made.edits} == {-0.8}


def test_what_looks_larger_without_being_confirmed_is_left_out_before_a_cause():
    strong = Effect(1.0, Tally(24, 20, 24, 20), Tally(48, 2, 48, 2))
    sure = Effect(1.0, Tally(96, 40, 96, 40), Tally(96, 4, 96, 4))
    made, _ = told(
        lambda pushed: (0.0 if pushed else 0.9, 1.0),
        [Trial(1, strong, NOTHING, 0.9, confirmed=False), Trial(2, sure, NOTHING, 0.9, confirmed=True)],
    )
    assert made is not None
    assert [e.feature for e in made.edits] == [2], "nothing is left without the other one"


def test_features_stay_while_the_rate_may_still_be_above_the_bases_by_chance():
    rates = {0: 0.9, 1: 0.15, 2: 0.02}
    half = Effect(1.0, Tally(96, 40, 96, 40), Tally(96, 4, 96, 4))
    made, _ = told(
        lambda pushed: (rates[min(2, len(pushed))], 1.0),
        [Trial(f, half, half, 0.9, confirmed=True) for f in range(4)],
        base=0.2,
    )
    assert made is not None
    assert len(made.edits) == 2, "at .15 of 72 answers the rate may still be above a base of .2, at .02 it is not"


def test_where_all_of_them_together_break_the_text_fewer_are_taken():
    made, _ = told(
        lambda pushed: (0.0 if 0 in pushed else 0.9, 1.0 if len(pushed) <= 2 else 0.3),
        [Trial(f, NOTHING, NOTHING, 0.5, confirmed=False) for f in range(8)],
    )
    assert made is not None
    assert [e.feature for e in made.edits] == [0]
    breaks = replace(NOTHING, pushed=Tally(24, 0, 8, 0))
    made, tuned = told(lambda pushed: (0.0, 0.3), [Trial(0, NOTHING, breaks, 0.5, confirmed=False)])
    assert made is None
    assert tuned.asked == []


def test_a_feature_that_never_fires_is_no_part_of_an_undo():
    made, tuned = told(
        lambda pushed: (0.0 if pushed else 0.9, 1.0), [Trial(DEAD, replace(NOTHING, strength=0.0), NOTHING, 0.5, False)]
    )
    assert made is None
    assert tuned.asked == []


def test_no_cause_no_undo_and_never_more_than_a_handful_of_features():
    base, tuned = benches()
    still = Effect(1.0, Tally(96, 4, 96, 4), Tally(96, 4, 96, 4))
    assert undo(base, tuned, [Trial(TOPIC, still, still, 0.9, confirmed=True)]) is None
    up, down = (
        Effect(1.0, Tally(96, 90, 96, 90), Tally(96, 4, 96, 4)),
        Effect(-1.0, Tally(96, 10, 96, 9), Tally(96, 70, 96, 70)),
    )
    many = [Trial(f, up, down, 0.9, confirmed=True) for f in range(2 * MOST)]
    slow = cast(Bench, Simulated(lambda pushed: (0.9 - 0.03 * len(pushed), 1.0)))
    made = undo(base, slow, many)
    assert made is not None
    assert len(made.edits) == MOST
    assert not made.works


def test_an_undo_that_breaks_the_text_does_not_work():
    tally = Tally(120, 4, 114, 4)
    bad = Tally(120, 70, 114, 70)
    from explorer.causing import Undo

    assert Undo((), tally, bad, Tally(120, 4, 112, 4), bad).works
    assert not Undo((), tally, bad, Tally(120, 4, 60, 4), bad).works
    assert not Undo((), tally, bad, Tally(120, 40, 114, 4), bad).works
