"""A feature cache: one folder with everything that browsing needs, and nothing that needs the model.

A build writes beside the folder and moves its files in at the end, manifest.json last. Without a manifest there is no
cache, so a build that was killed leaves either the old cache or none; files that a build did not make (labels, presets,
a recipe) stay where they are.
"""

import hashlib
import json
import os
import shutil
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from explorer.errors import CacheError
from explorer.files import map_safetensors
from explorer.records import Example, Feature
from explorer.schema import (
    EXAMPLE_COLUMNS,
    EXAMPLES,
    FEATURE_COLUMNS,
    FEATURES,
    FEATURES_PER_ROW_GROUP,
    MANIFEST,
    QUANTILES,
    TOKENS,
    WINDOW_ARRAYS,
    WINDOWS,
    Manifest,
    arrow_schema,
)
from explorer.text import Vocabulary

if TYPE_CHECKING:
    import pandas as pd

TABLES = (FEATURES, EXAMPLES, WINDOWS, TOKENS)
_LEVEL = 12  # of zstd: the bundled cache travels with the code
_REBUILD = "Build the cache again with persona-explorer build"


class Cache:
    """A feature cache opened for reading; threads may share it.

    Open one with `Cache.open`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest, self.name = path, manifest, path.name
        self._lock = threading.Lock()  # Arrow's Parquet reader is not made for several threads

    @classmethod
    def open(cls, path: str | Path) -> "Cache":
        """Open a cache.

        The manifest and the sizes of the files are checked here; `explorer.check` reads the checksums too.

        Raises:
            CacheError: If there is no cache, it is incomplete, or it has another format version.
        """
        path = Path(path)
        manifest = path / MANIFEST
        if not manifest.is_file():
            what = "There is no finished feature cache" if path.is_dir() else "There is no folder"
            raise CacheError(
                f"{what} at {path}", expected=f"a folder with {MANIFEST}", do="persona-explorer build makes one"
            )
        try:
            said = manifest.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CacheError(f"{manifest} cannot be read ({error})", expected="JSON in UTF-8", do=_REBUILD) from error
        found = Manifest.from_json(said, path)
        for name in TABLES:
            if name not in found.files:
                raise CacheError(f"The manifest of {path} does not list {name}", do=_REBUILD)
        for name, entry in found.files.items():
            file = path / name
            if not file.is_file():
                raise CacheError(f"{file} is missing", expected="every file that the manifest lists", do=_REBUILD)
            if file.stat().st_size != entry["bytes"]:
                raise CacheError(
                    f"{file} has {file.stat().st_size:,} bytes",
                    expected=f"{entry['bytes']:,}, as the manifest says",
                    do=_REBUILD,
                )
        return cls(path.resolve(), found)

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r}, {self.n_features:,} features)"

    @property
    def n_features(self) -> int:
        return self.manifest.n_features

    @property
    def bundled_labels(self) -> Path | None:
        """The labels that came with the cache, if any."""
        path = self.path / "labels.csv"
        return path if path.is_file() else None

    @property
    def presets(self) -> Path | None:
        """The steering presets that came with the cache, if any."""
        path = self.path / "presets.toml"
        return path if path.is_file() else None

    @property
    def sae_folder(self) -> Path | None:
        """The SAE that came with the cache, if any."""
        path = self.path / "sae"
        return path if (path / "cfg.json").is_file() else None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the model's token ids stand for."""
        return Vocabulary.load(self.path / TOKENS)

    @cached_property
    def table(self) -> pa.Table:
        """features.parquet, whole: row i is feature i."""
        table = self._read(lambda: pq.read_table(self.path / FEATURES), FEATURES)
        missing = [c.name for c in FEATURE_COLUMNS if c.name not in table.column_names]
        if missing or table.num_rows != self.n_features:
            raise CacheError(
                f"{self.path / FEATURES} has {table.num_rows:,} rows and lacks {', '.join(missing) or 'no column'}",
                expected=f"{self.n_features:,} rows and every column of format {self.manifest.format}",
                do=_REBUILD,
            )
        return table.combine_chunks()

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a feature with its plain numbers and texts, without the lists; the index is the feature's."""
        plain = [c.name for c in FEATURE_COLUMNS if not pa.types.is_list(c.type)]
        return self.table.select(plain).to_pandas().set_index("index", drop=False)

    @cached_property
    def maxima(self) -> dict[int, float]:
        """Feature -> its largest activation in the corpus, what strength 1 stands for."""
        return dict(enumerate(self.table.column("max").to_pylist()))

    @cached_property
    def live(self) -> list[int]:
        """The features that fire at least once in the corpus."""
        return np.flatnonzero(self.table.column("tokens_active").to_numpy()).tolist()

    @cached_property
    def promoted(self) -> pa.Array:
        """The promoted tokens of every feature as one text each, for searching."""
        spelt = pa.array([self.vocabulary.text([token]) for token in range(len(self.vocabulary))], pa.string())
        column = self.table.column("promoted")
        lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        words = spelt.take(lists.flatten())
        return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, words), " ")  # type: ignore[attr-defined]

    def feature(self, index: int) -> Feature:
        """The statistics of a feature.

        Raises:
            CacheError: If the SAE has no such feature.
        """
        row: dict[str, Any] = self.table.slice(self._checked(index), 1).to_pylist()[0]

        def pairs(ids: str, values: str) -> tuple[tuple[int, float], ...]:
            return tuple(zip(row[ids], row[values], strict=True))

        return Feature(
            index=row["index"],
            density=row["density"],
            max=row["max"],
            mean_active=row["mean_active"],
            tokens_active=row["tokens_active"],
            documents_active=row["documents_active"],
            title=row["title"],
            quantiles={q: row[f"q{q * 100:.0f}"] for q in QUANTILES},
            histogram=tuple(row["histogram"]),
            promoted=pairs("promoted", "promoted_logits"),
            suppressed=pairs("suppressed", "suppressed_logits"),
            neighbours=pairs("neighbours", "neighbours_cosine"),
            coactive=pairs("coactive", "coactive_jaccard"),
        )

    def examples(self, index: int, kind: str | None = None) -> list[Example]:
        """The examples of a feature in order of rank.

        Args:
            index: The feature.
            kind: "top", "interval", or None for both.
        Raises:
            CacheError: If the SAE has no such feature, or the file is damaged.
        """
        rows = self._example_rows([index])
        start, stop = np.searchsorted(rows.column("feature").to_numpy(), [index, index + 1])
        found = rows.slice(start, stop - start).to_pylist()
        return [self._example(row) for row in found if kind is None or row["kind"] == kind]

    def strongest(self, features: Sequence[int]) -> list[Example | None]:
        """For each feature the example in which it fires most; None where it never does. For lists: what they need is read at once.

        Raises:
            CacheError: As `examples`.
        """
        rows = self._example_rows(features)
        places = np.searchsorted(rows.column("feature").to_numpy(), features)
        first = (
            rows.take(np.minimum(places, len(rows) - 1)).to_pylist() if len(rows) else [{"feature": -1}] * len(places)
        )
        return [
            self._example(row) if row["feature"] == feature and row["kind"] == "top" else None
            for feature, row in zip(features, first, strict=True)
        ]

    def _example_rows(self, features: Sequence[int]) -> pa.Table:
        """The rows of some features, in order, with those that lie beside them in the file."""
        groups = sorted({bisect_right(self._first_features, self._checked(index)) - 1 for index in features} - {-1})
        if not groups:
            return arrow_schema(EXAMPLE_COLUMNS).empty_table()
        with self._lock:
            return self._read(lambda: self._example_file.read_row_groups(groups), EXAMPLES)

    def _example(self, row: dict[str, Any]) -> Example:
        window = row["window"]
        start, stop = (int(at) for at in self.windows["starts"][window : window + 2])
        acts = [0.0] * (stop - start)
        for position, value in zip(row["positions"], row["values"], strict=True):
            acts[position] = value
        return Example(
            feature=row["feature"],
            rank=row["rank"],
            kind=row["kind"],
            interval=row["interval"],
            window=window,
            document=int(self.windows["document"][window]),
            offset=int(self.windows["offset"][window]),
            tokens=tuple(self.windows["tokens"][start:stop].tolist()),
            acts=tuple(acts),
            scored=tuple((self.windows["scored"][start:stop] > 0).tolist()),
            peak=row["peak"],
            flagged=bool(self.windows["flagged"][window]),
        )

    @cached_property
    def _example_file(self) -> pq.ParquetFile:
        return self._read(lambda: pq.ParquetFile(self.path / EXAMPLES, memory_map=True), EXAMPLES)

    @cached_property
    def _first_features(self) -> list[int]:
        """The first feature of each row group of examples.parquet."""
        metadata = self._example_file.metadata
        return [metadata.row_group(g).column(0).statistics.min for g in range(metadata.num_row_groups)]

    @cached_property
    def windows(self) -> dict[str, np.ndarray]:
        """The arrays of windows.safetensors; they stay on disk until they are looked at."""
        arrays = self._read(lambda: map_safetensors(self.path / WINDOWS), WINDOWS)
        if missing := WINDOW_ARRAYS.keys() - arrays.keys():
            raise CacheError(f"{self.path / WINDOWS} lacks {', '.join(sorted(missing))}", do=_REBUILD)
        return arrays

    def _read(self, read: Any, name: str) -> Any:
        try:
            return read()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise CacheError(f"{self.path / name} cannot be read ({reason})", do=_REBUILD) from error

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.n_features:
            raise CacheError(f"There is no feature {index} in {self.name}", expected=f"0 to {self.n_features - 1}")
        return index

    def require(self, *, model: tuple[str, str] | None = None, sae: tuple[str, str] | None = None) -> None:
        """Refuse a model or an SAE that the cache was not made with.

        Args:
            model, sae: (name, fingerprint) of the one at hand.
        Raises:
            CacheError: Naming both sides, if a fingerprint differs.
        """
        made = self.manifest
        sides = [
            ("model", model, (made.model, made.model_fingerprint)),
            ("SAE", sae, (made.sae, made.sae_fingerprint)),
        ]
        for what, given, wanted in sides:
            if given is not None and given[1] != wanted[1]:
                raise CacheError(
                    f"The {what} at hand is {given[0]} ({given[1][:12]})",
                    expected=f"{wanted[0]} ({wanted[1][:12]}), with which {self.name} was built",
                    do=f"Load that {what}, or build a cache for this one",
                )


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file: its sha256 and its size in bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


