"""Figures: every chart names its axes and says nothing in markup that somebody else wrote."""

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import plotly.graph_objects as go
import pytest

from app import charts, lab_charts, map_charts, score_charts, train_chart
from app.compared import Line, Mover
from app.map_colours import Values
from explorer.diffing import Change
from explorer.monitor import Curve

RNG = np.random.default_rng(0)
DENSITY = 10 ** RNG.uniform(-5, -1, 500)
MAXIMUM = RNG.uniform(2, 60, 500)


CURVE = Curve(
    np.array([1.0, 0.5]), np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([np.nan, 0.5]), (0.5, 0, 1), (1, 1)
)
CHANGE = Change(*np.zeros((5, 9)))
MOVER = Mover(3, 1, 0.1, 0.4, 0.2, 0.4, 0.1, None, "candidate")
TALLY = SimpleNamespace(rate=SimpleNamespace(value=0.5, interval=(0.2, 0.8)), n=4)
POINT = cast(Any, SimpleNamespace(x=1.0, models=(SimpleNamespace(model="a", tally=TALLY),), tally=TALLY))
PLACES = RNG.uniform(size=(9, 2))
DRAWN: dict[Callable[..., go.Figure], Callable[[], go.Figure]] = {
    charts.density_histogram: lambda: charts.density_histogram(DENSITY),
    charts.activity_map: lambda: charts.activity_map(range(500), DENSITY, MAXIMUM, {}),
    charts.activation_histogram: lambda: charts.activation_histogram([9, 4, 1], 3.0),
    charts.dose_lines: lambda: charts.dose_lines(dose((1, 0.8)), LINES, span=(-3, 3), now=0, zone=None),
    charts.moved_features: lambda: charts.moved_features(["x"], [0.1], [0.2]),
    lab_charts.scatter: lambda: lab_charts.scatter(CHANGE, [MOVER], {}, 3),
    lab_charts.series: lambda: lab_charts.series(Line("a", "steps", (POINT,)), 1, {3: [(1, [0.2])]}, {}, "cruel"),
    map_charts.figure: lambda: map_charts.figure(
        PLACES, np.arange(9), Values(np.ones(9), "density"), np.array(["x"] * 9), np.array([1]), method="UMAP"
    ),
    score_charts.score_histogram: lambda: score_charts.score_histogram(RNG.normal(size=50), (-3, 3), 1),
    score_charts.roc: lambda: score_charts.roc(CURVE, 0.5),
    score_charts.precision_recall: lambda: score_charts.precision_recall(CURVE, 0.5),
    score_charts.trace: lambda: score_charts.trace([0.1, 0.4], ["user", "assistant"], 0.2, 1),
    train_chart.loss_curve: lambda: train_chart.loss_curve([3, 2], 9, [1]),
}
"""Every function that makes a chart of the app -> a chart that it makes."""
APP = Path(charts.__file__).parent


def test_every_function_that_makes_a_chart_is_drawn_here():
    modules = [import_module(f"app.{path.stem}") for path in APP.glob("*chart*.py")]
    makers = {
        thing
        for module in modules
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
        if thing.__annotations__.get("return") is go.Figure and thing is not charts.frame
    }
    assert makers == DRAWN.keys()


@pytest.mark.parametrize("draw", DRAWN.values(), ids=[maker.__name__ for maker in DRAWN])
def test_every_axis_of_every_chart_has_a_title(draw: Callable[[], go.Figure]):
    said = draw().to_plotly_json()["layout"]
    axes = [name for name in said if name[1:5] == "axis"]
    assert {"xaxis", "yaxis"} <= set(axes)
    assert all(said[name]["title"]["text"] for name in axes)


def test_every_chart_on_a_page_is_drawn_with_words_for_those_who_do_not_see_it():
    calls = [
        (path.name, node.lineno, {word.arg for word in node.keywords})
        for path in APP.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "plotly_chart"
    ]
    assert len(calls) >= 12
    assert not [call for call in calls if not {"alt", "config", "key"} <= call[2]]


