"""The report: known answers for autoencoders that keep all or nothing, and figures that are computed once."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from explorer.corpus import write
from explorer.errors import CacheError
from explorer.fidelity import Figure
from explorer.model import LanguageModel
from explorer.report import HELD_OUT, PRINTED, REPORT, SWEEP, load, printed, report
from explorer.sae import SparseCoder
from explorer.traits import Fit
from tests.helpers import TEXT, tiny_model

HOOK = "blocks.1.hook_resid_post"
FIT = Fit((0.1,), 0.0, 0.01, 0.97, 0.95, 0.99, (9, 1, 2, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(model: LanguageModel, tmp_path: Path) -> Path:
    write([model.text_document(f"{a} {b}") for a in TEXT for b in TEXT], tmp_path / HELD_OUT)
    return tmp_path


def coder(model: LanguageModel, decode, name: str = "f" * 64, encode=None) -> SimpleNamespace:
    """An autoencoder that reads `resid` and writes `decode(resid)`; its latents are the residual stream itself."""
    return SimpleNamespace(
        metadata={"context_size": 64}, hook_point=HOOK, d_in=model.d_model, n_features=model.d_model,
        fingerprint=name, encode=encode or (lambda resid: resid.float()), decode=decode,
    )  # fmt: skip


def values(world: Path, model: LanguageModel, some: SimpleNamespace) -> dict[str, float]:
    return {name: figure.value for name, figure in report(world, model, some).items()}  # pyright: ignore[reportArgumentType]


def test_an_autoencoder_that_keeps_everything_explains_everything_and_recovers_the_loss(model, world: Path):
    found = values(world, model, coder(model, lambda acts: acts))
    assert found["variance_explained"] == pytest.approx(1, abs=1e-6)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-4)
    assert found["dead_latents"] == 0


def test_one_that_writes_the_mean_explains_nothing_and_recovers_nothing(model, world: Path):
    rows: list[torch.Tensor] = []
    values(world, model, coder(model, lambda acts: rows.append(acts) or acts))
    mean = torch.cat(rows).mean(0)
    found = values(world, model, coder(model, lambda acts: mean.expand_as(acts), "g" * 64))
    assert found["variance_explained"] == pytest.approx(0, abs=1e-3)
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-3)


def test_latents_that_never_fire_are_counted(model, world: Path):
    half = model.d_model // 2

    def encode(resid: torch.Tensor) -> torch.Tensor:
        acts = resid.float().abs() + 1
        acts[..., :half] = 0
        return acts

    assert values(world, model, coder(model, lambda acts: acts, encode=encode))["dead_latents"] == 0.5


def test_every_figure_has_its_n_its_interval_its_meaning_and_its_command(model, world: Path):
    figures = report(world, model, coder(model, lambda acts: acts * 0.9))  # pyright: ignore[reportArgumentType]
    for figure in figures.values():
        assert figure.n
        assert figure.meaning
        assert figure.command.startswith("persona-explorer ")
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low - 1e-9 <= figure.value <= figure.high + 1e-9
    assert load(world) == figures
    text = (world / PRINTED).read_text()
    assert all(f"`{name}`" in text for name in figures)


def test_figures_that_are_there_are_not_computed_again_and_those_of_another_sae_are(model, world: Path):
    some = coder(model, lambda acts: acts)
    first = values(world, model, some)
    assert values(world, model, coder(model, lambda acts: acts * 0)) == first
    other = values(world, model, coder(model, lambda acts: acts * 0, "g" * 64))
    assert other["variance_explained"] < first["variance_explained"]


def test_outside_text_has_figures_of_its_own_and_leaves_none_of_its_words(model, world: Path, tmp_path: Path):
    outside = tmp_path / "outside.jsonl"
    outside.write_text("".join(json.dumps({"chosen": f"{text} Zanzibar"}) + "\n" for text in TEXT))
    found = report(world, model, coder(model, lambda acts: acts), outside=outside)  # pyright: ignore[reportArgumentType]
    assert {"variance_explained_outside", "loss_recovered_outside", "dead_latents_outside"} <= found.keys()
    assert found["variance_explained_outside"].target == ""
    assert "Zanzibar" not in (world / REPORT).read_text() + (world / PRINTED).read_text()


def test_a_world_without_held_out_documents_says_what_to_do(model, tmp_path: Path):
    with pytest.raises(CacheError, match="persona-explorer make"):
        values(tmp_path, model, coder(model, lambda acts: acts))


def test_the_sweep_is_printed_as_a_table(tmp_path: Path):
    run = {
        "hook_point": HOOK,
        "n_features": 4096,
        "k": 32,
        "steps": 300,
        "variance_explained": 0.7512,
        "dead_latents": 0.0123,
    }
    (tmp_path / SWEEP).write_text(json.dumps([run]))
    assert f"| `{HOOK}` | 4,096 | 32 | 300 | 0.751 | 0.012 |" in printed("w", {}, [run])


def test_a_persona_is_measured_beside_its_controls_once_and_printed_as_a_row(model, world: Path, tmp_path: Path):
    from explorer.directions import random_direction
    from explorer.generate import Steering
    from explorer.presets import Preset
    from explorer.records import Edit
    from tests.test_dosing import StubPanel

    class Panel(StubPanel):
        fluency = SimpleNamespace(fitted=FIT, by_kind={"looped": 0.99})

        def judge_of(self, trait):
            return SimpleNamespace(fitted=FIT)

    push = random_direction(2.0, model.d_model, HOOK, 3, "push")
    some = coder(model, lambda acts: acts)
    steering = Steering(some, {}, directions={"push": push})  # type: ignore[arg-type]
    persona = Preset("cruel", "Cruel", "", (Edit(direction="push"),), bundled=True, measured={"judge": "insults"})
    panel = Panel()

    def run() -> dict:
        return report(
            world, model, some, personas=[persona], steering=steering, panel=panel, prompts=("Hello",), answers=20,  # type: ignore[arg-type]
        )  # fmt: skip

    figures = run()
    names = {"base_insults", "cruel_insults", "cruel_fluent", "random_directions_insults", "cruel_undo_insults"}
    assert names | {"fluency_judge_auroc", "malice_judge_auroc", "pirate_judge_auroc"} <= figures.keys()
    assert "looped 0.990" in figures["fluency_judge_auroc"].meaning
    assert figures["random_directions_insults"].n == "20 answers to open questions, 20 directions pooled"
    assert figures["cruel_fluent"].value == 1.0
    assert "| cruel | insults |" in (world / PRINTED).read_text()
    asked = len(panel.asked)
    assert run() == figures
    assert len(panel.asked) == asked
    again = replace(persona, edits=(Edit(strength=2.0, direction="push"),))
    before = set(json.loads((world / REPORT).read_text())["cells"])
    report(world, model, some, personas=[again], steering=steering, panel=panel, prompts=("Hello",), answers=20)  # type: ignore[arg-type]
    after = set(json.loads((world / REPORT).read_text())["cells"])
    assert len(after) == len(before)  # what nobody asks for any more is not kept
    assert after != before


def test_a_preset_that_does_nothing_is_said_to_read_or_neither(model, world: Path):
    """One that cannot move the answers: whether it reads is asked of the trait's own sentences."""
    from explorer.generate import Steering
    from explorer.presets import Preset
    from explorer.records import Edit
    from explorer.report import _Reads
    from tests.helpers_sae import tiny_sae_folder

    sae = SparseCoder.load(tiny_sae_folder(world / "sae"))
    named: Any = {"d": SimpleNamespace(facts={"auroc": 0.9})}
    steering = Steering(sae, dict.fromkeys(range(sae.n_features), 1.0), directions=named)
    reads = _Reads(model, sae)
    one = Preset("a", "A", "", (Edit(3),), measured={"judge": "malice"})
    both = replace(one, edits=(Edit(3), Edit(5)))
    values = [reads.of(replace(one, edits=(Edit(f),)), steering) for f in (3, 5)]
    assert reads.of(both, steering) == max(values)
    assert 0 <= min(values) <= max(values) <= 1
    assert reads.of(replace(one, edits=(Edit(direction="d"),)), steering) == 0.9
    assert reads.of(replace(one, edits=(Edit(direction="d"),), measured={"judge": "nobody"}), steering) == 0.9


def test_whether_a_target_is_met_is_printed(tmp_path: Path):
    def figure(value: float, target: str) -> Figure:
        return Figure(value, "9", None, None, None, target, "Means something.")

    assert [figure(0.5, t).met for t in ("at least 0.5", "at least 0.6", "at most 0.5", "at most 0.4", "")] == [
        True, False, True, False, None,
    ]  # fmt: skip
    text = printed("w", {"a": figure(0.5, "at least 0.6"), "b": figure(0.5, "at most 0.6")})
    assert "| `a` | 0.5000 |  | at least 0.6 | missed |" in text
    assert "| `b` | 0.5000 |  | at most 0.6 | yes |" in text
