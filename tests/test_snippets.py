"""Held-out snippets: whose status is certain, and which nobody has seen."""

from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.evidence_lock import example_id
from explorer.evidence_lock import seen as evidence
from explorer.snippets import (
    AFTER,
    BEFORE,
    ELSEWHERE,
    KINDS,
    NEAR_MISS,
    NEGATIVES,
    RANDOM,
    TOP,
    WEAK,
    held_out,
    negatives,
    ranks_seen,
    shown,
    span,
    windows_of,
    write_negatives,
)
from tests.helpers_cache import fake_cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cache(tmp_path_factory.mktemp("snippets") / "made-up", 40, n_windows=120, longest=160)


@pytest.fixture
def cache(folder: Path) -> Cache:
    (folder / NEGATIVES).unlink(missing_ok=True)
    return Cache.open(folder)


def table(cache: Cache, feature: int, kinds: str = "nnnnrrrrrrrr") -> dict:
    """Spans in windows of which the feature has no example."""
    own = {e.window for e in cache.examples(feature)}
    free = [w for w in range(len(cache.windows["starts"]) - 1) if w not in own]
    rows = [(NEAR_MISS, 7) if kind == "n" else (RANDOM, -1) for kind in kinds]
    return {
        "feature": [feature] * len(rows),
        "kind": [kind for kind, _ in rows],
        "window": free[: len(rows)],
        "peak": [12] * len(rows),
        "other": [other for _, other in rows],
    }


def test_half_of_the_snippets_fire_and_of_every_kind_the_status_is_what_the_cache_says(cache):
    found = held_out(cache, 0).snippets
    assert len(found) == 12
    assert sum(s.fires for s in found) == 6
    for snippet in found:
        assert snippet.fires == (snippet.kind in (TOP, WEAK))
        own = next(e for e in cache.examples(0) if e.window == snippet.window)
        assert snippet.acts == own.acts[snippet.start : snippet.stop]
        assert snippet.tokens == own.tokens[snippet.start : snippet.stop]


def test_the_peak_lies_in_the_span_and_is_what_it_was_cut_about(cache):
    for snippet in held_out(cache, 0).snippets:
        assert snippet.start <= snippet.peak < snippet.stop
        assert len(snippet.tokens) == len(snippet.acts) == len(snippet.scored) <= BEFORE + AFTER + 1
        if snippet.fires:
            assert snippet.acts[snippet.peak - snippet.start] == max(snippet.acts)
    assert span(100, 50) == (50 - BEFORE, 50 + AFTER + 1)
    assert span(10, 2) == (0, 10)


def test_no_snippet_comes_from_a_window_that_was_seen_and_none_twice_from_one(cache):
    examples = cache.examples(0)
    for seen in (None, {0, 1, 30}):
        ranks = {e.rank for e in shown(examples)} if seen is None else seen
        windows = [s.window for s in held_out(cache, 0, seen=seen).snippets]
        assert not set(windows) & {e.window for e in examples if e.rank in ranks}
        assert len(set(windows)) == len(windows)


def test_everybody_who_has_seen_the_same_is_asked_the_same_and_another_seed_asks_something_else(cache):
    first = [s.id for s in held_out(cache, 2).snippets]
    assert [s.id for s in held_out(cache, 2).snippets] == first
    assert [s.id for s in held_out(cache, 2, seed=1).snippets] != first


def test_whoever_has_seen_one_more_example_keeps_most_snippets(cache):
    ranks = {e.rank for e in shown(cache.examples(2))}
    first = {s.id for s in held_out(cache, 2, seen=ranks).snippets}
    used = next(e.rank for e in cache.examples(2) if example_id(e) in first)
    assert len(first & {s.id for s in held_out(cache, 2, seen={*ranks, used}).snippets}) >= 9


def test_what_an_earlier_test_has_told_is_not_asked_again(cache):
    first = held_out(cache, 2).snippets
    windows = windows_of(cache, [s.id for s in first])
    assert windows == {s.window for s in first}
    assert not windows & {s.window for s in held_out(cache, 2, told=windows).snippets}
    assert windows_of(cache, ["", "1", "99999:0:3", "nonsense"]) == set()


def test_what_a_label_notes_that_it_rests_on_is_not_asked_about(cache):
    examples = cache.examples(2)
    note = evidence(cache, examples[5:9]).to_json()
    assert ranks_seen(cache, 2, note) == {5, 6, 7, 8}
    assert ranks_seen(cache, 2, "") is None
    assert ranks_seen(cache, 2, "nonsense") is None


def test_what_is_shown_is_the_strongest_and_some_of_every_fifth(cache):
    found = shown(cache.examples(1))
    assert [e.kind for e in found].count("top") == 8
    assert [e.interval for e in found if e.kind == "interval"] == [4, 4, 3, 3, 2, 2, 1, 0]


def test_a_feature_that_never_fires_has_no_test_and_the_reason_is_said(cache):
    found = held_out(cache, 5)
    assert found.snippets == ()
    assert "never fires" in found.lacking


def test_a_feature_whose_examples_have_all_been_seen_has_no_test(cache):
    found = held_out(cache, 0, seen=range(100))
    assert found.snippets == ()
    assert found.lacking.startswith("Only 0 held-out snippets on which it fires")


def test_with_a_table_silent_snippets_are_near_misses_and_random_spans(cache):
    write_negatives(cache, table(cache, 0))
    found = held_out(cache, 0)
    assert [s.kind for s in found.snippets].count(NEAR_MISS) == 3
    assert [s.kind for s in found.snippets].count(RANDOM) == 3
    near = next(s for s in found.snippets if s.kind == NEAR_MISS)
    assert (near.other, near.fires) == (7, False)
    start = int(cache.windows["starts"][near.window])
    assert list(near.tokens) == cache.windows["tokens"][start + near.start : start + near.stop].tolist()


def test_a_table_that_holds_too_little_is_filled_up_with_silent_stretches(cache):
    write_negatives(cache, table(cache, 0, "nr"))
    kinds = [s.kind for s in held_out(cache, 0).snippets]
    assert (kinds.count(NEAR_MISS), kinds.count(RANDOM), kinds.count(ELSEWHERE)) == (1, 1, 4)


def test_without_a_table_silent_snippets_are_still_found(cache):
    kinds = {s.kind for f in range(5) for s in held_out(cache, f).snippets}
    assert kinds <= set(KINDS)
    assert ELSEWHERE in kinds
    assert RANDOM not in kinds


def test_the_table_of_another_cache_is_not_used_and_that_is_said(cache, tmp_path):
    other = Cache.open(fake_cache(tmp_path / "other", 40, n_windows=120, longest=160, seed=1))
    path = write_negatives(other, table(other, 0))
    path.rename(cache.path / NEGATIVES)
    assert negatives(cache, 0)[0] == []
    found = held_out(cache, 0)
    assert "made for another cache" in found.lacking
    assert len(found.snippets) == 12


def test_a_damaged_table_is_not_used_and_that_is_said(cache):
    (cache.path / NEGATIVES).write_bytes(b"PAR1 nonsense")
    assert "cannot be read" in held_out(cache, 0).lacking
