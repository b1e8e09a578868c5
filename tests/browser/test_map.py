"""The map in a browser: a line drawn round dots chooses them, a click opens one, colours and search are in the link."""

from pathlib import Path

import pytest

from explorer.cache import Cache
from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_cache import fake_cache
from tests.helpers_map import fake_map

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
PLOT = ".js-plotly-plot"
PIXEL = """([x, y]) => {
  const plot = document.querySelector(".js-plotly-plot"), box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
  return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
}"""


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("caches")
    fake_map(Cache.open(fake_cache(folder / "made-up", 60)))  # feature 12 lies at (2, 1)
    with start_app([folder / "made-up"]) as running:
        yield running


def opened(page, app, query: str = "") -> None:
    page.goto(f"{app.url}/map?cache=made-up{query}")
    expect(page.locator(f"{PLOT} canvas.gl-canvas-context")).to_be_visible()
    settled(page)
    page.wait_for_function("!!document.querySelector('.js-plotly-plot')?._fullLayout?.xaxis?.l2p")


def drag(page, *places: tuple[float, float]) -> None:
    """Draw a line through places of the map, with the mouse button down."""
    points = [page.evaluate(PIXEL, list(place)) for place in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_a_line_round_dots_chooses_them_and_they_are_kept_as_a_list_and_opened_in_browse(page, app):
    opened(page, app)
    page.locator("[data-title='Lasso Select']").click()
    drag(page, (0.5, 0.5), (2.5, 0.5), (2.5, 1.5), (0.5, 1.5), (0.5, 0.5))  # round 11 and 12, without 1, 2, 10, 13
    expect(page.get_by_text("2 features.")).to_be_visible()
    links = page.locator(".st-key-map-links a, [class*=map-links] a")
    expect(links).to_have_count(2)
    assert sorted(link.inner_text().split()[0] for link in links.all()) == ["#11", "#12"]
    page.get_by_label("Name of a list").fill("by eye")
    page.get_by_role("button", name="Save, open in Browse").click()
    page.wait_for_url("**/browse**list=by+eye**")
    rows = page.locator("table[aria-label=Features] tbody tr")
    expect(rows).to_have_count(2)


def test_a_box_chooses_too_and_the_next_choice_takes_its_place(page, app):
    opened(page, app)
    page.locator("[data-title='Box Select']").click()
    drag(page, (0.6, 0.6), (2.4, 2.4))
    expect(page.get_by_text("4 features.")).to_be_visible()
    settled(page)
    drag(page, (2.6, 2.6), (3.4, 3.4))
    expect(page.get_by_text("1 feature.")).to_be_visible()


def test_a_click_opens_the_feature(page, app):
    opened(page, app)
    at = page.evaluate(PIXEL, [2, 1])
    page.mouse.move(*at)
    expect(page.locator(".hoverlayer")).to_contain_text("#12")
    page.mouse.click(*at)
    page.wait_for_url("**/feature?**feature=12**")


def test_colour_and_search_are_in_the_link_and_survive_a_reload(page, app):
    opened(page, app)
    page.get_by_role("combobox", name="Colour").click()
    page.get_by_role("option", name="label state").click()
    page.wait_for_url("**colour=label+state**")
    page.get_by_role("searchbox").fill("king")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=king**")
    expect(page.locator(f"{PLOT} .legend").first).to_contain_text(
        "matches"
    )  # a plot that is drawn anew is there twice for a moment
    page.reload()
    expect(page.locator(f"{PLOT} .legend").first).to_contain_text(
        "matches"
    )  # a plot that is drawn anew is there twice for a moment
    expect(page.get_by_role("searchbox")).to_have_value("king")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 1440])
def test_the_map_fits_the_window_and_its_words_have_the_theme_s_ink(profile, app, theme: str, width: int):
    page = profile(color_scheme=theme, viewport={"width": width, "height": 900}).new_page()
    opened(page, app, "&colour=label+state")
    nothing_is_wider(page)
    ink = page.locator(f"{PLOT} .legendtext").first.evaluate("e => getComputedStyle(e).fill")
    lightness = sum(int(part) for part in ink[4:-1].split(","))
    assert (lightness > 384) == (theme == "dark")
