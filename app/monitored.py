"""What Monitor keeps and asks for: runs over logs as folders, work in the background, queues and files. No streamlit here."""

import csv
import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine import Engine
from app.jobs import Job
from explorer import monitor
from explorer.errors import CacheError, CorpusError, ExplorerError, UsageError
from explorer.files import write_whole
from explorer.packaged import home
from explorer.records import Edit
from explorer.scoring import Probe
from explorer.transcripts import READ, Message, Transcript, read_transcripts

if TYPE_CHECKING:
    import pandas as pd

    from explorer.audit import Audit
    from explorer.scoring import Scorer

LOGS = ("jsonl", "json", "csv", "txt")
MOST_MB, MOST_PROBES, WANTED = 200, 12, 20
"""Of an upload; of a run; judgements before a precision is worth much."""
_SMALL, _SHARD = 4096, 32
_LOG = "log"


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that lies here.

    Args:
        name: As links spell it: a folder's name, or a path.
        facts: What its monitor.json says.
        messages: How many are scored.
    """

    name: str
    facts: Mapping[str, Any]
    messages: int


def folder_of(name: str) -> Path:
    """Where a run lies: under the person's home, or at the path that `name` is."""
    return Path(name).expanduser() if "/" in name or "\\" in name else home() / "monitor" / name


def kept() -> list[Kept]:
    """The person's own runs, the newest first; a folder that cannot be read is left out."""
    found = []
    folders = [path.parent for path in (home() / "monitor").glob(f"*/{monitor.MANIFEST}")]
    for folder in sorted(folders, key=lambda path: (path / monitor.MANIFEST).stat().st_mtime, reverse=True):
        try:
            run = monitor.Watch(folder)
            found.append(Kept(folder.name, run.facts, run.messages))
        except ExplorerError:
            continue
    return found


def probes_of(text: str) -> list[Probe]:
    """The probes in a text ("12, #88 ~cruel"), each once.

    Raises:
        SteeringError: If a word is neither a number nor ~name.
        UsageError: If there are none, or too many.
    """
    found = list(dict.fromkeys(Probe.of(word.removeprefix("#")) for word in re.split(r"[\s,;]+", text) if word))
    if not found or len(found) > MOST_PROBES:
        raise UsageError(
            f"{len(found) or 'No'} features are named",
            expected=f"1 to {MOST_PROBES}",
            do="Name features by number, directions as ~name, or take those of a preset",
        )
    return found


def fields(name: str, head: bytes) -> list[str]:
    """What a log says of its rows beside the text, by its first row: fields that may hold the truth.

    Args:
        head: How it begins.
    """
    begin = head.decode("utf-8-sig", errors="ignore")
    try:
        if name.lower().endswith(".csv"):
            found = next(csv.reader(io.StringIO(begin)), [])
        elif name.lower().endswith(".jsonl"):
            found = json.loads(begin.splitlines()[0])
        else:
            return []
    except (ValueError, IndexError, csv.Error, RecursionError):  # the run itself says what is wrong with it
        return []
    found = list(found) if isinstance(found, list | dict) else []
    return [field for field in found if isinstance(field, str) and field.strip().lower() not in READ][:12]


# --- work in the background


def watch(
    engine: Engine, name: str, content: bytes, probes: Sequence[Probe], truth: tuple[str, str] | None
) -> tuple[str, Job]:
    """Watch an uploaded log: the run's name, and the job, whose result is that name.

    The same log with the same probes is the same run: what is finished of it is kept, and it goes on behind it.
    """
    file = _file_name(name)
    said = json.dumps(
        [
            [p.name for p in probes],
            truth,
            engine.cache.manifest.model_fingerprint,
            engine.cache.manifest.sae_fingerprint,
        ]
    )
    short = hashlib.sha256(content + said.encode()).hexdigest()[:8]
    run = f"{re.sub(r'[^a-z0-9]+', '-', Path(file).stem.lower()).strip('-')[:40] or 'log'}-{short}"
    log = folder_of(run) / _LOG / file

    def work(job: Job) -> str:
        scorer = scorer_of(engine, probes)
        write_whole(log, content)
        return _watch(job, scorer, log, run, truth)

    return run, engine.job(work, long=True)


def can_go_on(run: monitor.Watch) -> Path | None:
    """The log of a run that was cut off, where it is still here."""
    log = run.folder / _LOG / str(run.facts["log"])
    return log if not run.complete and log.is_file() else None


def go_on(engine: Engine, name: str, run: monitor.Watch, log: Path) -> Job:
    """Go on with a run that was cut off."""
    truth = run.facts.get("truth")
    probes = [Probe.of(text) for text in run.probes]
    context = int(run.facts["context"])

    def work(job: Job) -> str:
        return _watch(job, scorer_of(engine, probes, context=context), log, name, tuple(truth) if truth else None)

    return engine.job(work, long=True)


