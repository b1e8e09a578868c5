"""The mathematics of each mode, and the contract that every line of the registry keeps, for features and for directions."""

import re

import pytest
import torch

from explorer.errors import SteeringError
from explorer.records import Edit
from explorer.steering import ONE_MEANS, POSITIONS, STEERING_MODES, Lever, change, check_positions, mode

D = 16
BASE = -0.75


@pytest.fixture
def resid() -> torch.Tensor:
    return torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))


def feature() -> Lever:
    """One that fires where the stream points its way; its decoder row is not of length 1."""
    row = 1.5 * unit()
    return Lever(row, 4.0, lambda resid: (resid @ row).relu())


def direction() -> Lever:
    """One whose reading is the component itself, from its base on."""
    return Lever(unit(), 4.0, lambda resid: resid @ unit() - BASE, BASE)


def unit() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(D, generator=torch.Generator().manual_seed(1)), dim=0)


LEVERS = {"feature": feature, "direction": direction}


@pytest.fixture(params=LEVERS)
def lever(request: pytest.FixtureRequest) -> Lever:
    return LEVERS[request.param]()


def apply(name: str, resid: torch.Tensor, lever: Lever, strength: float) -> torch.Tensor:
    return resid + STEERING_MODES[name].apply(resid, lever, strength)


def across(resid: torch.Tensor) -> torch.Tensor:
    """What of the stream is orthogonal to the direction."""
    return resid - (resid @ unit())[..., None] * unit()


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
def test_every_mode_moves_the_stream_along_the_direction_only(name: str, resid: torch.Tensor, lever: Lever):
    for strength in (-1.0, 0.0, 0.5, 2.0):
        torch.testing.assert_close(across(apply(name, resid, lever, strength)), across(resid))


@pytest.mark.parametrize("name", STEERING_MODES)
def test_a_mode_works_on_every_token_by_itself(name: str, resid: torch.Tensor, lever: Lever):
    whole = apply(name, resid, lever, 0.5)
    torch.testing.assert_close(apply(name, resid[1, 2], lever, 0.5), whole[1, 2])


@pytest.mark.parametrize("name", STEERING_MODES)
def test_a_mode_at_its_neutral_value_changes_nothing(name: str, resid: torch.Tensor, lever: Lever):
    entry = STEERING_MODES[name]
    if entry.neutral is not None:
        assert torch.equal(apply(name, resid, lever, entry.neutral), resid)
        assert entry.lowest <= entry.neutral <= entry.highest
    else:
        assert not torch.equal(apply(name, resid, lever, 0.0), resid)


@pytest.mark.parametrize("name", STEERING_MODES)
def test_a_mode_that_does_not_look_gives_the_same_change_for_any_stream(name: str, resid: torch.Tensor, lever: Lever):
    entry = STEERING_MODES[name]
    deltas = [entry.apply(stream, lever, 0.5) for stream in (resid, 2 * resid)]
    assert torch.equal(*deltas) != entry.looks


def test_adding_once_the_maximum_moves_the_stream_by_the_maximum_along_the_direction(resid, lever):
    delta = STEERING_MODES["add"].apply(resid, lever, 1.0)
    torch.testing.assert_close(delta, (4.0 * lever.direction).expand_as(resid))
    torch.testing.assert_close(apply("add", apply("add", resid, lever, 1.0), lever, -1.0), resid)


def test_clamping_sets_the_reading_of_a_direction_to_strength_times_its_maximum(resid):
    lever = direction()
    for strength in (0.0, 0.5, 1.0, 2.0):
        clamped = apply("clamp", resid, lever, strength)
        torch.testing.assert_close(lever.read(clamped), torch.full((2, 5), 4 * strength))


def test_clamping_sets_a_feature_whatever_it_was(resid):
    lever = Lever(unit(), 4.0, lambda resid: (resid @ unit()).relu())
    for strength in (0.0, 0.5, 2.0):
        clamped = apply("clamp", resid, lever, strength)
        active = lever.read(resid) > 0
        torch.testing.assert_close(lever.read(clamped)[active], torch.full((2, 5), 4 * strength)[active])


def test_scaling_multiplies_what_is_said_and_changes_nothing_where_the_feature_is_silent(resid, lever):
    said = lever.read(resid)
    doubled, silenced = apply("scale", resid, lever, 2.0), apply("scale", resid, lever, 0.0)
    torch.testing.assert_close(doubled - resid, said[..., None] * lever.direction)
    torch.testing.assert_close(silenced, apply("ablate", resid, lever, 1.0))
    assert torch.equal(doubled[said == 0], resid[said == 0])


