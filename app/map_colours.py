"""What the dots of the map can be coloured by: a number of each feature, or the group that it belongs to. No Streamlit here."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.charts import ACT, LOOPS, QUIET
from explorer.cache import Cache
from explorer.schema import FEATURE_COLUMNS

if TYPE_CHECKING:
    from explorer.comparing import Compared

LABEL = "label state"
LIST = "in the list "
MOVED = "moved by "
_COLUMNS = {
    "density": "density",
    "maximum": "max",
    "mean": "mean_active",
    "median": "q50",
    "99th percentile": "q99",
    "tokens": "tokens_active",
    "documents": "documents_active",
}
"""Choice, as the link says it -> column of the cache; all of them span powers of ten."""
_UNITS = {column.name: (column.unit, column.help) for column in FEATURE_COLUMNS}


@dataclass(frozen=True, eq=False)
class Values:
    """A number of each feature.

    Args:
        values: `[n_features]`; nan where a feature has none.
        title: What it is, with its unit.
        log: Shown as powers of ten; what is not above 0 then has no number.
        diverging: 0 is the middle.
        share: A share, shown in percent.
        missing: What a feature without a number is called.
    """

    values: np.ndarray
    title: str
    log: bool = False
    diverging: bool = False
    share: bool = False
    missing: str = "silent in this corpus"


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each feature.

    Args:
        codes: `[n_features]`, places in `names`.
        names: Name, colour and size of each group, the quietest first.
    """

    codes: np.ndarray
    names: tuple[tuple[str, str, int], ...]


def choices(lists: Collection[str], diffs: Collection[str]) -> list[str]:
    """What a map can be coloured by, as the link says it.

    Args:
        lists: Names of the lists of its SAE.
        diffs: Names of its comparisons with a fine-tune.
    """
    return [*_COLUMNS, LABEL, *(f"{LIST}{name}" for name in lists), *(f"{MOVED}{name}" for name in diffs)]


def about(choice: str) -> str:
    """A choice in a sentence."""
    if choice in _COLUMNS:
        unit, said = _UNITS[_COLUMNS[choice]]
        return f"{said.rstrip('.')} ({unit})." if unit and choice != "density" else said
    if choice.startswith(MOVED):
        return "How far the fine-tune's mean over its own answers lies above the base's, in SAE units."
    return "Whether somebody has named it." if choice == LABEL else "Whether the list holds it."


def coloured(
    cache: Cache,
    choice: str,
    labels: Mapping[int, str],
    lists: Mapping[str, Collection[int]],
    comparison: "Callable[[str], Compared]",
) -> Values | Groups:
    """The colours of a choice.

    Args:
        labels: Feature -> label.
        lists: Name -> features.
        comparison: Opens a comparison by its name.
    Raises:
        CacheError: If a comparison cannot be read.
    """
    if choice in _COLUMNS:
        column = _COLUMNS[choice]
        values = cache.table.column(column).to_numpy().astype(float)
        unit = "share of tokens" if column == "density" else _UNITS[column][0]
        title = f"{choice} ({unit})" if unit != choice else choice
        return Values(np.where(values > 0, values, np.nan), title, log=True, share=column == "density")
    if choice.startswith(MOVED):
        change = comparison(choice.removeprefix(MOVED)).change("own", "answer").change
        values = np.full(cache.n_features, np.nan)
        values[: len(change)] = change[: cache.n_features]
        return Values(values, "change of the mean (SAE units)", diverging=True, missing="not measured")
    live = cache.table.column("tokens_active").to_numpy() > 0
    if choice.startswith(LIST):
        codes = _members(cache.n_features, lists.get(choice.removeprefix(LIST), ())).astype(int)
        return Groups(codes, (("not in the list", QUIET, 4), ("in the list", LOOPS, 8)))
    codes = np.where(_members(cache.n_features, labels), 2, np.where(live, 1, 0))
    return Groups(codes, (("silent", "#B4BBC7", 3), ("not labelled", QUIET, 4), ("labelled", ACT, 7)))


def _members(n: int, features: Collection[int]) -> np.ndarray:
    chosen = np.zeros(n, bool)
    chosen[[f for f in features if 0 <= f < n]] = True
    return chosen
