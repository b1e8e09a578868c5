"""Lists, remarks, queues, suggestions, scores, and what a label rests on: all kept with author and time, in either database."""

from dataclasses import replace

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from explorer.agreement import latest
from explorer.assignments import Assignments, Progress, Queue
from explorer.cache import Cache
from explorer.errors import LabelError
from explorer.evidence_lock import Evidence, changed, confirms, flagged, seen
from explorer.labels import Label, LabelStore
from explorer.lists import FeatureList, Lists, as_yaml, checked, read_yaml
from explorer.remarks import Remarks
from explorer.scores import Score, Scores
from explorer.suggestions import Suggestion, Suggestions
from tests.helpers_cache import fake_cache
from tests.helpers_database import place, postgres  # noqa: F401

SAE, OTHER = "f" * 64, "e" * 64


# Lists


def test_a_list_keeps_its_order_and_each_feature_once(place):  # noqa: F811
    lists = Lists(place)
    lists.put(FeatureList(SAE, "  cruel   ones ", (5, 3, 5), "villains", "ana"))
    lists.add(SAE, "cruel ones", [3, 9], author="ben")
    found = lists.get(SAE, "cruel ones")
    assert (found.features, found.note, found.author) == ((5, 3, 9), "villains", "ben")
    assert lists.take_away(SAE, "cruel ones", [3], author="ana").features == (5, 9)
    assert lists.get(OTHER, "cruel ones") is None
    lists.database.close()


def test_a_list_that_was_removed_is_gone_and_can_be_begun_again(place):  # noqa: F811
    lists = Lists(place)
    lists.add(SAE, "one", [1], author="ana")
    lists.add(SAE, "two", [2], author="ana")
    lists.remove(SAE, "one", author="ana")
    assert [one.name for one in lists.all(SAE)] == ["two"]
    assert lists.add(SAE, "one", [7], author="ana").features == (7,)
    lists.database.close()


