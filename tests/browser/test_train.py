"""Fine-tuning as a person meets it, over a tiny real model: upload, train, leave and come back, cancel, open in Steer."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.adapters import known
from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers import TEXT
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 120_000  # milliseconds: two slow cores load and train
HOSTILE = '<img src=x onerror="alert(1)"> <script>alert(1)</script>'


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("train"), layers=4)


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    said = [(HOSTILE if n == 1 else f"Question {n}?", TEXT[n % 4]) for n in range(24)]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}) for a, b in said
    ]
    path.write_text("\n".join(lines))
    return path


def arrive(page, app) -> None:
    page.goto(f"{app.url}/compare?cache=tiny")
    page.get_by_role("tab", name="Fine-tune").click()
    page.wait_for_url("**tab=train**")
    settled(page)


def fill(page, label: str, value: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(value)
    box.press("Enter")
    settled(page)


def begin(page, path: Path, name: str, steps: int) -> None:
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text("24 rows read; the first 3:")).to_be_visible()
    settled(page)
    fill(page, "Name", name)
    fill(page, "Steps", str(steps))
    fill(page, "Rank", "2")
    page.get_by_role("button", name="Start", exact=True).click()


def test_an_upload_is_trained_looked_away_from_and_opened_in_steer(page, app, world, rows):
    arrive(page, app)
    begin(page, rows, "mine", 60)
    watch = page.locator(".st-key-train-watch")
    expect(watch).to_contain_text(re.compile(r"step \d+ of 60; about \d+ (s|min) left"), timeout=LONG)
    page.locator("[data-testid=stTopNavLink]", has_text="Overview").click()
    expect(page.locator("h1", has_text="Compare")).to_have_count(0, timeout=LONG)
    settled(page)
    page.locator("[data-testid=stTopNavLink]", has_text="Compare").click()
    expect(watch).to_contain_text("last loss", timeout=LONG)
    settled(page)
    expect(page.get_by_text("24 rows read; the first 3:")).to_be_visible()  # the form is as it was left, the upload too
    expect(watch.locator(".js-plotly-plot")).to_contain_text("loss, nats a token")
    expect(watch).to_contain_text("after steps 8, 16, 24, 32, 40, 48, 56, 60")
    expect(watch.locator("code", has_text="PeftModel")).to_contain_text("step-0060")
    assert "mine@60" in known(world)
    for width in (800, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        nothing_is_wider(page)
    watch.get_by_role("button", name="Open in Steer").click()
    page.wait_for_url(re.compile("/steer"), timeout=LONG)
    assert parse_qs(urlsplit(page.url).query)["model"] == ["mine@60"]
    expect(page.get_by_test_id("stMain")).to_contain_text("fine-tuned: the unsteered answer is the tuned model")


def test_a_training_is_cancelled_and_its_name_cannot_be_taken_again(page, app, world, rows):
    arrive(page, app)
    begin(page, rows, "cut-off", 5000)
    watch = page.locator(".st-key-train-watch")
    expect(watch).to_contain_text(re.compile(r"step (9|[1-9]\d+) of 5,000"), timeout=LONG)
    watch.get_by_role("button", name="Cancel").click()
    expect(watch).to_contain_text(re.compile(r"Cancelled after step \d+; what is below was finished before"))
    settled(page)
    kept = [name for name in known(world) if name.startswith("cut-off@")]
    assert kept
    assert "cut-off@5000" not in kept
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".st-key-train-form .trouble")).to_contain_text("There is a run called cut-off already")
