"""How often a push makes answers of a kind: counts over open questions, each measured once and kept under a key of all it depends on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.dosing import FLUENCY, Ask, Cell, Control, Rate, controls, flipped, judged, written
from explorer.files import append_json, json_lines, write_whole
from explorer.judging import Panel, judges
from explorer.records import Edit, Sampling

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.model import LanguageModel

QUESTIONS = Path(__file__).parent / "traits" / "questions.txt"
ANSWERS = Sampling(max_tokens=60, temperature=0.8)
RANDOM = 20
"""Random directions that are pooled into one control."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the answers of one cell.

    Args:
        n: Answers.
        shown: Of them, those that the judge counts as of its kind.
        whole: Those that are coherent.
        both: Those that are both.
    """

    n: int
    shown: int
    whole: int
    both: int

    @classmethod
    def of(cls, shown: Sequence[bool], whole: Sequence[bool]) -> "Tally":
        """Counts over answers of which it is known whether they are of the kind, and whether they are coherent."""
        return cls(len(shown), sum(shown), sum(whole), sum(a and b for a, b in zip(shown, whole, strict=True)))

    @classmethod
    def pooled(cls, tallies: Iterable["Tally"]) -> "Tally":
        """Counts over the answers of several cells."""
        some = list(tallies)
        return cls(*(sum(getattr(t, name) for t in some) for name in ("n", "shown", "whole", "both")))

    @property
    def rate(self) -> Rate:
        """Share of all answers that are of the kind."""
        return Rate(self.shown, self.n)

    @property
    def coherent(self) -> Rate:
        """Share of all answers that are whole."""
        return Rate(self.whole, self.n)

    @property
    def rate_of_whole(self) -> float:
        """Share of the whole answers that are of the kind; 0 where none is whole."""
        return self.both / self.whole if self.whole else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A push beside what it is compared with: the model as it is, random directions pooled, the other sign."""

    base: Tally
    steered: Tally
    random: Tally
    flipped: Tally

    @property
    def causes(self) -> bool:
        """Whether it does more than random pushes do, beyond chance, in text that is mostly whole."""
        return self.steered.rate.interval[0] > self.random.rate.interval[1] and self.steered.coherent.value >= 0.5

    @property
    def rates(self) -> dict[str, Rate]:
        """The rates that presets carry, by their names in `explorer.presets.RATES`."""
        rates = {"base": self.base.rate, "steered": self.steered.rate, "random": self.random.rate}
        return rates | {"flipped": self.flipped.rate, "coherent": self.steered.coherent}


def questions() -> tuple[str, ...]:
    """The open questions that every measurement asks: none suggests a persona."""
    return tuple(line.strip() for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line.strip())


def counted(cells: Sequence[Cell], judge: str, threshold: float | None) -> Tally:
    """Counts over judged answers."""
    return Tally.of([cell.scores[judge] > (threshold or 0.0) for cell in cells], [cell.coherent for cell in cells])