@pytest.mark.parametrize(
    "given",
    [
        FeatureList(SAE, ""),
        FeatureList(SAE, "x" * 61),
        FeatureList(SAE, "bell\a"),
        FeatureList("", "name"),
        FeatureList(SAE, "name", (-1,)),
        FeatureList(SAE, "name", (True,)),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path, given):
    with pytest.raises(LabelError):
        Lists(tmp_path / "labels.sqlite").put(given)
    assert not (tmp_path / "labels.sqlite").exists()


def test_lists_come_back_from_yaml_as_they_went(tmp_path):
    lists = [FeatureList(SAE, "ünï: cødé", (3, 1), "note: # '\"\nsecond line"), FeatureList(SAE, "empty")]
    (tmp_path / "lists.yaml").write_text(as_yaml(lists), encoding="utf-8")
    assert read_yaml(tmp_path / "lists.yaml") == lists


@given(st.text(min_size=1, max_size=60), st.text(max_size=200))
@example("null", "true")
@example("1e3", "2026-01-31")
@example("- a: *b", "!!python/name:os.getcwd")
@example("<script>alert(1)</script>", "a\r\nb\x85c\u2028d\ufeff\u202e\t")
@example("=1+1", "---\n...\n%TAG !")
def test_lists_of_any_words_come_back_from_yaml_as_they_went(tmp_path_factory, name, note):
    try:
        sent = checked(FeatureList(SAE, name, (3, 1), note))
    except LabelError:
        reject()
    path = tmp_path_factory.getbasetemp() / "lists.yaml"
    path.write_text(as_yaml([sent, sent]), encoding="utf-8")
    assert read_yaml(path) == [sent, sent]


@pytest.mark.parametrize(
    "text", ["", "a: [", "lists: 3", "lists: [{name: x}]", "!!python/object/apply:os.getcwd []", "lists: [{name: a, sae: b, features: [x]}]"]
)  # fmt: skip
def test_yaml_that_holds_no_lists_is_refused_in_words(tmp_path, text):
    (tmp_path / "lists.yaml").write_text(text)
    with pytest.raises(LabelError):
        read_yaml(tmp_path / "lists.yaml")


# Remarks


def test_comments_are_kept_in_order_and_only_their_author_takes_one_back(place):  # noqa: F811
    remarks = Remarks(place)
    remarks.comment(SAE, 7, " Is this <b>sarcasm</b>? ", author="ana")
    remarks.comment(SAE, 7, "No.", author="ben")
    first, second = remarks.comments(SAE, 7)
    assert (first.text, second.author) == ("Is this <b>sarcasm</b>?", "ben")
    with pytest.raises(LabelError, match="ana's"):
        remarks.take_back(SAE, first, author="ben")
    remarks.take_back(SAE, first, author="ana")
    assert [comment.text for comment in remarks.comments(SAE, 7)] == ["No."]
    assert remarks.counts(SAE) == {7: 1}
    with pytest.raises(LabelError, match="0 characters"):
        remarks.comment(SAE, 7, "  ", author="ana")
    remarks.database.close()


def test_tags_are_put_on_and_taken_off(place):  # noqa: F811
    remarks = Remarks(place)
    remarks.tag(SAE, 7, "Persona", author="ana")
    remarks.tag(SAE, 7, "style", author="ben")
    remarks.tag(SAE, 8, "style", author="ben")
    remarks.tag(SAE, 8, "STYLE", author="ana", on=False)
    assert remarks.tags(SAE) == {7: {"persona", "style"}}
    remarks.database.close()


def test_a_persons_newest_vote_counts(place):  # noqa: F811
    remarks = Remarks(place)
    for who, value in (("ana", 1), ("ben", 1), ("ana", -1), ("eve", 1), ("eve", 0)):
        remarks.vote(SAE, 7, 3, value, author=who)
    assert remarks.votes(SAE, 7) == {3: {"ana": -1, "ben": 1}}
    with pytest.raises(LabelError, match="1, -1 or 0"):
        remarks.vote(SAE, 7, 3, 2, author="ana")
    remarks.database.close()


# Queues


def test_a_queue_is_dealt_out_and_progress_is_told_by_person(place):  # noqa: F811
    assignments = Assignments(place)
    queue = assignments.put(Queue(SAE, "first", (1, 2, 3, 4, 5), ("ana", "ben"), query="king"))
    assert (queue.share("ana"), queue.share("ben"), queue.share("eve")) == ((1, 3, 5), (2, 4), ())
    assignments.mark(queue, 1, "done", author="ana")
    assignments.mark(queue, 3, "skipped", author="ana")
    assert assignments.left(queue, "ana") == [5]
    assert assignments.progress(queue) == {"ana": Progress(1, 1, 3), "ben": Progress(0, 0, 2)}
    assert assignments.get(SAE, "first").query == "king"
    assignments.database.close()


def test_of_a_blind_queue_every_feature_goes_to_two_people(tmp_path):
    queue = Queue(SAE, "blind", tuple(range(10)), ("ana", "ben", "eve"), blind=True)
    shares = [queue.share(name) for name in queue.people]
    assert sorted(feature for share in shares for feature in share) == sorted([*range(10)] * 2)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(LabelError, match="two people"):
        Assignments(tmp_path / "labels.sqlite").put(replace(queue, people=("ana",)))


def test_whoever_comes_takes_what_is_left_of_an_open_queue(place):  # noqa: F811
    assignments = Assignments(place)
    queue = assignments.put(Queue(SAE, "open", (1, 2, 3)))
    assignments.mark(queue, 1, "done", author="ana")
    assignments.mark(queue, 2, "skipped", author="ana")
    assert assignments.left(queue, "ben") == [2, 3]
    blind = assignments.put(replace(queue, name="blind", blind=True))
    assignments.mark(blind, 1, "done", author="ana")
    assert assignments.left(blind, "ben") == [1, 2, 3]
    assignments.mark(blind, 1, "done", author="eve")
    assert assignments.left(blind, "ben") == [2, 3]
    assignments.remove(SAE, "open", author="ana")
    assert [one.name for one in assignments.all(SAE)] == ["blind"]
    assignments.database.close()


# Suggestions


def test_a_suggestion_overwrites_nothing_and_becomes_a_label_only_by_a_person(place):  # noqa: F811
    suggestions, labels = Suggestions(place), LabelStore(place)
    labels.put(SAE, 7, "kings", author="ana")
    given = [Suggestion(SAE, 7, "royalty", "some-model", 0.8, {"n": 12}), Suggestion(SAE, 7, "crowns", "other", 0.9)]
    assert suggestions.add(given) == 2
    assert suggestions.add(given) == 0, "the same again"
    assert labels.get(SAE, 7).label == "kings"
    best, second = suggestions.of(SAE, 7)
    assert (best.text, second.details) == ("crowns", {"n": 12})
    suggestions.dismiss(best, author="ana")
    made = suggestions.accept(second, labels, author="ben")
    assert (made.label, made.author) == ("royalty", "ben")
    assert [label.label for label in labels.history(SAE, 7)] == ["kings", "royalty"]
    assert suggestions.open(SAE) == {}
    labels.close()
    suggestions.database.close()


def test_one_bad_suggestion_keeps_all_of_them_out(tmp_path):
    suggestions = Suggestions(tmp_path / "labels.sqlite")
    with pytest.raises(LabelError):
        suggestions.add([Suggestion(SAE, 7, "fine", "m"), Suggestion(SAE, 8, "", "m")])
    assert suggestions.open(SAE) == {}


# Scores


def test_people_and_machines_share_one_scale(place):  # noqa: F811
    scores = Scores(place)
    scores.add(Score(SAE, 7, "kings", "ana", "person", "quiz", 0.75, 12, {"answers": [True, False]}))
    scores.add(Score(SAE, 7, "kings", "some-model", "machine", "detection", 0.5, 12))
    first, second = scores.of(SAE, 7)
    assert (first.who, first.score, first.details) == ("ana", 0.75, {"answers": [True, False]})
    assert second.method == "detection"
    assert scores.of(SAE, 8) == []
    for wrong in (replace(first, score=1.2), replace(first, method="guess"), replace(first, n=0)):
        with pytest.raises(LabelError):
            scores.add(wrong)
    scores.database.close()


# What a label rests on


def test_evidence_says_what_was_seen_and_is_flagged_only_once_it_has_changed(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "one", 20))
    evidence = seen(cache, cache.examples(9, "top"))
    assert len(evidence.examples) == 24
    assert evidence.intervals[-1] == 4
    text = evidence.to_json()
    assert Evidence.from_json(text) == evidence
    assert changed(text, cache, 9) == ""
    same = Cache.open(fake_cache(tmp_path / "same", 20))
    assert changed(text, same, 9) == "", "built again over the same corpus"
    other = Cache.open(fake_cache(tmp_path / "other", 20, seed=1))
    assert "of the 24 examples" in changed(text, other, 9)


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"cache": 1, "examples": 3, "intervals": []}'])
def test_evidence_that_cannot_be_read_flags_nothing(tmp_path, text):
    cache = Cache.open(fake_cache(tmp_path / "one", 20))
    assert changed(text, cache, 9) == ""


