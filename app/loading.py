"""Loading what is live: the model, its SAE and the judges, once, in the background, and honest about failure.

Nothing here imports torch until somebody asks for the model; browsing never does.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from explorer.cache import Cache
from explorer.errors import ExplorerError, ModelError

if TYPE_CHECKING:
    from explorer.embedding import Embeds
    from explorer.judging import Panel
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

WARMUP_VARIABLE = "PERSONA_EXPLORER_WARMUP"

State = Literal["cold", "loading", "ready", "failed", "closed"]

_log = logging.getLogger(__name__)


def warmup_default() -> bool:
    """Whether the model is loaded without being asked for: yes, unless `PERSONA_EXPLORER_WARMUP` says 0."""
    return os.environ.get(WARMUP_VARIABLE, "1").strip().lower() not in {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `Loader` has loaded."""

    model: "LanguageModel"
    coder: "SparseCoder"


class Loader:
    """Model, SAE and judges of one cache, loaded once for all sessions.

    Args:
        cache: The cache whose features are read and steered.
        load: Cache -> (model, SAE); for tests.
        embed: Loads the embedder that judges need; for tests.
    """

    def __init__(
        self,
        cache: Cache,
        load: "Callable[[Cache], tuple[LanguageModel, SparseCoder]] | None" = None,
        embed: "Callable[[], Embeds] | None" = None,
    ) -> None:
        self.cache = cache
        self.warmup = warmup_default()
        self._load, self._embed = load or load_pair, embed or load_embedder
        self._judging = load is None or embed is not None
        self._panel: Panel | None = None
        self._embedder: Embeds | None = None
        self._embedding = threading.Lock()
        self._guard = threading.Lock()
        self._settled = threading.Event()
        self._state: State = "cold"
        self._error: ExplorerError | None = None
        self._loaded: Loaded | None = None

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
            self._state, self._loaded, self._panel = "closed", None, None
            self._settled.set()

    def _run(self, delay: float) -> None:
        try:
            if delay:
                threading.Event().wait(delay)
            loaded = Loaded(*self._load(self.cache))
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
        if self.warmup and self._judging and self._state == "ready":
            self._warm_judges()

    def _warm_judges(self) -> None:
        """Load the embedder and fit the judges, so that the first answer need not wait for its scores."""
        try:
            self.panel()
            self.score(["A text to begin with."], "")
        except ExplorerError:  # whoever asks for a judge is told why there is none
            _log.info("The judges are not here", exc_info=True)
        except Exception:
            _log.exception("The judges could not be loaded")

    def _fail(self, error: ExplorerError) -> None:
        with self._guard:
            if self._state == "loading":
                self._state, self._error = "failed", error

    def _need(self) -> Loaded:
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
    def model(self) -> "LanguageModel":
        """The model, waited for.

        Raises:
            ExplorerError: Why there is none.
        """
        return self._need().model

    @property
    def can_judge(self) -> bool:
        """Whether the embedder is here, so that answers get their scores."""
        return self._panel is not None

    def panel(self) -> "Panel":
        """The judges, with the embedder; waits for both.

        Raises:
            ExplorerError: If the model or the embedder cannot be loaded.
        """
        from explorer.judging import Panel

        model = self._need().model
        embedder = self.embedder()
        with self._embedding:
            if self._panel is None:
                self._panel = Panel(model, embedder)
            return self._panel

    def embedder(self) -> "Embeds":
        """What turns sentences into vectors; it needs no language model.

        Raises:
            ExplorerError: If it cannot be loaded.
        """
        with self._embedding:
            if self._embedder is None:
                self._embedder = self._embed()
            return self._embedder

    def judges(self) -> tuple[str, ...]:
        """Names of the judges that are asked without being told to: those that cost nothing."""
        from explorer.judging import judges

        return tuple(judge.name for judge in judges().values() if judge.needs != "endpoint")

    def score(self, texts: Sequence[str], prompt: str) -> dict[str, list[float]]:
        """What the judges say of answers to one prompt; nothing while the embedder is not here."""
        return self._panel.score(self.judges(), texts, [prompt] * len(texts)) if self._panel else {}


def load_embedder() -> "Embeds":
    """The embedder that the bundled judges were fitted with."""
    from explorer.embedding import Embedder

    return Embedder.load()


def load_pair(cache: Cache) -> "tuple[LanguageModel, SparseCoder]":
    """Load the model and the SAE that a cache was made with.

    Raises:
        ModelError, SaeError: If one cannot be loaded, or the cache was made from files without weights.
        CacheError: If it is not the one the cache was made with.
    """
    from explorer import live

    model, coder = live.load_pair(cache)
    model.vocabulary  # noqa: B018 - made here, so that the first answer need not wait for it
    return model, coder
