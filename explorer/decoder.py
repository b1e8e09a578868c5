"""Decoder directions straight from an SAE's file, without torch: one array of a safetensors file, a feature a row."""

import json
from pathlib import Path

import numpy as np

from explorer.cache import Cache
from explorer.errors import SaeError, UsageError

_WEIGHTS, _DECODER = "sae_weights.safetensors", "W_dec"
_LONGEST_HEADER = 1 << 20
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def decoder_row(cache: Cache, feature: int) -> np.ndarray:
    """The decoder direction of a feature: `[d_model]` float32, what one unit of activation adds to the stream.

    Raises:
        UsageError: If there is no such feature.
        SaeError: If no SAE lies beside the cache, or its file is damaged.
    """
    if not 0 <= feature < cache.n_features:
        raise UsageError(
            f"There is no feature {feature}", expected=f"0 to {cache.n_features - 1}", do="Use one of these"
        )
    return _rows(cache, feature, 1)[0]


def decoder(cache: Cache) -> np.ndarray:
    """All decoder directions: `[n_features, d_model]` float32.

    Raises:
        SaeError: If no SAE lies beside the cache, or its file is damaged.
    """
    return _rows(cache, 0, cache.n_features)


def unit(directions: np.ndarray) -> np.ndarray:
    """Directions at length 1, `[..., d_model]`; one of length 0 stays so, and has cosine 0 with every other."""
    length = np.linalg.norm(directions, axis=-1, keepdims=True)
    return directions / np.where(length > 0, length, 1)


def has_decoder(cache: Cache) -> bool:
    """Whether the SAE lies where the cache says."""
    return _file(cache).is_file()


def _file(cache: Cache) -> Path:
    return (cache.sae_folder or Path(cache.manifest.sae)) / _WEIGHTS


def _rows(cache: Cache, first: int, count: int) -> np.ndarray:
    file = _file(cache)
    if not file.is_file():
        raise SaeError(
            "The autoencoder of this cache does not lie beside it",
            expected=f"a SAELens folder with {_WEIGHTS}",
            do="Build the cache with the SAE in it (persona-explorer build)",
        )
    try:
        return _read(file, first, count, cache.n_features)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaeError(f"{file.name} of this cache cannot be read ({error})", do="Fetch the cache again") from error


def _read(file: Path, first: int, count: int, n_features: int) -> np.ndarray:
    """Some rows of the decoder: the file's head says where the array lies."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if not 2 <= size <= _LONGEST_HEADER:
            raise ValueError("its head has no sensible length")
        entry = json.loads(opened.read(size))[_DECODER]
        kind = np.dtype(_DTYPES[entry["dtype"]])
        rows, width = entry["shape"]
        if rows != n_features:
            raise ValueError(f"it has {rows} features and the cache {n_features}")
        opened.seek(8 + size + entry["data_offsets"][0] + first * width * kind.itemsize)
        wanted = count * width * kind.itemsize
        raw = opened.read(wanted)
    if len(raw) != wanted:
        raise ValueError("it ends too early")
    values = np.frombuffer(raw, kind).reshape(count, width)
    if entry["dtype"] == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
