"""The bench as a person meets it, over a tiny real model: a sweep with its files, and a trait that is taught and used."""

import re
from pathlib import Path

import pytest

from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_judges import GRIM, MILD, tiny_embedder
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = 120_000  # milliseconds: two slow cores decode, embed and judge


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("bench"), layers=2)


@pytest.fixture(scope="module")
def app(start_app, world, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    tiny_embedder(models)
    with start_app([world], warmup=True, OMP_NUM_THREADS="1", PERSONA_EXPLORER_MODELS=str(models)) as running:
        yield running


def arrive(page, app, path: str, query: str = "") -> None:
    page.goto(f"{app.url}/{path}?cache=tiny&{query}")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)


def test_a_sweep_runs_is_read_and_taken_away(page, app, tmp_path):
    arrive(page, app, "sweep", "edits=3:1:add&strengths=0,1&questions=Who+rules%3F%0AWhy%3F&max_tokens=6")
    expect(page.get_by_label("Questions, one a line")).to_have_value("Who rules?\nWhy?")
    page.get_by_role("button", name=re.compile("^Run 4 answers")).click()
    expect(page.locator(".sweep .cell")).to_have_count(4, timeout=LONG)
    expect(page.locator(".sweep .mark").first).to_have_text(re.compile("whole|broken"))
    for name, holds in (("CSV", "Who rules?"), ("HTML", "<html")):
        with page.expect_download() as taken:
            page.get_by_role("button", name=name).click()
        path = tmp_path / name
        taken.value.save_as(path)
        assert holds in path.read_text(encoding="utf-8")
    assert "http://" not in (tmp_path / "HTML").read_text(encoding="utf-8").replace("http://www.w3.org", "")


def test_candidates_come_from_a_search_and_stand_in_the_link(page, app):
    arrive(page, app, "sweep", "kind=features&strengths=1&questions=Why%3F&max_tokens=5")
    page.get_by_role("textbox", name="or the best of a search").fill("king")
    page.get_by_role("button", name=re.compile("^Take its first")).click()
    page.wait_for_url(re.compile("features="))
    page.get_by_role("button", name=re.compile(r"^Run \d+ answers")).click()
    expect(page.locator(".sweep .row a").first).to_have_text(re.compile(r"#\d+"), timeout=LONG)


def test_a_taught_judge_has_figures_at_once_and_judges(page, app):
    arrive(page, app, "judges")
    page.get_by_role("textbox", name="Name of the trait").fill("Grim talk")
    page.get_by_role("textbox", name="Sentences that show it, one a line").fill("\n".join(GRIM))
    page.get_by_role("textbox", name="Sentences that do not, one a line").fill("\n".join(MILD[:-1]))
    page.get_by_text("One by one: paste a pile, answer with Y and N").click()
    page.get_by_role("textbox", name="The pile, one sentence a line").fill(MILD[-1])
    page.get_by_role("textbox", name="Name of the trait").focus()
    expect(page.locator(".pile")).to_have_text(MILD[-1])
    page.get_by_role("button", name=re.compile("^Does not")).click()
    expect(page.locator(".pile")).to_have_text("The pile is empty.")
    page.get_by_role("button", name="Teach this trait").click()
    row = page.locator(".figures tr", has_text="Grim talk")
    expect(row).to_contain_text(re.compile(r"\d\.\d{3} to \d\.\d{3}"), timeout=LONG)
    page.get_by_role("textbox", name="Try a text").fill(GRIM[0])
    page.get_by_role("button", name="Judge this text").click()
    expect(page.locator(".st-key-judges-said tr", has_text="Grim talk")).to_contain_text(
        re.compile("yes|no"), timeout=LONG
    )
    arrive(page, app, "sweep", "edits=3:1:add&trait=grim-talk")
    expect(page.get_by_role("combobox", name="Judged for")).to_have_value("Grim talk")
    arrive(page, app, "judges")
    page.get_by_role("button", name="Remove “grim-talk”").click()
    expect(row).to_have_count(0)


@pytest.mark.parametrize("width", [1024, 1440])
@pytest.mark.parametrize("path", ["sweep", "judges"])
def test_nothing_is_wider_than_the_window(context, app, path: str, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    arrive(page, app, path)
    nothing_is_wider(page)