def test_ablation_removes_what_was_added_and_nothing_where_a_feature_is_silent(resid, lever):
    ablated, said = apply("ablate", resid, lever, 1.0), lever.read(resid)
    torch.testing.assert_close(resid - ablated, said[..., None] * lever.direction)
    assert torch.equal(ablated[said == 0], resid[said == 0])
    ordinary = apply("ablate", resid, direction(), 1.0)
    torch.testing.assert_close(direction().read(ordinary), torch.zeros(2, 5), atol=1e-5, rtol=0)


def test_projection_sets_the_component_and_strength_0_removes_it(resid, lever):
    for strength in (0.0, 0.5, -1.0):
        projected = apply("orthogonal", resid, lever, strength)
        torch.testing.assert_close(lever.component(projected), torch.full((2, 5), 4 * strength), atol=1e-5, rtol=0)
    along = apply("orthogonal", resid, lever, 0.0) @ unit()
    torch.testing.assert_close(along, torch.full((2, 5), lever.base), atol=1e-5, rtol=0)


def test_a_cap_never_raises_and_does_nothing_below_itself(resid, lever):
    before = lever.component(resid)
    for strength in (before.quantile(0.25).item() / 4, before.quantile(0.75).item() / 4):
        after = lever.component(apply("cap", resid, lever, strength))
        above = before > 4 * strength
        assert above.any()
        assert not above.all()
        torch.testing.assert_close(after[above], torch.full((2, 5), 4 * strength)[above], atol=1e-5, rtol=0)
        assert torch.equal(apply("cap", resid, lever, strength)[~above], resid[~above])


def test_strength_1_of_a_direction_is_the_mean_of_texts_with_the_trait_in_every_mode_that_sets_it():
    lever = direction()
    without, with_ = BASE * unit(), (BASE + 4.0) * unit()
    for name in ("add", "clamp", "orthogonal"):
        torch.testing.assert_close(apply(name, without[None], lever, 1.0)[0], with_)
    torch.testing.assert_close(apply("cap", (BASE + 9.0) * unit()[None], lever, 1.0)[0], with_)


def test_several_edits_add_up_in_any_order(resid):
    edits = [
        (Edit(at, 0.5, name), kind())
        for at, (name, kind) in enumerate(zip(STEERING_MODES, [*LEVERS.values()] * 3, strict=True))
    ]
    torch.testing.assert_close(change(resid, edits), change(resid, edits[::-1]))
    alone = [STEERING_MODES[edit.mode].apply(resid, lever, 0.5) for edit, lever in edits]
    torch.testing.assert_close(change(resid, edits), torch.stack(alone).sum(0))


def test_unknown_modes_and_positions_are_refused_and_the_choices_named():
    with pytest.raises(SteeringError, match="one of add, clamp, scale, ablate, orthogonal, cap"):
        mode("shout")
    with pytest.raises(SteeringError, match="one of answer, prompt, all, first"):
        check_positions("nowhere")
    assert all(help_text.endswith(".") for help_text in (*POSITIONS.values(), *ONE_MEANS.values()))


@pytest.mark.parametrize(("target", "edit"), [("12", Edit(12)), ("~villain-2", Edit(direction="villain-2"))])
def test_a_target_is_spelled_one_way_everywhere(target, edit):
    assert edit.target == target
    assert Edit.of(target) == edit


@pytest.mark.parametrize("edit", [Edit(12), Edit(3, -1.5, "clamp"), Edit(-1, 0.25, "cap", "villain-2")])
def test_an_edit_is_read_as_it_is_spelled(edit):
    assert Edit.read(edit.spelled) == edit
    assert Edit.read(edit.target) == Edit.of(edit.target)
    assert Edit.read(f"{edit.target}:-2") == Edit.of(edit.target, -2.0)


@pytest.mark.parametrize(
    "spelled", ["", "-1:1", "~A:1", "12:inf", "12:nan:add", "12:1:shout", "12:1:add:off", "12:add", "12:"]
)
def test_what_spells_no_edit_is_not_guessed_at(spelled):
    with pytest.raises(ValueError, match=f"^{re.escape(spelled.split(':')[0])}|could not convert string to float"):
        Edit.read(spelled)


@pytest.mark.parametrize("target", ["", "~", "~A", "~-a", "-1", "1.5", "king", "9" * 10, "~" + "a" * 41, "~a b"])
def test_what_is_no_target_is_refused(target):
    with pytest.raises(ValueError, match=f"^{re.escape(target)}$"):
        Edit.of(target)
