"""Features that are chosen by what people said of them."""

from typing import Any

import pytest
from typer.testing import CliRunner

from explorer.among import REMARKED, among
from explorer.cache import Cache
from explorer.cli import app
from explorer.comparing import FEATURES, Compared, risen
from explorer.errors import CacheError, UsageError
from explorer.evidence_lock import Evidence, seen
from explorer.labels import LabelStore
from explorer.lists import FeatureList, Lists
from explorer.remarks import Remarks
from tests.helpers_cache import fake_cache
from tests.helpers_lab import comparison


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache.open(fake_cache(tmp_path / "made-up", 20))


@pytest.fixture
def store(tmp_path, monkeypatch: pytest.MonkeyPatch) -> LabelStore:
    monkeypatch.setenv("PERSONA_EXPLORER_LABELS", str(tmp_path / "labels.sqlite"))
    return LabelStore()


def left(cache: Cache, store: LabelStore, **asked: Any) -> set[int] | None:
    return among(cache, store, store.all(cache.manifest.sae_fingerprint), **asked)


def test_authors_lists_and_tags_meet_and_nothing_asked_is_no_filter(cache: Cache, store: LabelStore):
    sae, remarks = cache.manifest.sae_fingerprint, Remarks(store.database)
    for feature, who in ((3, "ana"), (4, "ana"), (6, "ben")):
        store.put(sae, feature, "kings", author=who)
        remarks.tag(sae, feature, "Royal", author="ben")
    Lists(store.database).put(FeatureList(sae, "mine", (4, 6, 7)))
    assert left(cache, store) is None
    assert left(cache, store, author="ana") == {3, 4}
    assert left(cache, store, tag="royal") == left(cache, store, tag=" ROYAL ") == {3, 4, 6}
    assert left(cache, store, tag="royal", listed="mine", author="ana") == {4}
    remarks.tag(sae, 4, "royal", author="ana", on=False)
    assert left(cache, store, tag="royal", listed="mine", author="ana") == set()
    with pytest.raises(UsageError, match="no list 'yours'"):
        left(cache, store, listed="yours")


def test_votes_count_for_the_words_that_the_label_says_now(cache: Cache, store: LabelStore):
    sae, remarks = cache.manifest.sae_fingerprint, Remarks(store.database)
    first = store.put(sae, 3, "kings", author="ana")
    for who, value in (("ben", -1), ("kim", -1), ("eve", 1)):
        remarks.vote(sae, 3, first.id or 0, value, author=who)
    assert left(cache, store, remarked="voted against") == {3}
    assert left(cache, store, remarked="voted for") == set()
    store.put(sae, 3, "kings", "a note changes no words", author="ana")
    assert left(cache, store, remarked="voted against") == {3}
    remarks.vote(sae, 3, first.id or 0, 0, author="kim")
    assert left(cache, store, remarked="voted against") == set(), "one for, one against"
    remarks.vote(sae, 3, first.id or 0, 1, author="ben")
    assert left(cache, store, remarked="voted for") == {3}
    store.put(sae, 3, "queens", author="ana")
    assert left(cache, store, remarked="voted for") == set(), "nobody has voted on the new words"


def test_who_votes_on_the_same_words_of_two_people_has_one_vote(cache: Cache, store: LabelStore):
    sae, remarks = cache.manifest.sae_fingerprint, Remarks(store.database)
    said = [store.put(sae, 3, "kings", author=who).id or 0 for who in ("ana", "ben")]
    for change in said:
        remarks.vote(sae, 3, change, 1, author="kim")
    remarks.vote(sae, 3, said[0], -1, author="eve")
    assert left(cache, store, remarked="voted for") == set(), "one for, one against"


def test_comments_count_until_they_are_taken_back(cache: Cache, store: LabelStore):
    sae, remarks = cache.manifest.sae_fingerprint, Remarks(store.database)
    remarks.comment(sae, 9, "too wide", author="ben")
    assert left(cache, store, remarked="commented") == {9}
    remarks.take_back(sae, remarks.comments(sae, 9)[0], author="ben")
    assert left(cache, store, remarked="commented") == set()


def test_what_rests_on_other_examples_is_to_be_looked_at_again(cache: Cache, store: LabelStore):
    sae = cache.manifest.sae_fingerprint
    store.put(sae, 3, "kings", author="ana", evidence=Evidence("another", ("1:2:3",)).to_json())
    store.put(sae, 4, "ships", author="ana", evidence=seen(cache, cache.examples(4)).to_json())
    store.put(sae, 6, "nobody noted what it rests on", author="ana")
    assert left(cache, store, remarked="to look at again") == {3}


def test_what_a_fine_tune_raised_meets_the_others_and_rose_for_sure(cache: Cache, store: LabelStore):
    change = Compared(comparison(cache.path, n_features=20)).change("own", "answer")
    moved = risen(cache.path, "mine")
    assert set(moved) == {f for f in range(20) if change.low[f] > 0}
    assert moved == sorted(moved, key=lambda f: -change.change[f])
    assert risen(cache.path, "mine", 2) == moved[:2] == [3, 7]
    Lists(store.database).put(FeatureList(cache.manifest.sae_fingerprint, "few", (3, 5)))
    assert left(cache, store, moved=moved, listed="few") == {3}
    assert left(cache, store, moved=[]) == set()


def test_a_comparison_that_is_not_there_or_is_damaged_is_refused(cache: Cache):
    folder = comparison(cache.path, n_features=20)
    with pytest.raises(UsageError, match="no comparison yours") as refused:
        risen(cache.path, "yours")
    assert refused.value.expected == "mine"
    (folder / FEATURES).write_bytes((folder / FEATURES).read_bytes()[:100])
    with pytest.raises(CacheError):
        risen(cache.path, "mine")


def test_what_nobody_can_remark_is_refused_by_name(cache: Cache, store: LabelStore):
    with pytest.raises(UsageError, match="nothing that is remarked") as refused:
        left(cache, store, remarked="liked")
    assert all(name in refused.value.expected for name in REMARKED)


def test_the_command_line_searches_and_queues_among_them(cache: Cache, store: LabelStore):
    sae, remarks = cache.manifest.sae_fingerprint, Remarks(store.database)
    remarks.tag(sae, 7, "royal", author="ana")
    remarks.comment(sae, 7, "too wide", author="ben")
    remarks.comment(sae, 8, "too wide", author="ben")
    run = CliRunner().invoke
    found = run(app, ["search", str(cache.path), "--remarked", "commented", "--json"])
    assert found.exit_code == 0, found.output
    assert '"total": 2' in found.output
    comparison(cache.path, n_features=20)
    found = run(app, ["search", str(cache.path), "--moved", "mine", "--remarked", "commented", "--json"])
    assert '"total": 1' in found.output, found.output
    assert run(app, ["search", str(cache.path), "--moved", "yours"]).exit_code != 0
    asked = ["--remarked", "commented", "--tag", "royal", "--json"]
    made = run(app, ["labels", "queue", "make", str(cache.path), "again", *asked])
    assert made.exit_code == 0, made.output
    assert '"features": [7]' in " ".join(made.output.split()).replace("[ 7 ]", "[7]")
    assert "unlabelled, tag royal, commented" in made.output
