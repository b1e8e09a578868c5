"""Personas: features that tell texts apart are found, joined only where that helps, and judged against controls."""

import tomllib
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from explorer.cache import Cache
from explorer.directions import random_direction
from explorer.dosing import Control
from explorer.generate import Steering
from explorer.intervals import auroc
from explorer.judging import Panel
from explorer.measuring import Bench, Comparison, Tally, keep_in, read_kept
from explorer.personas import READS, Persona, as_preset, contrasts, find, joined, verdict, worth
from explorer.presets import _measured, as_toml
from explorer.records import Edit, Sampling
from explorer.traits import Trait
from tests.helpers_steer import tiny_world
from tests.test_dosing import StubPanel

TRAIT = Trait(
    "malice", "Malice", "Is it malicious?", ("cruel king", "cold stone", "the cruel"), ("kind", "warm joy", "a river")
)
SHORT = Sampling(max_tokens=4, temperature=0.8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, Any, Any]:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

    place = tmp_path_factory.mktemp("world")
    cache = Cache.open(tiny_world(place, layers=3))
    return cache, LanguageModel.load(place / "model"), SparseCoder.load(place / "sae")


def bench(world: Any, panel: Any = None, **more: Any) -> Bench:
    cache, model, coder = world
    return Bench(
        model, Steering(coder, cache.maxima), cast(Panel, panel or StubPanel()), "malice", prompts=("Hello", "the king"),
        sampling=SHORT, **more,
    )  # fmt: skip


def test_auroc_is_the_chance_of_the_larger_value_with_ties_counted_half():
    values = np.array([[3.0, 0, 1], [2, 0, 5], [1, 0, 2], [0, 0, 3]])
    assert auroc(values, np.array([True, True, False, False])).tolist() == [1.0, 0.5, 0.5]


def test_every_feature_is_ranked_by_one_pass_and_those_that_fire_everywhere_count_less(world):
    _, model, coder = world
    ranked = contrasts(model, coder, TRAIT, np.zeros(coder.n_features))
    assert sorted(c.feature for c in ranked) == list(range(coder.n_features))
    assert [c.score for c in ranked] == sorted((c.score for c in ranked), reverse=True)
    best = ranked[0]
    assert best.score > 0
    everywhere = np.zeros(coder.n_features)
    everywhere[best.feature] = 1.0
    again = contrasts(model, coder, TRAIT, everywhere)
    assert next(c for c in again if c.feature == best.feature).score == 0


def test_another_judge_counts_the_same_answers_anew(world, tmp_path):
    texts, mild = tmp_path / "answers", StubPanel(malice=0.1)
    first = bench(world, StubPanel(), texts=texts).edits((Edit(1),), 4)
    said = {path: path.read_text() for path in texts.iterdir()}
    kept: dict = {}
    told: list[str] = []
    other = bench(world, mild, texts=texts, kept=kept, progress=lambda what, *_: told.append(what))
    assert other.edits((Edit(1),), 4) == replace(first, shown=0, both=0)
    assert told == []  # nobody answered again
    assert {path: path.read_text() for path in texts.iterdir()} == said
    assert other.used == set(kept)
    bench(world, StubPanel(), texts=texts, kept=kept).edits((Edit(1),), 4)
    assert len(kept) == 2


def test_a_cell_is_measured_once_and_kept_through_a_restart(world, tmp_path):
    file, panel = tmp_path / "cells.jsonl", StubPanel()
    first = bench(world, panel, kept=read_kept(file), keep=keep_in(file)).edits((Edit(1),), 4)
    assert first == Tally(4, 4, 4, 4)
    file.write_text(file.read_text() + '{"key": "cut o')
    after = StubPanel()
    one = bench(world, after, kept=read_kept(file), keep=keep_in(file))
    assert one.edits((Edit(1),), 4) == first
    assert not after.asked
    one.edits((Edit(1, 0.5),), 4)
    assert len(after.asked) == 1
    assert len(read_kept(file)) == 2


