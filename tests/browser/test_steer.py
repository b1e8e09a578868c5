"""Steer as a person meets it, over a tiny real model: links, streaming, Stop, a slider in mid-stream, a closed tab."""

import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.runs import PATIENCE
from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_steer import tiny_world

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
LONG = "max_tokens=400&temperature=1.5&top_p=1&repetition_penalty=1.3"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("steer"))


@pytest.fixture(scope="module")
def app(start_app, world):
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


def only(app, query: str = "") -> str:
    return f"{app.url}/steer?cache=tiny&{query}"


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def arrive(page, app, said: str) -> None:
    page.goto(only(app, said))
    expect(page.get_by_role("button", name=re.compile("^Run|Run "))).to_be_visible(timeout=30_000)
    page.locator("dialog[data-listening]").wait_for(state="attached")
    settled(page)


def card(page, side: str):
    return page.locator(f".ans.{side}")


def note(page, side: str):
    return card(page, side).locator("header span")


def start(page) -> None:
    page.locator(".st-key-steer-go button").click()


def streaming(page) -> None:
    expect(note(page, "steered")).to_have_text(re.compile(r"streaming, \d\d+ tokens"), timeout=60_000)


def goes_on(page) -> None:
    """Wait until the steered answer has grown."""
    before = tokens(page)
    page.wait_for_function(
        "n => Number(document.querySelector('.ans.steered header span')?.innerText.match(/^streaming, (\\d+)/)?.[1]) > n",
        arg=before,
    )


def ended(page, side: str = "steered", within: int = 90_000) -> None:
    """Wait for the end of an answer, whichever it is."""
    expect(note(page, side)).to_have_text(re.compile(r"^(stopped after )?\d+ tokens?$"), timeout=within)
    settled(page)


def in_link(**said: str) -> re.Pattern[str]:
    """A pattern of addresses that say so; colons may be quoted."""
    (name, value), *_ = said.items()
    return re.compile(rf"[?&]{name}=" + re.escape(value).replace(":", "(?::|%3A)") + "(?:&|$|:|%3A)")


def tokens(page, side: str = "steered") -> int:
    found = re.search(r"(\d+) token", note(page, side).inner_text())
    return int(found[1]) if found else 0


def move(page, feature: int, presses: int, key: str = "ArrowRight") -> None:
    handle = page.get_by_role("slider", name=f"Strength of feature {feature}")
    handle.focus()
    for _ in range(presses):
        page.keyboard.press(key)


def test_a_link_restores_the_page_and_nothing_runs(page, app):
    arrive(page, app, "edits=3:1.5:add,7:-0.5:add:off,8:2:clamp&prompt=Who+are+you%3F&seed=7&positions=all")
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("Who are you?")
    for feature, value in ((3, "1.5"), (7, "-0.5"), (8, "2")):
        expect(page.get_by_role("slider", name=f"Strength of feature {feature}")).to_have_value(value)
    expect(page.get_by_text("seed 7, temperature 0.7")).to_be_visible()
    expect(note(page, "steered")).to_have_text("not run yet")
    assert query(page)["edits"] == ["3:1.5:add,7:-0.5:add:off,8:2:clamp"]


def test_a_run_streams_both_columns_in_step_and_ends(page, app):
    arrive(page, app, f"edits=3:2:add&seed=3&{LONG}")
    start(page)
    streaming(page)
    both = page.evaluate("[...document.querySelectorAll('.ans header span')].map(e => e.innerText)")
    assert both[0] == both[1]
    expect(card(page, "steered")).to_have_class(re.compile("live"))
    boxes = page.evaluate(
        "[...document.querySelectorAll('.ans')].map(e => e.getBoundingClientRect()).map(r => [r.y, r.height])"
    )
    assert boxes[0] == boxes[1]
    ended(page)
    assert tokens(page) > 9
    expect(page.get_by_role("slider", name="Strength of feature 3")).to_have_value("2")


def test_sliders_stand_where_the_link_puts_them_however_soon_a_run_begins(page, app):
    page.goto(only(app, "edits=3:2.5:add,7:-0.5:add:off,8:2:clamp&max_tokens=5"))
    start(page)
    ended(page)
    for feature, value in ((3, "2.5"), (7, "-0.5"), (8, "2")):
        expect(page.get_by_role("slider", name=f"Strength of feature {feature}")).to_have_value(value)


