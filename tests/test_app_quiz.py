"""Test my label, on a page that holds nothing else."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import label_form
from explorer.cache import Cache
from explorer.errors import LabelError
from explorer.labels import LabelStore
from explorer.scores import Scores
from explorer.snippets import held_out
from tests.helpers_app import drawn, words
from tests.helpers_cache import HOSTILE, fake_cache

SAE = "s" * 64
KEY = f"quiz-{SAE[:12]}-1"


def page() -> None:
    import streamlit as st

    from app import resources, state
    from app.quiz_form import test_my_label

    feature = int(st.query_params.get("feature", "1"))
    cache = state.cache()
    sae = cache.manifest.sae_fingerprint
    label = resources.labels().get(sae, feature)
    st.session_state["asking"] = test_my_label(cache, sae, feature, label)


@pytest.fixture
def cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(label_form, "machine_user", lambda: "ada")
    return Cache.open(fake_cache(caches / "made-up", 24, n_windows=120, longest=160))


@pytest.fixture
def store(cache: Cache, tmp_path: Path) -> LabelStore:
    made = LabelStore(tmp_path / "home" / "labels.sqlite")
    made.put(SAE, 1, "crowns", author="ada")
    return made


def opened(**query: str) -> AppTest:
    app = AppTest.from_function(page, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def begun(**query: str) -> AppTest:
    app = opened(**query)
    feature = query.get("feature", "1")
    return app.button(key=f"quiz-{SAE[:12]}-{feature}-begin").click().run()


def answered(app: AppTest, cache: Cache, say) -> AppTest:
    for snippet in held_out(cache, 1).snippets:
        app.button(key=f"{KEY}-{'Y' if say(snippet) else 'N'}").click().run()
        assert not app.exception
    return app


def test_without_a_label_there_is_nothing_to_test(cache: Cache, store: LabelStore):
    app = opened(feature="2")
    assert not app.exception
    assert len(app.button) == 0
    store.put(SAE, 2, "not interpretable", author="ada")
    assert len(opened(feature="2").button) == 0


def test_a_question_shows_the_text_of_a_snippet_the_label_and_no_activation(cache: Cache, store: LabelStore):
    app = begun()
    assert not app.exception
    assert app.session_state["asking"] is True
    first = held_out(cache, 1).snippets[0]
    told = words(app)
    assert "Snippet 1 of 12" in told
    assert "crowns" in told
    plain = cache.vocabulary.text(first.tokens).split()
    assert sum(word in told for word in plain if word.isalpha()) > 3
    assert not [e for e in app.main if e.type == "bidi_component"]  # type: ignore[union-attr]
    assert [b.proto.shortcut for b in app.button][:3] == ["y", "n", "b"]


def test_whoever_is_always_right_scores_one_and_sees_the_truth(cache: Cache, store: LabelStore):
    app = answered(begun(), cache, lambda s: s.fires)
    assert app.session_state["asking"] is False
    assert "right about <b>12 of 12</b>: score <b>1.00</b>" in words(app)
    rows = drawn(app, "token_heatmap")["rows"]
    assert len(rows) == 12
    assert {row["group"] for row in rows} == {"Right: it fires", "Right: it does not fire"}
    assert all((row["peak"] >= 0) == (row["group"] == "Right: it fires") for row in rows)


def test_the_score_is_kept_under_the_persons_name_and_the_next_test_asks_about_other_snippets(cache, store, tmp_path):
    answered(begun(), cache, lambda s: s.fires)
    (kept,) = Scores(tmp_path / "home" / "labels.sqlite").of(SAE, 1)
    assert (kept.label, kept.who, kept.method, kept.score) == ("crowns", "ada", "quiz", 1.0)
    app = begun()
    again = {s.id for s in app.session_state[KEY].snippets}
    assert again
    assert not again & set(kept.details["answers"])


def test_a_score_that_cannot_be_kept_is_shown_and_can_be_kept_later(cache, store, monkeypatch):
    app = begun()
    said = LabelError("The disk is full", do="Make room")

    def fails(*_: object) -> None:
        raise said

    with monkeypatch.context() as patch:
        patch.setattr(Scores, "add", fails)
        answered(app, cache, lambda s: s.fires)
    assert "The disk is full" in words(app)
    assert "score <b>1.00</b>" in words(app)
    app.button(key=f"{KEY}-keep").click().run()
    assert not app.exception
    assert "The disk is full" not in words(app)


def test_always_yes_scores_a_half_and_is_told_that_the_label_is_too_wide(cache: Cache, store: LabelStore):
    app = answered(begun(), cache, lambda s: True)
    told = words(app)
    assert "score <b>0.50</b>" in told
    assert "0 missed, 6 false alarms. The label may be too wide." in told
    assert drawn(app, "token_heatmap")["rows"][0]["group"].startswith("False alarm")


def test_an_answer_can_be_taken_back(cache: Cache, store: LabelStore):
    app = begun()
    assert app.button(key=f"{KEY}-B").disabled
    app.button(key=f"{KEY}-Y").click().run()
    assert "Snippet 2 of 12" in words(app)
    app.button(key=f"{KEY}-B").click().run()
    assert "Snippet 1 of 12" in words(app)
    app.button(key=f"{KEY}-stop").click().run()
    assert app.button(key=f"{KEY}-begin")


def test_another_label_needs_another_test(cache: Cache, store: LabelStore):
    app = begun()
    store.put(SAE, 1, "crowns and kings", author="ada")
    app.run()
    assert app.button(key=f"{KEY}-begin")
    assert app.session_state["asking"] is False


def test_a_feature_without_held_out_snippets_says_so(cache: Cache, store: LabelStore):
    store.put(SAE, 5, "dead", author="ada")
    app = begun(feature="5")
    assert not app.exception
    assert "never fires" in words(app)


def test_hostile_text_stays_text(cache: Cache, store: LabelStore):
    store.put(SAE, 3, HOSTILE[0].decode(), author="ada")
    app = begun(feature="3")
    assert not app.exception
    assert "<script>" not in words(app)
    assert "&lt;script&gt;" in words(app)
