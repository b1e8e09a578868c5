import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from explorer.cache import Cache
from explorer.errors import CacheError
from explorer.files import map_safetensors
from explorer.schema import EXAMPLE_COLUMNS, FEATURE_COLUMNS, MANIFEST, WINDOW_ARRAYS, rounded
from tests.helpers_cache import HOSTILE, fake_cache


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cache(tmp_path_factory.mktemp("caches") / "tiny", 70)


def test_every_feature_and_its_examples_can_be_read(path: Path) -> None:
    cache = Cache.open(path)
    for index in range(cache.n_features):
        feature = cache.feature(index)
        examples = cache.examples(index)
        assert feature.index == index
        assert sum(feature.histogram) == feature.tokens_active
        assert len(examples) == (0 if feature.dead else 44)
        for rank, example in enumerate(examples):
            assert (example.feature, example.rank) == (index, rank)
            assert len(example.tokens) == len(example.acts) == len(example.scored)
            assert example.value == max(example.acts) > 0
            assert example.scored[example.peak]


def test_top_and_interval_examples_can_be_asked_for_apart(path: Path) -> None:
    cache = Cache.open(path)
    assert {e.interval for e in cache.examples(1, "top")} == {-1}
    assert [e.interval for e in cache.examples(1, "interval")] == [k for k in range(5) for _ in range(4)]


def test_the_strongest_example_is_the_first_and_a_silent_feature_has_none(path: Path) -> None:
    cache, expected = Cache.open(path), []
    for index in range(cache.n_features):
        first = next(iter(cache.examples(index, "top")), None)
        assert cache.strongest([index]) == [first]
        expected.append(first)
    shuffled = np.random.default_rng(0).permutation(cache.n_features).tolist()
    assert cache.strongest(shuffled) == [expected[index] for index in shuffled]
    assert cache.strongest([]) == []
    assert None in expected


def test_frame_has_one_row_a_feature(path: Path) -> None:
    frame = Cache.open(path).frame
    assert len(frame) == 70
    assert frame.loc[3, "title"] == HOSTILE[0].decode()


@pytest.mark.parametrize("index", [-1, 70])
def test_a_feature_that_does_not_exist_is_refused(path: Path, index: int) -> None:
    with pytest.raises(CacheError, match=f"no feature {index} in tiny. expected 0 to 69"):
        Cache.open(path).feature(index)


def test_opening_and_reading_needs_no_torch(path: Path) -> None:
    code = (
        "import sys; from explorer.cache import Cache;"
        "c = Cache.open(sys.argv[1]); c.feature(1); c.examples(1); c.vocabulary;"
        "bad = {'torch', 'transformers', 'streamlit'} & sys.modules.keys(); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_cache_opens_in_under_half_a_second_and_a_feature_in_under_fifty_milliseconds(path: Path) -> None:
    start = time.perf_counter()
    cache = Cache.open(path)
    cache.feature(0), cache.examples(0)
    assert time.perf_counter() - start < 0.5
    start = time.perf_counter()
    cache.feature(40), cache.examples(40)
    assert time.perf_counter() - start < 0.05


def test_no_folder_and_no_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="There is no folder at"):
        Cache.open(tmp_path / "nothing")
    with pytest.raises(CacheError, match="There is no finished feature cache at"):
        Cache.open(tmp_path)


def test_another_format_version_is_refused_by_number(tmp_path: Path) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    manifest = json.loads((cache / MANIFEST).read_text())
    (cache / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(CacheError, match=r"has cache format 99\. expected format 1\. Update"):
        Cache.open(cache)


@pytest.mark.parametrize(
    ("name", "value"), [("model", [1]), ("hook_point", None), ("n_features", "many"), ("versions", 5)]
)
def test_a_manifest_with_something_else_in_a_field_is_refused_by_its_name(
    tmp_path: Path, name: str, value: object
) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    manifest = json.loads((cache / MANIFEST).read_text())
    (cache / MANIFEST).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(CacheError, match=rf"as its {name}\. Build the cache again"):
        Cache.open(cache)


def test_a_manifest_too_deep_to_be_read_is_refused(tmp_path: Path) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    (cache / MANIFEST).write_text("[" * 200_000)
    with pytest.raises(CacheError, match="is no JSON"):
        Cache.open(cache)


def test_a_missing_or_shortened_file_is_named(tmp_path: Path) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    file = cache / "examples.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(CacheError, match=r"examples\.parquet has .* bytes"):
        Cache.open(cache)
    file.unlink()
    with pytest.raises(CacheError, match=r"examples\.parquet is missing"):
        Cache.open(cache)


def test_a_damaged_file_of_the_right_size_is_an_error_in_words(tmp_path: Path) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    for name in ("features.parquet", "examples.parquet", "windows.safetensors", "tokens.parquet"):
        file = cache / name
        whole = file.read_bytes()
        file.write_bytes(os.urandom(len(whole)))
        opened = Cache.open(cache)
        with pytest.raises(CacheError, match=name):
            opened.feature(1), opened.examples(1), opened.vocabulary
        file.write_bytes(whole)


def test_another_model_or_sae_is_refused_naming_both_sides(path: Path) -> None:
    cache = Cache.open(path)
    cache.require(model=("tiny-model", "m" * 64), sae=("tiny-sae", "s" * 64))
    with pytest.raises(
        CacheError, match=r"model at hand is other \(xxxxxxxxxxxx\)\. expected tiny-model \(mmmmmmmmmmmm\)"
    ):
        cache.require(model=("other", "x" * 64))
    with pytest.raises(CacheError, match=r"SAE at hand is other .* expected tiny-sae \(ssssssssssss\)"):
        cache.require(sae=("other", "x" * 64))


def test_writing_again_leaves_the_files_of_others_alone(tmp_path: Path) -> None:
    cache = fake_cache(tmp_path / "c", 8)
    (cache / "labels.csv").write_text("kept")
    fake_cache(cache, 9)
    assert Cache.open(cache).n_features == 9
    assert (cache / "labels.csv").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_write_that_fails_leaves_the_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fake_cache(tmp_path / "c", 8)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("explorer.cache.save_file", full)
    with pytest.raises(CacheError, match="No space left on device"):
        fake_cache(cache, 9)
    assert Cache.open(cache).n_features == 8
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_mapped_arrays_are_those_of_the_safetensors_library(path: Path) -> None:
    from safetensors.numpy import load_file

    file = path / "windows.safetensors"
    mapped, loaded = map_safetensors(file), load_file(file)
    assert mapped.keys() == loaded.keys() == WINDOW_ARRAYS.keys()
    for name, array in loaded.items():
        np.testing.assert_array_equal(mapped[name], array)


@pytest.mark.parametrize("column", [*FEATURE_COLUMNS, *EXAMPLE_COLUMNS], ids=lambda c: c.name)
def test_every_column_is_explained_and_stands_in_the_file(path: Path, column) -> None:
    import pyarrow.parquet as pq

    schema = pq.read_schema(path / ("features.parquet" if column in FEATURE_COLUMNS else "examples.parquet"))
    assert column.help.endswith(".")
    assert schema.field(column.name).type == column.type


def test_rounded_activations_are_within_half_a_unit_of_the_11th_bit_and_pack_smaller():
    values = np.exp(np.random.default_rng(0).normal(0, 6, 10_000)).astype(np.float32)
    kept = rounded(values)
    assert kept.dtype == np.float32
    assert np.abs(kept / values - 1).max() <= 2**-11
    assert (rounded(kept) == kept).all()
    assert (kept.view(np.uint32) & 0x1FFF == 0).all()
    assert rounded(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
