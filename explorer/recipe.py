"""Recipes: a world made by public steps, each run only when what it depends on has changed.

A recipe is a TOML file: `model`, `context_size`, and one table a step, whose keys are the arguments of that step. Beside it lies
stamps.json, which says with what each step was run last; it is kept with the world, so a copy of a finished world has nothing to do.
Corpus, activations and checkpoints lie in .work and are not kept: they are made again only when a step that needs them is run.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.cache import TABLES, Cache, file_entry
from explorer.errors import RecipeError
from explorer.files import write_whole
from explorer.schema import MANIFEST

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.experiments import Plan
    from explorer.live import Live
    from explorer.model import LanguageModel
    from explorer.records import Document
    from explorer.training import ActivationStore, TrainingPlan

Tick = Callable[..., None]
STAMPS = "stamps.json"
_CORPUS = "corpus.jsonl"


@dataclass(frozen=True, slots=True)
class Sample:
    """Let the model write the corpus, and set its last documents aside for the report."""

    prompts: str = "data/prompts.toml"
    tokens: int = 1_500_000
    held_out: int = 2_000
    seed: int = 0
    batch: int = 192
    max_tokens: int = 160
    temperature: float = 0.9
    top_p: float = 0.97


@dataclass(frozen=True, slots=True)
class Sweep:
    """Train short runs at several hook points, widths and k: one of them at a time is changed from the first."""

    hooks: tuple[str, ...] = ()
    n_features: tuple[int, ...] = (4096,)
    k: tuple[int, ...] = (32,)
    steps: int = 300
    batch: int = 2_048
    lr: float = 8e-4
    seed: int = 0
    documents: int = 4_000


@dataclass(frozen=True, slots=True)
class TrainSae:
    """Train the SAE on all documents that were not set aside."""

    hook: str = ""
    n_features: int = 4096
    k: int = 32
    steps: int = 2_000
    batch: int = 2_048
    lr: float = 8e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Build:
    """Build the feature cache from the documents that the SAE was trained on."""


@dataclass(frozen=True, slots=True)
class Lab:
    """Train and measure the fine-tunes of a plan."""

    plan: str = "data/lab.toml"


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare the model with one of the lab's fine-tunes: what moved, what causes it, what undoes it."""

    tuned: str = ""
    control: str = ""
    judge: str = "malice"
    answers: int = 120
    tested: int = 24


@dataclass(frozen=True, slots=True)
class Report:
    """Compute the figures on the documents that were set aside."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a recipe.

    Args:
        settings: The dataclass of its table.
        needs: Steps whose settings it depends on.
        keeps: Files, in the world's folder, that it leaves there for good.
        run: What it does.
    """

    settings: type
    needs: tuple[str, ...]
    keeps: tuple[str, ...]
    run: Callable[["World", Tick], None]


@dataclass(frozen=True)
class World:
    """A recipe read from its file, and the folder that it fills.

    Args:
        folder: Where the recipe lies.
        name: Of the file, for messages and the manifest.
        model: A packaged model, a hub name, or a folder.
        context_size: Longest window, in tokens.
        settings: Step -> its settings, in the order of `STEPS`; a step without a table is not part of the recipe.
        device, dtype: Where and how the model runs; not part of what steps depend on.
    """

    folder: Path
    name: str
    model: str
    context_size: int
    settings: Mapping[str, Any]
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", dtype: str = "auto") -> "World":
        """Read a recipe.

        Raises:
            RecipeError: If it cannot be read, or has a step or a key that nobody knows.
        """
        path = Path(path)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{path} cannot be read ({error})", expected="a recipe in TOML") from error
        known = ("model", "context_size", *STEPS)
        if unknown := sorted(data.keys() - set(known)):
            raise RecipeError(f"{path} has {', '.join(unknown)}", expected=", ".join(known), do="Mend the recipe")
        if not isinstance(data.get("model"), str):
            raise RecipeError(f"{path} names no model", expected='model = "smollm2-135m-instruct"')
        settings = {name: _settings(STEPS[name].settings, name, data[name], path) for name in STEPS if name in data}
        for name in settings:
            if missing := [need for need in STEPS[name].needs if need not in settings]:
                raise RecipeError(f"{path} has [{name}]", expected=f"[{missing[0]}] too, which it needs")
        context = data.get("context_size", 256)
        return cls(path.parent, path.name, data["model"], context, settings, device, dtype)

    @cached_property
    def work(self) -> Path:
        """Where what is not kept lies: one place for each corpus, so that no two are ever mixed."""
        return self.folder / ".work" / self.key("sample")[:12]

    @cached_property
    def live(self) -> "LanguageModel":
        """The model, loaded when a step first needs it."""
        from explorer.model import LanguageModel

        return LanguageModel.load(self.model, device=self.device, dtype=self.dtype)

    def key(self, step: str) -> str:
        """Hash of all that a step depends on: its settings, the files they name, and the steps it needs."""
        own: dict[str, Any] = {"settings": asdict(self.settings[step]), "model": self.model}
        own["context_size"] = self.context_size
        if step == "sample":
            own["prompts"] = file_entry(self.prompts)["sha256"]
        if step == "lab":
            plan = self.lab()
            files = [
                self.folder / self.settings["lab"].plan,
                *(plan.place / name for run in plan.runs for name in run.data),
            ]
            own["files"] = {path.name: file_entry(path)["sha256"] for path in files}
        own["needs"] = [self.key(need) for need in STEPS[step].needs]
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    @property
    def prompts(self) -> Path:
        """The file of prompts.

        Raises:
            RecipeError: If it is not there.
        """
        path = self.folder / self.settings["sample"].prompts
        if not path.is_file():
            raise RecipeError(f"There is no {path}", expected="the file that [sample] prompts names")
        return path

    def lab(self) -> "Plan":
        """The lab's plan.

        Raises:
            RecipeError: If it is not there or wrong.
        """
        from explorer.experiments import Plan

        return Plan.load(self.folder / self.settings["lab"].plan, self.folder)

    def documents(self) -> Iterator["Document"]:
        """The corpus without what was set aside."""
        from explorer.corpus import read

        corpus = self.work / _CORPUS
        with corpus.open("rb") as lines:
            count = sum(1 for _ in lines)
        yield from read(corpus, self.live, limit=count - self.settings["sample"].held_out)


