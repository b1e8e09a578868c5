"""Find features by their words, labels, examples, meaning and numbers; without torch, in milliseconds."""

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.word_index import index, indexed

SORTS = ("match", "density", "max", "index", "title")
"""What rows can be sorted by; "match": where the words were found, label first, or how near the meaning is."""
STATUSES = ("all", "labelled", "unlabelled", "live", "dead")
MEANT = 500
"""How many features a search by meaning finds: every feature is more or less near, and somewhere it ends."""
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_NUMBER = re.compile(r"#?(\d{1,9})")
_WORD = re.compile(r"[^\W_]+")
_LAST = "\U0010ffff"


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
    min_max: float = 0.0,
    status: str = "all",
    labels: Mapping[int, str] | None = None,
    notes: Mapping[int, str] | None = None,
    only: Collection[int] | None = None,
    nearness: np.ndarray | None = None,
    limit: int = 25,
    offset: int = 0,
) -> Page:
    """Features that hold every word of the query, or are near its meaning; sorted, one page of them.

    Args:
        query: Words, each looked for (case aside) in label, note, title, promoted tokens and examples, where a word begins with it; in
            titles and tokens, which are often pieces of words, anywhere. "Two words" in quotes are one. `#12` is feature 12 alone; a bare
            number puts that feature first.
        sort: One of `SORTS`.
        min_density, max_density: Shares of scored tokens, both included.
        min_max: The least maximum, in SAE units.
        status: One of `STATUSES`; live features fire at least once in the corpus.
        labels: Feature -> label.
        notes: Feature -> what was noted beside the label.
        only: Look among these features alone, such as those of a list, of an author, or that a fine-tune moved.
        nearness: `[n_features]`, how near each is to the meaning of the query (`explorer.meaning`); the query's words are then not looked
            for, and the `MEANT` nearest are found.
    Raises:
        UsageError: If `sort` or `status` is unknown.
    """
    for what, value, known in (("sort", sort, SORTS), ("status", status, STATUSES)):
        if value not in known:
            raise UsageError(f"{value!r} is no {what}", expected=", ".join(known), do="Use one of these")
    n = cache.n_features
    said = {i: text for i, text in (labels or {}).items() if text and 0 <= i < n}
    keep = _mask(cache, min_density, max_density, min_max, status, said, only)
    if nearness is None:
        place = _places(cache, query, said, notes or {})
        keep &= place < _NOWHERE
    else:
        place = np.full(cache.n_features, _LABEL, np.int8)
        among = np.flatnonzero(keep)
        keep[:] = False
        keep[among[np.argsort(-nearness[among], kind="stable")[:MEANT]]] = True
    found = np.flatnonzero(keep)
    rank = _rank(cache, found, sort, descending, said, nearness)
    first = place[found] if sort == "match" else (place[found] != _NUMBERED).astype(np.int8)
    shown = found[_top(first, rank, offset + limit)[offset:]]
    return Page(tuple(_row(cache, int(i), said) for i in shown), len(found))


def matches(
    cache: Cache, query: str, labels: Mapping[int, str] | None = None, notes: Mapping[int, str] | None = None
) -> np.ndarray:
    """The features that hold every word of the query, in order of their numbers; none where there is no word."""
    if not query.strip():
        return np.zeros(0, np.int64)
    return np.flatnonzero(_places(cache, query, labels or {}, notes or {}) < _NOWHERE)


def _mask(
    cache: Cache,
    min_density: float,
    max_density: float,
    min_max: float,
    status: str,
    labels: Mapping[int, str],
    only: Collection[int] | None,
) -> np.ndarray:
    """Which features the filters leave, `[n_features]`."""
    density = cache.table.column("density").to_numpy()
    keep = (density >= min_density) & (density <= max_density)
    if min_max > 0:
        keep &= cache.table.column("max").to_numpy() >= min_max
    if status in ("live", "dead"):
        keep &= (cache.table.column("tokens_active").to_numpy() > 0) == (status == "live")
    elif status != "all":
        keep &= _members(cache, labels) == (status == "labelled")
    if only is not None:
        keep &= _members(cache, only)
    return keep


def _members(cache: Cache, features: Collection[int]) -> np.ndarray:
    chosen, n = np.zeros(cache.n_features, bool), cache.n_features
    chosen[[i for i in features if 0 <= i < n]] = True
    return chosen


_NUMBERED, _LABEL, _TITLE, _PROMOTED, _EXAMPLES, _WITHIN, _NOWHERE = range(7)
_COLUMNS = (("context", _EXAMPLES), ("promoted", _PROMOTED), ("title", _TITLE))


def _places(cache: Cache, query: str, labels: Mapping[int, str], notes: Mapping[int, str]) -> np.ndarray:
    """Where each feature holds the words of the query: the place of its worst word, or `_NOWHERE`."""
    place = np.full(cache.n_features, _LABEL, np.int8)
    asked = query.encode("utf-8", "replace").decode()  # a command line may hold half characters, no text does
    terms = [quoted or plain for quoted, plain in _TERM.findall(asked)]
    if not terms:
        return place
    said = _said(cache, labels, notes)
    for term in terms:
        place = np.maximum(place, _find(cache, term, said))
    if len(terms) == 1 and (number := _NUMBER.fullmatch(terms[0])):
        if terms[0].startswith("#"):
            place[:] = _NOWHERE
        if int(number[1]) < cache.n_features:
            place[int(number[1])] = _NUMBERED
    return place


