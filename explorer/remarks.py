"""What people say round a label: comments on a feature, tags, and votes on what somebody labelled."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from explorer.database import Database, Place, add_row, keyed
from explorer.errors import LabelError
from explorer.label_files import moment

LONGEST = {"comment": 4_000, "tag": 40}
_VOTES = {"up": 1, "down": -1, "unvote": 0}
_REMARKS = keyed(
    "remarks",
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # comment, uncomment, tag, untag, up, down, unvote
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("target", sa.Integer),  # of uncomment: the comment; of a vote: the change of the label
)


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody said of a feature."""

    id: int
    feature: int
    text: str
    author: str
    created_at: datetime | None


class Remarks:
    """Comments, tags and votes in one database; nothing is ever erased from it.

    Args:
        database: See `explorer.database.Place`.
    """

    def __init__(self, database: Place = None) -> None:
        self.database = Database.of(database)

    def comment(self, sae: str, feature: int, text: str, *, author: str) -> int:
        """Say something of a feature; gives the comment's id.

        Raises:
            LabelError: If it is empty or too long.
        """
        return self._say(sae, feature, "comment", _text("comment", text), author)

    def take_back(self, sae: str, comment: Comment, *, author: str) -> None:
        """Take one's own comment back.

        Raises:
            LabelError: If it is somebody else's.
        """
        if comment.author != author:
            raise LabelError(f"The comment is {comment.author}'s", do="Ask them to take it back")
        self._say(sae, comment.feature, "uncomment", "", author, comment.id)

    def comments(self, sae: str, feature: int) -> list[Comment]:
        """The comments on a feature, oldest first."""
        rows = self._rows(sae, feature, "comment", "uncomment")
        gone = {row.target for row in rows if row.kind == "uncomment"}
        return [
            Comment(row.id, row.feature, row.text, row.author, moment(row.created_at))
            for row in rows
            if row.kind == "comment" and row.id not in gone
        ]

    def tag(self, sae: str, features: int | Iterable[int], tag: str, *, author: str, on: bool = True) -> None:
        """Put a tag on a feature, or on several, or take it off: on all of them, or on none.

        Raises:
            LabelError: If it is empty or too long.
        """
        said = {
            "kind": "tag" if on else "untag",
            "text": _text("tag", tag).casefold(),
            "author": author,
            "target": None,
        }
        with self.database.writing() as connection:
            for feature in [features] if isinstance(features, int) else features:
                add_row(connection, _REMARKS, sae=sae, feature=feature, **said)

    def tags(self, sae: str) -> dict[int, set[str]]:
        """Feature -> its tags, of all features that have one."""
        here = (_REMARKS.c.sae == sae, _REMARKS.c.kind.in_(["tag", "untag"]))
        found: dict[int, set[str]] = {}
        for row in self.database.read(sa.select(_REMARKS).where(*here).order_by(_REMARKS.c.id)):
            tags = found.setdefault(row.feature, set())
            (tags.add if row.kind == "tag" else tags.discard)(row.text)
        return {feature: tags for feature, tags in found.items() if tags}

    def vote(self, sae: str, feature: int, change: int, value: int, *, author: str) -> None:
        """Vote on a change of a label: 1 for, -1 against, 0 takes the vote back; a person's newest vote counts.

        Raises:
            LabelError: If the value is another.
        """
        kinds = [kind for kind, counts in _VOTES.items() if counts == value]
        if not kinds:
            raise LabelError(f"{value!r} is no vote", expected="1, -1 or 0")
        self._say(sae, feature, kinds[0], "", author, change)

    def votes(self, sae: str, feature: int) -> dict[int, dict[str, int]]:
        """Change of the label -> person -> 1 or -1."""
        return _votes(self._rows(sae, feature, *_VOTES)).get(feature, {})

    def all_votes(self, sae: str) -> dict[int, dict[int, dict[str, int]]]:
        """Feature -> `votes`, of all features that have one."""
        here = (_REMARKS.c.sae == sae, _REMARKS.c.kind.in_(_VOTES))
        return _votes(self.database.read(sa.select(_REMARKS).where(*here).order_by(_REMARKS.c.id)))

    def counts(self, sae: str) -> Counter[int]:
        """Feature -> how many comments it has."""
        rows = self.database.read(
            sa.select(_REMARKS).where(_REMARKS.c.sae == sae, _REMARKS.c.kind.in_(["comment", "uncomment"]))
        )
        gone = {row.target for row in rows if row.kind == "uncomment"}
        return Counter(row.feature for row in rows if row.kind == "comment" and row.id not in gone)

    def _say(self, sae: str, feature: int, kind: str, text: str, author: str, target: int | None = None) -> int:
        return self.database.insert(
            _REMARKS, sae=sae, feature=feature, kind=kind, text=text, author=author, target=target
        )

    def _rows(self, sae: str, feature: int, *kinds: str) -> list[Any]:
        here = (_REMARKS.c.sae == sae, _REMARKS.c.feature == feature, _REMARKS.c.kind.in_(kinds))
        return self.database.read(sa.select(_REMARKS).where(*here).order_by(_REMARKS.c.id))


def _votes(rows: Iterable[Any]) -> dict[int, dict[int, dict[str, int]]]:
    """Feature -> change of its label -> person -> 1 or -1, each person's newest.

    Args:
        rows: Oldest first.
    """
    found: dict[int, dict[int, dict[str, int]]] = {}
    for row in rows:
        found.setdefault(row.feature, {}).setdefault(row.target, {})[row.author] = _VOTES[row.kind]
    return {
        feature: {change: {who: v for who, v in said.items() if v} for change, said in by.items()}
        for feature, by in found.items()
    }


def _text(kind: str, text: str) -> str:
    said = text.replace("\0", "").strip()
    if not said or len(said) > LONGEST[kind]:
        raise LabelError(f"The {kind} has {len(said):,} characters", expected=f"1 to {LONGEST[kind]:,}")
    return said
