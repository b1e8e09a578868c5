"""The map as a plotly figure: one dot a feature, drawn by WebGL. No Streamlit here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import plotly.graph_objects as go

from app.charts import ACT, QUIET, hover_text
from app.map_colours import Groups, Values
from explorer.cache import Cache

MOST = 25_000
"""Dots that are sent to a browser at most."""
HEIGHT = 640
STEPS = 10
"""Colours that numbers are shown in."""
_MANY = 10_000
"""More dots than this are drawn smaller."""
_RISING = ((0.0, "#7F8FA9"), (0.45, "#C79A5B"), (1.0, "#E0560B"))
"""From the colour of what is secondary to that of activation; each step has contrast on both themes."""
_BOTH_WAYS = ((0.0, "#2F7CC9"), (0.5, "#9AA2AE"), (1.0, "#E0560B"))
_names: "WeakKeyDictionary[Cache, np.ndarray]" = WeakKeyDictionary()


def hover_names(cache: Cache, labels: Mapping[int, str]) -> np.ndarray:
    """`[n_features]` texts for the boxes over dots: label or own words, the markup of others taken out.

    The array is of texts of fixed width: plotly copies its data deeply, and objects one by one.
    """
    if cache not in _names:
        titles = cache.table.column("title").to_pylist()
        _names[cache] = np.array([hover_text(title or "", 40) or "no words of its own" for title in titles], str)
    said = {i: f"<b>{hover_text(label)}</b>" for i, label in labels.items() if 0 <= i < cache.n_features}
    widest = max([_names[cache].itemsize // 4, *map(len, said.values())])
    named = _names[cache].astype(f"U{widest}")
    for i, name in said.items():
        named[i] = name
    return named


def config(dots: int) -> dict[str, Any]:
    """What plotly draws a map of so many dots with.

    Four canvas pixels a pixel make a dot's rim smoother; where they are painted without a GPU, many dots then take a third of a second longer.
    """
    return {
        "displaylogo": False,
        "displayModeBar": True,
        "scrollZoom": True,
        "modeBarButtons": [["pan2d", "lasso2d", "select2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
        "plotGlPixelRatio": 2 if dots <= _MANY else 1,
    }


def figure(
    places: np.ndarray,
    shown: np.ndarray,
    colours: Values | Groups,
    names: np.ndarray,
    matches: np.ndarray,
    *,
    method: str = "UMAP",
) -> go.Figure:
    """The map.

    Args:
        places: `[n_features, 2]`.
        shown: The features that are drawn, at most `MOST`.
        colours: Of all features.
        names: `[n_features]`, from `hover_names`.
        matches: Features to ring; the others are then pale.
        method: How they were laid out, for the axes' names.
    """
    drawn = go.Figure()
    pale, size = 0.35 if len(matches) else 1.0, 5 if len(shown) <= _MANY else 3

    def dots(at: np.ndarray, name: str, marker: dict[str, Any], **more: Any) -> None:
        drawn.add_scattergl(
            x=places[at, 0], y=places[at, 1], mode="markers", name=name, text=names[at], customdata=at.astype(np.int32),
            marker=marker, hovertemplate="#%{customdata} %{text}<extra></extra>", **more,
        )  # fmt: skip

    if isinstance(colours, Groups):
        for code, (name, colour, large) in enumerate(colours.names):
            at = shown[colours.codes[shown] == code]
            if len(at):
                dots(at, f"{name} ({len(at):,})", {"size": large + size - 5, "color": colour, "opacity": pale * 0.85})
    else:
        values = colours.values[shown]
        there = np.isfinite(values)
        if not there.all():
            dots(shown[~there], colours.missing, {"size": 3, "color": QUIET, "opacity": pale * 0.4}, showlegend=True)
        if there.any():
            steps = _steps(colours, values[there])
            for step in steps.order:
                if len(at := shown[there][steps.of == step]):
                    marker = {"size": size, "color": steps.colours[step], "opacity": pale * 0.9}
                    dots(at, colours.title, marker, showlegend=False)
            drawn.add_scatter(x=[None], y=[None], mode="markers", marker=steps.bar, showlegend=False, hoverinfo="skip")
    ringed = np.intersect1d(shown, matches)
    if len(ringed):
        ring = {"size": 11, "symbol": "circle-open", "color": ACT, "line": {"width": 2}}
        dots(ringed, f"matches ({len(ringed):,})", ring, showlegend=True)
    drawn.update_layout(
        height=HEIGHT, margin={"l": 0, "r": 0, "t": 4, "b": 0}, hovermode="closest",
        clickmode="event+select",
        dragmode="pan",  # Streamlit hears of a click on a dot only while neither lasso nor box is in hand
        hoverlabel={"namelength": 0},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
        uirevision="map",  # a new colour leaves the view as it was
    )  # fmt: skip
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "title_standoff": 4}
    drawn.update_xaxes(title=f"{method}, first axis (no unit)", **axis)
    drawn.update_yaxes(title=f"{method}, second axis (no unit)", **axis)
    return drawn


@dataclass(frozen=True, eq=False)
class _Steps:
    """Numbers in steps of colour. A colour of its own for each dot would cost a browser a third of a second.

    Args:
        of: The step of each number.
        colours: Of each step.
        order: In which the steps are drawn: what stands out comes last and lies on top.
        bar: A marker whose colour bar explains them.
    """

    of: np.ndarray
    colours: list[str]
    order: list[int]
    bar: dict[str, Any]


def _steps(colours: Values, values: np.ndarray) -> _Steps:
    """Finite numbers in `STEPS` equal steps, of their logarithm where they are shown so."""
    bar: dict[str, Any] = {
        "title": {"text": colours.title, "side": "right"},
        "thickness": 10,
        "len": 0.7,
        "outlinewidth": 0,
    }
    if colours.log:
        values = np.log10(values)
    low, high = float(values.min()), float(values.max())
    if colours.diverging:  # one feature that moved far would leave all others grey
        high = float(np.quantile(np.abs(values), 0.999)) or 1.0
        low = -high
    high = high if high > low else low + 1
    of = np.clip(((values - low) / (high - low) * STEPS).astype(int), 0, STEPS - 1)
    scale = _BOTH_WAYS if colours.diverging else _RISING
    shades = [_between(scale, (step + 0.5) / STEPS) for step in range(STEPS)]
    if colours.log:
        powers = range(math.floor(low), math.ceil(high) + 1)
        marks = [(m, p) for p in powers for m in ((1,) if len(powers) > 3 else (1, 2, 5))]
        bar["tickvals"] = [math.log10(m) + p for m, p in marks]
        bar["ticktext"] = [f"{100 * m * 10.0**p:g} %" if colours.share else f"{m * 10.0**p:,g}" for m, p in marks]
    sharp = [[at / STEPS, shade] for step, shade in enumerate(shades) for at in (step, step + 1)]
    marker = {"color": [low], "cmin": low, "cmax": high, "colorscale": sharp, "showscale": True, "colorbar": bar}
    middle = (STEPS - 1) / 2 if colours.diverging else 0
    return _Steps(of, shades, sorted(range(STEPS), key=lambda step: abs(step - middle)), marker)


def _between(scale: Sequence[tuple[float, str]], at: float) -> str:
    """The colour of a scale at a place from 0 to 1."""
    places = [place for place, _ in scale]
    parts = [[int(colour[i : i + 2], 16) for _, colour in scale] for i in (1, 3, 5)]
    return "#" + "".join(f"{round(float(np.interp(at, places, part))):02X}" for part in parts)
