"""Data to plotly figures. No Streamlit here; text colours come from the theme, data colours are given."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from app.facts import masked

if TYPE_CHECKING:
    from explorer.dosing import DosePoint

FIRE = "#DA6D26"
"""Activation, on both themes."""
ACT = "#1B8F83"
"""What a person acts on, on both themes."""
QUIET = "#7A8699"
"""Secondary data, on both themes."""
LOOPS = "#8F6BC2"
"""Repetition, on both themes."""
DOSE_MARGIN = (36, 36)
"""Pixels left and right of a dose strip's plot, for its axes; style.css hangs them out, so that the plot is as wide as the slider."""
DOSE_HEIGHT = 86
"""Pixels of a dose strip."""
CONFIG = {"displayModeBar": False}
_MOST_POINTS = 25_000


def frame(figure: go.Figure, height: int, x: str, y: str) -> go.Figure:
    """Axis titles, margins and a quiet look; every chart of the app goes through here."""
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 4, "t": 6, "b": 0},
        bargap=0.06,
        showlegend=False,
        hoverlabel={"namelength": 0},
        legend={"bgcolor": "rgba(0,0,0,0)"},
    )
    figure.update_xaxes(title=x, fixedrange=True, title_standoff=6)
    figure.update_yaxes(title=y, fixedrange=True, nticks=5, title_standoff=8)
    return figure


def percent_ticks(lowest: float, highest: float) -> dict:
    """Ticks of a logarithmic axis of shares, in percent."""
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    return {"tickvals": [10.0**p for p in powers], "ticktext": [f"{10.0 ** (p + 2):g} %" for p in powers]}


def density_histogram(density: Sequence[float] | np.ndarray, height: int = 280) -> go.Figure:
    """How many features fire how often; dead ones are left out.

    Args:
        density: Share of scored tokens on which each feature is active.
    """
    alive = np.asarray(density, dtype=float)
    alive = alive[alive > 0]
    if not len(alive):
        return frame(go.Figure(), height, "share of tokens on which it fires", "features")
    logs = np.log10(alive)
    edges = np.arange(math.floor(logs.min() * 5) / 5, logs.max() + 0.2, 0.2)
    counts, edges = np.histogram(logs, edges)
    middles, low, high = 10 ** ((edges[:-1] + edges[1:]) / 2), 10 ** edges[:-1], 10 ** edges[1:]
    figure = go.Figure(
        go.Bar(
            x=middles,
            y=counts,
            width=(high - low) * 0.94,
            marker={"color": FIRE, "line": {"width": 0}},
            customdata=np.stack([low * 100, high * 100], 1),
            hovertemplate="%{y:,} features fire on %{customdata[0]:.2g} to %{customdata[1]:.2g} % of tokens",
        )
    )
    frame(figure, height, "share of tokens on which it fires", "features")
    figure.update_xaxes(type="log", **percent_ticks(10 ** edges[0], 10 ** edges[-1]))
    return figure


def activation_histogram(counts: Sequence[int], maximum: float, height: int = 170) -> go.Figure:
    """How many tokens fire one feature how strongly; weak firings are so common that the counts are on a log scale.

    Args:
        counts: Active tokens in equal bins from 0 to `maximum`.
        maximum: The feature's largest activation, in SAE units.
    """
    figure = go.Figure()
    if len(counts):
        edges = np.linspace(0, maximum, len(counts) + 1)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            marker={"color": FIRE, "line": {"width": 0}},
            customdata=np.stack([edges[:-1], edges[1:]], 1),
            hovertemplate="%{y:,} tokens between %{customdata[0]:.3g} and %{customdata[1]:.3g}",
        )
    frame(figure, height, "activation", "tokens")
    highest = max(counts, default=1)
    powers = range(max(1, math.ceil(math.log10(max(highest, 2)))) + 1)
    # From half a token, so that a bar of one token can be seen.
    figure.update_yaxes(
        type="log",
        range=[math.log10(0.5), math.log10(max(highest, 2) * 1.3)],
        tickvals=[10**p for p in powers],
        ticktext=[f"{10**p:,}" for p in powers],
    )
    return figure


def activity_map(
    index: Sequence[int] | np.ndarray,
    density: Sequence[float] | np.ndarray,
    maximum: Sequence[float] | np.ndarray,
    labels: dict[int, str],
    height: int = 280,
) -> go.Figure:
    """Every living feature by how often and how strongly it fires; labelled ones stand out.

    Args:
        index, density, maximum: One a feature.
        labels: Feature -> label; the text goes into hover boxes with its markup taken out.
    """
    index, density, maximum = (np.asarray(a) for a in (index, density, maximum))
    keep = np.flatnonzero((density > 0) & (maximum > 0))
    if len(keep) > _MOST_POINTS:
        keep = np.sort(np.random.default_rng(0).choice(keep, _MOST_POINTS, replace=False))
    named = np.array([int(i) in labels for i in index[keep]], dtype=bool)
    figure = go.Figure()
    for chosen, colour, size, opacity in ((~named, QUIET, 4, 0.45), (named, ACT, 7, 0.95)):
        at = keep[chosen]
        if not len(at):
            continue
        # plotly draws a little HTML in hover texts; labels are other people's words
        names = [hover_text(labels.get(int(i), "not labelled")) for i in index[at]]
        figure.add_scattergl(
            x=density[at],
            y=maximum[at],
            mode="markers",
            marker={"size": size, "color": colour, "opacity": opacity},
            customdata=np.stack([index[at].astype(object), np.array(names, dtype=object), density[at] * 100], 1),
            hovertemplate="#%{customdata[0]} %{customdata[1]}<br>max %{y:.3g}, fires on %{customdata[2]:.3g} %",
        )
    frame(figure, height, "share of tokens on which it fires", "maximum activation")
    figure.update_layout(dragmode=False)
    if len(keep):
        figure.update_xaxes(type="log", **percent_ticks(float(density[keep].min()), float(density[keep].max())))
        low, high = float(maximum[keep].min()), float(maximum[keep].max())
        ticks = [
            m * 10.0**p
            for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for m in (1, 2, 5)
            if low / 2 <= m * 10.0**p <= high * 2
        ]
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{t:g}" for t in ticks])
    return figure


