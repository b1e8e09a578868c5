"""A feature cache in a notebook: `explorer.open(path).feature(12)` shows the feature, `.features` is a pandas frame."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.cache import Cache
from explorer.heatmap_html import PLAIN, STYLE, examples_html, feature_html, shown
from explorer.records import Example, Feature

if TYPE_CHECKING:
    import pandas as pd

    from explorer.label_files import Label

_SHOWN = 12  # top examples of a feature


def open(path: str | Path) -> "Notebook":
    """Open a feature cache for a notebook.

    Raises:
        CacheError: If there is no cache, it is damaged, or it has another format version.
    """
    return Notebook(Cache.open(path))


class Notebook:
    """A cache with the labels that came with it and those of this machine."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __repr__(self) -> str:
        made = self.cache.manifest
        return f"{self.cache.name}: {self.cache.n_features:,} features of {made.model} at {made.hook_point}"

    def __len__(self) -> int:
        return self.cache.n_features

    @cached_property
    def labels(self) -> "Mapping[int, Label]":
        """Feature -> its label, as it was when it was first asked for."""
        from explorer.labels import LabelStore

        return LabelStore.over(self.cache).all(self.cache.manifest.sae_fingerprint)

    @cached_property
    def features(self) -> "pd.DataFrame":
        """One row a feature: its label, then every column of features.parquet; token ids as the tokens themselves."""
        from explorer.frames import TextFrame

        frame = TextFrame(self.cache.table.to_pandas().set_index("index"))
        piece = self.cache.vocabulary.piece
        for name in ("promoted", "suppressed"):
            frame[name] = [[piece(int(token)) for token in tokens] for tokens in frame[name]]
        frame.insert(0, "label", [label.label if (label := self.labels.get(i)) else "" for i in frame.index])
        return frame

    def feature(self, index: int) -> "FeatureView":
        """One feature, to look at.

        Raises:
            CacheError: If there is none of that number.
        """
        return FeatureView(self, self.cache.feature(index))

    def examples(self, index: int, kind: str | None = None) -> "Examples":
        """The examples of a feature in order of rank, to look at.

        Args:
            kind: "top", "interval", or None for both.
        Raises:
            CacheError: If there is no such feature.
        """
        return Examples(self.cache, self.cache.examples(index, kind))


class FeatureView:
    """One feature: its figures as attributes of `stats`, and itself as HTML."""

    def __init__(self, notebook: Notebook, stats: Feature) -> None:
        self.notebook, self.stats = notebook, stats

    @property
    def label(self) -> str:
        """What somebody named it; "" where nobody did."""
        said = self.notebook.labels.get(self.stats.index)
        return said.label if said else ""

    @property
    def examples(self) -> "Examples":
        """Its examples in order of rank."""
        return self.notebook.examples(self.stats.index)

    def __repr__(self) -> str:
        found, piece = self.stats, self.notebook.cache.vocabulary.piece
        lines = [
            f"#{found.index} {self.label or f'({found.title})'}",
            f"max {found.max:.3g}, fires on {found.density:.3%} of tokens, in {found.documents_active:,} documents",
            "promotes " + " ".join(repr(piece(token)) for token, _ in found.promoted[:8]),
        ]
        return "\n".join([*lines, repr(self.notebook.examples(found.index, "top"))])

    def _repr_html_(self) -> str:
        notebook, index = self.notebook, self.stats.index
        said = notebook.labels.get(index)
        top = notebook.cache.examples(index, "top")[:_SHOWN]
        label, note = (said.label, said.note) if said else ("", "")
        return f"<style>{STYLE}</style>" + feature_html(notebook.cache, index, label=label, note=note, examples=top)


class Examples:
    """Examples of a feature: a sequence of `explorer.records.Example`, and itself as HTML."""

    def __init__(self, cache: Cache, found: list[Example]) -> None:
        self._cache, self._found = cache, found

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, at: int) -> Example:
        return self._found[at]

    def __iter__(self) -> Iterator[Example]:
        return iter(self._found)

    def __repr__(self) -> str:
        text = self._cache.vocabulary.text
        rows = (f"{e.value:8.3g}  {text(e.tokens[max(0, e.peak - 8) : e.peak + 5])!r}" for e in self._found[:_SHOWN])
        return "\n".join(rows) or "no text of the corpus activates this feature"

    def _repr_html_(self) -> str:
        name = shown(self._cache.name)
        return f'<style>{STYLE}</style><section class="{PLAIN}"><p>{name}</p>{examples_html(self._cache, self._found)}</section>'
