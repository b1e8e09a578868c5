"""Which features are near the meaning of a query: MiniLM over a feature's own words and its strongest example, and over its label.

The vectors of a cache's own texts are made once (`persona-explorer index`) and lie beside it in `meanings.safetensors`; labels change, so
theirs are made when they are first looked for.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import CacheError
from explorer.files import write_whole

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.embedding import Embeds

MEANINGS = "meanings.safetensors"
WIDTH = 384
"""Of a sentence's vector: the last layer's, which is about the topic."""
_SCALE = 127.0
_AT_ONCE = 256
_ROWS = 65_536  # rows turned to float32 at once


def sentence_vectors(embedder: "Embeds", texts: Sequence[str]) -> np.ndarray:
    """One vector of length 1 a text, `[n, 384]` float32; an empty text has the zero vector."""
    found = np.zeros((len(texts), WIDTH), np.float32)
    said = [at for at, text in enumerate(texts) if text.strip()]
    if said:
        vectors = embedder.encode([texts[at] for at in said])[:, -WIDTH:]
        found[said, : vectors.shape[1]] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found


def texts_of(cache: "Cache") -> list[str]:
    """What stands for each feature: its own words, and the surroundings of its strongest peak."""
    titles, contexts = (cache.table.column(name).to_pylist() for name in ("title", "context"))
    return [
        f"{title or ''}. {' '.join((context or '').split())}".strip(". ")
        for title, context in zip(titles, contexts, strict=True)
    ]


def make(cache: "Cache", embedder: "Embeds", progress: Callable[[int, int], None] = lambda done, all: None) -> Path:
    """Make the vectors of a cache's own texts and write them beside it, as eight-bit integers.

    Returns:
        The file.
    Raises:
        CacheError: If it cannot be written.
    """
    from safetensors.numpy import save

    texts = texts_of(cache)
    vectors = np.zeros((len(texts), WIDTH), np.int8)
    for start in range(0, len(texts), _AT_ONCE):
        part = sentence_vectors(embedder, texts[start : start + _AT_ONCE])
        vectors[start : start + len(part)] = np.rint(part * _SCALE)
        progress(min(start + _AT_ONCE, len(texts)), len(texts))
    path = cache.path / MEANINGS
    try:
        write_whole(path, save({"meanings": vectors}, {"embedder": embedder.fingerprint, "texts": _mark(cache)}))
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error})", do="Free space or choose another folder") from error
    return path


def load(cache: "Cache", embedder: "Embeds | None" = None) -> np.ndarray:
    """The vectors of a cache's own texts, `[features, 384]` int8.

    Args:
        embedder: The one that they have to be of; any, where none is at hand.
    Raises:
        CacheError: If there are none, or they were made of other texts or by another embedder.
    """
    from safetensors import SafetensorError, safe_open

    path = cache.path / MEANINGS
    do = f"persona-explorer index {cache.path} makes them"
    if not path.is_file():
        raise CacheError(f"{cache.name} has no vectors to find features by meaning", do=do)
    try:
        with safe_open(path, "numpy") as file:
            facts: dict[str, Any] = file.metadata() or {}
            vectors = file.get_tensor("meanings")
    except (OSError, SafetensorError) as error:
        raise CacheError(f"{path} cannot be read ({error})", do=do) from error
    if facts.get("texts") != _mark(cache) or vectors.shape != (cache.n_features, WIDTH):
        raise CacheError(f"{path} was made of other texts than the cache has now", do=f"{do} anew")
    if embedder is not None and facts.get("embedder") != embedder.fingerprint:
        raise CacheError(f"{path} was made by another embedder", do=f"{do} anew")
    return vectors


def _mark(cache: "Cache") -> str:
    from explorer.schema import FEATURES

    return cache.manifest.files[FEATURES]["sha256"]


class Meanings:
    """Finds the features of one cache by meaning; sessions may share it.

    Args:
        cache: Its vectors are read here.
        embedder: The one they were made with.
    Raises:
        CacheError: As `load`.
    """

    def __init__(self, cache: "Cache", embedder: "Embeds") -> None:
        self._embedder, self._own = embedder, load(cache, embedder)
        self._labels: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def nearness(self, query: str, labels: Mapping[int, str]) -> np.ndarray:
        """Cosine of the query with each feature's label or own texts, whichever is nearer, `[features]` float32."""
        (asked,) = sentence_vectors(self._embedder, [query])
        near = np.empty(len(self._own), np.float32)
        for start in range(0, len(near), _ROWS):
            near[start : start + _ROWS] = self._own[start : start + _ROWS].astype(np.float32) @ (asked / _SCALE)
        said = {i: text for i, text in labels.items() if text.strip() and 0 <= i < len(near)}
        with self._lock:
            new = sorted(set(said.values()) - self._labels.keys())
            self._labels.update(zip(new, sentence_vectors(self._embedder, new), strict=True))
            cosines = {i: float(self._labels[text] @ asked) for i, text in said.items()}
        for i, cosine in cosines.items():
            near[i] = max(near[i], cosine)
        return near
