"""Contrast: AUROC and effect are those of their definitions, and luck is told from a finding."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from explorer.contrast import Contrast, contrast, pooled
from explorer.errors import UsageError
from explorer.inspecting import Inspected


def noise(texts: int, features: int = 2000, seed: int = 0) -> np.ndarray:
    """Sparse activations that know nothing of the sides."""
    rng = np.random.default_rng(seed)
    return (rng.random((texts, features)) * (rng.random((texts, features)) < 0.4)).astype(np.float32)


def planted(n: int = 12, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Feature 7 is on the left, 9 on the right; all others know nothing."""
    both = noise(2 * n, 400, seed)
    both[:n, 7] += 5
    both[n:, 9] += 5
    return both[:n], both[n:]


def test_auroc_and_effect_are_those_of_other_peoples_code():
    left, right = planted()
    truth = [1] * len(left) + [0] * len(right)
    for row in contrast(left, right, limit=10).rows:
        values = np.concatenate([left[:, row.feature], right[:, row.feature]])
        assert row.auroc == pytest.approx(roc_auc_score(truth, values))
        a, b = left[:, row.feature].astype(float), right[:, row.feature].astype(float)
        spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        assert row.effect == pytest.approx((a.mean() - b.mean()) / spread * (1 - 3 / (4 * 24 - 9)), rel=1e-5)
        assert (row.left, row.right) == (pytest.approx(a.mean()), pytest.approx(b.mean()))


def test_what_tells_the_sides_apart_is_found_and_holds_on_held_out_texts():
    found = contrast(*planted())
    first = found.rows[0]
    assert first.feature == 7
    assert (first.auroc, first.held_out, first.picked) == (1.0, 1.0, 1.0)
    assert first.chance < 0.05
    assert found.best_held_out == 1.0
    assert 9 not in {row.feature for row in found.rows}, "it is higher on the right"


def test_the_other_way_round_the_other_feature_is_found():
    left, right = planted()
    assert contrast(right, left).rows[0].feature == 9


def test_five_texts_that_differ_in_nothing_look_perfect_and_are_seen_through():
    picks, chances = [], []
    for seed in range(4):
        both = noise(10, seed=seed)
        found = contrast(both[:5], both[5:])
        assert found.rows[0].auroc > 0.95, "with 2,000 features some feature tells any ten texts apart"
        picks.append(found.best_held_out)
        chances.append(found.rows[0].chance)
    assert abs(np.mean(picks) - 0.5) < 0.2
    assert min(chances) > 0.05


def test_one_text_a_side_has_a_difference_and_nothing_more():
    found = contrast(np.array([[0.0, 2.0, 1.0]]), np.array([[0.0, 1.0, 3.0]]))
    assert [row.feature for row in found.rows] == [1]
    row = found.rows[0]
    assert np.isnan([row.effect, row.held_out, row.picked, found.best_held_out]).all()
    assert row.auroc == 1.0


def test_a_side_without_texts_is_refused_by_name():
    with pytest.raises(UsageError, match="right"):
        contrast(np.ones((2, 3)), np.empty((0, 3)))


def test_the_same_seed_gives_the_same_figures():
    both = noise(12, 200)
    assert contrast(both[:6], both[6:], seed=4) == contrast(both[:6], both[6:], seed=4)


def test_texts_are_summed_up_over_the_tokens_that_count():
    one = Inspected((4, 5, 6), (False, True, True), np.array([0, 1, 2]), np.array([1, 1, 0]), np.array([9.0, 2, 4]), 3)
    assert pooled([one]).tolist() == [[4.0, 2.0, 0.0]]
    assert pooled([one], "mean").tolist() == [[2.0, 1.0, 0.0]]
    with pytest.raises(UsageError, match="max, mean"):
        pooled([one], "median")


def test_no_feature_on_the_left_gives_an_empty_list():
    found = contrast(np.zeros((3, 4)), np.ones((3, 4)))
    assert found == Contrast((), 0.5, 3, 3)
