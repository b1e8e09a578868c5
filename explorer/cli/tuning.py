"""`persona-explorer finetune`, `audit` and `monitor`: train adapters, and look for persona features in rows and logs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli.console import JSON, CacheModel, Device, Dtype, emit_json, facts, progress, table
from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.cli.console import Tick
    from explorer.scoring import Scorer

Cached = Annotated[Path, typer.Argument(help="The folder of a feature cache.")]
Probes = Annotated[
    list[str] | None,
    typer.Option("--feature", "-f", help="FEATURE or ~NAME of a direction; may be given several times."),
]
_SHOWN = 20
_TEXT = 100  # characters of a text in a table


def register(app: typer.Typer) -> None:
    app.command()(finetune)
    app.command()(audit)
    app.command()(monitor)


def finetune(
    data: Annotated[Path, typer.Option("--data", help="A .jsonl file of conversations in OpenAI's form.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the run; a checkpoint each in it.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A packaged model, a local Hugging Face folder or a hub name.")
    ] = "smollm2-135m-instruct",
    start: Annotated[Path | None, typer.Option(help="The folder of an adapter to go on from.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 40,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 4,
    layer: Annotated[
        list[int] | None, typer.Option("--layer", help="A block that gets adapters; all of them by default.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Conversations a step.")] = 8,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 1e-3,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows of the file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the adapters and the order of the rows.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Fine-tune a model on conversations with LoRA; the loss is that of the last answers. Any peft user can load what it leaves."""
    from explorer.finetune import FinetunePlan, read_rows

    plan = FinetunePlan(steps, rank, tuple(layer or ()), batch, lr, every=every, seed=seed)
    rows = read_rows(data)[:limit]

    from explorer.adapters import Adapter
    from explorer.finetune import finetune as train
    from explorer.model import LanguageModel

    before = Adapter.at(start) if start else None
    with progress("fine-tuning") as tick:
        tick("loading the model", None)
        live = LanguageModel.load(model, device=device, dtype=dtype)
        made = train(
            live, rows, out, plan, start=before, data=data.name,
            progress=lambda step, steps, loss: tick(f"fine-tuning, loss {loss:.2f}", step, steps),
        )  # fmt: skip
    losses = made[-1].facts["losses"]
    result = {"folder": str(out), "rows": len(rows), "steps": steps, "checkpoints": [a.step for a in made]}
    result |= {"first_loss": losses[0], "last_loss": losses[-1]}
    _tell("Fine-tune", result, as_json)


