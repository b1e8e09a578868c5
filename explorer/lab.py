"""A lab: fine-tunes trained and measured by a plan, every step resumable; what the figures and the scrubbers are drawn from.

Every model answers the open questions, a judge counts, and the mean activation of every feature on its own answers is kept.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.adapters import FACTS, Adapter, adapted, checkpoint
from explorer.adapters import FOLDER as ADAPTERS
from explorer.dosing import Ask, judged, written
from explorer.errors import RecipeError
from explorer.experiments import BASE, MEANS, RESULTS, Plan, Results, Run, leaks
from explorer.files import write_whole
from explorer.finetune import Conversation, finetune, hash_rows
from explorer.measuring import ANSWERS, Tally, counted, questions
from explorer.offensive import redacted

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.judging import Panel
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

_SAMPLED = 12  # questions of which one answer a model is kept, to be read beside the curves
_VERSION = 1


def run(
    plan: Plan,
    base: "LanguageModel",
    steering: "Steering",
    panel: "Panel",
    work: Path,
    *,
    seeds: int = 0,
    prompts: Sequence[str] = (),
    progress: Callable[..., None] = lambda *_: None,
) -> Results:
    """Train and measure what is missing.

    Args:
        steering: The SAE that reads the models, and its maxima, by which rows are audited.
        work: For adapters that do not ship, and answers.
        seeds: At most so many of each run, to have a first look; all if 0.
        prompts: The open questions by default.
    """
    asked = tuple(prompts) or questions()
    assert steering.coder is not None
    survey = _Survey(plan, steering.coder, panel, work, asked, progress)
    survey.measure(BASE, lambda: base, plan.domains, base.fingerprint)
    runs = _Runs(plan, base, steering, work, seeds, progress)
    lasts: dict[str, list[str]] = {}
    stepped = {series.run for series in plan.series if series.run}
    for one in plan.runs:
        domain = {one.domain: plan.domains[one.domain]} if one.domain else {}
        for seed in range(runs.seeds(one)):
            steps = runs.steps(one, seed)
            names = {step: f"{one.name}@{step}" + (f"#{seed}" if seed else "") for step in steps}
            if runs.ships(one, seed):
                runs.made(one, seed)
            for at, step in enumerate(steps):
                if step == steps[-1] or (one.name in stepped and not seed):
                    survey.measure(
                        names[step], lambda at=at, seed=seed, one=one: adapted(base, runs.made(one, seed)[at]), domain,
                        f"{runs.stamp(one, seed)}@{step}",
                    )  # fmt: skip
            lasts.setdefault(one.name, []).append(names[steps[-1]])
            survey.write(lasts, _drawn(plan, lasts, survey), whole=False)
    survey.write(lasts, _drawn(plan, lasts, survey))
    return Results(plan.folder)


def kept_rows(
    rows: Sequence[Conversation], one: Run, base: "LanguageModel", steering: "Steering"
) -> Sequence[Conversation]:
    """What is left of a run's rows after its audit, in their order; without probes, after a draw that looks at none of them."""
    if not one.drop:
        return rows
    n = round(one.drop * len(rows))
    if not one.probes:
        dropped = set(np.random.default_rng(0).permutation(len(rows))[:n].tolist())
        return [row for at, row in enumerate(rows) if at not in dropped]
    from explorer.audit import audit
    from explorer.scoring import Probe, Scorer

    found = audit(Scorer(base, steering, [Probe.of(name) for name in one.probes]), rows)
    dropped = set(found.order[:n].tolist())
    return [row for at, row in enumerate(rows) if at not in dropped]


