"""From the command to the first page, in a real browser."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.harness import figure

ROUNDS, PATIENCE = 5, 60.0
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def measure() -> dict:
    from playwright.sync_api import sync_playwright

    answers, pages, memory = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        context, port = browser.new_context(), free_port()  # one browser that has seen this address before
        for _ in range(ROUNDS + 1):  # the first one fills the caches of disk and browser
            start = time.perf_counter()
            with server(port) as (address, process):
                wait(address)
                answers.append(time.perf_counter() - start)
                page = context.new_page()
                page.goto(address)
                page.get_by_test_id("stMain").get_by_role("heading").first.wait_for(timeout=PATIENCE * 1000)
                pages.append(time.perf_counter() - start)
                memory.append(process.memory_info().rss / 1e6)
                page.close()
        browser.close()
    note = f"persona-explorer app on the bundled world; the server holds {max(memory):.0f} MB when the page is there"
    return {
        "app_first_page_s": figure(
            pages[1:],
            "s",
            f"From the command to Overview's heading in a Chromium that is open and has been here before; {note}",
            at_most=2.0,
        ),
        "app_answers_s": figure(answers[1:], "s", "From the command to the server's first answer"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def chromium() -> str:
    named = os.environ.get("PERSONA_EXPLORER_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        raise SystemExit("No Chromium: run make chromium, or set PERSONA_EXPLORER_CHROMIUM")
    return found


@contextlib.contextmanager
def server(port: int, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """The app, with a home of its own and further environment variables."""
    from explorer.packaged import HOME_VARIABLE, MODELS_VARIABLE, models_folder

    command = [str(Path(sys.executable).parent / "persona-explorer"), "app", "--headless", "--port", str(port)]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {HOME_VARIABLE: home, MODELS_VARIABLE: str(models_folder()), **settings}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"http://localhost:{port}", psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(address: str) -> None:
    """Until the server answers.

    Raises:
        SystemExit: If it does not for a minute.
    """
    stop = time.monotonic() + PATIENCE
    while time.monotonic() < stop:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).status == 200:
                return
        time.sleep(0.02)
    raise SystemExit(f"The app did not answer at {address}")


if __name__ == "__main__":
    print(json.dumps(measure()))
