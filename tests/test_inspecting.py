"""What fires on a text: every value is the model's own, and what is always on sinks."""

import numpy as np
import pytest
import torch

from explorer.cache import Cache
from explorer.errors import ModelError, UsageError
from explorer.inspecting import RANKINGS, Inspected, inspect, rank, rarity
from explorer.sae import SparseCoder
from tests.helpers import tiny_model
from tests.helpers_cache import fake_cache
from tests.helpers_sae import tiny_sae_folder

TEXT = "The old king of the bridge laughs. Kneel!"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("inspecting"))


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    return SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("inspecting-sae") / "sae"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 64))


def made(rows: list[list[float]], scored: list[bool], width: int = 64) -> Inspected:
    """A text by its activations, `[pos][feature]`, on the first features."""
    acts = np.array(rows).reshape(len(rows), -1 if rows else 0)
    position, feature = np.nonzero(acts)
    return Inspected(
        tuple(range(len(rows))), tuple(scored), position, feature, acts[position, feature].astype(float), width
    )


def test_every_activation_of_a_text_is_that_of_the_plainest_code(model, coder):
    document = model.text_document(TEXT)
    found = inspect(model, coder, document, sink_norm=1e9)
    resid = model.activations(torch.tensor([document.tokens]), coder.hook_point)[0]
    wanted = coder.encode(resid).float().detach().numpy()
    got = np.stack([found.of(feature) for feature in range(coder.n_features)], 1)
    assert (wanted > 0).any()
    np.testing.assert_allclose(got, np.maximum(wanted, 0), atol=1e-6)
    for position in range(len(document.tokens)):
        pairs = found.at(position)
        assert dict(pairs) == pytest.approx({f: v for f, v in enumerate(wanted[position].tolist()) if v > 0})
        assert [v for _, v in pairs] == sorted((v for _, v in pairs), reverse=True)


def test_a_text_that_the_model_cannot_read_at_once_is_refused_with_its_length(model, coder):
    document = model.text_document("king " * (model.max_length + 1))
    with pytest.raises(ModelError) as caught:
        inspect(model, coder, document, sink_norm=1e9)
    assert f"{len(document.tokens):,} tokens" in caught.value.found
    assert f"{model.max_length:,}" in caught.value.expected


def test_a_token_with_a_long_stream_is_no_evidence_and_nor_is_the_first(model, coder):
    document = model.text_document(TEXT)
    assert not inspect(model, coder, document, sink_norm=1e9).scored[0]
    assert any(inspect(model, coder, document, sink_norm=1e9).scored)
    assert not any(inspect(model, coder, document, sink_norm=0.0).scored)


def test_an_empty_text_fires_nothing(model, coder, cache: Cache):
    found = inspect(model, coder, model.text_document(""), sink_norm=1e9)
    assert (found.tokens, len(found.feature)) == ((), 0)
    assert rank(made([], []), cache) == []


def test_sums_are_over_the_tokens_that_count(cache):
    found = made([[9.0, 0.0], [2.0, 1.0], [4.0, 1.0]], [False, True, True])
    row = {one.feature: one for one in rank(found, cache, weighted=False)}
    assert (row[0].max, row[0].mean, row[0].total, row[0].tokens) == (4.0, 3.0, 6.0, 2)
    assert row[0].share == pytest.approx(4.0 / cache.feature(0).max)


def test_rarity_is_one_for_a_single_token_and_nothing_for_what_is_always_on():
    assert rarity(np.array([1.0, 1 / 1000, 0.0]), 1000).tolist() == pytest.approx([0.0, 1.0, 1.0])
    falling = rarity(np.array([0.5, 0.1, 0.01]), 1000)
    assert (np.diff(falling) > 0).all()


def test_what_is_always_on_sinks_when_rarity_counts(cache):
    density = cache.table.column("density").to_numpy()
    common, rare = int(density.argmax()), int(density.argmin())
    acts = np.zeros((1, 64))
    acts[0, common], acts[0, rare] = 3.0, 2.0
    found = made(acts.tolist(), [True])
    assert [one.feature for one in rank(found, cache, weighted=False)] == [common, rare]
    assert [one.feature for one in rank(found, cache, weighted=True)] == [rare, common]


@pytest.mark.parametrize("by", RANKINGS)
def test_features_come_in_the_order_of_what_they_are_ranked_by(cache, by):
    rng = np.random.default_rng(0)
    found = made((rng.random((20, 64)) * (rng.random((20, 64)) < 0.3)).tolist(), [True] * 20)
    rows = rank(found, cache, by=by, limit=64)
    assert len(rows) > 20
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    plain = rank(found, cache, by=by, weighted=False, limit=64)
    for row in plain:
        if by != "share" or not np.isnan(row.share):
            assert row.score == getattr(row, by)


def test_features_that_fire_too_often_can_be_left_out(cache):
    found = made(np.ones((2, 64)).tolist(), [True, True])
    density = cache.table.column("density").to_numpy()
    kept = {row.feature for row in rank(found, cache, limit=64, max_density=0.01)}
    assert kept == set(np.flatnonzero(density <= 0.01).tolist())


def test_an_unknown_ranking_is_refused_with_the_known_ones(cache):
    with pytest.raises(UsageError, match="max, mean, total, share"):
        rank(made([[1.0]], [True]), cache, by="median")
