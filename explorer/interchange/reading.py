"""Reading JSON that somebody else wrote: every wrong file is refused with what was found and what was expected."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from explorer.errors import UsageError

_HEAD = 4096
_MOST = 1 << 20  # features: a number beyond is a mistake, and every number below it gets a row
_LARGEST = 1 << 29  # bytes of a file, unpacked: a few kilobytes of gzip can hold a thousand times as many
_LARGEST_NUMBER = 3.4e38  # of a float32, which activations are kept in
_LARGEST_COUNT = 1 << 53
_LONGEST_NAME = 300  # characters
_LONGEST_TEXT = 65_535  # tokens: what positions in a cache count up to


class ForeignError(UsageError):
    """A file is not what an importer reads."""


def seems(path: Path) -> str:
    """What a file seems to be, in a few words, by its first bytes alone; nothing in it is run."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    if not head:
        return "an empty file"
    for begins, what in (
        (b"\x80\x02", "a Python pickle, which could run code and is never opened"),
        (b"\x80\x03", "a Python pickle, which could run code and is never opened"),
        (b"\x80\x04", "a Python pickle, which could run code and is never opened"),
        (b"\x80\x05", "a Python pickle, which could run code and is never opened"),
        (b"PK\x03\x04", "a zip archive (torch.save writes such, with a pickle inside)"),
        (b"\x1f\x8b", "gzip"),
        (b"GGUF", "a GGUF file"),
        (b"PAR1", "a Parquet table"),
        (b"SQLite format 3", "an SQLite database"),
    ):
        if head.startswith(begins):
            return what
    if head[8:9] == b"{" and b'"dtype"' in head:
        return "a safetensors file"
    try:
        text = (
            head.decode("utf-8-sig")
            if len(head) < _HEAD
            else head[: head.rfind(b"\n") + 1 or None].decode("utf-8-sig", "ignore")
        )
    except UnicodeDecodeError:
        return "a file that is no text"
    stripped = text.lstrip()
    if not stripped:
        return "a file of white space"
    if stripped[0] in "{[":
        return "JSON"
    first = stripped.splitlines()[0]
    if first.count(",") >= 1 or first.count("\t") >= 1:
        return f"a table of text (CSV) with the heading {first[:60]!r}"
    return f"text that begins {first[:40]!r}"


def refuse(path: Path, expected: str, found: str = "") -> ForeignError:
    """The error that a file is another than expected.

    Args:
        found: In a few words; by default what it seems to be.
    """
    return ForeignError(
        f"{path.name} is {found or seems(path)}", expected=expected, do="Choose a file that the other program wrote"
    )


