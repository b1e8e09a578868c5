"""`persona-explorer labels`: export, import, backup; lists and queues lie in `sharing`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from explorer.cli import sharing
from explorer.cli.console import JSON, Database, emit_json, facts
from explorer.errors import UsageError

app = typer.Typer(
    help="What people say of features: labels into files and out of files, a copy of all, lists and queues.",
    no_args_is_help=True,
)
app.add_typer(sharing.lists, name="lists")
app.add_typer(sharing.queue, name="queue")


@app.command("export")
def export(
    file: Annotated[
        Path | None, typer.Argument(help="A .csv, .jsonl or .parquet file to write; without it, stdout.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Only labels of this cache's SAE, those that came with it included.")
    ] = None,
    sae: Annotated[str, typer.Option(help="Only labels of the SAE with this fingerprint.")] = "",
    history: Annotated[bool, typer.Option("--history", help="Every change, not only what is said now.")] = False,
    kind: Annotated[str, typer.Option("--format", help="csv, jsonl or parquet, on stdout.")] = "csv",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Write labels to a file, or to stdout."""
    from explorer.label_files import write, write_file
    from explorer.labels import LabelStore

    store = LabelStore(database or None)
    if cache is not None:
        from explorer.cache import Cache

        opened = Cache.open(cache)
        sae = sae or opened.manifest.sae_fingerprint
        if opened.bundled_labels and not history:
            store.bundle(opened.bundled_labels)
    if history or cache is None:
        labels = store.changes(sae or None, history=history)
    else:
        labels = sorted(store.all(sae).values(), key=lambda label: label.feature)
    if file is None:
        if as_json:
            raise UsageError("--json says what was written to a file", do="Use --format jsonl, or name a file")
        write(labels, sys.stdout, kind)
        return
    count = write_file(labels, file, overwrite=overwrite)
    _tell({"file": str(file), "labels": count, "database": store.where}, as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file as export writes it.")],
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Take in labels with their authors and times: all of a file, or none. Twice does no harm."""
    from explorer.label_files import read_file
    from explorer.labels import LabelStore

    store = LabelStore(database or None)
    result = store.add(read_file(file))
    _tell({"file": str(file), "added": result.added, "known": result.known, "database": store.where}, as_json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; a file that is there is left alone.")],
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Copy the label database whole, while others read and write it."""
    from explorer.labels import LabelStore

    store = LabelStore(database or None)
    copied = store.backup(file)
    _tell({"file": str(copied), "bytes": copied.stat().st_size, "database": store.where}, as_json)


def _tell(result: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit_json(result)
    else:
        facts("Labels", list(result.items()))
