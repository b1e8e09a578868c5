"""Files that are there whole or not at all."""

import contextlib
import os
import uuid
from pathlib import Path


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
