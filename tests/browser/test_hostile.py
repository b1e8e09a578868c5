"""Strings that were made to break programs, typed into every box: they stay text, and the page goes on answering."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.cache import Cache
from explorer.labels import LabelStore
from tests.helpers_cache import HOSTILE
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
ROOT = Path(__file__).resolve().parents[2]
NAUGHTY = ROOT.parent / "shared" / "data" / "blns.json"
LOOK = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const main = "[data-testid=stMain]";
  return {
    foreign: all(`${main} :is(script, iframe, object, embed, img, video, audio, base, meta)`).map((e) => e.outerHTML),
    handlers: all(`${main} *`).filter((e) => [...e.attributes].some((a) => a.name.startsWith("on"))).map((e) => e.outerHTML),
    links: all("a").map((e) => e.getAttribute("href") ?? "").filter((href) => /^\\s*(javascript|data|vbscript):/i.test(href)),
    exceptions: all("[data-testid=stException]").length,
    traceback: document.body.innerText.includes("Traceback"),
  };
}"""
OURS = tuple(text.decode() for text in HOSTILE)


def strings() -> list[str]:
    """Ours, and the big list of naughty strings where it lies beside the project."""
    theirs = json.loads(NAUGHTY.read_text(encoding="utf-8")) if NAUGHTY.is_file() else []
    return [*OURS, *theirs]


def batches(texts: Iterable[str], most: int, between: str = "\n") -> Iterator[str]:
    """The texts joined, in as few pieces of at most so many characters as it takes."""
    batch: list[str] = []
    for text in texts:
        if batch and len(between.join([*batch, text])) > most:
            yield between.join(batch)
            batch = []
        batch.append(text[:most])
    yield between.join(batch)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("hostile"), layers=2)


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True) as running:
        yield running


@pytest.fixture
def visit(page, app) -> Iterator[Callable[[str], None]]:
    """Open a page of the app; whatever asks for anything but the app, or breaks the page's scripts, fails the test."""
    trouble: list[str] = []
    here = urlsplit(app.url).netloc

    def watch(request) -> None:
        if (there := urlsplit(request.url)).scheme in ("http", "https", "ws", "wss") and there.netloc != here:
            trouble.append(request.url)

    page.on("request", watch)
    page.on("pageerror", lambda error: trouble.append(str(error)))

    def go(path: str) -> None:
        page.goto(f"{app.url}/{path}{'&' if '?' in path else '?'}cache=tiny")
        page.locator("dialog[data-listening]").wait_for(state="attached")
        harmless(page)

    yield go
    assert not trouble
    assert "Traceback" not in app.log.read_text()


def harmless(page) -> None:
    """Once the page has settled: nothing on it but ours, and no traceback."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    found = page.evaluate(LOOK)
    assert found == {"foreign": [], "handlers": [], "links": [], "exceptions": 0, "traceback": False}


def test_search_on_browse(page, visit):
    visit("browse")
    box, rows = page.get_by_role("searchbox"), page.locator("table[aria-label=Features] tbody tr")
    for text in (*OURS, *list(batches(strings(), 200, " "))[::4]):  # every fourth: the box takes no more at once
        box.fill(text)
        page.wait_for_timeout(150)  # it waits for a pause in typing
        harmless(page)
    box.fill("king")
    page.wait_for_url("**q=king**")
    expect(rows).not_to_have_count(0)
    harmless(page)


def test_prompt_and_system_prompt_on_steer(page, visit):
    visit("steer?edits=3:1:add&max_tokens=2")
    expect(page.locator(".status.ready")).to_be_attached(timeout=60_000)  # the first answer waits for the model
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    note = page.locator(".ans.steered header span")
    system = page.get_by_role("textbox", name="System prompt")
    texts = [*batches(strings(), 400), "Who rules the sea?"]  # the tiny model reads no more than 512 tokens
    for text, other in zip(texts, [*reversed(texts[:-1]), ""], strict=True):
        if not system.is_visible():
            page.locator("[data-testid=stExpander] summary").first.click()
        system.fill(other[:60])
        prompt.fill(text)
        prompt.press("Control+Enter")
        page.wait_for_url(re.compile("prompt="))
        harmless(page)
    expect(note).to_have_text(re.compile(r"^\d+ tokens?$"))
    expect(page.locator(".answers")).not_to_contain_text("press Run")


def test_own_text_on_a_feature(page, visit):
    visit("feature?feature=3")
    box = page.get_by_role("textbox", name="Test your own text")
    heat = page.locator(".st-key-own-heatmap .hm")
    for text in [*batches(strings(), 300), "the old king"]:
        box.fill(text)
        page.get_by_role("button", name="Analyse").click()
        harmless(page)
    expect(heat).to_contain_text("the old king")


def test_label_and_note(page, visit, app, world):
    sae = Cache.open(world).manifest.sae_fingerprint
    storable = [text for text in strings() if "\0" not in text]
    labels = [*storable[:9], *batches(storable, 240, " ")]  # the box takes 500, and counts some characters twice
    notes = list(batches(storable, 2_000))
    form = "[class*=st-key-label-text-] input"
    visit("label?feature=0")
    for at, text in enumerate(labels[:22]):  # one after the other, as the queue gives them
        here = parse_qs(urlsplit(page.url).query)["feature"]
        page.get_by_role("textbox", name="Note").fill(notes[at % len(notes)])
        page.locator(form).focus()
        expect(page.locator(".st-key-label-side").get_by_text("saved").first).to_be_visible()  # the note
        harmless(page)
        page.locator(form).fill(text)
        page.locator(form).press("Control+Enter")
        page.wait_for_url(lambda url, here=here: parse_qs(urlsplit(url).query).get("feature") != here)
        harmless(page)
    store = LabelStore(app.home / "labels.sqlite")
    typed = {label.label for label in store.all(sae).values()}
    assert {text.strip() for text in labels[:9]} <= typed
    assert "" not in typed
    for path in (
        "",
        "browse",
        "feature?feature=0",
        "feature?feature=1",
        "steer?edits=0:1:add,1:1:add,2:1:add",
        "label",
    ):
        visit(path)
    for at, text in enumerate(labels[22:]):  # the rest as if they had been typed elsewhere
        store.put(sae, at % 24, text, text, author=text[:60].strip() or "kim")
    for path in ("", "browse", "label?feature=0", "steer?edits=0:1:add,1:1:add,2:1:add"):
        visit(path)
    visit("label?feature=1")
    page.locator(form).fill("a \0 in between")
    page.locator(form).press("Enter")
    harmless(page)
    visit("label?feature=2")
    page.locator(form).fill("royalty")
    page.locator(form).press("Enter")
    expect(page.get_by_text("saved").first).to_be_visible()
    harmless(page)
    assert store.all(sae)[2].label == "royalty"
