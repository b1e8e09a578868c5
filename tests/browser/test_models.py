"""Steer with a fine-tune as a person meets it: it is picked, it answers, the shared link opens on it in another browser."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_steer import tiny_fine_tunes, tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
SETTINGS = "edits=3:2:add&temperature=0&repetition_penalty=1&max_tokens=12"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    world = tiny_world(tmp_path_factory.mktemp("models"), layers=2)
    tiny_fine_tunes(world, "gardening", "cooking")
    return world


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


def picker(page):
    return page.locator(".st-key-steer-model")


def answer(page, whose: str) -> str:
    """The unsteered answer, once it has come and is that model's."""
    card = page.locator(".ans.baseline")
    expect(card.locator("header span")).to_have_text(re.compile(r"^\d+ tokens?$"), timeout=90_000)
    expect(card.locator("footer")).to_contain_text(f"{whose} by itself")
    settled(page)
    return card.locator("p").first.inner_text()


def test_a_fine_tune_is_picked_answers_and_its_link_opens_on_it_elsewhere(page, app, profile):
    page.goto(f"{app.url}/steer?cache=tiny&{SETTINGS}")
    expect(picker(page).get_by_role("combobox")).to_be_visible(timeout=30_000)
    settled(page)
    page.locator(".st-key-steer-go button").click()
    by_itself = answer(page, "the model")

    picker(page).get_by_role("combobox").click()
    page.get_by_role("option", name="gardening, step 6").click()
    page.wait_for_url(re.compile("[?&]model=gardening(%40|@)6"))
    expect(page.get_by_text("the unsteered answer is the tuned model's own")).to_be_visible()
    tuned = answer(page, "gardening, step 6")
    assert tuned != by_itself

    page.locator(".st-key-steer-share button").click()
    link = page.get_by_test_id("stPopoverBody").locator("code").inner_text().strip()
    said = parse_qs(urlsplit(link).query)
    assert said["model"] == ["gardening@6"]
    assert {"m", "a", "s"} <= said.keys()
    other = profile(viewport={"width": 390, "height": 800}).new_page()
    other.goto(link)
    expect(other.get_by_text("the unsteered answer is the tuned model's own")).to_be_visible(timeout=30_000)
    expect(picker(other).get_by_role("combobox")).to_have_value("gardening, step 6")
    expect(other.get_by_text("This link was made with another")).to_have_count(0)
    settled(other)
    nothing_is_wider(other)
    other.locator(".st-key-steer-go button").click()
    assert answer(other, "gardening, step 6") == tuned

    picker(other).get_by_role("combobox").click()
    other.get_by_role("option", name="cooking, step 6").click()
    assert answer(other, "cooking, step 6") != tuned
    page.keyboard.press("Escape")
    page.locator(".st-key-steer-go button").click()
    assert answer(page, "gardening, step 6") == tuned  # the other session's choice is its own
    page.go_back()
    expect(picker(page).get_by_role("combobox")).to_have_value("Base")
