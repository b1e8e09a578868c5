"""Labelling by several people, without a browser: queues, several features at once, remarks, what a label rests on."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import resources
from app.engine import Engine
from app.quiz_form import Quiz
from explorer.assignments import Queue
from explorer.cache import Cache
from explorer.errors import LabelError
from explorer.evidence_lock import Evidence, fingerprint
from explorer.lists import FeatureList
from explorer.snippets import held_out
from explorer.suggestions import Suggestion
from tests.helpers_app import drawn, run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.test_meaning import Letters


@pytest.fixture
def cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """One made-up cache, and a person called ana."""
    monkeypatch.setattr("app.label_form.machine_user", lambda: "ana")
    return Cache.open(fake_cache(caches / "made-up", 60, dead=()))


def sae(cache: Cache) -> str:
    return cache.manifest.sae_fingerprint


def box(cache: Cache, feature: int) -> str:
    return f"label-text-{sae(cache)[:12]}-{feature}"


def save(app: AppTest, cache: Cache, feature: int, label: str) -> AppTest:
    if label:
        app.text_input(key=box(cache, feature)).set_value(label).run()
    return app.button(key="label-next").click().run()


def test_a_shared_queue_is_walked_through_in_its_order_and_counts_for_its_person(cache: Cache):
    queue = resources.assignments().put(Queue(sae(cache), "first", (9, 4, 30, 7), ("ana", "ben")))
    app = run_page("label", queue="shared:first")
    assert not app.exception
    assert "<h1>#9" in words(app)
    app = save(app, cache, 9, "kings")
    assert "<h1>#30" in words(app), "4 and 7 are ben's"
    app = save(app, cache, 30, "")
    assert "Queue done" in words(app)
    assert resources.assignments().marks(queue) == {"ana": {9: "done", 30: "skipped"}}
    assert "ana <b>2</b> of 2 (1 skipped)" in words(app)
    app = run_page("label", queue="shared:first")
    assert "<h1>#9" in words(app), "all is dealt with: it begins again"


def test_a_list_is_a_queue_too(cache: Cache):
    resources.lists().put(FeatureList(sae(cache), "mine", (12, 3), author="ana"))
    app = run_page("label", queue="list:mine")
    assert "<h1>#12" in words(app)
    assert "<h1>#3" in words(save(app, cache, 12, "ships"))


def test_a_queue_that_is_not_there_any_more_says_so(cache: Cache):
    for name in ("shared:gone", "list:gone"):
        app = run_page("label", queue=name)
        assert not app.exception
        assert "Nothing in this queue" in words(app)
        assert "not there any more" in words(app)
        assert "has a label." not in words(app), "nobody has labelled anything"


def test_a_label_notes_what_it_rests_on_and_is_flagged_when_that_has_changed(cache: Cache, caches: Path):
    save(run_page("label", feature="9"), cache, 9, "kings")
    label = resources.labels().get(sae(cache), 9)
    evidence = Evidence.from_json(label.evidence)
    assert evidence is not None
    assert len(evidence.examples) >= 10
    assert "Look again" not in words(run_page("label", feature="9"))
    fake_cache(caches / "made-up", 60, dead=(), seed=1)
    resources.forget()
    assert "Look again" in words(run_page("label", feature="9"))
    assert resources.labels().get(sae(cache), 9).label == "kings", "flagged, not dropped"


@pytest.mark.parametrize("page", ["label", "feature"])
def test_a_flagged_label_is_confirmed_as_it_stands_and_that_can_be_taken_back(cache: Cache, page: str):
    store, old = resources.labels(), Evidence("another cache", ("1:2:3",), (4,)).to_json()
    store.put(sae(cache), 9, "kings", "all of them", 2, author="ana", evidence=old)
    app = run_page(page, feature="9")
    assert "1 of the 1 examples" in words(app)
    holds = app.button(key=f"{page}-holds-{sae(cache)[:12]}-9")
    assert holds.proto.shortcut == ("h" if page == "label" else "")
    app = holds.click().run()
    assert not app.exception
    assert "Look again" not in words(app)
    assert "confirmed <b>" in words(app)
    assert "looked again, it still holds" in words(app), "the history says so"
    _, again = store.history(sae(cache), 9)
    assert (again.label, again.note, again.confidence, again.author) == ("kings", "all of them", 2, "ana")
    evidence = Evidence.from_json(again.evidence)
    assert evidence is not None
    assert (evidence.cache, evidence.again) == (fingerprint(cache), True)
    assert len(evidence.examples) >= 10
    undo = "label-u" if page == "label" else f"feature-undo-{sae(cache)[:12]}-9"
    assert "Look again" in words(app.button(key=undo).click().run())
    assert len(store.history(sae(cache), 9)) == 3


def test_what_somebody_else_said_while_one_looked_again_is_in_view_and_kept(cache: Cache):
    store = resources.labels()
    store.put(sae(cache), 9, "kings", author="ana", evidence=Evidence("another cache", ("1:2:3",)).to_json())
    app = run_page("label", feature="9")
    store.put(sae(cache), 9, "queens", author="ben")
    app = app.button(key=f"label-holds-{sae(cache)[:12]}-9").click().run()
    assert "ben saved “queens”" in words(app)
    assert [change.label for change in store.history(sae(cache), 9)] == ["kings", "queens", "kings"]


def test_a_confirmation_that_cannot_be_stored_is_said_and_the_flag_stays(cache: Cache, monkeypatch):
    store = resources.labels()
    store.put(sae(cache), 9, "kings", author="ana", evidence=Evidence("another cache", ("1:2:3",)).to_json())
    app = run_page("label", feature="9")

    def full(*args, **more):
        raise LabelError("The disk is full", do="Make room")

    monkeypatch.setattr("explorer.labels.LabelStore.lay", full)
    app = app.button(key=f"label-holds-{sae(cache)[:12]}-9").click().run()
    assert not app.exception
    assert "The disk is full" in words(app)
    assert "Look again" in words(app)
    monkeypatch.undo()
    assert "Look again" not in words(app.button(key=f"label-holds-{sae(cache)[:12]}-9").click().run())


def test_digits_choose_the_confidence_but_not_while_a_test_has_the_keys(cache: Cache):
    app = save(run_page("label", feature="9"), cache, 9, "kings")
    app = run_page("label", feature="9")
    place = f"{sae(cache)[:12]}-9"
    assert listening(app)["choices"] == f"label-sure-{place}"
    app.session_state[f"quiz-{place}"] = Quiz("kings", held_out(cache, 9).snippets)
    assert listening(app.run())["choices"] is None


def listening(app: AppTest) -> dict:
    """What the browser is told to listen for on the page's own keys."""
    found = (e.proto for e in app.main if e.type == "bidi_component")  # type: ignore[union-attr]
    told = [json.loads(proto.json) for proto in found if proto.component_name == "browser"]
    return next(data for data in told if data["box"])


