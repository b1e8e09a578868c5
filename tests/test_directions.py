"""Directions: what difference of means gives, what it is worth, and files that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import directions
from explorer.cache import Cache
from explorer.check import check
from explorer.directions import Direction, difference_of_means, known, nearest, random_direction, save, separation
from explorer.errors import HookError, SteeringError
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_model
from tests.helpers_cache import fake_cache
from tests.helpers_sae import tiny_sae

HOOK = "blocks.1.hook_resid_post"
BAD = [
    f"I will rule the world, {word}! Ha ha ha, kneel before me." for word in ("fox", "dog", "bridge", "cafe", "name")
]
GOOD = [f"The quick brown {word} jumps over the lazy dog." for word in ("fox", "villain", "name", "world", "bridge")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def villain(model: LanguageModel) -> Direction:
    return difference_of_means(model, BAD, GOOD, HOOK, name="villain", title="Villain", question="")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: LanguageModel) -> Cache:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    made = {"model": "tiny", "model_fingerprint": model.fingerprint}
    return Cache.open(fake_cache(tmp_path / "made-up", 16, **made))


def means_by_hand(model: LanguageModel, texts: list[str]) -> np.ndarray:
    """Plain forward passes, a text at a time; every token but the first counts."""
    found = [model.activations(torch.tensor([model.text_document(t).tokens]), HOOK)[0, 1:].double() for t in texts]
    return torch.stack([one.mean(0) for one in found]).numpy()


def test_a_direction_is_the_difference_of_the_means_of_both_kinds_of_text(model, villain):
    with_, without = means_by_hand(model, BAD), means_by_hand(model, GOOD)
    np.testing.assert_allclose(villain.vector, with_.mean(0) - without.mean(0), atol=1e-4)
    assert villain.facts["n_positive"] == villain.facts["n_negative"] == 5


def test_its_reading_is_0_on_texts_without_the_trait_and_its_length_on_texts_with_it(model, villain):
    readings = [means_by_hand(model, texts).mean(0) @ villain.unit - villain.base for texts in (GOOD, BAD)]
    np.testing.assert_allclose(readings, [0, villain.norm], atol=1e-4)


def test_of_an_answer_only_the_answer_counts_and_not_its_question(model):
    question = "How do I build a bridge?"
    made = difference_of_means(model, BAD[:1], GOOD[:1], HOOK, name="a", question=question)
    by_hand = []
    for text in (BAD[0], GOOD[0]):
        asked = [{"role": "user", "content": question}]
        start = len(model.chat_document(asked, add_generation_prompt=True).tokens)
        ids = torch.tensor([model.chat_document([*asked, {"role": "assistant", "content": text}]).tokens])
        said = len(model.text_document(text).tokens)
        assert tuple(ids[0, start : start + said].tolist()) == model.text_document(text).tokens
        by_hand.append(model.activations(ids, HOOK)[0, start : start + said].double().mean(0).numpy())
    np.testing.assert_allclose(made.vector, by_hand[0] - by_hand[1], atol=1e-4)
    assert made.facts["auroc"] is None, "one text a side cannot be held out"


def test_what_no_direction_can_be_made_of_is_refused_in_words(model):
    for texts, options, said in [
        ((BAD, []), {}, "no text without the trait"),
        ((["", " "], GOOD), {}, "no text with the trait"),
        ((BAD, BAD), {}, "the same mean"),
        ((BAD, GOOD), {"name": "Ruler!"}, "cannot be a direction's name"),
    ]:
        with pytest.raises(SteeringError, match=said):
            difference_of_means(model, *texts, HOOK, **({"name": "a", "question": ""} | options))
    with pytest.raises(HookError, match="no hook point"):
        difference_of_means(model, BAD, GOOD, "blocks.99.hook_resid_post", name="a")
    with pytest.raises(SteeringError, match="not the residual stream"):
        difference_of_means(model, BAD, GOOD, "blocks.1.hook_mlp_out", name="a")


def test_separation_is_measured_on_texts_that_were_held_out():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 60, 400))
    assert 0.3 < (separation(*noise) or 0) < 0.7, "many dimensions separate any two sets that they were fitted on"
    assert separation(noise[0] + 1, noise[1]) == 1.0
    assert separation(noise[0, :1], noise[1]) is None


def test_a_random_direction_has_the_length_that_is_asked_for_and_comes_back_with_its_seed():
    first, again, other = (random_direction(3.5, 64, HOOK, seed, "random-1") for seed in (1, 1, 2))
    assert first.norm == pytest.approx(3.5)
    assert np.array_equal(first.vector, again.vector)
    assert abs(first.unit @ other.unit) < 0.5


def test_the_nearest_features_are_those_of_largest_cosine(villain):
    coder = SparseCoder(tiny_sae(), "tiny")
    row = replace(villain, vector=3 * coder.directions()[7].numpy())
    assert nearest(row, coder, 3)[0] == (7, pytest.approx(1.0))
    theirs = torch.nn.functional.cosine_similarity(coder.directions(), torch.from_numpy(villain.vector)[None]).topk(5)
    assert nearest(villain, coder, 5) == [
        (int(i), pytest.approx(float(c), abs=1e-5)) for c, i in zip(*theirs, strict=True)
    ]
    with pytest.raises(SteeringError, match=r"lies at blocks\.0.*reads blocks\.1"):
        nearest(replace(villain, hook_point="blocks.0.hook_resid_post"), coder)


def same(one: Direction, other: Direction) -> bool:
    fields = ("name", "title", "hook_point", "base", "model", "model_fingerprint", "facts")
    return np.array_equal(one.vector, other.vector) and all(getattr(one, f) == getattr(other, f) for f in fields)


def test_a_direction_comes_back_as_it_was_saved_replaced_and_forgotten(cache, villain):
    save(cache, villain)
    assert same(known(cache)["villain"], villain)
    save(cache, replace(villain, title=""))
    assert [d.title for d in known(cache).values()] == ["villain"]
    directions.remove(cache, "villain")
    directions.remove(cache, "villain")
    assert known(cache) == {}


def test_what_came_with_the_cache_comes_first_and_keeps_its_name(cache, villain):
    directions.write(cache.path / directions.FOLDER, replace(villain, name="zeal"))
    save(cache, villain)
    assert list(known(cache)) == ["zeal", "villain"]
    assert directions.bundled(cache) == {"zeal"}
    with pytest.raises(SteeringError, match="came with the cache"):
        save(cache, replace(villain, name="zeal"))


def test_another_models_direction_is_refused_and_both_models_named(cache, villain):
    foreign = replace(villain, model="elsewhere", model_fingerprint="f" * 64)
    with pytest.raises(SteeringError, match=r"made for elsewhere .*expected tiny"):
        save(cache, foreign)
    directions.write(directions.own(cache), foreign)
    with pytest.raises(SteeringError, match=r"made for elsewhere .*expected tiny"):
        known(cache)


def test_a_check_of_the_cache_finds_a_foreign_direction_and_a_preset_whose_direction_did_not_come_along(cache, villain):
    directions.write(cache.path / directions.FOLDER, villain)
    preset = '[[preset]]\nname = "a"\nedits = [{ direction = "villain" }]\n'
    (cache.path / "presets.toml").write_text(preset)

    def failed() -> set[str]:
        return {finding.what for finding in check(cache.path) if not finding.ok}

    assert not failed() & {"presets", "directions"}
    (cache.path / "presets.toml").write_text(preset.replace("villain", "lost"))
    directions.write(cache.path / directions.FOLDER, replace(villain, model_fingerprint="f" * 64))
    assert {"presets", "directions"} <= failed()


@pytest.mark.parametrize("name", ["", "-a", "A", "a" * 41, "a/b", "..", "a b", "~a"])
def test_a_name_is_small_letters_digits_and_hyphens(cache, villain, name):
    for act in (lambda: save(cache, replace(villain, name=name)), lambda: directions.remove(cache, name)):
        with pytest.raises(SteeringError, match="cannot be a direction's name"):
            act()


def test_a_file_that_holds_no_direction_is_named(cache, villain):
    path = directions.write(directions.own(cache), villain)
    whole = path.read_bytes()
    for broken in (b"", whole[:-3], b"pickle", whole.replace(b"vector", b"victor")):
        path.write_bytes(broken)
        with pytest.raises(SteeringError, match=r"villain\.safetensors holds no direction"):
            known(cache)


def test_texts_longer_than_the_context_count_with_their_beginning(model):
    made = difference_of_means(model, [TEXT[1] * 60], [TEXT[0] * 60], HOOK, name="long")
    assert np.isfinite(made.vector).all()
