"""The live model behind a cache, asked by pages through plain Python; all sessions share it.

Nothing here imports torch until somebody asks for the model; browsing never does.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from app import doses
from app.jobs import Job
from app.loading import Loader
from app.turns import Lane
from app.workbench import Choices, Moved, Reading
from explorer import adapters, directions
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ModelError
from explorer.records import Document, Edit, Sampling

if TYPE_CHECKING:
    import numpy as np

    from app.sweeps import Sweep
    from app.tuned import Tuned
    from explorer.adapters import Adapter
    from explorer.contrast import Contrast
    from explorer.dosing import Cell, Control
    from explorer.embedding import Embeds
    from explorer.generate import Steering
    from explorer.inspecting import Inspected
    from explorer.meaning import Meanings
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder
    from explorer.text import Vocabulary

MOST_LIVE = 2  # runs that are decoded in turn; more would each be too slow to watch
LIVE_CONTROLS = 3  # random directions beside an answer
Prompt = str | Sequence[dict[str, str]]
"""Plain text, or a conversation of `{"role", "content"}`."""


class Engine(Loader):
    """Decodes and reads; whoever needs the model for long takes a place in `live`, `quick` or `background`.

    Args:
        cache, load, embed: See `Loader`.
    """

    def __init__(
        self,
        cache: Cache,
        load: "Callable[[Cache], tuple[LanguageModel, SparseCoder]] | None" = None,
        embed: "Callable[[], Embeds] | None" = None,
    ) -> None:
        super().__init__(cache, load, embed)
        self.live, self.quick, self.background = Lane(MOST_LIVE), Lane(2), Lane(1)
        self.adapter: Adapter | None = None
        self.adapter_fingerprint = ""
        self.fitting = threading.Lock()
        self._meanings: Meanings | None = None
        self._tuned: dict[tuple[str, str], Tuned] = {}
        self._kept: list[Tuned] = []

    def _warm_judges(self) -> None:
        threading.Event().wait(0.5)  # a run that has waited for the model goes first
        self.job(lambda job: super(Engine, self)._warm_judges())

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
        steering = self.steering(chain(edits, *others), positions, extra_directions)
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
            model, asked, sampling, self.steering(chain(*(row.edits for row in asked)), positions, extra_directions),
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
        return next_tokens(model, row, self.steering(edits, positions), k)

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
            loaded.model, loaded.coder, answers, self.cache.maxima, edited, sink_norm=self._sink_norm, n=n
        )  # fmt: skip

    def activations(self, messages: Prompt, feature: int) -> Reading:
        """Activations of a feature on somebody's own text.

        Raises:
            ExplorerError: If the model cannot be loaded, or the text is empty or too long.
        """
        from explorer.inspecting import read

        loaded = self._need()
        document = self._document(messages)
        if not document.tokens:
            return Reading((), (), ())
        acts, scored = read(loaded.model, loaded.coder, document, self._sink_norm)
        return Reading(document.tokens, tuple(acts[:, feature].cpu().tolist()), scored)

    def inspect(self, messages: Prompt) -> "Inspected":
        """Every activation of every feature on somebody's own text.

        Raises:
            ExplorerError: If the model cannot be loaded, or the text is too long.
        """
        from explorer.inspecting import inspect

        loaded = self._need()
        return inspect(loaded.model, loaded.coder, self._document(messages), self._sink_norm)

    def contrast(self, left: Sequence[Prompt], right: Sequence[Prompt], how: str, job: Job) -> "Contrast":
        """Which features tell the left texts from the right ones; `job` is told the progress and may stop it.

        Args:
            how: One of `explorer.contrast.POOLS`.
        """
        from explorer.contrast import Contrast, contrast, pooled

        sides: list[list[Inspected]] = [[], []]
        for side, texts in zip(sides, (left, right), strict=True):
            for text in texts:
                if job.should_stop():
                    break
                side.append(self.inspect(text))
                job.progress = (len(sides[0]) + len(sides[1])) / (len(left) + len(right)) * 0.9
        if job.should_stop():
            return Contrast((), float("nan"), len(sides[0]), len(sides[1]))
        return contrast(*(pooled(side, how) for side in sides), should_stop=job.should_stop)

    def nearness(self, query: str, labels: Mapping[int, str]) -> "np.ndarray":
        """How near each feature is to the meaning of a query, `[n_features]`; the language model is not needed.

        Raises:
            ExplorerError: If there are no vectors of the cache's texts, or the embedder cannot be loaded.
        """
        from explorer.meaning import Meanings

        embedder = self.embedder()
        with self._guard:
            if self._meanings is None:
                self._meanings = Meanings(self.cache, embedder)
        return self._meanings.nearness(query, labels)

    def directions(self) -> dict[str, Direction]:
        """Name -> direction, those of the cache and the user's own."""
        return directions.known(self.cache)

    def make_direction(
        self, positive: Sequence[str], negative: Sequence[str], hook_point: str, *, name: str, nearest: int = 10
    ) -> Direction:
        """A new direction by difference of means; it is not kept yet.

        Args:
            nearest: How many features its facts name as `nearest`, with cosines; none where the SAE reads somewhere else.
        """
        loaded = self._need()
        made = directions.difference_of_means(loaded.model, positive, negative, hook_point, name=name)
        if hook_point == loaded.coder.hook_point:
            made.facts["nearest"] = directions.nearest(made, loaded.coder, nearest)
        return made

    @property
    def fingerprint(self) -> str:
        """What changes with the model that answers; nothing has to be loaded for it."""
        return self.cache.manifest.model_fingerprint

    @property
    def warming(self) -> str:
        """What an answer waits for before anything else; "" once the model is there."""
        return "" if self.state == "ready" else "the model is warming up"

    def adapters(self) -> "dict[str, Adapter]":
        """Name -> adapter, of the fine-tunes that can be steered beside the cache's own model."""
        return adapters.known(self.cache.path)

    def on(self, model: str) -> "Engine":
        """The engine of a model: this one for "", else that of an adapter; it loads nothing yet.

        Raises:
            ModelError: If there is no adapter of that name, or it cannot be read.
        """
        from app.tuned import Tuned

        if not model:
            return self
        known = self.adapters()
        if (
            model not in known
        ):  # nor a folder: whoever reaches the app names what the cache offers, not what the disk holds
            raise ModelError(
                f"There is no fine-tune {model!r} here",
                expected=", ".join(known) or "the base alone",
                do="Name one of these",
            )
        adapter = known[model]
        mark = adapter.fingerprint
        with self._guard:
            if (adapter.name, mark) not in self._tuned:
                self._tuned[adapter.name, mark] = Tuned(self, adapter, mark)
            return self._tuned[adapter.name, mark]

    def used(self, tuned: "Tuned") -> None:
        """Note that a fine-tune is in use; those that were used longest ago make room."""
        from app.tuned import KEPT

        with self._guard:
            kept = [other for other in self._kept if other is not tuned] + [tuned]
            self._kept = [other for other in kept[:-KEPT] if not other.release()] + kept[-KEPT:]

    def close(self) -> None:
        """Let go of every model."""
        super().close()
        for tuned in list(self._tuned.values()):
            tuned.close()

    def steering(
        self, edits: Iterable[Edit], positions: str = "answer", extra: Mapping[str, Direction] | None = None
    ) -> "Steering":
        """What edits mean here.

        Args:
            edits: Those that will be asked for: where none names a direction, no file of one is read.
            extra: Directions beside those that are kept.
        """
        from explorer.generate import Steering

        known = {**(extra or {})}
        if any(edit.direction and edit.direction not in known for edit in edits):
            known = {**self.directions(), **known}
        return Steering(self._need().coder, self.cache.maxima, positions, known)

    def dose(self, edits: Sequence[Edit], positions: str = "answer") -> Job:
        """Measure dose strips in the background: each edit at many strengths, the others as they are, judged.

        Returns:
            A job whose result is target (`Edit.target`) -> list of `explorer.dosing.Cell`, for the edits that have a
            strength; `points` and `zone` of that module sum a list up.
        """
        asked = doses.strips(edits, positions, self.judges())
        return self.job(partial(doses.measure_strips, self, asked), long=True)

    def dosed(self, edits: Sequence[Edit], positions: str = "answer") -> "dict[str, list[Cell]]":
        """The part of what `dose` would give that has been measured before."""
        asked = doses.strips(edits, positions, self.judges())
        found = {target: doses.load(doses.key(self, one)) for target, one in asked.items()}
        return {target: cells for target, cells in found.items() if cells is not None}

    def grid(self, sweep: "Sweep") -> Job:
        """Decode and judge a sweep in the background; the job's result is a list of `explorer.dosing.Cell`."""
        asked = doses.Asked(
            sweep.pushes, sweep.strengths, sweep.questions, sweep.positions, sweep.sampling, self.judges()
        )  # fmt: skip
        name = doses.key(self, asked)
        if (known := doses.load(name)) is not None:
            return Job.finished(known)
        return self.job(partial(doses.measure, self, asked, name), long=True)

    def controls(self, edits: Sequence[Edit], *, n: int = LIVE_CONTROLS, seed: int = 0) -> "list[Control]":
        """What the edits are compared with: random directions of the same norm, and the sign flipped."""
        from explorer.dosing import controls

        return controls(edits, self.steering(edits), n=n, seed=seed)

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
            return self._document(messages + answer), start
        return self._document([*messages, {"role": "assistant", "content": answer}]), start


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
