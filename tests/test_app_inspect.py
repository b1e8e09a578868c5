"""Inspect, without a browser: what fires on a text, and what tells two sets of texts apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import resources
from app.contrast_form import EXAMPLE
from app.engine import Engine
from app.jobs import Job
from explorer.cache import Cache
from explorer.contrast import Contrast, contrast
from explorer.errors import ModelError
from explorer.inspecting import Inspected
from tests.helpers_app import drawn, run_page, words
from tests.helpers_cache import HOSTILE, fake_cache

ALWAYS, RARE = 0, 59  # the made-up cache's features fall in density


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60, dead=()))


class ReadingEngine(Engine):
    """An engine that reads every text alike: `<|im_start|>`, then three words."""

    fails: ModelError | None = None

    def __init__(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(cache, load=self._never)
        self._state = "ready"
        self.asked: list[Any] = []
        monkeypatch.setattr(resources, "engine", lambda name: self)

    def _never(self, cache: Cache) -> Any:
        raise AssertionError("nothing is to be loaded here")

    def start(self, delay: float = 0.0) -> None:
        pass

    def inspect(self, messages: Any) -> Inspected:
        self.asked.append(messages)
        if self.fails:
            raise self.fails
        position, feature = np.array([0, 1, 1, 2, 3]), np.array([7, ALWAYS, RARE, ALWAYS, 12])
        value = np.array([99.0, 6.0, 3.0, 5.0, 0.5])
        return Inspected((0, 9, 10, 11), (False, True, True, True), position, feature, value, 60)

    def contrast(self, left: Any, right: Any, how: str, job: Job) -> Contrast:
        self.asked.append((left, right, how))
        rng = np.random.default_rng(0)
        sides = rng.random((len(left), 60)), rng.random((len(right), 60))
        sides[0][:, RARE] += 9
        return contrast(*sides)


@pytest.fixture
def engine(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> ReadingEngine:
    return ReadingEngine(cache, monkeypatch)


def finished(app: AppTest, key: str = "inspect-job") -> AppTest:
    """Wait for the work, and draw its result."""
    assert app.session_state[key][1].wait(30)
    return app.run()


def analysed(text: str = "the old king", **query: Any) -> AppTest:
    app = run_page("inspect", **query)
    app.text_area(key="inspect-text").set_value(text)
    return finished(app.button(key="inspect-go").click().run())


def test_an_empty_page_says_what_it_does_and_reads_a_sample(engine: ReadingEngine):
    app = run_page("inspect")
    assert not app.exception
    assert "Which features does a text fire" in words(app)
    app = finished(app.button(key="inspect-try-1").click().run())
    assert [m["role"] for m in engine.asked[-1]] == ["user", "assistant"]
    assert app.query_params["as"] == "chat"


def test_features_are_ranked_and_what_is_always_on_sinks(cache: Cache, engine: ReadingEngine):
    app = analysed()
    assert not app.exception
    assert engine.asked == ["the old king"]
    table = drawn(app, "ranking_table")
    assert [row["index"] for row in table["rows"]] == [RARE, ALWAYS, 12], "7 fires on the template alone"
    assert table["chosen"] == RARE
    app.toggle(key="rare").set_value(False).run()
    assert drawn(app, "ranking_table")["rows"][0]["index"] == ALWAYS


def test_the_ranking_of_a_text_is_kept_as_a_list_in_its_order_without_what_is_hidden(
    cache: Cache, engine: ReadingEngine
):
    app = analysed()
    app.button(key="inspect-keep-go").click().run()
    assert "A list cannot be called" in words(app)
    app.text_input(key="inspect-list").set_value("of <a> king")
    app.button(key="inspect-keep-go").click().run()
    assert "The list of &lt;a&gt; king has 3 features now." in words(app)
    app.toggle(key="often").set_value(True).run()
    assert "features now" not in words(app), "said once"
    shown = [row["index"] for row in drawn(app, "ranking_table")["rows"]]
    app.text_input(key="inspect-list").set_value("seldom")
    app.button(key="inspect-keep-go").click().run()
    lists, sae = resources.lists(), cache.manifest.sae_fingerprint
    assert list(lists.get(sae, "of <a> king").features) == [RARE, ALWAYS, 12]
    assert list(lists.get(sae, "seldom").features) == shown


def test_what_fires_too_often_can_be_hidden(cache: Cache, engine: ReadingEngine):
    app = analysed()
    often = set(np.flatnonzero(cache.table.column("density").to_numpy() > 0.1).tolist())
    app.toggle(key="often").set_value(True).run()
    assert not often & {row["index"] for row in drawn(app, "ranking_table")["rows"]}


def test_a_link_brings_text_and_feature_and_is_read_by_itself(engine: ReadingEngine):
    app = finished(run_page("inspect", text="hello there", feature=str(ALWAYS)))
    assert engine.asked[0] == "hello there"
    assert app.text_area(key="inspect-text").value == "hello there"
    assert drawn(app, "ranking_table")["chosen"] == ALWAYS
    heat = drawn(app, "token_heatmap")
    assert heat["rows"][0]["acts"] == [0.0, 6.0, 5.0, 0.0]
    assert heat["vmax"] == pytest.approx(resources.cache("made-up").feature(ALWAYS).max)


def test_a_long_text_is_read_but_not_put_into_the_link(engine: ReadingEngine):
    app = analysed("king " * 1000)
    assert not app.exception
    assert "text" not in app.query_params


def test_the_grid_holds_what_the_text_fires_on_each_token(cache: Cache, engine: ReadingEngine):
    grid = drawn(analysed(), "token_grid")
    rows = {row["index"]: row["cells"] for row in grid["rows"]}
    assert [cell[0] for cell in rows[ALWAYS]] == [1, 2]
    top = cache.feature(ALWAYS).max
    assert [cell[1] for cell in rows[ALWAYS]] == [min(8, int(np.ceil(8 * v / top))) for v in (6.0, 5.0)]
    assert grid["feature"] == RARE


def test_a_token_shows_every_feature_on_it(cache: Cache, engine: ReadingEngine):
    app = analysed()
    app.session_state["inspect-token"] = 1
    app.run()
    links = drawn(app, "feature_links")["rows"]
    assert {row["index"] for row in links} == {ALWAYS, RARE}
    shares = [v / cache.feature(f).max for f, v in ((ALWAYS, 6.0), (RARE, 3.0))]
    assert links[0]["index"] == (ALWAYS, RARE)[int(np.argmax(shares))]
    app.button(key="inspect-unpin").click().run()
    assert "feature_links" not in {
        getattr(e.proto, "component_name", "") for e in app.main if e.type == "bidi_component"
    }


def test_a_model_that_cannot_read_says_why_and_the_page_goes_on(engine: ReadingEngine):
    engine.fails = ModelError("The text has 9,000 tokens", expected="at most 2,048", do="Shorten it")
    app = analysed()
    assert not app.exception
    assert "9,000 tokens" in words(app)
    engine.fails = None
    app = finished(app.button(key="inspect-go").click().run())
    assert drawn(app, "ranking_table")["rows"]


def test_text_that_is_no_conversation_is_refused_in_words(engine: ReadingEngine):
    app = run_page("inspect")
    app.segmented_control(key="inspect-kind").set_value("Conversation")
    app.text_area(key="inspect-text").set_value('[{"role": broken')
    app = finished(app.button(key="inspect-go").click().run())
    assert not app.exception
    assert "cannot be read as such" in words(app)


def test_hostile_text_and_labels_are_only_text(cache: Cache, engine: ReadingEngine):
    resources.labels().put(cache.manifest.sae_fingerprint, RARE, HOSTILE[1].decode())
    app = analysed(HOSTILE[0].decode())
    assert not app.exception
    assert "<script" not in words(app)
    assert "<img" not in words(app)


def test_a_feature_of_the_link_that_is_not_there_is_not_chosen(engine: ReadingEngine):
    app = analysed(feature="99999")
    assert not app.exception
    assert drawn(app, "ranking_table")["chosen"] == RARE


# Two sets of texts


def contrasted(left: str, right: str) -> AppTest:
    app = run_page("inspect", tab="Two sets")
    app.text_area(key="contrast-left").set_value(left)
    app.text_area(key="contrast-right").set_value(right)
    return app.button(key="contrast-go").click().run()


def test_two_sets_of_texts_give_a_ranking_with_what_it_is_worth(engine: ReadingEngine):
    app = finished(contrasted("a\nb\nc\nd\n\n", "e\nf\ng\nh"), "contrast-job")
    assert not app.exception
    assert engine.asked == [(["a", "b", "c", "d"], ["e", "f", "g", "h"], "max")]
    first = drawn(app, "ranking_table")["rows"][0]
    assert first["index"] == RARE
    assert first["cells"][0][0] == "1.00"
    assert "4 texts against 4" in words(app)
    assert "AUROC <b>1.00</b>" in words(app)


def test_the_best_features_go_to_steer(engine: ReadingEngine):
    app = finished(contrasted("a\nb", "c\nd"), "contrast-job")
    order = [row["index"] for row in drawn(app, "ranking_table")["rows"]]
    app.button(key="contrast-steer").click().run()
    assert app.query_params["edits"].startswith(f"{order[0]}:0.5:add,{order[1]}:0.5:add")


def test_what_was_found_is_kept_as_a_list_and_a_name_that_makes_no_sense_is_refused(
    cache: Cache, engine: ReadingEngine
):
    app = finished(contrasted("a\nb\nc", "d\ne\nf"), "contrast-job")
    order = [row["index"] for row in drawn(app, "ranking_table")["rows"]]
    app.button(key="contrast-keep-go").click().run()
    assert "A list cannot be called" in words(app)
    app.text_input(key="contrast-list").set_value("pirates")
    app.button(key="contrast-keep-go").click().run()
    assert f"The list pirates has {len(order)} features now." in words(app)
    assert list(resources.lists().get(cache.manifest.sae_fingerprint, "pirates").features) == order


def test_a_side_without_texts_is_named(engine: ReadingEngine):
    app = contrasted("a\nb", "  \n")
    assert not app.exception
    assert "no text on the right" in words(app)
    assert not engine.asked


def test_sides_can_be_swapped(engine: ReadingEngine):
    app = run_page("inspect", tab="Two sets")
    app.text_area(key="contrast-left").set_value("a")
    app.text_area(key="contrast-right").set_value("b")
    app.button(key="contrast-swap").click().run()
    assert boxes(app) == ["b", "a"]
    app.button(key="contrast-swap").click().run()
    assert boxes(app) == ["a", "b"]


def boxes(app: AppTest) -> list[str | None]:
    return [box.value for box in app.text_area if "one text a line" in box.label]


def test_the_example_is_contrasted_though_the_browser_has_not_shown_it_yet(engine: ReadingEngine):
    app = run_page("inspect", tab="Two sets")
    example, go = app.button(key="contrast-example"), app.button(key="contrast-go")
    for box in app.text_area:
        box.set_value("")
    example.click().run()
    example.set_value(False)
    go.click().run()  # of the page before the example: its empty boxes are sent along
    app = finished(app.run(), "contrast-job")
    assert not app.exception
    assert "no text on the" not in words(app)
    assert "5 texts against 5" in words(app)
    assert boxes(app) == list(EXAMPLE)
