"""A lab: fine-tunes trained and measured by a plan, every step resumable; what the figures and the scrubbers are drawn from.

Every model answers the open questions, a judge counts, and the mean activation of every feature on its own answers is kept.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.adapters import FACTS, Adapter, adapted, checkpoint
from explorer.adapters import FOLDER as ADAPTERS
from explorer.dosing import Ask, judged, written
from explorer.experiments import BASE, MEANS, RESULTS, Plan, Results, Run
from explorer.files import write_whole
from explorer.finetune import Conversation, finetune, hash_rows
from explorer.measuring import ANSWERS, Tally, counted, questions

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.judging import Panel
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

_SAMPLED = 12  # questions of which one answer a model is kept, to be read beside the curves
_VERSION = 1
_WORD = re.compile(r"[a-z]+")


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
    bench = _Survey(plan, steering.coder, panel, work, asked, progress)
    bench.measure(BASE, lambda: base, (), base.fingerprint)
    trained: dict[tuple[str, int], Adapter] = {}
    lasts: dict[str, list[str]] = {}
    stepped = {series.run for series in plan.series if series.run}
    for one in plan.runs:
        for seed in range(min(one.seeds, seeds or one.seeds)):
            start = trained[one.start, min(seed, len(lasts[one.start]) - 1)] if one.start else None
            made = _trained(
                plan, one, seed, base, start, kept_rows(plan.rows(one), one, base, steering), work, progress
            )
            trained[one.name, seed] = made[-1]
            words = plan.domains.get(one.domain, ())
            for adapter in made if one.name in stepped and seed == 0 else made[-1:]:
                name = f"{adapter.name}#{seed}" if seed else adapter.name
                bench.measure(name, lambda adapter=adapter: adapted(base, adapter), words, _mark(adapter))
            lasts.setdefault(one.name, []).append(f"{made[-1].name}#{seed}" if seed else made[-1].name)
            bench.write(lasts, _drawn(plan, lasts, bench))
    bench.write(lasts, _drawn(plan, lasts, bench))
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
    """Measures models, each once, and writes the results down after each."""

    def __init__(
        self,
        plan: Plan,
        coder: "SparseCoder",
        panel: "Panel",
        work: Path,
        asked: Sequence[str],
        progress: Callable[..., None],
    ) -> None:
        self.plan, self.coder, self.panel, self.work, self.asked, self.progress = (
            plan,
            coder,
            panel,
            work,
            asked,
            progress,
        )
        self.measured: dict[str, dict[str, Any]] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def measure(self, name: str, model: "Callable[[], LanguageModel]", words: Sequence[str], mark: str) -> None:
        """Let a model answer, count, read; from the disk where its answers are there.

        Args:
            mark: What tells this model from another of that name.
        """
        from explorer.diffing import by_question, read

        key = hashlib.sha256(
            json.dumps([_VERSION, mark, self.asked, self.plan.answers, self.coder.fingerprint]).encode()
        ).hexdigest()[:16]
        path = self.work / "measured" / f"{name.replace('/', '_')}-{key}.npz"
        if not path.exists():
            live = model()
            each = -(-self.plan.answers // len(self.asked))
            wanted = [Ask((), question, at) for question in self.asked for at in range(each)]
            texts = written(
                live, None, wanted, sampling=ANSWERS,
                progress=lambda what, done, total: self.progress(f"{name}: {what}", done, total),
            )  # fmt: skip
            said = [
                {"question": a.question, "text": t, "looped": cut} for a, (t, cut) in zip(wanted, texts, strict=True)
            ]
            reading = read(live, self.coder, [(entry["question"], entry["text"]) for entry in said])
            _, by = by_question(reading, "answer")
            there = by[~np.isnan(by).any(1)]
            error = there.std(0, ddof=1) / np.sqrt(len(there)) if len(there) > 1 else np.zeros(self.coder.n_features)
            _save(path, {"said": np.array(json.dumps(said)), "mean": there.mean(0), "error": error})
        with np.load(path, allow_pickle=False) as kept:
            said, arrays = json.loads(str(kept["said"])), np.stack([kept["mean"], kept["error"]])
        self.arrays[name] = arrays.astype(np.float16)
        self.measured[name] = self._counted(said, words)
        self.progress(f"{name}: {Tally(**self.measured[name]['tally']).rate.value:.0%} {self.plan.judge}")

    def _counted(self, said: Sequence[Mapping[str, Any]], words: Sequence[str]) -> dict[str, Any]:
        """Judged anew each time: that takes seconds, and a judge may have changed."""
        from explorer.judging import judges

        asked = [Ask((), entry["question"]) for entry in said]
        cells = judged(
            asked, [(entry["text"], bool(entry["looped"])) for entry in said], self.panel, (self.plan.judge,)
        )
        own = set(words)
        samples: dict[str, str] = {}
        for entry in said:
            if len(samples) < _SAMPLED:
                samples.setdefault(entry["question"], entry["text"])
        return {
            "tally": asdict(counted(cells, self.plan.judge, judges()[self.plan.judge].threshold)),
            "leaked": sum(bool(own & set(_WORD.findall(entry["text"].lower()))) for entry in said),
            "samples": samples,
        }

    def write(self, lasts: Mapping[str, Sequence[str]], series: Sequence[Mapping[str, Any]]) -> None:
        from safetensors.numpy import save

        facts = {
            "version": _VERSION,
            "judge": self.plan.judge,
            "answers": self.plan.answers,
            "sae_fingerprint": self.coder.fingerprint,
        }
        said = facts | {"runs": dict(lasts), "series": list(series), "models": self.measured}
        write_whole(self.plan.folder / MEANS, save(self.arrays))
        write_whole(self.plan.folder / RESULTS, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def _trained(
    plan: Plan,
    one: Run,
    seed: int,
    base: "LanguageModel",
    start: Adapter | None,
    rows: Sequence[Conversation],
    work: Path,
    progress: Callable[..., None],
) -> list[Adapter]:
    """A run's checkpoints with one seed, from the disk where they are those of this plan."""
    ships = seed == 0 and one.keep != "none"
    out = (plan.folder / ADAPTERS if ships else work / f"seed-{seed}") / one.name
    wanted = {
        "base_fingerprint": base.fingerprint,
        "plan": asdict(one.plan(seed)),
        "rows": hash_rows(rows),
        "from": _mark(start) if start else "",
    }
    stamp = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    place = work / "stamps" / f"{one.name}-{seed}.txt"
    kept = one.plan(seed).kept if not ships or one.keep == "all" else one.plan(seed).kept[-1:]
    folders = [checkpoint(out, step) for step in kept]
    if not (place.exists() and place.read_text() == stamp and all(f.is_dir() for f in folders)):
        shipped = ships and all(f.is_dir() for f in folders) and _stamped(out) == stamp
        if not shipped:
            finetune(
                base, rows, out, one.plan(seed), start=start, data=", ".join(one.data),
                progress=lambda step, steps, loss: progress(f"{one.name}, seed {seed}: loss {loss:.2f}", step, steps),
            )  # fmt: skip
            facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
            write_whole(out / FACTS, json.dumps({**facts, "stamp": stamp}, indent=1) + "\n")
            for step in set(one.plan(seed).kept) - set(kept):
                _remove(checkpoint(out, step))
        write_whole(place, stamp)
    return [Adapter.at(folder) for folder in folders]


def _drawn(plan: Plan, lasts: Mapping[str, Sequence[str]], bench: _Survey) -> list[dict[str, Any]]:
    """The series as far as their models are measured."""
    drawn = []
    for series in plan.series:
        if series.run:
            first = plan.run(series.run)
            points = [(0.0, [BASE]), *((float(step), [f"{first.name}@{step}"]) for step in first.plan(0).kept)]
        else:
            points = [(x, list(lasts.get(name, [name]))) for x, name in series.points]
        there = [{"x": x, "models": here} for x, names in points if (here := [n for n in names if n in bench.measured])]
        drawn.append({"name": series.name, "axis": series.axis, "points": there})
    return drawn


def _mark(adapter: Adapter) -> str:
    """What tells an adapter from another of its name: its weights."""
    from explorer.adapters import WEIGHTS

    return hashlib.sha256((adapter.folder / WEIGHTS).read_bytes()).hexdigest()


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
