"""Loops are found where they begin, and nothing else is taken for one."""

import pytest

from explorer.repetition import first_loop


def test_a_loop_begins_with_its_third_copy():
    words = [
        "so",
        "I",
        "said",
        "the",
        "sea",
        "is",
        "cold",
        "the",
        "sea",
        "is",
        "cold",
        "the",
        "sea",
        "is",
        "cold",
        "the",
        "sea",
        "is",
        "cold",
    ]
    assert first_loop(words) == 11
    assert words[11:15] == ["the", "sea", "is", "cold"]


@pytest.mark.parametrize(
    "text",
    ["", "one", "the sea is cold the sea is cold", "ha ha ha ha ha ha ha ha", "1. 2. 3. 1. 2. 3. 1. 2. 3. 1. 2. 3."],
    ids=["empty", "short", "twice", "a laugh", "a table"],
)
def test_what_is_no_loop_is_left_alone(text: str):
    assert first_loop(text.split()) is None


def test_one_word_over_and_over_is_a_loop():
    assert first_loop(["ha"] * 40) == 8


def test_case_and_blanks_do_not_matter():
    assert (
        first_loop([" The", " sea", " is", " cold", "the", " sea", " IS", "\ncold", " the", " sea", " is", " cold"])
        == 8
    )


def test_a_phrase_that_comes_back_much_later_is_a_habit():
    phrase, between = ["it", "is", "important", "to"], [f"word{i}" for i in range(60)]
    far = phrase + between + phrase + [w + "x" for w in between] + phrase
    assert first_loop(far) is None
    assert first_loop(far, within=200) == 128


def test_how_long_and_how_often_can_be_chosen():
    words = ["a", "b", "a", "b", "c"]
    assert first_loop(words, n=2, times=2) == 2
    assert first_loop(words, n=3, times=2) is None


def test_what_was_no_loop_stays_one_when_the_text_goes_on():
    words = [
        "the",
        "sea",
        "is",
        "cold",
        "the",
        "sea",
        "is",
        "cold",
        "the",
        "sea",
        "is",
        "cold",
        "and",
        "then",
        "it",
        "ends",
    ]
    assert first_loop(words) == first_loop(words[:12]) == 8
