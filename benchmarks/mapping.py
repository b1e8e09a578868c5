"""The map of 25,000 features in a real browser: from the click on its name to dots on the screen."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.browsing import write
from benchmarks.harness import figure
from benchmarks.starting import ARGUMENTS, PATIENCE, chromium, free_port, server, wait
from explorer import mapping
from explorer.cache import Cache

FEATURES, ROUNDS = 25_000, 9
CHART = '[data-testid=stPlotlyChart][aria-label*="features as dots"]'
DRAWN = f"""() => {{
  const layer = document.querySelector('{CHART} canvas.gl-canvas-context');
  if (!layer?.width) return false;
  const copy = Object.assign(document.createElement("canvas"), {{ width: 32, height: 32 }}).getContext("2d");
  copy.drawImage(layer, 0, 0, 32, 32);
  return copy.getImageData(0, 0, 32, 32).data.some((value) => value);
}}"""
"""Whether dots are on the canvas of the map."""
WATCH = f"""() => {{
  const drawn = {DRAWN};
  window.arrived = window.painted = undefined;
  new MutationObserver(() => {{ if (!window.arrived && document.querySelector('{CHART}')) window.arrived = performance.now(); }})
    .observe(document.body, {{ childList: true, subtree: true, attributes: true, attributeFilter: ["aria-label"] }});
  // Reading a canvas back waits for what has been asked of it: the time after that is when the dots are really there.
  const look = () => requestAnimationFrame(() => {{ drawn() ? (window.painted = performance.now()) : setTimeout(look, 30); }});
  const link = [...document.querySelectorAll("a")].find((a) => a.textContent.trim() === "Map");
  link.addEventListener("click", () => {{ window.clicked = performance.now(); look(); }}, {{ capture: true, once: true }});
}}"""
"""Notes in the page itself when the link to the map is clicked, when the map has come, and when its dots have been drawn."""


def measure() -> dict:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "large"
        write(path, FEATURES)
        places = np.random.default_rng(0).normal(size=(FEATURES, 2)).astype(np.float32)
        mapping.write(Cache.open(path), places, "random")
        settings = {"PERSONA_EXPLORER_CACHES": str(path), "PERSONA_EXPLORER_WARMUP": "0"}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
            with server(free_port(), **settings) as (address, _):
                wait(address)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.set_default_timeout(PATIENCE * 1000)
                clicks = [clicked(page, f"{address}/?cache=large") for _ in range(ROUNDS + 1)]
                links = [opened(page, f"{address}/map?cache=large") for _ in range(ROUNDS + 1)]
            browser.close()
    what = f"{FEATURES:,} dots, coloured by density, WebGL in software; a Chromium that has been here before"
    return {
        "map_draws_s": figure(
            [drawing for _, drawing in clicks[1:]],
            "s",
            f"From the map's arrival in the page to dots on the canvas; {what}",
            at_most=1.0,
        ),
        "map_click_s": figure(
            [whole for whole, _ in clicks[1:]],
            "s",
            f"The same from the click on Map, on Overview: the way to the server and back before it; {what}",
            at_most=1.0,
        ),
        "map_opens_s": figure(
            links[1:], "s", f"From a link in an empty tab, with the loading of the app itself, to dots; {what}"
        ),
        "map_first_s": figure([clicks[0][0]], "s", f"The first click after the server's start; {what}"),
    }


def clicked(page, elsewhere: str) -> tuple[float, float]:
    """Seconds to dots from the click, and from the map's arrival, by the page's own clock."""
    page.goto(elsewhere)
    page.locator(".js-plotly-plot").nth(1).wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(1000)  # nobody clicks while the page is still being drawn
    page.evaluate(WATCH)
    page.get_by_role("link", name="Map", exact=True).click()
    page.wait_for_function("window.painted !== undefined")
    return tuple(page.evaluate("[window.clicked, window.arrived].map((since) => (window.painted - since) / 1000)"))


def opened(page, address: str) -> float:
    """Seconds from asking for the page to dots."""
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(DRAWN, polling=50)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(measure()))