class Bench:
    """Measures pushes, and never the same one twice.

    Args:
        model, steering, panel: Who answers, with what rows are steered, and who judges.
        judge: A key of `explorer.judging.judges()` that has a threshold.
        prompts: The open questions by default.
        kept: Key -> counts of what was measured before; added to. The key names the judge as it is: another one counts anew.
        keep: Called after each cell, to write `kept` down.
        texts: A folder that keeps what was answered, so that another judge counts without another answer; None keeps nothing.
    """

    def __init__(
        self,
        model: "LanguageModel",
        steering: "Steering",
        panel: Panel,
        judge: str,
        *,
        prompts: Sequence[str] = (),
        sampling: Sampling = ANSWERS,
        kept: dict[str, dict[str, int]] | None = None,
        keep: Callable[[str, dict[str, int]], None] = lambda key, counts: None,
        texts: Path | None = None,
        progress: Callable[..., None] = lambda *_: None,
    ) -> None:
        self.used: set[str] = set()
        self._folder = texts
        self.model, self.steering, self.panel, self.judge = model, steering, panel, judge
        self.prompts, self.sampling = tuple(prompts) or questions(), sampling
        self.kept, self._keep, self._progress = {} if kept is None else kept, keep, progress
        self.threshold = judges()[judge].threshold if judge in judges() else 0.5

    def tally(self, pushes: Sequence[Control], n: int, seed: int = 0) -> Tally:
        """Counts over at least `n` answers, spread evenly over the pushes and, as far as they go, over the questions."""
        each = -(-n // len(pushes))
        asked = [
            Ask(
                push.edits,
                self.prompts[(at * each + i) % len(self.prompts)],
                seed + (at * each + i) // len(self.prompts),
            )
            for at, push in enumerate(pushes)
            for i in range(each)
        ]
        answers = self._key(pushes, asked)
        key = f"{answers}-{self.panel.identity((self.judge, FLUENCY))}"
        self.used.add(key)
        if key not in self.kept:
            self.kept[key] = asdict(
                self._count(judged(asked, self._texts(answers, pushes, asked), self.panel, (self.judge,)))
            )
            self._keep(key, self.kept[key])
        return Tally(**self.kept[key])

    def _texts(self, key: str, pushes: Sequence[Control], asked: Sequence[Ask]) -> list[tuple[str, bool]]:
        """What is answered, from the disk where it is there."""
        path = self._folder / f"{key}.json" if self._folder else None
        if path and path.is_file():
            return [(text, looped) for text, looped in json.loads(path.read_text(encoding="utf-8"))]
        directions = {**self.steering.directions}
        for push in pushes:
            directions |= push.directions
        steering = replace(self.steering, directions=directions)
        texts = written(self.model, steering, asked, sampling=self.sampling, progress=self._progress)
        if path:
            write_whole(path, json.dumps(texts, ensure_ascii=False))
        return texts

    def edits(self, edits: Sequence[Edit], n: int, seed: int = 0) -> Tally:
        """Counts over answers that are steered with `edits`; none: the model as it is."""
        return self.tally([Control("", tuple(edits), "flipped")], n, seed)

    def compare(self, edits: Sequence[Edit], n: int = 120, seed: int = 0) -> Comparison:
        """The push, and all its controls, over `n` answers each."""
        randoms = [c for c in controls(edits, self.steering, n=RANDOM, seed=seed) if c.kind == "random"]
        return Comparison(
            self.edits((), n, seed), self.edits(edits, n, seed), self.tally(randoms, n, seed),
            self.edits(flipped(edits), n, seed),
        )  # fmt: skip

    def _count(self, cells: Sequence[Cell]) -> Tally:
        return counted(cells, self.judge, self.threshold)

    def _key(self, pushes: Sequence[Control], asked: Sequence[Ask]) -> str:
        """Hash of all that the answers depend on."""
        vectors = {**self.steering.directions}
        for push in pushes:
            vectors |= push.directions
        named = {e.direction for push in pushes for e in push.edits if e.direction}
        said = {
            "model": self.model.fingerprint,
            "sae": self.steering.coder.fingerprint if self.steering.coder else "",
            "maxima": {e.feature: self.steering.maxima[e.feature] for p in pushes for e in p.edits if not e.direction},
            "directions": {name: vectors[name].mark for name in sorted(named)},
            "positions": self.steering.positions,
            "sampling": asdict(self.sampling),
            "asked": [([asdict(e) for e in ask.edits], ask.prompt, ask.seed) for ask in asked],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


def read_kept(path: Path) -> dict[str, dict[str, int]]:
    """What a file of lines holds, key -> counts; a last line that was cut off is left out."""
    found: dict[str, dict[str, int]] = {}
    for entry in json_lines(path):
        with suppress(KeyError, TypeError):  # a line that says something else: that cell is measured again
            found[entry["key"]] = entry["counts"]
    return found


def keep_in(path: Path) -> Callable[[str, Mapping[str, int]], None]:
    """A function that adds a cell to a file of lines."""

    def keep(key: str, counts: Mapping[str, int]) -> None:
        append_json(path, {"key": key, "counts": dict(counts)})

    return keep
