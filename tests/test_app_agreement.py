"""The part of a page that shows where two people differ, on a page that holds nothing else."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.agreement_view import MEANT
from app.engine import Engine
from app.jobs import Job
from app.turns import Lane
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.labels import NOT_INTERPRETABLE, LabelStore
from tests.helpers_app import words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.test_meaning import Letters

SAE = "s" * 64


def page() -> None:
    from app import state
    from app.agreement_view import disagreements

    disagreements(state.cache())


@pytest.fixture
def store(caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelStore:
    monkeypatch.setattr(
        Engine, "embedder", lambda self: Letters()
    )  # the real one would still be loading when the tests are over
    Cache.open(fake_cache(caches / "made-up", 60))
    return LabelStore(tmp_path / "home" / "labels.sqlite")


def opened() -> AppTest:
    app = AppTest.from_function(page, default_timeout=60).run()
    assert not app.exception
    return app


def test_where_nobody_has_named_a_feature_twice_the_page_says_how_to_begin(store: LabelStore):
    store.put(SAE, 1, "crowns", author="ada")
    told = words(opened())
    assert "Nobody has named the same feature twice yet" in told
    assert "same queue" in told


def test_both_texts_stand_side_by_side_and_the_worst_comes_first_with_a_link_to_its_examples(store: LabelStore):
    for feature, first, second in ((1, "crowns", "crowns"), (2, "crowns", NOT_INTERPRETABLE)):
        store.put(SAE, feature, first, author="ada")
        store.put(SAE, feature, second, author="ben")
    told = words(opened())
    assert told.index("Feature 2: its examples") < told.index("Feature 1: its examples")
    assert "feature?feature=2" in told
    assert "only one found a meaning" in told
    assert "ada" in told
    assert "ben" in told
    assert "2 features" in told


def test_alpha_is_shown_with_its_interval_or_with_why_there_is_none(store: LabelStore):
    for feature in range(10):
        same = NOT_INTERPRETABLE if feature > 5 else "crowns"
        store.put(SAE, feature, same, author="ada", confidence=2)
        store.put(SAE, feature, "crowns" if feature == 9 else same, author="ben", confidence=2)
    told = words(opened())
    assert "Has one meaning" in told
    assert "<b>0.79</b>" in told  # 1 - .1 / (2 * 13 * 7 / (20 * 19))
    assert "alpha is undefined" in told  # of the confidence: everybody said 2


def test_twenty_are_shown_first_and_the_others_on_demand(store: LabelStore):
    for feature in range(30):
        for who in ("ada", "ben"):
            store.put(SAE, feature, f"word {feature} {who}", author=who)
    app = opened()
    assert words(app).count("its examples") == 20
    app.button(key="agreement-more").click().run()
    assert words(app).count("its examples") == 30


def test_the_likeness_of_what_labels_mean_is_told_where_there_is_an_embedder(store: LabelStore, monkeypatch):
    for feature, other in ((1, "crowns"), (2, "zzz")):
        store.put(SAE, feature, "crowns", author="ada")
        store.put(SAE, feature, other, author="ben")
    app = opened()
    assert "similarity 1.00" in words(app)
    assert words(app).index("Feature 2: its examples") < words(app).index("Feature 1: its examples")
    job = app.session_state[MEANT][1]
    with monkeypatch.context() as counted:
        counted.setattr("app.agreement_view.agreement", lambda *_: pytest.fail("measured again"))
        assert app.run().session_state[MEANT][1] is job, "measured and read once, until somebody says something else"
        assert not app.exception
    store.put(SAE, 2, "crowns", author="ben")
    assert app.run().session_state[MEANT][1] is not job


def test_a_reading_that_was_given_up_because_nobody_looked_is_begun_again_by_who_comes_back(store: LabelStore):
    for who in ("ada", "ben"):
        store.put(SAE, 1, "crowns", author=who)
    app = opened()
    said, _ = app.session_state[MEANT]
    given_up = Job(lambda job: None, Lane(1), Lane(1))
    given_up.stop()
    assert given_up.start().wait(20)
    app.session_state[MEANT] = (said, given_up)
    told = words(app.run())
    assert "similarity 1.00" in told
    assert "Cancelled" not in told


def test_without_an_embedder_the_other_measures_stand_and_the_trouble_is_said(store: LabelStore, monkeypatch):
    def lost(self: Engine) -> None:
        raise ModelError("There is no embedder", do="Fetch it")

    monkeypatch.setattr(Engine, "embedder", lost)
    for who in ("ada", "ben"):
        store.put(SAE, 1, "crowns", author=who)
    told = words(opened())
    assert "Needs the sentence embedder" in told
    assert "There is no embedder" in told
    assert "Feature 1: its examples" in told


def test_what_people_wrote_is_text(store: LabelStore):
    for who in ("ada", "<img src=x onerror=alert(1)>"):
        store.put(SAE, 1, HOSTILE[0].decode() + who[:3], note=HOSTILE[1].decode(), author=who)
    told = words(opened())
    assert "<script>" not in told
    assert "<img" not in told
