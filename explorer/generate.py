"""Decoding with a change of the residual stream for each row of the batch.

Baseline, steered answer, a sweep of strengths and controls are rows of one batch and share every read of the weights. Every row draws from
its own random stream, one number a token, so its text does not depend on what else is in the batch. Lock and hooks are held for one step at
a time: several generations take turns, and one that is abandoned leaves nothing hooked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explorer.errors import SteeringError
from explorer.hooks import edited
from explorer.model import LanguageModel
from explorer.records import Edit, Sampling
from explorer.steering import Lever, change, check_positions, mode

if TYPE_CHECKING:
    from explorer.directions import Direction
    from explorer.sae import SparseCoder

_NUCLEUS = 512  # candidates looked at before the whole vocabulary is sorted
_COMPACT = (
    0.75  # the batch is copied without its ended rows once so few are left: copying the cache costs as much as a step
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the batch.

    Args:
        prompt: Token ids that are read before the first is drawn.
        edits: What it is steered with.
        seed: Of its random stream.
        said: How many tokens at the prompt's end are the beginning of the answer already, and steered as such.
    """

    prompt: tuple[int, ...]
    edits: tuple[Edit, ...] = ()
    seed: int = 0
    said: int = 0


@dataclass(frozen=True, slots=True)
class Steering:
    """Where and with what rows are steered.

    Args:
        coder: The SAE whose features are edited; None where only directions are.
        maxima: Feature -> its largest activation in the corpus, what strength 1 stands for.
        positions: A name in `explorer.steering.POSITIONS`.
        directions: Name -> direction; they may lie at other hook points than the SAE's, and at several.
    """

    coder: "SparseCoder | None"
    maxima: Mapping[int, float] = field(default_factory=dict)
    positions: str = "answer"
    directions: "Mapping[str, Direction]" = field(default_factory=dict)

    def lever(self, edit: Edit, device: torch.device) -> tuple[str, Lever]:
        """Where `edit` pulls (the name of a hook point), and what.

        Raises:
            SteeringError: If there is no such feature, direction or mode.
        """
        mode(edit.mode)
        return self._direction(edit, device) if edit.direction else self._feature(edit, device)

    def _feature(self, edit: Edit, device: torch.device) -> tuple[str, Lever]:
        if self.coder is None:
            raise SteeringError("Features are edited but no SAE was given", do="Pass the SAE and its features' maxima")
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
        return self.coder.hook_point, Lever(direction, maximum, self.coder.read(edit.feature))

    def _direction(self, edit: Edit, device: torch.device) -> tuple[str, Lever]:
        if edit.direction not in self.directions:
            raise SteeringError(
                f"There is no direction {edit.direction!r}",
                expected=f"one of {', '.join(self.directions)}" if self.directions else "a direction that was made",
                do="Make it with persona-explorer directions make, or choose another",
            )
        found = self.directions[edit.direction]
        unit = torch.from_numpy(found.unit).to(device, torch.float32)
        return found.hook_point, Lever(unit, found.norm, lambda resid: resid @ unit - found.base, found.base)


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


def next_logits(model: LanguageModel, rows: Sequence[Row], steering: Steering | None = None) -> Tensor:
    """Logits of the token after each row, before any penalty or temperature.

    Returns:
        `[rows, vocabulary]`, float32.
    """
    edit, state = _Edits(model, rows, steering), _Decoder(model, rows, Sampling(max_tokens=1, repetition_penalty=1.0))
    with torch.inference_mode(), model.lock, edit.applied(state):
        return state.forward()


