"""Compare as a person meets it: two orders, a feature's answers, a series scrubbed with the keyboard, the undo in Steer."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_cache import fake_cache
from tests.helpers_lab import comparison, lab_results

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    world: Path = fake_cache(tmp_path_factory.mktemp("compare") / "made-up", 60)
    comparison(world)
    lab_results(world)
    with start_app([world]) as running:
        yield running


def arrive(page, app, query: str = "") -> None:
    page.goto(f"{app.url}/compare?cache=made-up&{query}")
    expect(page.get_by_text("Beside a larger model")).to_be_visible()
    settled(page)


def rows(page, title: str):
    return page.locator(f"table[aria-label={title}] tbody tr")


def test_a_comparison_is_sorted_scrubbed_opened_and_undone(page, app):
    arrive(page, app)
    expect(rows(page, "Causes")).to_have_count(2)
    expect(page.locator("table[aria-label=Candidates] th[aria-sort]")).to_have_text(["change"])
    page.get_by_role("radio", name="By effect").or_(page.get_by_role("button", name="By effect")).first.click()
    page.wait_for_url("**sort=effect**")
    expect(page.locator("table[aria-label=Candidates] th[aria-sort]")).to_have_text(["added to base", "taken away"])

    page.get_by_role("radio", name="Beyond control").or_(
        page.get_by_role("button", name="Beyond control")
    ).first.click()
    page.wait_for_url("**sort=beyond**")
    expect(page.locator("table[aria-label=Candidates] th[aria-sort]")).to_have_text(["beyond control"])
    expect(rows(page, "Candidates").last.locator("td").nth(2)).to_contain_text("−")  # the list ends with what fell
    page.get_by_role("radio", name="By effect").or_(page.get_by_role("button", name="By effect")).first.click()
    page.wait_for_url("**sort=effect**")

    rows(page, "Causes").nth(1).locator("td").nth(1).click()
    page.wait_for_url("**feature=12**")
    expect(rows(page, "Causes").nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("h2", has_text="#12")).to_be_visible()
    rows(page, "Candidates").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("h2", has_text="#12")).to_have_count(0)

    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("ArrowLeft")
    page.wait_for_url("**at=24**")
    expect(page.locator(".st-key-compare-point")).to_contain_text("24 steps, 1 seed")
    expect(page.locator(".st-key-compare-point")).to_contain_text("(gardening@24)")
    page.reload()
    expect(page.locator(".st-key-compare-point")).to_contain_text("24 steps, 1 seed")
    expect(page.locator("table[aria-label=Candidates] th[aria-sort]")).to_have_count(2)
    settled(page)

    rows(page, "Causes").first.get_by_role("link", name="#7").click()
    page.wait_for_url(re.compile("/feature"))
    expect(page.locator("h1", has_text="#7")).to_be_visible()
    page.locator("[data-testid=stTopNavLink]", has_text="Compare").click()
    expect(page.locator(".st-key-compare-point")).to_contain_text("24 steps, 1 seed")  # as it was left
    settled(page)
    page.get_by_role("button", name="Open in Steer").click()
    page.wait_for_url(re.compile("/steer"))
    assert parse_qs(urlsplit(page.url).query)["edits"] == ["7:-0.45:add,12:-0.45:add"]


@pytest.mark.parametrize("width", [800, 1024, 1440])
def test_nothing_is_wider_than_the_window_or_under_the_picker(context, app, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    arrive(page, app)
    nothing_is_wider(page)
    bar = page.locator(".st-key-topbar").bounding_box()
    for link in page.get_by_test_id("stTopNavLinkContainer").all():
        if (box := link.bounding_box()) and link.is_visible():
            assert box["x"] + box["width"] <= bar["x"] + 1, link.inner_text()
