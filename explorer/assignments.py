"""Queues of features that people label: made from any search, shared out, and how far everybody is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from explorer.database import Database, Place, keyed
from explorer.errors import LabelError
from explorer.label_files import LIMITS, moment
from explorer.lists import FeatureList, checked

_QUEUES = keyed(
    "queue_changes",
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("features", sa.Text, nullable=False),  # JSON, in their order
    sa.Column("people", sa.Text, nullable=False),  # JSON; empty: whoever comes
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    sa.Column("removed", sa.Boolean, nullable=False),
)
_MARKS = keyed(
    "queue_marks",
    sa.Column("queue", sa.String(60), nullable=False),
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # done, skipped
)
MARKS = ("done", "skipped")


@dataclass(frozen=True, slots=True)
class Queue:
    """Features to be labelled.

    Args:
        sae, name, features: As of a list.
        people: Whose they are; without any, whoever comes takes the next. With several, they are dealt out in turn.
        query: The search that the queue was made from, for people.
        blind: Two people label each feature, and neither sees what the other says before having labelled it.
        author, created_at: Who made it, and when.
    """

    sae: str
    name: str
    features: tuple[int, ...]
    people: tuple[str, ...] = ()
    query: str = ""
    blind: bool = False
    author: str = ""
    created_at: datetime | None = None

    def share(self, person: str) -> tuple[int, ...]:
        """What a person has to label; everything where nobody is named, nothing for somebody who is not."""
        if not self.people:
            return self.features
        if person not in self.people:
            return ()
        at, n = self.people.index(person), len(self.people)
        turns = (0, 1) if self.blind and n > 1 else (0,)  # with two labels a feature, one's own and the neighbour's
        return tuple(f for place, f in enumerate(self.features) if any((place + turn) % n == at for turn in turns))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person is: of `total` features, `done` are labelled and `skipped` passed over."""

    done: int
    skipped: int
    total: int


class Assignments:
    """Queues in one database.

    Args:
        database: See `explorer.database.Place`.
    """

    def __init__(self, database: Place = None) -> None:
        self.database = Database.of(database)

    def put(self, queue: Queue) -> Queue:
        """Keep a queue, in place of one of that name; marks of what is done stay.

        Raises:
            LabelError: If it makes no sense.
        """
        plain = checked(FeatureList(queue.sae, queue.name, queue.features))
        people = tuple(dict.fromkeys(" ".join(name.split()) for name in queue.people))
        if any(not name or len(name) > LIMITS["author"] for name in people):
            raise LabelError(f"{', '.join(map(repr, queue.people))} are no names", expected="1 to 200 characters each")
        if queue.blind and len(people) == 1:
            raise LabelError(
                f"Only {people[0]} is to label {queue.name!r} blindly", expected="two people or more, or nobody named"
            )
        made = replace(queue, name=plain.name, features=plain.features, people=people)
        self.database.insert(_QUEUES, **_values(made))
        return made

    def all(self, sae: str) -> list[Queue]:
        """The queues of an SAE, the newest first."""
        newest: dict[str, Any] = {}
        for row in self.database.read(sa.select(_QUEUES).where(_QUEUES.c.sae == sae).order_by(_QUEUES.c.id)):
            newest.pop(row.name, None)
            newest[row.name] = row
        return [_queue(row) for row in reversed(newest.values()) if not row.removed]

    def get(self, sae: str, name: str) -> Queue | None:
        """A queue by its name."""
        return next((queue for queue in self.all(sae) if queue.name == name), None)

    def remove(self, sae: str, name: str, *, author: str) -> None:
        """Take a queue away; labels and marks stay."""
        if found := self.get(sae, name):
            self.database.insert(_QUEUES, **_values(replace(found, author=author)) | {"removed": True})

    def mark(self, queue: Queue, feature: int, kind: str, *, author: str) -> None:
        """Note that somebody has done or skipped a feature; the newest note counts.

        Raises:
            LabelError: If the kind is unknown.
        """
        if kind not in MARKS:
            raise LabelError(f"{kind!r} is nothing to note of a feature", expected=" or ".join(MARKS))
        self.database.insert(_MARKS, sae=queue.sae, queue=queue.name, feature=feature, kind=kind, author=author)

    def marks(self, queue: Queue) -> dict[str, dict[int, str]]:
        """Person -> feature -> "done" or "skipped"."""
        here = (_MARKS.c.sae == queue.sae, _MARKS.c.queue == queue.name)
        found: dict[str, dict[int, str]] = {}
        for row in self.database.read(sa.select(_MARKS).where(*here).order_by(_MARKS.c.id)):
            found.setdefault(row.author, {})[row.feature] = row.kind
        return found

    def left(self, queue: Queue, person: str) -> list[int]:
        """What a person has still to do, in the queue's order; of an open queue, what enough people have done is left out."""
        marks = self.marks(queue)
        mine = marks.get(person, {})
        return [
            f
            for f in queue.share(person)
            if f not in mine and (queue.people or _times(marks, f) < (2 if queue.blind else 1))
        ]

    def progress(self, queue: Queue) -> dict[str, Progress]:
        """Person -> how far; everybody who is named or has done something."""
        marks, here, found = self.marks(queue), set(queue.features), {}
        for person in dict.fromkeys((*queue.people, *marks)):
            mine = {f: kind for f, kind in marks.get(person, {}).items() if f in here}
            said = [*mine.values()]  # what was done before the queue was given to others counts as the person's share
            found[person] = Progress(
                said.count("done"), said.count("skipped"), len(mine.keys() | {*queue.share(person)})
            )
        return found


def _times(marks: Mapping[str, Mapping[int, str]], feature: int) -> int:
    return sum(said.get(feature) == "done" for said in marks.values())


def _values(queue: Queue) -> dict[str, Any]:
    return {
        "sae": queue.sae, "name": queue.name, "features": json.dumps(list(queue.features)),
        "people": json.dumps(list(queue.people)), "query": queue.query, "blind": queue.blind, "author": queue.author,
        "removed": False,
    }  # fmt: skip


def _queue(row: Any) -> Queue:
    features, people = tuple(json.loads(row.features)), tuple(json.loads(row.people))
    return Queue(row.sae, row.name, features, people, row.query, row.blind, row.author, moment(row.created_at))