def _said(cache: Cache, *said: Mapping[int, str]) -> tuple[np.ndarray, pa.Array]:
    """What people said, as features and texts: Arrow looks through thousands of texts in the time that Python takes for hundreds."""
    features = np.array([i for texts in said for i in texts], np.int64)
    texts = pa.array([text for texts in said for text in texts.values()], pa.string())
    there = (features >= 0) & (features < cache.n_features)
    return (features, texts) if there.all() else (features[there], texts.filter(pa.array(there)))


def _find(cache: Cache, term: str, said: tuple[np.ndarray, pa.Array]) -> np.ndarray:
    place = np.full(cache.n_features, _NOWHERE, np.int8)
    if _WORD.fullmatch(term):  # one word: the index says it all
        words = index(cache)
        for found in words.within(("title", "promoted"), term):
            place[found] = _WITHIN
        for column, where in _COLUMNS:
            place[words.begins(column, term)] = where
    else:
        _scan(cache, term, place)
    features, texts = said
    place[features[_match(texts, _begun(term))]] = _LABEL
    return place


def _begun(term: str) -> str:
    """A pattern of a term where a word begins with it; signs are found anywhere."""
    return rf"(?:^|[^\pL\pN]){re.escape(term)}" if term[0].isalnum() else re.escape(term)


def _match(texts: pa.Array, pattern: str) -> np.ndarray:
    """Which texts have a pattern, case aside."""
    return np.asarray(pc.match_substring_regex(texts, f"(?i){pattern}").fill_null(False), bool)  # type: ignore[attr-defined]


def _scan(cache: Cache, term: str, place: np.ndarray) -> None:
    """Look for a phrase, or for signs, in the texts themselves; only where its words are."""
    words, pieces, said = index(cache), _WORD.findall(term), indexed(cache)
    for column, where in (("title", _WITHIN), ("promoted", _WITHIN), *_COLUMNS):
        rows = np.arange(cache.n_features)
        for piece in pieces:
            rows = np.intersect1d(rows, words.within((column,), piece)[0])
        pattern = re.escape(term) if where == _WITHIN else _begun(term)
        place[rows[_match(said[column].take(rows), pattern)]] = where


def _rank(
    cache: Cache,
    found: np.ndarray,
    sort: str,
    descending: bool,
    labels: Mapping[int, str],
    nearness: np.ndarray | None,
) -> np.ndarray:
    """`[found]`, what comes first is smallest."""
    if sort == "match":
        rank = nearness if nearness is not None else cache.table.column("max").to_numpy()
        return -rank[found].astype(float)
    values = _by_title(cache, labels) if sort == "title" else cache.table.column(sort).to_numpy()
    rank = values[found].astype(float)
    return -rank if descending else rank


_titles: "WeakKeyDictionary[Cache, tuple[list[str], np.ndarray]]" = WeakKeyDictionary()
_named: "WeakKeyDictionary[Cache, tuple[dict[int, str], np.ndarray]]" = WeakKeyDictionary()


def _by_title(cache: Cache, labels: Mapping[int, str]) -> np.ndarray:
    """Places in the order of titles, a label standing for the title where there is one; those without either come last."""
    if cache not in _titles:
        texts = pc.utf8_lower(pc.fill_null(cache.table.column("title"), ""))  # type: ignore[attr-defined]
        coded = pc.if_else(pc.equal(texts, ""), _LAST, texts).combine_chunks().dictionary_encode()  # type: ignore[attr-defined]
        order = pc.sort_indices(coded.dictionary)  # type: ignore[attr-defined]
        places = np.empty(len(order))
        places[order.to_numpy()] = np.arange(len(order))
        _titles[cache] = coded.dictionary.take(order).to_pylist(), places[coded.indices.to_numpy()]
    said, known = dict(labels), _named.get(cache)
    if known is None or known[0] != said:  # many labels take longer to put between the titles than the rest of a search
        known = _named[cache] = said, _between(*_titles[cache], {i: text.lower() for i, text in said.items()})
    return known[1]


def _between(order: list[str], places: np.ndarray, labels: Mapping[int, str]) -> np.ndarray:
    """The places of titles with those of labels among them."""
    places = places.copy()
    between = {text: at / (len(labels) + 1) for at, text in enumerate(sorted(set(labels.values())), 1)}
    for i, text in labels.items():
        at = bisect_left(order, text)
        places[i] = at if at < len(order) and order[at] == text else at - 1 + between[text]
    return places


def _top(first: np.ndarray, rank: np.ndarray, n: int) -> np.ndarray:
    """The first `n` by (first, rank, where they stand), without sorting the rest of a million.

    Args:
        first: `[found]` small integers.
        rank: `[found]`.
    Returns:
        Places in both, `[at most n]`.
    """
    chosen: list[np.ndarray] = []
    left, counts = n, np.bincount(first)
    for level in np.flatnonzero(counts):
        here = np.arange(len(first)) if counts[level] == len(first) else np.flatnonzero(first == level)
        if len(here) > left > 0:
            ranks = rank[here]
            limit = np.partition(ranks, left - 1)[left - 1]
            under = here[ranks < limit]
            here = np.concatenate([under, here[ranks == limit][: left - len(under)]])
        here = here[np.lexsort((here, rank[here]))][: max(0, left)]
        chosen.append(here)
        left -= len(here)
        if left <= 0:
            break
    return np.concatenate(chosen) if chosen else np.empty(0, int)


def _row(cache: Cache, index: int, labels: Mapping[int, str]) -> Row:
    names = ("title", "density", "max", "promoted")
    title, density, most, promoted = (cache.table.column(name)[index].as_py() for name in names)
    pieces = tuple(cache.vocabulary.piece(token) for token in promoted)
    return Row(index, title or "", labels.get(index, ""), density, most, pieces)
