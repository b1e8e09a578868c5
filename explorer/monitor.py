"""Watch a log for persona features: scores a message, a threshold, and what people confirmed.

A run over a log fills a folder: scores-*.parquet, so many conversations a file, and monitor.json, which says with what. Files are written
whole and in order, so a run that was killed goes on behind the last of them, and memory does not grow with the log.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import CacheError, UsageError
from explorer.files import append_json, json_lines, read_facts, read_parquet, write_whole
from explorer.intervals import wilson
from explorer.sheets import unformula
from explorer.transcripts import Transcript, read_transcripts

if TYPE_CHECKING:
    import pandas as pd

    from explorer.scoring import Scorer, Scores

MANIFEST, REVIEWS = "monitor.json", "reviews.jsonl"
SHARD = 256
"""Conversations a file."""
STATISTICS: dict[str, str] = {
    "mean": "Mean over the message's tokens.",
    "largest": "The largest on a token of the message.",
}
FLAGGED = ("transcript", "message", "source", "role", "text", "score")
QUANTILE = 0.99
SAMPLE = 200
"""Messages of the random sample."""
_RESAMPLES = 1000
_VERSION = 2  # 2: questions keep their answers, rows with a role are conversations
_NEEDED: dict[str, type] = {
    "log": str, "model": str, "model_fingerprint": str, "sae_fingerprint": str, "probes": list, "context": int, "shard": int,
}  # fmt: skip
_AGAIN = "Remove the folder and run again"


@dataclass(frozen=True, slots=True)
class Review:
    """What a person said of a message.

    Args:
        agree: Whether it is of the kind that is looked for; None takes an earlier answer back.
    """

    transcript: int
    message: int
    agree: bool | None
    author: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a threshold does.

    Args:
        flagged, messages: How many messages it flags, of how many that could be scored.
        confirmed: Of the judged messages that were drawn from all: (flagged and right, flagged and wrong, missed, rightly left).
        flags: Of the judged messages that were drawn from those it flags: (right, wrong).
    """

    threshold: float
    flagged: int
    messages: int
    confirmed: tuple[int, int, int, int]
    flags: tuple[int, int]

    @property
    def per_thousand(self) -> float:
        return 1000 * self.flagged / self.messages if self.messages else math.nan

    @property
    def judged(self) -> int:
        return sum(self.confirmed)

    @property
    def precision(self) -> tuple[float, float, float] | None:
        """Share of flagged messages that are right, with its interval; None while none that was drawn from them is judged."""
        return _share(*self.flags)

    @property
    def recall(self) -> tuple[float, float, float] | None:
        """Share of the messages of the kind that are flagged, with its interval; None while none that was drawn from all is judged so."""
        return _share(self.confirmed[0], self.confirmed[2])


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """ROC and PR over all thresholds, from judged messages.

    Args:
        thresholds, false_positive, recall, precision: `[points]`.
        auroc: (value, low, high), the interval by drawing messages again.
        n: (of the kind, others).
    """

    thresholds: np.ndarray
    false_positive: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    auroc: tuple[float, float, float]
    n: tuple[int, int]


