"""Monitor as a person meets it, over a tiny real model: upload, run, threshold, review by keys, export; and an audit."""

import csv
import json
import re
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.finetune import read_rows
from explorer.monitor import Watch
from tests.browser.conftest import settled
from tests.helpers import TEXT
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 120_000  # milliseconds: two slow cores load and read
HOSTILE = '=1+1 <img src=x onerror="alert(1)"> <script>alert(1)</script>'


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("monitor"), layers=2)


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "chats.jsonl"
    rows = [
        [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": HOSTILE if n == 3 else TEXT[n % 4]},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": TEXT[(n + 1) % 4]},
        ]
        for n in range(24)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def arrive(page, app, query: str = "") -> None:
    page.goto(f"{app.url}/monitor?cache=tiny&{query}")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)


def fits(page) -> bool:
    return page.get_by_test_id("stMain").evaluate("e => e.scrollWidth <= e.clientWidth + 1")


def upload(page, path: Path, features: str, at: int) -> None:
    page.locator("input[type=file]").nth(at).set_input_files(path)
    settled(page)
    box = page.get_by_role("textbox", name="Look for")
    box.fill(features)
    box.press("Enter")
    settled(page)


def test_a_log_is_watched_reviewed_by_keys_and_exported(page, app, world, log, tmp_path):
    features = Cache.open(world).live[:2]
    arrive(page, app)
    upload(page, log, " ".join(map(str, features)), 0)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile("set=chats-"), timeout=LONG)
    figures = page.locator(".tuning")
    expect(figures).to_contain_text(re.compile(r"precision\s*unknown\s*confirm \d+"))

    slider = page.get_by_role("slider", name="Flag messages that score at least")
    slider.focus()
    slider.press("Home")  # everything is flagged
    page.wait_for_url(re.compile("threshold="))
    expect(figures).to_contain_text(re.compile(r"(9[0-9]) of \1"))
    expect(page.locator(".st-key-monitor-here")).to_be_visible()
    settled(page)

    page.locator("h1", has_text="Monitor").click()  # a slider that has the focus keeps the letters
    buttons = page.locator(".st-key-monitor-buttons")
    for letter, judged in (("a", 1), ("d", 2), ("d", 3)):
        page.keyboard.press(letter)
        expect(buttons).to_contain_text(f"{judged} answered")
        settled(page)
    expect(figures).to_contain_text(re.compile(r"precision\s*0\.33"))
    page.keyboard.press("u")
    expect(figures).to_contain_text(re.compile(r"precision\s*0\.50"))
    run = Watch(next((app.home / "monitor").glob("chats-*")))
    assert [review.agree for review in run.reviews().values()] == [True, False]

    page.get_by_text("Random sample of all", exact=True).click()
    expect(page.get_by_text("recall and AUROC need them")).to_be_visible()
    settled(page)

    with page.expect_download() as taken:
        page.get_by_role("button", name="Export flags").click()
    taken.value.save_as(tmp_path / "flags.csv")
    with (tmp_path / "flags.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 90
    assert [row["text"] for row in rows if "onerror" in row["text"]] == ["'" + HOSTILE]
    with page.expect_download() as taken:
        page.get_by_role("button", name="JSONL").click()
    taken.value.save_as(tmp_path / "flags.jsonl")
    assert len((tmp_path / "flags.jsonl").read_text().splitlines()) == len(rows)

    page.reload()  # the link holds what is looked at
    expect(figures).to_contain_text(re.compile(r"precision\s*0\.50"))
    settled(page)
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_timeout(500)
    assert fits(page)
    page.get_by_role("button", name="All runs").click()
    expect(page.locator(".st-key-monitor-runs")).to_contain_text("chats.jsonl")
    settled(page)
    assert fits(page)


def test_a_training_set_is_audited_and_what_is_kept_exported(page, app, world, log, tmp_path):
    feature = str(Cache.open(world).live[0])
    arrive(page, app)
    page.get_by_role("tab", name="Audit a training set").click()
    upload(page, log, feature, 1)
    page.get_by_role("button", name="Audit", exact=True).click()
    expect(page.locator(".audited tr")).to_have_count(25, timeout=LONG)
    said = page.get_by_role("button", name=re.compile(r"^Export \d+ kept rows"))
    kept = int(re.findall(r"\d+", said.inner_text())[0])
    settled(page)
    with page.expect_download() as taken:
        said.click()
    taken.value.save_as(tmp_path / "kept.jsonl")
    assert len(read_rows(tmp_path / "kept.jsonl")) == kept < 24
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_timeout(500)
    assert fits(page)
