"""Token ids to text, without a tokenizer and without splitting characters that span tokens.

A vocabulary is a table of bytes: what each token id stands for. Text is the concatenation of bytes, decoded as UTF-8, so a character
that a tokenizer spreads over several tokens comes out whole wherever all of its bytes are there.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from explorer.errors import CacheError

_PRINTABLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive tokens that must be shown together: one token, or the pieces of one character.

    Args:
        text: The text of the unit; bytes that are no UTF-8 show as U+FFFD.
        start, stop: The half-open span of token positions.
        value: The largest activation among them (0 without activations).
        special: Whether it is a special token of the model.
        parts: (bytes in hex, activation) of each token, where the unit has more than one.
    """

    text: str
    start: int
    stop: int
    value: float
    special: bool
    parts: tuple[tuple[str, float], ...] = ()


class Vocabulary:
    """What each token id of a model stands for.

    Args:
        bytes_of: Bytes of each token id, in order of ids.
        special: Ids of tokens that stand for structure, not text.
    """

    def __init__(self, bytes_of: Sequence[bytes], special: frozenset[int] | set[int] = frozenset()) -> None:
        self.bytes_of = list(bytes_of)
        self.special = frozenset(special)

    def __len__(self) -> int:
        return len(self.bytes_of)

    def text(self, ids: Sequence[int]) -> str:
        """The text of `ids`; an incomplete character at either end shows as U+FFFD."""
        return b"".join(self.bytes_of[i] for i in ids).decode("utf-8", errors="replace")

    def piece(self, token: int) -> str:
        """One token for a table: line breaks and tabs visible, part of a character as its bytes in hex."""
        raw = self.bytes_of[token]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return f"<{raw.hex(' ').upper()}>"
        return "".join(_PRINTABLE.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)

    def units(self, ids: Sequence[int], acts: Sequence[float] | None = None) -> list[Unit]:
        """Join tokens until their bytes are complete UTF-8.

        Args:
            ids: Token ids.
            acts: One activation a token.
        Returns:
            Units that cover every position once, in order; their texts joined are the text of `ids`.
        """
        values = [0.0] * len(ids) if acts is None else [float(a) for a in acts]
        units: list[Unit] = []
        start = 0
        while start < len(ids):
            whole = self._whole[ids[start]]
            if whole is not None:
                units.append(Unit(whole, start, start + 1, values[start], ids[start] in self.special))
                start += 1
                continue
            stop = start + 1
            if ids[start] not in self.special:
                stop = self._complete(ids, start)
            raw = b"".join(self.bytes_of[i] for i in ids[start:stop])
            parts: tuple[tuple[str, float], ...] = ()
            if stop - start > 1:
                parts = tuple(
                    (self.bytes_of[i].hex(" ").upper(), v)
                    for i, v in zip(ids[start:stop], values[start:stop], strict=True)
                )
            units.append(
                Unit(
                    raw.decode("utf-8", errors="replace"),
                    start,
                    stop,
                    max(values[start:stop], key=abs),
                    ids[start] in self.special,
                    parts,
                )
            )
            start = stop
        return units

    @cached_property
    def _whole(self) -> list[str | None]:
        """The text of each token that is whole characters; nearly all are, and windows of them are shown by the dozen."""
        return [_decoded(raw) for raw in self.bytes_of]

    def _complete(self, ids: Sequence[int], start: int) -> int:
        """The first stop at which the bytes from `start` end on a character; `start + 1` if a whole character cannot come."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        for stop in range(start, len(ids)):
            if stop > start and ids[stop] in self.special:
                return start + 1
            try:
                decoder.decode(self.bytes_of[ids[stop]])
            except UnicodeDecodeError:
                return start + 1
            if not decoder.getstate()[0]:
                return stop + 1
        return start + 1

    def streamer(self) -> "Streamer":
        """A reader for tokens that arrive one by one."""
        return Streamer(self)

    def save(self, path: Path) -> None:
        """Write the vocabulary as a Parquet table (id, bytes, special)."""
        table = pa.table(
            {
                "id": pa.array(range(len(self)), pa.int32()),
                "bytes": pa.array(self.bytes_of, pa.binary()),
                "special": pa.array([i in self.special for i in range(len(self))], pa.bool_()),
            }
        )
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            CacheError: If the file is missing or is not such a table.
        """
        try:
            table = pq.read_table(path, columns=["bytes", "special"])
        except (OSError, KeyError, pa.ArrowException) as error:
            raise CacheError(
                f"{path} cannot be read as a vocabulary ({error})",
                expected="a Parquet table with the columns id, bytes and special",
                do="Build the cache again with persona-explorer build",
            ) from error
        special = table.column("special").to_numpy().nonzero()[0]
        return cls(table.column("bytes").to_pylist(), frozenset(int(i) for i in special))


class Streamer:
    """Text of tokens that arrive one by one: only whole characters leave it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty inside a character, and for special tokens."""
        if token in self._vocabulary.special:
            return self.flush()
        return self._decoder.decode(self._vocabulary.bytes_of[token])

    def flush(self) -> str:
        """What is left at the end: a character that never became whole shows as U+FFFD."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


@cache
def byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE writes for each byte, inverted.

    Printable bytes stand for themselves; the others take the code points from 256 on, in order.
    Source: the byte-level BPE of GPT-2 (Radford et al. 2019), which Llama 3, Qwen and SmolLM2 share.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): b for b in printable}
    table.update({chr(256 + k): b for k, b in enumerate(others)})
    return table


def token_bytes(token: str, *, byte_level: bool) -> bytes:
    """The bytes that a vocabulary entry stands for.

    Args:
        token: The entry as the tokenizer's vocabulary spells it.
        byte_level: Whether the tokenizer is byte-level BPE; otherwise it is read as SentencePiece (`▁` is a space,
            `<0x0A>` one byte).
    """
    if byte_level:
        table = byte_alphabet()
        if all(c in table for c in token):
            return bytes(table[c] for c in token)
        return token.encode("utf-8")  # an added token is spelled as it is
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace("▁", " ").encode("utf-8")