def test_the_histogram_counts_every_feature_that_fires():
    figure = charts.density_histogram([0.0, *DENSITY])
    assert sum(figure.data[0].y) == 500  # type: ignore[union-attr]


def test_the_activation_histogram_spans_zero_to_the_maximum():
    bars = charts.activation_histogram([9, 0, 1], 3.0).data[0]
    assert list(bars.x) == [0.5, 1.5, 2.5]  # type: ignore[union-attr]
    assert list(bars.y) == [9, 0, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("counts", [[], [0, 0], [1], [10**9, 1]])
def test_an_activation_histogram_of_few_or_no_tokens_is_no_error(counts: list[int]):
    charts.activation_histogram(counts, 1.0)


@pytest.mark.parametrize("density", [[], [0.0, 0.0], [0.001], [0.5, 0.5]])
def test_few_or_no_features_are_no_error(density: list[float]):
    charts.density_histogram(density)
    charts.activity_map(range(len(density)), density, density, {})


def test_large_maps_are_thinned():
    many = 60_000
    figure = charts.activity_map(range(many), np.full(many, 0.01), np.full(many, 5.0), {})
    assert len(figure.data[0].x) == 25_000  # type: ignore[union-attr]


def test_labels_in_hover_boxes_are_text():
    assert charts.hover_text("<b>x</b>\n%{customdata}") == "&lt;b&gt;x&lt;/b&gt; % {customdata}"


def dose(*rows: tuple[float, float]) -> Any:
    return [
        SimpleNamespace(strength=s, means={"malice": m, "fluency": 0.9, "repetition": 0.1, "perplexity": 12.0})
        for s, m in rows
    ]


LINES = {"malice": "Malice", "repetition": "Repetition", "perplexity": "Perplexity"}


def test_a_dose_strip_has_the_sliders_own_range_and_its_cursor():
    figure = charts.dose_lines(dose((1, 0.8), (-1, 0.1)), LINES, span=(-3, 3), now=0.5, zone=(-1, 1))
    assert figure.layout.xaxis.range == (-3, 3)  # type: ignore[union-attr]
    assert all(axis.title.text for axis in (figure.layout.xaxis, figure.layout.yaxis, figure.layout.yaxis2))  # type: ignore[union-attr]
    shaded, cursor = figure.layout.shapes  # type: ignore[union-attr]
    assert (shaded.x0, shaded.x1) == (-1, 1)
    assert cursor.x0 == cursor.x1 == 0.5
    trait = figure.data[0]
    assert (trait.x, trait.line.color) == ((-1, 1), "#1B8F83")  # type: ignore[union-attr]
    looks = {line.line.color: line.line.dash for line in figure.data}  # type: ignore[union-attr]
    assert looks["#8F6BC2"] == "dot"
    assert looks["#7A8699"] == "solid"
    assert figure.layout.height < 100  # one under each slider: the answers stay in view


def test_a_dose_strip_of_something_else_is_pale():
    figure = charts.dose_lines(dose((1, 0.8)), LINES, span=(-3, 3), now=0.5, zone=None, stale=True)
    assert all(line.opacity < 0.5 for line in figure.data)  # type: ignore[union-attr]


def test_a_dose_strip_without_a_zone_or_a_judge_is_no_error():
    figure = charts.dose_lines(
        dose((0, float("nan"))), {"joy": "Joy", "malice": "Malice"}, span=(0, 3), now=1, zone=None
    )
    assert not figure.data
    assert len(figure.layout.shapes) == 1  # type: ignore[union-attr]


def test_moved_features_stand_by_two_bars_and_names_are_text():
    figure = charts.moved_features(["<b>x</b>", "y"], [0.1, 0.2], [0.3, 0.1])
    assert [tuple(bar.x) for bar in figure.data] == [(10, 20), (30, 10)]  # type: ignore[union-attr]
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;x&lt;/b&gt;"  # type: ignore[union-attr]
