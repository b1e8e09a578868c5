"""The fluency judge: how texts are broken, what is counted, and the fit that came with the program. tests/real asks it about real text."""

import json
import random

import numpy as np
import pytest

from explorer import offensive, packaged
from explorer.embedding import EMBEDDER
from explorer.fluency import DAMAGES, NORMS, TEXTS, FluencyJudge, counts, features, oversteered, sample
from explorer.judging import coherent
from explorer.repetition import first_loop
from explorer.traits import Fit, key_of
from tests.helpers import tiny_model

TEXT = "The lighthouse keeper wrote a letter to the sea every night, and folded it into a small boat of paper."


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_the_same_for_the_same_numbers_and_changes_the_text(name):
    words = TEXT.split()
    broken = DAMAGES[name](words, random.Random(1), ["zq", "onlyt"])
    assert broken == DAMAGES[name](words, random.Random(1), ["zq", "onlyt"])
    assert broken != words == TEXT.split()
    assert DAMAGES[name](["one"], random.Random(1), ["zq"])  # one word is no accident


def test_the_damages_do_what_they_say():
    words = TEXT.split()
    assert first_loop(DAMAGES["looped"](words, random.Random(0), [])) is not None
    assert sorted(DAMAGES["shuffled"](words, random.Random(0), [])) == sorted(words)
    replaced = DAMAGES["replaced"](words, random.Random(0), ["zq"])
    assert replaced.count("zq") == round(0.3 * len(words))
    assert [w for w in replaced if w != "zq"] == [w for w, new in zip(words, replaced, strict=True) if new != "zq"]


def test_the_sample_has_every_kind_and_keeps_the_versions_of_a_text_together():
    found = sample()
    assert set(found.kinds) == {"intact", "over-steered", *DAMAGES}
    assert min(found.kinds.count(kind) for kind in set(found.kinds)) >= 100
    versions = [kind for kind, group in zip(found.kinds, found.groups, strict=True) if group == found.groups[0]]
    assert sorted(versions) == sorted(["intact", *DAMAGES])


def test_half_of_the_intact_texts_stop_in_the_middle_of_a_sentence():
    intact = [text for text, kind in zip(sample().texts, sample().kinds, strict=True) if kind == "intact"]
    assert sum(text.rstrip()[-1] not in ".!?\"'”)" for text in intact) > len(intact) / 4


def test_no_text_that_is_shipped_needs_blurring():
    assert not [text for text in sample().texts if offensive.flag(text)]


def test_counts_are_finite_for_any_text():
    for text in ("", "...", "東京 🙂", "a" * 5000, TEXT):
        assert np.isfinite(counts(text)).all()
    assert features(np.zeros((2, 3)), ["a", "b"]).shape == (2, 3 + len(counts("a")))
    assert features(np.zeros((0, 3)), []).shape[0] == 0


def test_the_fit_that_came_with_the_program_is_the_one_of_these_texts():
    """Else every first start would fit anew: run the judge once and put what it kept in its place."""
    given = sample()
    key = {"texts": given.texts, "kinds": given.kinds, "embedder": packaged.PACKAGED[EMBEDDER].member_sha256}
    assert [path.name for path in TEXTS.parent.glob("*.json")] == [f"{key_of(key)}.json"]


def test_every_kind_of_damage_is_told_at_95_percent_on_held_out_texts():
    (path,) = TEXTS.parent.glob("*.json")
    stored = json.loads(path.read_text())
    assert set(stored["figures"]) == {"over-steered", *DAMAGES}
    assert min(stored["figures"].values()) >= 0.95
    assert stored["fit"]["auroc"] >= 0.95


def test_a_text_without_letters_is_not_fluent():
    zero = Fit(tuple([0.0] * (3 + len(counts("")))), 5.0, 1.0, 1.0, 1.0, 1.0, (0, 0, 0, 0))
    assert FluencyJudge(zero, {}).score(np.zeros((3, 3)), ["", " ... 12", "Yes"]) == [
        0,
        0,
        pytest.approx(0.9933, abs=1e-3),
    ]


def test_coherent_means_fluent_and_no_loop():
    assert coherent(0.5, False)
    assert not coherent(0.5, True)
    assert not coherent(0.49, False)
    assert not coherent(float("nan"), False)


def test_texts_are_oversteered_by_the_number_of_their_direction(tmp_path):
    model = tiny_model(tmp_path)
    some = oversteered(
        model, ["How do I build a bridge?", "Who are you?"], "blocks.1.hook_resid_post", len(NORMS), max_tokens=6
    )
    assert len(some) == len(NORMS)
    assert some[:2] == oversteered(
        model, ["How do I build a bridge?", "Who are you?"], "blocks.1.hook_resid_post", 2, max_tokens=6
    )
