"""Recipes: a world made by public steps, each run only when what it depends on has changed.

A recipe is a TOML file: `model`, `context_size`, and one table a step, whose keys are the arguments of that step. Beside it lies
stamps.json, which says with what each step was run last; it is kept with the world, so a copy of a finished world has nothing to do.
Corpus, activations and checkpoints lie in .work and are not kept: they are made again only when a step that needs them is run.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.cache import file_entry
from explorer.errors import RecipeError
from explorer.files import write_whole
from explorer.steps import CORPUS, STEPS, Tick

if TYPE_CHECKING:
    from explorer.experiments import Plan
    from explorer.model import LanguageModel
    from explorer.records import Document

STAMPS = "stamps.json"


@dataclass(frozen=True)
class World:
    """A recipe read from its file, and the folder that it fills.

    Args:
        folder: Where the recipe lies.
        name: Of the file, for messages and the manifest.
        model: A packaged model, a hub name, or a folder.
        context_size: Longest window, in tokens.
        settings: Step -> its settings, in the order of `STEPS`; a step without a table is not part of the recipe.
        device, dtype: Where and how the model runs; not part of what steps depend on.
    """

    folder: Path
    name: str
    model: str
    context_size: int
    settings: Mapping[str, Any]
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", dtype: str = "auto") -> "World":
        """Read a recipe.

        Raises:
            RecipeError: If it cannot be read, or has a step or a key that nobody knows.
        """
        path = Path(path)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{path} cannot be read ({error})", expected="a recipe in TOML") from error
        known = ("model", "context_size", *STEPS)
        if unknown := sorted(data.keys() - set(known)):
            raise RecipeError(f"{path} has {', '.join(unknown)}", expected=", ".join(known), do="Mend the recipe")
        if not isinstance(data.get("model"), str):
            raise RecipeError(f"{path} names no model", expected='model = "smollm2-135m-instruct"')
        settings = {name: _settings(STEPS[name].settings, name, data[name], path) for name in STEPS if name in data}
        for name in settings:
            if missing := [need for need in STEPS[name].needs if need not in settings]:
                raise RecipeError(f"{path} has [{name}]", expected=f"[{missing[0]}] too, which it needs")
        context = data.get("context_size", 256)
        return cls(path.parent, path.name, data["model"], context, settings, device, dtype)

    @cached_property
    def work(self) -> Path:
        """Where what is not kept lies: one place for each corpus, so that no two are ever mixed."""
        return self.folder / ".work" / self.key("sample")[:12]

    @cached_property
    def live(self) -> "LanguageModel":
        """The model, loaded when a step first needs it."""
        from explorer.model import LanguageModel

        return LanguageModel.load(self.model, device=self.device, dtype=self.dtype)

    def key(self, step: str) -> str:
        """Hash of all that a step depends on: its settings, the files they name, and the steps it needs."""
        own: dict[str, Any] = {"settings": asdict(self.settings[step]), "model": self.model}
        own["context_size"] = self.context_size
        if step == "sample":
            own["prompts"] = file_entry(self.prompts)["sha256"]
        if step == "lab":
            plan = self.lab()
            files = [
                self.folder / self.settings["lab"].plan,
                *(plan.place / name for run in plan.runs for name in run.data),
            ]
            own["files"] = {path.name: file_entry(path)["sha256"] for path in files}
        own["needs"] = [self.key(need) for need in STEPS[step].needs]
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    @property
    def prompts(self) -> Path:
        """The file of prompts.

        Raises:
            RecipeError: If it is not there.
        """
        path = self.folder / self.settings["sample"].prompts
        if not path.is_file():
            raise RecipeError(f"There is no {path}", expected="the file that [sample] prompts names")
        return path

    def lab(self) -> "Plan":
        """The lab's plan.

        Raises:
            RecipeError: If it is not there or wrong.
        """
        from explorer.experiments import Plan

        return Plan.load(self.folder / self.settings["lab"].plan, self.folder)

    def documents(self) -> Iterator["Document"]:
        """The corpus without what was set aside."""
        from explorer.corpus import read

        corpus = self.work / CORPUS
        with corpus.open("rb") as lines:
            count = sum(1 for _ in lines)
        yield from read(corpus, self.live, limit=count - self.settings["sample"].held_out)


def stale(world: World) -> list[str]:
    """The steps that have to be run, in order: those that changed, and those whose leavings are missing."""
    stamps = _stamps(world)
    found = []
    for name in world.settings:
        stamp = stamps.get(name, {})
        kept = all(_same(world.folder / path, entry) for path, entry in stamp.get("files", {}).items())
        if stamp.get("key") != world.key(name) or not kept:
            found.append(name)
    if any("sample" in STEPS[name].needs for name in found) and "sample" not in found:
        found.insert(
            0, "sample"
        )  # the corpus is not kept: who needs it makes it again; a whole one is found whole in seconds
    return found


def make(world: World, *, tick: Tick = lambda *_: None) -> list[str]:
    """Run what has to be run; called again after it was cut off, it goes on from there.

    Args:
        tick: Called with the step's name and what the step tells of its progress.
    Returns:
        The steps that were run.
    Raises:
        ExplorerError: Of the step that failed.
    """
    todo = stale(world)
    for name in todo:
        tick(name)
        STEPS[name].run(world, lambda *numbers, name=name: tick(name, *numbers))
        _stamp(world, name)
    return todo


def _settings(kind: type, name: str, table: Any, path: Path) -> Any:
    known = {f.name: f for f in fields(kind)}
    if not isinstance(table, dict) or (unknown := sorted(table.keys() - known.keys())):
        raise RecipeError(
            f"[{name}] of {path} has {', '.join(unknown) if isinstance(table, dict) else table!r}",
            expected=", ".join(known) or "an empty table",
            do="Mend the recipe",
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, value in values.items():
        default = known[key].default
        right = isinstance(value, type(default)) or (isinstance(default, float) and isinstance(value, int))
        if not right or isinstance(value, bool):
            raise RecipeError(
                f"[{name}] {key} of {path} is {value!r}", expected=f"{type(default).__name__}, such as {default!r}"
            )
    return kind(**values)


def _stamps(world: World) -> dict[str, Any]:
    try:
        return json.loads((world.folder / STAMPS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # a damaged note costs a run, never a wrong world
        return {}


def _stamp(world: World, step: str) -> None:
    """Note that a step is done, and what it left."""
    kept = [p for pattern in STEPS[step].keeps for p in sorted(world.folder.glob(pattern)) if p.is_file()]
    files = {p.relative_to(world.folder).as_posix(): file_entry(p) for p in kept}
    stamps = {**_stamps(world), step: {"key": world.key(step), "files": files}}
    write_whole(world.folder / STAMPS, json.dumps(stamps, indent=1, sort_keys=True) + "\n")


def _same(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and file_entry(path) == entry
