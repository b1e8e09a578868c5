"""What users of other tools complain of, where no other test shows it; the README lists all of it."""

import re
from pathlib import Path

import pytest

from app import resources
from app.main import PAGES, Page
from explorer.cache import Cache
from tests.helpers_app import drawn, run_page
from tests.helpers_cache import fake_cache
from tests.helpers_steer import FakeEngine


@pytest.fixture(autouse=True)
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


def test_two_modes_are_compared_side_by_side(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    engine = FakeEngine(cache, steered=["added"])
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    app = run_page("steer", edits="3:2:add", prompt="Who rules?")
    app.button(key="steer-go").click().run()
    engine.answers = (engine.answers[0], ("clamped",))
    app.selectbox(key="steer-mode-3").set_value("clamp").run()
    _, first = list(app.session_state["steer-history"])
    app.selectbox(key="steer-earlier").set_value(first.key).run()
    assert not app.exception
    beside = next(h.value for h in app.html if "Then: " in h.value)
    then, now = beside.split("<section")[1:]
    assert "Then: +2.00" in then
    assert "added" in then
    assert "In view: clamp 2.00" in now
    assert "clamped" in now


@pytest.mark.parametrize("page", ["", "feature"], ids=["overview", "feature"])
def test_every_histogram_has_a_sentence_above_it(page: str):
    elements = list(run_page(page).main)
    charts = [at for at, element in enumerate(elements) if element.type == "plotly_chart"]
    assert charts
    for at in charts:
        above = elements[at - 1].value  # type: ignore[attr-defined]
        assert re.search(r'<p class="say">Each \w+ (counts|is a) .*\.</p>', above)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.url)
def test_every_page_says_what_it_is_for(page: Page):
    sheet = drawn(run_page("" if page.url == "overview" else page.url), "commands")
    assert sheet["about"] == page.about
    assert re.fullmatch(r"[A-Z].{30,}\.", page.about)
