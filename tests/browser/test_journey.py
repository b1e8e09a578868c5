"""From a word to a label of one's own: the whole way that a person goes, over the bundled world."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.packaged import locate
from tests.helpers_steer import tiny_world
from tests.real.conftest import MODEL, WORLD

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
SLOWLY = 180_000  # milliseconds that a model may take


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The bundled world where its model was fetched, else a tiny one."""
    try:
        locate(MODEL)
    except ExplorerError:
        return tiny_world(tmp_path_factory.mktemp("journey"))
    return WORLD


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True) as running:
        yield running


@pytest.mark.timeout(600)
def test_from_a_word_to_a_label_that_is_kept(page, app, world):
    cache = Cache.open(world)

    def settled() -> None:
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.locator("dialog[data-listening]").wait_for(state="attached")

    # Browse: a word finds features
    page.goto(f"{app.url}/browse?cache={cache.name}")
    rows = page.locator("table[aria-label=Features] tbody tr")
    expect(rows).not_to_have_count(0)
    settled()
    page.keyboard.press("/")
    page.keyboard.type("pirate", delay=30)
    page.wait_for_url("**q=pirate**")
    settled()
    expect(rows).not_to_have_count(0)
    index = int(rows.first.get_attribute("data-index"))
    rows.first.focus()
    page.keyboard.press("Enter")

    # Feature: what it fires on, and what it does on words of one's own
    page.wait_for_url(f"**/feature?**feature={index}**")
    expect(page.locator("h1").first).to_contain_text(f"#{index}")
    expect(page.locator(".st-key-heatmap .row")).not_to_have_count(0)
    page.get_by_role("textbox", name="Test your own text").fill("The pirate sailed his ship across the sea.")
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator(".st-key-own-heatmap .t")).not_to_have_count(0, timeout=SLOWLY)
    expect(page.locator(".st-key-own-heatmap")).to_contain_text("pirate")
    expect(
        page.get_by_text(re.compile("^(Maximum .* of the corpus maximum|The feature does not fire)"))
    ).to_be_visible()

    # Steer: run, and stop
    page.get_by_role("button", name="Steer with this feature").click()
    page.wait_for_url("**/steer?**")
    assert parse_qs(urlsplit(page.url).query)["edits"] == [f"{index}:1:add"]
    expect(page.get_by_role("slider", name=f"Strength of feature {index}")).to_have_value("1")
    settled()
    page.locator(".st-key-steer-go button").click()
    note = page.locator(".ans.steered header span")
    expect(note).to_have_text(re.compile(r"^streaming, \d+ tokens?$"), timeout=SLOWLY)
    page.get_by_role("button", name="Stop").click()
    expect(note).to_have_text(re.compile(r"^stopped after \d+ tokens?$"))
    settled()
    expect(page.locator(".ans.steered p")).not_to_be_empty()

    # Label: say what it means; it is there after a reload, and where features are looked for
    page.goto(f"{app.url}/label?cache={cache.name}&feature={index}")
    box = page.locator(f".st-key-label-text-{cache.manifest.sae_fingerprint[:12]}-{index} input")
    expect(box).to_be_visible()
    settled()
    box.fill("pirates & their <ships>")
    box.press("Control+Enter")
    expect(box).to_have_count(0)  # the next one has come
    page.goto(f"{app.url}/label?cache={cache.name}&feature={index}")
    expect(box).to_have_value("pirates & their <ships>")
    page.reload()
    expect(box).to_have_value("pirates & their <ships>")
    page.goto(f"{app.url}/browse?cache={cache.name}&q=pirates+%26+their")
    expect(page.locator(f"table[aria-label=Features] tr[data-index='{index}']")).to_contain_text(
        "pirates & their <ships>"
    )