def dose_lines(
    points: "Sequence[DosePoint]",
    lines: Mapping[str, str],
    *,
    span: tuple[float, float],
    now: float,
    zone: tuple[float, float] | None,
    stale: bool = False,
) -> go.Figure:
    """What more strength does to the answers, as low as a line of text can be: shares on the left, perplexity on the right.

    Args:
        points: Measured strengths, in the slider's unit.
        lines: Judge -> what to call it; the first is the trait, in teal. "repetition" and "perplexity" have looks of their own.
        span: Lowest and highest strength of the slider.
        now: Where the slider stands.
        zone: Strengths between which the answers are coherent; None where they nowhere are.
        stale: Pale: measured of something else.
    """
    figure, looks = go.Figure(), {"perplexity": (QUIET, "solid", 1.5), "repetition": (LOOPS, "dot", 2)}
    ordered = sorted(points, key=lambda point: point.strength)
    highest = 1000.0
    for name, label in lines.items():
        shown = [(p.strength, p.means[name]) for p in ordered if name in p.means and math.isfinite(p.means[name])]
        if not shown:
            continue
        colour, dash, width = looks.get(name, (ACT, "solid", 2.5))
        if name == "perplexity":
            highest = max(highest, *(y for _, y in shown))
        figure.add_scatter(
            x=[x for x, _ in shown],
            y=[y for _, y in shown],
            yaxis="y2" if name == "perplexity" else "y",
            mode="lines+markers",
            opacity=0.4 if stale else 1,
            line={"color": colour, "width": width, "dash": dash},
            marker={"size": 4, "color": colour},
            hovertemplate=f"{hover_text(label)} %{{y:.3g}} at strength %{{x:+.2f}}",
        )
    if zone:
        figure.add_vrect(*zone, fillcolor=ACT, opacity=0.07 if stale else 0.14, line_width=0, layer="below")
    figure.add_vline(now, line={"color": ACT, "width": 1.5})
    frame(figure, DOSE_HEIGHT, "strength", "share")
    left, right = DOSE_MARGIN
    small = {"size": 10}
    figure.update_layout(
        margin={"l": left, "r": right, "t": 7, "b": 30, "autoexpand": False},
        hovermode="closest",
        yaxis={"range": [-0.06, 1.06], "tickvals": [0, 1], "showgrid": False, "zeroline": False},
        yaxis2={
            "type": "log",
            "range": [-0.06 * math.log10(highest), 1.06 * math.log10(highest)],
            "tickvals": [1, 30, 1000],
            "ticktext": ["1", "30", "1k"],
            "title": {"text": "perplexity", "font": small, "standoff": 2},
            "tickfont": small,
            "overlaying": "y",
            "side": "right",
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        },
    )
    figure.update_xaxes(
        range=list(span), zeroline=False, showgrid=False, nticks=7, title={"font": small, "standoff": 0}, tickfont=small
    )
    figure.update_yaxes(title={"font": small, "standoff": 2}, tickfont=small, selector={"overlaying": None})
    return figure


def moved_features(names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> go.Figure:
    """Which features moved: their mean in the baseline (grey) and in the steered answer (orange), the largest change on top.

    Args:
        names: One a feature; other people's words.
        before, after: Mean activation over the answer's scored tokens, as a share of the feature's maximum.
    """
    figure = go.Figure()
    places = [hover_text(f"{name}", 34) for name in names]
    for values, colour, what in ((before, QUIET, "baseline"), (after, FIRE, "steered")):
        figure.add_bar(
            y=list(range(len(places))),
            x=[100 * value for value in values],
            orientation="h",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{what}: %{{x:.3g}} % of the feature's maximum",
        )
    frame(figure, moved_height(len(places)), "mean activation in the answer, % of the feature's maximum", "feature")
    figure.update_layout(barmode="group", bargap=0.3, margin={"l": 4, "r": 8, "t": 4, "b": 0})
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(places))), ticktext=places, automargin=True)
    return figure


def moved_height(features: int) -> int:
    """Pixels of `moved_features`."""
    return 70 + 26 * features


def hover_text(text: str, longest: int = 60) -> str:
    """Other people's words for a plotly text: no markup, one line, not too long."""
    line = " ".join(masked(text).split())[:longest]
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")
