"""Charts of scores: how they are spread, what a threshold does, and one conversation from turn to turn. No Streamlit here."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from app.charts import ACT, FIRE, QUIET, frame, hover_text

if TYPE_CHECKING:
    from explorer.monitor import Curve

UNIT = "score, in multiples of strength 1"
MARGIN = (52, 10)
"""Pixels left and right of a histogram's plot; style.css gives the slider below the same, so that its knob is under the line."""
_BINS = 60


def score_histogram(
    scores: np.ndarray,
    span: tuple[float, float],
    threshold: float,
    what: str = "messages",
    height: int = 230,
    *,
    flagged: str = "flagged",
) -> go.Figure:
    """How many messages score how much, counts on a log scale; the line is the threshold, what it flags is orange.

    Args:
        scores: `[messages]`; what is not finite is left out.
        span: Lowest and highest threshold of the slider.
        what: What is counted.
        flagged: What happens to those at or above the threshold.
    """
    there = scores[np.isfinite(scores)]
    figure = go.Figure()
    highest = 1
    if len(there):
        low, high = float(there.min()), float(there.max())
        edges = np.linspace(low, high if high > low else low + 0.01, _BINS + 1)
        for values, colour, name in (
            (there[there < threshold], QUIET, "below"),
            (there[there >= threshold], FIRE, flagged),
        ):
            counts, _ = np.histogram(values, edges)
            highest = max(highest, int(counts.max(initial=0)))
            figure.add_bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts,
                width=(edges[1] - edges[0]) * 0.94,
                marker={"color": colour, "line": {"width": 0}},
                customdata=np.stack([edges[:-1], edges[1:]], 1),
                hovertemplate=f"%{{y:,}} {what} {name} between %{{customdata[0]:.3f}} and %{{customdata[1]:.3f}}",
            )
    frame(figure, height, UNIT, what)
    figure.add_vline(threshold, line={"color": ACT, "width": 2})
    powers = range(math.ceil(math.log10(max(highest, 2))) + 1)
    left, right = MARGIN
    figure.update_layout(barmode="overlay", margin={"l": left, "r": right, "t": 6, "b": 36, "autoexpand": False})
    figure.update_xaxes(range=list(span), zeroline=False)
    figure.update_yaxes(
        type="log",
        range=[math.log10(0.5), math.log10(max(highest, 2) * 1.3)],  # from half a message: a bar of one can be seen
        tickvals=[10**p for p in powers],
        ticktext=[f"{10**p:,}" for p in powers],
    )
    return figure


def roc(curve: "Curve", threshold: float, height: int = 160) -> go.Figure:
    """False alarms against what is found, over all thresholds; the point is the threshold in view, the dashes are guessing."""
    return _curve(
        curve, threshold, curve.false_positive, curve.recall, (0, 1), height, ("false alarms", "recall"),
        "recall %{y:.2f} at %{x:.2f} false alarms",
    )  # fmt: skip


def precision_recall(curve: "Curve", threshold: float, height: int = 160) -> go.Figure:
    """What is found against how much of it is right, over all thresholds; dashes: flagging everything."""
    share = curve.n[0] / sum(curve.n)
    return _curve(
        curve, threshold, curve.recall, curve.precision, (share, share), height, ("recall", "precision"),
        "precision %{y:.2f} at recall %{x:.2f}",
    )  # fmt: skip


def _curve(
    curve: "Curve",
    threshold: float,
    x: np.ndarray,
    y: np.ndarray,
    guess: tuple[float, float],
    height: int,
    titles: tuple[str, str],
    hover: str,
) -> go.Figure:
    """A curve in the unit square over a line of dashes from `guess` at the left to `guess` at the right."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=list(guess), mode="lines", line={"color": QUIET, "width": 1, "dash": "dash"}, hoverinfo="skip"
    )
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": ACT, "width": 2.5}, hovertemplate=hover)
    _point(figure, curve, threshold, x, y)
    return _unit_square(figure, height, *titles)


def _point(figure: go.Figure, curve: "Curve", threshold: float, x: np.ndarray, y: np.ndarray) -> None:
    """Mark the threshold in view; thresholds fall along the curve."""
    at = int(np.searchsorted(-curve.thresholds, -threshold, side="right")) - 1
    if at >= 0 and math.isfinite(y[at]):
        figure.add_scatter(x=[x[at]], y=[y[at]], mode="markers", marker={"color": FIRE, "size": 9}, hoverinfo="skip")


def _unit_square(figure: go.Figure, height: int, x: str, y: str) -> go.Figure:
    frame(figure, height, x, y)
    figure.update_xaxes(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], zeroline=False)
    figure.update_yaxes(range=[-0.04, 1.04], tickvals=[0, 0.5, 1], zeroline=False)
    return figure


def trace(scores: Sequence[float], roles: Sequence[str], threshold: float, here: int, height: int = 170) -> go.Figure:
    """One conversation: the score of each message, the threshold as a line, the message in view marked.

    Args:
        scores: `[messages]`, nan where one could not be scored.
        roles: Who says it; other people's words.
        here: The message in view, from 0.
    """
    turns = list(range(1, len(scores) + 1))
    said = [hover_text(role, 20) for role in roles]
    over = [not math.isnan(s) and s >= threshold for s in scores]
    figure = go.Figure(
        go.Scatter(
            x=turns,
            y=list(scores),
            mode="lines+markers",
            line={"color": QUIET, "width": 1.5},
            marker={
                "size": [12 if at == here else 7 for at in range(len(scores))],
                "color": [FIRE if flag else QUIET for flag in over],
                "symbol": ["circle" if role == "assistant" else "circle-open" for role in roles],
                "line": {"width": 2, "color": [FIRE if flag else QUIET for flag in over]},
            },
            customdata=said,
            hovertemplate="message %{x}, %{customdata}: %{y:.3f}",
        )
    )
    frame(figure, height, "message of the conversation", "score")
    figure.add_hline(threshold, line={"color": ACT, "width": 2})
    figure.add_vline(here + 1, line={"color": ACT, "width": 1, "dash": "dot"})
    figure.update_xaxes(range=[0.5, len(scores) + 0.5], zeroline=False, nticks=10)
    if len(scores) <= 12:
        figure.update_xaxes(tickvals=turns)
    figure.update_yaxes(zeroline=False)
    return figure
