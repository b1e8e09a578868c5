"""The cache that finding is measured on: it is what it says, and what is found in it is what reading every text finds."""

from pathlib import Path

import pytest

from benchmarks.million import Words, spell, write
from benchmarks.searching import Ask, asks
from explorer import word_index
from explorer.cache import Cache
from explorer.label_files import read_file
from explorer.search import search

FEATURES, LABELS = 150, 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, Words]:
    path, words = write(tmp_path_factory.mktemp("made") / "up", FEATURES, LABELS, n_words=1_500, n_windows=50)
    return Cache.open(path), words


def test_words_are_different_the_same_each_time_and_short_where_they_are_common():
    words = spell(1_500)
    assert len(set(words)) == 1_500
    assert words == spell(1_500)
    assert words[:40] == spell(40)
    assert all(word.isalpha() and word.islower() for word in words)
    assert sum(map(len, words[:100])) < sum(map(len, words[-100:]))


def test_every_feature_has_texts_examples_and_the_commonest_word(made: tuple[Cache, Words]):
    cache, words = made
    assert cache.n_features == FEATURES
    for index in range(FEATURES):
        said = cache.table.column("context")[index].as_py().split()
        assert len(said) == words.each
        assert words.texts[0] in said
        examples = cache.examples(index)
        assert len(examples) == 44
        assert all(example.value > 0 for example in examples)
    labels = read_file(cache.path / "labels.csv")
    assert len({label.feature for label in labels}) == words.labels == LABELS
    assert {label.sae for label in labels} == {cache.manifest.sae_fingerprint}


def read(cache: Cache, ask: Ask, labels: dict[int, str], notes: dict[int, str]) -> set[int]:
    """What a search has to find, by the plainest code."""
    rows, by = cache.table.to_pylist(), ask.by
    found = set()
    for row in rows:
        index = row["index"]
        said = f"{labels.get(index, '')} {notes.get(index, '')} {row['context']}".split()
        pieces = [*row["title"].split(), *(cache.vocabulary.text([token]) for token in row["promoted"])]
        there = all(
            any(word.startswith(term) for word in said) or any(term in piece for piece in pieces)
            for term in ask.query.split()
        )
        dense = by.get("min_density", 0) <= row["density"] <= by.get("max_density", 1)
        status = by.get("status", "all")
        fits = {"all": True, "live": row["tokens_active"] > 0}.get(status, (index in labels) == (status == "labelled"))
        if there and dense and fits:
            found.add(index)
    return found


@pytest.mark.parametrize("kept", [False, True])
def test_queries_of_every_kind_find_what_reading_every_text_finds(
    made: tuple[Cache, Words], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
):
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path))
    monkeypatch.setattr(word_index, "_KEPT", 1 if kept else 10**9)  # an index on disk, as a million features have it
    monkeypatch.setattr(word_index, "_BLOCK", 64)
    cache = Cache.open(made[0].path)
    search(cache, query="warm")
    cache = Cache.open(made[0].path)  # reads what has been kept
    said = {label.feature: label for label in read_file(cache.path / "labels.csv")}
    labels, notes = ({i: getattr(one, name) for i, one in said.items()} for name in ("label", "note"))
    every = asks(made[1], 4)
    assert len({ask.kind for ask in every}) == 10
    sizes = set()
    for ask in every:
        page = search(cache, query=ask.query, labels=labels, notes=notes, limit=FEATURES, **ask.by)
        assert {row.index for row in page.rows} == read(cache, ask, labels, notes), ask
        assert page.total == len(page.rows)
        sizes.add(page.total)
    assert len(sizes) > 10, "queries that find everything or nothing would show nothing"
    assert (tmp_path / "words").exists() == kept
