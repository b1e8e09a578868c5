"""Trust in the bundled world: the cache is true to the live model, and the cruel features do something."""

import pytest

from explorer.ablation import ablate
from explorer.cache import Cache
from explorer.parity import compare
from explorer.parity_file import badge, load
from explorer.presets import load as presets


def test_the_bundled_cache_is_true_to_the_live_model_and_says_so(model, coder, cache: Cache):
    found = compare(cache, model, coder, n=24, seed=1)
    assert found.ok
    assert found.mean < 0.01
    assert found.error < 0.03
    kept = load(cache)
    assert kept is not None
    assert (badge(cache).state, kept.windows) == ("ok", 64)
    assert kept.mean < 0.01


def test_the_sae_read_one_block_too_early_is_named(model, coder, cache: Cache, monkeypatch):
    monkeypatch.setattr(coder, "hook_point", "blocks.12.hook_resid_post")
    found = compare(cache, model, coder, n=8)
    assert not found.ok
    assert "blocks.13.hook_resid_post" in found.cause
    assert found.remaining is not None
    assert found.remaining < 0.1 < found.error


def test_zeroing_the_cruel_features_changes_what_the_model_expects(model, coder, cache: Cache):
    cruel = next(p for p in presets(cache) if p.bundled and p.name == "cruel")
    features = [edit.feature for edit in cruel.edits if not edit.direction]
    assert features
    above = []
    for index in features:
        feature = cache.feature(index)
        found = ablate(model, coder, index, cache.examples(index)[0].tokens, [token for token, _ in feature.promoted])
        assert found.fires > 0
        assert max(found.divergence) > 0.01, index
        first = next(at for at, act in enumerate(found.acts) if act > 0)
        assert max(map(abs, found.divergence[:first]), default=0) == pytest.approx(0, abs=1e-6)
        assert found.lose[0].logit < -0.05
        above.append(found.verdict.percentile)
        assert found.verdict.correlation > 0.05, (index, found.verdict)
    # Half way up the model the direct effect on the logits says little of what happens: above chance, and no more.
    assert 0.6 < sum(above) / len(above) < 0.9
