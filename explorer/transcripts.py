"""Chat logs of every common form, read one conversation at a time."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from explorer.errors import CorpusError, UsageError

ROLES: dict[str, str] = {
    "human": "user", "user": "user", "prompter": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "ai": "assistant",
    "system": "system",
}  # fmt: skip
"""How logs call the parties -> how chat templates do; other names are kept as they are."""
TEXT = "text"
"""The role of a text that nobody says: a sentence of a list, a document."""
_TURN = re.compile(r"^(?:#+\s*)?(Human|User|Assistant|AI|System|Bot)\s*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_COLUMNS = {
    "conversation": ("conversation_id", "conversation", "chat_id", "id", "session"),
    "role": ("role", "from", "speaker", "author"),
}
_SAID = ("content", "text", "value", "message", "test_case", "tweet", "prompt", "answer")
_LONGEST_FIELD = 1 << 27  # characters of a CSV cell

Truth = bool | None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Args:
        role: "user", "assistant", "system", `TEXT`, or what the log calls it.
        truth: Whether the log itself says that it is of the kind that is looked for; None where it does not say.
    """

    role: str
    text: str
    truth: Truth = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """One conversation.

    Args:
        source: Where it stands, for people: file and line, or the log's own id.
    """

    source: str
    messages: tuple[Message, ...]


def read_transcripts(path: str | Path, *, truth: tuple[str, str] | None = None) -> Iterator[Transcript]:
    """Conversations of a log: .jsonl, .json, .csv or .txt, in OpenAI's, ShareGPT's or "Human: / Assistant:" form.

    Lines and rows are read as they are needed; only a .json file is held whole.

    Args:
        truth: (field, value): a row of which `field` is `value` is of the kind that is looked for, its other rows are not.
    Raises:
        CorpusError: If the file cannot be read, or a row is of no known form; the message names the row.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise CorpusError(
            f"{path} is {'no file' if not path.is_file() else f'a {path.suffix or chr(34) * 2} file'}",
            expected=f"a log as {', '.join(_READERS)}",
            do="Check the path, or convert it",
        )
    try:
        yield from reader(path, truth)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} cannot be read ({error})", expected="text in UTF-8") from error


def truth_of(said: str) -> tuple[str, str] | None:
    """FIELD=VALUE as a pair; None where nothing is said.

    Raises:
        UsageError: If it is no such pair.
    """
    field, _, value = (part.strip() for part in said.partition("="))
    if not said.strip():
        return None
    if not (field and value):
        raise UsageError(f"{said.strip()!r} names no field and value", expected="FIELD=VALUE, such as label=hateful")
    return field, value


def turns(text: str) -> tuple[Message, ...]:
    """The turns of a "Human: / Assistant:" text; one `TEXT` message where it has none."""
    marks = list(_TURN.finditer(text))
    if not marks:
        return (Message(TEXT, text.strip()),) if text.strip() else ()
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    said = [
        Message(ROLES.get(mark[1].lower(), mark[1].lower()), text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    before = text[: marks[0].start()].strip()
    return tuple([Message(TEXT, before)] * bool(before) + said)


def conversation(text: str) -> tuple[Message, ...]:
    """One conversation as somebody pastes it: messages in JSON, "Human: / Assistant:" turns, or one `TEXT`.

    Raises:
        CorpusError: If it begins as JSON and is none, or is JSON of another kind.
    """
    said = text.strip()
    if said[:1] not in ("[", "{"):
        return turns(said)
    try:
        return _row(json.loads(said), "The text", None).messages
    except ValueError:
        if _TURN.search(said):
            return turns(said)
        raise CorpusError(
            "The text begins as JSON but cannot be read as such",
            expected='[{"role": "user", "content": "..."}, ...], or "Human: ..." and "Assistant: ..." turns',
            do="Mend it, or read it as plain text",
        ) from None


def as_chat(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as a chat template takes them; what nobody is said to have written is a user's."""
    return [{"role": "user" if m.role == TEXT else m.role, "content": m.text} for m in messages]


