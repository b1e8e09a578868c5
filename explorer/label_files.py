"""What a label is, and the files that labels travel in: CSV for spreadsheets, JSON lines for programs.

Both hold every character as it was typed (line breaks, quotes, a leading =), and reading a file that was written here
gives back the same labels.
"""

import csv
import getpass
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from explorer.errors import LabelError

BUNDLED = "bundled"
"""The author of labels that came with a cache."""
NOT_INTERPRETABLE = "not interpretable"
"""The label of a feature in which a person looked for one meaning and found none."""
COLUMNS = ("sae", "feature", "label", "note", "confidence", "author", "evidence", "created_at")
_TEXTS = ("sae", "label", "note", "author", "evidence")
_MOST = 5_000_000  # labels in a file
CONFIDENCES = {1: "a guess", 2: "likely", 3: "sure"}
LIMITS = {"label": 500, "note": 20_000, "author": 200, "evidence": 20_000, "sae": 128}


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody said of a feature at some time.

    Args:
        sae: Fingerprint of the SAE.
        feature: Index of the feature in it.
        label: A few words; empty together with the note and the confidence takes back what was said.
        confidence: 1 to 3 (see `CONFIDENCES`), or None where nobody said.
        author: A name as its owner typed it; `BUNDLED` for labels that came with the cache.
        created_at: When, in UTC; None where a bundled file does not say.
        id: Of the change in the store; None for what is not in the store.
        evidence: What it rests on, as `explorer.evidence_lock.Evidence.to_json` gives it; "" where nobody noted it.
    """

    sae: str
    feature: int
    label: str
    note: str = ""
    confidence: int | None = None
    author: str = ""
    created_at: datetime | None = None
    id: int | None = None
    evidence: str = ""

    @property
    def bundled(self) -> bool:
        """Whether it came with the cache."""
        return self.author == BUNDLED

    @property
    def empty(self) -> bool:
        """Whether it says nothing, and so takes back what was said."""
        return not (self.label or self.note or self.confidence)


def machine_user() -> str:
    """Who works on this machine, as the author of what is said here; "me" where its user's name says nothing of a person."""
    try:
        name = " ".join(getpass.getuser().split())[: LIMITS["author"]]
    except (OSError, KeyError, ImportError):  # a container without a user table
        return "me"
    return "me" if name in {"root", "nobody", "", BUNDLED} else name


def checked(label: Label) -> Label:
    """The label if it can be stored everywhere and come back unchanged.

    Raises:
        LabelError: Saying why not.
    """
    if not label.sae:
        raise LabelError("A label without the fingerprint of an SAE", expected="a fingerprint in column sae")
    if isinstance(label.feature, bool) or not isinstance(label.feature, int) or not 0 <= label.feature < 2**31:
        raise LabelError(f"{label.feature!r} is no feature", expected="a whole number from 0")
    if label.confidence is not None and label.confidence not in CONFIDENCES:
        raise LabelError(f"The confidence is {label.confidence!r}", expected="1, 2, 3 or nothing")
    for name, limit in LIMITS.items():
        storable(name, getattr(label, name), limit)
    return label


