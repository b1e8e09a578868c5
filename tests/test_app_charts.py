"""Figures: every chart names its axes and says nothing in markup that somebody else wrote."""

from types import SimpleNamespace

import numpy as np
import pytest

from app import charts

RNG = np.random.default_rng(0)
DENSITY = 10 ** RNG.uniform(-5, -1, 500)
MAXIMUM = RNG.uniform(2, 60, 500)


def test_every_chart_has_axis_titles():
    for figure in (
        charts.density_histogram(DENSITY),
        charts.activity_map(range(500), DENSITY, MAXIMUM, {}),
        charts.activation_histogram([9, 4, 1], 3.0),
    ):
        assert figure.layout.xaxis.title.text  # type: ignore[union-attr]
        assert figure.layout.yaxis.title.text  # type: ignore[union-attr]


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


def dose(*rows: tuple[float, float]):
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
