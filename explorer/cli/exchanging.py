"""Commands that carry features to other programs and back: export, import. Neither needs the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli.console import JSON, emit_json, facts, progress
from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.directions import Direction
    from explorer.label_files import Label

Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def register(app: typer.Typer) -> None:
    app.command("export")(export)
    app.command("import")(import_)


def export(
    cache: Annotated[Path, typer.Argument(help="The folder of a feature cache.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or the folder to write.")],
    kind: Annotated[str, typer.Option("--format", "-f", help="neuronpedia, saedashboard, safetensors, gguf or html.")],
    features: Annotated[str, typer.Option("--features", "--feature", help="Numbers of features: 12,40,7.")] = "",
    listed: Annotated[str, typer.Option("--list", help="The features of the list of this name.")] = "",
    query: Annotated[str, typer.Option("--query", help="The features that a search for these words finds.")] = "",
    direction: Annotated[str, typer.Option("--direction", help="A direction of the cache, by name.")] = "",
    force: Force = False,
    as_json: JSON = False,
) -> None:
    """Write features (all, or some) or a direction in another program's format. Labels go along."""
    from explorer.cache import Cache
    from explorer.interchange import Order, format_named
    from explorer.interchange import export as write
    from explorer.scores import Scores

    kind_ = format_named(kind)
    opened = Cache.open(cache)
    labels, named = _labels(opened), _directions(opened, direction)
    wanted = _features(opened, features, listed, query, labels, every=not direction and not kind_.vectors)
    order = Order(wanted, named, labels, Scores().all(opened.manifest.sae_fingerprint), listed or query)
    with progress("Exporting") as tick:
        written = write(opened, kind, order, out, force=force, progress=tick)
    result = {
        "format": kind, "where": str(out), "files": len(written), "bytes": sum(p.stat().st_size for p in written),
        "features": len(wanted), "directions": len(named),
    }  # fmt: skip
    _tell("Exported", result, as_json)


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of SAEDashboard or Neuronpedia, or vectors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The cache to make; for vectors, the cache they belong to.")],
    force: Force = False,
    as_json: JSON = False,
) -> None:
    """Make a browsable cache of SAEDashboard's or Neuronpedia's files, or keep vectors (.safetensors, .gguf) as directions of a cache."""
    from dataclasses import asdict

    from explorer.interchange import import_files

    with progress("Importing") as tick:
        found = import_files(files, out, force=force, progress=tick)
    account = asdict(found.account) if found.account else {}
    result = {"from": found.program, "where": str(found.where), **account}
    if found.directions:
        result["directions"] = list(found.directions)
    _tell("Imported", result, as_json)


def _labels(cache: "Cache") -> "dict[int, Label]":
    from explorer.labels import LabelStore

    return LabelStore.over(cache).all(cache.manifest.sae_fingerprint)


def _directions(cache: "Cache", name: str) -> "list[Direction]":
    from explorer.directions import known

    if not name:
        return []
    there = known(cache)
    if name.removeprefix("~") not in there:
        raise UsageError(
            f"{cache.name} has no direction {name!r}",
            expected=", ".join(there) or "a direction",
            do="Name one of these",
        )
    return [there[name.removeprefix("~")]]


def _features(
    cache: "Cache", numbers: str, listed: str, query: str, labels: "dict[int, Label]", *, every: bool
) -> list[int]:
    """The features that are meant, each once; all of them where nothing is said and `every` allows it."""
    from explorer.interchange import spoken_of
    from explorer.search import search

    if sum(map(bool, (numbers, listed, query))) > 1:
        raise UsageError("--features, --list and --query say different things", do="Use one of them")
    if numbers:
        parts = [part.strip() for part in numbers.split(",") if part.strip()]
        if wrong := [part for part in parts if not part.isdecimal() or len(part) > 9]:
            raise UsageError(
                f"{wrong[0]!r} is no feature", expected="numbers with commas between", do="For example 12,40"
            )
        return list(dict.fromkeys(map(int, parts)))
    if listed:
        from explorer.lists import Lists

        return list(Lists().named(cache.manifest.sae_fingerprint, listed).features)
    if query:
        texts = {index: label.label for index, label in labels.items()}
        found = search(cache, query=query, sort="match", labels=texts, limit=cache.n_features).rows
        if not found:
            raise UsageError(f"No feature matches {query!r}", do="Search for other words")
        return [row.index for row in found]
    return spoken_of(cache) if every else []


def _tell(title: str, result: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit_json(result)
        return
    facts(title, [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in result.items()])
