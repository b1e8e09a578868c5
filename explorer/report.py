"""The figures that the README and the app quote, each with what it was computed from and the command that computes it again.

`report.json` holds one entry a figure and is written after each, so a report that was cut off goes on; REPORT.md is printed from it.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.corpus import read
from explorer.dosing import Rate
from explorer.errors import CacheError
from explorer.exams import EXAMS, outside_exams, present
from explorer.fidelity import Figure, Target, fidelity
from explorer.files import write_whole
from explorer.judging import Panel
from explorer.lab_report import audit_figures, diff_figures, lab_figures
from explorer.measuring import RANDOM, Bench, Comparison
from explorer.model import LanguageModel
from explorer.personas import contrasts, verdict
from explorer.presets import PERSONAS, RATES, REPORT, Preset
from explorer.promoted import PROMOTED_FIGURES, promoted_figures
from explorer.sae import SparseCoder
from explorer.traits import Fit, traits

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.generate import Steering

_PARTS = ("cells", PERSONAS, "examined")
"""Parts of report.json beside its figures: counts by what they depend on, how presets did, and which judges sat the outside exams."""
PRINTED, HELD_OUT, SWEEP = "REPORT.md", "heldout.parquet", "sweep.json"
WORDS = {"malice": "malicious", "sarcasm": "sarcastic", "toxicity": "toxic", "joy": "joyful"}
"""Judge -> what its answers are called in the figures' names; others are called as their judge is."""
TARGETS: dict[str, Target] = {
    "variance_explained": Target(0.85),
    "loss_recovered": Target(0.95),
    "dead_latents": Target(0.01, most=True),
    "judge_auroc": Target(0.95),
    "base": Target(0.06, most=True),
    "steered": Target(0.75),
    "coherent": Target(0.8),
    "random": Target(0.08, most=True),
}
"""What is meant to be reached on the world's own text: by the SAE, by each judge, and by each persona: seldom by itself, mostly when it is
pushed, in whole text, and not because of any push. The undoing of a persona is held against its own base."""
MET: dict[bool | None, str] = {True: "met", False: "missed", None: ""}
"""How a figure's target stands."""
_ANSWERS = Path(".work") / "answers"  # of the last runs, in the world's folder: another judge counts them anew
ANSWERED = 120
"""Answers a cell: every open question five times."""


def report(
    folder: Path,
    model: LanguageModel,
    coder: SparseCoder,
    *,
    outside: Path | None = None,
    exams: Path | None = None,
    personas: Sequence[Preset] = (),
    steering: "Steering | None" = None,
    panel: Panel | None = None,
    cache: "Cache | None" = None,
    prompts: Sequence[str] = (),
    answers: int = ANSWERED,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Figure]:
    """Compute the figures that are missing and print the report.

    Args:
        folder: The world: its held-out documents, and where the report goes.
        outside: A corpus that the model did not write; its figures end in `_outside`, and its text goes nowhere.
        exams: A folder with labelled text that nobody here wrote, which the judges are tried on.
        personas: Presets that name a judge: each is measured beside its controls.
        steering: Needed where there are personas.
        panel: The judges; needed where there are personas or exams, and not asked where there are neither.
        cache: The world's, whose promoted tokens are held against what zeroing takes away; None leaves that out.
        prompts: What they are asked; the open questions by default.
        answers: Of each cell.
    Returns:
        All figures.
    Raises:
        CacheError: If the world ships no held-out documents.
        CorpusError: If an exam is missing, or not what it should be.
    """
    held_out = folder / HELD_OUT
    if not held_out.exists():
        raise CacheError(
            f"There is no {held_out}", expected="the held-out documents", do="Make the world with persona-explorer make"
        )
    if exams:
        present(exams)
    key = {"model": model.fingerprint, "sae": coder.fingerprint}
    known = _part(folder, "of") == key
    figures, parts = (
        (load(folder), {name: _part(folder, name) for name in _PARTS}) if known else ({}, {n: {} for n in _PARTS})
    )
    cells, spoken, examined = (parts[name] for name in _PARTS)
    fresh, used = {name for name in figures if name.removesuffix("_outside") in TARGETS}, set[str]()

    def write() -> None:
        _write(folder, {"of": key, **parts}, figures)

    def add(found: Mapping[str, Figure]) -> None:
        figures.update(found)
        fresh.update(found)
        write()

    figures |= {name: figures[name].aimed(target) for name, target in TARGETS.items() if name in figures}
    corpora = [("", read(held_out, model))] + (
        [("_outside", map(model.begun, read(outside, model)))] if outside else []
    )
    for suffix, documents in corpora:
        if suffix == "" and f"loss_recovered{suffix}" in figures:
            continue
        for name, figure in fidelity(model, coder, list(documents), suffix, progress).items():
            add({name + suffix: figure if suffix else figure.aimed(TARGETS[name])})
            progress(f"{name}{suffix} {figure.value:.4f}")
    if cache:
        if not figures.keys() >= set(PROMOTED_FIGURES):
            add(promoted_figures(cache, model, coder, progress=progress))
        fresh.update(PROMOTED_FIGURES)
    if personas or exams:
        assert panel is not None
        add(_judges(panel))
        judged = {name: panel.identity((exam.judge,)) for name, exam in EXAMS.items()}
        if exams:
            add(outside_exams(panel, exams, progress))
            examined.update(judged)
        fresh |= {name for name in judged if examined.get(name) == judged[name]}
    if personas:
        assert steering is not None
        assert panel is not None
        reads = _Reads(model, coder)
        word = WORDS["malice"]
        add(lab_figures(folder, word) | diff_figures(folder, word))
        add(audit_figures(folder, model, steering, "malice", progress=progress))
        for persona in personas:
            bench = Bench(
                model, replace(steering, positions=persona.positions), panel, persona.judge, prompts=prompts, kept=cells,
                keep=lambda *_: write(), texts=folder / _ANSWERS,
                progress=lambda what, done, total, name=persona.name: progress(f"{name}: {what} {done / max(1, total):.0%}"),
            )  # fmt: skip
            first = next(p for p in personas if p.judge == persona.judge) is persona
            found = bench.compare(persona.edits, answers)
            used |= bench.used
            spoken[persona.name] = {
                "edits": persona.spelled, "judge": persona.judge, "n": found.steered.n,
                "verdict": "causes" if found.causes else verdict(found, reads.of(persona, steering)),
                **{name: [rate.value, *rate.interval] for name, rate in found.rates.items()},
            }  # fmt: skip
            add(_persona(persona, found, first))
    # what nobody measures any more: presets that are gone or not what they were, and judges that would judge otherwise
    for part, lasting in ((figures, fresh), (cells, used), (spoken, {p.name for p in personas}), (examined, fresh)):
        for name in part.keys() - lasting:
            del part[name]
    write()
    return figures


