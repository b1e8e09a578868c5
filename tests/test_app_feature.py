"""The Feature page, without a browser and without a model."""

import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import facts, resources
from app.components import heatmap
from app.components.heatmap import example_rows, token_row
from app.engine import Engine
from app.main import PAGES
from app.workbench import Reading
from explorer.cache import Cache
from explorer.errors import LabelError, ModelError
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache, fake_vocabulary

SILENT = 5


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60, dead=(SILENT, 7)))


class FakeEngine(Engine):
    """An engine whose model is a word list: it fires on one token, or complains."""

    def __init__(self, cache: Cache, monkeypatch: pytest.MonkeyPatch, reading: Reading | ModelError) -> None:
        super().__init__(cache, load=self._never)
        self.reading, self.asked = reading, []
        monkeypatch.setattr(resources, "engine", lambda name: self)

    def _never(self, cache: Cache) -> Any:
        raise AssertionError("nothing is to be loaded here")

    def start(self, delay: float = 0.0) -> None:
        if self._state in ("cold", "failed"):
            self._state = "loading"

    def settle(self, error: ModelError | None = None) -> None:
        self._state, self._error = ("failed", error) if error else ("ready", None)

    def activations(self, messages: Any, feature: int) -> Reading:
        self.asked.append((messages, feature))
        if isinstance(self.reading, ModelError):
            raise self.reading
        return self.reading


def reading(*values: float) -> Reading:
    """`<|im_start|>`, then words with these activations."""
    return Reading((0, *range(9, 9 + len(values))), (99.0, *values), (False, *[True] * len(values)))


def analyse(app: AppTest, text: str = "king") -> AppTest:
    app.text_area(key="own-text").set_value(text)
    return app.button(key="own-analyse").click().run()


def heading(app: AppTest) -> str:
    return next(h.value for h in app.html if "<h1><b>#" in h.value)


# The page


def test_a_feature_has_its_number_its_own_words_and_its_facts(cache: Cache):
    app = run_page("feature", feature="9")
    assert not app.exception
    feature = cache.feature(9)
    assert "<b>#9</b>" in heading(app)
    assert "not a label" in heading(app)
    assert f"max <b>{facts.number(feature.max)}</b>" in words(app)
    assert f"fires on <b>{facts.percent(feature.density)}</b>" in words(app)
    assert cache.manifest.hook_point in words(app)


def test_a_label_takes_the_place_of_the_features_own_words_as_text(cache: Cache):
    resources.labels().put(cache.manifest.sae_fingerprint, 9, HOSTILE[1].decode())
    app = run_page("feature", feature="9")
    assert "&lt;img src=x" in heading(app)
    assert "<img" not in words(app)
    assert "not a label" not in heading(app)


def test_the_link_restores_every_state(cache: Cache):
    said = {"feature": "9", "show": "All", "ctx": "Whole", "scale": "Row max", "breaks": "true"}
    app = run_page("feature", **said)
    assert not app.exception
    assert [app.session_state[key] for key in said] == [9, "All", "Whole", "Row max", True]


@pytest.mark.parametrize("nonsense", ["abc", "-3", "99999", "", "1e400", "NaN", "<script>"])
def test_nonsense_in_the_link_is_the_default(cache: Cache, nonsense: str):
    app = run_page("feature", feature=nonsense, show=nonsense, ctx=nonsense, scale=nonsense, breaks=nonsense)
    assert not app.exception
    assert "<b>#0</b>" in heading(app)


def test_next_previous_and_random_go_round_and_leave_the_controls_alone(cache: Cache):
    app = run_page("feature", show="Intervals")
    app.button(key="previous").click().run()
    assert app.session_state["feature"] == 59
    app.button(key="next").click().run()
    app.button(key="next").click().run()
    assert app.session_state["feature"] == 1
    for _ in range(5):
        app.button(key="random").click().run()
        assert not cache.feature(app.session_state["feature"]).dead
    assert app.session_state["show"] == "Intervals"


def test_stepping_over_a_silent_feature_keeps_the_controls(cache: Cache):
    app = run_page("feature", feature=str(SILENT - 1), show="All", ctx="Whole")
    for _ in range(2):
        app.button(key="next").click().run()
    assert app.session_state["feature"] == SILENT + 1
    assert (app.session_state["show"], app.session_state["ctx"]) == ("All", "Whole")


