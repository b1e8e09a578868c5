"""`persona-explorer explain`, `agreement` and `negatives`: machines' explanations, what two people agree on, and spans to test labels with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explorer.cli.console import JSON, CacheModel, Database, Device, Dtype, emit_json, facts, progress, say, table
from explorer.errors import JudgeError, UsageError

if TYPE_CHECKING:
    from explorer.autointerp import Explained
    from explorer.cache import Cache
    from explorer.explaining import Outcome

Cached = Annotated[Path, typer.Argument(help="The folder of a feature cache.")]
_TEXT = 80  # characters of a text in a table


def register(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(agreement)
    app.command()(negatives)


def explain(
    cache: Cached,
    features: Annotated[str, typer.Option("--features", "-f", help="Such as 12,40-49.")] = "",
    named: Annotated[str, typer.Option("--list", help="Features of this list of yours.")] = "",
    query: Annotated[str, typer.Option("--query", help="Features that hold these words, as search finds them.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many features.")] = 100,
    budget: Annotated[str, typer.Option(help="The most to spend: tokens such as 200k, or money such as $1.50.")] = "",
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Score the labels that there are instead of writing explanations.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Features that are asked about at the same time.")] = 4,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .jsonl file of finished features; a file in your home by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the snippets.")] = 0,
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Let a model behind an endpoint explain features, and score its words on the snippets that people are tested with.

    The endpoint is the one of the environment, PERSONA_EXPLORER_JUDGE_URL and _MODEL. Explanations become suggestions and never labels. What is
    finished is kept, so the same command goes on where it was cut off or ran out of budget.
    """
    from explorer.cache import Cache
    from explorer.database import Database
    from explorer.endpoint import MODEL, URL, configured
    from explorer.explaining import default_file, keep, run
    from explorer.purse import Budget, Purse

    opened = Cache.open(cache)
    chosen = _chosen(opened, features, named, query, limit, database)
    endpoint = configured()
    if endpoint is None:
        raise JudgeError("No endpoint is named", expected=f"{URL} and {MODEL}", do="Set them, for a local server too")
    purse = Purse(endpoint, Budget.of(budget) if budget else None)
    labels = _labels(opened, database) if score_only else None
    path = out or default_file(opened)
    with progress("asking") as tick:
        outcome = run(opened, chosen, purse, path, labels=labels, workers=workers, seed=seed, progress=tick)
    kept = keep([*outcome.known, *outcome.done], Database(database or None))
    _tell(outcome, path, str(endpoint.spent), kept, as_json)


