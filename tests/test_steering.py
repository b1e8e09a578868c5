"""The mathematics of each mode, and the contract that every line of the registry keeps."""

import pytest
import torch

from explorer.errors import SteeringError
from explorer.records import Edit
from explorer.steering import POSITIONS, STEERING_MODES, Lever, change, check_positions, mode

D = 16


@pytest.fixture
def resid() -> torch.Tensor:
    return torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lever() -> Lever:
    direction = torch.nn.functional.normalize(torch.randn(D, generator=torch.Generator().manual_seed(1)), dim=0)
    return Lever(direction, 4.0, lambda resid: (resid @ direction).relu())


@pytest.mark.parametrize("name", STEERING_MODES)
def test_every_mode_keeps_its_contract(name: str, resid: torch.Tensor, lever: Lever):
    entry = STEERING_MODES[name]
    before = resid.clone()
    delta = entry.apply(resid, lever, 1.0)
    assert delta.shape == resid.shape
    assert delta.dtype == resid.dtype
    assert torch.equal(resid, before), "a mode must not touch its input"
    assert entry.name == name
    assert entry.help.endswith(".")
    assert entry.label
    assert entry.unit
    assert entry.uses_strength == (entry.lowest < entry.highest)


@pytest.mark.parametrize("name", STEERING_MODES)
def test_a_mode_at_its_neutral_value_changes_nothing(name: str, resid: torch.Tensor, lever: Lever):
    entry = STEERING_MODES[name]
    if entry.neutral is not None:
        assert torch.equal(resid + entry.apply(resid, lever, entry.neutral), resid)
    else:
        assert not torch.equal(resid + entry.apply(resid, lever, 0.0), resid)


def test_adding_once_the_maximum_moves_the_stream_by_the_maximum_along_the_direction(resid, lever):
    delta = STEERING_MODES["add"].apply(resid, lever, 1.0)
    torch.testing.assert_close(delta @ lever.direction, torch.full((2, 5), 4.0))


def test_clamping_sets_the_feature_whatever_it_was(resid, lever):
    for strength in (0.0, 0.5, 2.0):
        clamped = resid + STEERING_MODES["clamp"].apply(resid, lever, strength)
        active = lever.read(resid) > 0
        torch.testing.assert_close(
            lever.read(clamped)[active], torch.full_like(lever.read(resid), 4 * strength)[active]
        )


def test_ablation_removes_the_projection_where_the_feature_fires_and_nothing_elsewhere(resid, lever):
    ablated = resid + STEERING_MODES["ablate"].apply(resid, lever, 1.0)
    active = lever.read(resid) > 0
    torch.testing.assert_close(lever.read(ablated)[active], torch.zeros(int(active.sum())), atol=1e-6, rtol=0)
    assert torch.equal(ablated[~active], resid[~active])


def test_several_edits_add_up_in_any_order(resid, lever):
    edits = [(Edit(0, 1.0, "add"), lever), (Edit(1, 0.5, "clamp"), lever), (Edit(2, 1.0, "ablate"), lever)]
    torch.testing.assert_close(change(resid, edits), change(resid, edits[::-1]))


def test_unknown_modes_and_positions_are_refused_and_the_choices_named():
    with pytest.raises(SteeringError, match="one of add, clamp, scale, ablate, orthogonal, cap"):
        mode("shout")
    with pytest.raises(SteeringError, match="one of answer, prompt, all, first"):
        check_positions("nowhere")
    assert all(help_text.endswith(".") for help_text in POSITIONS.values())
