"""Search: what is found, in which order, and that hostile queries are only words."""

import itertools
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from explorer import word_index
from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.search import MEANT, SORTS, STATUSES, search
from explorer.word_index import WordIndex
from tests.helpers_cache import HOSTILE, fake_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 64))


def holds(cache: Cache, index: int, word: str) -> bool:
    """Whether a feature's examples have a word that begins so, or its title or its promoted tokens hold it anywhere."""
    row = cache.table.slice(index, 1).to_pylist()[0]
    pieces = " ".join([row["title"], *(cache.vocabulary.text([t]) for t in row["promoted"])]).lower()
    words = "".join(c if c.isalnum() else " " for c in row["context"].lower()).split()
    return word in pieces or any(found.startswith(word) for found in words)


def test_without_a_query_every_feature_is_found_once_over_all_pages(cache: Cache):
    seen = [row.index for offset in range(0, 80, 25) for row in search(cache, offset=offset).rows]
    assert sorted(seen) == list(range(64))


def test_every_word_of_the_query_is_in_what_is_found_and_in_nothing_else(cache: Cache):
    found = {row.index for row in search(cache, query="KING crown", limit=64).rows}
    expected = {i for i in range(64) if holds(cache, i, "king") and holds(cache, i, "crown")}
    assert found == expected
    assert 0 < len(found) < 64


def test_words_are_found_where_they_begin_and_pieces_only_in_titles_and_tokens(cache: Cache):
    labels = {60: "checking", 61: "kingdoms of old"}
    found = {row.index for row in search(cache, query="king", sort="match", labels=labels, limit=64).rows}
    assert 61 in found
    assert (60 in found) == holds(cache, 60, "king")
    pieces = {row.index for row in search(cache, query="ing", limit=64).rows}
    assert pieces == {i for i in range(64) if holds(cache, i, "ing")}
    assert 0 < len(pieces) < 64


def test_quoted_words_are_one(cache: Cache):
    loose = search(cache, query="of king", limit=64).total
    assert search(cache, query='"of king"', limit=64).total < loose


def test_a_label_is_found_first_when_sorted_by_match(cache: Cache):
    page = search(cache, query="king", sort="match", labels={63: "The King's English"}, limit=64)
    assert page.rows[0].index == 63
    assert page.rows[0].label == "The King's English"
    assert page.total > 1


def test_a_number_is_found_first_and_alone_with_a_hash(cache: Cache):
    assert search(cache, query="17", sort="max").rows[0].index == 17
    only = search(cache, query="#17")
    assert [row.index for row in only.rows] == [17]
    assert search(cache, query="#999").total == 0


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_keeps_what_it_says(cache: Cache, status: str):
    labels = {3: "three", 5: "five", 7: ""}
    found = {row.index for row in search(cache, status=status, labels=labels, limit=64).rows}
    live = {int(i) for i in cache.frame.index[cache.frame["tokens_active"] > 0]}
    every = set(range(64))
    assert found == {
        "all": every, "labelled": {3, 5}, "unlabelled": every - {3, 5}, "live": live, "dead": every - live,
    }[status]  # fmt: skip


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_each_sort_orders_its_column(cache: Cache, sort: str, descending: bool):
    rows = search(cache, sort=sort, descending=descending, limit=64).rows
    if sort == "match":
        assert [r.max for r in rows] == sorted((r.max for r in rows), reverse=True)
        return
    values = [r.title.casefold() or "\U0010ffff" if sort == "title" else getattr(r, sort) for r in rows]
    assert values == sorted(values, reverse=descending)


def test_densities_are_bounds_on_both_sides(cache: Cache):
    middle = float(cache.frame["density"].median())
    low, high = search(cache, max_density=middle).total, search(cache, min_density=middle).total
    equal = int((cache.frame["density"] == middle).sum())
    assert low + high == 64 + equal


@pytest.mark.parametrize(
    "query", [*(t.decode() for t in HOSTILE), "%", "_", "\\", "((", "*", '"', "' OR 1=1", "#", "#-1", "\udcff"]
)
def test_hostile_queries_are_words_like_others(cache: Cache, query: str):
    assert search(cache, query=query).total <= 64


def test_an_unknown_sort_or_status_is_refused_by_name(cache: Cache):
    with pytest.raises(UsageError, match="density, max"):
        search(cache, sort="drop table")
    with pytest.raises(UsageError, match="labelled"):
        search(cache, status="nope")


