"""The pages with something on them pass axe-core in both themes: results, tables, charts, forms that are filled in."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.assignments import Assignments, Queue
from explorer.cache import Cache
from explorer.labels import LabelStore
from explorer.monitor import Watch, sample
from explorer.parity_file import Parity, save
from tests.browser.axe_rules import in_both_themes
from tests.browser.conftest import settled
from tests.helpers import TEXT
from tests.helpers_judges import tiny_embedder
from tests.helpers_steer import tiny_world
from tests.real.conftest import WORLD

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 120_000  # milliseconds: two slow cores load the tiny model, decode and judge
BUNDLED, TINY = WORLD.name, "tiny"


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    """The bundled world to look at and a tiny one to compute with; people have labelled both, and a log was watched."""
    world, models = tiny_world(tmp_path_factory.mktemp("states"), layers=2), tmp_path_factory.mktemp("models")
    tiny_embedder(models)
    mismatch(Cache.open(world))
    settings = {"OMP_NUM_THREADS": "1", "PERSONA_EXPLORER_MODELS": str(models)}
    with start_app([WORLD, world], **settings) as running:
        watched(world, running.home / "monitor" / "chats-01234567")
        people(running.home / "labels.sqlite", WORLD, world)
        yield running


def mismatch(cache: Cache) -> None:
    """Say that the cache is not true to its model, as a check would."""
    example = cache.examples(3)[0]
    worst = {"feature": 3, "rank": 0, "tokens": list(example.tokens), "cached": list(example.acts)}
    worst |= {"live": [2 * act for act in example.acts], "scored": list(example.scored)}
    made = cache.manifest
    found = Parity(
        ok=False, cause="The live model works in another precision", fix="Load it in float32", remaining=0.001, windows=12, tokens=900,
        active=77, error=0.4, mean=0.2, worst=0.9, beyond=0.8, tolerance=0.05, allowed=0.05, example=worst,
        tested=[{"name": "precision", "detail": "the cache was made in float32", "error": 0.001}], dtype="bfloat16", device="cpu",
        model_fingerprint=made.model_fingerprint, sae_fingerprint=made.sae_fingerprint, corpus_sha256=made.corpus_sha256,
        created="2026-02-03T00:00:00+00:00",
    )  # fmt: skip
    save(cache, found)


def watched(world: Path, run: Path) -> None:
    """A finished run over a log, of which people have judged some messages either way."""
    from app.loading import load_pair
    from explorer.generate import Steering
    from explorer.monitor import watch
    from explorer.scoring import Probe, Scorer

    cache = Cache.open(world)
    features = cache.live[:2]
    model, coder = load_pair(cache)
    log = run.parent / "chats.jsonl"
    log.parent.mkdir(parents=True)
    rows = [
        {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": TEXT[n % 4]}]}
        for n in range(24)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    norms = {feature: cache.feature(feature).max for feature in features}
    watch(log, Scorer(model, Steering(coder, norms), [Probe(feature) for feature in features]), run)
    kept = Watch(run)
    table = kept.scores(str(features[0]))
    for at, key in enumerate(sample(table)[:8]):
        kept.review(*key, at % 3 == 0, "kim")


def people(url: Path, *worlds: Path) -> None:
    """Two people have named the same features, differently; a queue is shared between them."""
    for world in worlds:
        cache = Cache.open(world)
        sae, features = cache.manifest.sae_fingerprint, cache.live[:12]
        store = LabelStore(url)
        for at, feature in enumerate(features[:6]):
            store.put(sae, feature, f"royalty, {at}", "A note.", confidence=3, author="kim")
            store.put(sae, feature, f"ships and the sea, {at}", author="lee")
        queue = Assignments(url).put(
            Queue(sae, "before the meeting", tuple(features), ("kim", "lee", "me"), author="kim")
        )
        Assignments(url).mark(queue, features[0], "done", author="kim")
        Assignments(url).mark(queue, features[1], "skipped", author="lee")


# --- what is done on a page before it is looked at


def lasso(page) -> None:
    """A line round dots of the map."""
    plot = page.locator(".js-plotly-plot .nsewdrag").first
    plot.wait_for()
    page.locator("[data-title='Lasso Select']").click()
    box = plot.bounding_box()
    for at, (x, y) in enumerate(((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.4))):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
        if not at:
            page.mouse.down()
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"^\d+ features\.$"))).to_be_visible(timeout=LONG)


def zero(page) -> None:
    """The feature is zeroed in an example, and read on somebody's own text."""
    page.get_by_role("button", name="Zero it").click()
    expect(page.locator(".st-key-ablation-heatmap .t").first).to_be_visible(timeout=LONG)
    page.get_by_role("textbox", name="Test your own text").fill("the old king of the sea")
    page.get_by_role("button", name="Analyse").click()


def pinned(page) -> None:
    """A token of the text is pinned."""
    page.locator(".st-key-inspect-heatmap .t").nth(3).click(timeout=LONG)
    expect(page.get_by_text(re.compile("^On “"))).to_be_visible(timeout=LONG)


