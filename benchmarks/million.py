"""A cache of very many features with texts that look like language: made-up words, the common ones common, from a seed."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from explorer import schema
from explorer.cache import file_entry
from explorer.label_files import COLUMNS
from explorer.schema import EXAMPLE_COLUMNS, FEATURE_COLUMNS, Manifest, arrow_schema
from explorer.text import Vocabulary

WORDS, VOCABULARY, SNIPPETS, SPOKEN = 200_000, 49_152, 6, 16
"""Different words, tokens, snippets a feature, words a snippet."""
WINDOWS, LENGTH, EXAMPLES = 2_000, 128, schema.TOP_EXAMPLES + schema.INTERVALS * schema.INTERVAL_EXAMPLES
BLOCK = 50_000
_ONSETS = (
    "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m",
    "n", "p", "pl", "pr", "qu", "r", "s", "sh", "sl", "sp", "st", "t", "th", "tr", "v", "w",
)  # fmt: skip
_MIDDLES = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou")
_ENDS = ("", "", "", "n", "r", "s", "t", "l", "nd", "ng", "st", "ck", "m")


@dataclass(frozen=True)
class Words:
    """What was written.

    Args:
        texts: The words, the commonest first; every feature has the very first.
        features, labels, each: How many features there are, how many labels, how many words of examples a feature has.
    """

    texts: list[str]
    features: int
    labels: int
    each: int


def spell(n: int, seed: int = 0) -> list[str]:
    """`n` different words that can be spoken; common ones are short, as in language."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        syllables = 1 + min(3, int(np.log10(1 + len(found) / 150)))
        parts = [tuple(part[rng.integers(len(part))] for part in (_ONSETS, _MIDDLES, _ENDS)) for _ in range(syllables)]
        found["".join("".join(part) for part in parts)] = None
    return list(found)


def write(
    path: Path, n_features: int, n_labels: int, seed: int = 0, n_words: int = WORDS, n_windows: int = WINDOWS
) -> tuple[Path, Words]:
    """A cache of the format; every part of it that search and Browse read looks as it does in life.

    Args:
        n_words, n_windows: Fewer make a small cache in a moment.
    Returns:
        Its folder, and its words.
    """
    rng = np.random.default_rng(seed)
    texts = spell(n_words)
    spelt = texts[:VOCABULARY]
    path.mkdir(parents=True)
    _features(path / schema.FEATURES, texts, n_features, rng)
    _examples(path / schema.EXAMPLES, n_features, n_windows, rng)
    _windows(path / schema.WINDOWS, n_windows, len(spelt), rng)
    Vocabulary([f" {text}".encode() for text in spelt], frozenset({0})).save(path / schema.TOKENS)
    names = (schema.FEATURES, schema.EXAMPLES, schema.WINDOWS, schema.TOKENS)
    files = {name: file_entry(path / name) for name in names}
    manifest = replace(_MANIFEST, n_features=n_features, windows=n_windows, documents=n_windows, files=files)
    (path / schema.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    with (path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for feature in rng.choice(n_features, n_labels, replace=False):
            label, note = (" ".join(texts[i] for i in _drawn(rng, n, n_words)) for n in (3, 8))
            rows.writerow((manifest.sae_fingerprint, feature, label, note, *[""] * (len(COLUMNS) - 4)))
    return path, Words(texts, n_features, n_labels, SNIPPETS * SPOKEN)


def _drawn(rng: np.random.Generator, n: int, words: int) -> np.ndarray:
    """Places of words, each as often as its rank says (Zipf and Mandelbrot)."""
    rise = np.cumsum(1 / (np.arange(words) + 2.7))
    return np.searchsorted(rise / rise[-1], rng.random(n))


def _lines(words: pa.Array, places: np.ndarray, each: int, between: str) -> pa.Array:
    """Texts of `each` words."""
    starts = pa.array(np.arange(0, len(places) + 1, each), pa.int32())
    lists = pa.ListArray.from_arrays(starts, words.take(pa.array(places)))
    return pc.binary_join(lists, between)  # type: ignore[attr-defined]


def _features(file: Path, texts: list[str], n_features: int, rng: np.random.Generator) -> None:
    wanted, words = arrow_schema(FEATURE_COLUMNS), pa.array(texts)
    with pq.ParquetWriter(file, wanted, compression="zstd") as writer:
        for first in range(0, n_features, BLOCK):
            n = min(BLOCK, n_features - first)
            places = _drawn(rng, n * SNIPPETS * SPOKEN, len(texts))
            places[:: SNIPPETS * SPOKEN] = 0  # the word that every feature has
            active = rng.integers(1, 50_000, n)
            most = (10 ** rng.uniform(0, 2, n)).astype(np.float32)
            known = {
                "index": np.arange(first, first + n, dtype=np.int32),
                "density": active / _MANIFEST.tokens_scored,
                "max": most,
                "mean_active": most / 3,
                "tokens_active": active,
                "title": _lines(words, rng.integers(100, len(texts), 3 * n), 3, " · "),
                "context": _lines(_lines(words, places, SPOKEN, " "), np.arange(n * SNIPPETS), SNIPPETS, "\n"),
                "promoted": _rows(rng.integers(0, min(VOCABULARY, len(texts)), n * 10), 10, pa.int32()),
            }
            columns = {f.name: known[f.name] if f.name in known else _plain(f.type, n) for f in wanted}
            writer.write_table(pa.table(columns, schema=wanted))


def _rows(values: np.ndarray, each: int, kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, each), pa.int32()), pa.array(values, kind))


