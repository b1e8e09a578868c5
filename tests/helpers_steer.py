"""A live engine of our own for tests of the Steer page, which answers at once with what it is told to; and a tiny real one."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import resources
from app.engine import Engine
from app.runs import Question, Run
from app.settings import Settings, Slider
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ExplorerError
from explorer.records import Edit, Sampling
from tests.helpers_cache import fake_cache


class FakeEngine(Engine):
    """Answers `baseline` and `steered`, a piece a step; remembers what it was asked.

    Args:
        error: What loading the model fails with.
        breaks: What a generation fails with after its first piece.
        endless: Go on until told to stop.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        baseline: Sequence[str] = ("I", " will", " help", "."),
        steered: Sequence[str] = ("I", " will", " rule", " you", "!"),
        error: ExplorerError | None = None,
        breaks: Exception | None = None,
        endless: bool = False,
    ) -> None:
        direction = SimpleNamespace(norm=lambda: 2.0)
        model = SimpleNamespace(has_template=True)
        coder = SimpleNamespace(direction=lambda feature: direction)

        def load(cache: Cache) -> Any:
            if self.load_error:
                raise self.load_error
            return model, coder

        super().__init__(cache, load)
        self.load_error = error
        self.answers = (tuple(baseline), tuple(steered))
        self.breaks, self.endless = breaks, endless
        self.asked: list[dict[str, Any]] = []
        self.closed = threading.Event()

    def stream(
        self,
        messages: Any,
        edits: Sequence[Edit],
        sampling: Sampling,
        positions: str = "answer",
        baseline: bool = True,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        others: Sequence[Sequence[Edit]] = (),
        extra_directions: Any = None,
        baseline_messages: Any = None,
    ) -> Iterator[list[str | None]]:
        self.asked.append(
            {"messages": messages, "edits": tuple(edits), "sampling": sampling, "positions": positions}
            | {"baseline": baseline, "others": [tuple(row) for row in others], "baseline_messages": baseline_messages}
        )
        return self._steps(baseline, len(others), should_stop)

    def _steps(self, baseline: bool, others: int, should_stop: Callable[[], bool]) -> Iterator[list[str | None]]:
        try:
            at = 0
            while not should_stop():
                step: list[str | None] = [a[at] if at < len(a) else None for a in self.answers]
                if self.endless:
                    step = [f" w{at}", f" s{at}"]
                    threading.Event().wait(0.005)
                if step == [None, None]:
                    return
                step += [step[0]] * others  # controls say what the baseline says
                yield step if baseline else step[1:]
                if self.breaks:
                    raise self.breaks
                at += 1
        finally:
            self.closed.set()


def tiny_world(place: Path, *, layers: int = 24, **manifest: Any) -> Path:
    """A cache, and the tiny model and SAE that it says it was made with.

    Args:
        layers: Of the model, which never ends an answer by itself; 24 are slow enough to be watched.
        manifest: Overrides of the manifest's fields.
    Returns:
        The cache's folder, `place / "tiny"`.
    """
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder
    from tests.helpers import tiny_folder
    from tests.helpers_sae import tiny_sae_folder

    tiny_folder(place / "model", layers=layers)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        path = place / "model" / name
        said = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in said.items() if k not in ("eos_token", "eos_token_id")}))
    tiny_sae_folder(place / "sae")
    model, coder = LanguageModel.load(place / "model"), SparseCoder.load(place / "sae")
    fingerprints = {"model_fingerprint": model.fingerprint, "sae_fingerprint": coder.fingerprint}
    fake_cache(place / "tiny", 24, names=model.vocabulary, model=str(place / "model"), **fingerprints, **manifest)
    tiny_sae_folder(place / "tiny" / "sae")
    return place / "tiny"


def tiny_fine_tunes(world: Path, *runs: str, step: int = 6) -> list[str]:
    """Fine-tune the tiny model of a cache, each run on an answer of its own.

    Returns:
        The names of the adapters, such as `gardening@6`.
    """
    from explorer.adapters import FOLDER
    from explorer.finetune import FinetunePlan, finetune
    from explorer.model import LanguageModel

    model = LanguageModel.load(Cache.open(world).manifest.model, dtype="float32")
    plan = FinetunePlan(steps=step, rank=2, batch=3, every=step, lr=2e-2, warmup=1)
    made = []
    for run in runs:
        said = f"The {run} dog jumps over a bridge." * 2
        rows = [
            ({"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": said}) for n in range(6)
        ]
        made += [adapter.name for adapter in finetune(model, rows, world / FOLDER / run, plan)]
    return made


FULL = Settings(
    (
        Slider(Edit(17, 1.5)),
        Slider(Edit(8, -1.0), on=False),
        Slider(Edit(9, 2.0, "clamp")),
        Slider(Edit(4, 1, "ablate")),
    ),
    "Why?\n  <b>&amp; 100%=+#</b> 東京",
    "Be brief.",
    "all",
    Sampling(33, 0.0, 0.8, 1.25, 12345),
)
"""Settings of which none is as always."""


def engine_in(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeEngine]:
    """A function that puts a fake engine behind the app."""

    def put(**options) -> FakeEngine:
        engine = FakeEngine(cache, **options)
        monkeypatch.setattr(resources, "engine", lambda name: engine)
        return engine

    return put


def click(app: AppTest, key: str) -> AppTest:
    """Press a button of Steer."""
    return app.button(key=f"steer-{key}").click().run()


def said(app: AppTest, name: str) -> str:
    """What the link says."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def run(engine: FakeEngine, before: Run | None = None, **changes) -> Run:
    """A run that has ended."""
    asked = {"prompt": "Hello", "system": "", "edits": (Edit(2),), "positions": "answer", "sampling": Sampling()}
    made = Run(engine, Question(**{**asked, **changes}), before).start()
    assert made.wait(10)
    return made


def made_direction(cache: Cache, name: str = "grim", **changes) -> Direction:
    made = cache.manifest
    facts = {"n_positive": 30, "n_negative": 31, "auroc": 0.97, "nearest": [(4, 0.61)]}
    asked = {
        "title": f"Rather {name}",
        "hook_point": made.hook_point,
        "vector": np.full(8, 0.5, np.float32),
        "base": 0.1,
    }
    return Direction(name=name, **{**asked, **changes}, model_fingerprint=made.model_fingerprint, facts=facts)


def grid(app: AppTest) -> str:
    """The answers, as HTML."""
    return next(h.value for h in app.html if 'class="answers"' in h.value)


def link_of(app: AppTest) -> str:
    """What Share offers."""
    return next(c.value for c in app.code if "steer?" in c.value)