def read_json(path: Path, expected: str) -> Any:
    """The JSON value in a file, gzipped or not.

    Raises:
        ForeignError: If there is none.
    """
    what = seems(path)
    if what not in ("JSON", "gzip"):
        raise refuse(path, expected, what)
    try:
        return json.loads(_text(path, expected), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        cut = "JSON that ends too early" if _cut_off(error) else "no whole JSON"
        raise refuse(path, expected, f"{cut} ({_first(error)})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(path, expected, f"a file that cannot be read whole ({error})") from error


def read_lines(path: Path, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a file of JSON lines, gzipped or not.

    Raises:
        ForeignError: At the first line that is none.
    """
    what = seems(path)
    if what not in ("JSON", "gzip"):
        raise refuse(path, expected, what)
    try:
        for at, line in enumerate(io.StringIO(_text(path, expected)), 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=_no_number)
            except (ValueError, RecursionError) as error:
                raise refuse(path, expected, f"no JSON in line {at} ({_first(error)})") from error
            if not isinstance(value, dict):
                raise refuse(path, expected, f"a {type(value).__name__}, not an object, in line {at}")
            yield at, value
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise refuse(path, expected, f"a file that cannot be read whole ({error})") from error


def numbers(value: Any, what: str, path: Path) -> list[float]:
    """A list of numbers that a float32 holds; None counts as an empty one.

    Raises:
        ForeignError: If it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= _LARGEST_NUMBER for v in value
    ):
        raise refuse(path, f"a list of numbers of at most {_LARGEST_NUMBER} as {what}", f"a file whose {what} is none")
    return [float(v) for v in value]


def strings(value: Any, what: str, path: Path) -> list[str]:
    """A list of texts; None counts as an empty one.

    Raises:
        ForeignError: If it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise refuse(path, f"a list of texts as {what}", f"a file whose {what} is none")
    return value


def text_row(tokens: Any, values: Any, path: Path) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The tokens of a text and the activation at each of them.

    Raises:
        ForeignError: If they are none, or do not fit each other.
    """
    read, acts = strings(tokens, "tokens", path), numbers(values, "values", path)
    if len(read) != len(acts):
        raise refuse(path, "one value a token", f"a file with {len(read)} tokens and {len(acts)} values in one text")
    if len(read) > _LONGEST_TEXT:
        raise refuse(path, f"at most {_LONGEST_TEXT:,} tokens in a text", f"a file with a text of {len(read):,} tokens")
    return tuple(read), tuple(acts)


def number(value: Any, what: str, path: Path) -> float:
    """One number that a float32 holds; None counts as 0.

    Raises:
        ForeignError: If it is something else.
    """
    return (numbers([0 if value is None else value], what, path) or [0.0])[0]


def count(value: Any, what: str, path: Path) -> int:
    """How many of something; None counts as 0.

    Raises:
        ForeignError: If it is something else.
    """
    found = number(value, what, path)
    if not 0 <= found <= _LARGEST_COUNT:
        raise refuse(path, f"a number from 0 as {what}", f"a file whose {what} is {found:g}")
    return int(found)


def bars(middles: Any, heights: Any, path: Path) -> tuple[tuple[float, int], ...]:
    """(middle, count) of each bar of a histogram; none where the middles do not rise, or say nothing of what is above 0.

    Raises:
        ForeignError: If they are no numbers, or the heights no counts.
    """
    found = numbers(middles, "freq_hist_data_bar_values", path)
    counts = [count(height, "freq_hist_data_bar_heights", path) for height in _list(heights, path)]
    rising = all(low < high for low, high in pairwise(found))
    return tuple(zip(found, counts, strict=False)) if rising and found and found[-1] > 0 else ()


def _list(value: Any, path: Path) -> list[Any]:
    if value is None or isinstance(value, list):
        return value or []
    raise refuse(path, "a list of counts as freq_hist_data_bar_heights", "a file in which it is none")


def plain_name(value: Any, what: str, path: Path) -> str:
    """A name of one line; None counts as an empty one.

    Raises:
        ForeignError: If it is something else.
    """
    said = "" if value is None else str(value)
    right = value is None or (isinstance(value, str | int) and not isinstance(value, bool))
    if not right or len(said) > _LONGEST_NAME or not said.isprintable():
        raise refuse(path, f"a name of one line as {what}", f"a file whose {what} is {said[:60]!a}")
    return said


def clean(text: str) -> str:
    """A text that every database and page can hold: without NUL, and a sign for half of a character."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def index(value: Any, path: Path) -> int:
    """The number of a feature, which some files write as text.

    Raises:
        ForeignError: If it is none.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST:
        raise refuse(
            path,
            f"a whole number from 0 to {_MOST - 1:,} as the number of a feature",
            f"a file with a feature {value!r}",
        )
    return value


def _text(path: Path, expected: str) -> str:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise refuse(path, expected, f"a file of more than {_LARGEST >> 20:,} MiB{' when unpacked' if packed else ''}")
    return raw.decode("utf-8-sig")


def _first(error: Exception) -> str:
    """An error's first line, at a length that fits a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _no_number(name: str) -> float:
    """Python writes NaN and Infinity, which are no JSON; here they become 0, since nothing was measured."""
    return 0.0


def _cut_off(error: Exception) -> bool:
    return isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip()) - 1
