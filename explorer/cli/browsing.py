"""Commands that look at a feature cache: info, check. Neither needs the model, and check can use it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli.console import JSON, CachePath, Device, Dtype, emit_json, facts, progress, table

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.parity_file import Parity
    from explorer.sae import SparseCoder


def register(app: typer.Typer) -> None:
    app.command()(info)
    app.command()(check)


def info(cache: CachePath, as_json: JSON = False) -> None:
    """Say what a feature cache was made from, with what, and how large it is."""
    from dataclasses import asdict

    from explorer.cache import Cache
    from explorer.check import beside

    opened = Cache.open(cache)
    manifest, around = asdict(opened.manifest), beside(opened)
    size = sum(entry["bytes"] for entry in manifest["files"].values())  # what else lies there is no part of the cache
    live = sum(count > 0 for count in opened.table.column("tokens_active").to_pylist())
    extra = {
        "path": str(opened.path),
        "bytes": size,
        "live_features": live,
        "bundled_labels": bool(opened.bundled_labels),
        "beside": {found.what: {"ok": found.ok, "detail": found.detail} for found in around},
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
            *((found.what, found.detail if found.ok else f"WRONG: {found.detail}") for found in around),
        ],
    )


def check(
    cache: CachePath,
    model: Annotated[str, typer.Option(help="Check that this model is the one the cache was built with.")] = "",
    sae: Annotated[str, typer.Option(help="Check that this SAE is the one the cache was built with.")] = "",
    live_too: Annotated[
        bool, typer.Option("--live", help="Read cached examples through the live model again; names the likely cause.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Check a cache: checksums, columns, and its fit to a model and an SAE. Exits with 1 where something is wrong."""
    from dataclasses import asdict

    from explorer.check import check as look

    live = coder = None
    if model:
        from explorer.model import LanguageModel

        live = LanguageModel.load(model, device=device, dtype=dtype)
    if sae:
        from explorer.cache import Cache
        from explorer.sae import SparseCoder

        coder = SparseCoder.load(sae, hook_point=Cache.open(cache).manifest.hook_point)
    found = look(cache, model=live, coder=coder)
    parity = _parity(cache, live, coder, device, dtype) if live_too and found[0].ok else None
    if as_json:
        findings = [asdict(finding) for finding in found]
        emit_json({"findings": findings, "parity": asdict(parity)} if parity else findings)
    else:
        table(str(cache), ("", "what", "found"), [("ok" if f.ok else "WRONG", f.what, f.detail) for f in found])
        if parity:
            _print_parity(parity)
    if not all(finding.ok for finding in found) or (parity and not parity.ok):
        raise typer.Exit(1)


def _parity(
    cache: Path, model: "LanguageModel | None", coder: "SparseCoder | None", device: str, dtype: str
) -> "Parity":
    """Compare, and keep what was found unless another model or SAE was named."""
    from explorer.cache import Cache
    from explorer.foreign import require_weights
    from explorer.model import LanguageModel
    from explorer.parity import compare
    from explorer.parity_file import save
    from explorer.sae import SparseCoder

    opened = Cache.open(cache)
    made = opened.manifest
    require_weights(made)
    with progress("comparing with the live model") as tick:
        own = model is None and coder is None
        tick("loading the model", None)
        live = model or LanguageModel.load(made.model, device=device, dtype=dtype)
        reads = coder or SparseCoder.load(
            opened.sae_folder or made.sae, device=str(live.device), hook_point=made.hook_point
        )
        found = compare(
            opened,
            live,
            reads,
            original=lambda: LanguageModel.load(made.model, device=device, dtype=dtype),
            progress=lambda share: tick("comparing with the live model", share, 1.0),
        )
    if own:
        save(opened, found)
    return found


def _print_parity(found: "Parity") -> None:
    from explorer.parity_file import figures

    rows: list[tuple[str, object]] = [("verdict", "ok" if found.ok else "WRONG"), ("found", figures(found))]
    worst = found.example
    rows.append(("worst", f"example {worst['rank']} of feature {worst['feature']}"))
    if not found.ok:
        left = "" if found.remaining is None else f" (error {found.error:.2%}, with that undone {found.remaining:.2%})"
        rows += [("cause", f"{found.cause}{left}"), ("fix", found.fix)]
    facts("Live model against cache", rows)
    if found.tested:
        tried = [
            (t["name"], t["detail"], "not here" if t["error"] is None else f"{t['error']:.2%}") for t in found.tested
        ]
        table("What was tried", ("", "what it would mean", "error left"), tried, right=("error left",))
