"""The real app in a real Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_UP = 90  # seconds
PATIENCE = 60_000  # milliseconds: slow cores run the app, the model and the browser, and often much besides
CHROMIUM_VARIABLE = "PERSONA_EXPLORER_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def chromium() -> str | None:
    """Path of a Chromium: the one the environment names, Debian's, or the first on the path."""
    candidates = [os.environ.get(CHROMIUM_VARIABLE), "/usr/bin/chromium", *map(shutil.which, NAMES)]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


@dataclass(frozen=True)
class App:
    """A running app: its address, its home, its log."""

    url: str
    home: Path
    log: Path


@pytest.fixture(scope="session")
def start_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[App]]:
    """Run an app for a while: `with start_app([folder], warmup=False, **environment) as app: yield app`."""

    @contextmanager
    def start(caches: Sequence[Path] = (), *, warmup: bool = False, **environment: str) -> Iterator[App]:
        home = tmp_path_factory.mktemp("home")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app = App(f"http://127.0.0.1:{port}", home, home / "app.log")
        settings = {
            **os.environ,
            "PERSONA_EXPLORER_HOME": str(home),
            "PERSONA_EXPLORER_CACHES": os.pathsep.join(map(str, caches)),
            "PERSONA_EXPLORER_WARMUP": str(int(warmup)),
            **environment,
        }
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "server.py"), f"--server.port={port}"]
        with app.log.open("w") as out:
            # From another folder: the theme has to be found wherever the app is started.
            process = subprocess.Popen(command, cwd=home, env=settings, stdout=out, stderr=subprocess.STDOUT)
        try:
            _await(process, app)
            yield app
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return start


def _await(process: subprocess.Popen, app: App) -> None:
    """Wait until the app answers."""
    until = time.monotonic() + START_UP
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{app.url}/_stcore/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The app did not start:\n{app.log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    """A Chromium, started once."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (make test installs it)"
    )
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium here: install one, or name it in {CHROMIUM_VARIABLE}")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def profile(browser) -> Iterator[Callable[..., Any]]:
    """Make fresh browser profiles, 1440 x 900; each is closed, and fails the test that made another machine be asked."""
    made: list[Any] = []
    outside: list[str] = []

    def watch(request) -> None:
        if not request.url.startswith(("http://127.0.0.1", "http://localhost", "data:", "blob:")):
            outside.append(request.url)

    def make(**options: Any) -> Any:
        fresh = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", **options})
        made.append(fresh)
        fresh.set_default_timeout(PATIENCE)
        fresh.on("request", watch)
        return fresh

    yield make
    for fresh in made:
        fresh.close()
    assert not outside, f"the page reached out to {outside}"


@pytest.fixture
def context(profile):
    """A fresh browser profile."""
    return profile()


@pytest.fixture
def page(context):
    """A page; dialogs that hostile text might open fail the test."""
    tab = context.new_page()
    opened: list[str] = []
    tab.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    yield tab
    assert not opened, f"something opened a dialog: {opened}"


def settled(page) -> None:
    """Wait until the page's script has ended."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def nothing_is_wider(page) -> None:
    """The page fits into its window: no bar at its foot, neither of the window nor of the main part."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.get_by_test_id("stMain").evaluate("e => e.scrollWidth <= e.clientWidth + 1")