def write_cache(
    out: Path,
    manifest: Manifest,
    features: Mapping[str, Any],
    examples: Mapping[str, Any],
    windows: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    *,
    sae: Path | None = None,
) -> None:
    """Write a cache whole, or leave what was there.

    Args:
        out: The cache's folder; files in it that are not ours stay.
        manifest: Without `files`, which are added here.
        features: One entry a column of `FEATURE_COLUMNS`.
        examples: One entry a column of `EXAMPLE_COLUMNS`, sorted by (feature, rank).
        windows: The arrays of `WINDOW_ARRAYS`.
        vocabulary: Of the model.
        sae: A SAELens folder to copy into the cache.
    Raises:
        CacheError: If the folder cannot be written.
    """
    partial = out.parent / f".{out.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_tables(partial, features, examples)
        save_file({name: np.ascontiguousarray(windows[name]) for name in WINDOW_ARRAYS}, partial / WINDOWS)
        vocabulary.save(partial / TOKENS)
        if sae is not None:
            shutil.copytree(sae, partial / "sae", ignore=shutil.ignore_patterns(".*"))
        files = {p.relative_to(partial).as_posix(): file_entry(p) for p in sorted(partial.rglob("*")) if p.is_file()}
        (partial / MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")
        _move_in(partial, out, [*files, MANIFEST])
    except OSError as error:
        raise CacheError(
            f"{out} cannot be written ({error})", do="Free space or choose another folder, and run again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_tables(folder: Path, features: Mapping[str, Any], examples: Mapping[str, Any]) -> None:
    schema = arrow_schema(FEATURE_COLUMNS)
    table = pa.table({f.name: features[f.name] for f in schema}, schema=schema)
    pq.write_table(table, folder / FEATURES, compression="zstd", compression_level=_LEVEL)
    schema = arrow_schema(EXAMPLE_COLUMNS)
    table = pa.table({f.name: examples[f.name] for f in schema}, schema=schema)
    groups = table.column("feature").to_numpy() // FEATURES_PER_ROW_GROUP
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    floats = ["value", "values.list.element"]
    packing: Any = {"use_dictionary": ["kind"], "use_byte_stream_split": floats, "compression_level": _LEVEL}
    with pq.ParquetWriter(folder / EXAMPLES, schema, compression="zstd", **packing) as writer:
        for start, stop in zip(starts, [*starts[1:], len(groups)], strict=True):
            writer.write_table(table.slice(start, stop - start))


def _move_in(partial: Path, out: Path, names: list[str]) -> None:
    """Put the files of a finished build in place, the manifest last."""
    for name in names:
        with (partial / name).open("rb") as file:
            os.fsync(file.fileno())
    out.mkdir(parents=True, exist_ok=True)
    former = _listed(out)
    (out / MANIFEST).unlink(missing_ok=True)
    for name in former - set(names):  # such as the SAE of a cache that now names one elsewhere
        (out / name).unlink(missing_ok=True)
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / name, out / name)


def _listed(folder: Path) -> set[str]:
    """The files that a cache's manifest lists; none where there is no cache, or none that can be read."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {name for name in listed if not Path(name).is_absolute() and ".." not in Path(name).parts}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
