"""A whole presentation as the room sees it: recorded where there is no model, live on a tiny one, by the keys alone."""

import re

import pytest

from explorer import scripts
from tests.browser.conftest import nothing_is_wider, settled
from tests.helpers_steer import tiny_world
from tests.real.conftest import WORLD

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
TALK = """
title = "A talk"

[[step]]
kind = "text"
title = "Hello room"
words = "First words, you idiot."

[[step]]
kind = "feature"
title = "What a feature is"
feature = 3

[[step]]
kind = "steer"
title = "Up it goes"
prompt = "The old king"
edits = ["3:1"]
strengths = [0.5, 2.0]
max_tokens = 12

[[step]]
kind = "question"
title = "Ask it yourself"
edits = ["3:1"]
max_tokens = 12

[[step]]
kind = "text"
title = "The end"
words = "Thank you."
"""


@pytest.fixture(scope="module")
def nobody(start_app, tmp_path_factory):
    """An app on a machine without any model."""
    empty = tmp_path_factory.mktemp("no-models")
    with start_app(warmup=True, PERSONA_EXPLORER_MODELS=str(empty)) as running:
        yield running


@pytest.fixture(scope="module")
def live(start_app, tmp_path_factory):
    world = tiny_world(tmp_path_factory.mktemp("present"), layers=4)
    (world / scripts.FOLDER).mkdir()
    (world / scripts.FOLDER / "talk.toml").write_text(TALK)
    with start_app([world], warmup=True, OMP_NUM_THREADS="1") as running:
        yield running


def arrive(page, app, query: str = "") -> None:
    page.goto(f"{app.url}/present?{query}")
    expect(page.locator(".stage h1")).to_be_visible(timeout=60_000)
    page.locator("dialog[data-listening]").wait_for(state="attached")


def on(page, step: str) -> None:
    page.wait_for_url(re.compile(rf"[?&]step={re.escape(step)}(&|$)"))


def title(page, words: str) -> None:
    expect(page.locator(".stage h1")).to_have_text(words)


def test_a_whole_presentation_without_a_model(page, nobody):
    from explorer.cache import Cache

    cache = Cache.open(WORLD)
    talk = scripts.load(scripts.known(cache)["script"], cache)
    arrive(page, nobody, f"cache={cache.name}")
    expect(page.locator(".status.failed")).to_be_attached(timeout=60_000)
    settled(page)
    places = [(i, j) for i, step in enumerate(talk.steps) for j in range(step.stops) if step.kind != "question"]
    for i, j in places:  # the question is skipped: it needs a live model
        step = talk.steps[i]
        if (i, j) != places[0]:
            page.keyboard.press("ArrowRight")
            on(page, f"{i + 1}" + (f".{j + 1}" if j else ""))
        title(page, step.title)
        if step.kind == "steer":
            expect(page.locator(".stage-tag .tag")).to_have_text("recorded")
            expect(page.locator(".ans.steered p")).to_have_text(re.compile(r"\w+ \w+"))
        if step.kind == "feature":
            expect(page.locator(".st-key-present-heat .row")).to_have_count(step.rows)
    assert len(places) > len(talk.steps)
    page.keyboard.press("ArrowLeft")
    title(page, [s for s in talk.steps if s.kind != "question"][-2].title)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Browse features")).to_be_visible()


def test_a_recorded_answer_comes_at_its_pace(page, nobody):
    arrive(page, nobody, "cache=smollm2-135m&step=3")
    answer = page.locator(".ans.steered p")
    expect(answer).to_have_text(re.compile(r"\w+"))
    first = answer.inner_text()
    page.wait_for_function("n => document.querySelector('.ans.steered p').innerText.length > n + 20", arg=len(first))


def test_a_whole_presentation_live(page, live):
    arrive(page, live, "cache=tiny")
    expect(page.locator(".status.ready")).to_be_attached(timeout=60_000)
    for key, wanted, name in (
        ("ArrowRight", "2", "What a feature is"),
        ("PageDown", "3", "Up it goes"),
        ("ArrowRight", "3.2", "Up it goes"),
        ("PageUp", "3", "Up it goes"),
    ):
        page.keyboard.press(key)
        on(page, wanted)
        title(page, name)
    expect(page.locator(".stage-tag .tag")).to_have_text("live")
    expect(page.locator(".ans.steered:not(.live) p")).to_have_text(re.compile(r"\w+"), timeout=60_000)
    page.keyboard.press("ArrowRight")
    on(page, "3.2")
    expect(page.locator(".ans.steered header b")).to_have_text("Steered +2.00")
    page.keyboard.press("ArrowRight")
    title(page, "Ask it yourself")
    box = page.get_by_role("textbox", name="Question")
    box.fill("Who rules the <sea>?")
    box.press("Enter")
    expect(page.locator(".stage.asked")).to_contain_text("Who rules the <sea>?")
    expect(page.locator(".ans.steered:not(.live) p")).to_have_text(re.compile(r"\w+"), timeout=60_000)
    box.focus()
    page.keyboard.press("Escape")  # out of the box, not out of the talk
    expect(box).not_to_be_focused()
    title(page, "Ask it yourself")
    page.keyboard.press("ArrowRight")
    title(page, "The end")


def test_keys_pressed_faster_than_the_page_can_follow_all_count(page, live):
    arrive(page, live, "cache=tiny")
    expect(page.locator(".status.ready")).to_be_attached(timeout=60_000)
    for _ in range(3):
        for key in ("ArrowRight", "PageDown", "ArrowRight", "PageUp", "b", "b"):
            page.keyboard.press(key)
        on(page, "3")
        expect(page.locator(".ans.steered header b")).to_have_text("Steered +0.50")
        expect(page.locator(".ans.steered:not(.live) p").first).to_have_text(re.compile(r"\w+"), timeout=60_000)
        expect(page.locator(".present-blank")).to_have_count(0)
        settled(page)
        on(page, "3")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        on(page, "1")


def test_the_browsers_back_button_goes_back(page, live):
    arrive(page, live, "cache=tiny")
    page.keyboard.press("ArrowRight")
    on(page, "2")
    title(page, "What a feature is")
    page.keyboard.press("ArrowRight")
    on(page, "3")
    title(page, "Up it goes")
    page.go_back()
    title(page, "What a feature is")
    page.keyboard.press("ArrowRight")
    title(page, "Up it goes")


def test_b_blanks_the_screen_and_shows_it_again(page, live):
    arrive(page, live, "cache=tiny")
    page.keyboard.press("b")
    expect(page.locator(".present-blank")).to_be_visible()
    page.keyboard.press("b")
    expect(page.locator(".present-blank")).to_have_count(0)
    title(page, "Hello room")


def test_offensive_words_are_blurred_until_asked_for(page, live):
    arrive(page, live, "cache=tiny")
    settled(page)
    word = page.locator(".stage .blur")
    expect(word).to_have_css("filter", re.compile("blur"))
    word.focus()
    expect(word).to_have_css("filter", "none")
    page.locator(".st-key-settings button").click()
    page.get_by_text("Blur offensive words in Present").click()
    word.blur()
    expect(word).to_have_css("filter", "none")


@pytest.mark.parametrize("width", [800, 1440, 2560])
def test_nothing_is_wider_than_the_window(context, nobody, width: int):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    arrive(page, nobody, "cache=smollm2-135m&step=4.2")
    expect(page.locator(".ans.steered p")).to_have_text(re.compile(r"\w+"))
    nothing_is_wider(page)
    expect(page.get_by_role("button", name="Next")).to_be_in_viewport()
