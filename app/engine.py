"""The live model behind a cache: loaded once in the background for all sessions, asked by pages through plain Python.

Nothing here imports torch until somebody asks for the model; browsing never does.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from explorer.cache import Cache
from explorer.errors import ExplorerError, ModelError, SaeError
from explorer.records import Edit, Sampling

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder
    from explorer.text import Vocabulary

WARMUP_VARIABLE = "PERSONA_EXPLORER_WARMUP"
DEVICE_VARIABLE = "PERSONA_EXPLORER_DEVICE"
DTYPE_VARIABLE = "PERSONA_EXPLORER_DTYPE"

State = Literal["cold", "loading", "ready", "failed", "closed"]
Prompt = str | Sequence[dict[str, str]]
"""Plain text, or a conversation of `{"role", "content"}`."""

_log = logging.getLogger(__name__)


def warmup_default() -> bool:
    """Whether the model is loaded without being asked for: yes, unless `PERSONA_EXPLORER_WARMUP` says 0."""
    return os.environ.get(WARMUP_VARIABLE, "1").strip().lower() not in {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Activations of one feature on somebody's own text.

    Args:
        tokens: Token ids, the chat template's included.
        acts: Activation at each token, in SAE units; what is not scored has its true value here too.
        scored: Whether the token counts as evidence.
    """

    tokens: tuple[int, ...]
    acts: tuple[float, ...]
    scored: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: "LanguageModel"
    coder: "SparseCoder"


class Engine:
    """Model and SAE of one cache; all sessions share it.

    Args:
        cache: The cache whose features are read and steered.
        load: Cache -> (model, SAE); for tests.
    """

    def __init__(
        self, cache: Cache, load: "Callable[[Cache], tuple[LanguageModel, SparseCoder]] | None" = None
    ) -> None:
        self.cache = cache
        self.warmup = warmup_default()
        self._load = load or load_pair
        self._guard = threading.Lock()
        self._settled = threading.Event()
        self._state: State = "cold"
        self._error: ExplorerError | None = None
        self._loaded: _Loaded | None = None

    @property
    def state(self) -> State:
        """cold (nobody asked yet), loading, ready, failed (see `error`) or closed."""
        return self._state

    @property
    def busy(self) -> bool:
        """Whether the model is being loaded, or will be as soon as a page is out."""
        return self._state == "loading" or (self._state == "cold" and self.warmup)

    @property
    def error(self) -> ExplorerError | None:
        """Why the model could not be loaded."""
        return self._error

    def start(self, delay: float = 0.0) -> None:
        """Load in the background, once; called again after a failure, it tries again.

        Args:
            delay: Seconds to wait first, so that a page on its way to the browser goes before.
        """
        with self._guard:
            if self._state not in ("cold", "failed"):
                return
            self._state, self._error = "loading", None
            self._settled.clear()
            threading.Thread(target=self._run, args=(delay,), name="model-warm-up", daemon=True).start()

    def warm_up(self) -> None:
        """Start if warm-up is switched on and nobody has tried yet; for the end of a page."""
        if self.warmup and self._state == "cold":
            self.start(delay=0.6)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until loading has ended, well or not; whether the model is ready."""
        self._settled.wait(timeout)
        return self._state == "ready"

    def close(self) -> None:
        """Let go of the model; generations under way keep it until they end."""
        with self._guard:
            self._state, self._loaded = "closed", None
            self._settled.set()

    def _run(self, delay: float) -> None:
        try:
            if delay:
                threading.Event().wait(delay)
            loaded = _Loaded(*self._load(self.cache))
            with self._guard:
                if self._state == "loading":
                    self._loaded, self._state = loaded, "ready"
        except ExplorerError as error:
            self._fail(error)
        except Exception as error:  # a daemon thread must leave a sentence behind, whatever went wrong
            _log.exception("The model could not be loaded")
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._fail(
                ModelError(
                    f"The model could not be loaded ({reason})", do="See the terminal for the details, then try again"
                )
            )
        finally:
            self._settled.set()

    def _fail(self, error: ExplorerError) -> None:
        with self._guard:
            if self._state == "loading":
                self._state, self._error = "failed", error

    def _need(self) -> _Loaded:
        """The model, waited for.

        Raises:
            ExplorerError: Why there is none.
        """
        loaded = self._loaded
        if loaded is None:
            self.start()
            self.wait()
            loaded = self._loaded
        if loaded is None:
            raise self._error or ModelError("The model was let go", do="Reload the page")
        return loaded

    @property
    def has_template(self) -> bool:
        """Whether the model takes conversations; False until it is ready."""
        return self._loaded is not None and self._loaded.model.has_template

    @property
    def median_norm(self) -> float:
        """The typical length of the residual stream where the SAE reads, from the cache."""
        return self.cache.manifest.median_norm

    def direction_norm(self, feature: int) -> float | None:
        """Length of the feature's decoder vector; None until the model is ready."""
        return float(self._loaded.coder.direction(feature).norm()) if self._loaded else None

    def stream(
        self,
        messages: Prompt,
        edits: Sequence[Edit],
        sampling: Sampling,
        positions: str = "answer",
        baseline: bool = True,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[str | None]]:
        """Decode the unsteered and the steered answer in step.

        Args:
            messages: A conversation (needs a chat template) or plain text to go on from.
            edits: What the steered row is changed with; without any, it equals the baseline.
            baseline: Decode the baseline too; without it each step has the steered piece only.
        Yields:
            New text of [baseline, steered] or [steered]; "" where a character is not complete yet, None once a row
            has ended.
        Raises:
            ExplorerError: If the model cannot be loaded, or an edit or the prompt makes no sense.
        """
        from explorer.generate import Row, Steering, stream

        loaded = self._need()
        model = loaded.model
        prompt = self._document(messages, answer=True).tokens
        rows = [Row(prompt, tuple(edits), sampling.seed)]
        if baseline:
            rows.insert(0, Row(prompt, (), sampling.seed))
        steering = Steering(loaded.coder, self._maxima(), positions)
        return _pieces(
            stream(model, rows, sampling, steering, should_stop=should_stop), len(rows), model.vocabulary, model.eos_ids
        )

    def activations(self, messages: Prompt, feature: int) -> Reading:
        """Activations of a feature on somebody's own text.

        Raises:
            ExplorerError: If the model cannot be loaded, or the text is empty or too long.
        """
        import torch

        loaded, manifest = self._need(), self.cache.manifest
        document = self._document(messages)
        if not document.tokens:
            return Reading((), (), ())
        if len(document.tokens) > loaded.model.max_length:
            raise ModelError(
                f"The text has {len(document.tokens):,} tokens",
                expected=f"at most {loaded.model.max_length:,}",
                do="Shorten it",
            )
        ids = torch.tensor([document.tokens])
        with torch.inference_mode():
            resid = loaded.model.activations(ids, loaded.coder.hook_point)[0]
            norms = torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32).cpu()
            acts = loaded.coder.encode(resid)[:, feature].float().cpu().tolist()
        written = [False] * len(document.tokens)
        for start, stop in document.content:
            written[start:stop] = [True] * (stop - start)
        sinks = (norms > manifest.sink_factor * manifest.median_norm).tolist()
        special = loaded.model.vocabulary.special
        scored = tuple(
            at > 0 and inside and not sink and token not in special
            for at, (inside, sink, token) in enumerate(zip(written, sinks, document.tokens, strict=True))
        )
        return Reading(document.tokens, tuple(acts), scored)

    def _document(self, messages: Prompt, *, answer: bool = False) -> Any:
        model = self._need().model
        if isinstance(messages, str):
            return model.text_document(messages)
        return model.chat_document(list(messages), add_generation_prompt=answer)

    def _maxima(self) -> Mapping[int, float]:
        return dict(enumerate(self.cache.table.column("max").to_pylist()))


