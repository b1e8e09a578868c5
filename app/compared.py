"""Comparisons and lab results as a page shows them: what moved, in three orders, and models along a series. No Streamlit here."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from explorer.causing import Trial
from explorer.comparing import DAMAGE, FOLDER, MANIFEST, Compared, undo_preset, whole
from explorer.dosing import Rate
from explorer.errors import ExplorerError, RecipeError
from explorer.experiments import MEANS, RESULTS, Measured, Results
from explorer.measuring import Tally
from explorer.presets import Preset

SIDES: dict[str, str] = {"base": "Base", "tuned": "Fine-tune", "control": "Control fine-tune"}
ORDERS: dict[str, str] = {"change": "By change", "beyond": "Beyond control", "effect": "By effect"}
SOURCES: dict[str, str] = {"own": "Own answers", "shared": "Shared text"}
KINDS: dict[str, str] = {"answer": "Answer", "last": "Last prompt token", "prompt": "Prompt"}
AXES: dict[str, str] = {
    "steps": "{:g} steps",
    "good rows": "{:g} good rows",
    "share of bad rows": "{:.0%} bad rows",
    "share of rows dropped": "{:.0%} of rows dropped",
}
VERDICTS: dict[str, str] = {
    "causes": "Added to the base, or taken from the fine-tune, it changes the answers more than random pushes of its length do, in whole text.",
    "only reads": "It tells the answers of the kind from the others, but no push with it changed them beyond what random pushes do.",
    "neither": "It was tested: it neither tells the answers apart nor changes them.",
    "untested": "It moved, and nobody has steered with it yet.",
}


@dataclass(frozen=True, slots=True)
class Mover:
    """A feature in one reading of a comparison.

    Args:
        rank: Its place among all features, the largest rise first, from 1 on; the largest fall is last.
        base, tuned: Mean activations, in SAE units.
        low, high: 95 % interval of the change.
        control: What the control fine-tune changed; nan where there is none.
        trial: None where it was not tested.
    """

    feature: int
    rank: int
    base: float
    tuned: float
    low: float
    high: float
    control: float
    trial: Trial | None
    verdict: str

    @property
    def change(self) -> float:
        return self.tuned - self.base

    @property
    def beyond_control(self) -> float:
        """The change less the control's; nan where there is no control."""
        return self.change - self.control


@dataclass(frozen=True, slots=True)
class Point:
    """The models that lie at one x of a series, one a seed.

    Args:
        tally: Their answers, pooled.
    """

    x: float
    models: tuple[Measured, ...]
    tally: Tally


@dataclass(frozen=True)
class Line:
    """A series of a lab.

    Args:
        axis: What x is, a key of `AXES`.
        beside: The series that is drawn in the same chart, such as a control.
    """

    name: str
    axis: str
    points: tuple[Point, ...]
    beside: "Line | None" = None

    def spelled(self, x: float) -> str:
        """A point for people: 16 steps."""
        return AXES.get(self.axis, "{:g}").format(x)

    def nearest(self, x: float) -> Point:
        return min(self.points, key=lambda point: abs(point.x - x))


def shelf(folder: Path) -> tuple[dict[str, Path], list[ExplorerError]]:
    """The comparisons of a cache by name, and what is wrong with those that cannot be read."""
    found, troubles = {}, []
    for path in sorted((folder / FOLDER).glob(f"*/{MANIFEST}")):
        try:
            with whole(path):
                Compared(path.parent)
        except ExplorerError as error:
            troubles.append(error)
        else:
            found[path.parent.name] = path.parent
    return found, troubles


def opened(folder: Path) -> Compared:
    """A comparison all of whose parts can be read.

    Raises:
        CacheError: If one cannot.
    """
    with whole(folder / MANIFEST):
        found = Compared(folder)
        read = [(found.facts[side]["name"], found.tally(side).rate.value) for side in found.facts["tallies"]]
        read += [(edit.target, edit.strength) for edit in (found.undo.edits if found.undo else ())]
        missing = {"side", "number", "question", "seed", "text", "shown", "whole"} - found.answers[0].keys()
        if missing or not {"base", "tuned"} <= found.facts["tallies"].keys():
            raise KeyError(*missing or ("base and tuned",))
        if not all(isinstance(text, str) and isinstance(value, int | float) for text, value in read):
            raise TypeError("names and numbers are expected")
        ranked(found, "own", "answer")
    return found


def orders(found: Compared) -> dict[str, str]:
    """The orders in which features can be listed: one is beyond the control only where there is one."""
    return {name: words for name, words in ORDERS.items() if name != "beyond" or "control" in found.facts["tallies"]}


