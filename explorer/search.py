"""Find features by their words, labels, examples and numbers; without torch, in milliseconds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from explorer.cache import Cache
from explorer.errors import UsageError

SORTS = ("match", "density", "max", "index", "title")
"""What rows can be sorted by; "match": where the words were found, label first."""
STATUSES = ("all", "labelled", "unlabelled", "live", "dead")
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_NUMBER = re.compile(r"#?(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Row:
    """One feature that was found.

    Args:
        index: Its number.
        title: Its own words, provisional.
        label: What somebody named it; "" where nobody did.
        density: Share of scored tokens on which it is active.
        max: Strongest activation in the corpus, in SAE units.
        promoted: Tokens it promotes, strongest first.
    """

    index: int
    title: str
    label: str
    density: float
    max: float
    promoted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows `offset` to `offset + limit` of what was found, and how many there are in all."""

    rows: tuple[Row, ...]
    total: int


def search(
    cache: Cache,
    *,
    query: str = "",
    sort: str = "density",
    descending: bool = True,
    min_density: float = 0.0,
    max_density: float = 1.0,
    status: str = "all",
    labels: Mapping[int, str] | None = None,
    limit: int = 25,
    offset: int = 0,
) -> Page:
    """Features that hold every word of the query, sorted, one page of them.

    Args:
        query: Words, each looked for (case aside) in label, title, promoted tokens and examples, where a word begins with it; in titles
            and tokens, which are often pieces of words, anywhere. "Two words" in quotes are one. `#12` is feature 12 alone; a bare number
            puts that feature first.
        sort: One of `SORTS`.
        min_density, max_density: Shares of scored tokens, both included.
        status: One of `STATUSES`; live features fire at least once in the corpus.
        labels: Feature -> label.
    Raises:
        UsageError: If `sort` or `status` is unknown.
    """
    for what, value, known in (("sort", sort, SORTS), ("status", status, STATUSES)):
        if value not in known:
            raise UsageError(f"{value!r} is no {what}", expected=", ".join(known), do="Use one of these")
    said = {i: text for i, text in (labels or {}).items() if text and 0 <= i < cache.n_features}
    table = cache.table
    density = table.column("density").to_numpy()
    keep = (density >= min_density) & (density <= max_density)
    if status in ("live", "dead"):
        keep &= (table.column("tokens_active").to_numpy() > 0) == (status == "live")
    elif status != "all":
        named = np.zeros(cache.n_features, bool)
        named[list(said)] = True
        keep &= named == (status == "labelled")
    place = _places(cache, query, said)
    keep &= place < _NOWHERE
    found = np.flatnonzero(keep)
    found = found[_order(cache, found, place, sort, descending, said)]
    rows = tuple(_row(cache, int(i), said) for i in found[offset : offset + limit])
    return Page(rows, len(found))


_NUMBERED, _LABEL, _TITLE, _PROMOTED, _EXAMPLES, _WITHIN, _NOWHERE = range(7)


def _places(cache: Cache, query: str, labels: Mapping[int, str]) -> np.ndarray:
    """Where each feature holds the words of the query: the place of its worst word, or `_NOWHERE`."""
    place = np.full(cache.n_features, _LABEL)
    terms = [quoted or plain for quoted, plain in _TERM.findall(query)]
    for term in terms:
        place = np.maximum(place, _find(cache, term, labels))
    if len(terms) == 1 and (number := _NUMBER.fullmatch(terms[0])):
        if terms[0].startswith("#"):
            place[:] = _NOWHERE
        if int(number[1]) < cache.n_features:
            place[int(number[1])] = _NUMBERED
    return place


def _find(cache: Cache, term: str, labels: Mapping[int, str]) -> np.ndarray:
    place = np.full(cache.n_features, _NOWHERE)
    title, promoted = cache.table.column("title"), cache.promoted
    for column in (title, promoted):
        hits = pc.match_substring(column, term, ignore_case=True)  # type: ignore[attr-defined]
        place[np.asarray(hits.fill_null(False))] = _WITHIN
    begins = re.escape(term) if not term[0].isalnum() else rf"(?:^|[^\pL\pN]){re.escape(term)}"
    for where, column in ((_EXAMPLES, cache.table.column("context")), (_PROMOTED, promoted), (_TITLE, title)):
        hits = pc.match_substring_regex(column, f"(?i){begins}")  # type: ignore[attr-defined]
        place[np.asarray(hits.fill_null(False))] = where
    word = re.compile(rf"(?i)(?<![^\W_]){re.escape(term)}" if term[0].isalnum() else re.escape(term))
    place[[i for i, text in labels.items() if word.search(text)]] = _LABEL
    return place


def _order(
    cache: Cache, found: np.ndarray, place: np.ndarray, sort: str, descending: bool, labels: Mapping[int, str]
) -> np.ndarray:
    if sort == "title":
        titles = cache.table.column("title")
        texts = [(labels.get(int(i)) or titles[int(i)].as_py() or "\U0010ffff").casefold() for i in found]
        rank = np.argsort(np.argsort(np.array(texts, dtype=object), kind="stable"), kind="stable")
    elif sort == "match":
        rank, descending = cache.table.column("max").to_numpy()[found], True
    else:
        rank = cache.table.column(sort).to_numpy()[found]
    rank = -rank if descending else rank
    first = place[found] if sort == "match" else place[found] != _NUMBERED
    return np.lexsort((found, rank, first))


def _row(cache: Cache, index: int, labels: Mapping[int, str]) -> Row:
    names = ("title", "density", "max", "promoted")
    title, density, most, promoted = (cache.table.column(name)[index].as_py() for name in names)
    pieces = tuple(cache.vocabulary.piece(token) for token in promoted)
    return Row(index, title or "", labels.get(index, ""), density, most, pieces)
