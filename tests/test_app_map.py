"""The Map page, without a browser: what is drawn, in which colours, what it says, and where a selection goes."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import map_charts, map_colours, resources
from app.map_colours import Groups, Values
from explorer.cache import Cache
from explorer.mapping import MAP
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_map import fake_map

SILENT = 5


@pytest.fixture
def cache(caches: Path) -> Cache:
    made = Cache.open(fake_cache(caches / "made-up", 60, dead=(SILENT,)))
    fake_map(made)
    return made


def never(name: str):
    raise AssertionError(f"{name} is not asked for")


def coloured(cache: Cache, choice: str, labels=None, lists=None):
    return map_colours.coloured(cache, choice, labels or {}, lists or {}, never)


def traces(figure: Any) -> tuple[Any, ...]:
    return figure.data


def chart(app) -> dict:
    (found,) = app.get("plotly_chart")
    return json.loads(found.proto.spec)


def test_a_cache_without_a_map_says_the_one_command_that_makes_it(caches: Path):
    folder = fake_cache(caches / "made up", 20)
    app = run_page("map")
    assert not app.exception
    assert [code.value for code in app.code] == [f"persona-explorer map '{folder}'"]
    assert not app.get("plotly_chart")


def test_a_map_of_another_sae_is_refused_in_words_with_the_command(cache: Cache):
    other = Cache.open(fake_cache(cache.path.parent / "other", 60, sae_fingerprint="t" * 64))
    fake_map(other)
    (cache.path / MAP).write_bytes((other.path / MAP).read_bytes())
    app = run_page("map", cache="made-up")
    assert not app.exception
    assert "tttttttttttt" in words(app)
    assert any("persona-explorer map" in code.value for code in app.code)


def test_every_feature_is_a_dot_and_the_axes_and_the_page_say_what_it_is(cache: Cache):
    app = run_page("map")
    assert not app.exception
    spec = chart(app)
    assert {trace["type"] for trace in spec["data"][:-1]} == {"scattergl"}  # the last one is the colour bar
    assert spec["layout"]["xaxis"]["title"]["text"] == "GRID, first axis (no unit)"
    assert spec["layout"]["dragmode"] == "pan"
    assert "decoder directions of high cosine" in words(app)
    names = [trace.get("name") for trace in spec["data"]]
    assert (names[0], set(names[1:-1])) == ("silent in this corpus", {"density (share of tokens)"})


@pytest.mark.parametrize("choice", map_colours.choices([], []))
def test_each_colour_is_drawn_by_its_link(cache: Cache, choice: str):
    app = run_page("map", colour=choice)
    assert not app.exception
    assert app.selectbox(key="colour").value == choice
    assert chart(app)["data"]
    assert len(map_colours.about(choice)) > 10


def test_numbers_are_coloured_on_a_log_scale_and_what_never_fires_has_none(cache: Cache):
    found = coloured(cache, "density")
    assert isinstance(found, Values)
    assert np.isnan(found.values).nonzero()[0].tolist() == [SILENT]
    figure = map_charts.figure(
        np.zeros((60, 2)), np.arange(60), found, map_charts.hover_names(cache, {}), np.zeros(0, int)
    )
    silent, *steps, bar = traces(figure)
    assert silent.customdata.tolist() == [SILENT]
    assert sorted(np.concatenate([step.customdata for step in steps]).tolist()) == [i for i in range(60) if i != SILENT]
    density = cache.table.column("density").to_numpy()
    rises = [
        np.log10(density[step.customdata]) for step in steps
    ]  # each step lies above the one before, and is as wide
    assert all(low.max() < high.min() for low, high in pairwise(rises))
    assert max(np.ptp(step) for step in rises) <= (bar.marker.cmax - bar.marker.cmin) / map_charts.STEPS + 1e-9
    assert len({step.marker.color for step in steps}) == len(steps) > 5
    assert {step.marker.color for step in steps} <= {colour for _, colour in bar.marker.colorscale}
    assert all(text.endswith(" %") for text in bar.marker.colorbar.ticktext)


def test_label_state_and_a_list_are_groups_with_their_numbers_in_the_legend(cache: Cache):
    found = coloured(cache, "label state", {3: "x", 7: "y", 999: "gone"})
    assert isinstance(found, Groups)
    assert {name: (found.codes == i).sum() for i, (name, _, _) in enumerate(found.names)} == {
        "silent": 1,
        "not labelled": 57,
        "labelled": 2,
    }
    sae = cache.manifest.sae_fingerprint
    resources.lists().add(sae, "mine", [1, 2, 3], author="Ana")
    app = run_page("map", colour="in the list mine")
    assert [t["name"] for t in chart(app)["data"]] == ["not in the list (57)", "in the list (3)"]


def test_what_a_fine_tune_moved_has_its_sign_and_nothing_for_what_was_not_measured(cache: Cache):
    class Comparison:
        def change(self, source: str, kind: str):
            assert (source, kind) == ("own", "answer")
            return type("Change", (), {"change": np.linspace(-1, 2, 50)})

    found = map_colours.coloured(cache, "moved by it", {}, {}, lambda name: Comparison())  # type: ignore[arg-type,return-value]
    assert isinstance(found, Values)
    assert found.diverging
    assert np.allclose(found.values[:50], np.linspace(-1, 2, 50))
    assert np.isnan(found.values[50:]).all()
    figure = map_charts.figure(np.zeros((60, 2)), np.arange(60), found, np.array(["x"] * 60), np.zeros(0, int))
    scale = traces(figure)[-1].marker
    assert scale.cmin == -scale.cmax < -1.9


def test_matches_of_a_search_are_ringed_and_counted_and_a_search_for_nothing_says_so(cache: Cache):
    resources.labels().put(cache.manifest.sae_fingerprint, 12, "zeppelins")
    app = run_page("map", q="zeppelins")
    ring = chart(app)["data"][-1]
    assert (ring["name"], ring["marker"]["symbol"]) == ("matches (1)", "circle-open")
    assert "1 feature matches" in words(app)
    assert "Nothing matches" in words(run_page("map", q="qqqq"))


def test_no_more_dots_are_sent_than_can_be_drawn_and_the_page_says_which(cache: Cache, monkeypatch):
    monkeypatch.setattr(map_charts, "MOST", 20)
    resources.labels().put(cache.manifest.sae_fingerprint, 59, "zeppelins")
    for query in ({}, {"q": "#31"}):
        app = run_page("map", colour="label state", **query)
        assert "20 of 60 features are drawn" in words(app)
        sent = [trace["name"] for trace in chart(app)["data"]]
        assert sum(int(name.split("(")[1][:-1]) for name in sent if "matches" not in name) == 20
        assert "labelled (1)" in sent
        assert ("matches (1)" in sent) == bool(query)


def test_few_dots_are_drawn_with_smooth_rims_and_many_at_a_pixel_a_pixel(cache: Cache, monkeypatch):
    def ratio() -> float:
        (found,) = run_page("map").get("plotly_chart")
        return json.loads(found.proto.config)["plotGlPixelRatio"]

    assert ratio() == 2
    monkeypatch.setattr(map_charts, "_MANY", 59)
    assert ratio() == 1


def test_hover_texts_hold_no_markup_of_others(cache: Cache):
    said = map_charts.hover_names(cache, {i: text.decode() for i, text in enumerate(HOSTILE)})
    for text in said:
        assert not set(re.findall(r"<[^>]*>", text)) - {"<b>", "</b>"}


def test_a_selection_is_listed_kept_and_opened_in_browse(cache: Cache):
    app = run_page("map")
    app.session_state["map-chosen"] = (cache.manifest.sae_fingerprint, (4, 8, 15))
    app.run()
    assert "3 features" in words(app)
    app.button(key="map-save").click().run()
    assert "cannot be called" in words(app)
    app.text_input(key="map-name").set_value("by eye")
    app.button(key="map-save").click().run()
    assert "The list by eye has 3 features" in words(app)
    app.session_state["map-chosen"] = (cache.manifest.sae_fingerprint, (8, 16))
    app.run()
    app.text_input(key="map-name").set_value("by eye")
    app.button(key="map-browse").click().run()
    assert not app.exception
    assert app.session_state["_page"] == "browse"
    (kept,) = resources.lists().all(cache.manifest.sae_fingerprint)
    assert kept.features == (4, 8, 15, 16)
    assert "4</b>" in words(app)


def test_a_selection_of_another_sae_is_not_shown(cache: Cache):
    app = run_page("map")
    app.session_state["map-chosen"] = ("t" * 64, (4, 8))
    app.run()
    assert not [b for b in app.button if b.key == "map-save"]
