"""Comparisons and series as plotly figures. No Streamlit here."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from app.charts import ACT, FIRE, QUIET, frame, hover_text
from app.compared import Line, Mover
from explorer.diffing import Change

SHAPES = ("solid", "dash", "dot", "dashdot")
"""How the lines of features are told apart, besides their order in the words below."""
_BACKDROP = 300  # features besides those that are listed
_SCATTER, _SERIES = 330, 330


def scatter(change: Change, movers: Sequence[Mover], names: Mapping[int, str], chosen: int) -> go.Figure:
    """Every feature's mean in the base and in the fine-tune; the listed ones stand out, the control's mean is a ring.

    Args:
        names: Feature -> what to call it; other people's words.
        chosen: The feature that is marked.
    """
    listed = {m.feature for m in movers}
    far = [int(f) for f in np.argsort(-np.abs(np.nan_to_num(change.change))) if int(f) not in listed][:_BACKDROP]
    figure = go.Figure()
    top = (
        max([0.1, *(m.base for m in movers), *(m.tuned for m in movers), *change.base[far], *change.tuned[far]]) * 1.06
    )
    figure.add_scatter(
        x=[0, top], y=[0, top], mode="lines", line={"color": QUIET, "width": 1, "dash": "dot"}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=change.base[far], y=change.tuned[far], mode="markers", marker={"size": 4, "color": QUIET, "opacity": 0.35},
        customdata=far, hovertemplate="#%{customdata}: %{x:.2f} in the base, %{y:.2f} in the fine-tune",
    )  # fmt: skip
    for m in movers:
        if np.isfinite(m.control):
            figure.add_scatter(
                x=[m.base, m.base], y=[m.base + m.control, m.tuned], mode="lines", opacity=0.35, hoverinfo="skip",
                line={"color": QUIET, "width": 1},
            )  # fmt: skip
    ringed = [m for m in movers if np.isfinite(m.control)]
    figure.add_scatter(
        x=[m.base for m in ringed], y=[m.base + m.control for m in ringed], mode="markers",
        marker={"size": 9, "symbol": "circle-open", "color": QUIET, "line": {"width": 1.5}},
        customdata=[m.feature for m in ringed], hovertemplate="#%{customdata}: %{y:.2f} in the control fine-tune",
    )  # fmt: skip
    for causes, colour in ((False, QUIET), (True, ACT)):
        some = [m for m in movers if (m.verdict == "causes") == causes]
        figure.add_scatter(
            x=[m.base for m in some], y=[m.tuned for m in some], mode="markers",
            marker={
                "size": [14 if m.feature == chosen else 9 for m in some], "color": colour,
                "line": {"color": FIRE, "width": [3 if m.feature == chosen else 0 for m in some]},
            },
            customdata=[[m.feature, hover_text(names.get(m.feature, ""), 40), m.verdict] for m in some],
            hovertemplate="#%{customdata[0]} %{customdata[1]}<br>%{x:.2f} in the base, %{y:.2f} in the fine-tune; %{customdata[2]}",
        )  # fmt: skip
    frame(figure, _SCATTER, "mean activation in the base, SAE units", "mean in the fine-tune")
    figure.update_layout(dragmode=False)
    figure.update_xaxes(range=[-top * 0.03, top], zeroline=False)
    figure.update_yaxes(range=[-top * 0.03, top * 1.02], zeroline=False)
    return figure


def series(
    line: Line,
    now: float,
    activity: Mapping[int, Sequence[tuple[float, Sequence[float]]]],
    names: Mapping[int, str],
    word: str,
) -> go.Figure:
    """The rate of judged answers along a series and the one beside it, with features' mean activations, and where the slider stands.

    Args:
        activity: Feature -> x and each seed's mean activation there.
        names: Feature -> what to call it; other people's words.
        word: What the answers are judged for.
    """
    figure = go.Figure()
    if line.beside:
        _rates(figure, line.beside, word, "dash")
    _rates(figure, line, word, "solid")
    highest = 0.0
    for (feature, there), dash in zip(activity.items(), SHAPES * 9, strict=False):
        highest = max([highest, *(v for _, seeds in there for v in seeds)])
        figure.add_scatter(
            x=[x for x, seeds in there for _ in seeds], y=[v for _, seeds in there for v in seeds], yaxis="y2",
            mode="markers", marker={"size": 4, "color": FIRE, "opacity": 0.4}, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=[x for x, _ in there], y=[float(np.mean(seeds)) for _, seeds in there], yaxis="y2", mode="lines+markers",
            line={"color": FIRE, "width": 2, "dash": dash}, marker={"size": 4, "color": FIRE},
            hovertemplate=f"#{feature} {hover_text(names.get(feature, ''), 40)}: %{{y:.2f}}",
        )  # fmt: skip
    figure.add_vline(now, line={"color": ACT, "width": 1.5, "dash": "dot"})
    frame(figure, _SERIES, line.axis, f"answers judged {word}, %")
    figure.update_layout(
        dragmode=False,
        hovermode="closest",
        margin={"l": 0, "r": 48 if activity else 4, "t": 8, "b": 0},
        yaxis={"range": [-3, 103], "tickvals": [0, 25, 50, 75, 100]},
    )
    if activity:
        figure.update_layout(
            yaxis2={
                "title": {"text": "mean activation, SAE units", "standoff": 8}, "overlaying": "y", "side": "right", "showgrid": False,
                "fixedrange": True, "zeroline": False, "range": [-0.03 * highest, 1.06 * highest or 1.0], "nticks": 5, "tickmode": "auto",
            }
        )  # fmt: skip
    xs = sorted({p.x for one in (line, line.beside) if one for p in one.points})
    ends_of_x = (xs[0], xs[-1])
    pad = (ends_of_x[1] - ends_of_x[0] or 1.0) * 0.03
    figure.update_xaxes(range=[ends_of_x[0] - pad, ends_of_x[1] + pad], zeroline=False, tickvals=xs)
    if line.axis.startswith("share of"):
        figure.update_xaxes(tickformat=".0%")
    return figure


def _rates(figure: go.Figure, line: Line, word: str, dash: str) -> None:
    """Add the rates of a series with their intervals, and each seed as a pale dot."""
    points, colour = line.points, ACT if dash == "solid" else QUIET
    values = np.array([100 * p.tally.rate.value for p in points])
    ends = np.array([p.tally.rate.interval for p in points]) * 100
    figure.add_scatter(
        x=[p.x for p in points for _ in p.models], y=[100 * m.tally.rate.value for p in points for m in p.models],
        mode="markers", marker={"size": 5, "color": colour, "opacity": 0.45},
        customdata=[hover_text(m.model) for p in points for m in p.models], hovertemplate="%{customdata}: %{y:.0f} %",
    )  # fmt: skip
    figure.add_scatter(
        x=[p.x for p in points], y=values, mode="lines+markers", line={"color": colour, "width": 2.5, "dash": dash},
        marker={"size": 7, "color": colour},
        error_y={
            "array": ends[:, 1] - values, "arrayminus": values - ends[:, 0], "color": colour, "thickness": 1,
            "width": 3 if dash == "solid" else 6,
        },
        customdata=[[hover_text(line.name, 60), p.tally.n] for p in points],
        hovertemplate=f"%{{customdata[0]}}<br>{hover_text(word)}: %{{y:.0f}} % of %{{customdata[1]}} answers",
    )  # fmt: skip
