"""Many features explained or scored, several at a time; what is finished is kept as it comes, and not asked for again."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from explorer.autointerp import PROMPTS, Explained, explain, score
from explorer.cache import Cache
from explorer.database import Database
from explorer.errors import ExplorerError, JudgeError, UsageError
from explorer.evidence_lock import fingerprint
from explorer.label_files import NOT_INTERPRETABLE, Label
from explorer.packaged import home
from explorer.purse import OverBudget, Purse
from explorer.scores import Score, Scores
from explorer.suggestions import Suggestion, Suggestions

WORKERS = 4
_FAILURES = 3  # features in a row, after which it is the endpoint and not the feature


@dataclass(slots=True)
class Outcome:
    """What a run has done.

    Args:
        done: Features finished now, in the order in which they were.
        known: Features that the file held already.
        failed: Feature -> why it was given up.
        left: Features that were not begun, or not finished.
        stopped: Why the run ended early; "" where it did not.
    """

    done: list[Explained] = field(default_factory=list)
    known: list[Explained] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    stopped: str = ""


def default_file(cache: Cache) -> Path:
    """Where finished features are kept unless told otherwise: in this program's home, a file a SAE."""
    return home() / "explanations" / f"{cache.manifest.sae_fingerprint[:16]}.jsonl"


def read(path: Path) -> list[Explained]:
    """The finished features of a file, oldest first; a line that was cut off is left out, and so are lines of another kind.

    Raises:
        UsageError: If the file cannot be read.
    """
    names = {f.name for f in fields(Explained)}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})", do="Choose another file") from error
    found = []
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.keys() == names:
            found.append(Explained(**said))
    return found


def run(
    cache: Cache,
    features: Sequence[int],
    purse: Purse,
    path: Path,
    *,
    labels: Mapping[int, Label] | None = None,
    workers: int = WORKERS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Explain features, or score the labels that they have.

    Args:
        features: Which, in this order.
        purse: Who is asked, and what it may cost.
        path: A JSONL file of finished features; it is read first, and grows.
        labels: Score these labels instead of writing explanations; features without one are left out.
        workers: Features that are asked about at the same time.
        progress: Called with features done and their number.
    Raises:
        UsageError: If there is nothing to do, or a feature is not there.
        JudgeError: If the endpoint fails before anything was finished.
    """
    wanted = list(dict.fromkeys(features))
    if outside := [f for f in wanted if not 0 <= f < cache.n_features]:
        raise UsageError(f"There is no feature {outside[0]}", expected=f"0 to {cache.n_features - 1}")
    if labels is not None:
        wanted = [f for f in wanted if f in labels and labels[f].label.strip()]
    if not wanted:
        raise UsageError(
            "There is nothing to score: none of these features has a label" if labels is not None else "No feature",
            do="Name features, a list or a query",
        )
    finished = {row.key: row for row in read(path)}
    outcome, todo = Outcome(), []
    for feature in wanted:
        row = finished.get(_key(cache, purse, feature, labels))
        if row is not None:
            outcome.known.append(row)
        else:
            todo.append(feature)

    def work(feature: int) -> Explained:
        if labels is None:
            return explain(cache, feature, purse, seed=seed)
        label = labels[feature]
        return score(cache, feature, label.label, purse, author=label.author or "unknown", seed=seed)

    with _Appending(path) as write:
        _pool(work, todo, outcome, write, workers, lambda n: progress(n + len(outcome.known), len(wanted)))
    if outcome.failed and not outcome.done and not outcome.known:
        raise JudgeError(next(iter(outcome.failed.values())))
    return outcome


def keep(rows: Sequence[Explained], database: Database) -> int:
    """Keep explanations as suggestions and every score with its answers, each once; people's labels are left alone.

    Returns:
        How many suggestions are new.
    """
    scores = Scores(database)
    known = {(s.feature, s.label, s.who, s.method) for sae in {r.sae for r in rows} for s in scores.all(sae)}
    for row in rows:
        for method in ("detection", "fuzzing"):
            found = getattr(row, method)
            if found is None or (row.feature, row.text, row.model, method) in known:
                continue
            details = {"cache": row.cache, "author": row.author, "answers": row.answers[method], "grade": found}
            scores.add(
                Score(row.sae, row.feature, row.text, row.model, "machine", method, found["score"], found["n"], details)
            )
    return Suggestions(database).add(
        Suggestion(
            row.sae, row.feature, row.text, row.model, row.detection["score"] if row.detection else None,
            {"detection": row.detection, "fuzzing": row.fuzzing, "cache": row.cache},
        )
        for row in rows
        if row.author == row.model and row.text not in ("", NOT_INTERPRETABLE)
    )  # fmt: skip


def _pool(
    work: Callable[[int], Explained],
    todo: list[int],
    outcome: Outcome,
    write: Callable[[Explained], None],
    workers: int,
    progress: Callable[[int], None],
) -> None:
    """Work off `todo`, at most `workers` at a time; begin nothing new once the run has to stop."""
    waiting = iter(todo)
    running: dict[Future[Explained], int] = {}
    in_a_row = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        while True:
            while (
                len(running) < max(1, workers) and not outcome.stopped and (feature := next(waiting, None)) is not None
            ):
                running[pool.submit(work, feature)] = feature
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                feature = running.pop(future)
                try:
                    row = future.result()
                except OverBudget:
                    outcome.stopped = outcome.stopped or "the budget is spent"
                    outcome.left.append(feature)
                except ExplorerError as error:
                    outcome.failed[feature] = str(error)
                    in_a_row += 1
                    if in_a_row >= _FAILURES:
                        outcome.stopped = outcome.stopped or f"{_FAILURES} features in a row failed: {error}"
                else:
                    in_a_row = 0
                    write(row)
                    outcome.done.append(row)
                progress(len(outcome.done) + len(outcome.failed))
    outcome.left += list(waiting)


def _key(cache: Cache, purse: Purse, feature: int, labels: Mapping[int, Label] | None) -> tuple[Any, ...]:
    text = labels[feature].label if labels is not None else ""
    author = purse.model if labels is None else labels[feature].author or "unknown"
    sae = cache.manifest.sae_fingerprint
    return Explained(feature, sae, fingerprint(cache), text, author, purse.model, prompts=PROMPTS).key


class _Appending:
    """Append rows to a file, each whole and on the disk before the next; what a killed run left of a line is ended first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Callable[[Explained], None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("ab+")
            if self.file.tell():
                self.file.seek(-1, os.SEEK_END)
                if self.file.read(1) != b"\n":
                    self.file.write(b"\n")
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror or error})", do="Choose another file with --out"
            ) from error
        return self.write

    def write(self, row: Explained) -> None:
        try:
            self.file.write(json.dumps(row.plain(), ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror or error})", do="Free space") from error

    def __exit__(self, *_: object) -> None:
        self.file.close()
