"""Corpus to cache: what is written is what the model and the SAE say, and a killed build goes on."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import build as building
from explorer import titles
from explorer.build import build
from explorer.cache import Cache
from explorer.corpus import chunks
from explorer.errors import CacheError, CorpusError, SaeError
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> SparseCoder:
    return SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("saes") / "sae"))


@pytest.fixture(scope="module")
def documents(model: LanguageModel) -> list[Document]:
    chats = [
        [{"role": "user", "content": a}, {"role": "assistant", "content": f"{b} {n}"}]
        for n, a in enumerate(TEXT * 3)
        for b in TEXT
    ]
    return [model.text_document(t) for t in TEXT] + [model.chat_document(chat) for chat in chats]


@pytest.fixture(scope="module")
def cache(model, coder, documents, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(
        build(model, coder, documents, tmp_path_factory.mktemp("caches") / "tiny", corpus="texts", context_size=32)
    )


def dense(model: LanguageModel, coder: SparseCoder, tokens: tuple[int, ...]) -> torch.Tensor:
    return coder.encode(model.activations(torch.tensor([tokens]), coder.hook_point))[0]


def test_cached_activations_equal_live_ones_at_every_scored_token(model, coder, cache: Cache):
    checked = 0
    for feature in range(coder.n_features):
        for example in cache.examples(feature):
            live = dense(model, coder, example.tokens)[:, feature].numpy()
            scored = np.array(example.scored)
            np.testing.assert_allclose(np.array(example.acts)[scored], live[scored], rtol=2**-11, atol=1e-4)
            assert not np.array(example.acts)[~scored].any()
            checked += 1
    assert checked > 100


def test_maximum_density_and_mean_equal_brute_force_over_the_scored_tokens(model, coder, documents, cache: Cache):
    values = []
    for document in documents:
        content = {i for a, b in document.content for i in range(a, b)}
        for start in range(0, len(document.tokens), 32):
            window = document.tokens[start : start + 32]
            keep = [i for i in range(1, len(window)) if start + i in content]
            values.append(dense(model, coder, window)[keep])
    acts = torch.cat(values)
    assert cache.manifest.tokens_scored == len(acts)
    assert cache.manifest.tokens_scored + sum(cache.manifest.tokens_excluded.values()) == cache.manifest.tokens_seen
    for index in range(coder.n_features):
        feature, column = cache.feature(index), acts[:, index]
        assert feature.tokens_active == int((column > 0).sum())
        assert feature.density == pytest.approx((column > 0).float().mean().item(), rel=1e-5)
        assert feature.max == pytest.approx(column.max().item(), rel=1e-4)
        if feature.tokens_active:
            assert feature.mean_active == pytest.approx(column[column > 0].mean().item(), rel=1e-4)
            assert sum(feature.histogram) == feature.tokens_active
            assert max(e.value for e in cache.examples(index, "top")) == pytest.approx(feature.max, rel=2**-11)


def test_top_examples_peak_on_evidence_come_from_distinct_documents_and_do_not_repeat(cache: Cache):
    for index in range(cache.n_features):
        top = cache.examples(index, "top")
        assert all(e.scored[e.peak] and e.acts[e.peak] == max(e.acts) for e in top)
        assert len({e.document for e in top}) == len(top)
        assert [e.value for e in top] == sorted((e.value for e in top), reverse=True)


def test_no_two_examples_of_a_feature_say_the_same_up_to_the_peak(cache: Cache):
    for index in range(cache.n_features):
        examples = cache.examples(index)
        assert len({e.tokens[max(0, e.peak - 7) : e.peak + 1] for e in examples}) == len(examples)


def test_interval_examples_lie_in_their_fifth_of_the_range(cache: Cache):
    for index in range(cache.n_features):
        fifth, rounding = cache.feature(index).max / 5, 1 + 2**-11
        for example in cache.examples(index, "interval"):
            assert example.interval * fifth < example.value * rounding
            assert example.value <= (example.interval + 1) * fifth * rounding


def test_promoted_tokens_and_neighbours_equal_brute_force(model, coder, cache: Cache):
    effects = model.unembedding() @ coder.directions().T
    special = list(model.vocabulary.special)
    unit = torch.nn.functional.normalize(coder.directions(), dim=1)
    for index in range(coder.n_features):
        feature, column = cache.feature(index), effects[:, index].clone()
        column[special] = -torch.inf
        assert feature.promoted[0][1] == pytest.approx(column.max().item(), rel=1e-4)
        assert feature.suppressed[0][1] < 0 < feature.promoted[0][1]
        cosine = unit @ unit[index]
        cosine[index] = -1
        assert feature.neighbours[0][0] == int(cosine.argmax())
        assert feature.neighbours[0][1] == pytest.approx(cosine.max().item(), rel=1e-4)


def test_a_killed_build_goes_on_and_ends_as_it_would_have_ended(model, coder, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_STATE_EVERY", 1)
    monkeypatch.setattr(
        building,
        "chunks",
        lambda docs, special, context_size: chunks(docs, special, context_size=context_size, windows=8),
    )
    from explorer.corpus import chunks

    whole = build(model, coder, documents, tmp_path / "whole", context_size=32)

    class Killed(Exception):
        pass

    calls: list[int] = []

    def die(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise Killed

    with pytest.raises(Killed):
        build(model, coder, documents, tmp_path / "cut", context_size=32, progress=die)
    assert not (tmp_path / "cut").exists()
    (tmp_path / ".cut.work" / "state.json.partial").write_text("{half")
    seen: list[int] = []
    cut = build(model, coder, documents, tmp_path / "cut", context_size=32, progress=lambda d, t: seen.append(d))
    assert seen[0] > calls[-1]
    for name in ("features.parquet", "examples.parquet", "windows.safetensors", "tokens.parquet"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    one, two = (json.loads((p / "manifest.json").read_text()) for p in (cut, whole))
    assert {k: v for k, v in one.items() if k != "created"} == {k: v for k, v in two.items() if k != "created"}


def half_built(model, coder, documents, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the noted state of a build that was cut off."""
    monkeypatch.setattr(building, "_STATE_EVERY", 1)
    monkeypatch.setattr(building, "chunks", partial(chunks, windows=8))

    class Cut(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        build(model, coder, documents, out, context_size=32, progress=stop)


def test_the_unfinished_build_of_another_corpus_is_refused_or_begun_afresh(
    model, coder, documents, tmp_path, monkeypatch
):
    half_built(model, coder, documents, tmp_path / "tiny", monkeypatch)
    other = documents[::-1]
    with pytest.raises(CacheError, match="another corpus"):
        build(model, coder, other, tmp_path / "tiny", context_size=32)
    made = Cache.open(build(model, coder, other, tmp_path / "tiny", context_size=32, resume=False))
    whole = Cache.open(build(model, coder, other, tmp_path / "whole", context_size=32))
    assert made.manifest.corpus_sha256 == whole.manifest.corpus_sha256


def test_an_sae_of_which_no_feature_fires_is_refused_in_words(model, coder, documents, tmp_path):
    class Silent:
        def __getattr__(self, name: str):
            return getattr(coder, name)

        def encode(self, resid: torch.Tensor) -> torch.Tensor:
            return coder.encode(resid) * 0

    with pytest.raises(SaeError, match="No feature"):
        build(model, Silent(), documents, tmp_path / "tiny", context_size=32)  # pyright: ignore[reportArgumentType]


def test_files_of_the_former_cache_do_not_stay(model, coder, documents, tmp_path):
    out = build(model, coder, documents, tmp_path / "tiny", context_size=32)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "old.bin").write_bytes(b"old")
    (out / "mine.txt").write_text("mine")
    manifest["files"]["old.bin"] = {"sha256": "", "bytes": 3}
    (out / "manifest.json").write_text(json.dumps(manifest))
    build(model, coder, documents, out, context_size=32)
    assert not (out / "old.bin").exists()
    assert (out / "mine.txt").exists()


def test_a_corpus_without_evidence_is_refused_and_the_old_cache_stays(model, coder, documents, tmp_path):
    out = build(model, coder, documents, tmp_path / "tiny", context_size=32)
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(CorpusError, match="No token of the corpus"):
        build(model, coder, [Document((1, 2), ())], out, context_size=32)
    assert (out / "manifest.json").read_bytes() == before


def test_a_title_tells_the_words_a_feature_fires_on_or_promotes(cache: Cache):
    assert titles.title(["cruel", "Cruel", "mean", "x"], ["a"]) == "cruel · mean · x"
    assert titles.title([str(n) for n in range(20)], ["sure", "great", "sure"]) == "→ sure · great"
    assert titles.title([], ["sure"]) == ""
    assert Path(cache.path).name == "tiny"
