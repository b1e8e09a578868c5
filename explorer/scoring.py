"""What chosen features and directions read in conversations, message by message.

The whole conversation is read as the model would read it, in its chat template; a message's score is over its own tokens that count as
evidence. Scores are in multiples of strength 1: a feature's largest activation in the corpus, a direction's mean difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.errors import SteeringError
from explorer.evidence import EvidenceReader, judge_text
from explorer.transcripts import TEXT, Transcript
from explorer.windows import Windows

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.model import LanguageModel

CONTEXT = 512
"""Longest window that is read at once, in tokens: a longer conversation is read in several, each without what came before."""
_ENCODED = 1024
_PARTIES = {"user": "Human", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A feature or a direction that is read.

    Args:
        feature: Its number; -1 where it is a direction.
        direction: Its name; "" where it is a feature.
    """

    feature: int = -1
    direction: str = ""

    @property
    def name(self) -> str:
        """As links and the command line spell it: `12` or `~cruel`."""
        return f"~{self.direction}" if self.direction else str(self.feature)

    @classmethod
    def of(cls, spelled: str) -> "Probe":
        """The probe that `name` spells.

        Raises:
            SteeringError: If it is neither a number nor `~name`.
        """
        spelled = spelled.strip()
        if spelled.startswith("~") and len(spelled) > 1:
            return cls(direction=spelled[1:])
        if spelled.isdecimal():
            return cls(int(spelled))
        raise SteeringError(f"{spelled!r} is no feature", expected="a feature's number, or ~name of a direction")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of the messages of some transcripts, in their order.

    Args:
        transcript: `[messages]` int, which transcript.
        message: `[messages]` int, which of its messages, from 0.
        tokens: `[messages]` int, tokens that count; 0 where none does, and then the scores are nan.
        mean, largest: `[messages, probes]` float32 over these tokens.
    """

    transcript: np.ndarray
    message: np.ndarray
    tokens: np.ndarray
    mean: np.ndarray
    largest: np.ndarray


class Scorer:
    """Reads probes in conversations.

    Args:
        steering: SAE, maxima and directions, as for steering.
        context: Longest window, in tokens.
        median_norms: Hook point -> median norm of the residual stream there, as an earlier scorer found it; else the SAE's own, else that of
            the first batch that is read.
    Raises:
        SteeringError: If a probe names no feature or direction, or a feature that never fires.
    """

    def __init__(
        self,
        model: "LanguageModel",
        steering: "Steering",
        probes: Sequence[Probe],
        *,
        context: int = CONTEXT,
        median_norms: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.probes = model, tuple(probes)
        self.coder, self.maxima, self.directions = steering.coder, steering.maxima, steering.directions
        self.context = min(context, model.max_length)
        for probe in self.probes:
            self._check(probe)
        self.readers: dict[str, EvidenceReader] = {}
        for hook in dict.fromkeys(self._hook(probe) for probe in self.probes):
            own = self.coder.metadata.get("median_norm") if self.coder and hook == self.coder.hook_point else None
            self.readers[hook] = EvidenceReader(model, hook, median_norm=(median_norms or {}).get(hook, own))

    @property
    def median_norms(self) -> dict[str, float]:
        """What an attention sink is told by, hook point by hook point, as far as it is known yet."""
        return {hook: r.median_norm for hook, r in self.readers.items() if r.median_norm is not None}

    def score(self, transcripts: Sequence[Transcript]) -> Scores:
        """Score some transcripts together; how they are grouped changes no score, save where no median norm is known yet."""
        read = [rendered(self.model, transcript) for transcript in transcripts]
        begins = np.concatenate([[0], np.cumsum([len(t.messages) for t in transcripts])]).astype(np.int64)
        slots = int(begins[-1])
        total = np.zeros((slots, len(self.probes)))
        largest = np.full((slots, len(self.probes)), -np.inf, np.float32)
        tokens = np.zeros(slots, np.int64)
        windows, owner = _windows(read, begins, self.context, self.model.vocabulary.special)
        first = ""
        for hook, columns, place, values in self._read(windows):
            first = first or hook
            rows = owner[place]
            np.add.at(total, (rows[:, None], np.array(columns)), values)
            np.maximum.at(largest, (rows[:, None], np.array(columns)), values)
            if hook == first:
                np.add.at(tokens, rows, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(tokens[:, None] > 0, total / tokens[:, None], np.nan).astype(np.float32)
        largest[tokens == 0] = np.nan
        which = np.repeat(np.arange(len(transcripts)), np.diff(begins))
        return Scores(which, np.arange(slots) - begins[which], tokens, mean, largest)

    def tokens(self, transcript: Transcript, message: int) -> tuple[np.ndarray, np.ndarray]:
        """One message, token by token; only the windows that hold it are read.

        Args:
            message: Which of the transcript's messages, from 0.
        Returns:
            `[tokens]` ids; `[tokens, probes]` values, nan where a token does not count.
        """
        ids, owners = rendered(self.model, transcript)
        mine = np.flatnonzero(owners == message)
        if not len(mine):
            return ids[:0], np.empty((0, len(self.probes)), np.float32)
        start, stop = int(mine[0]) // self.context * self.context, int(mine[-1]) + 1
        cut = ids[start:stop], np.where(owners[start:stop] == message, 0, -1)
        windows, _ = _windows([cut], np.zeros(2, np.int64), self.context, self.model.vocabulary.special)
        values = np.full((stop - start, len(self.probes)), np.nan, np.float32)
        for _, columns, place, found in self._read(windows):
            values[place[:, None], np.array(columns)] = found
        return ids[mine], values[mine - start]

    def _read(self, windows: Windows) -> Iterator[tuple[str, list[int], np.ndarray, np.ndarray]]:
        """Hook point by hook point and part by part: the probes' columns, places of tokens that count, `[places, columns]` values."""
        for hook, reader in self.readers.items() if len(windows) else ():
            columns = [at for at, probe in enumerate(self.probes) if self._hook(probe) == hook]
            for place, resid in reader.read(windows):
                for start in range(0, len(place), _ENCODED):
                    part = slice(start, start + _ENCODED)
                    yield hook, columns, place[part], self._values(resid[part], columns)

    def _values(self, resid, columns: Sequence[int]) -> np.ndarray:
        """`[tokens, columns]` in multiples of strength 1."""
        import torch

        found = np.empty((len(resid), len(columns)), np.float32)
        features = [at for at, column in enumerate(columns) if not self.probes[column].direction]
        if features:
            assert self.coder is not None
            numbers = [self.probes[columns[at]].feature for at in features]
            acts = self.coder.encode(resid)[:, numbers].float().cpu().numpy()
            found[:, features] = acts / np.array([self.maxima[n] for n in numbers], np.float32)
        for at, column in enumerate(columns):
            if name := self.probes[column].direction:
                direction = self.directions[name]
                unit = torch.from_numpy(direction.unit).to(resid.device, torch.float32)
                found[:, at] = ((resid.float() @ unit).cpu().numpy() - direction.base) / direction.norm
        return found

    def _hook(self, probe: Probe) -> str:
        if probe.direction:
            return self.directions[probe.direction].hook_point
        assert self.coder is not None
        return self.coder.hook_point

    def _check(self, probe: Probe) -> None:
        if probe.direction:
            if probe.direction not in self.directions:
                raise SteeringError(
                    f"There is no direction {probe.direction!r}",
                    expected=f"one of {', '.join(self.directions)}" if self.directions else "one that was made",
                )
        elif self.coder is None or not 0 <= probe.feature < self.coder.n_features:
            raise SteeringError(
                f"There is no feature {probe.feature}",
                expected=f"0 to {self.coder.n_features - 1}" if self.coder else "an SAE",
            )
        elif self.maxima[probe.feature] <= 0:
            raise SteeringError(f"Feature {probe.feature} never fires in the corpus", do="Choose another feature")