class _Site:
    """What is edited where one block gives out its hidden states.

    Args:
        rows: Every row's edits at this place.
    """

    def __init__(self, rows: list[list[tuple[Edit, Lever]]], model: LanguageModel) -> None:
        self.looking = [[(edit, lever) for edit, lever in row if mode(edit.mode).looks] for row in rows]
        blind = [[(edit, lever) for edit, lever in row if not mode(edit.mode).looks] for row in rows]
        still = torch.zeros(model.d_model, device=model.device)
        self.constant = torch.stack([change(still, row) if row else still for row in blind])

    def edit(self, resid: Tensor, alive: list[int], steered: Tensor) -> Tensor:
        """The stream `[rows alive, pos, d_model]`, changed where `steered` `[rows alive, pos, 1]` is True."""
        delta = self.constant[alive][:, None].expand(-1, resid.shape[1], -1)
        if any(self.looking[row] for row in alive):
            delta = delta.clone()
            for at, row in enumerate(alive):
                here = steered[at, :, 0]
                if self.looking[row] and here.any():
                    delta[at, here] += change(resid[at, here].float(), self.looking[row])
        return resid + torch.where(steered, delta, 0).to(resid.dtype)


class _Edits:
    """The edits of all rows, ready to be applied to one step."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row], steering: Steering | None) -> None:
        self.sites: dict[int, _Site] = {}
        if not any(row.edits for row in rows):
            return
        if steering is None:
            raise SteeringError("Rows have edits but no SAE was given", do="Pass the SAE and its features' maxima")
        self.model, self.positions = model, check_positions(steering.positions)
        self.starts = [len(row.prompt) - 1 - row.said for row in rows]
        placed: dict[int, list[list[tuple[Edit, Lever]]]] = {}
        levers: dict[tuple[str, str, float], tuple[int, Lever]] = {}
        for at, row in enumerate(rows):
            for edit in row.edits:
                key = (edit.target, edit.mode, edit.strength)
                if key not in levers:
                    name, lever = steering.lever(edit, model.device)
                    levers[key] = (steered_block(model, name, edit, len(lever.direction)), lever)
                block, lever = levers[key]
                placed.setdefault(block, [[] for _ in rows])[at].append((edit, lever))
        self.sites = {block: _Site(edits, model) for block, edits in placed.items()}

    @contextmanager
    def applied(self, state: "_Decoder") -> Iterator[None]:
        """A context in which the next forward pass is steered."""
        steered = self._steered(state) if self.sites else None
        with ExitStack() as stack:
            if steered is not None and steered.any():
                for block, site in self.sites.items():
                    edit = partial(site.edit, alive=state.alive, steered=steered)
                    stack.enter_context(edited(self.model.blocks[block], edit))
            yield

    def _steered(self, state: "_Decoder") -> Tensor:
        """`[rows alive, pos, 1]`: which tokens of the next forward pass are steered."""
        if state.cache_length:  # one token of the answer
            going = self.positions in ("answer", "all")
            return torch.full((len(state.alive), 1, 1), going, device=self.model.device)
        padding = torch.tensor([state.padding[at] for at in range(len(state.alive))], device=self.model.device)[:, None]
        first = torch.tensor([self.starts[row] for row in state.alive], device=self.model.device)[:, None]
        place = torch.arange(state.next.shape[1], device=self.model.device) - padding  # from each row's first token on
        chosen = {
            "answer": place >= first,
            "prompt": (place >= 0) & (place <= first),
            "all": place >= 0,
            "first": place == first,
        }
        return chosen[self.positions][..., None]


def steered_block(model: LanguageModel, name: str, edit: Edit, width: int) -> int:
    """The block after which the stream at a hook point comes out.

    Raises:
        SteeringError: If it cannot be steered there.
    """
    point = model.hook_point(name)
    what = f"~{edit.direction} lies at" if edit.direction else "The SAE reads"
    if not point.residual or (point.before and point.layer == 0):
        raise SteeringError(
            f"{what} {point.name}, which cannot be steered",
            expected="the residual stream before or after a block (hook_resid_pre, hook_resid_post)",
            do="Use one of the residual stream",
        )
    if width != model.d_model:
        raise SteeringError(
            f"{what} vectors of length {width}, {model.name} has {model.d_model}",
            expected=f"{'a direction' if edit.direction else 'an SAE'} that was made with this model",
            do="Choose the model that it was made with",
        )
    return point.layer - point.before  # the stream before a block is what comes out of the one before it


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