def test_a_label_that_was_looked_at_again_rests_on_what_is_there_now_and_its_old_words_are_kept(place, tmp_path):  # noqa: F811
    store = LabelStore(place)
    old, new = (Cache.open(fake_cache(tmp_path / str(seed), 20, seed=seed)) for seed in (0, 1))
    said = Label(SAE, 9, "kings", "crowns too", 2, "ana", evidence=seen(old, old.examples(9)).to_json())
    first, _ = store.lay(said)
    assert set(flagged(store.all(SAE), new)) == {9}
    assert store.lay(said, {first.id})[0] == first, "the same words again, by accident, are no change"
    looked = replace(seen(new, new.examples(9)), again=True)
    again, conflict = store.lay(replace(said, evidence=looked.to_json()), {first.id})
    assert conflict is None
    assert (again.label, again.note, again.confidence, again.author) == ("kings", "crowns too", 2, "ana")
    assert again.created_at > first.created_at
    assert Evidence.from_json(store.get(SAE, 9).evidence) == looked
    assert not flagged(store.all(SAE), new)
    assert store.lay(replace(said, evidence=looked.to_json()))[0].id == again.id, "not twice on the same evidence"
    assert [confirms(change) for change in store.history(SAE, 9)] == [False, True]
    undone = store.undo(SAE, 9, author="ben")
    assert set(flagged(store.all(SAE), new)) == {9}, "taken back: it rests on the old examples again"
    assert not confirms(undone)
    store.close()