class _Reads:
    """How well features and directions tell a trait's sentences apart; each trait is read once, and only if somebody asks."""

    def __init__(self, model: LanguageModel, coder: SparseCoder) -> None:
        self.model, self.coder = model, coder
        self.known: dict[str, dict[int, float]] = {}

    def of(self, persona: Preset, steering: "Steering") -> float:
        """The best AUROC of what a preset steers."""
        known, named = traits(), [e.direction for e in persona.edits if e.direction]
        values = [float(steering.directions[name].facts.get("auroc") or 0.5) for name in named]
        features = [e.feature for e in persona.edits if not e.direction]
        if features and persona.judge in known:
            if persona.judge not in self.known:
                density = np.zeros(self.coder.n_features)
                ranked = contrasts(self.model, self.coder, known[persona.judge], density)
                self.known[persona.judge] = {c.feature: c.auroc for c in ranked}
            values += [self.known[persona.judge][feature] for feature in features]
        return max(values, default=0.5)


def _judges(panel: Panel) -> dict[str, Figure]:
    """How well the bundled judges, and the fluency judge, tell apart texts that they were not fitted on."""
    bundled = {name: trait for name, trait in traits().items() if trait.bundled}
    fits: dict[str, Fit] = {name: panel.judge_of(trait).fitted for name, trait in bundled.items()}
    fits["fluency"] = panel.fluency.fitted
    kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in panel.fluency.by_kind.items())
    more = {"fluency": f" By kind of damage: {kinds}."}
    return {
        f"{name}_judge_auroc": Figure(
            fit.auroc, f"{sum(fit.confusion)} held-out texts", fit.auroc_low, fit.auroc_high, 0.5, "",
            f"How well the {name} judge tells apart held-out texts; at .5 it says {fit.confusion[3]} right yes, "
            f"{fit.confusion[2]} missed, {fit.confusion[1]} wrong yes, {fit.confusion[0]} right no.{more.get(name, '')}",
        ).aimed(TARGETS["judge_auroc"])
        for name, fit in fits.items()
    }  # fmt: skip