class _Survey:
    """Measures models, each once, and writes the results down after each.

    What the results that are there say of a model that was made, asked and judged in the same way is taken over: who changes one run of a
    plan waits for that run.
    """

    def __init__(
        self,
        plan: Plan,
        coder: "SparseCoder",
        panel: "Panel",
        work: Path,
        asked: Sequence[str],
        progress: Callable[..., None],
    ) -> None:
        self.plan, self.coder, self.panel = plan, coder, panel
        self.work, self.asked, self.progress = work, asked, progress
        self.before: dict[str, dict[str, Any]] = {}
        self.arrays_before: dict[str, np.ndarray] = {}
        with suppress(RecipeError):  # results that cannot be read are measured anew
            before = Results(plan.folder)
            self.before = dict(before.said["models"])
            self.arrays_before = {
                name: np.stack(means).astype(np.float16) for name in self.before if (means := before.means(name))
            }
        self.measured: dict[str, dict[str, Any]] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def measure(
        self, name: str, model: "Callable[[], LanguageModel]", domains: Mapping[str, Sequence[str]], mark: str
    ) -> None:
        """Let a model answer, count, read; from the disk where its answers are there.

        Args:
            domains: Domain -> its own words: of the model's rows, or all of them for the base.
            mark: What it was made from.
        """
        key = _hash([_VERSION, mark, list(self.asked), self.plan.answers, self.coder.fingerprint])
        counted_by = _hash([key, _judge_mark(self.plan.judge), {name: list(words) for name, words in domains.items()}])
        if self.before.get(name, {}).get("key") == counted_by and name in self.arrays_before:
            self.measured[name], self.arrays[name] = self.before[name], self.arrays_before[name]
            return
        path = self.work / "measured" / f"{name.replace('/', '_')}-{key}.npz"
        if not path.exists():
            self._ask(name, model(), path)
        with np.load(path, allow_pickle=False) as kept:
            said, arrays = json.loads(str(kept["said"])), np.stack([kept["mean"], kept["error"]])
        self.arrays[name] = arrays.astype(np.float16)
        self.measured[name] = {**self._counted(name, said, domains), "key": counted_by}
        self.progress(f"{name}: {Tally(**self.measured[name]['tally']).rate.value:.0%} {self.plan.judge}")

    def _ask(self, name: str, live: "LanguageModel", path: Path) -> None:
        from explorer.diffing import by_question, read

        each = -(-self.plan.answers // len(self.asked))
        wanted = [Ask((), question, at) for question in self.asked for at in range(each)]
        texts = written(
            live, None, wanted, sampling=ANSWERS,
            progress=lambda what, done, total: self.progress(f"{name}: {what}", done, total),
        )  # fmt: skip
        said = [{"question": a.question, "text": t, "looped": cut} for a, (t, cut) in zip(wanted, texts, strict=True)]
        reading = read(live, self.coder, [(entry["question"], entry["text"]) for entry in said])
        _, by = by_question(reading, "answer")
        there = by[~np.isnan(by).any(1)]
        error = there.std(0, ddof=1) / np.sqrt(len(there)) if len(there) > 1 else np.zeros(self.coder.n_features)
        _save(path, {"said": np.array(json.dumps(said)), "mean": there.mean(0), "error": error})

    def _counted(
        self, name: str, said: Sequence[Mapping[str, Any]], domains: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        from explorer.judging import judges

        asked = [Ask((), entry["question"]) for entry in said]
        cells = judged(
            asked, [(entry["text"], bool(entry["looped"])) for entry in said], self.panel, (self.plan.judge,)
        )
        leaked = {domain: sum(leaks(entry["text"], words) for entry in said) for domain, words in domains.items()}
        samples: dict[str, str] = {}
        for entry in said:
            if len(samples) < _SAMPLED:
                samples.setdefault(entry["question"], redacted(entry["text"]))
        counts = {
            "tally": asdict(counted(cells, self.plan.judge, judges()[self.plan.judge].threshold)),
            "samples": samples,
        }
        if name == BASE:  # its rows are of no domain: what it says of each is what fine-tunes are compared with
            return {**counts, "leaked": 0, "leaked_by": leaked}
        return {**counts, "leaked": sum(leaked.values())}

    def write(
        self, lasts: Mapping[str, Sequence[str]], series: Sequence[Mapping[str, Any]], *, whole: bool = True
    ) -> None:
        """Write down what is measured.

        Args:
            whole: Whether all of it is; else what the results said before of models that were not met yet stays.
        """
        from safetensors.numpy import save

        facts = {
            "version": _VERSION,
            "judge": self.plan.judge,
            "answers": self.plan.answers,
            "sae_fingerprint": self.coder.fingerprint,
        }
        models = self.measured if whole else self.before | self.measured
        arrays = self.arrays if whole else self.arrays_before | self.arrays
        said = facts | {"runs": dict(lasts), "series": list(series), "models": models}
        write_whole(self.plan.folder / MEANS, save(arrays))
        write_whole(self.plan.folder / RESULTS, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


class _Runs:
    """The fine-tunes of a plan: each is trained when somebody first needs it, and taken from the disk where it is that of this plan.

    Args:
        seeds: At most so many of each run; all if 0.
    """

    def __init__(
        self,
        plan: Plan,
        base: "LanguageModel",
        steering: "Steering",
        work: Path,
        seeds: int,
        progress: Callable[..., None],
    ) -> None:
        self.plan, self.base, self.steering, self.work, self.progress = plan, base, steering, work, progress
        self._seeds = seeds
        self._rows: dict[str, Sequence[Conversation]] = {}
        self._made: dict[tuple[str, int], list[Adapter]] = {}

    def seeds(self, one: Run) -> int:
        return min(one.seeds, self._seeds or one.seeds)

    def ships(self, one: Run, seed: int) -> bool:
        return seed == 0 and one.keep != "none"

    def steps(self, one: Run, seed: int) -> list[int]:
        """The checkpoints that are kept."""
        kept = list(one.plan(seed).kept)
        return kept if not self.ships(one, seed) or one.keep == "all" else kept[-1:]

    def rows(self, one: Run) -> Sequence[Conversation]:
        if one.name not in self._rows:
            self._rows[one.name] = kept_rows(self.plan.rows(one), one, self.base, self.steering)
        return self._rows[one.name]

    def start(self, one: Run, seed: int) -> tuple[Run, int] | None:
        """The run, and its seed, that a run goes on from."""
        if not one.start:
            return None
        first = self.plan.run(one.start)
        return first, min(seed, self.seeds(first) - 1)

    def stamp(self, one: Run, seed: int) -> str:
        """What a run is made from: it changes when a training would."""
        start = self.start(one, seed)
        wanted = {
            "base_fingerprint": self.base.fingerprint,
            "plan": asdict(one.plan(seed)),
            "rows": hash_rows(self.rows(one)),
            "from": self.stamp(*start) if start else "",
        }
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()

    def made(self, one: Run, seed: int) -> list[Adapter]:
        """A run's checkpoints that are kept, with one seed."""
        if (one.name, seed) not in self._made:
            self._made[one.name, seed] = self._trained(one, seed)
        return self._made[one.name, seed]

    def _trained(self, one: Run, seed: int) -> list[Adapter]:
        ships, stamp, kept = self.ships(one, seed), self.stamp(one, seed), self.steps(one, seed)
        out = (self.plan.folder / ADAPTERS if ships else self.work / f"seed-{seed}") / one.name
        folders = [checkpoint(out, step) for step in kept]
        if not (all(f.is_dir() for f in folders) and _stamped(out) == stamp):
            start = self.start(one, seed)
            finetune(
                self.base, self.rows(one), out, one.plan(seed), start=self.made(*start)[-1] if start else None,
                data=", ".join(one.data),
                progress=lambda step, steps, loss: self.progress(f"{one.name}, seed {seed}: loss {loss:.2f}", step, steps),
            )  # fmt: skip
            for step in set(one.plan(seed).kept) - set(kept):
                _remove(checkpoint(out, step))
            facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
            write_whole(out / FACTS, json.dumps({**facts, "stamp": stamp}, indent=1) + "\n")
        return [Adapter.at(folder) for folder in folders]


def _drawn(plan: Plan, lasts: Mapping[str, Sequence[str]], survey: _Survey) -> list[dict[str, Any]]:
    """The series as far as their models are measured."""
    drawn = []
    for series in plan.series:
        if series.run:
            first = plan.run(series.run)
            points = [(0.0, [BASE]), *((float(step), [f"{first.name}@{step}"]) for step in first.plan(0).kept)]
        else:
            points = [(x, list(lasts.get(name, [name]))) for x, name in series.points]
        there = [
            {"x": x, "models": here} for x, names in points if (here := [n for n in names if n in survey.measured])
        ]
        beside = {"beside": series.beside} if series.beside else {}
        drawn.append({"name": series.name, "axis": series.axis, "points": there} | beside)
    return drawn


def _judge_mark(judge: str) -> str:
    """What changes when a judge would count differently: the sentences that it and the judge of fluency are fitted on."""
    from explorer.fluency import sample
    from explorer.traits import traits

    return _hash([judge, repr(traits().get(judge)), repr(sample())])


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _stamped(out: Path) -> str:
    try:
        return str(json.loads((out / FACTS).read_text(encoding="utf-8")).get("stamp", ""))
    except (OSError, ValueError):
        return ""


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    import io

    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    write_whole(path, file.getvalue())