def _watch(job: Job, scorer: "Scorer", log: Path, name: str, truth: tuple[str, str] | None) -> str:
    folder = folder_of(name)
    try:
        total = sum(1 for _ in read_transcripts(log, truth=truth))
        if not total:
            raise CorpusError(f"{log.name} is empty", expected="at least one message")
        before = monitor.Watch(folder).facts if (folder / monitor.MANIFEST).is_file() else {}
        shard = int(before.get("shard", _SHARD if total <= _SMALL else monitor.SHARD))

        def tell(conversations: int, messages: int) -> None:
            job.progress = conversations / total

        monitor.watch(log, scorer, folder, truth=truth, shard=shard, progress=tell, should_stop=job.should_stop)
        if monitor.Watch(folder).complete:
            log.unlink()  # the run holds its texts
    except CorpusError as error:
        if not (folder / monitor.MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise _plain(error, log) from error
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be written ({error})", do="Make room, or check who may write there"
        ) from error
    return name


def scorer_of(engine: Engine, probes: Sequence[Probe], **options: Any) -> "Scorer":
    """What reads probes with the live model, waited for.

    Raises:
        ExplorerError: If there is no model, no such feature or direction, or the feature never fires.
    """
    from explorer.scoring import Scorer

    model = engine.model
    return Scorer(model, engine.steering([Edit(p.feature, direction=p.direction) for p in probes]), probes, **options)


def audit(engine: Engine, name: str, content: bytes, probes: Sequence[Probe]) -> Job:
    """Audit an uploaded training set; the job's result is an `explorer.audit.Audit`."""

    def work(job: Job) -> "Audit":
        from explorer.audit import audit as rank
        from explorer.finetune import rows_of

        found = rows_of(content, name)

        def tell(done: int, total: int) -> None:
            job.progress = done / total

        return rank(scorer_of(engine, probes), found, progress=tell, should_stop=job.should_stop)

    return engine.job(work, long=True)


def _file_name(name: str) -> str:
    """An upload's name as a file here may be called."""
    return re.sub(r"[^\w.-]+", "_", Path(name.replace("\\", "/")).name).lstrip(".")[-80:] or "log.txt"


def _plain(error: CorpusError, path: Path) -> CorpusError:
    """The error with the file called as the person calls it, not by where it was put."""
    return CorpusError(error.found.replace(str(path), path.name), expected=error.expected, do=error.do)


# --- what the page shows


def threshold_of(scores: np.ndarray) -> float:
    """A first threshold, to four places."""
    return round(monitor.usual_threshold(scores), 4)


def reach(scores: np.ndarray) -> tuple[float, float]:
    """Lowest and highest threshold that make sense, to four places and apart."""
    there = scores[~np.isnan(scores)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
    low, high = math.floor(low * 1e4) / 1e4, math.ceil(high * 1e4) / 1e4
    return low, max(high, round(low + 0.01, 4))


def step_of(low: float, high: float) -> float:
    """A slider's step, so that it has some five hundred."""
    return max(0.0001, round((high - low) / 500, 4))


Talk = list[dict[str, Any]]
"""The messages of one conversation: role, text, source, transcript, tokens, and the scores."""


def talk(run: monitor.Watch, conversation: int) -> Talk:
    """A conversation of a run, message by message.

    Raises:
        UsageError: If there is no such conversation.
    """
    return run.transcript(conversation).to_dict("records")  # type: ignore[return-value]


def flagged(table: "pd.DataFrame", threshold: float) -> list[monitor.Key]:
    """The messages at or above a threshold, the strongest first."""
    values = table["score"].to_numpy(float)
    over = np.flatnonzero(values >= threshold)  # nan never is
    return monitor.keys(table, over[np.argsort(-values[over], kind="stable")])


def following(
    queue: Sequence[monitor.Key], here: monitor.Key | None, done: Callable[[monitor.Key], bool]
) -> monitor.Key | None:
    """The next in a queue that nobody has judged, from `here` on and round its end; None where all are."""
    start = queue.index(here) + 1 if here in queue else 0
    return next((key for key in (*queue[start:], *queue[:start]) if not done(key)), None)


def tokens(engine: Engine, run: monitor.Watch, probe: str, talk: Talk, message: int) -> tuple[np.ndarray, np.ndarray]:
    """One message of a run as the model reads it: `[tokens]` ids and values, nan where a token does not count."""
    said = Transcript("", tuple(Message(said["role"], said["text"]) for said in talk))
    norms = {hook: float(norm) for hook, norm in run.facts.get("median_norms", {}).items()}
    scorer = scorer_of(engine, [Probe.of(probe)], context=int(run.facts["context"]), median_norms=norms)
    ids, values = scorer.tokens(said, message)
    return ids, values[:, 0]