def audit(
    cache: Cached,
    data: Annotated[Path, typer.Argument(help="A .jsonl file of conversations in OpenAI's form.")],
    feature: Probes = None,
    drop: Annotated[
        float | None, typer.Option(help="Leave out rows whose mean score is at least this; in multiples of strength 1.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .jsonl file for the rows that are kept.")] = None,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Rank the rows of a fine-tuning set by persona features, before anybody trains on them."""
    from explorer.finetune import read_rows

    if (drop is None) != (out is None):
        raise UsageError("--drop and --out go together", do="Give both, or neither to see the ranking")
    rows = read_rows(data)

    from explorer.audit import audit as rank
    from explorer.audit import write_rows

    with progress("auditing") as tick:
        scorer = _scorer(cache, feature, model, device, dtype, tick)
        found = rank(scorer, rows, progress=lambda done, total: tick("reading rows", done, total))
    keep = found.kept(drop) if drop is not None else None
    if keep is not None and out is not None:
        write_rows([row for row, kept in zip(rows, keep, strict=True) if kept], out)
    order, said = found.order, found.suspicion
    if as_json:
        emit_json([
            {"row": int(at) + 1, "score": float(said[at]), "answer": rows[at][-1]["content"]}
            | ({} if keep is None else {"kept": bool(keep[at])})
            for at in order
        ])  # fmt: skip
        return
    lines = [(int(at) + 1, f"{said[at]:.3f}", rows[at][-1]["content"][:_TEXT]) for at in order[:_SHOWN]]
    table(
        f"{data.name}: most suspicious of {len(rows):,} rows", ("row", "score", "answer"), lines, right=("row", "score")
    )
    if keep is not None:
        facts("Kept", [("rows", f"{int(keep.sum()):,} of {len(rows):,}"), ("written to", out)])


def monitor(
    cache: Cached,
    log: Annotated[Path, typer.Argument(help="A log as .jsonl, .json, .csv or .txt.")],
    feature: Probes = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder of the run; beside LOG by default. It goes on there.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Flag messages whose score is at least this; the 99 % quantile by default.")
    ] = None,
    statistic: Annotated[str, typer.Option(help="mean or largest over a message's tokens.")] = "mean",
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Only messages of this party; all of them by default.")
    ] = None,
    truth: Annotated[
        str, typer.Option(help="FIELD=VALUE: rows of the log where it holds are of the kind that is looked for.")
    ] = "",
    flags: Annotated[Path | None, typer.Option(help="A .csv or .jsonl file for the flagged messages.")] = None,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Score every message of a log for persona features. Goes on where it was cut off; memory does not grow with the log."""
    from explorer.monitor import STATISTICS, Watch, measured, usual_threshold, watch
    from explorer.transcripts import truth_of

    known = truth_of(truth)
    if statistic not in STATISTICS:
        raise UsageError(f"There is no statistic {statistic!r}", expected=" or ".join(STATISTICS))
    if flags and flags.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{flags} is a {flags.suffix or 'nameless'} file", expected=".csv or .jsonl")
    place = out or log.with_name(f"{log.name}.monitor")
    with progress("watching") as tick:
        scorer = _scorer(cache, feature, model, device, dtype, tick)
        watch(
            log, scorer, place, truth=known,
            progress=lambda conversations, messages: tick("watching, messages:", messages, 0),
        )  # fmt: skip

    run, rows = Watch(place), []
    for probe in run.probes:
        scores = run.scores(probe, statistic, roles=role or ())
        judged = run.judged(scores)
        line = usual_threshold(scores["score"].to_numpy(float)) if threshold is None else threshold
        tuning, found = measured(scores, judged, line)
        rows.append(
            {
                "feature": probe, "messages": tuning.messages, "threshold": line, "flagged": tuning.flagged,
                "per_thousand": tuning.per_thousand, "judged": int((judged >= 0).sum()), "drawn": tuning.judged,
                "precision": tuning.precision, "recall": tuning.recall, "auroc": found.auroc if found else None,
            }
        )  # fmt: skip
    if flags:
        _export(run, rows, statistic, role or (), flags)
    if as_json:
        emit_json({"folder": str(place), "features": rows})
        return
    columns = ("feature", "messages", "threshold", "flagged", "per 1,000", "precision", "recall", "AUROC")
    lines = [
        (
            r["feature"], f"{r['messages']:,}", f"{r['threshold']:.3f}", f"{r['flagged']:,}", f"{r['per_thousand']:.1f}",
            _share(r["precision"]), _share(r["recall"]), _share(r["auroc"]),
        )
        for r in rows
    ]  # fmt: skip
    table(f"{log.name}: {statistic} over a message's tokens", columns, lines, right=columns[1:5])
    facts("Run", [("kept in", place), *_waiting(rows)])


def _scorer(cache: Path, probes: list[str] | None, model: str, device: str, dtype: str, tick: "Tick") -> "Scorer":
    """The probes that are named, ready to read."""
    from explorer.cache import Cache
    from explorer.scoring import Probe

    opened = Cache.open(cache)
    wanted = [Probe.of(text) for text in probes or []]
    if not wanted:
        raise UsageError("There is nothing to look for", do="Give --feature NUMBER or --feature ~DIRECTION")

    from explorer.live import attach
    from explorer.scoring import Scorer

    tick("loading the model", None)
    live = attach(opened, model=model, device=device, dtype=dtype)
    return Scorer(live.model, live.steering, wanted)


def _export(run, rows, statistic: str, roles, path: Path) -> None:
    """The flagged messages of all probes, strongest first of each."""
    import pandas as pd

    from explorer.files import write_whole
    from explorer.monitor import flags_csv, flags_jsonl

    parts = [
        run.flagged(row["feature"], row["threshold"], statistic, roles=roles).assign(feature=row["feature"])
        for row in rows
    ]
    flagged = pd.concat(parts, ignore_index=True)
    write_whole(path, flags_csv(flagged) if path.suffix == ".csv" else flags_jsonl(flagged))


def _waiting(rows) -> list[tuple[str, str]]:
    """What is unknown yet, and what it waits for."""
    waiting = []
    if any(row["precision"] is None for row in rows):
        waiting.append(
            ("precision is unknown", "until flagged messages that were drawn blindly are confirmed, on Monitor")
        )
    if any(None in (row["recall"], row["auroc"]) for row in rows):
        waiting.append(
            ("recall or AUROC is unknown", "until enough of Monitor's random sample is reviewed, or --truth says it")
        )
    return waiting


def _share(value: tuple[float, float, float] | None) -> str:
    return "unknown" if value is None else f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def _tell(title: str, result: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit_json(result)
    else:
        facts(title, list(result.items()))