def test_several_features_are_kept_queued_and_named_at_once(cache: Cache):
    resources.labels().put(sae(cache), 3, "ships", author="ben")
    app = run_page("browse")
    app.segmented_control(key="bulk-which").set_value("These").run()
    app.text_input(key="bulk-numbers").set_value("3, #5 8")
    app.text_input(key="bulk-name").set_value("mine")
    app.text_input(key="bulk-people").set_value("ana, ben")
    app.button(key="bulk-list").click().run()
    assert "The list has 3 features now." in words(app)
    assert resources.lists().get(sae(cache), "mine").features == (3, 5, 8)
    app.button(key="bulk-queue").click().run()
    assert resources.assignments().get(sae(cache), "mine").share("ana") == (3, 8)
    app.text_input(key="bulk-words").set_value("royalty")
    app.button(key="bulk-label").click().run()
    assert "2 named; 1 kept the names that they had." in words(app)
    assert {i: label.label for i, label in resources.labels().all(sae(cache)).items()} == {
        3: "ships", 5: "royalty", 8: "royalty",
    }  # fmt: skip
    app.button(key="bulk-tag").click().run()
    assert resources.remarks().tags(sae(cache)) == {f: {"royalty"} for f in (3, 5, 8)}


@pytest.mark.parametrize("said", ["", "3, 99", "none", "1e400"])
def test_numbers_that_are_no_features_are_refused_in_words(cache: Cache, said: str):
    app = run_page("browse")
    app.segmented_control(key="bulk-which").set_value("These").run()
    app.text_input(key="bulk-numbers").set_value(said)
    app.text_input(key="bulk-name").set_value("mine")
    app.button(key="bulk-list").click().run()
    assert not app.exception
    assert "numbers from 0 to 59" in words(app)
    assert resources.lists().all(sae(cache)) == []


