"""Agreement with known answers, and alpha against one computed by hand."""

from datetime import UTC, datetime

import numpy as np
import pytest

from explorer.agreement import agreement, alpha, latest
from explorer.labels import BUNDLED, NOT_INTERPRETABLE, Label, LabelStore

SAE = "s" * 64


class Sentences:
    """Vectors made up: texts about kings lie close, others at right angles."""

    fingerprint = "made up"

    def encode(self, texts):
        return np.array([[1.0, 0.1 * len(t), 0.0] if "king" in t else [0.0, 0.0, 1.0] for t in texts], np.float32)


def said(feature: int, author: str, label: str, confidence: int | None = None, minute: int = 0) -> Label:
    at = datetime(2026, 1, 1, 10, minute, tzinfo=UTC)
    return Label(SAE, feature, label, confidence=confidence, author=author, created_at=at)


def two(feature: int, first: str, second: str, sure: tuple[int | None, int | None] = (None, None)) -> list[Label]:
    return [said(feature, "ada", first, sure[0]), said(feature, "ben", second, sure[1], 1)]


# Alpha


def test_alpha_equals_one_that_was_computed_by_hand():
    """Ten units by two people: both yes on four, both no on four, split on two. Coincidences: 8 yes-yes, 8 no-no, 2 + 2 mixed; 10 of each
    value among 20. Observed disagreement 4 / 20; expected 2 * 10 * 10 / (20 * 19); alpha = 1 - .2 / .526316 = .62."""
    units = [[True, True]] * 4 + [[False, False]] * 4 + [[True, False], [False, True]]
    found = alpha(units, (False, True))
    assert found.value == pytest.approx(1 - (4 / 20) / (2 * 10 * 10 / (20 * 19)))
    assert found.value == pytest.approx(0.62)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.62 < found.high


def test_alpha_with_missing_ratings_equals_the_published_example():
    """The worked example of Krippendorff (2011), four people, twelve units, nominal: .743."""
    first = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None]
    second = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    third = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None]
    fourth = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    units = [[v for v in unit if v is not None] for unit in zip(first, second, third, fourth, strict=True)]
    assert alpha(units, (1, 2, 3, 4, 5)).value == pytest.approx(0.743, abs=0.0005)


def test_people_who_answer_by_chance_agree_by_chance():
    rng = np.random.default_rng(1)
    units = [list(rng.random(2) < 0.5) for _ in range(400)]
    found = alpha(units, (False, True))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert abs(found.value or 9) < 0.15


def test_ordinal_alpha_forgives_a_step_more_than_two():
    near = [[1, 2], [3, 3], [1, 1], [2, 2], [3, 3]]
    far = [[1, 3], [3, 3], [1, 1], [2, 2], [3, 3]]
    near_value, far_value = (alpha(units, (1, 2, 3), "ordinal").value for units in (near, far))
    assert near_value is not None
    assert far_value is not None
    assert near_value > far_value


def test_alpha_without_variation_is_undefined_and_not_one():
    found = alpha([[True, True]] * 5, (False, True))
    assert found.value is None
    assert "undefined" in str(found)
    assert found.units == 5


def test_units_that_one_person_rated_count_for_nothing():
    found = alpha([[True], [True, False], []], (False, True))
    assert found.units == 1
    assert "two people" in alpha([[True], []], (False, True)).why


def test_snippets_of_one_feature_are_drawn_together():
    """Twenty snippets of one feature are one draw: no interval can be had from it."""
    units = [[True, True], [False, False], [True, False]] * 7
    assert alpha(units, (False, True), groups=[4] * 21).low is None
    assert alpha(units, (False, True)).low is not None


# Labels


def test_the_newest_word_of_each_person_counts_and_what_was_taken_back_does_not():
    changes = [
        said(1, "ada", "crown"),
        said(1, "ada", "king", minute=1),
        said(1, "ben", "sea", minute=2),
        said(1, "ben", "", minute=3),
        said(2, BUNDLED, "came along"),
    ]
    assert {f: {who: label.label for who, label in by.items()} for f, by in latest(changes).items()} == {
        1: {"ada": "king"}
    }


def test_labels_come_out_of_a_store_as_they_went_in(tmp_path):
    store = LabelStore(tmp_path / "labels.sqlite")
    store.put(SAE, 4, "king", author="ada")
    store.put(SAE, 4, "a king or a queen", author="ben")
    store.put(SAE, 4, "kings", author="ada")
    found = latest(store.changes(SAE))
    assert {who: label.label for who, label in found[4].items()} == {"ada": "kings", "ben": "a king or a queen"}


def test_a_feature_with_one_label_is_no_double_label():
    found = agreement(latest([said(1, "ada", "king")]), {})
    assert found.pairs == ()
    assert all(measure.value is None for measure in found.measures.values())


def test_the_features_on_which_people_differ_most_come_first():
    changes = [
        *two(1, "king", "king"),
        *two(2, "king", NOT_INTERPRETABLE),
        *two(3, "king", "sea"),
        *two(4, "king", "kings"),
    ]
    found = agreement(latest(changes), {}, Sentences())
    assert [pair.feature for pair in found.pairs] == [2, 3, 4, 1]
    meaning = {pair.feature: pair.meaning for pair in found.pairs}
    assert meaning[1] == pytest.approx(1)
    assert meaning[2] is None
    assert meaning[3] == pytest.approx(0)
    assert found.measures["meaning"].features == 3
    interpretable = found.measures["interpretable"]
    assert interpretable.value == pytest.approx(0.0, abs=0.2)  # one split unit among three alike says little
    assert (interpretable.features, interpretable.units) == (4, 4)


def test_without_an_embedder_the_other_measures_stand():
    found = agreement(latest(two(1, "king", NOT_INTERPRETABLE) + two(2, "sea", "sea")), {})
    assert "Needs" in found.measures["meaning"].why
    assert found.measures["interpretable"].value is not None


def test_answers_to_the_same_snippets_are_compared_and_others_are_not():
    answers = {
        7: {"ada": {"a": True, "b": False, "c": True}, "ben": {"a": True, "b": True, "d": False}},
        8: {"ada": {"a": True}},
    }
    found = agreement(latest(two(7, "king", "king")), answers)
    (pair,) = found.pairs
    assert pair.differ == 0.5
    assert pair.answers.units == found.measures["answers"].units == 2
    assert found.measures["answers"].features == 1


def test_the_spread_of_confidence_is_told():
    (pair,) = agreement(latest(two(7, "king", "king", (1, 3))), {}).pairs
    assert pair.spread == 2
    assert pair.distance == pytest.approx(0.2)
    (pair,) = agreement(latest(two(7, "king", "king", (1, None))), {}).pairs
    assert pair.spread is None
