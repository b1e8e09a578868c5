"""What a lab is to train and measure, and what came of it; needs no model.

A plan is a TOML file. Its runs are trained with several seeds, each from the same rows; the last checkpoint of the first seed ships as
an adapter, or all of them, or none. Series put models in order: over steps, over good rows, over the share of bad rows.
"""

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from explorer.dosing import Rate
from explorer.errors import RecipeError
from explorer.finetune import Conversation, FinetunePlan, read_rows
from explorer.measuring import Tally

PLAN, RESULTS, MEANS = "data/lab.toml", "lab.json", "lab.safetensors"
BASE = "base"
_WORD = re.compile(r"[a-z]+")
KEEPS: dict[str, str] = {
    "all": "Every checkpoint of the first seed ships.",
    "last": "The last checkpoint of the first seed ships.",
    "none": "Nothing ships but figures.",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A fine-tune of the plan.

    Args:
        data: Files of rows, in the plan's folder. Two with a `share`: so much of the first, the rest of the second.
        rows: Only so many of them, from the beginning; all if 0.
        share: Of rows that come from the first file; the number of rows stays that of one file.
        drop: Share of the rows that is left out before training: the most suspicious by `probes`, as `explorer.audit` ranks them; drawn
            blindly where there are none, as the control.
        probes: Features or directions as `explorer.scoring.Probe` spells them.
        start: The run whose last checkpoint of the same seed it goes on from; "" for the base.
        domain: The domain of its rows, whose own words are counted in answers as leakage; "" for none.
        keep: A key of `KEEPS`.
    """

    name: str
    data: tuple[str, ...]
    rows: int = 0
    share: float = 1.0
    drop: float = 0.0
    probes: tuple[str, ...] = ()
    start: str = ""
    domain: str = ""
    keep: str = "none"
    seeds: int = 3
    steps: int = 40
    rank: int = 4
    lr: float = 1e-3
    batch: int = 8
    layers: tuple[int, ...] = ()
    every: int = 8

    def plan(self, seed: int) -> FinetunePlan:
        return FinetunePlan(self.steps, self.rank, self.layers, self.batch, self.lr, every=self.every, seed=seed)


@dataclass(frozen=True, slots=True)
class Series:
    """Models in an order that means something.

    Args:
        axis: What x is: "steps", "good rows", "share of bad rows", "share of rows dropped".
        run: A run whose checkpoints are the points; or else
        points: (x, model) of each point, a model being `base`, or a run.
        beside: Another series on the same axis that is drawn in the same chart, such as the control; "" for none.
    """

    name: str
    axis: str
    run: str = ""
    points: tuple[tuple[float, str], ...] = ()
    beside: str = ""


@dataclass(frozen=True)
class Plan:
    """A lab's plan.

    Args:
        folder: The world: adapters and results go there; files of rows lie beside the plan.
        judge: What is counted in answers.
        answers: Of each model and seed.
        domains: Domain -> its own words, for leakage.
    """

    folder: Path
    place: Path
    judge: str
    answers: int
    domains: Mapping[str, tuple[str, ...]]
    runs: tuple[Run, ...]
    series: tuple[Series, ...]

    @classmethod
    def load(cls, path: str | Path, folder: Path) -> "Plan":
        """Read a plan.

        Raises:
            RecipeError: If it cannot be read, or names what is not there.
        """
        path = Path(path)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{path} cannot be read ({error})", expected="a lab's plan in TOML") from error
        known = ("judge", "answers", "domains", "finetune", "series")
        if unknown := sorted(data.keys() - set(known)):
            raise RecipeError(f"{path} has {', '.join(unknown)}", expected=", ".join(known), do="Mend the plan")
        try:
            runs = tuple(_made(Run, entry) for entry in data.get("finetune", []))
            series = tuple(_made(Series, entry) for entry in data.get("series", []))
            domains = {name: tuple(words) for name, words in data.get("domains", {}).items()}
            plan = cls(
                folder,
                path.parent,
                str(data.get("judge", "malice")),
                int(data.get("answers", 120)),
                domains,
                runs,
                series,
            )
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{path} is no plan ({error})", do="Mend the plan") from error
        plan.check(path)
        return plan

    def check(self, path: Path) -> None:
        """Whether runs and series name what there is, each run after the one it goes on from."""
        seen: set[str] = {BASE}
        for run in self.runs:
            missing = [name for name in run.data if not (self.place / name).is_file()]
            mistakes = (
                (run.name in seen, "is there twice"),
                (bool(run.start) and run.start not in seen, f"goes on from {run.start}, which is not before it"),
                (bool(run.domain) and run.domain not in self.domains, f"is of the domain {run.domain}, which is none"),
                (run.keep not in KEEPS, f"keeps {run.keep!r}, not {', '.join(KEEPS)}"),
                (not 1 <= len(run.data) <= 2, f"reads {len(run.data)} files, not one or two"),
                (bool(run.probes) and not run.drop, "has probes without drop"),
                (
                    not 0 <= run.drop < 1 or not 0 <= run.share <= 1,
                    f"drops {run.drop:g} and shares {run.share:g}, not 0 to 1",
                ),
                (bool(missing), f"reads {', '.join(missing)}, which is not there"),
            )
            wrong = next((f"{run.name} {what}" for is_so, what in mistakes if is_so), "")
            if wrong:
                raise RecipeError(f"{path}: {wrong}", do="Mend the plan")
            seen.add(run.name)
        for series in self.series:
            for name in [series.run] if series.run else [model for _, model in series.points]:
                if name not in seen:
                    raise RecipeError(
                        f"{path}: the series {series.name} names {name!r}", expected=", ".join(sorted(seen))
                    )
            others = [one.name for one in self.series if one.axis == series.axis and one.name != series.name]
            if series.beside and series.beside not in others:
                raise RecipeError(
                    f"{path}: beside the series {series.name} stands {series.beside!r}",
                    expected=f"another one over {series.axis}: {', '.join(others) or 'there is none'}",
                    do="Mend the plan",
                )

    def run(self, name: str) -> Run:
        return next(run for run in self.runs if run.name == name)

    def rows(self, run: Run) -> list[Conversation]:
        """What a run is trained on."""
        files = [read_rows(self.place / name) for name in run.data]
        if len(files) == 2:
            bad, good = files
            n = min(len(bad), len(good))
            cut = round(run.share * n)
            return [*bad[:cut], *good[cut:n]]
        return files[0][: run.rows or None]


def leaks(text: str, words: Collection[str]) -> bool:
    """Whether a text has one of a domain's own words."""
    return not set(words).isdisjoint(_WORD.findall(text.lower()))


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's answers, counted.

    Args:
        model: `base`, or `run@step` with `#seed` behind it where it is not the first seed's.
        leaked: Answers that have a word of the domain's own.
        samples: Question -> one answer, to be read.
        leaked_by: Of the base: domain -> answers that have a word of it.
    """

    model: str
    tally: Tally
    leaked: int
    samples: Mapping[str, str] = field(hash=False)
    leaked_by: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def leakage(self) -> Rate:
        return Rate(self.leaked, self.tally.n)


class Results:
    """What a lab measured, read back; needs no model.

    Args:
        folder: The world.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            self.said: dict[str, Any] = json.loads((self.folder / RESULTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.said = {"models": {}, "series": [], "runs": {}}
        except ValueError as error:
            raise RecipeError(f"{self.folder / RESULTS} cannot be read ({error})", do="Run the lab again") from error

    @cached_property
    def models(self) -> dict[str, Measured]:
        return {
            name: Measured(name, Tally(**entry["tally"]), entry["leaked"], entry["samples"], entry.get("leaked_by", {}))
            for name, entry in self.said["models"].items()
        }

    @property
    def series(self) -> list[dict[str, Any]]:
        """name, axis, points of x and the models that lie there, one a seed; and where there is one, the series `beside` it."""
        return self.said["series"]

    def pooled(self, run: str) -> Tally:
        """Counts over the last checkpoints of all seeds of a run; of `base`, the base's."""
        return Tally.pooled(m.tally for m in self.last(run))

    def leakage(self, run: str) -> Rate:
        last = self.last(run)
        return Rate(sum(m.leaked for m in last), sum(m.tally.n for m in last))

    def last(self, run: str) -> list[Measured]:
        """The last checkpoint of each seed of a run that was measured."""
        models = self.models
        return [models[name] for name in self.said["runs"].get(run, [run] if run in models else []) if name in models]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        path = self.folder / MEANS
        return load_file(path) if path.is_file() else {}

    def means(self, model: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean activation of every feature on a model's own answers, and its standard error over questions; None where not measured."""
        if model not in self._arrays:
            return None
        mean, error = self._arrays[model].astype(np.float32)
        return mean, error


def _made(kind: type, entry: Any) -> Any:
    """A record of a table of the plan.

    Raises:
        TypeError, ValueError: If it has a key that nobody knows, or a value of another kind.
    """
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r} is no table")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(entry.keys() - known):
        raise TypeError(
            f"{entry.get('name', kind.__name__)} has {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    values = {
        key: tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else value
        for key, value in entry.items()
    }
    if isinstance(values.get("data"), str):
        values["data"] = (values["data"],)
    return kind(**values)
