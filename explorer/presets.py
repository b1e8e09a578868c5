"""Presets: named sets of edits that steer towards a persona; those that come with a cache, and a person's own."""

import json
import math
import threading
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from explorer.cache import Cache
from explorer.errors import SteeringError
from explorer.files import write_whole
from explorer.packaged import home
from explorer.records import Edit
from explorer.steering import POSITIONS, STEERING_MODES

LONGEST_NAME = 60
_CHANGE = threading.Lock()
"""Held from reading a file to writing it again: sessions of the app are threads of one process."""
_TEXTS = ("title", "description", "prompt", "positions")
VERDICTS: dict[str, str] = {
    "causes": "Turning it up makes the persona speak, and pushes of the same size elsewhere do not.",
    "only reads": "It fires on the persona's words, but turning it up does not make the model speak like it.",
    "neither": "It was measured: it hardly tells the persona's words apart, and turning it up does not make the model speak like it.",
    "untested": "Nobody has measured it against controls yet.",
}
RATES: dict[str, str] = {
    "base": "Share of answers of this kind as the model is.",
    "steered": "Share of answers of this kind with the preset.",
    "random": "Share of answers of this kind with random directions of the same size, on average.",
    "flipped": "Share of answers of this kind with the preset's sign flipped.",
    "coherent": "Share of steered answers that are whole, fluent text.",
}
"""What is measured of a preset, each with its 95 % interval."""
REPORT, PERSONAS = "report.json", "personas"
"""Where a cache's report says how its presets did."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of edits.

    Args:
        name: What it is called on the command line and in files.
        title: What people see.
        description: One sentence about what it does.
        edits: What is steered.
        prompt: A question that shows it well; "" where any will do.
        positions: Where it steers: one of `explorer.steering.POSITIONS`.
        bundled: Whether it came with the cache; the others are a person's own.
        measured: How it did: `judge`, `n` (answers a figure), `verdict` (one of `VERDICTS`), and each of `RATES` that was measured as
            (value, low, high); None where nobody measured.
    """

    name: str
    title: str
    description: str
    edits: tuple[Edit, ...]
    prompt: str = ""
    positions: str = "answer"
    bundled: bool = False
    measured: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return str((self.measured or {}).get("verdict", "untested"))

    @property
    def judge(self) -> str:
        """Name of the judge that said which answers are of the preset's kind; "" where nobody measured."""
        return str((self.measured or {}).get("judge", ""))

    @property
    def spelled(self) -> list[str]:
        """Its edits as links and the command line spell them: what figures are of."""
        return [e.spelled for e in self.edits]

    @property
    def features(self) -> list[int]:
        """The features among what it steers."""
        return [edit.feature for edit in self.edits if not edit.direction]

    def rate(self, name: str) -> tuple[float, float, float] | None:
        """One of `RATES` as (value, low, high); None where it was not measured."""
        return (self.measured or {}).get(name)


def load(cache: Cache) -> list[Preset]:
    """The presets that came with a cache, then the person's own.

    Raises:
        SteeringError: If a file cannot be read, or a preset in it makes no sense.
    """
    reported = _reported(cache)
    bundled = [replace(preset, bundled=True) for preset in _read(cache.presets, cache)]
    return [*(_with_figures(preset, reported.get(preset.name)) for preset in bundled), *_read(own(cache), cache)]


def named(cache: Cache, name: str) -> Preset:
    """The preset of this name.

    Raises:
        SteeringError: If there is none.
    """
    known = {preset.name: preset for preset in load(cache)}
    if name not in known:
        raise SteeringError(
            f"There is no preset {name!r}", expected=", ".join(known) or "a preset", do="Name one of these"
        )
    return known[name]


def _reported(cache: Cache) -> dict[str, dict[str, Any]]:
    path = cache.path / REPORT
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(PERSONAS, {}) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise SteeringError(
            f"{path} cannot be read ({error})", do="Compute it again: persona-explorer report"
        ) from error


def _with_figures(preset: Preset, reported: dict[str, Any] | None) -> Preset:
    """The preset with what the report measured of these very edits."""
    if reported is None or reported.get("edits") != preset.spelled or reported.get("judge") != preset.judge:
        return preset
    return replace(preset, measured=_measured({k: v for k, v in reported.items() if k != "edits"}))


def own(cache: Cache) -> Path:
    """The file of a person's own presets: one for each SAE, whichever cache it is seen through."""
    return home() / "presets" / f"{cache.manifest.sae_fingerprint[:16]}.toml"


def save(cache: Cache, preset: Preset) -> Preset:
    """Keep a preset of one's own; one of the same name is replaced.

    Raises:
        SteeringError: If it has no name or no edits, bears a bundled one's name, or cannot be written.
    """
    name = " ".join(preset.name.split())
    if not name or len(name) > LONGEST_NAME:
        raise SteeringError(f"{name!r} is no name", expected=f"1 to {LONGEST_NAME} characters", do="Choose another")
    if not preset.edits:
        raise SteeringError(
            f"{name!r} steers nothing", expected="at least one edit", do="Add a feature or a direction first"
        )
    if any(other.name == name for other in load(cache) if other.bundled):
        raise SteeringError(f"{name!r} came with the cache", do="Choose another name")
    kept = replace(preset, name=name, title=preset.title or name, bundled=False)
    with _CHANGE:
        _write(own(cache), [*(p for p in _read(own(cache), cache) if p.name != name), kept])
    return kept


