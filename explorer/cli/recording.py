"""`persona-explorer record`: the answers of a presentation, given by the model once and replayed where there is none."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import JSON, Device, Dtype, emit_json, facts, progress
from explorer.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command()(record)


def record(
    cache: Annotated[Path, typer.Argument(help="The folder of a feature cache.")],
    script: Annotated[str, typer.Argument(help="A script's name or file; the cache's first one by default.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Let the model answer the steps of a presentation, and keep the answers with their times beside the script."""
    from explorer import scripts
    from explorer.adapters import named
    from explorer.cache import Cache

    opened = Cache.open(cache)
    known = scripts.known(opened)
    path = Path(script) if script.endswith(".toml") else known.get(script or next(iter(known), ""))
    if path is None:
        raise UsageError(
            f"There is no script {script!r}" if script else "This cache has no script",
            expected=", ".join(known) or f"a .toml file in {opened.path / scripts.FOLDER} or {scripts.own()}",
            do="Name one of these, or a .toml file",
        )
    said = scripts.load(path, opened)  # a mistake in it is told before the model is loaded

    for name in {step.model for step in said.steps if step.model and step.kind == "steer"}:
        named(opened.path, name)

    from explorer.live import attach
    from explorer.recording import record as give

    with progress("loading the model") as tick:
        tick("loading the model", None)
        live = attach(opened, device=device, dtype=dtype)
        where = give(live.model, live.coder, opened, said, progress=tick)
    answers = scripts.recordings(said, opened)
    if as_json:
        emit_json({"script": str(path), "recordings": str(where), "answers": len(answers)})
        return
    longest = max((answer.times[-1] for answer in answers.values() if answer.times), default=0.0)
    facts(said.title, [("answers", len(answers)), ("longest", f"{longest:.1f} s"), ("written to", where)])