def contrast(page) -> None:
    """Two sets of texts are told apart."""
    page.get_by_role("button", name="An example").click()
    expect(page.get_by_role("textbox", name="Left, one text a line")).to_have_value(re.compile("Arr"), timeout=LONG)
    page.get_by_role("button", name="Contrast").click()
    expect(page.get_by_text("5 texts against 5")).to_be_visible(timeout=LONG)


def grid(page) -> None:
    """A sweep is run to its end."""
    page.get_by_role("button", name=re.compile("^Run 4 answers")).click()
    expect(page.locator(".sweep .cell")).to_have_count(4, timeout=LONG)


def answered(page) -> None:
    """Both answers are there, and so are the controls, what else moved, and the dose."""
    page.locator(".st-key-steer-go button").click()
    expect(page.locator(".ans.steered header span").last).to_have_text(re.compile(r"^\d+ tokens?$"), timeout=LONG)
    page.get_by_role("button", name="Which other features moved?").click()
    expect(page.locator(".st-key-ledger-bars")).to_contain_text("mean activation", timeout=LONG)
    settled(page)
    page.get_by_role("button", name="Measure the dose").click()


def judged(page) -> None:
    """The judges are measured, and a text is read by all of them."""
    page.get_by_role("button", name=re.compile("^Measure")).click()
    expect(page.get_by_role("button", name=re.compile("^Measure"))).to_be_hidden(timeout=LONG)
    page.get_by_role("textbox", name="Try a text").fill("The old king of the sea.")
    page.get_by_role("button", name="Judge this text").click()


def opened(name: str) -> Callable:
    """A button that opens a part of the page."""
    return lambda page: page.get_by_role("button", name=re.compile(name)).first.click()


def sheet(page) -> None:
    """The sheet of keys is open; not on Label, whose box takes the cursor and the key."""
    page.keyboard.press("?")


def nothing(page) -> None:
    """It is there at once."""


OPEN = "[data-testid=stPopoverBody]"
STATES: dict[str, tuple[str, str, Callable, str]] = {
    "the cache picker": (BUNDLED, "", lambda page: page.locator(".st-key-pick button").first.click(), OPEN),
    "the sheet of keys": (BUNDLED, "feature", sheet, "dialog[open]"),
    "browse's filters": (BUNDLED, "browse", opened("^Filters"), OPEN),
    "browse, several at once": (BUNDLED, "browse?q=king", opened("^With these"), OPEN),
    "compare": (BUNDLED, "compare?feature=4030", nothing, ".st-key-compare-undo"),
    "compare, another to begin": (BUNDLED, "compare", opened("^Compare with"), OPEN),
    "compare, fine-tunes": (BUNDLED, "compare?tab=train", nothing, ".figures"),
    "monitor": (TINY, "monitor?set=chats-01234567", nothing, ".st-key-monitor-buttons"),
    "map": (BUNDLED, "map?colour=label+state&q=king", lasso, ".st-key-map-links a, [class*=map-links] a"),
    "feature": (TINY, "feature?feature=9&show=All", zero, ".st-key-own-heatmap .t"),
    "a wrong cache": (TINY, "", nothing, ".st-key-parity-error .t"),
    "pair": (BUNDLED, "pair?feature=4030&other=2676", nothing, ".hm .t"),
    "inspect": (TINY, "inspect?text=The+old+king+of+the+bridge&feature=2", pinned, ".st-key-inspect-grid table"),
    "inspect, two sets": (TINY, "inspect?tab=Two+sets", contrast, "table"),
    "judges": (TINY, "judges", judged, ".st-key-judges-said table"),
    "label": (BUNDLED, "label?queue=shared:before+the+meeting", nothing, ".st-key-label-side"),
    "label, disagreements": (BUNDLED, "label?what=Disagreements", nothing, "table"),
    "sweep": (TINY, "sweep?edits=3:1:add&strengths=0,1&questions=Who+rules%3F%0AWhy%3F&max_tokens=6", grid, ".sweep"),
    "steer": (TINY, "steer?edits=3:1:add&max_tokens=8&controls=true", answered, "[class*=st-key-dose-lines] .js-plotly-plot"),
    "present": (BUNDLED, "present?step=4.2", nothing, ".ans.steered p"),
}  # fmt: skip
"""Name -> cache, link, what is done there, and what is there then. A label's test is looked at in test_label_keys.py."""


@pytest.mark.parametrize("name", STATES)
def test_a_page_with_something_on_it_has_no_serious_violation_in_either_theme(profile, app, name: str):
    cache, link, done, there = STATES[name]
    page = profile().new_page()
    page.set_default_timeout(LONG)
    page.goto(f"{app.url}/{link}{'&' if '?' in link else '?'}cache={cache}")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)
    done(page)
    expect(page.locator(there).first).to_be_visible(timeout=LONG)
    settled(page)
    found = in_both_themes(page)
    assert not found, "\n".join(found)
