"""How an edit changes the residual stream: one pure function a mode, and the registry of modes.

Every function takes the unedited residual stream and gives the change, so several edits add up in any order. Nothing here imports torch:
the functions only use operators of the tensors they are given, and pages can list the modes without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explorer.errors import SteeringError
from explorer.records import Edit

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS: dict[str, str] = {
    "answer": "From the last prompt token on: the model reads your prompt unchanged and answers changed.",
    "prompt": "Only while the model reads the prompt.",
    "all": "The prompt and the answer.",
}


@dataclass(frozen=True, slots=True)
class Lever:
    """What a mode needs to know of a feature.

    Args:
        direction: `[d_model]`, the change of the residual stream for one unit of activation (the decoder row).
        maximum: The feature's largest activation in the corpus, in SAE units: what strength 1 stands for.
        read: Residual stream `[..., d_model]` -> activation of the feature `[...]`, in SAE units.
    """

    direction: Tensor
    maximum: float
    read: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to edit: its name, words for people, and the pure function.

    Args:
        neutral: The strength at which nothing changes; None where no strength does that.
        lowest, highest: The range that a slider offers.
        uses_strength: Whether the strength matters at all.
        apply: (residual `[..., d_model]`, lever, strength) -> change `[..., d_model]`.
    """

    name: str
    label: str
    unit: str
    help: str
    neutral: float | None
    lowest: float
    highest: float
    uses_strength: bool
    apply: Callable[[Tensor, Lever, float], Tensor]


def add(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Push along the direction, by `strength` times the feature's maximum, whatever the feature says by itself."""
    return (strength * lever.maximum * lever.direction).expand_as(resid)


def clamp(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Set the feature to `strength` times its maximum, up or down from what it is.

    Source: the clamping of "Scaling Monosemanticity" (Templeton et al. 2024), which keeps the SAE's error term.
    """
    return (strength * lever.maximum - lever.read(resid))[..., None] * lever.direction


def ablate(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Take out what the feature adds; the strength does not matter."""
    return -lever.read(resid)[..., None] * lever.direction


STEERING_MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            "add",
            "Add",
            "× feature maximum",
            "Adds the feature's direction at every steered token. 0 changes nothing, 1 adds as much as the strongest "
            "activation in the corpus, below 0 pushes away from it.",
            0.0,
            -3.0,
            3.0,
            True,
            add,
        ),
        Mode(
            "clamp",
            "Clamp",
            "× feature maximum",
            "Holds the feature at this value, whatever the text says. 0 switches it off.",
            None,
            0.0,
            3.0,
            True,
            clamp,
        ),
        Mode(
            "ablate",
            "Ablate",
            "no strength",
            "Removes the feature wherever it fires. Nothing changes where it is silent.",
            None,
            0.0,
            0.0,
            False,
            ablate,
        ),
    )
}


def mode(name: str) -> Mode:
    """The mode called `name`.

    Raises:
        SteeringError: If there is none; the message lists those there are.
    """
    if name not in STEERING_MODES:
        raise SteeringError(
            f"There is no steering mode {name!r}",
            expected=f"one of {', '.join(STEERING_MODES)}",
            do="Choose one of these",
        )
    return STEERING_MODES[name]


def check_positions(name: str) -> str:
    """`name`, if it names positions that can be steered.

    Raises:
        SteeringError: If it does not.
    """
    if name not in POSITIONS:
        raise SteeringError(
            f"There are no positions {name!r}", expected=f"one of {', '.join(POSITIONS)}", do="Choose one of these"
        )
    return name


def change(resid: Tensor, edits: Sequence[tuple[Edit, Lever]]) -> Tensor:
    """The sum of the changes of several edits, each computed from the unedited stream.

    Args:
        resid: `[..., d_model]`, float32.
        edits: At least one edit with its lever.
    Returns:
        `[..., d_model]`.
    """
    total = None
    for edit, lever in edits:
        delta = mode(edit.mode).apply(resid, lever, edit.strength)
        total = delta if total is None else total + delta
    assert total is not None
    return total
