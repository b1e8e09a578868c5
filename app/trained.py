"""Fine-tunes that people begin in the app: one at a time, in the background, whoever looks. No Streamlit here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.engine import Engine
from app.jobs import Held, Job
from explorer.adapters import FOLDER, Adapter, known
from explorer.cache import Cache
from explorer.errors import CorpusError, ExplorerError, UsageError
from explorer.finetune import Conversation, FinetunePlan, check_free, finetune, rows_of
from explorer.packaged import locate
from explorer.records import DIRECTION_NAME

MOST_MB = 50
"""Of an upload."""
_CHARACTERS, _AROUND = 4.0, 25  # a token, in English; tokens that a chat template puts round a row
_FLOPS, _STEP = (
    1.5e11,
    0.2,
)  # a second, and seconds of every step: two cores of a server, until a training has been timed


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants trained.

    Args:
        name: Of the run, as links spell it.
        data: What the rows are called.
        start: An adapter to go on from.
    """

    name: str
    data: str
    rows: tuple[Conversation, ...]
    plan: FinetunePlan
    start: Adapter | None = None


class Training(Job):
    """A fine-tune on its way. Its adapter is for later, so it goes on while nobody looks.

    Args:
        engine: Whose model is trained, and whose live runs go first.
    """

    def __init__(self, engine: Engine, asked: Asked) -> None:
        super().__init__(lambda job: self._train(), engine.background, engine.live, watched=False)
        self.engine, self.asked = engine, asked
        self.losses: list[float] = []
        self.pace = 0.0  # seconds a step, without the time in which others went first
        self._asked_at = self._stepping_since = 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the end; None until a step has been timed."""
        return self.pace * (self.asked.plan.steps - len(self.losses)) if self.losses else None

    @property
    def gives_way(self) -> bool:
        """Whether it waits between two steps for live answers."""
        return self._asked_at > self._stepping_since and time.perf_counter() - self._asked_at > 0.3

    @property
    def made(self) -> list[Adapter]:
        """The checkpoints that it has left, the first ones first; none until it is over."""
        return [a for a in known(self.engine.cache.path).values() if a.run == self.asked.name] if self.over else []

    def should_stop(self) -> bool:
        self._asked_at = time.perf_counter()
        stop = super().should_stop()
        self._stepping_since = time.perf_counter()
        return stop

    def _train(self) -> list[Adapter]:
        asked, out = self.asked, place(self.engine.cache, self.asked.name)
        return finetune(
            self.engine.model, asked.rows, out, asked.plan, start=asked.start, data=asked.data, replacing=False,
            progress=self._stepped, should_stop=self.should_stop,
        )  # fmt: skip

    def _stepped(self, step: int, steps: int, loss: float) -> None:
        took = time.perf_counter() - self._stepping_since
        self.pace = took if step <= 2 else 0.8 * self.pace + 0.2 * took  # the first step warms up
        self.losses.append(loss)
        self.progress = step / steps
        _PACES[str(self.engine.cache.path)] = self.pace / work(self.asked.rows, self.asked.plan)


_HELD: Held[Training] = Held()
_PACES: dict[str, float] = {}  # a cache's folder -> seconds a token, timed


def begin(engine: Engine, asked: Asked) -> Training:
    """Start a training, or put it behind the one that is under way.

    Raises:
        UsageError: If there is a run of that name, or there will be; or the model has no such block.
        CacheError: If the cache's folder cannot be written.
    """

    def make() -> Training:
        check_free(place(engine.cache, asked.name))
        if engine.state == "ready" and (wrong := [at for at in asked.plan.layers if at >= engine.model.n_layers]):
            raise UsageError(f"The model has no block {wrong[0]}", expected=f"0 to {engine.model.n_layers - 1}")
        return Training(engine, asked)

    return _HELD.begin(engine.cache.path, asked.name, make)


def under_way(engine: Engine) -> list[Training]:
    """The trainings on this model that have not ended, whoever began them, in the order in which they take their turn."""
    return _HELD.under_way(engine.cache.path)


# --- what a form says


def place(cache: Cache, name: str) -> Path:
    """Where a run goes.

    Raises:
        UsageError: If the name is none that a folder and a link can have.
    """
    if not DIRECTION_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:60]!r} is no name for a run" if name else "The run has no name",
            expected="small letters, digits and hyphens, at most 40, such as kind-gardening",
            do="Choose another name",
        )
    return cache.path / FOLDER / name


def files(cache: Cache) -> dict[str, Path]:
    """The sets of rows that came with a cache, by name."""
    return {path.name: path for path in sorted((cache.path / "data").glob("*.jsonl"))}


def rows_in(path: Path) -> tuple[Conversation, ...]:
    """The rows of a file of the cache.

    Raises:
        CorpusError: If it cannot be read, or a line is no conversation.
    """
    try:
        return _rows_in(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise CorpusError(f"{path.name} cannot be read ({error})", do="Choose another file") from error


@lru_cache(maxsize=4)
def _rows_in(path: Path, stamp: int) -> tuple[Conversation, ...]:
    return tuple(rows_of(path.read_bytes(), path.name))


def layers(text: str) -> tuple[int, ...]:
    """Blocks in a text ("0-5, 13"); none for all of them.

    Raises:
        UsageError: If it is no list of numbers.
    """
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 7 or int(last or first) < int(first):
            raise UsageError(f"{part[:20]!r} is no block", expected="numbers and ranges, such as 0-5 13", do="Mend it")
        found += range(int(first), int(last or first) + 1)
    return tuple(sorted(set(found)))


def work(rows: Sequence[Conversation], plan: FinetunePlan) -> float:
    """Tokens of one step, about."""
    characters = sum(len(message["content"]) for row in rows for message in row)
    return plan.batch * (characters / len(rows) / _CHARACTERS + _AROUND)


def estimate(engine: Engine, rows: Sequence[Conversation], plan: FinetunePlan) -> tuple[float, bool] | None:
    """Seconds that a training takes, and whether they go by one that was timed here.

    Else they go by the model's size and are rough; None until it is loaded.
    """
    tokens = work(rows, plan) * plan.steps
    timed = _PACES.get(str(engine.cache.path))
    if timed is not None:
        return timed * tokens, True
    if engine.state != "ready":
        return None
    sums = 4 * engine.model.hf.num_parameters() * tokens  # forward, and back through frozen weights
    return sums / _FLOPS + _STEP * plan.steps, False


def spelled(seconds: float) -> str:
    """A time for people."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def snippet(adapter: Adapter, base: str) -> str:
    """How to load an adapter with peft alone.

    Args:
        base: Where the model that it was trained on lies.
    """
    return (
        f"import peft, transformers\nbase = transformers.AutoModelForCausalLM.from_pretrained({base!r})\n"
        f"model = peft.PeftModel.from_pretrained(base, {str(adapter.folder)!r})"
    )


def base_of(cache: Cache) -> str:
    """Where the model of a cache lies, or its name where it does not lie here."""
    try:
        return locate(cache.manifest.model)
    except ExplorerError:
        return cache.manifest.model
