"""The Label page by its keys: how sure one is, a test of one's label from end to end, a flagged label that still holds."""

import time
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.evidence_lock import Evidence, seen
from explorer.labels import LabelStore
from explorer.scores import Scores
from tests.browser.axe_rules import serious
from tests.browser.conftest import settled
from tests.browser.test_label import SAE, arrive, box, only, out, store
from tests.helpers_cache import fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    return fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 24, n_windows=120, longest=160)


@pytest.fixture(scope="module")
def app(start_app, caches):
    """One app for all tests here: each has features of its own."""
    with start_app([caches]) as running:
        yield running


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> str:
    """Evidence from before the cache was made anew."""
    cache = Cache.open(fake_cache(tmp_path_factory.mktemp("old") / "made-up", 24, n_windows=120, longest=160, seed=9))
    return seen(cache, cache.examples(3)).to_json()


def until(page, holds) -> None:
    """Wait until something holds outside the browser."""
    for _ in range(200):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it never held")


def sure(app, feature: int) -> int | None:
    label = store(app).get(SAE, feature)
    return label.confidence if label else None


def test_digits_say_how_sure_one_is_but_not_while_one_types(page, app):
    arrive(page, app, "label?feature=1", 1)
    page.keyboard.type("3 kings")  # the cursor is in the box
    out(page)
    until(page, lambda: (label := store(app).get(SAE, 1)) is not None and label.label == "3 kings")
    assert sure(app, 1) is None
    for digit in (3, 1, 2):
        page.keyboard.press(str(digit))
        until(page, lambda digit=digit: sure(app, 1) == digit)
        settled(page)
    page.keyboard.press("2")  # as a second click on it
    until(page, lambda: sure(app, 1) is None)
    settled(page)
    page.keyboard.press("4")
    page.keyboard.press("3")
    page.keyboard.press("Control+Enter")
    expect(box(page, 2)).to_be_focused()
    assert sure(app, 1) == 3
    assert [c.label for c in store(app).history(SAE, 1)] == ["3 kings"] * 6, "4 is no confidence"


@pytest.mark.parametrize(("theme", "feature"), [("light", 3), ("dark", 4)])
def test_a_label_is_tested_by_keys_from_end_to_end_and_the_score_stays_with_it(profile, app, theme: str, feature: int):
    page = profile(color_scheme=theme).new_page()
    store(app).put(SAE, feature, "crowns", author="kim")
    page.context.add_cookies([{"name": "persona_explorer_name", "value": "kim", "url": app.url}])
    arrive(page, app, f"label?feature={feature}", feature)
    out(page)
    page.keyboard.press("t")
    expect(page.get_by_text("Snippet 1 of 12")).to_be_in_viewport()
    settled(page)
    expect(page.locator(".hm")).to_have_count(0)  # by the label alone: the examples are out of view
    assert serious(page) == []
    page.keyboard.press("n")
    expect(page.get_by_text("Snippet 2 of 12")).to_be_visible()
    settled(page)
    page.keyboard.press("3")  # the test has the keys
    page.keyboard.press("b")
    expect(page.get_by_text("Snippet 1 of 12")).to_be_visible()
    for number in range(1, 13):
        expect(page.get_by_text(f"Snippet {number} of 12")).to_be_visible()
        settled(page)
        page.keyboard.press("y")
    expect(page.get_by_text("Your label was tested")).to_be_in_viewport()
    expect(page.get_by_text("score 0.50")).to_be_visible()
    expect(page.get_by_text("The label may be too wide.")).to_be_visible()
    settled(page)
    assert serious(page) == []
    (kept,) = Scores(app.home / "labels.sqlite").of(SAE, feature)
    assert (kept.label, kept.who, kept.method, kept.score, kept.n) == ("crowns", "kim", "quiz", 0.5, 12)
    assert all(kept.details["answers"].values()), "the answer that was taken back is not among them"
    assert sure(app, feature) is None
    page.keyboard.press("t")
    expect(page.get_by_role("button", name="Test my label")).to_be_visible()
    settled(page)
    page.keyboard.press("3")
    until(page, lambda: sure(app, feature) == 3)


