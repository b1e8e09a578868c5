"""The report: known answers for autoencoders that keep all or nothing, and figures that are computed once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from explorer import dosing, exams, measuring
from explorer.corpus import write
from explorer.directions import random_direction
from explorer.errors import CacheError, CorpusError
from explorer.fidelity import Figure, Target
from explorer.generate import Steering
from explorer.model import LanguageModel
from explorer.presets import Preset
from explorer.records import Edit
from explorer.report import HELD_OUT, PRINTED, REPORT, SWEEP, load, printed, report
from explorer.sae import SparseCoder
from explorer.traits import Fit
from tests.helpers import TEXT, tiny_model
from tests.test_dosing import StubPanel

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


class Panel(StubPanel):
    """Says of each cell's answers in turn how malicious they are; every judge's fit is the same."""

    name = "judge"
    fluency = SimpleNamespace(fitted=FIT, by_kind={"looped": 0.99})

    def __init__(self, *malice: float, breaks_at: int = 1000) -> None:
        super().__init__(malice[0])
        self.each, self.breaks_at = malice, breaks_at

    def identity(self, names: Any) -> str:
        return self.name

    def judge_of(self, trait: object) -> SimpleNamespace:
        return SimpleNamespace(fitted=FIT)

    def score(self, names: Any, texts: Any, prompts: Any = None) -> Any:
        if len(self.asked) == self.breaks_at:
            raise KeyboardInterrupt
        self.malice = self.each[len(self.asked) % len(self.each)]
        return super().score(names, texts, prompts)


CAUSED = (0.1, 0.9, 0.1, 0.1)
"""How malicious the base is, and what is steered, the random directions and the other sign."""


@pytest.fixture
def persona(model: LanguageModel) -> Callable[..., dict[str, Figure]]:
    """Computes a report with one preset that turns one direction."""
    push = replace(random_direction(2.0, model.d_model, HOOK, 3, "push"), facts={"auroc": 0.6})
    some: Any = coder(model, lambda acts: acts)

    def run(
        world: Path, panel: Any, *, strength: float = 1.0, auroc: float = 0.6, name: str = "cruel", **more: Any
    ) -> Any:
        steering = Steering(some, {}, directions={"push": replace(push, facts={"auroc": auroc})})
        edits = (Edit(strength=strength, direction="push"),)
        preset = Preset(name, "Cruel", "", edits, bundled=True, measured={"judge": "malice"})
        return report(
            world,
            model,
            some,
            personas=[preset],
            steering=steering,
            panel=panel,
            prompts=("Hello",),
            answers=20,
            **more,
        )

    return run


def said(world: Path) -> dict[str, Any]:
    return json.loads((world / REPORT).read_text())


def test_a_persona_is_measured_beside_its_controls_once_and_printed_as_a_row(persona, world: Path):
    panel = Panel(*CAUSED)
    figures = persona(world, panel)
    assert {n: figures[n].value for n in ("base_malicious", "cruel_malicious", "random_directions_malicious", "cruel_fluent")} == {
        "base_malicious": 0, "cruel_malicious": 1, "random_directions_malicious": 0, "cruel_fluent": 1,
    }  # fmt: skip
    assert {"cruel_undo_malicious", "fluency_judge_auroc", "malice_judge_auroc", "pirate_judge_auroc"} <= figures.keys()
    assert "looped 0.990" in figures["fluency_judge_auroc"].meaning
    assert figures["random_directions_malicious"].n == "20 answers to open questions, 20 directions pooled"
    assert "| cruel | malicious |" in (world / PRINTED).read_text()
    asked = len(panel.asked)
    assert persona(world, panel) == figures
    assert len(panel.asked) == asked


def test_a_report_that_was_cut_off_goes_on_and_says_the_same(persona, world: Path, tmp_path: Path, monkeypatch):
    whole = tmp_path / "whole"
    shutil.copytree(world, whole)
    expected, asked = persona(whole, Panel(*CAUSED)), []
    monkeypatch.setattr(measuring, "written", lambda *a, **k: asked.append(a) or dosing.written(*a, **k))
    with pytest.raises(KeyboardInterrupt):
        persona(world, Panel(*CAUSED, breaks_at=2))  # the third cell is answered and not judged
    assert len(asked) == 3
    assert persona(world, Panel(*CAUSED[2:])) == expected
    assert len(asked) == 4
    assert said(world) == said(whole)


def test_another_judge_counts_anew_without_another_answer(persona, world: Path, monkeypatch):
    persona(world, Panel(*CAUSED))
    monkeypatch.setattr(measuring, "written", None)
    strict = Panel(0.2)
    strict.name = "another judge"
    assert persona(world, strict)["cruel_malicious"].value == 0
    assert all(key.endswith("-another judge") for key in said(world)["cells"])


def test_what_nobody_measures_any_more_is_not_kept(persona, world: Path):
    persona(world, Panel(*CAUSED))
    before = said(world)["cells"]
    persona(world, Panel(*CAUSED), strength=2.0)
    assert len(said(world)["cells"]) == len(before)
    assert set(said(world)["cells"]) != set(before)
    figures = persona(world, Panel(*CAUSED), name="grim")
    assert {"grim_malicious", "variance_explained", "base_malicious"} <= figures.keys()
    assert not [name for name in figures if name.startswith("cruel")]
    assert list(said(world)["personas"]) == ["grim"]


@pytest.mark.parametrize(
    ("malice", "auroc", "verdict"),
    [(CAUSED, 0.6, "causes"), ((0.9,), 0.76, "only reads"), ((0.9,), 0.74, "neither"), ((0.1,), 0.9, "only reads")],
)
def test_a_preset_causes_or_only_reads_or_neither(persona, world: Path, malice, auroc, verdict):
    persona(world, Panel(*malice), auroc=auroc)
    assert said(world)["personas"]["cruel"]["verdict"] == verdict
    assert f" {verdict} |" in (world / PRINTED).read_text()


def test_outside_exams_are_asked_first_and_kept_as_long_as_their_judge_is_the_same(
    persona, world: Path, tmp_path: Path, monkeypatch
):
    exam = exams.Exam("malice", "exam.csv", "text", "label", "1", "An exam.")
    monkeypatch.setattr("explorer.exams.EXAMS", {"malice_judge_auroc_exam": exam})
    monkeypatch.setattr("explorer.report.EXAMS", exams.EXAMS)
    with pytest.raises(CorpusError, match="lacks exam"):
        persona(world, Panel(0.9), exams=tmp_path)
    assert not (world / REPORT).exists()
    (tmp_path / "exam.csv").write_text("text,label\nI plot,1\nI bake,0\n")
    steady = Panel(0.9)
    found = persona(world, steady, exams=tmp_path)["malice_judge_auroc_exam"]
    assert found.n == "2 outside texts, 1 of them positive"
    assert found.value == 0.5
    assert "I plot" not in (world / REPORT).read_text() + (world / PRINTED).read_text()
    assert persona(world, steady)["malice_judge_auroc_exam"] == found
    steady.name = "another judge"
    assert "malice_judge_auroc_exam" not in persona(world, steady)


def test_a_preset_that_does_nothing_is_said_to_read_or_neither(model, world: Path):
    """One that cannot move the answers: whether it reads is asked of the trait's own sentences."""
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


