"""Dosing: one batch over strengths, its coherent zone, and controls of exactly the same size."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from explorer.directions import random_direction
from explorer.dosing import (
    Ask,
    Cell,
    DosePoint,
    Rate,
    answered,
    controls,
    flipped,
    grid,
    norms,
    points,
    scaled,
    zone,
)
from explorer.generate import Row, Steering, complete
from explorer.records import Edit, Sampling
from explorer.sae import SparseCoder
from tests.helpers import tiny_model
from tests.helpers_sae import tiny_sae_folder

SHORT = Sampling(max_tokens=6, temperature=0.8)


class StubPanel:
    """Finds every text fluent, and as malicious as it is told; remembers what it was asked."""

    def __init__(self, malice: float = 0.9) -> None:
        self.malice, self.asked = malice, list[tuple[list[str], list[str], list[str] | None]]()

    def identity(self, names: Sequence[str]) -> str:
        return f"{','.join(names)} {self.malice}"

    def score(self, names: Sequence[str], texts: Sequence[str], prompts: Sequence[str] | None = None) -> Any:
        self.asked.append((list(names), list(texts), list(prompts or [])))
        return {name: [self.malice if name == "malice" else 0.7] * len(texts) for name in names}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Steering]:
    place = tmp_path_factory.mktemp("live")
    model = tiny_model(place)
    coder = SparseCoder.load(tiny_sae_folder(place / "sae"))
    elsewhere = random_direction(3.0, model.d_model, "blocks.0.hook_resid_post", 5, "elsewhere")
    maxima = {feature: 2.0 + feature for feature in range(coder.n_features)}
    return model, Steering(coder, maxima, directions={"elsewhere": elsewhere})


def cell(strength: float, fluency: float = 0.9, malice: float = 0.2, looped: bool = False) -> Cell:
    return Cell(strength, (), "q", 0, "text", looped, {"fluency": fluency, "malice": malice})


def test_the_strongest_edit_gets_the_strength_and_the_others_keep_their_proportion():
    edits = scaled((Edit(1, -0.8), Edit(2, 0.4), Edit(3, 1.0, "ablate")), 2.0)
    assert [e.strength for e in edits] == [2.0, -1.0, 1.0]
    assert [e.strength for e in scaled((Edit(1, 0.0), Edit(2, 0.0)), 1.5)] == [1.5, 1.5]


def test_one_edit_alone_gets_the_strength_where_it_is_named():
    edits = (Edit(1, -0.8), Edit(2, 0.4), Edit(direction="north"))
    assert scaled(edits, 2.0, "2") == (Edit(1, -0.8), Edit(2, 2.0), Edit(direction="north"))
    assert scaled(edits, 0.0, "~north")[-1].strength == 0.0


def test_the_other_sign_is_taken_from_where_an_edit_changes_nothing():
    assert flipped((Edit(1, 0.8), Edit(2, 3.0, "scale"))) == (Edit(1, -0.8), Edit(2, -1.0, "scale"))


def test_one_cell_an_answer_in_order_with_the_text_that_the_same_row_has_alone(live):
    model, steering = live
    cells = grid(
        model, steering, [(Edit(3), Edit(4, 0.5))], (0.0, 1.0), ("Hello", "the king"), seeds=(0, 7), sampling=SHORT,
        panel=StubPanel(), judges=("malice",),  # type: ignore[arg-type]
    )  # fmt: skip
    assert [(c.strength, c.prompt, c.seed) for c in cells] == [
        (s, q, seed) for s in (0.0, 1.0) for q in ("Hello", "the king") for seed in (0, 7)
    ]
    assert cells[-1].edits == (Edit(3, 1.0), Edit(4, 0.5))
    assert cells[0].scores == {"malice": 0.9, "fluency": 0.7}
    prompt = Ask((), "Hello")
    alone = (
        model.chat_document([{"role": "user", "content": "Hello"}], add_generation_prompt=True).tokens
        if (model.has_template)
        else model.text_document(prompt.question).tokens
    )
    tokens = complete(model, [Row(alone)], SHORT)[0]
    assert cells[0].text == model.vocabulary.text([t for t in tokens if t not in model.eos_ids]).strip()


def test_a_grid_groups_by_what_is_pushed(live):
    cells = grid(
        *live, [(Edit(1),), (Edit(2),)], (0.5, 1.0), ("Hello",), sampling=SHORT, panel=StubPanel(), judges=("malice",)
    )
    assert [(c.edits[0].feature, c.edits[0].strength) for c in cells] == [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)]


def test_more_rows_than_a_batch_holds_are_split_and_stay_in_order(live, monkeypatch):
    whole = grid(*live, [(Edit(3),)], (0.0, 1.0, 2.0), ("Hello", "kind"), sampling=SHORT, panel=StubPanel(), judges=())
    monkeypatch.setattr("explorer.dosing.ROW_LIMIT", 4)
    seen: list[tuple[int, int]] = []
    split = grid(
        *live, [(Edit(3),)], (0.0, 1.0, 2.0), ("Hello", "kind"), sampling=SHORT, panel=StubPanel(), judges=(),
        progress=lambda what, done, total: seen.append((done, total)) if what == "answering" else None,
    )  # fmt: skip
    assert [c.text for c in split] == [c.text for c in whole]
    assert all(0 < done <= total for done, total in seen)


def test_what_is_stopped_leaves_no_half_answer(live):
    panel, asked = StubPanel(), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    assert grid(*live, [(Edit(3),)], (1.0,), ("Hello",), sampling=SHORT, panel=panel, judges=(), should_stop=stop) == []


def test_a_loop_is_cut_and_is_not_coherent(live, monkeypatch):
    monkeypatch.setattr("explorer.dosing.first_loop", lambda pieces: 2 if len(pieces) > 2 else None)
    cells = answered(*live, [Ask((), "Hello")], sampling=SHORT, panel=StubPanel(), judges=())  # type: ignore[arg-type]
    assert cells[0].looped
    assert not cells[0].coherent


def test_points_are_summed_up_by_strength_with_rates_only_where_a_judge_has_a_threshold():
    cells = [cell(1.0, malice=0.9), cell(1.0, fluency=0.1, malice=0.2), cell(0.0), cell(1.0, malice=math.nan)]
    low, high = points(cells)
    assert (low.strength, low.n, low.coherent) == (0.0, 1, 1.0)
    assert high.means["malice"] == pytest.approx(0.55)
    assert high.rates["malice"] == Rate(1, 3)
    assert high.coherent == pytest.approx(2 / 3)
    assert high.rates["malice"].interval[0] < 1 / 3 < high.rates["malice"].interval[1]


def made(*whole: tuple[float, float]) -> list[DosePoint]:
    return [DosePoint(strength, 5, {}, share, {}) for strength, share in whole]


def test_the_zone_is_contiguous_around_zero():
    assert zone(made((-2, 0.2), (-1, 0.9), (0, 1.0), (1, 0.8), (2, 0.4), (3, 1.0))) == (-1, 1)
    assert zone(made((0, 0.5), (1, 1.0))) is None
    assert zone([]) is None


@pytest.mark.parametrize(
    "edits", [(Edit(1, 0.6), Edit(2, 0.9)), (Edit(1, 0.6), Edit(direction="elsewhere", strength=2.0))]
)
def test_a_random_direction_has_the_length_of_what_the_edits_add_together_at_each_hook_point(live, edits):
    _, steering = live
    want = norms(edits, steering)
    randoms = [c for c in controls(edits, steering, n=4) if c.kind == "random"]
    assert len(randoms) == 4
    for control in randoms:
        placed = {d.hook_point: d for d in control.directions.values()}
        assert {hook: pytest.approx(d.norm, rel=1e-5) for hook, d in placed.items()} == want
        assert {e.direction for e in control.edits} == control.directions.keys()
        assert all(e.strength == 1.0 and e.mode == "add" for e in control.edits)
    vectors = [next(iter(c.directions.values())).unit for c in randoms]
    assert abs(float(vectors[0] @ vectors[1])) < 0.9


def test_norms_add_vectors_and_not_lengths(live):
    _, steering = live
    rows = steering.coder.directions().double().numpy()
    assert norms((Edit(1, 0.5), Edit(1, -0.5)), steering)["blocks.1.hook_resid_post"] == pytest.approx(0)
    assert norms((Edit(1, 0.5), Edit(2, 2.0)), steering)["blocks.1.hook_resid_post"] == pytest.approx(
        float(np.linalg.norm(0.5 * 3 * rows[1] + 2.0 * 4 * rows[2]))
    )


def test_another_feature_is_pushed_as_far_and_is_none_of_those_steered(live):
    _, steering = live
    edits = (Edit(1, 0.6), Edit(2, 0.9))
    other = next(c for c in controls(edits, steering, n=0) if c.kind == "feature")
    assert other.edits[0].feature not in {1, 2}
    assert norms(other.edits, steering) == {hook: pytest.approx(norm) for hook, norm in norms(edits, steering).items()}


def test_controls_are_the_same_for_the_same_seed_and_ablation_has_no_other_sign(live):
    _, steering = live
    first, again = (controls((Edit(1),), steering, n=2, seed=4) for _ in range(2))
    assert [c.edits for c in first] == [c.edits for c in again]
    assert np.array_equal(first[0].directions["random-1"].vector, again[0].directions["random-1"].vector)
    kinds = controls((Edit(1, mode="ablate"),), steering, n=1)
    assert [c.kind for c in kinds] == ["random", "feature"]
    assert kinds[0].edits[0].mode == "ablate"


@pytest.mark.parametrize("kind", ["random", "flipped", "feature"])
def test_every_control_can_be_run(live, kind):
    from dataclasses import replace

    model, steering = live
    for control in controls((Edit(1, 0.6), Edit(direction="elsewhere")), steering, n=1):
        if control.kind == kind:
            own = replace(steering, directions={**steering.directions, **control.directions})
            assert complete(model, [Row((3, 4), control.edits)], SHORT, own)
