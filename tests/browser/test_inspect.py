"""Inspect as a person meets it, over a tiny real model: a text, its tokens, its features; two sets of texts."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 90_000  # milliseconds: the model is loaded first
ROWS = "table[aria-label='Features that fire on the text'] tbody tr"


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    world: Path = tiny_world(tmp_path_factory.mktemp("inspect"), layers=2)
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


def arrive(page, app, query: str = "") -> None:
    page.goto(f"{app.url}/inspect?cache=tiny&{query}")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)


def test_a_pasted_text_is_ranked_and_its_tokens_and_features_lead_to_each_other(page, app):
    arrive(page, app)
    page.get_by_role("textbox", name="Text").fill("The old king of the bridge <b>laughs</b>.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(ROWS).first).to_be_visible(timeout=LONG)
    page.wait_for_url("**text=The+old+king**")
    assert page.locator(".st-key-inspect-heatmap b").count() == 0, "the text is text"
    page.locator(ROWS).nth(1).locator("td.name").click()
    page.wait_for_url("**feature=**")
    settled(page)
    expect(page.locator(ROWS).nth(1)).to_have_attribute("aria-current", "true")
    page.locator(".st-key-inspect-heatmap .t").nth(3).click()
    expect(page.get_by_text(re.compile("^On “"))).to_be_visible()
    expect(page.locator(".st-key-inspect-heatmap .t.pin")).to_have_count(1)
    first = page.locator(".st-key-inspect-on-token a").first
    number = re.search(r"#(\d+)", first.inner_text())[1]
    first.click()
    page.wait_for_url(f"**feature={number}**")
    settled(page)
    expect(page.locator(".st-key-inspect-heatmap .t.pin")).to_have_count(1)  # the token stays
    head = page.locator(".st-key-inspect-grid thead button").nth(2)
    head.click()
    expect(head).to_have_attribute("aria-pressed", "true")
    nothing_is_wider(page)


def test_a_link_shows_somebody_else_the_same(page, app):
    arrive(page, app, "text=Kneel%2C+king&feature=2")
    expect(page.locator(ROWS).first).to_be_visible(timeout=LONG)
    expect(page.get_by_role("textbox", name="Text")).to_have_value("Kneel, king")
    expect(page.get_by_text(re.compile("^#2 ")).first).to_be_visible()


def test_two_sets_of_texts_are_contrasted(page, app):
    arrive(page, app, "tab=Two+sets")
    page.get_by_role("button", name="An example").click()
    expect(page.get_by_role("textbox", name="Left")).to_have_value(re.compile("hoist"))
    page.get_by_role("button", name="Contrast", exact=False).click()
    expect(page.get_by_text("5 texts against 5")).to_be_visible(timeout=LONG)
    expect(
        page.locator("table[aria-label='Features that tell the left from the right'] tbody tr").first
    ).to_be_visible()
    nothing_is_wider(page)


def test_it_can_be_read_on_a_narrow_screen(page, app):
    page.set_viewport_size({"width": 700, "height": 900})
    arrive(page, app, "text=The+old+king")
    expect(page.locator(ROWS).first).to_be_visible(timeout=LONG)
    nothing_is_wider(page)
