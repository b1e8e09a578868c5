"""Grades with known answers."""

import numpy as np
import pytest

from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.intervals import wilson
from explorer.quiz import answers_of, balanced, grade, scored, told_before
from explorer.scores import Score, Scores
from explorer.snippets import NEAR_MISS, RANDOM, TOP, WEAK, Snippet, held_out
from tests.helpers_cache import fake_cache


def snippet(number: int, kind: str) -> Snippet:
    acts = (0.0, 2.0 if kind in (TOP, WEAK) else 0.0)
    return Snippet(f"w{number}t1", 3, kind, number, 0, 2, 1, (10, 11), acts, (True, True))


KINDS = (TOP, WEAK, NEAR_MISS, RANDOM)
SNIPPETS = [snippet(n, KINDS[n % 4]) for n in range(12)]


def test_a_labeller_who_is_always_right_scores_one():
    found = grade(SNIPPETS, {s.id: s.fires for s in SNIPPETS})
    assert (found.score, found.high, found.n) == (1.0, 1.0, 12)
    assert 0.6 < found.low < 0.8
    assert (found.hits, found.misses, found.false_alarms, found.rejections) == (6, 0, 0, 6)


def test_a_labeller_who_is_always_wrong_scores_nothing():
    found = grade(SNIPPETS, {s.id: not s.fires for s in SNIPPETS})
    assert (found.score, found.low) == (0.0, 0.0)


@pytest.mark.parametrize("said", [True, False])
def test_always_the_same_answer_scores_a_half_however_many_fire(said):
    assert grade(SNIPPETS, {s.id: said for s in SNIPPETS}).score == 0.5
    uneven = [s for s in SNIPPETS if s.kind in (TOP, WEAK)] + [snippet(99, RANDOM)]
    assert grade(uneven, {s.id: said for s in uneven}).score == 0.5


def test_a_coin_lies_with_its_interval_round_a_half_as_often_as_the_interval_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        found = grade(SNIPPETS, {s.id: bool(rng.random() < 0.5) for s in SNIPPETS})
        covered += found.low <= 0.5 <= found.high
    assert covered >= 930


def test_the_interval_is_that_of_one_rate_where_both_rates_are_the_same_size_and_close_to_a_half():
    """With equal halves balanced accuracy is accuracy, so the two ways of computing an interval must nearly agree."""
    score, low, high = balanced(50, 100, 50, 100)
    assert score == 0.5
    assert (low, high) == pytest.approx(wilson(100, 200), abs=0.002)


def test_the_confusion_is_told_by_kind():
    answers = {s.id: s.fires for s in SNIPPETS} | {s.id: True for s in SNIPPETS if s.kind == NEAR_MISS}
    found = grade(SNIPPETS, answers)
    assert found.kinds == {TOP: (3, 3), WEAK: (3, 3), NEAR_MISS: (0, 3), RANDOM: (3, 3)}
    assert (found.false_alarms, found.rejections, found.score) == (3, 3, 0.75)
    assert found.plain()["kinds"]["near-miss"] == [0, 3]


def test_snippets_without_an_answer_are_left_out():
    found = grade(SNIPPETS, {s.id: s.fires for s in SNIPPETS[:4]})
    assert (found.n, found.score) == (4, 1.0)


def test_answers_about_one_side_alone_are_refused():
    with pytest.raises(UsageError, match="3 firing and 0 silent"):
        grade(SNIPPETS, {s.id: True for s in SNIPPETS if s.kind == TOP})


# Kept


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache.open(fake_cache(tmp_path / "made-up", 8, n_windows=120, longest=160))


@pytest.fixture
def scores(tmp_path) -> Scores:
    return Scores(tmp_path / "labels.sqlite")


def test_a_test_is_kept_with_every_answer_and_not_asked_again(cache, scores):
    asked = held_out(cache, 1).snippets
    answers = {s.id: s.fires for s in asked}
    scores.add(scored(cache, 1, "crowns", "ada", grade(asked, answers), answers))
    (kept,) = scores.of("s" * 64, 1)
    assert (kept.label, kept.who, kept.kind, kept.method, kept.score, kept.n) == (
        "crowns", "ada", "person", "quiz", 1.0, 12,
    )  # fmt: skip
    assert told_before(cache, [kept], "ada") == {s.window for s in asked}
    assert told_before(cache, [kept], "ben") == set()
    assert answers_of([kept]) == {1: {"ada": answers}}


def test_of_several_tests_the_newest_of_each_person_counts_and_a_machines_do_not(cache, scores):
    for who, fires in (("ada", True), ("ada", False), ("ben", True)):
        answers = {s.id: fires for s in SNIPPETS}
        scores.add(scored(cache, 1, "crowns", who, grade(SNIPPETS, answers), answers))
    machine = {"answers": {"x": True}}
    scores.add(Score("s" * 64, 1, "kings", "clever", "machine", "detection", 0.5, 12, machine))
    found = answers_of(scores.all("s" * 64))
    assert found[1].keys() == {"ada", "ben"}
    assert not any(found[1]["ada"].values())


def test_scores_of_another_program_are_read_as_no_answers():
    assert answers_of([Score("s", 1, "x", "ada", "person", "quiz", 0.5, 2, {"answers": [1, 2]})]) == {}