def _jsonl(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _row(_parsed(line, f"{path.name}, line {number}"), f"{path.name}, line {number}", truth)


def _json(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    whole = _parsed(path.read_text(encoding="utf-8-sig"), path.name)
    rows = whole if isinstance(whole, list) and not _is_messages(whole) else [whole]
    for number, row in enumerate(rows, 1):
        yield _row(row, f"{path.name}, entry {number}" if len(rows) > 1 else path.name, truth)


def _text(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    whole = path.read_text(encoding="utf-8-sig")
    if _TURN.search(whole):
        yield Transcript(path.name, turns(whole))
        return
    for number, line in enumerate(whole.splitlines(), 1):
        if line.strip():
            yield Transcript(f"{path.name}, line {number}", (Message(TEXT, line.strip()),))


def _csv(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    """One text a row; with a role and a conversation's id a row is a message, and rows that follow one another with one id belong together."""
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        said = next((names[n] for n in _SAID if n in names), None)
        if said is None:
            raise CorpusError(
                f"{path} has the columns {', '.join(names) or 'none'}",
                expected=f"one of {', '.join(_SAID)}",
                do="Rename the column that holds the text",
            )
        if truth and truth[0] not in (rows.fieldnames or ()):
            raise CorpusError(f"{path} has no column {truth[0]!r}", expected=f"one of {', '.join(names)}")
        group, role = (
            next((names[n] for n in _COLUMNS[kind] if n in names), None) for kind in ("conversation", "role")
        )
        numbered = enumerate(rows, 2)
        if group is None or role is None:
            for number, row in numbered:
                where = f"{path.name}, row {number}"
                if (row[said] or "").strip():
                    yield Transcript(where, _known(turns(row[said]), _truth(row, truth)))
            return
        for key, members in groupby(numbered, key=lambda one: one[1][group]):
            messages = tuple(
                Message(
                    ROLES.get((row[role] or "").strip().lower(), row[role] or TEXT),
                    (row[said] or "").strip(),
                    _truth(row, truth),
                )
                for _, row in members
            )
            yield Transcript(f"{path.name}, {key}", messages)


_READERS: dict[str, Callable[[Path, tuple[str, str] | None], Iterator[Transcript]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".txt": _text,
}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CorpusError(f"{where} is no JSON ({error})", do="Mend or remove it") from error


def _is_messages(value: Any) -> bool:
    """Whether a list is one conversation rather than many."""
    return bool(value) and all(
        isinstance(m, dict) and ({"role", "content"} <= m.keys() or {"from", "value"} <= m.keys()) for m in value
    )


def _row(row: Any, where: str, truth: tuple[str, str] | None) -> Transcript:
    fields: Mapping[str, Any] = (
        {"messages": row} if isinstance(row, list) else row if isinstance(row, Mapping) else {TEXT: row}
    )
    whose = str(fields.get("id") or fields.get("conversation_id") or "")
    source = f"{where}, {whose}" if whose else where
    for key in ("messages", "conversations", "conversation"):
        if isinstance(fields.get(key), list):
            return Transcript(source, _known(_messages(fields[key], where), _truth(fields, truth)))
    for key in ("chosen", "transcript", *_SAID):
        if isinstance(fields.get(key), str):
            return Transcript(source, _known(turns(fields[key]), _truth(fields, truth)))
    raise CorpusError(
        f"{where} holds {', '.join(map(str, fields)) or type(row).__name__}",
        expected="messages (OpenAI), conversations (ShareGPT), or a text",
        do="Convert it to one of these",
    )


def _messages(said: Iterable[Any], where: str) -> tuple[Message, ...]:
    found = []
    for at, message in enumerate(said, 1):
        if not isinstance(message, Mapping) or not (role := message.get("role") or message.get("from")):
            raise CorpusError(
                f"{where} has a message {at} without a role", expected="role and content, or from and value"
            )
        content = message.get("content", message.get("value"))
        if isinstance(content, list):  # parts, as models that see images are given
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
        found.append(Message(ROLES.get(str(role).lower(), str(role)), str(content or "").strip()))
    return tuple(found)


def _truth(row: Mapping[str, Any], truth: tuple[str, str] | None) -> Truth:
    return None if truth is None or row.get(truth[0]) is None else str(row[truth[0]]).strip() == truth[1]


def _known(messages: tuple[Message, ...], truth: Truth) -> tuple[Message, ...]:
    """What a row says of a conversation is said of its last message."""
    if truth is None or not messages:
        return messages
    return (*messages[:-1], Message(messages[-1].role, messages[-1].text, truth))