def storable(name: str, text: str, limit: int | None = None) -> None:
    """Refuse a text that some database would not give back as it is.

    Args:
        name: What it is, for the message.
        limit: The most characters, if there is one.
    Raises:
        LabelError: Saying why not.
    """
    if "\0" in text:
        raise LabelError(f"The {name} holds a NUL character", do="Remove it: databases end a text there")
    if not _encodable(text):
        raise LabelError(f"The {name} holds half a character (a lone surrogate)", do="Type it again")
    if limit is not None and len(text) > limit:
        raise LabelError(f"The {name} has {len(text):,} characters", expected=f"at most {limit:,}", do="Shorten it")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def stamp(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def write_csv(labels: Iterable[Label], stream: TextIO) -> int:
    """Write labels as CSV with a heading; the stream must have been opened with `newline=""`."""
    # csv quotes what holds its own line end; a lone carriage return it would write bare, and read as a line end
    plain, quoted = (csv.writer(stream, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow(COLUMNS)
    count = 0
    for label in labels:
        row = ["" if cell is None else str(cell) for cell in _plain(label).values()]
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        count += 1
    return count


def read_csv(stream: TextIO) -> Iterator[Label]:
    """Read labels from CSV: columns by their heading; note, confidence, author and time may be missing."""
    reader = csv.DictReader(stream, strict=True)
    try:
        missing = {"sae", "feature", "label"} - set(reader.fieldnames or ())
        if missing:
            raise LabelError(f"Column {', '.join(sorted(missing))} is missing", expected=",".join(COLUMNS))
        for row in reader:
            with _at_line(reader.line_num):
                if None in row or None in row.values():
                    raise LabelError(
                        "There are more or fewer cells than headings", do="Put cells that hold commas in double quotes"
                    )
                yield _parsed(row)
    except csv.Error as error:
        raise LabelError(f"Line {reader.line_num}: this is no CSV ({error})") from error


def write_jsonl(labels: Iterable[Label], stream: TextIO) -> int:
    """Write labels as one JSON object a line."""
    count = 0
    for label in labels:
        stream.write(json.dumps(_plain(label), ensure_ascii=False) + "\n")
        count += 1
    return count


def read_jsonl(stream: TextIO) -> Iterator[Label]:
    """Read labels from JSON lines."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        with _at_line(number):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LabelError(f"This is no JSON ({str(error)[:120]})", expected="one object a line") from error
            if not isinstance(row, dict) or not {"sae", "feature", "label"} <= row.keys():
                raise LabelError("sae, feature or label is missing", expected=f"an object with {', '.join(COLUMNS)}")
            yield _parsed(row)


def write_parquet(labels: Iterable[Label], stream: Any) -> int:
    """Write labels as one Parquet table with the columns of the other formats."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {"feature": pa.int32(), "confidence": pa.int8()}
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in COLUMNS])
    rows = [_plain(label) for label in labels]
    pq.write_table(pa.Table.from_pylist(rows, schema), stream, compression="zstd")
    return len(rows)


def read_parquet(stream: Any) -> Iterator[Label]:
    """Read labels from a Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(stream.read()))
        if table.metadata.num_rows > _MOST:  # a megabyte of Parquet can say one row a thousand million times
            raise LabelError(f"There are {table.metadata.num_rows:,} rows", expected=f"at most {_MOST:,}")
        rows = table.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LabelError(f"This is no Parquet table ({str(error).splitlines()[0]})") from error
    for number, row in enumerate(rows, 1):
        with _at_line(number):
            if not {"sae", "feature", "label"} <= row.keys():
                raise LabelError("sae, feature or label is missing", expected=f"columns {', '.join(COLUMNS)}")
            yield _parsed(row)


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file that labels are written to and read from; `binary` files take bytes."""

    read: Callable[[Any], Iterator[Label]]
    write: Callable[[Iterable[Label], Any], int]
    help: str
    binary: bool = False


FORMATS: dict[str, Format] = {
    "csv": Format(read_csv, write_csv, "One label a row, for spreadsheets."),
    "jsonl": Format(read_jsonl, write_jsonl, "One JSON object a line, for programs."),
    "parquet": Format(read_parquet, write_parquet, "One table, for data frames.", binary=True),
}


def write(labels: Iterable[Label], stream: TextIO, format: str = "csv") -> int:
    """Write labels to an open text stream; gives back how many.

    Raises:
        LabelError: If there is no such format.
    """
    kind = _format(format)
    return kind.write(labels, stream.buffer if kind.binary else stream)  # type: ignore[attr-defined]


def write_file(labels: Iterable[Label], path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write labels to a file whose ending names the format, whole or not at all; gives back how many.

    Raises:
        LabelError: If the file is there, has another ending, or cannot be written.
    """
    target = Path(path).expanduser()
    kind = _format(target.suffix.removeprefix("."))
    with new_file(target, overwrite=overwrite) as scratch, _opened(scratch, kind, "w") as stream:
        return kind.write(labels, stream)


def read_file(path: str | os.PathLike[str]) -> list[Label]:
    """Read every label of a file whose ending names the format.

    Raises:
        LabelError: Naming the file and the line.
    """
    source = Path(path).expanduser()
    kind = _format(source.suffix.removeprefix("."))
    try:
        with _opened(source, kind, "r") as stream:
            return list(kind.read(stream))
    except LabelError as error:
        raise LabelError(f"{source.name}: {error.found}", expected=error.expected, do=error.do) from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{source} is not UTF-8 text", do="Save it as UTF-8 and try again") from error
    except OSError as error:
        raise LabelError(f"{source} cannot be read ({error.strerror or error})", do="Check the path") from error


def _opened(path: Path, kind: Format, mode: str) -> Any:
    if kind.binary:
        return path.open(f"{mode}b")
    return path.open(
        mode, encoding="utf-8-sig" if mode == "r" else "utf-8", newline=""
    )  # spreadsheets put a mark in front


@contextmanager
def new_file(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch file beside `target` that takes its name once the block has ended well.

    Raises:
        LabelError: If there is such a file and it is not to be overwritten, or it cannot be written.
    """
    there = LabelError(f"There is a file already at {target}", do="Choose another name; nothing was written")
    if not overwrite and os.path.lexists(target):
        raise there
    try:
        with tempfile.TemporaryDirectory(prefix=".labels-", dir=target.parent) as folder:
            scratch = Path(folder) / target.name
            yield scratch
            if overwrite:
                os.replace(scratch, target)
                return
            try:
                os.link(scratch, target)  # unlike a rename, it fails where another process was faster
            except FileExistsError:
                raise there from None
            except OSError:  # a disk without links
                if os.path.lexists(target):
                    raise there from None
                os.replace(scratch, target)
    except OSError as error:
        raise LabelError(
            f"{target} cannot be written ({error.strerror or error})", do="Choose another place"
        ) from error


def _format(name: str) -> Format:
    if name.lower() not in FORMATS:
        raise LabelError(f"Labels are not kept in {name or 'files without an ending'}", expected=" or ".join(FORMATS))
    return FORMATS[name.lower()]


@contextmanager
def _at_line(number: int) -> Iterator[None]:
    try:
        yield
    except LabelError as error:
        raise LabelError(f"Line {number}: {error.found}", expected=error.expected, do=error.do) from error


def _plain(label: Label) -> dict[str, Any]:
    return {name: getattr(label, name) for name in COLUMNS} | {"created_at": stamp(label.created_at)}


def _parsed(row: dict[str, Any]) -> Label:
    """A label from the cells of a row, which are texts in CSV and values in JSON."""
    texts: dict[str, Any] = {name: row.get(name) or "" for name in (*_TEXTS, "created_at")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise LabelError(f"The {name} is {text!r}", expected="text")
    try:
        created_at = moment(texts.pop("created_at").strip())
    except (ValueError, OverflowError) as error:
        raise LabelError(
            f"The time {row['created_at']!r} cannot be read", expected="such as 2026-01-31T10:02:00Z"
        ) from error
    confidence = _number(row.get("confidence"), "confidence")
    feature = _number(row["feature"], "feature")
    if feature is None:
        raise LabelError("The feature is missing", expected="a whole number from 0")
    return checked(Label(feature=feature, confidence=confidence, created_at=created_at, **texts))


def _number(cell: Any, name: str) -> int | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, str) and re.fullmatch(r"\s*[0-9]{1,12}\s*", cell):
        return int(cell)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    raise LabelError(f"The {name} is {cell!r}", expected="a whole number")
