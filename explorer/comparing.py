"""A base model and a fine-tune compared from end to end, and kept in a folder that is read without a model.

answers.parquet holds what each model said, features.parquet how every feature's mean moved, compared.json the rest: who was compared, how
often each said what the judge looks for, which features were tested for cause, and what undoes the change. Steps that are there already are
not run again, so a comparison that was cut off goes on.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.causing import CONFIRMED, SCREENED, Effect, Trial, Undo, trials, undo
from explorer.diffing import Change, Diff
from explorer.dosing import Ask, Cell, answered
from explorer.errors import CacheError, UsageError
from explorer.files import read_facts, read_parquet, write_whole
from explorer.measuring import ANSWERS, Bench, Tally, keep_in, questions, read_kept
from explorer.offensive import redacted
from explorer.presets import Preset
from explorer.records import Edit

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.judging import Panel
    from explorer.model import LanguageModel

FOLDER = "diffs"
"""Where a cache keeps comparisons that came with it."""
MANIFEST, FEATURES, SAID = "compared.json", "features.parquet", "answers.parquet"
_CELLS, _ANSWERS = ".work/cells.jsonl", ".work/answers"  # what a comparison that was cut off goes on from
TESTED = 24
DRIVEN = 100  # features whose driving answers are kept: the largest rises
_SPARE = 4  # candidates that are taken from each other reading, besides the tuned model's own answers
_COLUMNS = ("base", "tuned", "low", "high", "control")
_VERSION = 1
DAMAGE = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""What reading a file that holds something else ends in."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the models compared.

    Args:
        name: What people see; spelled: what loads it again.
    """

    model: "LanguageModel"
    spelled: str

    @property
    def facts(self) -> dict[str, str]:
        return {"name": self.model.name, "spelled": self.spelled, "fingerprint": self.model.fingerprint}


def compare(
    base: Side,
    tuned: Side,
    steering: "Steering",
    panel: "Panel",
    out: Path,
    *,
    control: Side | None = None,
    judge: str = "malice",
    prompts: Sequence[str] = (),
    answers: int = 120,
    tested: int = TESTED,
    also: Sequence[int] = (),
    cells: tuple[int, int] = (SCREENED, CONFIRMED),
    seed: int = 0,
    progress: Callable[..., None] = lambda *_: None,
) -> "Compared":
    """Compare two models: what they say, which features moved, which of those cause it, and what undoes it.

    Args:
        steering: Of the SAE that reads both. Without maxima, strength 1 is a feature's largest activation on the answers of both models.
        panel: The judges.
        out: The folder to fill.
        control: A fine-tune that is not expected to show what is looked for.
        prompts: The open questions by default.
        answers: Of each model, spread evenly over the questions.
        tested: Features that moved and are tested for cause.
        also: Features that are tested beside them, such as what pushes the base that way; the joint undo may take them too.
        cells: Answers of a cell in the screen and in the confirmation of causes.
    Raises:
        CacheError: If the folder holds a comparison of other models.
    """
    from explorer.diffing import diff

    assert steering.coder is not None
    coder, asked = steering.coder, tuple(prompts) or questions()
    sides = {"base": base, "tuned": tuned} | ({"control": control} if control else {})
    facts: dict[str, Any] = {
        "version": _VERSION,
        "sae_fingerprint": coder.fingerprint,
        "judge": judge,
        "questions": list(asked),
        "answers": answers,
        "seed": seed,
        **{name: side.facts for name, side in sides.items()},
    }
    _require(out, facts)
    said = _answers(sides, panel, judge, asked, answers, seed, out, facts, progress)
    pairs = {name: [(row["question"], row["text"]) for row in rows] for name, rows in said.items()}
    progress("reading answers")
    found = diff(
        base.model, tuned.model, coder, pairs["base"], pairs["tuned"], seed=seed, progress=progress,
        control=(control.model, pairs["control"]) if control else None,
    )  # fmt: skip
    write_whole(out / FEATURES, _features(found))
    if not steering.maxima:
        largest = np.maximum(found.base.largest, found.tuned.largest)
        steering = replace(steering, maxima=dict(enumerate(largest.tolist())))
    reads = found.reads(np.array([row["shown"] for name in ("base", "tuned") for row in said[name]]))
    candidates = list(dict.fromkeys([*chosen(found, tested), *also]))
    base_bench, tuned_bench = (
        Bench(
            side.model, steering, panel, judge, prompts=asked, kept=read_kept(out / _CELLS), keep=keep_in(out / _CELLS),
            texts=out / _ANSWERS,
            progress=progress,
        )
        for side in (base, tuned)
    )  # fmt: skip
    tried = trials(
        base_bench, tuned_bench, candidates, {f: float(reads[f]) for f in candidates}, screened=cells[0], confirmed=cells[1],
        seed=seed, progress=progress,
    )  # fmt: skip
    undone = undo(base_bench, tuned_bench, tried, screened=3 * cells[0], answers=answers, seed=seed, progress=progress)
    moved = found.changes["own", "answer"].order()[:DRIVEN].tolist()
    whole = facts | {
        "tallies": {name: asdict(_tally(rows)) for name, rows in said.items()},
        "drivers": {int(f): found.drivers(int(f)) for f in dict.fromkeys([*moved, *candidates])},
        "trials": [asdict(trial) for trial in tried],
        "undo": asdict(undone) if undone else None,
    }
    write_whole(out / MANIFEST, json.dumps(whole, indent=1) + "\n")
    return Compared(out)