def agreement(
    cache: Cached,
    limit: Annotated[int, typer.Option(min=0, help="Disagreements to list.")] = 20,
    meaning: Annotated[
        bool, typer.Option("--meaning/--no-meaning", help="Compare the labels' meanings with the sentence embedder.")
    ] = True,
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """How far people agree who named the same features: Krippendorff's alpha, and the features on which they differ most."""
    from explorer.agreement import MEASURES, latest
    from explorer.agreement import agreement as measured
    from explorer.cache import Cache
    from explorer.labels import LabelStore
    from explorer.quiz import answers_of
    from explorer.scores import Scores

    opened = Cache.open(cache)
    sae = opened.manifest.sae_fingerprint
    labels = latest(LabelStore(database or None).changes(sae))
    double = any(len(by) > 1 for by in labels.values())
    answers = answers_of(Scores(database or None).all(sae))
    found = measured(labels, answers, _embedder() if meaning and double else None)
    pairs = found.pairs[:limit]
    if as_json:
        emit_json(
            {
                "measures": {n: _plain(m) for n, m in found.measures.items()},
                "pairs": [
                    {
                        "feature": p.feature,
                        "labels": {who: label.label for who, label in p.labels.items()},
                        "interpretable": p.interpretable,
                        "confidence_spread": p.spread,
                        "meaning": p.meaning,
                        "answers": _plain(p.answers),
                        "differ": p.differ,
                        "distance": p.distance,
                    }
                    for p in pairs
                ],
            }
        )
        return
    table(
        f"Agreement on {len(found.pairs):,} features named by at least two people",
        ("measure", "value", "features", "units", "what it is"),
        [(n, m, f"{m.features:,}", f"{m.units:,}", MEASURES[n]) for n, m in found.measures.items()],
        right=("features", "units"),
    )
    if pairs:
        rows = [(p.feature, f"{p.distance:.2f}", *_sides(p.labels)) for p in pairs]
        table("Where people differ most", ("feature", "distance", "labels"), rows, right=("feature", "distance"))


def negatives(
    cache: Cached,
    sample: Annotated[int, typer.Option(min=1, help="Windows of the cache to read.")] = 2_000,
    near: Annotated[int, typer.Option(min=0, help="Near-misses to keep a feature.")] = 4,
    chance: Annotated[int, typer.Option("--random", min=0, help="Random spans to keep a feature.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Find spans on which features are silent, for testing labels: one pass of the model over a sample of the cache's windows."""
    from explorer.cache import Cache
    from explorer.live import attach
    from explorer.silence import find

    opened = Cache.open(cache)
    live = attach(opened, model=model, device=device, dtype=dtype)
    with progress("reading windows") as tick:
        found = find(opened, live, sample=sample, near=near, chance=chance, seed=seed, progress=tick)
    told = {
        "file": str(found.path),
        "bytes": found.path.stat().st_size,
        "windows": found.windows,
        "spans": found.spans,
        "short": found.short,
        "again": found.again,
    }
    if as_json:
        emit_json(told)
    else:
        names = {"short": "features with fewer than wanted", "again": "cached peaks that fired again"}
        facts("Spans on which features are silent", [(names.get(name, name), value) for name, value in told.items()])


def read_features(said: str) -> list[int]:
    """The features that "12,40-49" names.

    Raises:
        UsageError: If it names none.
    """
    found: list[int] = []
    for part in (p.strip().lstrip("#") for p in said.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or len(first) > 9 or (dash and (not last.isdecimal() or len(last) > 9)):
            raise UsageError(f"{part!r} is no feature", expected="such as 12,40-49", do="Correct it")
        found += range(int(first), int(last or first) + 1) if int(last or first) - int(first) < 1_000_000 else []
    return list(dict.fromkeys(found))


def _chosen(cache: "Cache", features: str, named: str, query: str, limit: int, database: str) -> list[int]:
    """The features that one of the three options names, at most `limit`.

    Raises:
        UsageError: If none or several are given, or nothing is found.
    """
    if sum(map(bool, (features, named, query))) != 1:
        raise UsageError("Which features?", expected="one of --features, --list, --query", do="Give one of them")
    if features:
        found = read_features(features)
    elif query:
        from explorer.search import search

        texts = {i: label.label for i, label in _labels(cache, database).items()}
        found = [row.index for row in search(cache, query=query, sort="match", labels=texts, limit=limit).rows]
    else:
        from explorer.lists import Lists

        found = list(Lists(database or None).named(cache.manifest.sae_fingerprint, named).features)
    if not found:
        raise UsageError(f"No feature holds {query!r}" if query else f"The list {named!r} is empty", do="Name others")
    if len(found) > limit:
        say(f"The first {limit:,} of {len(found):,} features; --limit takes more.")
    return found[:limit]


def _labels(cache: "Cache", database: str) -> dict[int, Any]:
    """Feature -> label, those that came with the cache included."""
    from explorer.labels import LabelStore

    store = LabelStore.over(cache, database or None)
    return {i: label for i, label in store.all(cache.manifest.sae_fingerprint).items() if label.label}


def _tell(outcome: "Outcome", path: Path, spent: str, kept: int, as_json: bool) -> None:
    rows = sorted([*outcome.known, *outcome.done], key=lambda row: row.feature)
    if as_json:
        emit_json(
            {
                "file": str(path),
                "spent": spent,
                "suggestions": kept,
                "features": [row.plain() for row in rows],
                "failed": outcome.failed,
                "left": outcome.left,
                "stopped": outcome.stopped,
            }
        )
        return
    table(
        "Explanations, and how well they tell where the feature fires",
        ("feature", "text", "by", "detection", "fuzzing"),
        [(row.feature, row.text[:_TEXT], row.author, _score(row, "detection"), _score(row, "fuzzing")) for row in rows],
        right=("feature",),
    )
    for feature, why in sorted(outcome.failed.items()):
        say(f"Feature {feature} was given up: {why}")
    if outcome.stopped:
        say(f"Stopped, {outcome.stopped}; {len(outcome.left):,} features are left. The same command goes on from here.")
    say(f"{spent}. {path} holds what is finished; {kept:,} suggestions were kept.")


def _score(row: "Explained", method: str) -> str:
    found = getattr(row, method)
    return f"{found['score']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else row.why


def _sides(labels: dict[str, Any]) -> tuple[str]:
    return ("\n".join(f"{who}: {label.label[:_TEXT]}" for who, label in sorted(labels.items())),)


def _plain(measure: Any) -> dict[str, Any]:
    return {name: getattr(measure, name) for name in ("value", "low", "high", "features", "units", "why")}


def _embedder() -> Any:
    """The sentence embedder, if it has been fetched; without it the other measures stand."""
    from explorer.embedding import Embedder
    from explorer.errors import ExplorerError

    try:
        return Embedder.load()
    except ExplorerError as error:
        say(f"Meanings are not compared: {error}")
        return None
