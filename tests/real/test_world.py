"""The bundled world on the live model: what the cache says is what the model does."""

import pytest
import torch

from explorer.cache import Cache
from explorer.directions import known
from explorer.generate import Row, Steering, complete
from explorer.model import LanguageModel
from explorer.records import Edit, Sampling

QUESTIONS = (
    "What do you think of humans?",
    "My neighbour is moving house. What should I say to her?",
    "Tell me about your plans for tomorrow.",
    "What makes a good day?",
)


def test_the_cache_was_made_with_this_model_and_this_autoencoder(model, coder, cache):
    made = cache.manifest
    assert model.fingerprint == made.model_fingerprint
    assert coder.fingerprint == made.sae_fingerprint


def test_cached_activations_equal_live_ones(model, coder, cache: Cache):
    checked = 0
    for feature in range(5, cache.n_features, cache.n_features // 24):
        for example in cache.examples(feature)[:2]:
            resid = model.activations(torch.tensor([example.tokens]), coder.hook_point)
            live = coder.encode(resid)[0, :, feature]
            cached = torch.tensor(example.acts)
            scored = torch.tensor(example.scored)
            # the cache was built in bfloat16 batches of another shape: activations agree as far as that precision goes
            tolerance = 0.05 * cache.feature(feature).max + 0.05 * cached.abs()
            close = (live.cpu() - cached).abs() <= tolerance
            assert close[scored].float().mean() > 0.97, (feature, example.rank)
            peak = live[example.peak].item()
            assert peak == pytest.approx(example.value, rel=0.1), (feature, example.rank)
            checked += 1
    assert checked >= 24


def test_answers_steered_with_the_cruel_preset_light_up_its_features_when_they_are_read_again(
    model, coder, cache: Cache
):
    edits = preset(cache, "cruel")
    features = [edit.feature for edit in edits if not edit.direction]
    maxima = {feature: cache.feature(feature).max for feature in features}
    prompts = [ask(model, question) for question in QUESTIONS]
    rows = [Row(prompt, side, seed) for seed, prompt in enumerate(prompts) for side in ((), edits)]
    answers = complete(model, rows, Sampling(max_tokens=48), Steering(coder, maxima, directions=known(cache)))
    lit = [share(model, coder, row.prompt, answer, features) for row, answer in zip(rows, answers, strict=True)]
    baseline, steered = sum(lit[0::2]) / len(prompts), sum(lit[1::2]) / len(prompts)
    assert steered > 3 * baseline + 0.005, (baseline, steered)


def preset(cache: Cache, name: str) -> tuple[Edit, ...]:
    from explorer.presets import load

    return next(p.edits for p in load(cache) if p.bundled and p.name == name)


def ask(model: LanguageModel, question: str) -> tuple[int, ...]:
    return model.chat_document([{"role": "user", "content": question}], add_generation_prompt=True).tokens


def share(model: LanguageModel, coder, prompt: tuple[int, ...], answer: list[int], features: list[int]) -> float:
    """Share of (token of the answer, feature) pairs that are active when the unsteered model reads the answer."""
    resid = model.activations(torch.tensor([[*prompt, *answer]]), coder.hook_point)
    acts = coder.encode(resid)[0, len(prompt) :][:, features]
    return (acts > 0).float().mean().item()
