"""Decoding with a change of the residual stream for each row of the batch.

Baseline, steered answer, a sweep of strengths and controls are rows of one batch and share every read of the weights. Every row draws from
its own random stream, one number a token, so its text does not depend on what else is in the batch. Lock and hooks are held for one step at
a time: several generations take turns, and one that is abandoned leaves nothing hooked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explorer.errors import SteeringError
from explorer.hooks import edited
from explorer.model import HookPoint, LanguageModel
from explorer.records import Edit, Sampling
from explorer.steering import Lever, change, check_positions, mode

if TYPE_CHECKING:
    from explorer.sae import SparseCoder

_NUCLEUS = 512  # candidates looked at before the whole vocabulary is sorted
_COMPACT = (
    0.75  # the batch is copied without its ended rows once so few are left: copying the cache costs as much as a step
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the batch: token ids of the prompt, the edits it is steered with, the seed of its random stream."""

    prompt: tuple[int, ...]
    edits: tuple[Edit, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Steering:
    """Where and with what rows are steered.

    Args:
        coder: The SAE whose features are edited.
        maxima: Feature -> its largest activation in the corpus, what strength 1 stands for.
        positions: A name in `explorer.steering.POSITIONS`.
    """

    coder: "SparseCoder"
    maxima: Mapping[int, float]
    positions: str = "answer"

    def lever(self, edit: Edit, device: torch.device) -> Lever:
        """What `edit` pulls.

        Raises:
            SteeringError: If there is no such feature or mode.
        """
        mode(edit.mode)
        if not 0 <= edit.feature < self.coder.n_features:
            raise SteeringError(
                f"There is no feature {edit.feature}",
                expected=f"0 to {self.coder.n_features - 1}",
                do="Choose one of these",
            )
        direction, maximum = (
            self.coder.direction(edit.feature).to(device, torch.float32),
            float(self.maxima[edit.feature]),
        )
        if maximum <= 0 and edit.strength and mode(edit.mode).uses_strength:
            raise SteeringError(
                f"Feature {edit.feature} never fires in the corpus",
                expected="a feature with a maximum, of which strengths are multiples",
                do="Choose another feature",
            )
        return Lever(direction, maximum, self.coder.read(edit.feature))


def stream(
    model: LanguageModel,
    rows: Sequence[Row],
    sampling: Sampling,
    steering: Steering | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[int | None]]:
    """Decode all rows in step.

    Args:
        rows: At least one; a row's own seed is used, not `sampling.seed`.
        steering: Needed as soon as a row has edits.
        should_stop: Asked before every step; closing the iterator stops as well.
    Yields:
        One token id a row at every step; None for a row that has ended. The token that ends an answer is yielded too.
    Raises:
        SteeringError: If an edit cannot be applied.
    """
    edit = _Edits(model, rows, steering)
    state = _Decoder(model, rows, sampling)
    for _ in range(sampling.max_tokens):
        if should_stop() or state.finished:
            return
        with torch.inference_mode():  # never around the yield: it would last while somebody else computes
            with model.lock, edit.applied(state):
                logits = state.forward()
            step = state.choose(logits)
        yield step


def complete(
    model: LanguageModel, rows: Sequence[Row], sampling: Sampling, steering: Steering | None = None
) -> list[list[int]]:
    """The token ids that `stream` yields, row by row."""
    answers: list[list[int]] = [[] for _ in rows]
    for step in stream(model, rows, sampling, steering):
        for answer, token in zip(answers, step, strict=True):
            if token is not None:
                answer.append(token)
    return answers


class _Edits:
    """The edits of all rows, ready to be applied to one step."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row], steering: Steering | None) -> None:
        self.module = None
        self.edits: list[list[tuple[Edit, Lever]]] = [[] for _ in rows]
        if not any(row.edits for row in rows):
            return
        if steering is None:
            raise SteeringError("Rows have edits but no SAE was given", do="Pass the SAE and its features' maxima")
        point = model.hook_point(steering.coder.hook_point)
        _check_steerable(point, model, steering.coder)
        self.positions = check_positions(steering.positions)
        self.module, self.before = model.blocks[point.layer], point.before
        if point.before and point.layer > 0:  # the stream before a block is what comes out of the one before it
            self.module = model.blocks[point.layer - 1]
        self.edits = [[(edit, steering.lever(edit, model.device)) for edit in row.edits] for row in rows]

    def applied(self, state: "_Decoder"):
        """A context in which the next forward pass is steered."""
        prefill = state.cache_length == 0
        if self.module is None or (self.positions == "prompt" and not prefill):
            return nullcontext()

        def edit(resid: Tensor) -> Tensor:
            changed = resid.clone()
            for at, row in enumerate(state.alive):
                if not self.edits[row]:
                    continue
                first = state.padding[at] if prefill else 0
                if prefill and self.positions == "answer":
                    first = resid.shape[1] - 1
                part = resid[at, first:].float()
                changed[at, first:] += change(part, self.edits[row]).to(resid.dtype)
            return changed

        return edited(self.module, edit)


def _check_steerable(point: HookPoint, model: LanguageModel, coder: "SparseCoder") -> None:
    if not point.residual or (point.before and point.layer == 0):
        raise SteeringError(
            f"The SAE reads {point.name}, which cannot be steered",
            expected="the residual stream before or after a block (hook_resid_pre, hook_resid_post)",
            do="Use an SAE of the residual stream",
        )
    if coder.d_in != model.d_model:
        raise SteeringError(
            f"The SAE reads vectors of length {coder.d_in}, {model.name} has {model.d_model}",
            expected="an SAE that was trained on this model",
            do="Choose the model that the SAE names in its metadata",
        )


class _Decoder:
    """Key-value cache, random streams and the penalty for repeated tokens of the rows that are still going."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row], sampling: Sampling) -> None:
        from transformers import DynamicCache

        if not rows or any(not row.prompt for row in rows):
            raise SteeringError("There is an empty prompt", expected="at least one token", do="Write a prompt")
        longest = max(len(row.prompt) for row in rows)
        if longest + sampling.max_tokens > model.max_length:
            raise SteeringError(
                f"The prompt has {longest} tokens and the answer may have {sampling.max_tokens}",
                expected=f"at most {model.max_length} together for {model.name}",
                do="Shorten the prompt or lower the number of tokens",
            )
        self.model, self.sampling, self.n_rows = model, sampling, len(rows)
        self.alive, self.ended = list(range(len(rows))), set[int]()
        self.padding = [longest - len(row.prompt) for row in rows]
        pad = next(iter(model.eos_ids), 0)
        device = model.device
        self.next = torch.tensor(
            [[pad] * n + list(row.prompt) for n, row in zip(self.padding, rows, strict=True)], device=device
        )
        self.mask = torch.tensor([[0] * n + [1] * (longest - n) for n in self.padding], device=device)
        self.padded = any(self.padding)
        self.cache = DynamicCache(config=model.hf.config)
        self.random = [torch.Generator().manual_seed(row.seed) for row in rows]
        self.seen = None
        if sampling.repetition_penalty != 1:
            width = model.hf.get_output_embeddings().weight.shape[0]
            self.seen = torch.zeros(len(rows), width, dtype=torch.bool, device=device)
            for at, row in enumerate(rows):
                self.seen[at, list(row.prompt)] = True

    @property
    def finished(self) -> bool:
        return not self.alive

    @property
    def cache_length(self) -> int:
        return int(self.cache.get_seq_length())

    def forward(self) -> Tensor:
        """Logits of the next token, `[rows alive, vocabulary]`, float32."""
        extra = {}
        if self.padded:
            places = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -self.next.shape[1] :]
            extra = {"attention_mask": self.mask, "position_ids": places}
        out = self.model.hf(self.next, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **extra)
        return out.logits[:, -1].float()

    def choose(self, logits: Tensor) -> list[int | None]:
        """Draw the next token of every row, and drop the rows that end with it."""
        if self.seen is not None:
            penalty = self.sampling.repetition_penalty
            logits = torch.where(self.seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self.sampling.temperature <= 0:
            chosen = logits.argmax(-1)
        else:
            numbers = torch.cat([torch.rand(1, generator=self.random[row]) for row in self.alive])
            chosen = draw(logits / self.sampling.temperature, self.sampling.top_p, numbers.to(logits.device))
        step: list[int | None] = [None] * self.n_rows
        tokens = chosen.tolist()
        for row, token in zip(self.alive, tokens, strict=True):
            step[row] = None if row in self.ended else token
        self.next = chosen[:, None]
        if self.seen is not None:
            self.seen.scatter_(1, self.next, True)
        if self.padded:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.ended |= {row for row, token in zip(self.alive, tokens, strict=True) if token in self.model.eos_ids}
        going = [at for at, row in enumerate(self.alive) if row not in self.ended]
        if len(going) <= len(tokens) * _COMPACT or not going:
            self._keep(going)
        return step

    def _keep(self, going: list[int]) -> None:
        """Go on with these rows only."""
        self.alive = [self.alive[at] for at in going]
        self.padding = [self.padding[at] for at in going]
        if not going:
            return
        at = torch.tensor(going, device=self.next.device)
        self.next, self.mask = self.next[at], self.mask[at]
        self.cache.batch_select_indices(at)
        if self.seen is not None:
            self.seen = self.seen[at]


def draw(logits: Tensor, top_p: float, numbers: Tensor) -> Tensor:
    """Draw one token a row from the nucleus, by the inverse of its distribution function.

    The nucleus is the smallest set of most probable tokens that together have at least `top_p`. One number a row decides, so rows do not
    disturb each other; `torch.multinomial` would need a number for every token of the vocabulary, and costs as much as the model.

    Args:
        logits: `[rows, vocabulary]`, divided by the temperature.
        numbers: `[rows]`, uniform in [0, 1).
    Returns:
        `[rows]` token ids.
    """
    total = logits.logsumexp(-1, keepdim=True)
    width = min(_NUCLEUS, logits.shape[1])
    values, ids = logits.topk(width, dim=-1)
    probabilities = (values - total).exp()
    chosen = _invert(probabilities, ids, top_p, numbers)
    wide = (probabilities.sum(-1) < top_p).nonzero()[:, 0]
    if width < logits.shape[1] and len(wide):
        values, ids = logits[wide].sort(dim=-1, descending=True)
        chosen[wide] = _invert((values - total[wide]).exp(), ids, top_p, numbers[wide])
    return chosen


def _invert(probabilities: Tensor, ids: Tensor, top_p: float, numbers: Tensor) -> Tensor:
    """The token at which the summed probabilities of the nucleus pass a row's number; candidates come most probable first."""
    inside = probabilities.cumsum(-1) - probabilities < top_p
    inside[:, 0] = True  # a nucleus is never empty
    mass = (probabilities * inside).cumsum(-1)
    at = torch.searchsorted(mass, numbers[:, None] * mass[:, -1:], right=True)
    at = at.minimum(inside.sum(-1, keepdim=True) - 1)
    return ids.gather(1, at)[:, 0]
