"""The engine of a fine-tune: the base with an adapter merged into a copy of it, loaded when somebody first asks for it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.engine import Engine
from explorer.adapters import Adapter
from explorer.cache import Cache
from explorer.errors import ModelError

if TYPE_CHECKING:
    from app.loading import Loaded
    from explorer.judging import Panel
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

KEPT = 2
"""How many fine-tunes stay in memory beside the base; the one that was asked longest ago makes room."""


class Tuned(Engine):
    """Decodes and reads with a fine-tune; the SAE, the judges and the places in the queue are those of its base.

    Args:
        base: The engine of the cache's own model.
        adapter: What is merged into a copy of that model.
        mark: The adapter's fingerprint.
    """

    def __init__(self, base: Engine, adapter: Adapter, mark: str) -> None:
        super().__init__(base.cache, self._put_on)
        self.base, self.adapter, self.adapter_fingerprint = base, adapter, mark
        self.live, self.quick, self.background = base.live, base.quick, base.background

    @property
    def busy(self) -> bool:
        return self._state == "loading" or (self._state == "cold" and (self.base.state == "ready" or self.base.busy))

    def warm_up(self) -> None:
        if self._state == "cold" and self.busy:
            self.start(delay=0.3)

    @property
    def warming(self) -> str:
        return self.base.warming or ("" if self.state == "ready" else "loading the fine-tune")

    @property
    def fingerprint(self) -> str:
        return f"{self.base.fingerprint}+{self.adapter_fingerprint}"

    @property
    def can_judge(self) -> bool:
        return self.base.can_judge

    def panel(self) -> "Panel":
        """The base's judges; those that read a text with a model read it with this one, unsteered."""
        model, shared = self._need().model, self.base.panel()
        with self._embedding:
            if self._panel is None:
                self._panel = shared.reading_with(model)
            return self._panel

    def score(self, texts: Sequence[str], prompt: str) -> dict[str, list[float]]:
        return self.panel().score(self.judges(), texts, [prompt] * len(texts)) if self.can_judge else {}

    def release(self) -> bool:
        """Let go of the weights until somebody asks again; whether nothing is left of them."""
        with self._guard:
            if self._state == "ready":
                self._state, self._loaded, self._panel = "cold", None, None
            return self._state != "loading"

    def _put_on(self, cache: Cache) -> "tuple[LanguageModel, SparseCoder]":
        from explorer.adapters import adapted

        assert self.adapter
        loaded = self.base._need()
        with self.base.fitting:
            self.base.used(self)  # before the copy is made, so that room is there
            model = adapted(loaded.model, self.adapter)
            model.vocabulary  # noqa: B018 - made here, so that the first answer need not wait for it
        return model, loaded.coder

    def _need(self) -> "Loaded":
        while True:
            try:
                loaded = super()._need()
            except ModelError:
                if self._state == "cold":  # others have taken its room meanwhile
                    continue
                raise
            self.base.used(self)
            return loaded
