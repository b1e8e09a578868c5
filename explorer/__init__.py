"""Persona Explorer: browse, steer, label and compare the features of language models."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.notebook import Notebook


def open(path: str | Path) -> "Notebook":
    """Open a feature cache for a notebook: `.feature(12)`, `.examples(12)`, `.features`.

    Raises:
        CacheError: If there is no cache, it is damaged, or it has another format version.
    """
    from explorer import notebook  # here, so that importing the package loads nothing

    return notebook.open(path)