def test_the_primary_button_steers_with_this_feature(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    from app import state

    gone: list[Any] = []
    monkeypatch.setattr(state, "go", lambda page, **query: gone.append((page, query)))
    run_page("feature", feature="9").button(key="steer").click().run()
    assert gone == [("steer", {"edits": "9:1:add"})]


def test_a_silent_feature_says_so_and_offers_neighbours_that_fire(cache: Cache):
    app = run_page("feature", feature=str(SILENT))
    assert not app.exception
    assert "No window in this corpus activates this feature" in words(app)
    assert "Nearest features that fire" in words(app)
    assert "How strongly it fires" not in words(app)


def test_a_feature_of_a_bigger_cache_is_no_error_in_a_smaller_one(cache: Cache, tmp_path: Path):
    fake_cache(tmp_path / "caches" / "small", 8)
    app = run_page("feature", feature="40", cache="made-up")
    assert "<b>#40</b>" in heading(app)
    app.selectbox(key="pick-cache").set_value("small").run()
    assert not app.exception
    assert "<b>#0</b>" in heading(app)


def test_tokens_that_it_promotes_are_text(cache: Cache):
    for feature in range(0, 60, 6):
        shown = words(run_page("feature", feature=str(feature))).replace("<script></script>", "")
        assert "<script>" not in shown
        assert "<img" not in shown


@pytest.mark.parametrize("url", [page.url for page in PAGES])
def test_unreadable_labels_take_no_page_away(cache: Cache, monkeypatch: pytest.MonkeyPatch, url: str):
    last = {"overview": "Labels", "browse": "1 to 25", "feature": "#9", "steer": 'class="answers"', "label": "#9"}

    def broken():
        raise LabelError("The labels cannot be read", do="Restore a backup")

    monkeypatch.setattr(resources, "labels", broken)
    app = run_page("" if url == "overview" else url, feature="9")
    assert not app.exception
    if url in last:  # the other pages show labels in passing or not at all
        assert words(app).count("The labels cannot be read") == 1
        assert app.button(key="retry-labels")
        assert last[url] in words(app)


@pytest.mark.parametrize("url", ["browse", "map"])
def test_a_damaged_database_of_labels_is_said_once_though_lists_and_tags_lie_there_too(
    cache: Cache, tmp_path, url: str
):
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "labels.sqlite").write_bytes(b"no database" * 100)
    app = run_page("browse")
    assert not app.exception
    assert words(app).count("is not a sound SQLite database") == 1
    assert app.button(key="retry-labels")


# Own text


def test_own_text_waits_for_the_model_and_then_compares_with_the_corpus(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, reading(0.0, cache.feature(9).max / 2, 0.0))
    app = analyse(run_page("feature", feature="9"))
    assert "still loading" in words(app)
    assert "<b>#9</b>" in heading(app)
    assert engine.asked == []
    engine.settle()
    app.run()
    assert not app.exception
    assert "50 % of the corpus maximum" in words(app)
    assert engine.asked == [("king", 9)]
    app.run()
    assert len(engine.asked) == 1  # a rerun for something else does not read the text again


def test_a_text_of_ones_own_is_in_the_link_and_is_read_again_from_it(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, reading(1.0))
    engine.settle()
    app = run_page("feature", feature="9")
    app.segmented_control(key="own-kind").set_value("Chat message")
    query = {n: said if isinstance(said, str) else said[0] for n, said in analyse(app).query_params.items()}
    assert (query["text"], query["as"]) == ("king", "chat")
    theirs = run_page("feature", **query)
    assert not theirs.exception
    assert (theirs.text_area(key="own-text").value, engine.asked) == ("king", [engine.asked[0]] * 2)
    theirs.text_area(key="own-text").set_value("king " * 400)
    assert "text" not in theirs.button(key="own-analyse").click().run().query_params, "too long for a link"


def test_own_text_can_be_a_chat_message(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, reading(1.0))
    engine.settle()
    app = run_page("feature", feature="9")
    app.segmented_control(key="own-kind").set_value("Chat message")
    analyse(app)
    assert engine.asked == [([{"role": "user", "content": "king"}], 9)]


def test_own_text_on_which_nothing_fires_is_told_so_whatever_unscored_tokens_do(cache, monkeypatch):
    FakeEngine(cache, monkeypatch, reading(0.0, 0.0)).settle()
    assert "does not fire on this text" in words(analyse(run_page("feature", feature="9")))


def test_own_text_can_wake_a_silent_feature(cache, monkeypatch):
    FakeEngine(cache, monkeypatch, reading(0.0, 3.0)).settle()
    app = analyse(run_page("feature", feature=str(SILENT)))
    assert not app.exception
    assert "the corpus never fires it" in words(app)


def test_an_error_of_the_model_is_said_and_the_rest_stays(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, ModelError("The text has 9,999 tokens", do="Shorten it"))
    engine.settle()
    app = analyse(run_page("feature", feature="9"))
    assert not app.exception
    assert "The text has 9,999 tokens" in words(app)
    assert "<b>#9</b>" in heading(app)