def test_the_cursor_lands_in_the_box_even_where_that_is_drawn_late(page, app):
    def late(route) -> None:
        time.sleep(3)
        route.continue_()

    page.route("**/static/js/TextInput*.js", late)
    arrive(page, app, "label?feature=9", 9)


def test_a_flagged_label_still_holds_at_a_key_and_two_people_who_look_at_once_see_each_other(profile, app, old: str):
    ana, ben = (profile() for _ in range(2))
    for person, name in ((ana, "ana"), (ben, "ben")):
        person.add_cookies([{"name": "persona_explorer_name", "value": name, "url": app.url}])
    LabelStore(app.home / "labels.sqlite").put(SAE, 6, "kings", "all of them", 2, author="ana", evidence=old)
    mine, theirs = ana.new_page(), ben.new_page()
    for page in (mine, theirs):
        page.goto(only(app, "label?feature=6"))
    arrive(mine, app, "label?feature=6", 6)
    expect(mine.get_by_text("Look again:")).to_be_visible()
    settled(mine)
    assert serious(mine) == []
    arrive(theirs, app, "label?feature=6", 6)
    theirs.keyboard.type("queens")
    out(theirs)
    until(theirs, lambda: (now := store(app).get(SAE, 6)) is not None and now.label == "queens")
    out(mine)
    mine.keyboard.press("h")
    expect(mine.get_by_text("ben saved “queens”")).to_be_visible()
    expect(mine.get_by_text("Look again:")).to_be_hidden()
    expect(mine.get_by_text("confirmed")).to_be_visible()
    said = store(app).history(SAE, 6)
    assert [(c.label, c.author, c.note, c.confidence) for c in (said[0], said[-1])] == [
        ("kings", "ana", "all of them", 2)
    ] * 2
    assert any((c.label, c.author) == ("queens", "ben") for c in said), "both are kept"
    now = Evidence.from_json(said[-1].evidence)
    assert now is not None
    assert now.again
    assert now.examples
    settled(mine)
    mine.keyboard.press("o")
    expect(box(mine, 6)).to_have_value("queens")


def test_two_people_on_one_label_both_keep_their_text_and_each_sees_the_conflict(profile, app):
    ana, ben = (profile() for _ in range(2))
    for person, name in ((ana, "ana"), (ben, "ben")):
        person.add_cookies([{"name": "persona_explorer_name", "value": name, "url": app.url}])
    hers, his = ana.new_page(), ben.new_page()
    for page, words in ((hers, "kings"), (his, "queens")):
        arrive(page, app, "label?feature=8", 8)
        page.keyboard.type(words)
    out(hers)
    until(hers, lambda: (now := store(app).get(SAE, 8)) is not None and now.label == "kings")
    expect(hers.get_by_text("1 change")).to_be_visible()  # she has seen her own word saved, and nobody else's
    out(his)
    expect(his.get_by_text("ana saved “kings”")).to_be_visible()
    expect(box(his, 8)).to_have_value("queens")
    settled(his)
    assert serious(his) == []
    his.keyboard.press("m")
    expect(his.get_by_text("ana saved “kings”")).to_be_hidden()
    expect(box(his, 8)).to_have_value("queens")
    hers.keyboard.press("e")
    hers.keyboard.press("End")
    hers.keyboard.type(" and crowns")
    out(hers)
    expect(hers.get_by_text("ben saved “queens”")).to_be_visible()
    expect(box(hers, 8)).to_have_value("kings and crowns")
    settled(hers)
    hers.keyboard.press("o")
    expect(box(hers, 8)).to_have_value("queens")
    until(hers, lambda: len(store(app).history(SAE, 8)) == 4)
    assert [(c.label, c.author) for c in store(app).history(SAE, 8)] == [
        ("kings", "ana"), ("queens", "ben"), ("kings and crowns", "ana"), ("queens", "ana"),
    ]  # fmt: skip