def test_escape_stops_an_answer_and_keeps_what_there_is(page, app):
    arrive(page, app, f"edits=3:0.2:add&{LONG}")
    start(page)
    streaming(page)
    began = time.perf_counter()
    page.keyboard.press("Escape")
    expect(note(page, "steered")).to_have_text(re.compile(r"^stopped after \d+ tokens$"))
    assert time.perf_counter() - began < 10
    settled(page)
    kept = page.locator(".answers").inner_text()
    assert tokens(page) < 400
    # The page is drawn once more, after the answer that was stopped would have written more.
    page.get_by_role("checkbox", name="Feature 3 steers").focus()
    page.get_by_text("System prompt and sampling").click()
    expect(page.get_by_role("textbox", name="System prompt")).to_be_visible()
    settled(page)
    assert page.locator(".answers").inner_text() == kept


def test_a_slider_moved_in_mid_stream_begins_again(page, app):
    arrive(page, app, f"edits=3:0.2:add&{LONG}")
    start(page)
    streaming(page)
    move(page, 3, 4)
    page.wait_for_url(in_link(edits="3:0.4"))
    expect(card(page, "steered").locator("header b")).to_have_text("Steered +0.40")
    streaming(page)
    goes_on(page)
    page.keyboard.press("Escape")
    expect(note(page, "steered")).to_have_text(re.compile(r"^stopped after \d+ tokens$"))


def test_control_and_enter_runs_what_has_just_been_typed(page, app):
    arrive(page, app, "edits=3:1:add&max_tokens=6")
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("Who rules the sea?")
    box.press("Control+Enter")
    ended(page)
    assert query(page)["prompt"] == ["Who rules the sea?"]
    expect(page.locator(".answers")).not_to_contain_text("press Run")


def test_other_clicks_do_not_disturb_a_run(page, app):
    arrive(page, app, f"edits=3:0.2:add&{LONG}")
    start(page)
    streaming(page)
    page.get_by_role("button", name="Add a feature").click()
    page.get_by_role("textbox", name="Number or words").fill("king")
    expect(page.get_by_role("button", name=re.compile("^#\\d+")).first).to_be_visible()
    goes_on(page)
    page.keyboard.press("Escape")


def test_a_closed_tab_leaves_the_model_to_others_unhooked(context, app):
    """A greedy baseline beside a closed tab's generation, and after it, is the one from before."""
    greedy = "edits=none&temperature=0&max_tokens=12&prompt=The+old+king"

    def ask() -> str:
        page = context.new_page()
        arrive(page, app, greedy)
        start(page)
        ended(page)
        text = card(page, "baseline").locator("p").inner_text()
        page.close()
        return text

    alone = ask()
    left = context.new_page()
    arrive(left, app, f"edits=3:3:add&positions=all&{LONG}")
    start(left)
    streaming(left)
    left.close()
    began = time.monotonic()
    assert ask() == alone
    while time.monotonic() - began < PATIENCE + 1:  # and once nobody has watched the closed tab's for so long
        time.sleep(0.1)
    assert ask() == alone


def test_two_people_who_generate_at_once_get_what_each_would_get_alone(profile, app):
    asked = (
        "edits=3:2:add&prompt=The+old+king&seed=5&positions=all",
        "edits=7:-1.5:add,4:2:clamp&prompt=Who+rules+the+sea%3F&seed=11&system=Be+brief.",
    )
    long = LONG.replace("400", "150")
    people = [profile().new_page() for _ in asked]

    def texts(page) -> list[str]:
        ended(page)
        return page.locator(".ans p").all_inner_texts()

    alone = []
    for page, said in zip(people, asked, strict=True):
        arrive(page, app, f"{said}&{long}")
        start(page)
        alone.append(texts(page))
    assert len({text for pair in alone for text in pair}) == 4
    for page in people:
        start(page)
    for page in people:
        streaming(page)
    expect(note(people[0], "steered")).to_have_text(re.compile("^streaming"))  # still, now that the other one is too
    assert [texts(page) for page in people] == alone


