"""Presets: named sets of edits that steer towards a persona; those that come with a cache, and a person's own."""

import contextlib
import math
import os
import threading
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from explorer.cache import Cache
from explorer.errors import SteeringError
from explorer.packaged import home
from explorer.records import Edit
from explorer.steering import POSITIONS, STEERING_MODES

LONGEST_NAME = 60
_CHANGE = threading.Lock()
"""Held from reading a file to writing it again: sessions of the app are threads of one process."""
_TEXTS = ("title", "description", "prompt", "positions")


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
    """

    name: str
    title: str
    description: str
    edits: tuple[Edit, ...]
    prompt: str = ""
    positions: str = "answer"
    bundled: bool = False


def load(cache: Cache) -> list[Preset]:
    """The presets that came with a cache, then the person's own.

    Raises:
        SteeringError: If a file cannot be read, or a preset in it makes no sense.
    """
    bundled = [replace(preset, bundled=True) for preset in _read(cache.presets, cache)]
    return [*bundled, *_read(own(cache), cache)]


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
        raise SteeringError(f"{name!r} steers nothing", expected="at least one feature", do="Add a feature first")
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
        edits = tuple(
            Edit(int(e["feature"]), float(e.get("strength", 1.0)), str(e.get("mode", "add"))) for e in entry["edits"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SteeringError(
            f"The edits of preset {name!r} in {path} make no sense ({error!r})",
            expected='edits = [{ feature = 12, strength = 1.5, mode = "add" }]',
            do="Mend the file",
        ) from error
    where = f"Preset {name!r} in {path}"
    if len({e.feature for e in edits}) < len(edits):
        raise SteeringError(f"{where} names a feature twice", expected="each feature once", do="Mend the file")
    if wild := [e.strength for e in edits if not math.isfinite(e.strength)]:
        raise SteeringError(f"{where} has the strength {wild[0]}", expected="a finite number", do="Mend the file")
    texts = {key: str(entry[key]) for key in _TEXTS if key in entry}
    for what, value, known in (
        *(("feature", e.feature, range(cache.n_features)) for e in edits),
        *(("mode", e.mode, STEERING_MODES) for e in edits),
        ("positions", texts.get("positions", "answer"), POSITIONS),
    ):
        if value not in known:
            expected = f"0 to {cache.n_features - 1}" if what == "feature" else ", ".join(map(str, known))
            raise SteeringError(f"{where} has the {what} {value!r}", expected=expected)
    return replace(Preset(name, name, "", edits), **texts)


def _write(path: Path, presets: Iterable[Preset]) -> None:
    """Write the file whole or leave the old one."""
    lines = ["# Presets of your own; the Steer page writes this file.\n"]
    for preset in presets:
        edits = ", ".join(
            f"{{ feature = {e.feature}, strength = {e.strength!r}, mode = {_quoted(e.mode)} }}" for e in preset.edits
        )
        texts = {"name": preset.name, **{key: getattr(preset, key) for key in _TEXTS}}
        lines.append("\n[[preset]]\n" + "".join(f"{key} = {_quoted(text)}\n" for key, text in texts.items()))
        lines.append(f"edits = [{edits}]\n")
    fresh = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text("".join(lines), encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise SteeringError(f"{path} cannot be written ({error})", do="Free space or mend its rights") from error


def _quoted(text: str) -> str:
    """A TOML basic string: control characters and quotes escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
