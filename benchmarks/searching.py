"""Finding features among a million: every word of a query in labels, titles, promoted tokens and examples, and the first page of Browse."""

import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import figure, peak_memory_mb, seconds
from benchmarks.million import Words, write

FEATURES, LABELS, ROUNDS, EACH, ROWS, MOST = 1_000_000, 20_000, 5, 12, 25, 200
"""Features, how many of them are labelled, rounds over all queries, queries of each kind, rows of a page, ms asked for."""


@dataclass(frozen=True)
class Ask:
    """One search.

    Args:
        kind: What is asked, in words.
        query: The words.
        by: Arguments of `explorer.search.search` beside the query.
    """

    kind: str
    query: str = ""
    by: dict[str, Any] = field(default_factory=lambda: {"sort": "match"})


def asks(words: Words, each: int = EACH, seed: int = 1) -> list[Ask]:
    """Queries of every kind, mixed."""
    draw = random.Random(seed)
    n = len(words.texts)

    def word(first: int, last: int) -> str:
        """One of the `first`-th to `last`-th commonest words."""
        return words.texts[draw.randrange(min(first, n - 1), min(last, n))]

    def rare() -> str:
        return word(n // 10, n)

    def plain() -> str:
        return word(100, 5_000)

    makers: dict[str, Callable[[], Ask]] = {
        "a rare word": lambda: Ask("a rare word", rare()),
        "a common word": lambda: Ask("a common word", word(0, 30)),
        "the first letters of a word": lambda: Ask("the first letters of a word", plain()[: draw.choice((2, 3, 4))]),
        "one letter": lambda: Ask("one letter", draw.choice("abcdefghijklmnoprstuvw")),
        "two words": lambda: Ask("two words", f"{word(0, 300)} {plain()}"),
        "two common words": lambda: Ask("two common words", f"{word(0, 30)} {word(0, 30)}"),
        "a word among densities": lambda: Ask(
            "a word among densities",
            plain(),
            {"sort": draw.choice(("max", "density")), "min_density": 1e-4, "max_density": 1e-2},
        ),
        "a common word among what is labelled, or is not": lambda: Ask(
            "a common word among what is labelled, or is not",
            word(0, 30),
            {"sort": "match", "status": draw.choice(("labelled", "unlabelled", "live"))},
        ),
        "no word, sorted": lambda: Ask(
            "no word, sorted",
            "",
            {"sort": draw.choice(("density", "max", "index", "title")), "descending": draw.random() < 0.5},
        ),
        "a common word by title": lambda: Ask(
            "a common word by title", word(0, 30), {"sort": "title", "descending": False}
        ),
    }
    made = [make() for make in makers.values() for _ in range(each)]
    draw.shuffle(made)
    return made


def pages(path: Path) -> Callable[[Ask], int]:
    """A function that finds what is asked and makes the first page of Browse of it; gives how many were found."""
    from app.browse_rows import browse_rows
    from explorer.cache import Cache
    from explorer.labels import LabelStore
    from explorer.search import search

    cache = Cache.open(path)
    store = LabelStore.over(cache, path.parent / "labels.sqlite")

    def page(ask: Ask) -> int:
        said = store.all(cache.manifest.sae_fingerprint)  # as Browse, the command and the API ask for them each time
        labels = {i: label.label for i, label in said.items() if label.label}
        notes = {i: label.note for i, label in said.items() if label.note}
        found = search(cache, query=ask.query, labels=labels, notes=notes, limit=ROWS, **ask.by)
        assert len(browse_rows(cache, found.rows)) == min(ROWS, found.total)
        return found.total

    return page


def measure(n_features: int = FEATURES, rounds: int = ROUNDS, each: int = EACH) -> dict:
    """Every figure."""
    with tempfile.TemporaryDirectory() as scratch:
        path, words = write(Path(scratch) / "million", n_features, min(LABELS, n_features // 50))
        return timed(path, words, rounds, each)


def timed(path: Path, words: Words, rounds: int = ROUNDS, each: int = EACH) -> dict:
    """The figures of a cache that is there."""
    assert "torch" not in sys.modules
    # outside a server Streamlit warns at each of 25 links, which takes longer than to find them
    logging.disable(logging.WARNING)
    home = path.parent / "home"
    os.environ["PERSONA_EXPLORER_HOME"] = str(home)
    every = asks(words, each)
    page = pages(path)
    first = seconds(lambda: page(Ask("first", words.texts[0])))  # opens the cache and makes the index
    page = pages(path)  # as a process that comes later: nothing is in memory yet
    opened = seconds(lambda: page(Ask("first", words.texts[0])))
    common = page(Ask("everywhere", words.texts[0]))
    for ask in every:
        page(ask)
    times: list[list[float]] = [[1000 * seconds(lambda ask=ask: page(ask)) for ask in every] for _ in range(rounds)]
    kinds = dict.fromkeys(ask.kind for ask in every)
    each_kind = {
        kind: [
            float(np.percentile([t for t, ask in zip(row, every, strict=True) if ask.kind == kind], 95))
            for row in times
        ]
        for kind in kinds
    }
    slowest = max(each_kind, key=lambda kind: float(np.median(each_kind[kind])))
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) / 1e6
    n = words.features
    what = (
        f"{n:,} features with {words.each} words of examples each, {len(words.texts):,} words that come as in language and one that "
        f"{common:,} features have, {words.labels:,} labels; search, labels and the first {ROWS} rows of Browse with their examples"
    )
    assert "torch" not in sys.modules
    return {
        "search_million_ms": figure(
            [float(np.percentile(row, 95)) for row in times],
            "ms",
            f"95th percentile of {len(every)} queries of {len(kinds)} kinds; {what}",
            at_most=MOST,
        ),
        "search_million_median_ms": figure(
            [float(np.median(row)) for row in times], "ms", "The median of the same queries"
        ),
        "search_million_slowest_ms": figure(
            each_kind[slowest], "ms", f"95th percentile of the slowest kind: {slowest}", at_most=MOST
        ),
        "search_million_index_s": figure(
            [first],
            "s",
            f"Once: the first search, which makes the index and keeps it on disk ({size:,.0f} MB); the whole process peaks at "
            f"{peak_memory_mb():,.0f} MB",
        ),
        "search_million_open_s": figure([opened], "s", "The first search of a process that finds the index on disk"),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
