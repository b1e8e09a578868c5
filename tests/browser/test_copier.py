"""The buttons of the Feature page that copy its link, its vector and a reference to it."""

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

from explorer.cache import Cache
from explorer.citing import cache_hash
from explorer.decoder import decoder_row
from tests.browser.conftest import settled
from tests.helpers_cache import fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = fake_cache(tmp_path_factory.mktemp("copied") / "tiny", 24)
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text("{}")
    decoder = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float16)
    save_file({"W_dec": decoder}, folder / "sae" / "sae_weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world]) as running:
        yield running


def copied(page, name: str) -> str:
    button = page.locator(f".copier button[data-label='Copy {name}']")  # what it says changes
    button.click()
    expect(button).to_have_text("Copied")
    return page.evaluate("navigator.clipboard.readText()")


def test_link_vector_and_citation_are_copied(context, page, app, world):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=app.url)
    page.goto(f"{app.url}/feature?feature=7&cache=tiny")
    settled(page)
    link = copied(page, "link")
    assert parse_qs(urlsplit(link).query)["feature"] == ["7"]
    cache = Cache.open(world)
    assert json.loads(copied(page, "vector")) == pytest.approx(decoder_row(cache, 7).tolist())
    said = copied(page, "citation")
    assert f"{{{link}}}" in said
    assert cache_hash(cache) in said


def test_without_a_clipboard_the_text_is_shown_selected(page, app):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(f"{app.url}/feature?feature=7&cache=tiny")
    settled(page)
    page.get_by_role("button", name="Copy vector").click()
    box = page.get_by_role("textbox", name="The vector, selected")
    expect(box).to_be_focused()
    assert len(json.loads(box.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)"))) > 1
    expect(page.locator(".copier")).to_contain_text("Selected")


def test_a_server_that_cannot_say_is_told_in_words(page, app):
    page.route("**/api/v1/**", lambda route: route.fulfill(status=500, json={"error": {"found": "No vector here"}}))
    page.goto(f"{app.url}/feature?feature=7&cache=tiny")
    settled(page)
    button = page.locator(".copier button", has_text="vector")
    button.click()
    expect(page.locator(".copier")).to_contain_text("Not copied")
    expect(page.locator(".copier button[title='No vector here']")).to_have_count(1)
