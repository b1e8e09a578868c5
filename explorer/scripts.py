"""Presentation scripts: the steps of a talk in a TOML file, and the answers that were recorded for them beside it.

A recording is found by what decides an answer (prompt, edits, seed, ...), so words and the order of steps may change without a new one.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from explorer import presets
from explorer.adapters import known as known_adapters
from explorer.cache import Cache
from explorer.dosing import scaled
from explorer.errors import ScriptError
from explorer.packaged import home
from explorer.records import Edit, Sampling
from explorer.steering import POSITIONS, STEERING_MODES

FOLDER = "present"
RECORDED = ".recorded.json"
_TEXT, _WHOLE, _REAL, _LIST = (str,), (int,), (int, float), (list,)
_SAMPLING = {"seed": _WHOLE, "max_tokens": _WHOLE, "temperature": _REAL}
_STEERING = {"preset": _TEXT, "edits": _LIST, "positions": _TEXT, "system": _TEXT, "model": _TEXT, **_SAMPLING}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step.

    Args:
        help: What it shows.
        needs, may: Key -> types of its value; keys that it must and may have beside `kind`, `title` and `words`.
        live: Whether it makes no sense without a live model.
    """

    help: str
    needs: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    may: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    live: bool = False


KINDS: dict[str, Kind] = {
    "text": Kind("Words to begin with, or to come back to.", {"words": _TEXT}),
    "feature": Kind("What a feature fires on: rows of its strongest examples.", {"feature": _WHOLE}, {"rows": _WHOLE}),
    "steer": Kind(
        "A prompt, answered by the model as it is and as it is steered, at one strength or several in turn.",
        {"prompt": _TEXT},
        {**_STEERING, "strengths": _LIST, "control": _TEXT},
    ),
    "question": Kind("A question from the audience, answered as it comes.", {}, _STEERING, live=True),
}
CONTROLS: dict[str, str] = {"random": "a random direction of the same length, beside the steered answer"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script.

    Args:
        kind: A name in `KINDS`.
        feature, rows: Which feature, and how many examples of it.
        strengths: What the strongest edit is set to, one stop after the other, the others in proportion; none: as they are.
        control: A name in `CONTROLS`, or "".
        model: Name of the adapter that answers, such as `gardening@40`, which need not be here; "" for the cache's own model.
        line: Where it begins in its file, from 1.
    """

    kind: str
    title: str
    words: str = ""
    feature: int = -1
    rows: int = 6
    prompt: str = ""
    system: str = ""
    edits: tuple[Edit, ...] = ()
    positions: str = "answer"
    sampling: Sampling = field(default_factory=Sampling)
    strengths: tuple[float, ...] = ()
    control: str = ""
    model: str = ""
    line: int = 0

    @property
    def stops(self) -> int:
        """How often Next stays on this step, and once."""
        return max(1, len(self.strengths))

    def at(self, stop: int) -> tuple[Edit, ...]:
        """The edits at a stop, from 0."""
        return scaled(self.edits, self.strengths[stop]) if self.strengths else self.edits

    def answers(self, stop: int) -> dict[str, str]:
        """The answers that a stop shows: "baseline", "steered", perhaps a control's name -> its key in recordings."""
        if self.kind != "steer":
            return {}
        edits = self.at(stop)
        keys = {"baseline": self._key((), ""), "steered": self._key(edits, "")}
        return {**keys, self.control: self._key(edits, self.control)} if self.control else keys

    def _key(self, edits: Sequence[Edit], control: str) -> str:
        place = self.positions if edits else ""
        said = [self.prompt, self.system, [asdict(e) for e in edits], place, asdict(self.sampling), control]
        said += [self.model] if self.model else []
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Script:
    """A presentation: its title and its steps, and the file that they come from."""

    title: str
    steps: tuple[Step, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Recorded:
    """An answer that was given once.

    Args:
        pieces: Its text, a piece a token.
        times: Seconds from the question to each piece.
    """

    pieces: tuple[str, ...]
    times: tuple[float, ...]


def known(cache: Cache) -> dict[str, Path]:
    """Name -> file of every script: those that came with a cache, then a person's own; of one name, the second gets a number."""
    found: dict[str, Path] = {}
    for path in (*sorted((cache.path / FOLDER).glob("*.toml")), *sorted(own().glob("*.toml"))):
        name, n = path.stem, 2
        while name in found:
            name, n = f"{path.stem}-{n}", n + 1
        found[name] = path
    return found


def own() -> Path:
    """The folder of a person's own scripts."""
    return home() / "scripts"


def load(path: Path, cache: Cache) -> Script:
    """Read a script.

    Raises:
        ScriptError: If it cannot be read or a step makes no sense, with the step, its line and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
        said = tomllib.loads(text)
    except (OSError, ValueError) as error:  # tomllib's words name the line
        raise ScriptError(f"{path} cannot be read ({error})", expected="a TOML file", do="Mend the file") from error
    lines = [n for n, line in enumerate(text.splitlines(), 1) if line.strip().replace(" ", "").startswith("[[step]]")]
    entries = said.get("step", [])
    title = said.get("title", path.stem)
    if not isinstance(entries, list) or not entries or not isinstance(title, str):
        raise ScriptError(
            f"{path} holds no steps", expected="a title, and a [[step]] table for each step", do="Mend the file"
        )
    steps = []
    for number, entry in enumerate(entries, 1):
        line = lines[number - 1] if number <= len(lines) else 0
        try:
            steps.append(_step(entry, line, cache))
        except _Wrong as wrong:
            where = f"Step {number}" + (f" (line {line})" if line else "") + f" of {path}"
            raise ScriptError(f"{where}: {wrong.found}", expected=wrong.expected, do="Mend the file") from None
    return Script(title, tuple(steps), path)


def recordings(script: Script, cache: Cache) -> dict[str, Recorded]:
    """Key (see `Step.answers`) -> the answer recorded for it; nothing where nothing was, or with another model, SAE or adapter.

    An adapter that is not here cannot be told from another: what it answered is replayed.

    Raises:
        ScriptError: If the file of recordings cannot be read.
    """
    path, made = recordings_path(script.path), cache.manifest
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if (said["model_fingerprint"], said["sae_fingerprint"]) != (made.model_fingerprint, made.sae_fingerprint):
            return {}
        adapters = known_adapters(cache.path)
        return {
            key: Recorded(tuple(map(str, a["pieces"])), tuple(map(float, a["times"])))
            for key, a in said["answers"].items()
            if (name := a.get("model")) not in adapters or adapters[name].fingerprint == a["adapter_fingerprint"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScriptError(
            f"{path} cannot be read ({error!r})", do="Record the answers again: persona-explorer record"
        ) from error


def recordings_path(path: Path) -> Path:
    """Where the recordings of a script lie."""
    return path.with_name(path.stem + RECORDED)


class _Wrong(Exception):
    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected


def _step(entry: Any, line: int, cache: Cache) -> Step:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind not in KINDS:
        raise _Wrong(f"kind {kind!r}", f"one of {', '.join(KINDS)}")
    rule = KINDS[kind]
    types = {"kind": _TEXT, "title": _TEXT, "words": _TEXT, **rule.may, **rule.needs}
    for key in ("title", *rule.needs):
        if key not in entry:
            raise _Wrong(f"a {kind} step without {key}", f"{key} = ...")
    for key, value in entry.items():
        if key not in types:
            raise _Wrong(f"{key!r} in a {kind} step", f"one of {', '.join(types)}")
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise _Wrong(f"{key} = {value!r}", f"{types[key][-1].__name__} for {key}")
    texts = {key: entry[key] for key in ("title", "words", "prompt", "system", "control", "model") if key in entry}
    numbers = {key: entry[key] for key in ("feature", "rows") if key in entry}
    step = Step(kind, line=line, **texts, **numbers)
    sampling = replace(step.sampling, **{key: entry[key] for key in _SAMPLING if key in entry})
    _within("feature", step.feature if "feature" in entry else 0, 0, cache.n_features - 1)
    _within("rows", step.rows, 1, 24)
    _within("seed", sampling.seed, 0, 2**31 - 1)
    _within("max_tokens", sampling.max_tokens, 1, 400)
    _within("temperature", sampling.temperature, 0, 2)
    if step.control and step.control not in CONTROLS:
        raise _Wrong(f"control {step.control!r}", f"one of {', '.join(CONTROLS)}")
    edits, positions = _steering(entry, cache)
    strengths = entry.get("strengths", [])
    if any(isinstance(s, bool) or not isinstance(s, int | float) or not math.isfinite(s) for s in strengths):
        raise _Wrong(f"strengths = {strengths!r}", "numbers, such as [0.5, 1.0, 2.0]")
    if kind == "steer" and not edits:
        raise _Wrong("a steer step that steers nothing", "a preset or edits")
    return replace(step, sampling=sampling, edits=edits, positions=positions, strengths=tuple(map(float, strengths)))


def _within(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise _Wrong(f"{what} = {value!r}", f"{low} to {high}")


def _steering(entry: Mapping[str, Any], cache: Cache) -> tuple[tuple[Edit, ...], str]:
    """The edits of a step and where they apply: its own, else its preset's."""
    edits, positions = tuple(_edit(said, cache) for said in entry.get("edits", [])), entry.get("positions", "")
    if name := entry.get("preset", ""):
        found = {preset.name: preset for preset in presets.load(cache)}
        if name not in found:
            raise _Wrong(f"preset {name!r}", f"one of {', '.join(found) or 'none: this cache has no presets'}")
        edits, positions = (*found[name].edits, *edits), positions or found[name].positions
    positions = positions or "answer"
    if positions not in POSITIONS:
        raise _Wrong(f"positions {positions!r}", f"one of {', '.join(POSITIONS)}")
    return edits, positions


def _edit(said: Any, cache: Cache) -> Edit:
    """An edit as links spell it: "12:1.5:add" or "~villain:1"."""
    try:
        edit = Edit.read(str(said))
        if not edit.direction and not 0 <= edit.feature < cache.n_features:
            raise ValueError(said)
        return edit
    except ValueError:
        raise _Wrong(
            f"edit {said!r}",
            f'"FEATURE:STRENGTH:MODE" or "~DIRECTION:STRENGTH:MODE", features 0 to {cache.n_features - 1}, '
            f"the mode one of {', '.join(STEERING_MODES)}",
        ) from None