def test_whoever_confirms_over_words_that_they_have_not_seen_is_told_and_both_are_kept(place, tmp_path):  # noqa: F811
    store, cache = LabelStore(place), Cache.open(fake_cache(tmp_path / "one", 20))
    first = store.put(SAE, 9, "kings", author="ana", evidence=Evidence("old", ("1:2:3",)).to_json())
    store.put(SAE, 9, "queens", author="ben")
    looked = replace(seen(cache, cache.examples(9)), again=True).to_json()
    saved, theirs = store.lay(Label(SAE, 9, "kings", author="ana", evidence=looked), {first.id})
    assert theirs is not None
    assert (saved.label, theirs.label, theirs.author) == ("kings", "queens", "ben")
    assert [change.label for change in store.history(SAE, 9)] == ["kings", "queens", "kings"]
    store.close()


def test_whoever_confirms_the_words_of_another_has_not_named_the_feature_a_second_time(tmp_path):
    store, cache = LabelStore(tmp_path / "labels.sqlite"), Cache.open(fake_cache(tmp_path / "one", 20))
    store.put(SAE, 9, "kings", author="ana", evidence=Evidence("old", ("1:2:3",)).to_json())
    looked = replace(seen(cache, cache.examples(9)), again=True).to_json()
    store.put(SAE, 9, "kings", author="ben", evidence=looked)
    assert [change.author for change in store.history(SAE, 9)] == ["ana", "ben"]
    assert set(latest(store.changes(SAE))[9]) == {"ana"}
    for shown in (store.get(SAE, 9), store.all(SAE)[9]):
        assert (shown.author, shown.evidence) == ("ana", looked), "the words stay those of who wrote them"


# Several at once


def test_a_label_is_given_to_those_without_one_all_or_nothing(place, monkeypatch):  # noqa: F811
    store = LabelStore(place)
    store.put(SAE, 3, "ships", author="ben")
    store.put(SAE, 4, "gone", author="ben")
    store.put(SAE, 4, "", author="ben")
    assert store.fill(SAE, [5, 3, 4, 5], "royalty", author=" ana ") == [5, 4]
    assert {f: (one.label, one.author) for f, one in store.all(SAE).items()} == {
        3: ("ships", "ben"), 4: ("royalty", "ana"), 5: ("royalty", "ana"),
    }  # fmt: skip
    assert store.fill(SAE, range(6), "more", author="ana") == [0, 1, 2]
    before, insert = store.all(SAE), LabelStore._insert

    def breaks(self, connection, said, *rest):
        if said.feature == 8:
            raise LabelError("The disk is full")
        return insert(self, connection, said, *rest)

    monkeypatch.setattr(LabelStore, "_insert", breaks)
    with pytest.raises(LabelError, match="full"):
        store.fill(SAE, [6, 7, 8], "half", author="ana")
    assert store.all(SAE) == before
    with pytest.raises(LabelError):
        store.fill(SAE, [9], "x" * 100_000, author="ana")
    store.database.close()


def test_many_features_are_tagged_in_one_go(place):  # noqa: F811
    remarks = Remarks(place)
    remarks.tag(SAE, range(500), "Villain", author="ana")
    remarks.tag(SAE, [3, 4], "villain", author="ben", on=False)
    tags = remarks.tags(SAE)
    assert len(tags) == 498
    assert 3 not in tags
    with pytest.raises(LabelError):
        remarks.tag(SAE, [1, 2], "", author="ana")
    remarks.database.close()