def test_the_share_link_opens_the_same_page_elsewhere(page, profile, app):
    arrive(page, app, "edits=3:1.5:add:off,5:1:ablate&prompt=%3Cb%3E%26+%23&seed=4&temperature=0.3")
    page.get_by_role("button", name="Share").click()
    link = page.get_by_test_id("stCode").inner_text().strip()
    assert link.startswith(f"{app.url}/steer?")
    other = profile().new_page()
    other.goto(link)
    expect(other.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("<b>& #", timeout=30_000)
    expect(other.get_by_role("slider", name="Strength of feature 3")).to_have_value("1.5")
    expect(other.get_by_role("checkbox", name="Feature 3 steers")).not_to_be_checked()
    expect(other.get_by_text("seed 4, temperature 0.3")).to_be_visible()


def test_back_undoes_a_strength(page, app):
    arrive(page, app, "edits=3:1:add&max_tokens=5")
    page.get_by_role("button", name=re.compile(r"^\+1\.5\b")).click()
    page.wait_for_url(in_link(edits="3:1.5"))
    page.go_back()
    expect(page.get_by_role("slider", name="Strength of feature 3")).to_have_value("1")


def test_number_keys_are_strengths(page, app):
    arrive(page, app, "edits=3:1:add&max_tokens=5")
    page.keyboard.press("4")
    page.wait_for_url(in_link(edits="3:2.5"))
    expect(page.get_by_role("slider", name="Strength of feature 3")).to_have_value("2.5")


def test_hostile_prompts_are_text(page, app):
    arrive(
        page,
        app,
        "edits=3:1:add&max_tokens=3&prompt=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&system=%3Cscript%3Ealert(1)%3C/script%3E",
    )
    start(page)
    ended(page)
    assert page.locator(".stMain :is(script, iframe, img)").count() == 0


@pytest.mark.parametrize("width", [1024, 1440, 2560])
def test_nothing_is_wider_than_the_window(context, app, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    arrive(page, app, "edits=0:1:add,1:1:add,2:1:add,3:1:add,4:1:clamp,6:1:ablate")
    nothing_is_wider(page)


def test_a_conversation_goes_on_below_the_answers(page, app):
    arrive(page, app, "edits=3:1:add&max_tokens=5&prompt=Who+are+you%3F")
    start(page)
    ended(page)
    box = page.get_by_role("textbox", name="Continue")
    box.fill("And now?")
    box.press("Enter")
    expect(page.get_by_text("Conversation, 1 turn so far")).to_be_visible()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("And now?")
    ended(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("Who are you?")


def test_a_direction_is_made_of_pasted_texts_and_steered(page, app):
    arrive(page, app, "edits=none&max_tokens=5")
    page.get_by_role("button", name="Make a direction").click()
    page.get_by_label("With the trait, one text a line").fill("the old king rules\nthe king is old\nkneel for the king")
    page.get_by_label("Without it, one text a line").fill("the sea is cold\nthe sea is wide\nwe walk along the sea")
    page.get_by_role("textbox", name="Name").first.fill("royal")
    page.keyboard.press("Tab")
    settled(page)
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name=re.compile("^Steer with ~royal")).click()
    page.wait_for_url(in_link(edits="~royal:1"))
    expect(page.get_by_role("slider", name="Strength of direction royal")).to_have_value("1")
    ended(page)


def test_a_session_is_taken_home_as_one_file_that_opens_without_a_network(page, profile, app, tmp_path):
    arrive(page, app, "edits=3:1:add&max_tokens=5&prompt=Say+%3Cb%3Ehello%3C/b%3E,+idiot")
    start(page)
    ended(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Whole session").click()
    file = tmp_path / "session.html"
    download.value.save_as(file)
    other = profile(offline=True).new_page()
    other.set_content(file.read_text(encoding="utf-8"))
    expect(other.get_by_text("<b>hello</b>")).to_be_visible()
    veil = other.locator("details.veil")
    assert "blur" in veil.locator("summary").evaluate("e => getComputedStyle(e).filter")
    veil.locator("summary").click()
    assert veil.locator("summary").evaluate("e => getComputedStyle(e).filter") == "none"
