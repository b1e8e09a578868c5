"""`persona-explorer personas`: which features or directions make a model speak in a persona, measured beside controls."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import JSON, Device, Dtype, emit_json, progress, table
from explorer.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command()(personas)


def personas(
    cache: Annotated[Path, typer.Argument(help="The folder of a feature cache.")],
    trait: Annotated[
        list[str] | None, typer.Option("--trait", "-t", help="A trait that a judge knows; all of them by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A presets.toml to write.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Features that are steered, of those that read best.")] = 24,
    answers: Annotated[int, typer.Option(min=1, help="Of each cell of the measurement.")] = 120,
    work: Annotated[
        Path | None, typer.Option(help="Where measured cells are kept; .work/personas in CACHE by default.")
    ] = None,
    seed: int = 0,
    model: Annotated[str, typer.Option("--model", "-m", help="Instead of the model that the cache names.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Find what makes the model speak in a persona, and measure it beside controls. Goes on where it was cut off."""
    from explorer.cache import Cache
    from explorer.directions import save
    from explorer.files import write_whole
    from explorer.traits import traits

    opened, known = Cache.open(cache), traits()
    if unknown := [name for name in trait or [] if name not in known]:
        raise UsageError(f"There is no trait {unknown[0]!r}", expected=", ".join(known), do="Name one of these")

    from explorer.judging import Panel
    from explorer.live import attach
    from explorer.measuring import Bench, keep_in, questions, read_kept
    from explorer.personas import as_preset, find
    from explorer.presets import as_toml

    file = (work or cache / ".work" / "personas") / "cells.jsonl"
    with progress("personas") as tick:
        tick("loading the model", None)
        live = attach(opened, model=model, device=device, dtype=dtype)
        there, panel = live.steering.directions, Panel(live.model)
        kept, found = read_kept(file), []
        for name in trait or known:
            bench = Bench(
                live.model,
                live.steering,
                panel,
                name,
                kept=kept,
                keep=keep_in(file),
                texts=file.with_name("answers"),
                progress=tick,
            )
            one = find(bench, opened, known[name], candidates=candidates, answers=answers, seed=seed, progress=tick)
            if one.direction and name not in there:
                save(opened, one.direction)
            found.append(one)
    if out:
        about = "Found by persona-explorer personas: features by contrast, then by what they do to answers, beside controls."
        write_whole(out, as_toml([as_preset(one, questions()[0]) for one in found], about))
    rows = [
        {
            "trait": p.trait,
            "edits": " ".join(f"{e.target}:{e.strength:.3g}:{e.mode}" for e in p.edits),
            "base": p.found.base.rate.value,
            "steered": p.found.steered.rate.value,
            "random": p.found.random.rate.value,
            "flipped": p.found.flipped.rate.value,
            "coherent": p.found.steered.coherent.value,
            "reads": p.reads,
            "verdict": p.verdict,
        }
        for p in found
    ]
    if as_json:
        emit_json(rows)
    elif rows:
        shown = [[f"{v:.2f}" if isinstance(v, float) else v for v in row.values()] for row in rows]
        table(opened.name, list(rows[0]), shown, right=("base", "steered", "random", "flipped", "coherent", "reads"))
