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

from app.jobs import Job
from app.turns import Lane
from app.workbench import Choices, Moved, Reading
from explorer import directions
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ExplorerError, ModelError, SaeError
from explorer.records import Document, Edit, Sampling

if TYPE_CHECKING:
    from explorer.dosing import Control
    from explorer.embedding import Embeds
    from explorer.generate import Steering
    from explorer.judging import Panel
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder
    from explorer.text import Vocabulary

MOST_LIVE = 2  # runs that are decoded in turn; more would each be too slow to watch
LIVE_CONTROLS = 3  # random directions beside an answer
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
class _Loaded:
    model: "LanguageModel"
    coder: "SparseCoder"


class Engine:
    """Model and SAE of one cache; all sessions share it.

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
        self.live, self.quick, self.background = Lane(MOST_LIVE), Lane(2), Lane(1)
        self._load, self._embed = load or load_pair, embed or load_embedder
        self._judging = load is None or embed is not None
        self._panel: Panel | None = None
        self._embedding = threading.Lock()
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
            self._state, self._loaded, self._panel = "closed", None, None
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
        *,
        others: Sequence[Sequence[Edit]] = (),
        extra_directions: Mapping[str, Direction] | None = None,
        baseline_messages: Prompt | None = None,
    ) -> Iterator[list[str | None]]:
        """Decode the unsteered, the steered and further steered answers in step.

        Args:
            messages: A conversation (needs a chat template) or plain text to go on from.
            edits: What the steered row is changed with; without any, it equals the baseline.
            baseline: Decode the baseline too; without it each step has the steered pieces only.
            others: Edits of further rows, such as controls.
            extra_directions: What edits may name beside the directions that are kept.
            baseline_messages: What the baseline goes on from, where it remembers another conversation.
        Yields:
            New text of [baseline, steered, *others], or without the baseline; "" where a character is not complete
            yet, None once a row has ended.
        Raises:
            ExplorerError: If the model cannot be loaded, or an edit or the prompt makes no sense.
        """
        from explorer.generate import Row, stream

        model = self._need().model
        prompt = self._document(messages, answer=True).tokens
        rows = [Row(prompt, tuple(row), sampling.seed) for row in (edits, *others)]
        if baseline:
            remembered = prompt if baseline_messages is None else self._document(baseline_messages, answer=True).tokens
            rows.insert(0, Row(remembered, (), sampling.seed))
        steering = self.steering(positions, extra_directions)
        return _pieces(
            stream(model, rows, sampling, steering, should_stop=should_stop), len(rows), model.vocabulary, model.eos_ids
        )

    def batch(
        self,
        rows: Sequence[tuple[Prompt, Sequence[Edit]]],
        sampling: Sampling,
        positions: str = "answer",
        job: Job | None = None,
        extra_directions: Mapping[str, Direction] | None = None,
    ) -> list[str]:
        """Answer many questions together, each with its own edits; in the background where `job` says so.

        Args:
            job: The job that this belongs to: it gives way to live runs and is told the progress.
        Returns:
            One text a row; what was there when the job was stopped.
        """
        from explorer.generate import Row, stream

        model = self._need().model
        asked = [Row(self._document(m, answer=True).tokens, tuple(edits), sampling.seed) for m, edits in rows]
        steps = stream(
            model, asked, sampling, self.steering(positions, extra_directions),
            should_stop=job.should_stop if job else lambda: False,
        )  # fmt: skip
        texts = [""] * len(asked)
        for at, step in enumerate(_pieces(steps, len(asked), model.vocabulary, model.eos_ids)):
            texts = [text + (piece or "") for text, piece in zip(texts, step, strict=True)]
            if job:
                job.progress = min(1.0, (at + 1) / sampling.max_tokens)
        return texts

    def job(self, work: Callable[[Job], Any], *, long: bool = False) -> Job:
        """Do something in the background, behind every live run; it has begun.

        Args:
            long: It takes minutes: it waits for others of its kind, and nothing quick waits for it.
        """
        return Job(work, self.background if long else self.quick, self.live).start()

    def next_tokens(
        self,
        messages: Prompt,
        said: str | Sequence[int],
        edits: Sequence[Edit],
        positions: str = "answer",
        k: int = 10,
    ) -> tuple[Choices, Choices]:
        """The likeliest next tokens at a cursor in an answer, of the model as it is and as steered.

        Args:
            said: The answer up to the cursor; a text is cut into tokens anew.
            positions: "answer" steers every token of `said` as it would have been steered while decoding.
        """
        from app.workbench import next_tokens
        from explorer.generate import Row

        model = self._need().model
        tokens = model.tokenizer(said, add_special_tokens=False).input_ids if isinstance(said, str) else said
        prompt = self._document(messages, answer=True).tokens
        row = Row((*prompt, *tokens), tuple(edits), said=len(tokens))
        return next_tokens(model, row, self.steering(positions), k)

    def side_effects(
        self,
        messages: Prompt,
        baseline: str,
        steered: str,
        edits: Sequence[Edit] = (),
        n: int = 12,
        baseline_messages: Prompt | None = None,
    ) -> list[Moved]:
        """Which features steering moved: both answers are read once by the unsteered model.

        Args:
            messages: What was answered; `baseline_messages` where the baseline remembers another conversation.
            baseline, steered: The answers.
            edits: What was turned; those features come along, marked, beside the `n` others that changed most.
        """
        from app.workbench import side_effects

        loaded = self._need()
        before = messages if baseline_messages is None else baseline_messages
        answers = [self._answered(before, baseline), self._answered(messages, steered)]
        edited = {edit.feature for edit in edits if not edit.direction}
        return side_effects(
            loaded.model, loaded.coder, answers, self._maxima(), edited, sink_norm=self._sink_norm, n=n
        )  # fmt: skip

    def activations(self, messages: Prompt, feature: int) -> Reading:
        """Activations of a feature on somebody's own text.

        Raises:
            ExplorerError: If the model cannot be loaded, or the text is empty or too long.
        """
        from app.workbench import read

        loaded = self._need()
        document = self._fitting(self._document(messages))
        if not document.tokens:
            return Reading((), (), ())
        acts, scored = read(loaded.model, loaded.coder, document, self._sink_norm)
        return Reading(document.tokens, tuple(acts[:, feature].cpu().tolist()), scored)

    def directions(self) -> dict[str, Direction]:
        """Name -> direction, those of the cache and the user's own."""
        return directions.known(self.cache)

    def models(self) -> list[str]:
        """What can be steered: the model of the cache, then the adapters that lie in the cache's folder."""
        adapters = sorted(self.cache.path.glob("adapters/*/adapter_config.json"))
        return [self.cache.manifest.model, *(path.parent.name for path in adapters)]

    def steering(self, positions: str = "answer", extra: Mapping[str, Direction] | None = None) -> "Steering":
        """What edits mean here.

        Args:
            extra: Directions beside those that are kept.
        """
        from explorer.generate import Steering

        return Steering(self._need().coder, self._maxima(), positions, {**self.directions(), **(extra or {})})

    def controls(self, edits: Sequence[Edit], *, n: int = LIVE_CONTROLS, seed: int = 0) -> "list[Control]":
        """What the edits are compared with: random directions of the same norm, and the sign flipped."""
        from explorer.dosing import controls

        return controls(edits, self.steering(), n=n, seed=seed)

    def panel(self) -> "Panel":
        """The judges, with the embedder; waits for both.

        Raises:
            ExplorerError: If the model or the embedder cannot be loaded.
        """
        from explorer.judging import Panel

        model = self._need().model
        with self._embedding:
            if self._panel is None:
                self._panel = Panel(model, self._embed())
            return self._panel

    def score(self, texts: Sequence[str], prompt: str) -> dict[str, list[float]]:
        """What the judges say of answers to one prompt; nothing while the embedder is not here.

        Judges that cost money are not asked.
        """
        from explorer.judging import judges

        if self._panel is None:
            return {}
        names = [judge.name for judge in judges().values() if judge.needs != "endpoint"]
        return self._panel.score(names, texts, [prompt] * len(texts))

    @property
    def _sink_norm(self) -> float:
        return self.cache.manifest.sink_factor * self.cache.manifest.median_norm

    def _document(self, messages: Prompt, *, answer: bool = False) -> Document:
        model = self._need().model
        if isinstance(messages, str):
            return model.text_document(messages)
        return model.chat_document(list(messages), add_generation_prompt=answer)

    def _answered(self, messages: Prompt, answer: str) -> tuple[Document, int]:
        """A conversation with its answer, and the token at which the answer begins."""
        start = len(self._document(messages, answer=True).tokens)
        if isinstance(messages, str):
            return self._fitting(self._document(messages + answer)), start
        return self._fitting(self._document([*messages, {"role": "assistant", "content": answer}])), start

    def _fitting(self, document: Document) -> Document:
        """`document`, if the model can read it at once.

        Raises:
            ModelError: If it is too long.
        """
        most = self._need().model.max_length
        if len(document.tokens) > most:
            raise ModelError(
                f"The text has {len(document.tokens):,} tokens", expected=f"at most {most:,}", do="Shorten it"
            )
        return document

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


def load_embedder() -> "Embeds":
    """The embedder that the bundled judges were fitted with."""
    from explorer.embedding import Embedder

    return Embedder.load()


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
