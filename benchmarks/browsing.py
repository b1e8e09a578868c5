"""Opening caches and fetching what the feature page shows, without the model."""

import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import WORLD, figure, seconds
from explorer import schema
from explorer.cache import Cache, write_cache
from explorer.schema import EXAMPLE_COLUMNS, FEATURE_COLUMNS, Manifest
from explorer.text import Vocabulary

FEATURES, WINDOWS, LENGTH, VOCABULARY = 24_576, 40_000, 128, 49_152
EXAMPLES = schema.TOP_EXAMPLES + schema.INTERVALS * schema.INTERVAL_EXAMPLES
PAGES = 200


def measure() -> dict:
    assert "torch" not in sys.modules
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "large"
        write(path, FEATURES)
        opening = [seconds(lambda: Cache.open(path)) for _ in range(7)]
        cache = Cache.open(path)
        first = seconds(lambda: page(cache, 12_345))
        draw = random.Random(0)
        pages = [seconds(lambda: page(cache, draw.randrange(FEATURES))) for _ in range(PAGES)]
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    world = [seconds(lambda: Cache.open(WORLD)) for _ in range(7)]
    assert "torch" not in sys.modules
    shape = f"{FEATURES:,} features x {EXAMPLES} examples x {LENGTH} tokens, {size:.0f} MB"
    return {
        "feature_page_ms": figure(
            [1000 * t for t in pages],
            "ms",
            f"Statistics and every example with its tokens joined for display, {PAGES} random features; {shape}",
            at_most=50,
        ),
        "feature_page_first_ms": figure([1000 * first], "ms", f"The same for the first page after opening; {shape}"),
        "open_large_cache_ms": figure([1000 * t for t in opening], "ms", f"Cache.open; {shape}"),
        "open_world_ms": figure([1000 * t for t in world], "ms", "Cache.open on the bundled world", at_most=500),
    }


def page(cache: Cache, index: int) -> int:
    """What the feature page asks of the cache; the result keeps the work honest."""
    feature = cache.feature(index)
    units = [cache.vocabulary.units(example.tokens, example.acts) for example in cache.examples(index)]
    words = [cache.vocabulary.piece(token) for token, _ in feature.promoted + feature.suppressed]
    near = [cache.feature(other).title for other, _ in feature.neighbours + feature.coactive]
    return len(units) + len(words) + len(near)


def write(path: Path, n_features: int) -> None:
    """A cache of the format with random content."""
    rng = np.random.default_rng(0)

    def lists(rows: int, length: int, top: int, dtype: type) -> list[np.ndarray]:
        return list(rng.integers(0, top, (rows, length)).astype(dtype))

    makers = {
        "index": np.arange(n_features, dtype=np.int32),
        "title": [f"word {i}" for i in range(n_features)],
        "histogram": lists(n_features, schema.HISTOGRAM_BINS, 1000, np.int32),
    }
    features = {column.name: makers.get(column.name, _fill(rng, column, n_features)) for column in FEATURE_COLUMNS}
    rows = n_features * EXAMPLES
    positions = np.sort(rng.integers(0, LENGTH, (rows, 6)), axis=1).astype(np.uint16)
    kinds = ["top"] * schema.TOP_EXAMPLES + ["interval"] * (EXAMPLES - schema.TOP_EXAMPLES)
    intervals = [-1] * schema.TOP_EXAMPLES + [
        k for k in range(schema.INTERVALS) for _ in range(schema.INTERVAL_EXAMPLES)
    ]
    known = {
        "feature": np.repeat(np.arange(n_features, dtype=np.int32), EXAMPLES),
        "rank": np.tile(np.arange(EXAMPLES), n_features),
        "kind": kinds * n_features,
        "interval": np.tile(intervals, n_features),
        "window": rng.integers(0, WINDOWS, rows),
        "peak": positions[:, 0],
        "positions": list(positions),
        "values": list(rng.random((rows, 6), dtype=np.float32)),
    }
    examples = {column.name: known.get(column.name, _fill(rng, column, rows)) for column in EXAMPLE_COLUMNS}
    windows = {
        "tokens": rng.integers(0, VOCABULARY, WINDOWS * LENGTH).astype(np.uint16),
        "starts": np.arange(WINDOWS + 1, dtype=np.int64) * LENGTH,
        "document": np.arange(WINDOWS, dtype=np.int32),
        "offset": np.zeros(WINDOWS, dtype=np.int32),
        "scored": np.ones(WINDOWS * LENGTH, dtype=np.uint8),
        "flagged": np.zeros(WINDOWS, dtype=np.uint8),
    }
    vocabulary = Vocabulary([f" w{i}".encode() for i in range(VOCABULARY)], frozenset({0}))
    manifest = Manifest(
        model="random",
        model_fingerprint="0" * 64,
        sae="random",
        sae_fingerprint="0" * 64,
        architecture="topk",
        n_features=n_features,
        hook_point="blocks.0.hook_resid_post",
        dtype="float32",
        corpus="random",
        corpus_sha256="0" * 64,
        documents=WINDOWS,
        windows=WINDOWS,
        tokens_seen=WINDOWS * LENGTH,
        tokens_scored=WINDOWS * LENGTH,
        tokens_excluded={},
        sink_factor=3.0,
        median_norm=1.0,
        context_size=LENGTH,
    )
    write_cache(path, manifest, features, examples, windows, vocabulary)


def _fill(rng: np.random.Generator, column: schema.Column, rows: int):
    """Something of a column's type."""
    import pyarrow as pa

    if pa.types.is_list(column.type):
        inner = column.type.value_type
        if pa.types.is_integer(inner):
            return list(rng.integers(0, FEATURES, (rows, 10)).astype(inner.to_pandas_dtype()))
        return list(rng.random((rows, 10)).astype(inner.to_pandas_dtype()))
    if pa.types.is_boolean(column.type):
        return np.zeros(rows, dtype=bool)
    if pa.types.is_integer(column.type):
        return rng.integers(1, 100, rows).astype(column.type.to_pandas_dtype())
    if pa.types.is_floating(column.type):
        return rng.random(rows).astype(column.type.to_pandas_dtype())
    return ["text"] * rows


if __name__ == "__main__":
    print(json.dumps(measure()))
