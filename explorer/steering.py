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
    "first": "Only the step that chooses the first token of the answer; the model goes on from there by itself.",
}
ONE_MEANS: dict[str, str] = {
    "feature": "1.0 is the feature's own maximum: as strong as the strongest place in the whole corpus.",
    "direction": "1.0 is the whole difference: as strong as texts with the trait are on average, against texts without it.",
}
"""What strength 1 stands for, in words for people, by kind of lever."""


@dataclass(frozen=True, slots=True)
class Lever:
    """What a mode needs to know of a feature or a direction.

    Args:
        direction: `[d_model]`, the change of the residual stream for one unit of the reading: a feature's decoder row, a direction's unit
            vector.
        maximum: What strength 1 stands for: the feature's largest activation in the corpus, in SAE units; a direction's length.
        read: Residual stream `[..., d_model]` -> what the feature or direction says by itself `[...]`, in the unit of `maximum`.
        base: The component along the direction that counts as 0: 0 for a feature; for a direction, that of texts without the trait.
    """

    direction: Tensor
    maximum: float
    read: Callable[[Tensor], Tensor]
    base: float = 0.0

    def component(self, resid: Tensor) -> Tensor:
        """The stream's component along the direction `[...]`, from `base`, in the unit of `maximum`.

        A direction's reading is just this; a feature's is what its encoder makes of the stream, which is 0 almost everywhere.
        """
        length = (self.direction @ self.direction).clamp(min=1e-12)
        return resid @ self.direction / length - self.base


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to edit: its name, words for people, and the pure function.

    Args:
        neutral: The strength at which nothing changes; None where no strength does that.
        lowest, highest: The range that a slider offers.
        uses_strength: Whether the strength matters at all.
        looks: Whether the change depends on the stream; what does not is computed once for a whole answer.
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
    looks: bool
    apply: Callable[[Tensor, Lever, float], Tensor]


def add(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Push along the direction, by `strength` times the maximum, whatever the stream says by itself."""
    return (strength * lever.maximum * lever.direction).expand_as(resid)


def clamp(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Set the reading to `strength` times the maximum, up or down from what it is.

    Source: the clamping of "Scaling Monosemanticity" (Templeton et al. 2024), which keeps the SAE's error term.
    """
    return (strength * lever.maximum - lever.read(resid))[..., None] * lever.direction


def scale(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Multiply what the feature or direction says by itself."""
    return (strength - 1) * lever.read(resid)[..., None] * lever.direction


def ablate(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Take out what the feature or direction adds; the strength does not matter."""
    return -lever.read(resid)[..., None] * lever.direction


def orthogonal(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Replace the stream's component along the direction by `strength` times the maximum; what is orthogonal to it stays.

    Source: directional ablation, "Refusal in Language Models Is Mediated by a Single Direction" (Arditi et al. 2024), is strength 0.
    """
    return (strength * lever.maximum - lever.component(resid))[..., None] * lever.direction


def cap(resid: Tensor, lever: Lever, strength: float) -> Tensor:
    """Bring the stream's component along the direction down to `strength` times the maximum where it is above."""
    return (strength * lever.maximum - lever.component(resid)).clamp(max=0)[..., None] * lever.direction


STEERING_MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            "add",
            "Add",
            "× maximum",
            "Pushes along the direction at every steered token. 0 changes nothing, 1 adds as much as the feature's strongest activation "
            "in the corpus (or the whole direction), below 0 pushes away from it.",
            0.0,
            -3.0,
            3.0,
            uses_strength=True,
            looks=False,
            apply=add,
        ),
        Mode(
            "clamp",
            "Clamp",
            "× maximum",
            "Holds the feature or direction at this value, whatever the text says. 0 switches it off, 1 is its maximum.",
            None,
            0.0,
            3.0,
            uses_strength=True,
            looks=True,
            apply=clamp,
        ),
        Mode(
            "scale",
            "Scale",
            "× what it says itself",
            "Multiplies what the feature or direction says by itself. 0 silences it, 1 changes nothing, 2 doubles it. Nothing changes where "
            "it is silent.",
            1.0,
            0.0,
            5.0,
            uses_strength=True,
            looks=True,
            apply=scale,
        ),
        Mode(
            "ablate",
            "Ablate",
            "no strength",
            "Removes the feature or direction wherever it speaks. Nothing changes where it is silent.",
            None,
            0.0,
            0.0,
            uses_strength=False,
            looks=True,
            apply=ablate,
        ),
        Mode(
            "orthogonal",
            "Project",
            "× maximum",
            "Replaces everything that lies along the direction, also what the feature itself would not count, by this value. 0 removes it, "
            "1 is the maximum. For a direction it does the same as clamp.",
            None,
            -3.0,
            3.0,
            uses_strength=True,
            looks=True,
            apply=orthogonal,
        ),
        Mode(
            "cap",
            "Cap",
            "× maximum",
            "Lets the stream reach this far along the direction and no further. Nothing changes below the cap; 1 caps at the maximum, 0 at "
            "none of it.",
            None,
            -1.0,
            3.0,
            uses_strength=True,
            looks=True,
            apply=cap,
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
