"""Figures: every chart names its axes and says nothing in markup that somebody else wrote."""

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
