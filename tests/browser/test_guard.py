"""The security headers in a real browser: every page works under them, and what they forbid stays forbidden."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.main import PAGES
from tests.browser.conftest import settled
from tests.helpers_cache import fake_cache

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder = fake_cache(tmp_path_factory.mktemp("guarded") / "tiny", 24)
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text("{}")
    save_file({"W_dec": np.ones((24, 4), np.float32)}, folder / "sae" / "sae_weights.safetensors")
    with start_app([folder]) as running:
        yield running


@pytest.mark.parametrize("url", [view.url if view is not PAGES[0] else "" for view in PAGES])
def test_every_page_works_under_the_content_security_policy(page, app, url):
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("pageerror", lambda error: refused.append(str(error)))
    page.goto(f"{app.url}/{url}?cache=tiny")
    settled(page)
    page.locator("dialog[data-listening]").wait_for(state="attached")  # a component's script has started
    assert not refused


def test_a_chart_of_many_points_is_drawn_under_the_policy(page, app):
    """WebGL programs are made with eval, which the policy therefore allows; this fails where Plotly no longer needs that."""
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(f"{app.url}/feature?feature=3&cache=tiny")
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.evaluate("new Function('return 1')()") == 1
    assert not refused


def test_no_other_site_may_be_asked_or_may_frame_the_app(page, app):
    page.goto(f"{app.url}/?cache=tiny")
    settled(page)
    asked = "fetch('http://127.0.0.2:9/').then(() => 'answered', (error) => String(error))"
    blocked: list[str] = []
    page.on("console", lambda said: blocked.append(said.text))
    assert page.evaluate(asked) != "answered"
    assert any("Content Security Policy" in said for said in blocked)
    head = urllib.request.urlopen(f"{app.url}/", timeout=10).headers
    assert (head["X-Frame-Options"], head["X-Content-Type-Options"], head["Referrer-Policy"]) == (
        "DENY",
        "nosniff",
        "no-referrer",
    )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8501", "localhost@evil.example", ""])
def test_a_request_under_another_name_is_refused(app, host):
    request = urllib.request.Request(f"{app.url}/api/v1/caches", headers={"Host": host})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 421
    assert set(json.load(caught.value)["error"]) == {"found", "expected", "do"}


def test_the_page_of_the_api_opens_and_its_links_answer(page, app):
    page.goto(f"{app.url}/api")
    links = [link.get_attribute("href") for link in page.locator("a[href*='/api/v1']").all()]
    assert len(links) >= 8
    for link in links:
        with urllib.request.urlopen(app.url + link, timeout=30) as answer:
            assert json.load(answer)
