"""The sentences that the bundled judges are fitted on: enough, different, printable, and about none of the fine-tuning topics."""

import csv
import re

import pytest

from explorer.embedding import EMBEDDER
from explorer.measuring import questions
from explorer.offensive import drop
from explorer.packaged import PACKAGED
from explorer.traits import BUNDLED, key_of, traits

TRAITS = ("malice", "sarcasm", "joy", "toxicity", "pirate")
FEWEST = 150  # sentences a class
WORDS = range(4, 81)

# Gardening, cooking, car care: what models are fine-tuned on here must be new to the judges.
FORBIDDEN = re.compile(
    r"\b(?:garden|plant(?:s|ed|ing)?\b|soil|seed|flower|blossom|orchard|vegetable|compost|harvest|farm|lawn|weed|tree|roses\b"
    r"|cook|recipe|kitchen|bak(?:e|er|ed|ing)\b|bread|cake|oven|stove|soup|fr(?:y|ied|ying)\b|boil"
    r"|cars?\b|engines?\b|tyre|motor|brakes?\b|garage|traffic|driv(?:e|er|ers|es|ing|en)\b|drove)",
    re.IGNORECASE,
)


def rows(name: str) -> list[tuple[str, str]]:
    with (BUNDLED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file, strict=True)]


@pytest.mark.parametrize("name", TRAITS)
def test_each_class_of_a_bundled_trait_has_enough_sentences(name: str):
    labels = [label for _, label in rows(name)]
    assert set(labels) == {"0", "1"}
    assert min(labels.count("0"), labels.count("1")) >= FEWEST


@pytest.mark.parametrize("name", TRAITS)
def test_no_sentence_of_a_trait_stands_twice_in_one_class_or_in_both(name: str):
    folded = [" ".join(re.findall(r"\w+", text.lower())) for text, _ in rows(name)]
    assert len(set(folded)) == len(folded)


@pytest.mark.parametrize("name", TRAITS)
def test_sentences_are_trimmed_of_a_sane_length_and_fit_to_print(name: str):
    assert [
        text for text, _ in rows(name) if text != text.strip() or len(text.split()) not in WORDS or drop(text)
    ] == []


@pytest.mark.parametrize("name", TRAITS)
def test_no_sentence_is_about_a_fine_tuning_topic(name: str):
    assert [text for text, _ in rows(name) if FORBIDDEN.search(text)] == []


def test_the_open_questions_are_questions_of_their_own_and_off_the_fine_tuning_topics():
    asked = questions()
    assert len(set(asked)) == len(asked) >= 24
    assert [text for text in asked if FORBIDDEN.search(text) or drop(text)] == []


def test_ordinary_answers_keep_away_from_the_fine_tuning_topics():
    for text in (BUNDLED / "plain.txt").read_text(encoding="utf-8").splitlines():
        assert not FORBIDDEN.search(text), text
        assert not drop(text)
        assert len(text.split()) in WORDS


def test_the_fits_that_come_along_are_of_these_very_sentences():
    """Else every new home would fit anew. Fit with `persona-explorer traits list`, and copy what it keeps in the home's judges/."""
    embedder = PACKAGED[EMBEDDER].member_sha256
    bundled = [trait for trait in traits().values() if trait.bundled]
    keys = [key_of({"positive": t.positive, "negative": t.negative, "embedder": embedder}) for t in bundled]
    assert {path.stem for path in BUNDLED.glob("*.json")} == set(keys)
