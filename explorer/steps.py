"""STEPS: what a recipe can have made, each with its settings, what it needs, what it leaves, and how it is done."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from explorer.cache import TABLES, Cache
from explorer.errors import RecipeError
from explorer.schema import MANIFEST

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.live import Live
    from explorer.recipe import World
    from explorer.training import ActivationStore, TrainingPlan

Tick = Callable[..., None]
CORPUS = "corpus.jsonl"
"""In the folder of what is not kept."""


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
class Map:
    """Lay the features out in two dimensions by their decoder directions."""

    seed: int = 0


@dataclass(frozen=True, slots=True)
class Index:
    """Make what features are found with by meaning, with the sentence embedder."""


@dataclass(frozen=True, slots=True)
class Negatives:
    """Find spans on which features are silent, for testing labels."""

    sample: int = 2_000
    near: int = 4
    chance: int = 8
    seed: int = 0


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
    also: str = ""  # a preset whose features are tested too


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


def _run_sample(world: "World", tick: Tick) -> None:
    from explorer.corpus import read, write
    from explorer.report import HELD_OUT
    from explorer.sampling import Prompts, SamplingPlan, sample

    own: Sample = world.settings["sample"]
    plan = SamplingPlan(own.tokens, own.seed, own.batch, own.max_tokens, own.temperature, own.top_p)
    corpus = sample(world.live, Prompts.load(world.prompts), world.work / CORPUS, plan, progress=tick)
    documents = list(read(corpus, world.live))
    if len(documents) <= own.held_out:
        raise RecipeError(
            f"The corpus has {len(documents):,} documents, of which [sample] held_out sets {own.held_out:,} aside",
            expected="documents left to train on",
            do="Sample more tokens or set fewer aside",
        )
    write(documents[len(documents) - own.held_out :], world.folder / HELD_OUT)


def _collect(world: "World", hook: str, tick: Tick, documents: int | None = None) -> "ActivationStore":
    from explorer.training import collect

    folder = world.work / f"activations-{hook}{f'-{documents}' if documents else ''}"
    chosen = islice(world.documents(), documents)
    return collect(world.live, chosen, hook, folder, context_size=world.context_size, progress=tick)


def _run_sweep(world: "World", tick: Tick) -> None:
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
        sweep(
            [store], plans, held_out, world.work / "sweep", world.folder / SWEEP, device=str(world.live.device),
            progress=tick,
        )  # fmt: skip


def _run_train(world: "World", tick: Tick) -> None:
    from explorer.training import TrainingPlan, train

    own: TrainSae = world.settings["train-sae"]
    store = _collect(world, own.hook, tick)
    plan = TrainingPlan(own.n_features, own.k, own.steps, own.batch, own.lr, seed=own.seed)
    facts = {"model_name": world.live.name, "corpus": "sampled from the model"}
    out = world.folder / "sae"
    train(
        store, plan, out, checkpoints=world.work / "checkpoints", metadata=facts, device=str(world.live.device),
        progress=tick,
    )  # fmt: skip


def _run_build(world: "World", tick: Tick) -> None:
    from explorer.build import build
    from explorer.sae import SparseCoder

    coder = SparseCoder.load(world.folder / "sae", device=str(world.live.device))
    build(
        world.live, coder, world.documents(), world.folder, corpus="sampled from the model",
        context_size=world.context_size, work=world.work / "build", command=f"persona-explorer make {world.name}",
        progress=tick,
    )  # fmt: skip


def _run_map(world: "World", tick: Tick) -> None:
    from explorer.mapping import make as lay_out

    lay_out(Cache.open(world.folder), seed=world.settings["map"].seed)


def _run_index(world: "World", tick: Tick) -> None:
    from explorer.embedding import Embedder
    from explorer.meaning import make as index

    index(Cache.open(world.folder), Embedder.load(), tick)


def _run_negatives(world: "World", tick: Tick) -> None:
    from explorer.silence import find

    own: Negatives = world.settings["negatives"]
    cache, live = _live(world)
    find(
        cache, live, sample=own.sample, near=own.near, chance=own.chance, seed=own.seed, progress=tick,
    )  # fmt: skip


def _run_lab(world: "World", tick: Tick) -> None:
    from explorer.judging import Panel
    from explorer.lab import run

    _, live = _live(world)
    run(world.lab(), live.model, live.steering, Panel(live.model), world.folder / ".work" / "lab", progress=tick)


def _run_compare(world: "World", tick: Tick) -> None:
    from explorer.adapters import known
    from explorer.comparing import FOLDER, Side, compare
    from explorer.judging import Panel
    from explorer.live import other
    from explorer.presets import named

    own: Compare = world.settings["compare"]
    cache, live = _live(world)
    tuned, control = (Side(other(live.model, name, cache), name) if name else None for name in (own.tuned, own.control))
    if tuned is None:
        raise RecipeError(
            "[compare] names no tuned model", expected=", ".join(known(world.folder)) or "an adapter of the lab"
        )
    out = world.folder / FOLDER / own.tuned.partition("@")[0]
    compare(
        Side(live.model, world.model), tuned, live.steering, Panel(live.model), out, control=control, judge=own.judge,
        answers=own.answers, tested=own.tested, also=named(cache, own.also).features if own.also else (), progress=tick,
    )  # fmt: skip


def _live(world: "World") -> tuple[Cache, "Live"]:
    """The world's cache, and its model and SAE."""
    from explorer.live import attach

    cache = Cache.open(world.folder)
    return cache, attach(cache, model=world.model, device=world.device, dtype=world.dtype)


def _run_report(world: "World", tick: Tick) -> None:
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
    cache, live = _live(world)
    personas = [preset for preset in load(cache) if preset.bundled and preset.judge]
    report(
        world.folder,
        live.model,
        live.coder,
        personas=personas,
        steering=live.steering,
        panel=Panel(live.model),
        cache=cache,
        progress=tick,
    )


STEPS: dict[str, Step] = {
    "sample": Step(Sample, (), ("heldout.parquet",), _run_sample),
    "train-sae": Step(TrainSae, ("sample",), ("sae/*",), _run_train),
    "build": Step(Build, ("sample", "train-sae"), (*TABLES, MANIFEST), _run_build),
    "map": Step(Map, ("build",), ("map.parquet",), _run_map),
    "index": Step(Index, ("build",), ("meanings.safetensors",), _run_index),
    "negatives": Step(Negatives, ("build",), ("negatives.parquet",), _run_negatives),
    "sweep": Step(Sweep, ("sample",), ("sweep.json",), _run_sweep),
    "lab": Step(Lab, ("build",), ("lab.json", "lab.safetensors", "adapters/*/*.json", "adapters/*/*/*"), _run_lab),
    "compare": Step(Compare, ("lab",), ("diffs/*/*",), _run_compare),
    "report": Step(Report, ("train-sae",), ("report.json", "REPORT.md"), _run_report),
}
"""The steps by name, in the order in which they run."""
