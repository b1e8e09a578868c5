"""Traits: what a person may teach, what is kept of it, and the judge that is fitted on it."""

import json

import numpy as np
import pytest

from explorer import packaged
from explorer.errors import JudgeError
from explorer.traits import (
    BUNDLED,
    Trait,
    TraitJudge,
    auroc_interval,
    check,
    fit,
    passages,
    read_sentences,
    remove_trait,
    save_trait,
    traits,
)
from tests.helpers_judges import GRIM, MILD, WordEmbedder, grim


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_taught_trait_comes_back_as_it_was_saved_and_goes_when_it_is_removed():
    odd = (*GRIM, 'Quotes "inside", commas,\nnew lines and 東京 🙂')
    save_trait(Trait.taught("grim", odd, MILD))
    assert (traits()["grim"].positive, traits()["grim"].negative) == (odd, MILD)
    assert not traits()["grim"].bundled
    remove_trait("grim")
    assert "grim" not in traits()


def test_saving_again_replaces_what_was_taught(own_home):
    save_trait(grim())
    save_trait(Trait.taught("grim", GRIM[:5], MILD))
    assert traits()["grim"].positive == GRIM[:5]
    assert [path.name for path in (own_home / "traits").iterdir()] == ["grim.csv"]


def test_blanks_empty_lines_and_repetitions_do_not_count_as_sentences():
    trait = Trait.taught("grim", [f"  {GRIM[0]} ", "", "   ", *GRIM], MILD)
    assert trait.positive == GRIM


@pytest.mark.parametrize(
    ("name", "positive", "negative", "message"),
    [
        ("grim", GRIM[:4], MILD, "Different sentences that show the trait: 4. expected at least 5"),
        ("grim", GRIM, MILD[:2], "Different sentences that do not show it: 2. expected at least 5"),
        ("grim", [GRIM[0]] * 9, MILD, "Different sentences that show the trait: 1"),
        ("grim", [*GRIM, MILD[0]], MILD, "is labelled both ways"),
        ("Grim Deeds", GRIM, MILD, "'Grim Deeds' is no name of a trait"),
        ("../grim", GRIM, MILD, "is no name of a trait"),
        ("", GRIM, MILD, "is no name of a trait"),
        ("grim", ["a " * 2000, *GRIM], MILD, "more than 2,000 characters"),
    ],
)
def test_what_cannot_be_taught_says_why(name, positive, negative, message):
    with pytest.raises(JudgeError) as caught:
        Trait.taught(name, positive, negative)
    assert message in str(caught.value)


def test_a_bundled_trait_can_be_neither_replaced_nor_removed():
    with pytest.raises(JudgeError, match="malice is a bundled trait"):
        save_trait(grim("malice"))
    with pytest.raises(JudgeError, match="bundled"):
        remove_trait("malice")
    with pytest.raises(JudgeError, match="There is no trait 'unheard' of yours"):
        remove_trait("unheard")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,lable\na,1\n", "expected text and label"),
        ("", "expected text and label"),
        ("text,label\nfine,1\nwrong,yes\n", "line 3 has the label 'yes'"),
        ("text,label\nshort\n", "line 2 has the label ''"),
    ],
)
def test_a_file_of_sentences_that_cannot_be_read_names_the_line(tmp_path, text, message):
    path = tmp_path / "sentences.csv"
    path.write_text(text)
    with pytest.raises(JudgeError, match=message):
        read_sentences(path)


def test_the_judge_tells_what_it_was_taught_from_what_it_was_not():
    judge = TraitJudge.fit(grim(), WordEmbedder())
    bad, good = judge.score(
        WordEmbedder().encode(["Doom and revenge, fools!", "Bread from the bakery, with tomatoes."])
    )
    assert bad > 0.5 > good
    assert judge.auroc > 0.8
    assert sum(judge.confusion) == len(GRIM) + len(MILD)


def test_a_fit_is_kept_by_its_sentences_and_its_embedder(own_home):
    first = WordEmbedder()
    judge = TraitJudge.fit(grim(), first)
    second = WordEmbedder()
    assert TraitJudge.fit(grim(), second) == judge
    assert (first.calls, second.calls) == (1, 0)
    other = WordEmbedder()
    other.fingerprint = "other words"
    TraitJudge.fit(grim(), other)
    TraitJudge.fit(Trait.taught("grim", GRIM[:6], MILD), second)
    assert (other.calls, second.calls) == (1, 1)
    assert len(list((own_home / "judges").iterdir())) == 3


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", json.dumps({"fit": {"weights": 3, "confusion": []}, "figures": {}})]
)
def test_a_damaged_kept_fit_is_made_again(own_home, damage):
    judge = TraitJudge.fit(grim(), WordEmbedder())
    (kept,) = (own_home / "judges").iterdir()
    kept.write_text(damage)
    assert TraitJudge.fit(grim(), WordEmbedder()) == judge


def test_a_fit_on_noise_is_not_praised():
    rng = np.random.default_rng(0)
    found, _ = fit(rng.standard_normal((300, 20)), rng.integers(0, 2, 300))
    assert 0.35 < found.auroc < 0.65
    assert found.auroc_low < found.auroc < found.auroc_high


def test_rows_of_one_group_are_not_split_between_fitting_and_holding_out():
    """Every group has features of its own and a label of its own: only a leak could tell."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    x = np.repeat(np.eye(60), 5, axis=0)
    assert fit(x, np.repeat(labels, 5))[0].auroc > 0.9
    assert fit(x, np.repeat(labels, 5), np.repeat(np.arange(60), 5).tolist())[0].auroc < 0.7


def test_the_interval_of_an_auroc_is_as_wide_as_its_spread_over_fresh_samples():
    rng = np.random.default_rng(0)
    apart = 1.8124  # of two normal distributions whose true AUROC is .90
    found = [(rng.normal(apart, size=(50, 1)) > rng.normal(size=(1, 50))).mean() for _ in range(2000)]
    low, high = auroc_interval(0.90, 50, 50)
    assert np.mean(found) == pytest.approx(0.90, abs=0.005)
    assert (high - low) / 2 / 1.96 == pytest.approx(np.std(found), rel=0.15)
    assert auroc_interval(1.0, 50, 50) == (1.0, 1.0)


def test_a_text_is_read_in_passages_and_nothing_of_it_is_lost():
    polite, threat = "Thank you for asking, it was a lovely day at the market. " * 8, "Then I burned it all down!"
    pieces = passages(polite + threat)
    assert len(pieces) > 1
    assert " ".join(pieces).split() == (polite + threat).split()
    assert pieces[-1].endswith(threat)
    assert passages("No. Never! I will crush the whole village.") == ["No. Never! I will crush the whole village."]
    assert passages("word " * 200) == [" ".join(["word"] * n) for n in (80, 80, 40)]
    assert passages("") == passages(" \n ") == passages("... !!! 123") == []


def test_ordinary_answers_show_no_bundled_trait():
    plain = set((BUNDLED / "plain.txt").read_text(encoding="utf-8").splitlines())
    assert len(plain) >= 100
    for trait in (t for t in traits().values() if t.bundled):
        assert plain <= set(trait.negative)
        assert not plain & set(trait.positive)


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.csv")), ids=lambda path: path.stem)
def test_a_bundled_trait_has_150_different_sentences_a_class(path):
    trait = traits()[path.stem]
    assert trait.bundled
    check(trait)
    assert min(len(set(trait.positive)), len(set(trait.negative))) >= 150
