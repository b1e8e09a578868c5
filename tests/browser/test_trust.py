"""Trust as a person meets it, over a tiny real model whose cache is made up: the check finds it out, and a feature is zeroed."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 90_000  # milliseconds: the model is loaded first


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    world: Path = tiny_world(tmp_path_factory.mktemp("trust"), layers=3)
    with start_app([world], warmup=False, OMP_NUM_THREADS="1") as running:
        yield running


def arrive(page, app, where: str) -> None:
    page.goto(f"{app.url}/{where}")
    settled(page)


def test_a_cache_that_is_not_true_is_found_out_and_says_so_on_every_page(page, app):
    arrive(page, app, "?cache=tiny")
    expect(page.locator(".facts .tag")).to_have_text("parity not checked")
    page.get_by_role("button", name="Check against the live model").click()
    alert = page.locator(".trouble[role=alert]")
    expect(alert).to_be_visible(timeout=LONG)
    expect(page.locator(".st-key-parity-error .t").first).to_be_visible()
    expect(page.locator(".st-key-parity-both [role=listitem]")).to_have_count(2)
    page.locator(".st-key-parity-error .t:not(.a0)").first.hover()
    expect(page.locator(".st-key-parity-error .tip")).to_contain_text("difference")
    nothing_is_wider(page)
    arrive(page, app, "feature?cache=tiny&feature=3")
    expect(page.locator(".facts .tag")).to_have_text("parity wrong")


def test_a_feature_is_zeroed_and_its_promoted_tokens_are_judged(page, app):
    arrive(page, app, "feature?cache=tiny&feature=9")
    page.get_by_role("button", name="Zero it").click()
    expect(page.get_by_text(re.compile("It fires on \\d+ tokens"))).to_be_visible(timeout=LONG)
    heat = page.locator(".st-key-ablation-heatmap")
    expect(heat.locator(".t").first).to_be_visible()
    page.get_by_role("radio", name="At each token only").or_(
        page.get_by_role("button", name="At each token only")
    ).first.click()
    settled(page)
    expect(heat.locator(".t").first).to_be_visible()
    nothing_is_wider(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("h1").first).to_contain_text("#10")
    expect(heat).to_have_count(0)
