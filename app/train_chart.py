"""The loss of a fine-tune as a figure. No Streamlit here."""

from collections.abc import Sequence

import plotly.graph_objects as go

from app.charts import ACT, QUIET, frame


def loss_curve(losses: Sequence[float], steps: int, kept: Sequence[int], height: int = 260) -> go.Figure:
    """Loss of each step so far, on an axis that reaches to the last one; dotted lines are checkpoints that are finished.

    Args:
        losses: One a step, in nats a token.
        steps: How many there will be.
        kept: Steps after which there is a checkpoint.
    """
    figure = go.Figure()
    if losses:
        figure.add_scatter(
            x=list(range(1, len(losses) + 1)),
            y=list(losses),
            mode="lines+markers" if len(losses) < 80 else "lines",
            line={"color": ACT, "width": 2},
            marker={"size": 4, "color": ACT},
            hovertemplate="step %{x}: loss %{y:.3f}",
        )
    for step in (step for step in kept if step <= len(losses)):
        figure.add_vline(step, line={"color": QUIET, "width": 1, "dash": "dot"}, opacity=0.6, layer="below")
    frame(figure, height, "step", "loss, nats a token")
    figure.update_xaxes(range=[0, steps + 0.5], showgrid=False)
    figure.update_yaxes(range=[0, 1.08 * max([*losses, 1.0])])
    return figure