def remove(cache: Cache, name: str) -> None:
    """Forget a preset of one's own; none of that name is no error."""
    with _CHANGE:
        mine = _read(own(cache), cache)
        if any(p.name == name for p in mine):
            _write(own(cache), [p for p in mine if p.name != name])


def _read(path: Path | None, cache: Cache) -> list[Preset]:
    if path is None or not path.is_file():
        return []
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("preset", [])
        return [_preset(entry, path, cache) for entry in entries]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SteeringError(
            f"{path} cannot be read ({error})", expected="[[preset]] tables", do="Mend or move the file"
        ) from error


def _preset(entry: dict[str, Any], path: Path, cache: Cache) -> Preset:
    name = str(entry.get("name", ""))
    try:
        edits = tuple(map(_edit, entry["edits"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SteeringError(
            f"The edits of preset {name!r} in {path} make no sense ({error!r})",
            expected='edits = [{ feature = 12, strength = 1.5, mode = "add" }, { direction = "villain" }]',
            do="Mend the file",
        ) from error
    where = f"Preset {name!r} in {path}"
    if len({e.target for e in edits}) < len(edits):
        raise SteeringError(f"{where} names a feature twice", expected="each feature once", do="Mend the file")
    if wild := [e.strength for e in edits if not math.isfinite(e.strength)]:
        raise SteeringError(f"{where} has the strength {wild[0]}", expected="a finite number", do="Mend the file")
    texts = {key: str(entry[key]) for key in _TEXTS if key in entry}
    for what, value, known in (
        *(("feature", e.feature, range(cache.n_features)) for e in edits if not e.direction),
        *(("mode", e.mode, STEERING_MODES) for e in edits),
        ("positions", texts.get("positions", "answer"), POSITIONS),
    ):
        if value not in known:
            expected = f"0 to {cache.n_features - 1}" if what == "feature" else ", ".join(map(str, known))
            raise SteeringError(f"{where} has the {what} {value!r}", expected=expected)
    try:
        measured = _measured(entry["measured"]) if "measured" in entry else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SteeringError(
            f"The measured figures of preset {name!r} in {path} make no sense ({error!r})",
            expected=f"judge, n, verdict ({', '.join(VERDICTS)}), and rates such as steered = [0.9, 0.84, 0.94]",
            do="Mend the file",
        ) from error
    return replace(Preset(name, name, "", edits, measured=measured), **texts)


def _edit(entry: dict[str, Any]) -> Edit:
    """An edit as files write it."""
    if "direction" in entry and "feature" in entry:
        raise ValueError("a feature and a direction in one edit")
    how = float(entry.get("strength", 1.0)), str(entry.get("mode", "add"))
    return Edit.of(f"~{entry['direction']}", *how) if "direction" in entry else Edit(int(entry["feature"]), *how)


def _measured(entry: dict[str, Any]) -> dict[str, Any]:
    """Figures as files write them, checked; what is no figure that is known here raises."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if key in RATES:
            found[key] = rate, low, high = tuple(map(float, value))
            if not 0 <= low <= rate <= high <= 1:
                raise ValueError(f"{key} = {value}")
        else:
            found[key] = {"judge": str, "n": int, "verdict": str}[key](value)
    if found.get("verdict", "untested") not in VERDICTS:
        raise ValueError(found["verdict"])
    return found


def as_toml(presets: Iterable[Preset], about: str) -> str:
    """Presets as a file holds them.

    Args:
        about: Said in the file's first line.
    """
    lines = [f"# {about}\n"]
    for preset in presets:
        edits = ", ".join(
            f"{{ {_lever(e)}, strength = {e.strength!r}, mode = {_quoted(e.mode)} }}" for e in preset.edits
        )
        texts = {"name": preset.name, **{key: getattr(preset, key) for key in _TEXTS}}
        lines.append("\n[[preset]]\n" + "".join(f"{key} = {_quoted(text)}\n" for key, text in texts.items()))
        lines.append(f"edits = [{edits}]\n")
        if preset.measured:
            lines.append("\n[preset.measured]\n" + "".join(f"{k} = {_value(v)}\n" for k, v in preset.measured.items()))
    return "".join(lines)


def _write(path: Path, presets: Iterable[Preset]) -> None:
    try:
        write_whole(path, as_toml(presets, "Presets of your own; the Steer page writes this file."))
    except OSError as error:
        raise SteeringError(f"{path} cannot be written ({error})", do="Free space or mend its rights") from error


def _lever(edit: Edit) -> str:
    return f"direction = {_quoted(edit.direction)}" if edit.direction else f"feature = {edit.feature}"


def _value(value: Any) -> str:
    """A figure, or several, or a text, in TOML."""
    return _quoted(value) if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value)


def _quoted(text: str) -> str:
    """A TOML basic string: control characters and quotes escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
