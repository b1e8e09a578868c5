"""Spans on which features are silent, checked against the model window by window."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from explorer.build import build
from explorer.cache import Cache
from explorer.errors import CacheError, UsageError
from explorer.sae import SparseCoder
from explorer.silence import Found, find
from explorer.snippets import NEAR_MISS, NEGATIVES, RANDOM, held_out, span
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae_folder


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Any:
    coder = SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("saes") / "sae", n_features=256))
    return SimpleNamespace(model=tiny_model(tmp_path_factory.mktemp("models")), coder=coder)


@pytest.fixture(scope="module")
def cache(live, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    texts = [" ".join(TEXT[(n + k) % 4] for k in range(4)) + f" {n}" for n in range(40)]
    documents = [live.model.text_document(text) for text in texts]
    path = tmp_path_factory.mktemp("caches") / "tiny"
    return Cache.open(build(live.model, live.coder, documents, path, corpus="texts", context_size=64))


@pytest.fixture(scope="module")
def found(cache, live) -> Found:
    return find(cache, live, sample=100)


def test_every_span_is_silent_for_the_live_model_and_every_near_miss_has_another_feature_at_its_peak(
    cache, live, found
):
    rows = pq.read_table(found.path).to_pylist()
    assert {row["kind"] for row in rows} == {NEAR_MISS, RANDOM}
    assert found.spans == len(rows) > 500
    assert found.again > 0.98
    for row in rows[::7]:
        start, stop = (int(at) for at in cache.windows["starts"][row["window"] : row["window"] + 2])
        tokens = torch.from_numpy(cache.windows["tokens"][start:stop].astype("int64"))[None]
        acts = live.coder.encode(live.model.activations(tokens, live.coder.hook_point))[0]
        scored = torch.from_numpy(cache.windows["scored"][start:stop] > 0)
        first, last = span(stop - start, row["peak"])
        within = acts[first:last][scored[first:last]]
        assert not (within[:, row["feature"]] > 0).any()
        assert scored[row["peak"]]
        if row["kind"] == NEAR_MISS:
            assert acts[row["peak"], row["other"]] > 0
            related = cache.feature(row["feature"])
            assert row["other"] in {i for i, _ in related.neighbours + related.coactive}
        else:
            assert row["other"] == -1


def test_no_feature_has_more_spans_than_wanted_nor_two_of_a_kind_from_one_window(found):
    rows = pq.read_table(found.path).to_pylist()
    for kind, most in ((NEAR_MISS, 4), (RANDOM, 8)):
        places = [(row["feature"], row["window"]) for row in rows if row["kind"] == kind]
        assert len(places) == len(set(places))
        assert max(sum(feature == f for f, _ in places) for feature in range(256)) <= most


def test_a_test_of_a_label_asks_about_these_spans(cache, found):
    kinds = {s.kind for feature in cache.live[:40] for s in held_out(cache, feature, seen=set()).snippets}
    assert RANDOM in kinds
    assert NEAR_MISS in kinds


def test_the_same_seed_finds_the_same_spans(cache, live, found):
    before = found.path.read_bytes()
    find(cache, live, sample=100)
    assert found.path.read_bytes() == before


def test_another_model_is_found_out_and_nothing_is_written(cache, live, found, tmp_path: Path):
    other: Any = SimpleNamespace(model=tiny_model(tmp_path, seed=1), coder=live.coder)
    before = (cache.path / NEGATIVES).read_bytes()
    with pytest.raises(CacheError, match="fire again"):
        find(cache, other, sample=100)
    assert (cache.path / NEGATIVES).read_bytes() == before


@pytest.mark.parametrize("asked", [{"sample": 0}, {"near": 0, "chance": 0}])
def test_asking_for_nothing_is_refused(cache, live, asked):
    with pytest.raises(UsageError):
        find(cache, live, **asked)
