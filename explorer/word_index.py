"""Which features have a word in their texts: words in order, each with its features, so that a beginning of a word is one slice.

SQLite's FTS5 would find them as fast, but hands its hits to Python one by one: a second for a word that a million features have.
"""

import hashlib
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from explorer.cache import Cache
from explorer.packaged import home
from explorer.schema import FEATURES

COLUMNS = ("title", "promoted", "context")
_VERSION = 1
_KEPT = 50_000  # features from which on an index is kept on disk; a smaller one is made in a moment
_BLOCK = 65_536  # texts that are taken apart at once: all words of a million would not fit into one Arrow array
_LAST = "\U0010ffff"
_known: "WeakKeyDictionary[Cache, WordIndex]" = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class WordIndex:
    """Words of some columns of text, and who has them.

    Args:
        words: All words in lower case, sorted.
        starts: Column -> `[words + 1]`: where in `holders` each word's features begin.
        holders: Column -> features, word by word.
    """

    words: pa.Array
    starts: Mapping[str, np.ndarray]
    holders: Mapping[str, np.ndarray]

    @classmethod
    def build(cls, texts: Mapping[str, Any]) -> "WordIndex":
        """Index columns of text, row i being feature i.

        Args:
            texts: Column -> Arrow strings; letters and digits of any script make words.
        """
        parts = {
            name: [_pairs(column.slice(start, _BLOCK), start) for start in range(0, len(column), _BLOCK)]
            for name, column in texts.items()
        }
        every = [spoken for blocks in parts.values() for spoken, _, _ in blocks]
        words = pc.unique(pa.concat_arrays([pa.array([], pa.string()), *every]))  # type: ignore[attr-defined]
        words = words.take(pc.sort_indices(words))  # type: ignore[attr-defined]
        starts, holders = {}, {}
        for name, blocks in parts.items():
            starts[name], holders[name] = _merged(words, blocks)
        return cls(words, starts, holders)

    def begins(self, column: str, piece: str) -> np.ndarray:
        """The features that have a word which begins so; one may come several times."""
        low, high = self._place(piece.lower()), self._place(piece.lower() + _LAST)
        starts = self.starts[column]
        return self.holders[column][starts[low] : starts[high]]

    def within(self, columns: Sequence[str], piece: str) -> list[np.ndarray]:
        """Column by column the features that have a word with these letters in it; one may come several times."""
        hits = np.flatnonzero(pc.match_substring(self.words, piece.lower()))  # type: ignore[attr-defined]
        return [self._holders(column, hits) for column in columns]

    def _holders(self, column: str, words: np.ndarray) -> np.ndarray:
        """The features of some words, which are given by their places."""
        starts, holders = self.starts[column], self.holders[column]
        first, counts = starts[words], starts[words + 1] - starts[words]
        if 4 * counts.sum() > len(holders):  # a letter or two: to leave some out takes less time than to gather most
            chosen = np.zeros(len(starts) - 1, bool)
            chosen[words] = True
            return holders[np.repeat(chosen, np.diff(starts))]
        before = np.cumsum(counts) - counts
        return holders[np.repeat(first - before, counts) + np.arange(counts.sum())]

    def _place(self, word: str) -> int:
        """How many words come before one."""
        low, high = 0, len(self.words)
        while low < high:
            middle = (low + high) // 2
            if self.words[middle].as_py() < word:
                low = middle + 1
            else:
                high = middle
        return low

    def save(self, folder: Path) -> None:
        """Write the index whole."""
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        feather.write_feather(pa.table({"word": self.words}), partial / "words.arrow", compression="uncompressed")
        for name in self.starts:
            np.save(partial / f"{name}-starts.npy", self.starts[name])
            np.save(partial / f"{name}-holders.npy", self.holders[name])
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: Path, columns: tuple[str, ...] = COLUMNS) -> "WordIndex":
        """Read what `save` wrote; the arrays stay on disk until they are looked at."""
        words = feather.read_table(folder / "words.arrow", memory_map=True).column("word").combine_chunks()
        arrays = [
            {name: np.load(folder / f"{name}-{part}.npy", mmap_mode="r") for name in columns}
            for part in ("starts", "holders")
        ]
        return cls(_array(words), *arrays)


def _pairs(texts: Any, first: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """The words of some texts, and each (place in those words, feature) once, in that order.

    Args:
        texts: Arrow strings.
        first: The feature of the first text.
    """
    split = _array(pc.split_pattern_regex(pc.utf8_lower(texts), r"[^\pL\pN]+"))  # type: ignore[attr-defined]
    coded = split.flatten().dictionary_encode()
    owner = pc.list_parent_indices(split).to_numpy()  # type: ignore[attr-defined]
    many, codes = max(1, len(split)), coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    empty = pc.index(coded.dictionary, "").as_py()  # type: ignore[attr-defined]
    said = codes != empty  # a text that begins or ends with no letter has an empty word there
    pairs = np.unique(codes[said] * many + owner[said])
    return coded.dictionary, (pairs // many).astype(np.int32), (pairs % many + first).astype(np.int32)


def _merged(words: Any, blocks: Sequence[tuple[Any, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of `_pairs`, which lie in order of their features, as one: where each word's features begin, and those."""
    places = [pc.index_in(spoken, words).to_numpy(zero_copy_only=False) for spoken, _, _ in blocks]  # type: ignore[attr-defined]
    counts = [np.bincount(codes, minlength=len(spoken)) for spoken, codes, _ in blocks]
    starts = np.zeros(len(words) + 1, np.int64)
    for place, count in zip(places, counts, strict=True):
        starts[place + 1] += count  # a word stands in a block's words once
    np.cumsum(starts, out=starts)
    holders, free = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for place, count, (_, codes, features) in zip(places, counts, blocks, strict=True):
        before = np.cumsum(count) - count  # of a word's first pair, in this block
        holders[(free[place] - before)[codes] + np.arange(len(codes))] = features
        free[place] += count
    return starts, holders


def _array(column: Any) -> Any:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def index(cache: Cache) -> WordIndex:
    """The index of a cache's own texts: made when first asked for; that of a large cache is kept in this program's home."""
    with _lock:
        known = _known.get(cache)
        if known is None:
            known = _known[cache] = _open(cache)
        return known


def indexed(cache: Cache) -> dict[str, Any]:
    """Column -> what is indexed of it, as Arrow strings."""
    return {"title": cache.table.column("title"), "promoted": cache.promoted, "context": cache.table.column("context")}


def _open(cache: Cache) -> WordIndex:
    if cache.n_features < _KEPT:
        return WordIndex.build(indexed(cache))
    mark = f"{_VERSION} {cache.manifest.files[FEATURES]['sha256']}"
    folder = home() / "words" / hashlib.sha256(mark.encode()).hexdigest()[:32]
    try:
        return WordIndex.load(folder)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        built = WordIndex.build(indexed(cache))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        built.save(folder)
    except OSError:  # no room, or another process was faster: this one has it in memory
        pass
    return built