def _pieces(
    steps: Iterator[list[int | None]], n_rows: int, vocabulary: "Vocabulary", eos: frozenset[int]
) -> Iterator[list[str | None]]:
    """Token ids to whole characters, row by row; closing this closes the generation."""
    streamers: list[Any] = [vocabulary.streamer() for _ in range(n_rows)]
    ended = [False] * n_rows
    with contextlib.closing(steps):  # type: ignore[type-var]
        for step in steps:
            pieces: list[str | None] = []
            for row, token in enumerate(step):
                if ended[row] or token is None:
                    pieces.append(None)
                    ended[row] = True
                elif token in eos:
                    pieces.append(streamers[row].flush())
                    ended[row] = True
                else:
                    pieces.append(streamers[row].push(token))
            yield pieces
    rest = [None if ended[row] else streamers[row].flush() for row in range(n_rows)]
    if any(rest):
        yield rest


def load_pair(cache: Cache) -> "tuple[LanguageModel, SparseCoder]":
    """Load the model and the SAE that a cache was made with.

    Raises:
        ModelError: If the model is not here, or is not the one the cache was made with.
        SaeError: The same of the SAE.
    """
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

    manifest = cache.manifest
    model = LanguageModel.load(
        manifest.model, device=os.environ.get(DEVICE_VARIABLE, "auto"), dtype=os.environ.get(DTYPE_VARIABLE, "auto")
    )
    if model.fingerprint != manifest.model_fingerprint:
        raise ModelError(
            f"{manifest.model} on this machine has the fingerprint {model.fingerprint[:12]}",
            expected=f"{manifest.model_fingerprint[:12]}, which the cache {cache.name} was made with",
            do="Fetch that model, or build the cache again with this one",
        )
    coder = SparseCoder.load(cache.sae_folder or manifest.sae, device=str(model.device), hook_point=manifest.hook_point)
    if coder.fingerprint != manifest.sae_fingerprint:
        raise SaeError(
            f"The SAE at {coder.source} has the fingerprint {coder.fingerprint[:12]}",
            expected=f"{manifest.sae_fingerprint[:12]}, which the cache {cache.name} was made with",
            do="Use that SAE, or build the cache again with this one",
        )
    model.vocabulary  # noqa: B018 - made here, so that the first answer need not wait for it
    return model, coder
