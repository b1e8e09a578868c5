"""The Feature page as a person meets it: colours, tooltips, keys, links, hostile text."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.helpers_cache import HOSTILE, fake_cache

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
HEAT = ".st-key-heatmap"
SILENT = 5


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("caches")
    fake_cache(folder / "made-up", 80, dead=(SILENT,))
    with start_app([folder / "made-up"]) as running:
        yield running


@pytest.fixture
def visit(page, app) -> Callable[..., None]:
    """Open the page and wait until it can be used; whatever the browser complains about fails the test."""
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)

    def go(query: str = "feature=3") -> None:
        page.goto(f"{app.url}/feature?{query}&cache=made-up")
        expect(page.get_by_role("button", name="Analyse")).to_be_visible()
        page.locator("dialog[data-listening]").wait_for(state="attached")

    yield go
    # deep links ask for two of Streamlit's own addresses that are not there
    assert not [said for said in trouble if "404" not in said]


def rows(page):
    return page.locator(f"{HEAT} .row")


def tip(page):
    return page.locator(f"{HEAT} .tip")


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def number(page) -> str:
    return re.match(r"#(\d+)", page.locator("h1").first.inner_text())[1]


def test_no_sentence_of_the_code_is_drawn(page, visit):
    visit()
    assert page.locator("[data-testid=stMarkdown]").count() == 0


def test_the_heatmap_is_drawn_with_its_maxima_marked(page, visit):
    visit()
    expect(rows(page)).to_have_count(24)
    expect(page.locator(f"{HEAT} .t.max")).to_have_count(24)
    first = rows(page).first
    assert "a8" in first.locator(".t.max").get_attribute("class")
    assert first.get_attribute("aria-label").startswith("Example 1 of 24. Maximum ")
    expect(page.locator(f"{HEAT} [role=list]")).to_have_count(1)
    expect(page.locator(f"{HEAT} .row[tabindex='0']")).to_have_count(1)


def test_twelve_examples_are_above_the_fold(page, visit):
    visit("feature=9")
    expect(rows(page)).to_have_count(24)
    box = rows(page).nth(11).bounding_box()
    assert box["y"] < 900


def test_the_tooltip_tells_of_the_token_under_the_mouse(page, visit):
    visit()
    rows(page).first.locator(".t.max").hover()
    expect(tip(page)).to_be_visible()
    for said in ("activation", "of feature max", "100 %", "position", "token id"):
        expect(tip(page)).to_contain_text(said)
    page.mouse.move(5, 5)
    expect(tip(page)).to_be_hidden()


def test_a_character_of_several_tokens_is_one_and_lists_its_bytes(page, visit):
    visit()
    emoji = page.locator(f"{HEAT} .row:not(.hidden) .t", has_text="😀").first
    expect(emoji).to_be_visible()
    emoji.hover()
    expect(tip(page)).to_contain_text("bytes F0")
    expect(tip(page)).to_contain_text("token ids")


def test_special_tokens_are_not_scored(page, visit):
    visit("feature=3&ctx=Whole")
    special = page.locator(f"{HEAT} .row:not(.hidden) .t.sp").first
    special.hover()
    expect(tip(page)).to_contain_text("not scored")
    assert "a0" in special.get_attribute("class")


def test_rows_and_tokens_are_walked_pinned_and_cleared_with_the_keyboard(page, visit):
    visit()
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(rows(page).first).to_be_focused()
    page.keyboard.press("End")
    expect(rows(page).last).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(rows(page).first.locator(".t.max.at")).to_have_count(1)
    expect(tip(page)).to_be_visible()
    live = page.locator(f"{HEAT} [aria-live=polite]")
    said = live.inner_text()
    page.keyboard.press("ArrowRight")
    expect(live).not_to_have_text(said)
    page.keyboard.press("Enter")
    expect(page.locator(f"{HEAT} .pin")).to_have_count(1)
    page.mouse.move(5, 5)
    expect(tip(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(f"{HEAT} :is(.pin, .at)")).to_have_count(0)
    expect(tip(page)).to_be_hidden()


def test_a_row_opens_and_closes_with_space_and_with_the_mouse(page, visit):
    visit("feature=9")
    row = rows(page).first
    expect(row.locator(".t")).not_to_have_count(0)
    short = row.locator(".t").count()
    row.focus()
    page.keyboard.press("Space")
    expect(row.locator(".edge")).to_have_text("less")
    assert row.locator(".t").count() > short
    expect(row).to_be_focused()
    page.keyboard.press("Space")
    expect(row.locator(".t")).to_have_count(short)
    row.locator(".edge").first.click()
    expect(row.locator(".edge")).to_have_text("less")


def test_a_copied_row_is_the_text_of_the_whole_window(context, page, visit, app):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=app.url)
    visit()
    row = rows(page).first
    row.focus()
    page.keyboard.press("y")
    expect(row.locator(".copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("<|im_start|>king\n")
    assert "<script>alert(1)</script>" in copied


def test_without_a_clipboard_the_text_is_selected(page, visit):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    visit()
    row = rows(page).first
    row.hover()
    row.locator(".copy").click()
    expect(row.locator(".copy")).to_have_text("Selected")


def test_an_example_is_tried_in_the_box_by_key_or_press(page, visit):
    visit()
    box = page.get_by_role("textbox", name="Test your own text")
    rows(page).first.focus()
    page.keyboard.press("t")
    expect(box).to_be_focused()
    expect(box).to_have_value(re.compile(r"^king\n"))  # less its special tokens
    taken = box.input_value()
    assert "<script>alert(1)</script>" in taken
    page.keyboard.press("Escape")
    expect(box).not_to_be_focused()
    other = rows(page).nth(2)
    other.hover()
    other.locator(".take").click()
    expect(box).not_to_have_value(taken)
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    page.mouse.move(5, 5)
    page.keyboard.press("t")
    expect(box).to_be_focused()


def test_offensive_rows_are_blurred_until_asked_for(page, visit):
    visit()
    hidden = page.locator(f"{HEAT} .row.hidden")
    expect(hidden).not_to_have_count(0)
    expect(rows(page)).to_have_count(24)
    count = hidden.count()
    row = hidden.first
    assert "blurred" in row.get_attribute("aria-label")
    assert "alert" not in row.get_attribute("aria-label")
    assert row.locator(".text").evaluate("e => getComputedStyle(e).filter") != "none"
    row.focus()
    page.keyboard.press("ArrowRight")
    expect(tip(page)).to_be_hidden()
    page.keyboard.press("Enter")
    expect(hidden).to_have_count(count - 1)
    hidden.first.locator(".reveal").click()
    expect(hidden).to_have_count(count - 2)


def test_hostile_tokens_are_text_everywhere(page, visit):
    visit("feature=3&show=All&ctx=Whole")
    expect(page.locator(f"{HEAT} .t", has_text="<script>").first).to_be_attached()
    expect(page.locator(f"{HEAT} :is(script, img, iframe, a)")).to_have_count(0)
    page.locator(f"{HEAT} .row:not(.hidden) .t", has_text="<img").first.hover()
    expect(tip(page)).to_contain_text("<img src=x")
    assert page.locator("h1").first.inner_text().endswith("<script>alert(1)</script>")
    expect(page.locator("[data-testid=stMain] :is(script, iframe), [data-testid=stMain] img[src=x]")).to_have_count(0)
    assert HOSTILE[1].decode() in page.locator(f"{HEAT} .hm").inner_text()


def test_letters_step_and_the_link_follows(page, visit):
    visit("feature=9&show=Intervals")
    page.keyboard.press("j")
    expect(page.locator("h1").first).to_contain_text("#10")
    assert query(page)["feature"] == ["10"]
    page.keyboard.press("k")
    expect(page.locator("h1").first).to_contain_text("#9")
    rows(page).first.focus()
    page.keyboard.press("j")  # in a row too
    expect(page.locator("h1").first).to_contain_text("#10")
    page.keyboard.press("x")
    expect(page.locator("h1").first).not_to_contain_text("#10")
    assert query(page)["show"] == ["Intervals"]
    page.go_back()
    expect(page.locator("h1").first).to_contain_text("#10")


def test_the_link_restores_what_was_seen(page, visit):
    visit("feature=9")
    page.get_by_role("radio", name="All").or_(page.get_by_role("button", name="All", exact=True)).first.click()
    page.wait_for_url("**show=All**")
    expect(page.locator(f"{HEAT} .more")).to_have_text("Show 20 more of 20")
    page.locator(f"{HEAT} .more").click()
    expect(rows(page)).to_have_count(44)
    expect(page.locator(f"{HEAT} .group")).to_have_count(6)
    page.get_by_text("Line breaks").click()
    page.wait_for_url("**breaks=true**")
    page.reload()
    expect(rows(page)).to_have_count(24)
    expect(page.locator(f"{HEAT} .hm.breaks")).to_have_count(1)


def test_s_leads_to_steer_with_this_feature(page, visit):
    visit("feature=9")
    page.keyboard.press("s")
    page.wait_for_url("**/steer?**")
    assert query(page)["edits"] == ["9:1:add"]


def test_neighbours_open_in_place_and_as_links(page, visit):
    visit("feature=9")
    link = page.locator(".st-key-links-cosine a").first
    index = link.inner_text().split()[0].lstrip("#")
    assert link.get_attribute("href").startswith(f"feature?feature={index}")
    link.click()
    expect(page.locator("h1").first).to_contain_text(f"#{index}")
    assert query(page)["feature"] == [index]


def test_a_silent_feature_leads_to_one_that_fires(page, visit):
    visit(f"feature={SILENT}")
    expect(page.get_by_text("No window in this corpus activates this feature")).to_be_visible()
    page.locator(".st-key-links-alive a").first.click()
    expect(rows(page)).to_have_count(24)


def test_saving_a_label_leaves_the_heatmap_as_it_is(page, visit):
    visit("feature=11")
    rows(page).nth(2).locator(".t.max").click()
    expect(page.locator(f"{HEAT} .pin")).to_have_count(1)
    rows(page).nth(2).locator(".edge").first.click()
    box = page.get_by_role("textbox", name="Label")
    box.fill("eleven")
    box.press("Enter")
    expect(page.locator("h1").first).to_contain_text("eleven")
    expect(rows(page).nth(2).locator(".edge")).to_have_text("less")


@pytest.mark.parametrize("width", [1024, 1440, 2560])
def test_nothing_is_wider_than_the_window(page, visit, width: int):
    page.set_viewport_size({"width": width, "height": 900})
    visit("feature=3&ctx=Whole")
    assert page.get_by_test_id("stMain").evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    expect(rows(page)).to_have_count(24)
    inside = "e => e.scrollWidth <= e.clientWidth + 1"
    assert all(row.evaluate(inside) for row in rows(page).all()[:6])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_from_every_colour_of_the_scale(page, visit, scheme: str):
    page.emulate_media(color_scheme=scheme)
    visit("feature=3&show=All&ctx=Whole")
    page.locator(f"{HEAT} .more").click()
    pairs = page.locator(f"{HEAT} .row:not(.hidden) .t:not(.a0)").evaluate_all(
        "all => [...new Set(all.map(e => { const s = getComputedStyle(e); return s.color + '/' + s.backgroundColor; }))]"
    )
    assert len(pairs) >= 5

    def luminance(colour: str) -> float:
        parts = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for pair in pairs:
        low, high = sorted(luminance(colour) for colour in pair.split("/"))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair
