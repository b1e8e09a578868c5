"""Commands that look at a feature cache: info, check, search. None needs the model, and only check can use it."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import JSON, Device, emit_json, facts, table

CachePath = Annotated[Path, typer.Argument(help="The folder of a feature cache.")]


def register(app: typer.Typer) -> None:
    app.command()(info)
    app.command()(check)
    app.command()(search)


def info(cache: CachePath, as_json: JSON = False) -> None:
    """Say what a feature cache was made from, with what, and how large it is."""
    from dataclasses import asdict

    from explorer.cache import Cache

    opened = Cache.open(cache)
    manifest = asdict(opened.manifest)
    size = sum(file.stat().st_size for file in opened.path.rglob("*") if file.is_file())
    live = sum(count > 0 for count in opened.table.column("tokens_active").to_pylist())
    extra = {
        "path": str(opened.path),
        "bytes": size,
        "live_features": live,
        "bundled_labels": bool(opened.bundled_labels),
    }
    if as_json:
        emit_json({**extra, **manifest})
        return
    excluded = ", ".join(f"{count:,} {reason}" for reason, count in manifest["tokens_excluded"].items())
    facts(
        opened.name,
        [
            ("path", opened.path),
            ("size", f"{size / 1e6:.1f} MB in {len(manifest['files'])} files, format {manifest['format']}"),
            ("model", f"{manifest['model']} ({manifest['model_fingerprint'][:12]}), {manifest['dtype']}"),
            ("SAE", f"{manifest['sae']} ({manifest['sae_fingerprint'][:12]}), {manifest['architecture']}"),
            ("reads", manifest["hook_point"]),
            ("features", f"{opened.n_features:,}, of which {live:,} were active"),
            ("corpus", f"{manifest['corpus']}: {manifest['documents']:,} documents, {manifest['windows']:,} windows"),
            ("tokens", f"{manifest['tokens_seen']:,} seen, {manifest['tokens_scored']:,} scored"),
            ("left out", excluded),
            ("context", f"{manifest['context_size']} tokens; {manifest['bos']}"),
            ("made", f"{manifest['created']} by {manifest['command'] or 'the library'}"),
        ],
    )


def check(
    cache: CachePath,
    model: Annotated[str, typer.Option(help="Check that this model is the one the cache was built with.")] = "",
    sae: Annotated[str, typer.Option(help="Check that this SAE is the one the cache was built with.")] = "",
    device: Device = "auto",
    as_json: JSON = False,
) -> None:
    """Check a cache: checksums, columns, and its fit to a model and an SAE. Exits with 1 where something is wrong."""
    from dataclasses import asdict

    from explorer.check import check as look

    live = coder = None
    if model:
        from explorer.model import LanguageModel

        live = LanguageModel.load(model, device=device)
    if sae:
        from explorer.cache import Cache
        from explorer.sae import SparseCoder

        coder = SparseCoder.load(sae, hook_point=Cache.open(cache).manifest.hook_point)
    found = look(cache, model=live, coder=coder)
    if as_json:
        emit_json([asdict(finding) for finding in found])
    else:
        table(str(cache), ("", "what", "found"), [("ok" if f.ok else "WRONG", f.what, f.detail) for f in found])
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


def search(
    cache: CachePath,
    query: Annotated[
        str, typer.Argument(help="Words of labels, titles, promoted tokens or examples; a number; or nothing.")
    ] = "",
    sort: Annotated[str, typer.Option(help="The column to sort by.")] = "density",
    ascending: Annotated[bool, typer.Option("--ascending", help="Smallest first.")] = False,
    min_density: Annotated[float, typer.Option(help="Share of scored tokens, 0 to 1.", min=0, max=1)] = 0.0,
    max_density: Annotated[float, typer.Option(help="Share of scored tokens, 0 to 1.", min=0, max=1)] = 1.0,
    status: Annotated[str, typer.Option(help="all, labelled, unlabelled, dead or live.")] = "all",
    limit: Annotated[int, typer.Option(help="Rows to print.", min=1)] = 25,
    offset: Annotated[int, typer.Option(help="Rows to skip.", min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Find features by their words, labels and examples."""
    from dataclasses import asdict

    from explorer.cache import Cache
    from explorer.labels import LabelStore
    from explorer.search import search as find

    opened = Cache.open(cache)
    store = LabelStore(bundled=[opened.bundled_labels] if opened.bundled_labels else [])
    labels = {i: label.label for i, label in store.all(opened.manifest.sae_fingerprint).items()}
    found = find(
        opened,
        query=query,
        sort=sort,
        descending=not ascending,
        min_density=min_density,
        max_density=max_density,
        status=status,
        labels=labels,
        limit=limit,
        offset=offset,
    )
    if as_json:
        emit_json({"total": found.total, "rows": [asdict(row) for row in found.rows]})
        return
    rows = [
        (
            r.index,
            r.label or f"({r.title})",
            f"{r.density:.3%}",
            f"{r.max:.2f}",
            " ".join(w.strip() for w in r.promoted[:5]),
        )
        for r in found.rows
    ]
    first = f"{offset + 1} to {offset + len(rows)} of " if rows else ""
    title = f"{opened.name}: {first}{found.total:,} features"
    table(
        title,
        ("feature", "label (or own words)", "density", "max", "promotes"),
        rows,
        right=("feature", "density", "max"),
    )