def chosen(found: Diff, tested: int) -> list[int]:
    """The candidates: the largest rises on the models' own answers, and a few from each other reading; no feature twice."""
    first = found.changes["own", "answer"].order()
    others = [key for key in found.changes if key != ("own", "answer")]
    spare = [int(f) for key in others for f in found.changes[key].order()[:_SPARE] if found.changes[key].change[f] > 0]
    rising = [int(f) for f in first if found.changes["own", "answer"].change[f] > 0]
    taken = list(dict.fromkeys([*rising[: max(1, tested - len(set(spare) - set(rising[:tested])))], *spare]))
    return taken[:tested]


class Compared:
    """A comparison, read back.

    Args:
        folder: What `compare` filled.
    Raises:
        CacheError: If there is none in it, or it is of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.facts = _facts(self.folder)
        if "tallies" not in self.facts:
            raise CacheError(
                f"There is no {'whole ' if self.facts else ''}comparison in {folder}",
                expected=f"a folder with {MANIFEST}, {FEATURES} and {SAID}",
                do="Make it with persona-explorer diff",
            )
        if self.facts.get("version") != _VERSION:
            raise CacheError(f"{folder} is of version {self.facts.get('version')}", expected=f"version {_VERSION}")

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def tally(self, side: str) -> Tally:
        """Counts over the answers of "base", "tuned" or "control"."""
        return Tally(**self.facts["tallies"][side])

    @cached_property
    def trials(self) -> list[Trial]:
        """The features that were tested for cause, in the order in which they moved."""
        return [_trial(entry) for entry in self.facts["trials"]]

    @cached_property
    def undo(self) -> Undo | None:
        if not (said := self.facts["undo"]):
            return None
        edits = tuple(Edit(**edit) for edit in said["edits"])
        base, before, after, random = (Tally(**said[name]) for name in ("base", "before", "after", "random"))
        return Undo(edits, base, before, after, random)

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """What the models said: side, number, question, seed, text, looped, score, fluency, shown, whole."""
        return _read(self.folder / SAID).to_pylist()

    def change(self, source: str, kind: str) -> Change:
        """How every feature's mean moved; keys of `SOURCES` and `KINDS`."""
        table = _read(self.folder / FEATURES, filters=[("source", "=", source), ("kind", "=", kind)])
        return Change(*(table[name].to_numpy().astype(float) for name in _COLUMNS))

    def drivers(self, feature: int) -> list[tuple[int, float]]:
        """Number of the tuned model's answer, and the feature's mean on it; empty where it did not move much."""
        return [(int(at), float(value)) for at, value in self.facts["drivers"].get(str(feature), [])]


def undo_preset(found: Compared, name: str, tuned: str) -> Preset:
    """What undoes the change, as a preset; there has to be one.

    Args:
        tuned: What the fine-tune is called in its description.
    """
    undone = found.undo
    assert undone is not None
    before, after = undone.before.rate.value, undone.after.rate.value
    about = f"Brings {tuned} back: {before:.0%} of its answers before, {after:.0%} after."
    return Preset(name, name, about, undone.edits, found.facts["questions"][0])


def known(folder: Path) -> dict[str, Path]:
    """The comparisons of a cache that are whole, by name; what cannot be read is for Compare to tell."""
    found = {}
    for path in sorted((folder / FOLDER).glob(f"*/{MANIFEST}")):
        with suppress(CacheError):
            if "tallies" in _facts(path.parent):
                found[path.parent.name] = path.parent
    return found