def stale(world: World) -> list[str]:
    """The steps that have to be run, in order: those that changed, and those whose leavings are missing."""
    stamps = _stamps(world)
    found = []
    for name in world.settings:
        stamp = stamps.get(name, {})
        kept = all(_same(world.folder / path, entry) for path, entry in stamp.get("files", {}).items())
        if stamp.get("key") != world.key(name) or not kept:
            found.append(name)
    if any("sample" in STEPS[name].needs for name in found) and "sample" not in found:
        found.insert(
            0, "sample"
        )  # the corpus is not kept: who needs it makes it again; a whole one is found whole in seconds
    return found


def make(world: World, *, tick: Tick = lambda *_: None) -> list[str]:
    """Run what has to be run; called again after it was cut off, it goes on from there.

    Args:
        tick: Called with the step's name and what the step tells of its progress.
    Returns:
        The steps that were run.
    Raises:
        ExplorerError: Of the step that failed.
    """
    todo = stale(world)
    for name in todo:
        tick(name)
        STEPS[name].run(world, lambda *numbers, name=name: tick(name, *numbers))
        _stamp(world, name)
    return todo


def _settings(kind: type, name: str, table: Any, path: Path) -> Any:
    known = {f.name: f for f in fields(kind)}
    if not isinstance(table, dict) or (unknown := sorted(table.keys() - known.keys())):
        raise RecipeError(
            f"[{name}] of {path} has {', '.join(unknown) if isinstance(table, dict) else table!r}",
            expected=", ".join(known) or "an empty table",
            do="Mend the recipe",
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, value in values.items():
        default = known[key].default
        right = isinstance(value, type(default)) or (isinstance(default, float) and isinstance(value, int))
        if not right or isinstance(value, bool):
            raise RecipeError(
                f"[{name}] {key} of {path} is {value!r}", expected=f"{type(default).__name__}, such as {default!r}"
            )
    return kind(**values)


def _stamps(world: World) -> dict[str, Any]:
    try:
        return json.loads((world.folder / STAMPS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # a damaged note costs a run, never a wrong world
        return {}


def _stamp(world: World, step: str) -> None:
    """Note that a step is done, and what it left."""
    kept = [p for pattern in STEPS[step].keeps for p in sorted(world.folder.glob(pattern)) if p.is_file()]
    files = {p.relative_to(world.folder).as_posix(): file_entry(p) for p in kept}
    stamps = {**_stamps(world), step: {"key": world.key(step), "files": files}}
    write_whole(world.folder / STAMPS, json.dumps(stamps, indent=1, sort_keys=True) + "\n")


def _same(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and file_entry(path) == entry


def _run_sample(world: World, tick: Tick) -> None:
    from explorer.corpus import read, write
    from explorer.report import HELD_OUT
    from explorer.sampling import Prompts, SamplingPlan, sample

    own: Sample = world.settings["sample"]
    plan = SamplingPlan(own.tokens, own.seed, own.batch, own.max_tokens, own.temperature, own.top_p)
    corpus = sample(world.live, Prompts.load(world.prompts), world.work / _CORPUS, plan, progress=tick)
    documents = list(read(corpus, world.live))
    if len(documents) <= own.held_out:
        raise RecipeError(
            f"The corpus has {len(documents):,} documents, of which [sample] held_out sets {own.held_out:,} aside",
            expected="documents left to train on",
            do="Sample more tokens or set fewer aside",
        )
    write(documents[len(documents) - own.held_out :], world.folder / HELD_OUT)


def _collect(world: World, hook: str, tick: Tick, documents: int | None = None) -> "ActivationStore":
    from explorer.training import collect

    folder = world.work / f"activations-{hook}{f'-{documents}' if documents else ''}"
    chosen = islice(world.documents(), documents)
    return collect(world.live, chosen, hook, folder, context_size=world.context_size, progress=tick)


def _run_sweep(world: World, tick: Tick) -> None:
    from explorer.corpus import read
    from explorer.report import HELD_OUT, SWEEP
    from explorer.training import TrainingPlan, collect, sweep

    own: Sweep = world.settings["sweep"]

    def held_out(store: "ActivationStore") -> Iterable["Tensor"]:
        documents = read(world.folder / HELD_OUT, world.live)
        folder = world.work / f"held-out-{store.hook_point}"
        held = collect(world.live, documents, store.hook_point, folder, context_size=world.context_size)
        return held.take(slice(None)).split(4096)

    def plan(n_features: int, k: int) -> "TrainingPlan":
        return TrainingPlan(n_features, k, own.steps, own.batch, own.lr, seed=own.seed)

    first = plan(own.n_features[0], own.k[0])
    others = [*(plan(n, own.k[0]) for n in own.n_features[1:]), *(plan(own.n_features[0], k) for k in own.k[1:])]
    for at, hook in enumerate(own.hooks):
        store = _collect(world, hook, tick, own.documents)
        plans = [first, *others] if at == 0 else [first]
        sweep([store], plans, held_out, world.work / "sweep", world.folder / SWEEP, progress=tick)


def _run_train(world: World, tick: Tick) -> None:
    from explorer.training import TrainingPlan, train

    own: TrainSae = world.settings["train-sae"]
    store = _collect(world, own.hook, tick)
    plan = TrainingPlan(own.n_features, own.k, own.steps, own.batch, own.lr, seed=own.seed)
    facts = {"model_name": world.live.name, "corpus": "sampled from the model"}
    out = world.folder / "sae"
    train(store, plan, out, checkpoints=world.work / "checkpoints", metadata=facts, progress=tick)


def _run_build(world: World, tick: Tick) -> None:
    from explorer.build import build
    from explorer.sae import SparseCoder

    coder = SparseCoder.load(world.folder / "sae", device=str(world.live.device))
    build(
        world.live, coder, world.documents(), world.folder, corpus="sampled from the model",
        context_size=world.context_size, work=world.work / "build", command=f"persona-explorer make {world.name}",
        progress=tick,
    )  # fmt: skip


def _run_lab(world: World, tick: Tick) -> None:
    from explorer.judging import Panel
    from explorer.lab import run

    live = _live(world)
    run(world.lab(), live.model, live.steering, Panel(live.model), world.folder / ".work" / "lab", progress=tick)


def _run_compare(world: World, tick: Tick) -> None:
    from explorer.adapters import known
    from explorer.comparing import FOLDER, Side, compare
    from explorer.judging import Panel
    from explorer.live import other

    own: Compare = world.settings["compare"]
    live, cache = _live(world), Cache.open(world.folder)
    tuned, control = (Side(other(live.model, name, cache), name) if name else None for name in (own.tuned, own.control))
    if tuned is None:
        raise RecipeError(
            "[compare] names no tuned model", expected=", ".join(known(world.folder)) or "an adapter of the lab"
        )
    out = world.folder / FOLDER / own.tuned.partition("@")[0]
    compare(
        Side(live.model, world.model), tuned, live.steering, Panel(live.model), out, control=control, judge=own.judge,
        answers=own.answers, tested=own.tested, progress=tick,
    )  # fmt: skip


def _live(world: World) -> "Live":
    """The world's cache with its model and SAE."""
    from explorer.live import attach

    return attach(Cache.open(world.folder), model=world.model, device=world.device, dtype=world.dtype)


def _run_report(world: World, tick: Tick) -> None:
    from explorer.judging import Panel
    from explorer.presets import load
    from explorer.report import report
    from explorer.sae import SparseCoder

    if not (world.folder / MANIFEST).exists():
        report(
            world.folder,
            world.live,
            SparseCoder.load(world.folder / "sae", device=str(world.live.device)),
            progress=tick,
        )
        return
    live = _live(world)
    personas = [preset for preset in load(Cache.open(world.folder)) if preset.bundled and preset.judge]
    report(
        world.folder,
        live.model,
        live.coder,
        personas=personas,
        steering=live.steering,
        panel=Panel(live.model),
        progress=tick,
    )


STEPS: dict[str, Step] = {
    "sample": Step(Sample, (), ("heldout.parquet",), _run_sample),
    "train-sae": Step(TrainSae, ("sample",), ("sae/*",), _run_train),
    "build": Step(Build, ("sample", "train-sae"), (*TABLES, MANIFEST), _run_build),
    "sweep": Step(Sweep, ("sample",), ("sweep.json",), _run_sweep),
    "lab": Step(Lab, ("build",), ("lab.json", "lab.safetensors", "adapters/*/*.json", "adapters/*/*/*"), _run_lab),
    "compare": Step(Compare, ("lab",), ("diffs/*/*",), _run_compare),
    "report": Step(Report, ("train-sae",), ("report.json", "REPORT.md"), _run_report),
}
"""The steps by name, in the order in which they run."""
