"""What people expect of a tool like this, where only a browser shows it; the rest is in tests/peers."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import settled
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
ANSWERS = "[...document.querySelectorAll('.ans')].map(e => e.innerText.length)"


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    world: Path = tiny_world(tmp_path_factory.mktemp("peers"))
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


def test_per_token_heatmap_hover(page, app):
    page.goto(f"{app.url}/feature?cache=tiny&feature=9")
    row, tip = page.locator(".st-key-heatmap .row:not(.hidden)").first, page.locator(".st-key-heatmap .tip")
    row.locator(".t.max").hover()
    expect(tip).to_contain_text(f"activation{row.locator('.val').inner_text()}", use_inner_text=False)
    strongest = tip.inner_text()
    row.locator(".t.a0").first.hover()
    expect(tip).not_to_have_text(strongest)
    expect(tip).to_contain_text(re.compile("activation0.00|not scored"))
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()


def test_baseline_beside_steered_streamed(page, app):
    page.goto(f"{app.url}/steer?cache=tiny&edits=3:2:add&max_tokens=400&temperature=1.5&top_p=1&repetition_penalty=1.3")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)
    page.locator(".st-key-steer-go button").click()
    live = page.locator(".ans.steered header span")
    expect(live).to_have_text(re.compile(r"streaming, \d\d+ tokens"), timeout=90_000)
    early = page.evaluate(ANSWERS)
    page.wait_for_function(f"before => ({ANSWERS}).every((n, at) => n > before[at])", arg=early, timeout=60_000)
    expect(live).to_have_text(re.compile("streaming"))  # both have grown before either was whole
    page.keyboard.press("Escape")
