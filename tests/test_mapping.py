"""The map of a cache: like lies near like, the same each time, and never of another SAE."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from explorer import mapping
from explorer.cache import Cache
from explorer.errors import CacheError, SaeError
from tests.helpers_cache import fake_cache

WORLD = Path(__file__).resolve().parents[1] / "cached_features" / "smollm2-135m"


def with_decoder(path: Path, n_features: int = 24, **options) -> Cache:
    """A made-up cache with an SAE of random directions beside it."""
    cache = Cache.open(fake_cache(path, n_features, **options))
    (path / "sae").mkdir()
    (path / "sae" / "cfg.json").write_text("{}")
    made = np.random.default_rng(n_features).normal(size=(n_features, 8)).astype(np.float32)
    save_file({"W_dec": made}, path / "sae" / "sae_weights.safetensors")
    return cache


def circle(directions: np.ndarray, **_) -> tuple[np.ndarray, str]:
    """A layout that takes no time."""
    turn = 2 * np.pi * np.arange(len(directions)) / len(directions)
    return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32), "circle"


def test_directions_of_one_bundle_lie_together_whatever_their_length_and_the_layout_is_the_same_again():
    rng = np.random.default_rng(0)
    middles = np.eye(3, 6)
    rows = np.repeat(middles, 8, axis=0) + 0.05 * rng.normal(size=(24, 6))
    rows *= 10 ** rng.uniform(-3, 3, (24, 1))  # cosine does not see lengths
    places, method = mapping.layout(rows.astype(np.float32), neighbours=5)
    assert (method, places.shape, places.dtype) == ("umap", (24, 2), np.float32)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    bundle = np.repeat(np.arange(3), 8)
    np.fill_diagonal(apart, np.inf)
    assert (bundle[apart.argmin(1)] == bundle).all()
    assert np.array_equal(mapping.layout(rows.astype(np.float32), neighbours=5)[0], places)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_handful_of_features_stands_on_a_circle(n: int):
    places, method = mapping.layout(np.ones((n, 4), np.float32))
    assert method == "circle"
    assert np.allclose(np.linalg.norm(places, axis=1), 1)
    assert len(np.unique(places.round(4), axis=0)) == n


def test_a_decoder_that_holds_no_numbers_is_refused():
    with pytest.raises(SaeError, match="no numbers"):
        mapping.layout(np.full((12, 4), np.nan, np.float32))


def test_a_map_is_read_as_it_was_written_with_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "layout", circle)
    cache = with_decoder(tmp_path / "cache")
    assert mapping.load(cache) is None
    assert mapping.make(cache, seed=7) == cache.path / "map.parquet"
    found = mapping.load(cache)
    assert found is not None
    assert np.array_equal(found.places, circle(np.ones((24, 8)))[0])
    assert (found.facts.sae_fingerprint, found.facts.seed, found.facts.metric) == ("s" * 64, 7, "cosine")
    assert pq.read_schema(cache.path / "map.parquet").names == ["feature", "x", "y"]
    Cache.open(cache.path)  # which is whole with it, and was without


def test_the_decoder_beside_the_cache_is_what_is_laid_out(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(mapping, "layout", lambda rows, **_: (seen.append(rows), circle(rows))[1])
    mapping.make(with_decoder(tmp_path / "cache"))
    assert np.array_equal(seen[0], np.random.default_rng(24).normal(size=(24, 8)).astype(np.float32))


def test_a_map_of_another_sae_and_a_damaged_one_are_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "layout", circle)
    cache = with_decoder(tmp_path / "cache")
    other = with_decoder(tmp_path / "other", sae_fingerprint="t" * 64)
    shutil.copy(mapping.make(other), cache.path)
    with pytest.raises(CacheError, match=r"tttttttttttt.*ssssssssssss.*persona-explorer map"):
        mapping.load(cache)
    shutil.copy(mapping.make(with_decoder(tmp_path / "wider", 30)), cache.path)
    with pytest.raises(CacheError, match="does not give each of 24 features one place"):
        mapping.load(cache)
    for raw in (b"", b"PAR1 and then nothing", pq_without_facts(tmp_path)):
        (cache.path / "map.parquet").write_bytes(raw)
        with pytest.raises(CacheError, match=r"map.parquet cannot be read.*again"):
            mapping.load(cache)


def pq_without_facts(folder: Path) -> bytes:
    import pyarrow as pa

    pq.write_table(pa.table({"feature": [0], "x": [0.0], "y": [0.0]}), folder / "plain.parquet")
    return (folder / "plain.parquet").read_bytes()


def test_a_decoder_of_another_width_than_the_cache_is_refused_and_the_old_map_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "layout", circle)
    cache = with_decoder(tmp_path / "cache")
    before = mapping.make(cache).read_bytes()
    with pytest.raises(SaeError, match="23 features"):
        mapping.make(cache, directions=np.ones((23, 8), np.float32))
    monkeypatch.setattr("explorer.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(CacheError, match="cannot be written"):
        mapping.make(cache, seed=1)
    assert [path.read_bytes() for path in cache.path.glob("*map*")] == [before]


def test_thinning_keeps_what_it_is_told_to_and_draws_the_rest_the_same_each_time():
    keep = np.array([3, 999, 500])
    chosen = mapping.thinned(1000, keep, 100)
    assert len(chosen) == 100
    assert set(keep) <= set(chosen)
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, mapping.thinned(1000, keep, 100))
    assert not np.array_equal(chosen, mapping.thinned(1000, keep, 100, seed=1))
    assert np.array_equal(mapping.thinned(100, keep[:1], 100), np.arange(100))
    many = np.arange(0, 1000, 2)
    assert set(mapping.thinned(1000, many, 100)) <= set(many)


def test_the_layout_s_library_is_loaded_only_where_a_layout_is_made():
    code = (
        "import sys, explorer.mapping, numpy as np\nassert 'umap' not in sys.modules\n"
        "explorer.mapping.layout(np.ones((4, 3)))\nassert 'numba' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=WORLD.parents[1], check=False).returncode == 0


def test_the_bundled_map_is_of_the_bundled_sae_and_near_features_are_near_on_it():
    cache = Cache.open(WORLD)
    found = mapping.load(cache)
    assert found is not None
    assert found.facts.method == "umap"
    nearest = np.array([row[0] for row in cache.table.column("neighbours").to_pylist()])
    by_chance = np.random.default_rng(0).permutation(cache.n_features)
    apart = [np.linalg.norm(found.places - found.places[other], axis=1) for other in (nearest, by_chance)]
    assert np.median(apart[0]) < 0.25 * np.median(apart[1])
    assert json.loads((WORLD / "stamps.json").read_text())["map"]["files"].keys() == {"map.parquet"}