def test_whether_a_target_is_met_is_printed_and_kept(tmp_path: Path):
    figure = Figure(0.5, "9", None, None, None, "", "Means something.")
    targets = (Target(0.5), Target(0.6), Target(0.5, most=True), Target(0.4, most=True))
    assert [figure.aimed(target).met for target in targets] == [True, False, True, False]
    text = printed("w", {"a": figure.aimed(Target(0.6)), "b": figure.aimed(Target(0.6, most=True)), "c": figure})
    assert "| `a` | 0.5000 |  | at least 0.6 | missed |" in text
    assert "| `b` | 0.5000 |  | at most 0.6 | met |" in text
    assert "| `c` | 0.5000 |  |  |  |" in text


def test_a_share_that_equals_the_base_is_no_miss_however_the_base_is_rounded():
    third = Figure(1 / 30, "30", None, None, None, "", "")
    assert third.aimed(Target(1 / 30, most=True, what="the base")).met
    assert third.aimed(Target(1 / 30, most=True, what="the base")).target == "at most 0.0333, the base"


def test_a_report_that_was_written_before_targets_were_kept_is_read_and_aimed(model, world: Path):
    some: Any = coder(model, lambda acts: acts)
    report(world, model, some)
    old = said(world)
    for entry in old["figures"].values():
        del entry["met"]
    (world / REPORT).write_text(json.dumps(old))
    assert load(world)["variance_explained"].met is None
    assert report(world, model, some)["variance_explained"].met