def test_a_query_over_thousands_of_features_does_not_keep_a_person_waiting(tmp_path: Path):
    large = Cache.open(fake_cache(tmp_path / "large", 6_000))
    search(large, query="warm up")
    start = time.perf_counter()
    search(large, query="king crown", sort="match")
    assert time.perf_counter() - start < 0.5  # some ms alone; the bound leaves room for a machine at work


TEXTS = ["The Old king", "", "king's Kingdom; 12 crowns", "naïve Straße 中文 кот", "...", "re-king!  thinking"]


def spoken(text: str) -> set[str]:
    """The words of a text, by the plainest code."""
    return {word for word in re.split(r"[\W_]+", text.lower()) if word}


@pytest.mark.parametrize("piece", ["king", "k", "KING", "12", "ïve", "中", "кот", "zebra", "ss", "􏿿"])
@pytest.mark.parametrize("block", [65_536, 4, 1])
def test_the_index_finds_what_reading_every_text_finds(piece: str, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(word_index, "_BLOCK", block)  # texts that are taken apart at once
    index = WordIndex.build({"a": pa.array(TEXTS), "b": pa.array(TEXTS[::-1])})
    for column, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        begins = {i for i, text in enumerate(texts) if any(w.startswith(piece.lower()) for w in spoken(text))}
        within = {i for i, text in enumerate(texts) if any(piece.lower() in w for w in spoken(text))}
        assert set(index.begins(column, piece).tolist()) == begins
        assert [set(found.tolist()) for found in index.within(["a", "b"], piece)]["ab".index(column)] == within
        for word, (start, stop) in enumerate(itertools.pairwise(index.starts[column])):
            holders = index.holders[column][start:stop].tolist()
            assert holders == [i for i, text in enumerate(texts) if index.words[word].as_py() in spoken(text)]


def test_an_index_of_nothing_finds_nothing():
    index = WordIndex.build({"a": pa.array([], pa.string())})
    assert len(index.begins("a", "x")) == len(*index.within(("a",), "x")) == 0


def test_the_index_of_a_large_cache_is_kept_and_one_that_is_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(word_index, "_KEPT", 10)
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    path = fake_cache(tmp_path / "made-up", 64)
    expected = {row.index for row in search(Cache.open(path), query="king", limit=64).rows}
    (kept,) = (tmp_path / "home" / "words").iterdir()
    monkeypatch.setattr(WordIndex, "build", lambda texts: pytest.fail("it is on the disk"))
    assert {row.index for row in search(Cache.open(path), query="king", limit=64).rows} == expected
    monkeypatch.undo()
    monkeypatch.setattr(word_index, "_KEPT", 10)
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    (kept / "title-starts.npy").write_bytes(b"damaged")
    assert {row.index for row in search(Cache.open(path), query="king", limit=64).rows} == expected


def test_a_note_is_found_like_a_label(cache: Cache):
    assert search(cache, query="zeppelin").total == 0
    assert [row.index for row in search(cache, query="zeppelin", notes={9: "as in a Zeppelin's shadow"}).rows] == [9]


def test_filters_meet(cache: Cache):
    strong = float(np.median(cache.table.column("max").to_numpy()))
    found = {row.index for row in search(cache, min_max=strong, only=[1, 2, 3, 4, 99], limit=64).rows}
    assert found == {i for i in (1, 2, 3, 4) if cache.feature(i).max >= strong}
    assert search(cache, only=[]).total == 0


def test_by_meaning_the_nearest_come_first_within_the_filters(cache: Cache):
    nearness = np.random.default_rng(0).random(64)
    rows = search(cache, query="whatever it says", nearness=nearness, sort="match", limit=64, only=range(32)).rows
    assert [row.index for row in rows] == np.argsort(-nearness[:32], kind="stable").tolist()
    assert MEANT >= 64


def test_pages_hold_every_feature_once_where_many_are_equal(tmp_path: Path):
    dead = Cache.open(fake_cache(tmp_path / "dead", 200, dead=tuple(range(20, 190))))
    for sort in SORTS:
        for descending in (True, False):
            seen = [
                row.index
                for offset in range(0, 200, 7)
                for row in search(dead, sort=sort, descending=descending, limit=7, offset=offset).rows
            ]
            assert sorted(seen) == list(range(200))
            whole = [row.index for row in search(dead, sort=sort, descending=descending, limit=200).rows]
            assert seen == whole


def test_a_label_takes_the_place_of_the_title_in_the_order(cache: Cache):
    rows = search(cache, sort="title", descending=False, labels={7: "aaa", 9: "aab", 11: "zzzz"}, limit=64).rows
    assert [row.index for row in rows if row.label] == [7, 9, 11]
    names = [(row.label or row.title or "\U0010ffff").casefold() for row in rows]
    assert names == sorted(names)