@lru_cache(maxsize=32)
def ranked(found: Compared, source: str, kind: str, sort: str = "change") -> tuple[Mover, ...]:
    """The tested features, and the largest rises and falls that nobody tested.

    Args:
        sort: A key of `ORDERS`; the largest rise first, or the largest effect, and then what was not tested by its change.
    """
    with whole(found.folder):
        change = found.change(source, kind)
        place = np.empty(len(change.base), int)
        place[change.order()] = np.arange(1, len(place) + 1)
        tested = {trial.feature: trial for trial in found.trials}
        listed = change.listed(tested, beyond=sort == "beyond")
        if missing := tested.keys() - set(listed):
            raise IndexError(f"no feature {min(missing)}")
        columns = (change.base, change.tuned, change.low, change.high, change.control)
        movers = []
        for f in listed:
            base, tuned, low, high, control = (float(values[f]) for values in columns)
            trial = tested.get(f)
            verdict = trial.verdict if trial else "untested"
            movers.append(Mover(f, int(place[f]), base, tuned, low, high, control, trial, verdict))
    if sort == "effect":
        movers.sort(key=lambda m: (m.trial is None, -m.trial.effect if m.trial else m.rank))
    return tuple(movers)


def agreement(movers: tuple[Mover, ...]) -> tuple[float, int] | None:
    """Spearman's correlation of the two orders over the tested features, and how many they are; None below three."""
    tested = [m for m in movers if m.trial]
    if len(tested) < 3:
        return None
    places = [_ranks(values) for values in ([m.change for m in tested], [m.trial.effect for m in tested if m.trial])]
    if any(len(set(ranks)) < 2 for ranks in places):
        return None
    return float(np.corrcoef(places)[0, 1]), len(tested)


def _ranks(values: list[float]) -> np.ndarray:
    """Ranks from low to high; ties share theirs."""
    at = np.array(values)
    return (at[:, None] > at).sum(1) + ((at[:, None] == at).sum(1) + 1) / 2


def pairs(found: Compared, feature: int) -> list[tuple[float, dict, dict | None]]:
    """The fine-tune's answers that drive a feature: its mean there, the answer, and the base's to the same question and seed."""
    tuned = {row["number"]: row for row in found.answers if row["side"] == "tuned"}
    base = [row for row in found.answers if row["side"] == "base"]
    said = []
    for number, value in found.drivers(feature):
        if (row := tuned.get(number)) is None:
            continue
        same = [other for other in base if other["question"] == row["question"]]
        said.append((value, row, next((o for o in same if o["seed"] == row["seed"]), same[0] if same else None)))
    return said


def as_preset(found: Compared, name: str = "") -> Preset:
    """The joint undo as a preset."""
    return undo_preset(found, name or f"undo {found.name}", found.facts["tuned"]["name"])


def leaked(point: Point) -> Rate:
    """Answers at a point that have a word of the domain's own."""
    return Rate(sum(m.leaked for m in point.models), point.tally.n)


class Lab:
    """What a lab measured, as far as it can be read.

    `lines` are the series by name; those that another one has beside it are drawn there, and `hosts` names that one.

    Args:
        folder: The world.
    Raises:
        RecipeError: If what is there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.results = Results(folder)
        self._folder = folder
        try:
            models = self.results.models
            self.judge = str(self.results.said.get("judge", "malice"))
            lines = {str(said["name"]): line for said in self.results.series if (line := _line(said, models)).points}
            beside = {
                name: other
                for said in self.results.series
                if (name := str(said["name"])) in lines and (other := str(said.get("beside", ""))) in lines
                if other != name and lines[other].axis == lines[name].axis
            }
            self.hosts = {other: name for name, other in beside.items() if other not in beside}
            self.lines = {
                name: replace(line, beside=lines[beside[name]] if name in beside else None)
                for name, line in lines.items()
                if name not in self.hosts
            }
        except DAMAGE as error:
            raise RecipeError(
                f"{folder / RESULTS} is not as it was written ({type(error).__name__}: {error})", do="Run the lab again"
            ) from error

    @cached_property
    def read(self) -> bool:
        """Whether activations were kept."""
        return (self._folder / MEANS).is_file()

    def activity(self, line: Line, feature: int) -> list[tuple[float, list[float]]]:
        """x -> the mean activation of a feature on each seed's own answers, where it was measured.

        Raises:
            RecipeError: If the file of means cannot be read.
        """
        from safetensors import SafetensorError

        found = []
        try:
            for point in line.points:
                values = [means[0][feature] for m in point.models if (means := self.results.means(m.model)) is not None]
                if values:
                    found.append((point.x, [float(v) for v in values]))
        except (SafetensorError, OSError, *DAMAGE) as error:
            raise RecipeError(f"{self._folder / MEANS} cannot be read ({error})", do="Run the lab again") from error
        return found


def _line(said: dict, models: dict[str, Measured]) -> Line:
    points = []
    for point in said["points"]:
        if here := tuple(models[name] for name in point["models"] if name in models):
            points.append(Point(float(point["x"]), here, Tally.pooled(m.tally for m in here)))
    return Line(str(said["name"]), str(said["axis"]), tuple(sorted(points, key=lambda p: p.x)))
