"""The frame and Browse as a person meets them: keys, links, hostile text, two people at once."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_cache import fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
ROWS = "table[aria-label=Features] tbody tr"


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("caches")
    fake_cache(folder / "made-up", 200)
    with start_app([folder / "made-up"]) as running:
        yield running


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def listening(page) -> None:
    """Wait until the keys are listened to."""
    page.locator("dialog[data-listening]").wait_for(state="attached")


def only(app, path: str = "") -> str:
    """The address of a page with our cache chosen, wherever else there may be one."""
    return f"{app.url}/{path}{'&' if '?' in path else '?'}cache=made-up"


def test_twenty_five_rows_are_above_the_fold(page, app):
    page.goto(only(app, "browse"))
    expect(page.locator(ROWS)).to_have_count(25)
    box = page.locator(ROWS).last.bounding_box()
    assert box["y"] + box["height"] <= 900


def test_search_sort_and_page_are_in_the_link_and_survive_a_reload(page, app):
    page.goto(only(app, "browse"))
    expect(page.locator(ROWS)).to_have_count(25)
    listening(page)
    page.keyboard.press("/")
    page.keyboard.type("king", delay=30)
    page.wait_for_url("**q=king**")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="max").click()
    page.wait_for_url("**sort=-max**")
    settled(page)
    before = page.locator(ROWS).first.get_attribute("data-index")
    page.get_by_role("button", name="Next").click()
    page.wait_for_url("**page=2**")
    assert query(page)["q"] == ["king"]
    expect(page.get_by_text("26 to")).to_be_visible()
    expect(page.locator(ROWS).first).not_to_have_attribute("data-index", str(before))  # the table follows the words
    settled(page)
    first = page.locator(ROWS).first.get_attribute("data-index")
    page.reload()
    expect(page.locator(ROWS).first).to_have_attribute("data-index", str(first))
    assert (query(page)["q"], query(page)["page"]) == (["king"], ["2"])


def test_rows_are_walked_and_opened_with_the_keyboard(page, app):
    page.goto(only(app, "browse"))
    second = page.locator(ROWS).nth(1)
    index = second.locator("td").first.inner_text()
    page.locator(ROWS).first.focus()
    page.keyboard.press("ArrowDown")
    expect(second).to_be_focused()
    assert second.locator("a").get_attribute("href").startswith(f"feature?feature={index}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/feature?**feature={index}**")


def test_the_key_sheet_opens_on_a_question_mark_and_closes_on_escape(page, app):
    page.goto(only(app))
    expect(page.get_by_role("button", name="Browse features")).to_be_visible()
    listening(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_after_a_walk_over_pages_one_key_opens_one_sheet_which_is_this_pages(page, app):
    page.goto(only(app, "browse"))
    for name, about in (
        ("Label", "Name one feature"),
        ("Map", "Every feature as a dot"),
        ("Browse", "The table of all"),
    ):
        page.get_by_role("link", name=name, exact=True).click()
        page.locator(f"dialog[data-listening={name}]").wait_for(state="attached")
        settled(page)
        if name == "Label":  # it puts the cursor into its box
            expect(page.get_by_role("textbox", name="Label", exact=True)).to_be_focused()
        page.keyboard.press("Escape")
        page.wait_for_function("!/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)")
        sheet = page.get_by_role("dialog", name="Keys")
        page.keyboard.press("?")
        expect(sheet).to_contain_text(about)
        page.keyboard.press("?")
        expect(sheet).to_be_hidden()


def test_a_slash_on_another_page_leads_to_the_search_box(page, app):
    page.goto(only(app))
    expect(page.get_by_role("button", name="Browse features")).to_be_visible()
    listening(page)
    page.keyboard.press("/")
    page.wait_for_url("**/browse**")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_hostile_tokens_are_text(page, app):
    page.goto(only(app, "browse?q=script"))
    expect(page.locator(ROWS).first).to_be_visible()
    assert page.locator("table[aria-label=Features] :is(script, img, iframe)").count() == 0
    assert "<script>alert(1)</script>" in page.locator("table[aria-label=Features]").inner_text()


def test_two_people_look_at_different_things(profile, app):
    pages = [profile().new_page() for _ in range(2)]
    for page, words in zip(pages, ("king", "pirate"), strict=True):
        page.goto(only(app, f"browse?q={words}"))
    for page, words in zip(pages, ("king", "pirate"), strict=True):
        expect(page.get_by_role("searchbox")).to_have_value(words)
        assert query(page)["q"] == [words]


@pytest.mark.parametrize("width", [1024, 1440, 2560])
@pytest.mark.parametrize("path", ["", "browse"])
def test_nothing_is_wider_than_the_window(context, app, path: str, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(only(app, path))
    expect(page.get_by_text("How often features fire") if not path else page.locator(ROWS).first).to_be_visible()
    nothing_is_wider(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_found_from_another_folder(profile, app, scheme: str):
    page = profile(color_scheme=scheme).new_page()
    page.goto(only(app))
    expect(page.get_by_role("button", name="Browse features")).to_be_visible()
    background = page.get_by_test_id("stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 28)"}[scheme]