def test_a_model_that_could_not_be_loaded_can_be_tried_again(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, reading(1.0))
    engine.settle(ModelError("The model is not here", do="persona-explorer fetch gets it"))
    app = analyse(run_page("feature", feature="9"))
    assert "The model is not here" in words(app)
    app.button(key="own-again").click().run()
    assert engine.state == "loading"


def test_nothing_is_asked_of_the_model_about_an_empty_text_or_another_feature(cache, monkeypatch):
    engine = FakeEngine(cache, monkeypatch, reading(1.0))
    engine.settle()
    app = analyse(run_page("feature", feature="9"), "   ")
    assert "some text first" in words(app)
    analyse(app)
    app.button(key="next").click().run()
    assert [feature for _, feature in engine.asked] == [9]
    assert "of the corpus maximum" not in words(app)


# Rows of the heatmap


def test_a_row_joins_bytes_to_characters_and_keeps_every_token():
    vocabulary = fake_vocabulary()
    emoji = vocabulary.bytes_of.index("😀".encode()[:1])
    tokens = [0, 9, *range(emoji, emoji + 4), 10]
    row = token_row(vocabulary, tokens, [9.0, 1.0, 0.5, 4.0, 0.0, 0.0, 2.0], [False, *[True] * 6])
    assert row["texts"] == ["<|im_start|>", "king", "😀", " king"]
    assert row["acts"] == [9.0, 1.0, 4.0, 2.0]
    assert row["parts"] == {"2": [["F0", 0.5], ["9F", 4.0], ["98", 0.0], ["80", 0.0]]}
    assert (row["special"], row["peak"], row["starts"], row["length"]) == ([0], 2, [0, 1, 2, 6], 7)


def test_what_is_not_scored_is_no_maximum():
    row = token_row(fake_vocabulary(), [9, 10, 11], [8.0, 1.0, 0.0], [False, True, True])
    assert (row["unscored"], row["peak"]) == ([0], 1)
    assert token_row(fake_vocabulary(), [9, 10], [8.0, 0.0], [False, True])["peak"] == -1
    assert token_row(fake_vocabulary(), [], [], [])["peak"] == -1


def test_the_peak_of_signed_values_is_the_largest_either_way():
    assert token_row(fake_vocabulary(), [9, 10], [1.0, -3.0], [True, True])["peak"] == 1


def test_examples_stand_under_the_range_they_were_drawn_from(cache: Cache):
    found = cache.examples(9)
    rows = example_rows(cache, found)
    top = cache.feature(9).max
    assert [row["group"] for row in rows[:24]] == ["Top"] * 24
    said = [f"{row['group']}, " for row in rows[24:]]
    assert said[0].startswith(f"Interval 1: 0 to {top / 5:.3g}, ")
    assert said[-1].startswith(f"Interval 5: {top * 0.8:.3g} to {top:.3g}, ")
    bars = cache.feature(9).histogram
    assert f", {facts.percent(sum(bars[:8]) / sum(bars))} of the tokens" in said[0]
    assert [row["flagged"] for row in rows] == [example.flagged for example in found]
    for row, example in zip(rows, found, strict=True):
        assert "".join(row["texts"]) == cache.vocabulary.text(example.tokens)
        assert row["acts"][row["peak"]] == pytest.approx(max(example.acts))
    assert example_rows(cache, []) == []


def luminance(colour: str) -> float:
    """Relative luminance of `#RRGGBB` (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_every_step_of_both_scales(theme: int):
    css = heatmap.SHEET
    colours = {name: pair for name, *pair in re.findall(r"(--\w+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    steps = {name: pair for name, *pair in re.findall(r"\.([anp]\d) { --bg: light-dark\((#\w{6}), (#\w{6})\)", css)}
    flipped = re.search(r"\.t:is\((.*?)\) { --on: var\(--flip\) }", css)
    assert flipped
    assert len(steps) == 16
    for name, pair in steps.items():
        ink = colours["--flip" if f".{name}" in flipped[1] else "--ink"][theme]
        low, high = sorted((luminance(ink), luminance(pair[theme])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


# Numbers


@pytest.mark.parametrize(("share", "said"), [(0, "0 %"), (0.0042, "0.420 %"), (0.5, "50.0 %"), (1.0, "100 %")])
def test_shares_are_said_in_percent(share: float, said: str):
    assert facts.percent(share) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (3.14159, "3.14"),
        (99.96, "100"),
        (12345.6, "12,346"),
        (0.0001, "0.0001"),
        (0.00002, "0.000020"),
        (-1e-9, "-0.000000"),
    ],
)
def test_activations_are_said_without_powers_of_ten(value: float, said: str):
    assert facts.number(value) == said