def rendered(model: "LanguageModel", transcript: Transcript) -> tuple[np.ndarray, np.ndarray]:
    """A conversation as the model reads it: token ids, and for each the number of its message, -1 where nobody says it.

    Where there is no template, or it refuses these parties, turns are written as "Human: ..." and "Assistant: ...".
    """
    from explorer.errors import ModelError

    said = [{"role": m.role, "content": m.text} for m in transcript.messages]
    if model.has_template and said and all(m["role"] != TEXT for m in said):
        try:
            tokens, owners = model.chat_owners(said)
            if {at for at, m in enumerate(said) if m["content"]} <= set(owners):
                return np.array(tokens, np.int32), np.array(owners, np.int64)
        except ModelError:  # a template that takes no such order of parties
            pass
    text, marks = "", []
    for message in transcript.messages:
        text += "\n\n" * bool(text) + (f"{_PARTIES.get(message.role, message.role)}: " if message.role != TEXT else "")
        marks.append((len(text), len(text) + len(message.text)))
        text += message.text
    encoded = model.tokenizer(text, return_offsets_mapping=True)
    owners = np.full(len(encoded.input_ids), -1, np.int64)
    for at, (start, stop) in enumerate(encoded.offset_mapping):
        for number, (a, b) in enumerate(marks):
            if stop > start and start < b and stop > a:
                owners[at] = number
    return np.array(encoded.input_ids, np.int32), owners


def _windows(
    read: Sequence[tuple[np.ndarray, np.ndarray]], begins: np.ndarray, context: int, special: frozenset[int]
) -> tuple[Windows, np.ndarray]:
    """Conversations cut into windows, and the slot of each of their tokens' messages."""
    cuts = [(at, start) for at, (tokens, _) in enumerate(read) for start in range(0, len(tokens), context)]
    parts = [read[at][0][start : start + context] for at, start in cuts]
    owners = [read[at][1][start : start + context] for at, start in cuts]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    flat = np.concatenate(parts) if parts else np.empty(0, np.int32)
    owned = np.concatenate(owners) if owners else np.empty(0, np.int64)
    document = np.array([at for at, _ in cuts], np.int32)
    slot = begins[np.repeat(document, np.diff(starts))] + owned if parts else owned
    windows = Windows(
        index=np.arange(len(cuts), dtype=np.int64), document=document, offset=np.array([s for _, s in cuts], np.int32),
        starts=starts, tokens=flat, evidence=judge_text(flat, owned >= 0, starts, special),
    )  # fmt: skip
    return windows, slot