def watch(
    log: Path,
    scorer: "Scorer",
    out: Path,
    *,
    truth: tuple[str, str] | None = None,
    shard: int = SHARD,
    progress: Callable[[int, int], None] = lambda conversations, messages: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Score every message of a log; called again after it was cut off, it goes on from there.

    Args:
        out: The folder to fill.
        truth: As for `explorer.transcripts.read_transcripts`.
        shard: Conversations a file.
        progress: Called after each file with the conversations and messages that are done.
        should_stop: Asked before each file.
    Returns:
        `out`.
    Raises:
        CorpusError: If the log cannot be read.
        CacheError: If the folder holds a run over another log, or with other probes.
    """
    facts = {
        "version": _VERSION,
        "log": log.name,
        "sha256": _hash(log),
        "model": scorer.model.name,
        "model_fingerprint": scorer.model.fingerprint,
        "sae_fingerprint": scorer.coder.fingerprint if scorer.coder else "",
        "probes": [p.name for p in scorer.probes],
        "vectors": _vectors(scorer),
        "context": scorer.context,
        "shard": shard,
        "truth": list(truth) if truth else None,
    }  # fmt: skip
    before = _facts(out)
    if before and (different := [k for k in facts if before.get(k) != facts[k]]):
        raise CacheError(
            f"{out} holds a run with another {different[0]} ({before.get(different[0])})",
            expected=f"{facts[different[0]]}",
            do="Choose another folder, or remove that one",
        )
    norms = {hook: float(norm) for hook, norm in before.get("median_norms", {}).items()}
    for hook, norm in norms.items():
        scorer.readers[hook].median_norm = norm
    done = len(_shards(out))
    messages = sum(_rows(path) for path in _shards(out))

    def note(norms: Mapping[str, float] | None = None, *, complete: bool = False) -> None:
        known = {} if norms is None else {"median_norms": norms}
        write_whole(out / MANIFEST, json.dumps({**facts, **known, "complete": complete}, indent=1) + "\n")

    if not before:
        note()
    rest = islice(read_transcripts(log, truth=truth), done * shard, None)
    number = done - 1
    while part := list(islice(rest, shard)):
        number += 1
        if should_stop():
            return out
        scores = scorer.score(part)
        _write(out / f"scores-{number:05}.parquet", part, scores, scorer, number * shard)
        if number == 0:
            note(scorer.median_norms)
        messages += len(scores.tokens)
        progress(number * shard + len(part), messages)
    note(scorer.median_norms or norms, complete=True)
    return out


class Watch:
    """A run over a log, read back; needs no model.

    Args:
        folder: What `watch` filled.
    Raises:
        CacheError: If there is no run in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.facts = _facts(self.folder)
        if not self.facts:
            raise CacheError(
                f"There is no run of a monitor in {folder}",
                expected=f"a folder with {MANIFEST}",
                do="Make one with persona-explorer monitor",
            )
        self.probes: tuple[str, ...] = tuple(self.facts["probes"])

    @property
    def complete(self) -> bool:
        return bool(self.facts.get("complete"))

    @property
    def messages(self) -> int:
        """How many messages are scored."""
        return sum(_rows(path) for path in _shards(self.folder))

    def scores(self, probe: str, statistic: str = "mean", *, roles: Sequence[str] = ()) -> "pd.DataFrame":
        """One probe's scores, message by message: transcript, message, role, tokens, truth, score. Texts stay on the disk.

        Args:
            statistic: A key of `STATISTICS`.
            roles: Only these; all if empty.
        Raises:
            UsageError: If there is no such probe or statistic.
        """
        return self._table(probe, statistic, ("transcript", "message", "role", "tokens", "truth"), roles, -math.inf)

    def flagged(
        self, probe: str, threshold: float, statistic: str = "mean", *, roles: Sequence[str] = ()
    ) -> "pd.DataFrame":
        """The messages at or above a threshold with their texts, strongest first; columns `FLAGGED`."""
        columns = [name for name in FLAGGED if name != "score"]
        found = self._table(probe, statistic, columns, roles, threshold)
        return found.sort_values(by="score", ascending=False, kind="stable").reset_index(drop=True)

    def _table(
        self, probe: str, statistic: str, columns: Sequence[str], roles: Sequence[str], threshold: float
    ) -> "pd.DataFrame":
        """Columns of all files and one probe's score, where it is at least `threshold`; unscored messages come with -inf only."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = _column(self.probes, probe, statistic)
        parts = []
        for path in _shards(self.folder):
            table = read_parquet(path, do=_AGAIN, columns=list(dict.fromkeys([*columns, "role", column])))
            if roles:
                table = table.filter(pc.field("role").isin(list(roles)))
            if threshold > -math.inf:
                table = table.filter(pc.field(column) >= threshold)
            parts.append(table.select([*columns, column]).rename_columns([*columns, "score"]))
        return (pa.concat_tables(parts) if parts else pa.table({n: [] for n in (*columns, "score")})).to_pandas()

    def transcript(self, number: int) -> "pd.DataFrame":
        """All messages of one conversation with their texts and all scores, in order.

        Raises:
            UsageError: If there is no such conversation.
        """
        shards = _shards(self.folder)
        at = number // int(self.facts["shard"])
        if not 0 <= at < len(shards):
            raise UsageError(f"There is no conversation {number}", expected="one of the log")
        table = read_parquet(shards[at], do=_AGAIN, filters=[("transcript", "=", number)]).to_pandas()
        if not len(table):
            raise UsageError(f"There is no conversation {number}", expected="one of the log")
        return table

    def reviews(self) -> dict[tuple[int, int], Review]:
        """What people said, the last word of each message; a line that was cut off is left out."""
        found: dict[tuple[int, int], Review] = {}
        for said in json_lines(self.folder / REVIEWS):
            try:
                review = Review(**said)
            except TypeError:  # a line that says something else
                continue
            if review.agree is None:
                found.pop((review.transcript, review.message), None)
            else:
                found[review.transcript, review.message] = review
        return found

    def review(self, transcript: int, message: int, agree: bool | None, author: str = "") -> Review:
        """Keep what a person says of a message; one line is added, none is changed."""
        said = Review(transcript, message, agree, author, datetime.now(UTC).isoformat(timespec="seconds"))
        append_json(self.folder / REVIEWS, asdict(said))
        return said

    def judged(self, table: "pd.DataFrame") -> np.ndarray:
        """`[messages]` float: 1 of the kind, 0 not, nan where nobody said; a person's word goes before the log's."""
        said = np.array([math.nan if t is None else float(t) for t in table["truth"]])
        reviews = self.reviews()
        if reviews:
            where = {key: at for at, key in enumerate(zip(table["transcript"], table["message"], strict=True))}
            for key, review in reviews.items():
                if key in where:
                    said[where[key]] = float(bool(review.agree))
        return said


def usual_threshold(scores: np.ndarray) -> float:
    """Where a threshold stands before anybody moves it: one message in a hundred is flagged; 0 where none could be scored."""
    there = scores[~np.isnan(scores)]
    return float(np.quantile(there, QUANTILE)) if len(there) else 0.0


def flags_csv(table: "pd.DataFrame") -> str:
    """Flagged messages as CSV; what a spreadsheet would take for a formula gets an apostrophe in front."""
    words = {name: [unformula(str(text)) for text in table[name]] for name in ("source", "role", "text")}
    return table.assign(**words).to_csv(index=False)


def flags_jsonl(table: "pd.DataFrame") -> str:
    """Flagged messages, one a line."""
    return table.to_json(orient="records", lines=True, force_ascii=False) or ""


Key = tuple[int, int]  # conversation and message


def sample(table: "pd.DataFrame", threshold: float = -math.inf, most: int | None = SAMPLE) -> list[Key]:
    """Messages at or above a threshold, drawn blindly from all that could be scored; always the same ones.

    Args:
        table: As `Watch.scores` gives it.
        most: How many; all of them if None, in the order in which they would be drawn.
    """
    return keys(table, _blindly(table, threshold)[:most])


def keys(table: "pd.DataFrame", at: np.ndarray) -> list[Key]:
    """Which messages some rows of a table are."""
    return list(zip(table["transcript"].to_numpy()[at].tolist(), table["message"].to_numpy()[at].tolist(), strict=True))


def unbiased(table: "pd.DataFrame", judged: np.ndarray, threshold: float = -math.inf) -> np.ndarray:
    """`judged` of the messages at or above a threshold that nobody chose by their score, nan for the others.

    Where the log itself says what its messages are, these are all of those it speaks of. Else they are the ones that `sample` draws first, up
    to the first that nobody judged: what is judged because it scores much says nothing of what scores less.

    Args:
        table, judged: As `Watch.scores` and `Watch.judged` give them.
    """
    told = table["truth"].notna().to_numpy(bool)
    if told.any():
        return np.where(told, judged, np.nan)
    order = _blindly(table, threshold)
    gaps = np.flatnonzero(np.isnan(judged[order]))
    drawn = order[: gaps[0] if len(gaps) else None]
    return np.where(np.isin(np.arange(len(judged)), drawn), judged, np.nan)


def _blindly(table: "pd.DataFrame", threshold: float) -> np.ndarray:
    """Rows of the messages at or above a threshold, in an order that knows nothing of their scores.

    It comes from where a message stands in the log alone (splitmix64), so that another threshold, party or feature, or more of the log,
    leaves those in view in their order: what was answered in one view counts in the others.
    """
    there = np.flatnonzero(table["score"].to_numpy(float) >= threshold)  # nan never is
    place = (
        table["transcript"].to_numpy(np.uint64)[there] << np.uint64(32) | table["message"].to_numpy(np.uint64)[there]
    )
    mixed = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return there[np.argsort(mixed ^ mixed >> np.uint64(31))]


def measured(table: "pd.DataFrame", judged: np.ndarray, threshold: float) -> tuple[Tuning, Curve | None]:
    """How a threshold does, and the curve over all of them, of what is `unbiased` among all messages; precision of what is among the flagged.

    Args:
        table, judged: As `Watch.scores` and `Watch.judged` give them.
    """
    scores, fair = table["score"].to_numpy(float), unbiased(table, judged)
    return tune(scores, fair, threshold, unbiased(table, judged, threshold)), curve(scores, fair)


def tune(scores: np.ndarray, judged: np.ndarray, threshold: float, flags: np.ndarray | None = None) -> Tuning:
    """How a threshold does.

    Args:
        scores: `[messages]`; nan where a message could not be scored.
        judged: `[messages]`: 1, 0 or nan, of messages drawn from all.
        flags: The same of messages drawn from those that are flagged; `judged` if None.
    """
    there = ~np.isnan(scores)
    over = there & (scores >= threshold)
    yes, no = judged == 1, judged == 0
    counts = (over & yes, over & no, there & ~over & yes, there & ~over & no)
    right, wrong, missed, left = (int(mask.sum()) for mask in counts)
    drawn = judged if flags is None else flags
    said = int((over & (drawn == 1)).sum()), int((over & (drawn == 0)).sum())
    return Tuning(threshold, int(over.sum()), int(there.sum()), (right, wrong, missed, left), said)


def curve(scores: np.ndarray, judged: np.ndarray, *, seed: int = 0) -> Curve | None:
    """ROC and PR of the judged messages; None while those of one side are missing."""
    there = ~np.isnan(scores) & ~np.isnan(judged)
    values, kind = scores[there], judged[there] == 1
    positive = int(kind.sum())
    if not positive or positive == len(kind):
        return None
    levels, level = np.unique(-values, return_inverse=True)  # the strongest first
    right, wrong = _at_least(level, kind)
    with np.errstate(invalid="ignore"):
        precision = right / (right + wrong)  # nan at the first point, where nothing is flagged
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        at = rng.integers(len(kind), size=len(kind))
        if 0 < kind[at].sum() < len(at):
            drawn.append(_area(*_at_least(level[at], kind[at])))
    low, high = np.quantile(drawn, [0.025, 0.975])
    auroc = (_area(right, wrong), float(low), float(high))
    thresholds = np.concatenate([[np.inf], -levels])
    return Curve(thresholds, wrong / wrong[-1], right / right[-1], precision, auroc, (positive, len(kind) - positive))


def _at_least(level: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many messages of the kind, and how many others, lie at each level or above it; first comes the line that none reaches.

    Counted here, because a page waits for it: scikit-learn took 2 s to import and 4 s for the interval, this takes 0.05 s.

    Args:
        level: `[messages]`, 0 for the strongest scores.
        kind: `[messages]` bool.
    """
    most = int(level.max()) + 1
    right, wrong = (np.cumsum(np.bincount(level[mask], minlength=most)) for mask in (kind, ~kind))
    return np.concatenate([[0], right]), np.concatenate([[0], wrong])


def _area(right: np.ndarray, wrong: np.ndarray) -> float:
    """The area under the ROC, ties counted half."""
    return float(np.trapezoid(right, wrong) / (right[-1] * wrong[-1]))


def _share(right: int, wrong: int) -> tuple[float, float, float] | None:
    n = right + wrong
    return (right / n, *wilson(right, n)) if n else None


def _column(probes: Sequence[str], probe: str, statistic: str) -> str:
    if probe not in probes:
        raise UsageError(f"{probe!r} was not watched", expected=f"one of {', '.join(probes)}")
    if statistic not in STATISTICS:
        raise UsageError(f"There is no statistic {statistic!r}", expected=f"one of {', '.join(STATISTICS)}")
    return f"{probe} {statistic}"


def _write(path: Path, part: Sequence[Transcript], scores: "Scores", scorer: "Scorer", first: int) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    said = [message for transcript in part for message in transcript.messages]
    columns: dict[str, Any] = {
        "transcript": pa.array(scores.transcript + first, pa.int64()),
        "message": pa.array(scores.message, pa.int32()),
        "source": pa.array([t.source for t in part for _ in t.messages], pa.string()),
        "role": pa.array([m.role for m in said], pa.string()),
        "text": pa.array([m.text for m in said], pa.string()),
        "truth": pa.array([m.truth for m in said], pa.bool_()),
        "tokens": pa.array(scores.tokens, pa.int32()),
    }
    for at, probe in enumerate(scorer.probes):
        columns[_column([probe.name], probe.name, "mean")] = pa.array(scores.mean[:, at], pa.float32())
        columns[_column([probe.name], probe.name, "largest")] = pa.array(scores.largest[:, at], pa.float32())
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    write_whole(path, file.getvalue())


def _shards(folder: Path) -> list[Path]:
    """The files in order, up to the first that is missing."""
    found = []
    while (path := folder / f"scores-{len(found):05}.parquet").is_file():
        found.append(path)
    return found


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise CacheError(f"{path} cannot be read ({error})", do=_AGAIN) from error


def _vectors(scorer: "Scorer") -> dict[str, str]:
    """Direction -> hash of what it is now: one of the same name may have been made anew."""
    named = [probe.direction for probe in scorer.probes if probe.direction]
    return {name: scorer.directions[name].mark for name in named}


def _facts(folder: Path) -> Mapping[str, Any]:
    found = read_facts(folder / MANIFEST, do=_AGAIN)
    if found and not all(isinstance(found.get(name), kind) for name, kind in _NEEDED.items()):
        raise CacheError(
            f"{folder / MANIFEST} is of no monitor's run", expected=f"at least {', '.join(_NEEDED)}", do=_AGAIN
        )
    return found


def _hash(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
