"""The Label page as a person meets it: a queue without the mouse, hostile words, two people at once."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.labels import NOT_INTERPRETABLE, LabelStore
from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_cache import HOSTILE, fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
SAE = "s" * 64


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    return fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 60)


@pytest.fixture
def app(start_app, caches):
    """An app of its own for every test that labels: labels stay."""
    with start_app([caches]) as running:
        yield running


@pytest.fixture(scope="module")
def shared_app(start_app, caches):
    """An app for the tests that only look."""
    with start_app([caches]) as running:
        yield running


def store(app) -> LabelStore:
    return LabelStore(app.home / "labels.sqlite")


def said(app) -> dict[int, str]:
    return {feature: label.label for feature, label in store(app).all(SAE).items()}


def only(app, path: str = "label") -> str:
    return f"{app.url}/{path}{'&' if '?' in path else '?'}cache=made-up"


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def box(page, feature: int):
    return page.locator(f".st-key-label-text-{SAE[:12]}-{feature} input")


def out(page) -> None:
    """Leave the box, so that the letters work."""
    page.keyboard.press("Escape")
    page.wait_for_function("!/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)")
    settled(page)


def arrive(page, app, path: str = "label", feature: int = 0) -> None:
    page.goto(only(app, path))
    expect(box(page, feature)).to_be_focused()
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)


def test_a_queue_is_worked_through_without_the_mouse(page, app):
    arrive(page, app)
    for feature, words in enumerate(("royalty", "cruel words", "the sea")):
        expect(box(page, feature)).to_be_focused()  # nothing clicked: it is where the cursor lands
        page.keyboard.type(words)
        page.keyboard.press("Control+Enter")
    expect(box(page, 3)).to_be_focused()
    expect(page.get_by_text("3 labelled")).to_be_visible()
    assert said(app) == {0: "royalty", 1: "cruel words", 2: "the sea"}
    out(page)
    page.keyboard.press("u")
    expect(box(page, 2)).to_have_value("")
    settled(page)
    page.keyboard.press("n")
    expect(box(page, 3)).to_be_visible()
    settled(page)
    page.keyboard.press("k")
    expect(box(page, 2)).to_have_value(NOT_INTERPRETABLE)
    settled(page)
    page.keyboard.press("k")
    expect(box(page, 1)).to_have_value("cruel words")
    settled(page)
    page.keyboard.press("j")
    expect(box(page, 2)).to_be_visible()
    settled(page)
    page.keyboard.press("e")
    expect(box(page, 2)).to_be_focused()
    page.reload()
    expect(box(page, 2)).to_have_value(NOT_INTERPRETABLE)
    assert query(page)["feature"] == ["2"]
    assert said(app) == {0: "royalty", 1: "cruel words", 2: NOT_INTERPRETABLE}


def test_twenty_features_are_named_with_the_keyboard_alone(page, app):
    arrive(page, app)
    names = {feature: f"name {feature}" for feature in range(21) if feature != 5}  # 5 never fires
    for feature, name in names.items():
        expect(box(page, feature)).to_be_focused()
        page.keyboard.type(name)
        page.keyboard.press("Control+Enter")
    expect(box(page, 21)).to_be_focused()
    assert said(app) == names


def test_the_confidence_is_chosen_from_the_keyboard(page, app):
    arrive(page, app)
    page.keyboard.type("royalty")
    page.keyboard.press("Tab")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    for _ in range(200):  # saved by itself: in one change or in two, as fast as the machine is
        label = store(app).get(SAE, 0)
        if label is not None and (label.label, label.confidence) == ("royalty", 3):
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError(f"saved as {label}")
    settled(page)
    page.keyboard.press("Control+Enter")
    expect(box(page, 1)).to_be_focused()


def test_what_was_typed_and_not_submitted_is_saved_as_the_box_is_left(page, app):
    arrive(page, app)
    page.keyboard.type("half a thought")
    page.get_by_role("textbox", name="Note").focus()
    expect(page.get_by_text("1 labelled")).to_be_visible()
    assert said(app) == {0: "half a thought"}
    page.reload()
    expect(box(page, 0)).to_have_value("half a thought")


def test_hostile_labels_are_text_on_every_page(page, app):
    texts = [text.decode() for text in HOSTILE if b"\0" not in text]
    for feature, text in enumerate(texts):
        store(app).put(SAE, feature, text, text, author="kim")
    page.goto(only(app, "label?feature=0"))
    page.get_by_role("button", name="Show 1 label of other people").click()
    expect(page.get_by_text(texts[0]).last).to_be_visible()
    inside = page.get_by_test_id("stMain")
    assert inside.locator("script, iframe, img[src='x'], img[src*='127.0.0.1:9']").count() == 0
    box(page, 0).fill(texts[1])
    page.keyboard.press("Control+Enter")
    expect(box(page, 1)).to_be_focused()
    page.goto(only(app, f"browse?q={texts[1][:4]}"))
    expect(page.get_by_text(texts[1]).first).to_be_visible()
    assert inside.locator("script, iframe, img[src='x'], img[src*='127.0.0.1:9']").count() == 0
    page.goto(only(app, ""))
    expect(page.get_by_text(texts[1]).first).to_be_visible()
    assert inside.locator("script, iframe, img[src='x'], img[src*='127.0.0.1:9']").count() == 0


def test_two_people_see_each_others_labels(profile, app):
    mine = profile().new_page()
    other = profile()
    theirs = other.new_page()
    other.add_cookies([{"name": "persona_explorer_name", "value": "kim", "url": app.url}])
    arrive(mine, app)
    arrive(theirs, app)
    theirs.keyboard.type("crowns")
    theirs.keyboard.press("Control+Enter")
    expect(box(theirs, 1)).to_be_focused()
    expect(theirs.get_by_text("by kim")).to_be_visible()
    mine.keyboard.type("royalty")
    mine.keyboard.press("Control+Enter")
    expect(mine.get_by_text("kim saved “crowns”")).to_be_visible()  # both are shown before one goes on
    mine.wait_for_timeout(1100)
    mine.keyboard.press("Control+Enter")
    expect(box(mine, 1)).to_be_focused()
    expect(mine.get_by_text("2 labelling")).to_be_visible()
    out(theirs)
    theirs.keyboard.press("k")
    expect(theirs.get_by_text("What others said")).to_be_visible()
    expect(theirs.get_by_text("royalty").last).to_be_visible()
    assert [c.label for c in store(app).history(SAE, 0)] == ["crowns", "royalty"]


def test_the_form_stays_beside_the_examples_and_the_next_feature_starts_at_the_top(page, shared_app):
    arrive(page, shared_app)
    out(page)
    main = page.get_by_test_id("stMain")
    main.evaluate("e => e.scrollTo(0, 600)")
    assert main.evaluate("e => e.scrollTop") > 300
    expect(page.get_by_role("button", name="Save and next")).to_be_in_viewport()
    page.keyboard.press("j")
    expect(box(page, 1)).to_be_visible()
    settled(page)
    page.wait_for_function("document.querySelector('[data-testid=stMain]').scrollTop === 0")


@pytest.mark.parametrize("width", [1024, 1440, 2560])
def test_nothing_is_wider_than_the_window(context, shared_app, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    arrive(page, shared_app)
    nothing_is_wider(page)
    assert page.get_by_role("button", name="Save and next").is_visible()