def _plain(kind: pa.DataType, n: int) -> pa.Array:
    """Columns that no search reads."""
    if pa.types.is_list(kind):
        each = schema.HISTOGRAM_BINS if kind.value_type == pa.int64() else 10
        return _rows(np.ones(n * each), each, kind.value_type)
    return pa.array(np.ones(n), kind)


def _examples(file: Path, n_features: int, n_windows: int, rng: np.random.Generator) -> None:
    """As many examples in as many row groups as in life; they are alike in every group, which no reader can tell by its time."""
    each = schema.FEATURES_PER_ROW_GROUP
    n, wanted = each * EXAMPLES, arrow_schema(EXAMPLE_COLUMNS)
    positions = np.sort(rng.integers(0, LENGTH, (n, 6)), axis=1)
    known = {
        "rank": np.tile(np.arange(EXAMPLES), each),
        "kind": (["top"] * schema.TOP_EXAMPLES + ["interval"] * (EXAMPLES - schema.TOP_EXAMPLES)) * each,
        "window": rng.integers(0, n_windows, n),
        "peak": positions[:, 0],
        "positions": _rows(positions.ravel(), 6, pa.uint16()),
        "values": _rows(schema.rounded(rng.random(n * 6)), 6, pa.float32()),
    }
    columns = {f.name: pa.array(known[f.name], f.type) if f.name in known else _plain(f.type, n) for f in wanted}
    packing: Any = {"compression": "zstd", "use_dictionary": ["kind"]}  # the stubs know no list of columns
    with pq.ParquetWriter(file, wanted, **packing) as writer:
        for first in range(0, n_features, each):
            features = np.repeat(np.arange(first, first + each, dtype=np.int32), EXAMPLES)
            here = pa.table({**columns, "feature": features}, schema=wanted)
            writer.write_table(here.slice(0, min(each, n_features - first) * EXAMPLES))


def _windows(file: Path, n_windows: int, n_tokens: int, rng: np.random.Generator) -> None:
    from safetensors.numpy import save_file

    save_file(
        {
            "tokens": _drawn(rng, n_windows * LENGTH, n_tokens).astype(np.uint16),
            "starts": np.arange(n_windows + 1, dtype=np.int64) * LENGTH,
            "document": np.arange(n_windows, dtype=np.int32),
            "offset": np.zeros(n_windows, np.int32),
            "scored": np.ones(n_windows * LENGTH, np.uint8),
            "flagged": np.zeros(n_windows, np.uint8),
        },
        file,
    )


_MANIFEST = Manifest(
    model="random", model_fingerprint="0" * 64, sae="random", sae_fingerprint="1" * 64, architecture="topk", n_features=0,
    hook_point="blocks.0.hook_resid_post", dtype="float32", corpus="random", corpus_sha256="0" * 64, documents=WINDOWS,
    windows=WINDOWS, tokens_seen=10_000_000, tokens_scored=10_000_000, tokens_excluded={}, sink_factor=3.0, median_norm=1.0,
    context_size=LENGTH,
)  # fmt: skip
