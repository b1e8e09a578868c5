"""Files that are there whole or not at all, files of lines that a kill cuts one line of, and arrays left on the disk."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import CacheError

if TYPE_CHECKING:
    import pyarrow as pa


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then put it there: who reads it meanwhile, or writes it too, meets a whole one.

    Args:
        content: Text is written as UTF-8, its line ends as they are.
    Raises:
        OSError: If it cannot be written; the file that was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        fresh.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def append_json(path: Path, value: Any) -> None:
    """Add a line to a file of JSON values; one that was cut off before it, by a kill, stays a line of its own.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        cut_off = file.tell() > 0 and not _ends_its_line(file)
        file.write(b"\n" * cut_off + json.dumps(value).encode() + b"\n")


def json_lines(path: Path) -> Iterator[Any]:
    """The values of such a file; nothing where there is none, and a line that was cut off is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:  # killed while writing
            continue
        yield value


def read_facts(path: Path, *, do: str) -> dict[str, Any]:
    """What a file of JSON says of the folder it lies in; nothing where there is none.

    Args:
        do: What a person can do where it cannot be read.
    Raises:
        CacheError: If it cannot be read, or holds no table.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CacheError(f"{path} cannot be read ({error})", do=do) from error
    if not isinstance(said, dict):
        raise CacheError(f"{path} holds {str(said)[:40]!r}", expected="a JSON object", do=do)
    return said


def read_parquet(path: Path, *, do: str, **options: Any) -> "pa.Table":
    """A table.

    Args:
        do: What a person can do where it cannot be read.
        options: Of `pyarrow.parquet.read_table`.
    Raises:
        CacheError: If it is not there, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, **options)
    except (OSError, pa.ArrowException) as error:
        raise CacheError(f"{path} cannot be read ({error})", do=do) from error


def _ends_its_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


_DTYPES = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32, "I64": np.int64}


def map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped instead of read (the safetensors library copies into numpy).

    Raises:
        ValueError: If the header is damaged, names a type the cache does not use, or points beyond the file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size - 8:
            raise ValueError("the header is damaged")
        header = json.loads(file.read(length))
    raw = np.memmap(path, np.uint8, "r")[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            arrays[name] = raw[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
