"""Take the screenshots: the real app, the bundled world, the live model, in Chromium.

python -m tools.screenshots            docs/screenshot.png, which the README shows
python -m tools.screenshots FOLDER     every view in both themes, to look at
"""

import sys
from pathlib import Path

from benchmarks.starting import ARGUMENTS, chromium, free_port, server, wait

ROOT = Path(__file__).parents[1]
SIZE = {"width": 1440, "height": 900}
WHOLE = {"width": 1440, "height": 2600}  # the page scrolls inside the window, so a high window shows all of it
VIEWS = {
    "overview": "/",
    "browse": "/browse",
    "feature": "/feature",
    "steer": "/steer",
    "present": "/present",
    "label": "/label",
    "compare": "/compare",
    "monitor": "/monitor",
}


def main(folder: Path | None) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, server(free_port()) as (address, _):
        wait(address)
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for theme in ("light", "dark") if folder else ("light",):
            page = browser.new_context(
                viewport=WHOLE if folder else SIZE,  # type: ignore[arg-type]
                color_scheme=theme,  # type: ignore[arg-type]
                device_scale_factor=1,
            ).new_page()
            for name, path in VIEWS.items() if folder else [("steer", VIEWS["steer"])]:
                page.goto(address + path)
                settle(page)
                if name == "steer":
                    steer(page)
                target = folder / f"{name}-{theme}.png" if folder else ROOT / "docs" / "screenshot.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=target)
                print(target)
        browser.close()


def settle(page) -> None:
    """Until the page has stopped running."""
    page.get_by_test_id("stMain").get_by_test_id("stElementContainer").last.wait_for(timeout=60_000)
    page.wait_for_function("document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'")
    page.wait_for_timeout(1500)


def steer(page) -> None:
    """Run what the page has ready, the first preset, and let both answers be written."""
    page.get_by_role("button", name="Run").first.click()
    written = "(text => text.includes('first token after') && !text.includes('streaming'))"
    page.wait_for_function(f"{written}(document.querySelector('.answers')?.innerText ?? '')", timeout=240_000)
    settle(page)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
