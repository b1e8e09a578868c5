"""From a neighbour to both side by side, and through the pair's own controls, in a browser."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_cache import fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("caches")
    rows = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    for name, decoder, sae in (("made-up", rows, "s"), ("retrained", rows[::-1].copy(), "t")):
        path = fake_cache(folder / name, 60, sae_fingerprint=sae * 64)
        (path / "sae").mkdir()
        (path / "sae" / "cfg.json").write_text("{}")
        save_file({"W_dec": decoder}, path / "sae" / "sae_weights.safetensors")
    with start_app([folder / "made-up", folder / "retrained"]) as running:
        yield running


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_a_neighbour_is_put_beside_the_feature_and_the_link_shows_the_same_to_others(page, app):
    page.goto(f"{app.url}/feature?feature=9&cache=made-up")
    row = page.locator(".st-key-links-tokens li").first
    other = row.locator("a").first.inner_text().split()[0].lstrip("#")
    row.get_by_role("link", name=f"#{other} side by side").click()
    page.wait_for_url("**/pair?**")
    expect(page.get_by_role("heading", name="Two features side by side")).to_be_visible()
    settled(page)
    said = query(page)
    assert (said["feature"], said["other"], said["cache"]) == (["9"], [other], ["made-up"])
    expect(page.locator("code.shared")).not_to_have_count(0)
    expect(page.locator("h2")).to_contain_text(["#9", f"#{other}"])
    page.reload()
    expect(page.locator("h2")).to_contain_text(["#9", f"#{other}"])
    page.get_by_role("button", name="Swap").click()
    expect(page.locator("h2")).to_contain_text([f"#{other}", "#9"])
    expect(page.get_by_role("list").locator("visible=true")).not_to_have_count(0)


def test_a_counterpart_in_another_sae_stands_beside_it_and_opens_in_its_own_cache(page, app):
    page.goto(f"{app.url}/feature?feature=9&cache=made-up")
    rows = page.locator("[class*=links-abroad-retrained] li")
    expect(rows.first).to_contain_text("#50")
    expect(rows.first).to_contain_text("1.00")
    rows.first.get_by_role("link", name="#50 side by side").click()
    page.wait_for_url("**/pair?**with=retrained**")
    expect(page.get_by_text("decoder cosine 1.00")).to_be_visible()
    page.locator("h2 a", has_text="#50").click()
    page.wait_for_url("**/feature?**")
    expect(page.locator("h1").first).to_contain_text("#50")
    assert query(page)["cache"] == ["retrained"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 1024, 1440])
def test_a_pair_fits_the_window(profile, app, theme: str, width: int):
    page = profile(color_scheme=theme, viewport={"width": width, "height": 900}).new_page()
    page.goto(f"{app.url}/pair?feature=9&other=12&cache=made-up")
    expect(page.locator("h2")).to_have_count(2)
    settled(page)
    nothing_is_wider(page)