def _persona(persona: Preset, found: Comparison, first: bool) -> dict[str, Figure]:
    """A preset's cells. The base, and the random directions of the first preset of a judge, have names of their own."""
    word, base = WORDS.get(persona.judge, persona.judge), found.base.rate.value
    name, pooled = persona.name, f"random_directions_{word}" if first else f"random_directions_{persona.name}_{word}"
    kind = f"answers that the {persona.judge} judge puts above its threshold"
    of = "answers to open questions"

    def figure(rate: Rate, target: Target, meaning: str, control: float | None = None, more: str = "") -> Figure:
        return Figure(rate.value, f"{rate.n} {of}{more}", *rate.interval, control, "", meaning).aimed(target)

    made = (
        {f"base_{word}": figure(found.base.rate, TARGETS["base"], f"Share of {kind}, as the model is.")}
        if first
        else {}
    )
    pushed = f"with preset {name}"
    return made | {
        f"{name}_{word}": figure(
            found.steered.rate, TARGETS["steered"],
            f"Share of {kind}, {pushed}; control: random directions of its length.", found.random.rate.value,
        ),
        f"{name}_fluent": figure(
            found.steered.coherent, TARGETS["coherent"],
            f"Share of answers {pushed} that are coherent; control: the model as it is.", found.base.coherent.value,
        ),
        pooled: figure(
            found.random.rate, TARGETS["random"],
            f"Share of {kind}, with random directions as long as preset {name}; control: the model as it is.",
            base, f", {RANDOM} directions pooled",
        ),
        f"{name}_undo_{word}": figure(
            found.flipped.rate, Target(base, most=True, what="the base"),
            f"Share of {kind}, {pushed} at the other sign; control: the model as it is.", base,
        ),
    }  # fmt: skip


def load(folder: Path) -> dict[str, Figure]:
    """The figures of a world; none where there is no report."""
    path = folder / REPORT
    if not path.exists():
        return {}
    return {name: Figure(**entry) for name, entry in json.loads(path.read_text(encoding="utf-8"))["figures"].items()}


def _part(folder: Path, name: str) -> dict[str, Any]:
    """One part of report.json; empty where there is none.

    Its cells are counts that were measured for figures, so that none is measured twice; a preset that changed has other keys.
    """
    path = folder / REPORT
    return json.loads(path.read_text(encoding="utf-8")).get(name, {}) if path.exists() else {}


def _write(folder: Path, parts: Mapping[str, Mapping[str, Any]], figures: dict[str, Figure]) -> None:
    said = {**parts, "figures": {name: asdict(figure) for name, figure in figures.items()}}
    for name, text in (
        (REPORT, json.dumps(said, indent=1) + "\n"),
        (PRINTED, printed(folder.resolve().name, figures, _sweep(folder), parts[PERSONAS])),
    ):
        write_whole(folder / name, text)


def _sweep(folder: Path) -> list[dict[str, Any]]:
    path = folder / SWEEP
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def printed(
    name: str, figures: dict[str, Figure], sweep: Iterable[dict[str, Any]] = (), spoken: Mapping[str, Any] | None = None
) -> str:
    """The report as Markdown."""
    lines = [f"# Report: {name}", "", "Printed from report.json; every figure is computed again by its command.", ""]
    lines += ["| Figure | Value | 95 % interval | Target | Met | From | Meaning |", "|---|---|---|---|---|---|---|"]
    for key, f in figures.items():
        interval = "" if f.low is None or f.high is None else f"{f.low:.4f} to {f.high:.4f}"
        lines.append(f"| `{key}` | {f.value:.4f} | {interval} | {f.target} | {MET[f.met]} | {f.n} | {f.meaning} |")
    lines += _personas_printed(spoken or {})
    runs = list(sweep)
    if runs:
        lines += [
            "",
            "## Layer, width and k",
            "",
            "Short trainings on the same corpus, compared on held-out tokens.",
            "",
        ]
        lines += [
            "| Hook point | Latents | k | Steps | Variance explained | Dead latents |",
            "|---|---|---|---|---|---|",
        ]
        for r in runs:
            lines.append(
                f"| `{r['hook_point']}` | {r['n_features']:,} | {r['k']} | {r['steps']:,} "
                f"| {r['variance_explained']:.3f} | {r['dead_latents']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _personas_printed(spoken: Mapping[str, Any]) -> list[str]:
    """A table of personas beside their controls."""
    lines = []
    for name, persona in spoken.items():
        rates = [f"{value:.2f} ({low:.2f} to {high:.2f})" for value, low, high in (persona[key] for key in RATES)]
        word = WORDS.get(persona["judge"], persona["judge"])
        lines.append(f"| {name} | {word} | {persona['n']} | {' | '.join(rates)} | {persona['verdict']} |")
    head = [
        "",
        "## Personas",
        "",
        f"Shares with 95 % intervals. Random: {RANDOM} directions of the same length, pooled.",
        "",
        "| Persona | Answers | n | Base | Steered | Random | Other sign | Coherent | Verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return [*head, *lines] if lines else []