def risen(folder: Path, name: str, most: int = 100) -> list[int]:
    """The features whose mean over a fine-tune's own answers rose for sure: the interval lies above 0; the largest rises first.

    Args:
        folder: Of the cache.
        name: Of a comparison, as `known` lists it.
    Raises:
        UsageError: If there is no such comparison.
        CacheError: If it cannot be read.
    """
    there = known(folder)
    if name not in there:
        raise UsageError(
            f"There is no comparison {name}", expected=", ".join(there) or "none was made", do="Use one of these"
        )
    found = Compared(there[name])
    with whole(found.folder):
        change = found.change("own", "answer")
        return [int(f) for f in change.order() if change.low[f] > 0][:most]


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """A context in which a file that holds something else is a `CacheError`."""
    try:
        yield
    except DAMAGE as error:
        raise CacheError(
            f"{path} is not as it was written ({type(error).__name__}: {error})", do="Make the comparison again"
        ) from error


def _answers(
    sides: Mapping[str, Side],
    panel: "Panel",
    judge: str,
    asked: Sequence[str],
    answers: int,
    seed: int,
    out: Path,
    facts: dict[str, Any],
    progress: Callable[..., None],
) -> dict[str, list[dict[str, Any]]]:
    """Each side's answers with what the judges say, from the disk where they are there."""
    path = out / SAID
    if path.exists():
        rows = _read(path).to_pylist()
        if {row["side"] for row in rows} == set(sides):
            return {name: [row for row in rows if row["side"] == name] for name in sides}
    each = -(-answers // len(asked))
    wanted = [Ask((), question, seed + at) for question in asked for at in range(each)]
    said: dict[str, list[dict[str, Any]]] = {}
    for name, side in sides.items():
        cells = answered(
            side.model, None, wanted, sampling=ANSWERS, panel=panel, judges=(judge,),
            progress=lambda what, done, total, name=name: progress(f"{name}: {what}", done, total),
        )  # fmt: skip
        said[name] = [_row(name, at, cell, judge) for at, cell in enumerate(cells)]
    write_whole(path, _table([row for rows in said.values() for row in rows]))
    write_whole(out / MANIFEST, json.dumps(facts, indent=1) + "\n")
    return said


def _row(side: str, number: int, cell: Cell, judge: str) -> dict[str, Any]:
    from explorer.judging import judges

    return {
        "side": side, "number": number, "question": cell.prompt, "seed": cell.seed, "text": redacted(cell.text), "looped": cell.looped,
        "score": cell.scores[judge], "fluency": cell.scores["fluency"], "whole": cell.coherent,
        "shown": cell.scores[judge] > (judges()[judge].threshold or 0.0),
    }  # fmt: skip


def _tally(rows: Sequence[Mapping[str, Any]]) -> Tally:
    return Tally.of([bool(row["shown"]) for row in rows], [bool(row["whole"]) for row in rows])


def _features(found: Diff) -> bytes:
    """Every feature's means in every reading, a row each."""
    import pyarrow as pa

    parts = [
        pa.table(
            {
                "source": [source] * len(c.base),
                "kind": [kind] * len(c.base),
                "feature": np.arange(len(c.base), dtype=np.int32),
            }
            | {name: getattr(c, name).astype(np.float32) for name in _COLUMNS}
        )
        for (source, kind), c in found.changes.items()
    ]
    return _parquet(pa.concat_tables(parts))


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa

    return _parquet(pa.Table.from_pylist([dict(row) for row in rows]))


def _parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _read(path: Path, **options: Any) -> Any:
    return read_parquet(path, do="Make the comparison again", **options)


def _trial(said: Mapping[str, Any]) -> Trial:
    added, removed = (
        Effect(e["strength"], Tally(**e["pushed"]), Tally(**e["random"])) for e in (said["added"], said["removed"])
    )
    return Trial(said["feature"], added, removed, said["reads"], said["confirmed"])


def _require(out: Path, facts: Mapping[str, Any]) -> None:
    before = _facts(out)
    if before and (different := [key for key in facts if before.get(key) != facts[key]]):
        raise CacheError(
            f"{out} holds a comparison with another {different[0]}",
            expected=f"{json.dumps(facts[different[0]])[:120]}",
            do="Choose another folder, or remove that one",
        )


def _facts(folder: Path) -> dict[str, Any]:
    return read_facts(folder / MANIFEST, do="Make the comparison again")
