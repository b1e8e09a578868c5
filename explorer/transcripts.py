"""Chat logs of every common form, read one conversation at a time.

A row, be it a line of JSON, an entry of a list or a row of a CSV, is the first of these that fits:

- `messages`, `conversations` or `conversation`: a list of messages with role and content (OpenAI) or from and value (ShareGPT).
- `chosen` or `transcript`: "Human: / Assistant:" turns.
- A question (`prompt`, `question`, `query`, `instruction` with an `input` below it, or `input` alone) and what was said to it (`response`,
  `completion`, `answer`, `output` or `chosen`): a user's turn and an assistant's, after a `system_prompt` if there is one.
- A party (`role`, `from`, `speaker` or `author`) and a text: a message. Messages that follow one another with one conversation's id are a
  conversation. Without an id they are one too, until a system's turn begins the next: nothing else says where one ends, so who has many
  without a system's turn gives them ids. A `from`, `speaker` or `author` without an id counts where it is a user, an assistant or a system.
- A text, with turns or without.
"""

import csv
import io
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
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
_TURN = re.compile(r"^(?:#+[ \t]*)?(Human|User|Assistant|AI|System|Bot)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_LISTS = ("messages", "conversations", "conversation")
_WHOLE = ("chosen", "transcript")
_BEFORE = ("system_prompt", "system")
_ASKED = ("prompt", "question", "query", "instruction", "input")
_ANSWERED = ("response", "completion", "answer", "output", "chosen")
_PARTY = ("role", "from", "speaker", "author")
_ID = (
    "conversation_id", "conversation", "chat_id", "session_id", "session", "thread_id", "dialogue_id", "dialog_id", "message_tree_id", "id",
)  # fmt: skip
_SAID = ("content", "text", "value", "message", "test_case", "tweet", *_ASKED, *_ANSWERED, "transcript")
READ = frozenset((*_LISTS, *_WHOLE, *_BEFORE, *_PARTY, *_ID, *_SAID))
"""What is read of a row, in lower case: any other field may hold what the log itself says of it."""
_LONGEST_FIELD = 1 << 27  # characters of a CSV cell
LONGEST = 1000
"""Messages of a conversation that rows or lines make up; what comes behind them is read as another, so that memory is bounded."""
REMEMBERED = 10_000
"""Latest conversations that may not go on after another one began. All of them would be a list without bound."""

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
    """Conversations of a log: .jsonl, .json, .csv or .txt, in the forms that this module names.

    Lines and rows are read as they are needed; only a .json file is held whole. A .txt file is one conversation where it has turns, else a
    text a line.

    Args:
        truth: (field, value): a row of which `field` is `value` is of the kind that is looked for, its other rows are not.
    Raises:
        CorpusError: If the file cannot be read, a row is of no known form, or a conversation's rows do not stand together; the message names
            the row.
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
    return tuple(_spoken(io.StringIO(text)))


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
    except (ValueError, RecursionError):
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
        there = ((f"{path.name}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
        yield from _joined(((where, _parsed(line, where)) for where, line in there), path.name, truth)


def _json(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    whole = _parsed(path.read_text(encoding="utf-8-sig"), path.name)
    # an id alone may be a message's own: only what is called a conversation's parts a list of messages
    one = _is_messages(whole) and not any(_first(_lower(m), _ID[:-1]) for m in whole)
    rows = whole if isinstance(whole, list) and not one else [whole]
    there = ((f"{path.name}, entry {at}" if len(rows) > 1 else path.name, row) for at, row in enumerate(rows, 1))
    yield from _joined(there, path.name, truth)


def _text(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    with path.open(encoding="utf-8-sig") as lines:
        spoken = any(_TURN.match(line) for line in lines)
    with path.open(encoding="utf-8-sig") as lines:
        if not spoken:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Transcript(f"{path.name}, line {number}", (_message(TEXT, line),))
            return
        said = _spoken(lines)
        for first in count(0, LONGEST):
            if not (part := tuple(islice(said, LONGEST))):
                return
            yield Transcript(f"{path.name}, from message {first + 1:,}" if first else path.name, part)


def _csv(path: Path, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = [name.strip().lower() for name in rows.fieldnames or ()]
        if not {*names} & {*_SAID}:
            raise CorpusError(
                f"{path} has the columns {', '.join(names) or 'none'}",
                expected=f"one of {', '.join(_SAID)}",
                do="Rename the column that holds the text",
            )
        if truth and truth[0] not in (rows.fieldnames or ()):
            raise CorpusError(f"{path} has no column {truth[0]!r}", expected=f"one of {', '.join(names)}")
        there = ((f"{path.name}, row {number}", row) for number, row in enumerate(rows, 2) if any(row.values()))
        yield from (found for found in _joined(there, path.name, truth) if found.messages)


_READERS: dict[str, Callable[[Path, tuple[str, str] | None], Iterator[Transcript]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".txt": _text,
}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CorpusError(f"{where} is no JSON ({why})", do="Mend or remove it") from error


def _spoken(lines: Iterable[str]) -> Iterator[Message]:
    """The turns of lines, each as the next one begins; what stands before the first is a `TEXT`."""
    role, said = TEXT, []
    for line in lines:
        if mark := _TURN.match(line):
            if (text := "".join(said)).strip() or role != TEXT:
                yield _message(role, text)
            role, said = mark[1], [line[mark.end() :]]
        else:
            said.append(line)
    if (text := "".join(said)).strip() or role != TEXT:
        yield _message(role, text)


def _joined(rows: Iterable[tuple[str, Any]], name: str, truth: tuple[str, str] | None) -> Iterator[Transcript]:
    """Rows as conversations: what is one message is put to those that stand before it.

    Args:
        rows: Where each stands, and what it is.
        name: What the log is called.
    """
    held: list[Message] = []
    source, current = "", None
    begun: OrderedDict[str, None] = OrderedDict()
    for where, row in rows:
        fields = _lower(row) if isinstance(row, Mapping) else {}
        one = _one_message(fields)
        which = _first(fields, _ID) if one else None
        if one is None or which != current or (not which and one.role == "system") or len(held) == LONGEST:
            if held:
                yield Transcript(source, tuple(held))
            held, source = [], f"{name}, {which}" if which else where
        if which and which != current:
            if which in begun:
                raise CorpusError(
                    f"{where} goes on with conversation {which[:60]!r} after another one began",
                    expected="the rows of a conversation to stand together",
                    do=f"Sort {name} by conversation, each one's rows in their order",
                )
            begun[which] = None
            if len(begun) > REMEMBERED:
                begun.popitem(last=False)
        current = which
        if one is None:
            yield _row(row, where, truth)
        else:
            held.append(replace(one, truth=_truth(row, truth)))
    if held:
        yield Transcript(source, tuple(held))


def _row(row: Any, where: str, truth: tuple[str, str] | None) -> Transcript:
    """A row by itself."""
    fields = _lower(row if isinstance(row, Mapping) else {"messages" if isinstance(row, list) else TEXT: row})
    whose = _first(fields, _ID)
    said = _messages_of(fields, where)
    if said is None:
        raise CorpusError(
            f"{where} holds {', '.join(fields) or type(row).__name__}",
            expected="messages (OpenAI), conversations (ShareGPT), a question and its answer, or a text",
            do="Convert it to one of these",
        )
    return Transcript(f"{where}, {whose}" if whose else where, _known(said, _truth(row, truth)))


def _messages_of(fields: Mapping[str, Any], where: str) -> tuple[Message, ...] | None:
    """What a row says; None where it is of no known form."""
    for key in _LISTS:
        if isinstance(fields.get(key), list):
            return _messages(fields[key], where)
    for key in _WHOLE:
        if isinstance(said := fields.get(key), str) and _TURN.search(said):
            return turns(said)
    if _is_pair(fields):
        return _pair(fields, where)
    for key in _WHOLE:
        if isinstance(fields.get(key), list):
            return _messages(fields[key], where)
    if one := _one_message(fields):
        return (one,)
    texts = [fields[key] for key in _SAID if isinstance(fields.get(key), str)]
    return turns(next(filter(str.strip, texts), "")) if texts else None


def _is_pair(fields: Mapping[str, Any]) -> bool:
    return any(key in fields for key in _ASKED) and any(key in fields for key in _ANSWERED)


def _pair(fields: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """A question and its answer; of an answer that is empty only the question."""
    before = _first(fields, _BEFORE)
    asked = next((key for key in _ASKED if fields.get(key)), _ASKED[0])
    answered = next((key for key in _ANSWERED if fields.get(key) not in (None, "")), _ANSWERED[0])
    question = list(_side(fields, asked, "user", where))
    if asked != "input" and (more := _first(fields, ("input",))) and question:
        question[-1] = replace(question[-1], text=f"{question[-1].text}\n\n{more}")
    answer = _side(fields, answered, "assistant", where)
    if answer and answer[0].role in ("user", "system"):  # it repeats the question
        return answer
    return (*([_message("system", before)] if before else ()), *question, *answer)


def _side(fields: Mapping[str, Any], key: str, role: str, where: str) -> tuple[Message, ...]:
    """What one side of a pair says: a text, or messages as trl writes them."""
    said = fields.get(key)
    if isinstance(said, list):
        return _messages(said, where)
    if isinstance(said, Mapping):
        raise CorpusError(f"{where} has a {key} that is an object", expected="a text, or a list of messages")
    text = "" if said is None else str(said)
    if role == "user" and _TURN.match(text.lstrip()):  # a prompt that ends with the answer's mark
        return tuple(message for message in turns(text) if message.text)
    return (_message(role, text),) if text.strip() else ()


def _one_message(fields: Mapping[str, Any]) -> Message | None:
    """The one message that a row is; None where it is something else."""
    party = next((key for key in _PARTY if key in fields), None)
    said = [v for key in _SAID if key in fields and isinstance(v := fields[key], str | list | None)]
    if party is None or not said or _is_pair(fields) or any(isinstance(fields.get(key), list) for key in _LISTS):
        return None
    name = _first(fields, (party,))
    if not _first(fields, _ID) and not (name and (party == "role" or name.lower() in ROLES)):
        return None  # the author of a text, to whom nobody speaks
    return _message(name or TEXT, next(filter(str.strip, map(_content, said)), ""))


def _lower(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row with the names of its fields as `READ` spells them."""
    return {str(name).strip().lower(): value for name, value in row.items()}


def _first(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of some fields that holds a word or a number; "" where none does."""
    values = (fields.get(name) for name in names)
    return next((word for v in values if isinstance(v, str | int | float) and (word := _utf8(str(v)).strip())), "")


def _utf8(text: str) -> str:
    """A text without halves of characters, which JSON can spell and nothing can write down."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _message(role: str, text: str) -> Message:
    return Message(ROLES.get(role.lower(), _utf8(role)), _utf8(text).strip())


def _is_messages(value: Any) -> bool:
    """Whether this is one conversation rather than many."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(m, dict) and ({"role", "content"} <= m.keys() or {"from", "value"} <= m.keys()) for m in value
        )
    )


def _messages(said: Iterable[Any], where: str) -> tuple[Message, ...]:
    found = []
    for at, message in enumerate(said, 1):
        if not isinstance(message, Mapping) or not (role := message.get("role") or message.get("from")):
            raise CorpusError(
                f"{where} has a message {at} without a role", expected="role and content, or from and value"
            )
        found.append(_message(str(role), _content(message.get("content", message.get("value")))))
    return tuple(found)


def _content(said: Any) -> str:
    """What a message says; parts, as models that see images are given, as their texts."""
    if isinstance(said, list):
        return "".join(str(part.get("text", "")) for part in said if isinstance(part, Mapping))
    return str(said or "")


def _truth(row: Any, truth: tuple[str, str] | None) -> Truth:
    if truth is None or not isinstance(row, Mapping) or row.get(truth[0]) is None:
        return None
    return str(row[truth[0]]).strip() == truth[1]


def _known(messages: tuple[Message, ...], truth: Truth) -> tuple[Message, ...]:
    """What a row says of a conversation is said of its last message."""
    return messages if truth is None or not messages else (*messages[:-1], replace(messages[-1], truth=truth))
