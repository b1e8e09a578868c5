"""Every page passes axe-core: no serious violation in either theme, but for a short list of what Streamlit itself draws."""

from pathlib import Path

import pytest

from app.main import PAGES
from explorer.cache import Cache
from tests.browser.axe_rules import in_both_themes
from tests.browser.conftest import settled
from tests.helpers_cache import fake_cache
from tests.helpers_map import fake_map

QUERIES = {"feature": "feature=3", "pair": "feature=3&other=4", "map": "colour=label+state&q=king"}
"""Page -> the query that it is looked at with, where an empty one shows too little."""


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("caches")
    fake_map(Cache.open(fake_cache(folder / "made-up", 60)))
    with start_app([folder / "made-up"]) as running:
        yield running


@pytest.mark.parametrize("url", [page.url for page in PAGES])
def test_a_page_has_no_serious_violation_in_either_theme(profile, app, url: str):
    page = profile().new_page()
    path = "" if url == PAGES[0].url else url
    page.goto(f"{app.url}/{path}?cache=made-up&{QUERIES.get(url, '')}")
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)
    found = in_both_themes(page)
    assert not found, "\n".join(found)
