"""LoRA adapters: found, checked, and merged into a copy of the model that they were trained on.

A merged copy is a `LanguageModel` like any other: it is read, steered and fingerprinted by the same code as its base.
"""

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.errors import ModelError

if TYPE_CHECKING:
    from explorer.model import LanguageModel

FOLDER = "adapters"
"""Where a cache keeps them: adapters/<run>/step-<n>/."""
WEIGHTS, CONFIG, FACTS = "adapter_model.safetensors", "adapter_config.json", "finetune.json"
_STEP = "step-"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on the disk, as peft writes it.

    Args:
        run: The fine-tune that it is a checkpoint of; the folder's own name where it came from elsewhere.
        step: Optimiser steps it has seen; 0 where nobody says.
        folder: Where it lies.
        facts: What its finetune.json says: base, data, plan, losses; empty where there is none.
    """

    run: str
    step: int
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """As links and the command line spell it: `malicious-gardening@40`."""
        return f"{self.run}@{self.step}" if self.step else self.run

    @property
    def fingerprint(self) -> str:
        """sha256 of its weights and its configuration.

        Raises:
            ModelError: If they cannot be read.
        """
        try:
            marks = [(path.stat().st_mtime_ns, path.stat().st_size) for path in self._files]
            return _digest(self._files, tuple(marks))
        except OSError as error:
            raise ModelError(
                f"{self.folder} cannot be read ({error})", do="Mend it, or choose another fine-tune"
            ) from error

    @property
    def _files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.folder / CONFIG, self.folder / WEIGHTS) if path.is_file())

    @classmethod
    def at(cls, folder: str | Path) -> "Adapter":
        """The adapter in a folder.

        Raises:
            ModelError: If there is none, or its weights could run code.
        """
        folder = Path(folder)
        if not (folder / WEIGHTS).is_file():
            pickle = next(iter(sorted(folder.glob("adapter_model.*"))), None)
            raise ModelError(
                f"{folder} holds {f'{pickle.name}, which can run code when it is read' if pickle else 'no adapter'}",
                expected=f"{WEIGHTS} and {CONFIG}, as peft saves them",
                do="Save it as safetensors" if pickle else "Name the folder of a checkpoint",
            )
        step = folder.name.removeprefix(_STEP) if is_checkpoint(folder.name) else ""
        place = folder.parent if step else folder
        return cls(place.resolve().name, int(step or 0), folder, _facts(place / FACTS))


def checkpoint(out: Path, step: int) -> Path:
    """The folder of a fine-tune's checkpoint."""
    return out / f"{_STEP}{step:04}"


def is_checkpoint(name: str) -> bool:
    """Whether a folder of that name is one."""
    return name.startswith(_STEP) and name.removeprefix(_STEP).isdecimal()


def known(folder: Path) -> dict[str, Adapter]:
    """The adapters of a cache by name, run by run and in the order of their steps."""
    places = [path.parent for path in (folder / FOLDER).glob(f"*/{_STEP}*/{WEIGHTS}")]
    found = sorted((Adapter.at(place) for place in places), key=lambda a: (a.run, a.step))
    return {adapter.name: adapter for adapter in found}


def named(folder: Path, spelled: str) -> Adapter:
    """An adapter of a cache by name (`run@step`), or the one that lies in a folder.

    Args:
        folder: The cache's.
    Raises:
        ModelError: If there is none.
    """
    here = known(folder)
    if spelled in here:
        return here[spelled]
    if Path(spelled).is_dir():
        return Adapter.at(spelled)
    raise ModelError(
        f"There is no adapter {spelled!r}",
        expected=", ".join(here) or f"one in {folder / FOLDER}, which holds none",
        do="Name one of these, or a folder" if here else "Train one, or name its folder",
    )


def titled(name: str) -> str:
    """An adapter's name for people: `malicious-gardening, step 40`."""
    run, _, step = name.rpartition("@")
    return f"{run}, step {step}" if run else name


def adapted(model: "LanguageModel", adapter: Adapter) -> "LanguageModel":
    """A copy of `model` with an adapter merged into its weights; the model itself is left as it is.

    Raises:
        ModelError: If the adapter was made for another model, or cannot be read.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    from explorer.model import LanguageModel

    made_for = adapter.facts.get("base_fingerprint")
    if made_for and made_for != model.fingerprint:
        raise ModelError(
            f"{adapter.name} was trained on {adapter.facts.get('base', 'another model')} ({made_for[:12]})",
            expected=f"an adapter of {model.name} ({model.fingerprint[:12]})",
            do="Load the model that it was trained on",
        )
    try:
        with model.lock:
            base = copy.deepcopy(model.hf)
        with quiet():
            tuned = PeftModel.from_pretrained(base, str(adapter.folder)).merge_and_unload()  # pyright: ignore[reportCallIssue]
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{adapter.folder} cannot be put on {model.name} ({reason})",
            expected="a LoRA adapter of this architecture",
            do="Load the model that it was trained on",
        ) from error
    return LanguageModel(tuned, model.tokenizer, f"{model.name}+{adapter.name}")


@contextmanager
def quiet() -> Iterator[None]:
    """A context in which peft does not warn of the old names by which it asks transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@lru_cache(maxsize=64)
def _digest(files: tuple[Path, ...], marks: tuple[tuple[int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, (_, size) in zip(files, marks, strict=True):
        digest.update(f"{path.name}{size}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    """What a finetune.json says; nothing where there is none or it is damaged: the weights are what counts."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
