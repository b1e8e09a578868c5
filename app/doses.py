"""Dose strips and sweeps: decoded and judged in the background, and kept on disk, so that what was asked before is there at once."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.jobs import Job
from app.settings import QUESTIONS
from explorer.files import write_whole
from explorer.packaged import home
from explorer.records import Edit, Sampling
from explorer.steering import STEERING_MODES

if TYPE_CHECKING:
    from app.engine import Engine
    from explorer.dosing import Cell

STRENGTHS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
KEPT = 300  # files
ROWS = 64  # of a batch: a live run that comes meanwhile waits for a step of it
SAMPLING = Sampling(max_tokens=40)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is decoded and judged: every push at every strength, on every question.

    Args:
        pushes: Sets of edits, each with its strongest at any strength: it is scaled.
        strengths: What the strongest edit of a push is set to, the others in proportion.
        judges: Names of judges; those that cost money may be among them.
        only: Target of the one edit that is set instead, the others staying as they are; "" for none.
    """

    pushes: tuple[tuple[Edit, ...], ...]
    strengths: tuple[float, ...]
    questions: tuple[str, ...]
    positions: str
    sampling: Sampling
    judges: tuple[str, ...]
    only: str = ""


def strips(edits: Sequence[Edit], positions: str, judges: Sequence[str]) -> dict[str, Asked]:
    """What the dose strips ask: target of each edit that has a strength -> a few questions over its slider's range.

    The other edits are held as they are. Where the slider itself stands makes no difference to its strip.
    """

    def one(edit: Edit) -> Asked:
        mode, held = STEERING_MODES[edit.mode], tuple(replace(e, strength=1.0) if e is edit else e for e in edits)
        strengths = tuple(s for s in STRENGTHS if mode.lowest <= s <= mode.highest)
        return Asked((held,), strengths, QUESTIONS[:4], positions, SAMPLING, tuple(judges), edit.target)

    return {edit.target: one(edit) for edit in edits if STEERING_MODES[edit.mode].uses_strength}


def key(engine: "Engine", asked: Asked) -> str:
    """A name for `asked` that changes with whatever its answers or scores depend on."""
    from explorer.traits import traits

    made, taught = engine.cache.manifest, traits()
    named = {edit.direction for push in asked.pushes for edit in push if edit.direction}
    known = engine.directions() if named else {}
    said = {
        "asked": asdict(asked),
        "model": engine.fingerprint,
        "sae": made.sae_fingerprint,
        "directions": {name: known[name].mark for name in sorted(named & known.keys())},
        "traits": {name: _sha(repr(taught[name]).encode()) for name in asked.judges if name in taught},
        "fluency": _fluency(),
    }
    return _sha(json.dumps(said, sort_keys=True).encode())


@cache
def _fluency() -> str:
    """What changes with what the fluency judge is fitted on."""
    from explorer.fluency import sample

    return _sha(repr(sample()).encode())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def measure(
    engine: "Engine", asked: Asked, name: str, job: Job, told: Callable[[float], None] | None = None
) -> "list[Cell]":
    """Decode and judge, one push after the other, and keep the answers under `name` unless the job was stopped.

    Args:
        told: Is told how far this is, 0 to 1; the job's own progress where nobody else wants to know.
    """
    from explorer import dosing

    if (known := load(name)) is not None:  # somebody else asked the same meanwhile
        return known
    panel, cells = engine.panel(), []
    steering = engine.steering(chain(*asked.pushes), asked.positions)
    parts = [(push, some) for push in asked.pushes for some in _parts(asked)]
    for at, (push, strengths) in enumerate(parts):

        def progress(_: str, done: int, total: int, before: int = at) -> None:
            far = (before + (done / total if total else 0.0)) / len(parts)
            told(far) if told else setattr(job, "progress", far)

        cells += dosing.grid(
            engine.model, steering, [push], strengths, asked.questions, only=asked.only, seeds=(asked.sampling.seed,),
            sampling=asked.sampling, panel=panel, judges=asked.judges, progress=progress, should_stop=job.should_stop,
        )  # fmt: skip
        if job.should_stop():
            return cells
    save(name, cells)
    return cells


def measure_strips(engine: "Engine", asked: Mapping[str, Asked], job: Job) -> "dict[str, list[Cell]]":
    """Measure several strips as one piece of work; each is kept as soon as it is whole."""
    measured: dict[str, list[Cell]] = {}
    for at, (target, one) in enumerate(asked.items()):

        def told(far: float, before: int = at) -> None:
            job.progress = (before + far) / len(asked)

        measured[target] = measure(engine, one, key(engine, one), job, told)
        if job.should_stop():
            break
    return measured


def _parts(asked: Asked) -> list[tuple[float, ...]]:
    """The strengths in groups of as many rows as one step may have."""
    size = max(1, ROWS // max(1, len(asked.questions)))
    return [asked.strengths[at : at + size] for at in range(0, len(asked.strengths), size)]


def folder() -> Path:
    """Where answers are kept."""
    return home() / "doses"


def load(name: str) -> "list[Cell] | None":
    """What is kept under `name`; None where nothing is, or nothing that can be read."""
    from explorer.dosing import Cell

    try:
        said: list[dict[str, Any]] = json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))
        return [Cell(**{**cell, "edits": tuple(Edit(**edit) for edit in cell["edits"])}) for cell in said]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save(name: str, cells: "Sequence[Cell]") -> None:
    """Keep answers, whole or not at all; the oldest make room. Where nothing can be written, nothing is kept."""
    path = folder() / f"{name}.json"
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps([asdict(cell) for cell in cells], ensure_ascii=False))
        kept = sorted(folder().glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            old.unlink()