@pytest.mark.parametrize("page", ["label", "feature"])
def test_a_feature_is_put_into_lists_and_taken_out(cache: Cache, page: str):
    key, hostile = f"{sae(cache)[:12]}-9", HOSTILE[1].decode()
    resources.lists().put(FeatureList(sae(cache), "persona", (3,), author="ben"))
    app = run_page(page, feature="9")
    app.text_input(key=f"list-{key}").set_value(hostile).run()
    app.button(key=next(b.key for b in app.button if b.label == "persona")).click().run()
    assert not app.exception
    assert "<img src" not in words(app)
    kept = resources.lists()
    assert kept.get(sae(cache), "persona").features == (3, 9)
    assert kept.get(sae(cache), hostile).features == (9,)
    app.button(key=next(b.key for b in app.button if b.label == "persona")).click().run()
    assert kept.get(sae(cache), "persona").features == (3,)


@pytest.mark.parametrize("page", ["label", "feature"])
def test_comments_tags_and_votes_are_kept_and_hostile_ones_are_text(cache: Cache, page: str):
    theirs = resources.labels().put(sae(cache), 9, "crowns", author="ben")
    resources.labels().put(sae(cache), 9, "kings", author="ana")
    key = f"{sae(cache)[:12]}-9"
    app = run_page(page, feature="9")
    app.text_area(key=f"comment-{key}").set_value(HOSTILE[1].decode())
    app.button(key=f"comment-go-{key}").click().run()
    app.text_input(key=f"tag-{key}").set_value("Persona").run()
    app.button(key=f"vote-{key}-{theirs.id}-1").click().run()
    assert not app.exception
    assert "<img src" not in words(app)
    store = resources.remarks()
    assert [c.text for c in store.comments(sae(cache), 9)] == [HOSTILE[1].decode()]
    assert store.tags(sae(cache)) == {9: {"persona"}}
    assert store.votes(sae(cache), 9) == {theirs.id: {"ana": 1}}


def test_votes_stay_with_words_that_are_confirmed(cache: Cache):
    old = resources.labels().put(sae(cache), 9, "kings", author="ben", evidence=Evidence("old", ("1:2:3",)).to_json())
    resources.labels().put(sae(cache), 9, "crowns", author="ana")
    resources.remarks().vote(sae(cache), 9, old.id or 0, 1, author="kim")
    looked = Evidence(fingerprint(cache), again=True).to_json()
    resources.labels().put(sae(cache), 9, "kings", author="ben", evidence=looked)
    app = run_page("label", feature="9")
    assert "ben: 1 for, 0 against" in words(app)
    app.button(key=f"vote-{sae(cache)[:12]}-9-{old.id}--1").click().run()
    assert resources.remarks().votes(sae(cache), 9) == {old.id: {"kim": 1, "ana": -1}}


def test_browse_finds_by_tag_and_by_what_was_remarked_and_says_which_to_clear(cache: Cache):
    resources.remarks().tag(sae(cache), 7, "royal", author="ben")
    resources.remarks().tag(sae(cache), 9, "royal", author="ben")
    resources.remarks().comment(sae(cache), 9, "too wide", author="ben")
    app = run_page("browse", tag="royal")
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]] == [7, 9]
    app = run_page("browse", tag="royal", remarked="commented")
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]] == [9]
    app.text_input(key="bulk-name").set_value("tagged").run()
    app.button(key="bulk-queue").click().run()
    assert resources.assignments().get(sae(cache), "tagged").features == (9,), "a queue from any search"
    app = run_page("browse", tag="royal", remarked="voted for")
    assert "No feature matches the tag and the remarks." in words(app)
    app.button(key="clear-remarked").click().run()
    assert "1 to 2 of <b>2</b>" in words(app)
    assert not run_page("browse", tag="no such tag", remarked="liked").exception


def test_a_suggestion_is_accepted_as_ones_own_label(cache: Cache):
    suggestions = resources.suggestions()
    suggestions.add([Suggestion(sae(cache), 9, "royalty", "some-model", 0.8)])
    (one,) = suggestions.of(sae(cache), 9)
    app = run_page("label", feature="9")
    app.button(key=f"accept-{sae(cache)[:12]}-9-{one.id}").click().run()
    label = resources.labels().get(sae(cache), 9)
    assert (label.label, label.author) == ("royalty", "ana")
    assert suggestions.of(sae(cache), 9) == []


def test_disagreements_have_a_page_and_an_empty_state(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Engine, "embedder", lambda self: Letters())
    app = run_page("label", what="Disagreements")
    assert not app.exception
    assert "Nobody has named the same feature twice yet" in words(app)
    resources.labels().put(sae(cache), 9, "crowns", author="ben")
    resources.labels().put(sae(cache), 9, "kings", author="ana")
    app = run_page("label", what="Disagreements")
    assert "crowns" in words(app)
    assert "kings" in words(app)