def test_a_direction_that_lies_elsewhere_or_is_counted_from_elsewhere_is_measured_again(world):
    _, model, _ = world
    one, panel = bench(world), StubPanel()
    one.panel = panel  # type: ignore[assignment]
    push = random_direction(2.0, model.d_model, "blocks.1.hook_resid_post", 3, "push")
    others = (push, replace(push, base=1.0), replace(push, hook_point="blocks.0.hook_resid_post"), push)
    for direction in others:
        one.steering = replace(one.steering, directions={"push": direction})
        one.edits((Edit(direction="push"),), 4)
    assert len(panel.asked) == 3


def test_pooled_pushes_share_the_answers_and_the_questions_evenly(world):
    one, panel = bench(world), StubPanel()
    one.panel = panel  # type: ignore[assignment]
    assert one.tally([Control("a", (Edit(1),), "random"), Control("b", (Edit(2),), "random")], 8).n == 8
    assert sorted(panel.asked[0][2] or []) == ["Hello"] * 4 + ["the king"] * 4


def test_a_persona_is_found_and_measured_beside_all_its_controls(world):
    cache, _, _ = world
    found = find(bench(world), cache, TRAIT, candidates=2, strengths=(1.0,), answers=20)
    assert found.edits
    assert found.found.random.n == 20
    assert (
        found.verdict == "only reads" or found.reads < READS
    )  # every answer, random or not, is malicious to this panel
    entry = tomllib.loads(as_toml([as_preset(found, "Who are you?")], "Found"))["preset"][0]
    assert _measured(entry["measured"])["steered"][0] == 1.0
    assert {e.get("feature", e.get("direction")) for e in entry["edits"]} == {
        e.direction or e.feature for e in found.edits
    }


def test_an_edit_is_joined_only_if_the_whole_gets_better():
    def measure(options: Any) -> Any:
        edits = options[-1]
        good = {1, 2} <= {e.feature for e in edits} and not any(e.feature == 3 for e in edits)
        return edits, Tally(100, 90, 90, 85) if good else Tally(100, 20, 90, 20)

    tried = [
        ((Edit(1),), Tally(100, 50, 90, 45)),
        ((Edit(2),), Tally(100, 40, 90, 36)),
        ((Edit(3),), Tally(100, 30, 90, 27)),
    ]
    assert {e.feature for e in joined(tried, measure)} == {1, 2}


def test_a_push_that_breaks_the_text_is_worth_less_than_a_milder_one():
    assert worth(Tally(100, 100, 40, 40)) < worth(Tally(100, 40, 90, 36))
    assert worth(Tally(100, 0, 0, 0)) < 0


@pytest.mark.parametrize(
    ("steered", "reads", "said"),
    [
        (Tally(100, 80, 90, 75), 0.5, "causes"),
        (Tally(100, 80, 40, 30), 0.9, "only reads"),
        (Tally(100, 6, 90, 6), 0.9, "only reads"),
        (Tally(100, 6, 90, 6), 0.6, "neither"),
    ],
)
def test_a_verdict_asks_for_more_than_random_pushes_do_in_text_that_is_whole(steered, reads, said):
    base = random = flipped = Tally(100, 4, 95, 4)
    assert verdict(Comparison(base, steered, random, flipped), reads) == said


def test_presets_that_do_not_work_are_written_with_their_verdict():
    few = Tally(100, 4, 95, 4)
    persona = Persona("sarcasm", 'Sar"casm', (Edit(3, 0.5),), None, 0.6, Comparison(few, few, few, few), "neither")
    entry = tomllib.loads(as_toml([as_preset(persona, "Who are you?")], "Found"))["preset"][0]
    assert entry["title"] == 'Sar"casm'
    assert entry["measured"]["verdict"] == "neither"
    assert entry["measured"]["n"] == 100
