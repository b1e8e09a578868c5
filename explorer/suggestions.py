"""Labels that are suggested from elsewhere: by a language model, or by a counterpart in another SAE. Only a person makes one a label."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from explorer.database import Database, Place, add_row, keyed
from explorer.errors import LabelError
from explorer.label_files import LIMITS, Label, moment
from explorer.labels import LabelStore

_SUGGESTIONS = keyed(
    "suggestions",
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("details", sa.Text, nullable=False),  # JSON
)
_ANSWERS = keyed(
    "suggestion_answers",
    sa.Column("suggestion", sa.Integer, nullable=False),
    sa.Column("accepted", sa.Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A label that is suggested.

    Args:
        sae, feature: Of what.
        text: The label.
        source: Whose it is: a model's name, or "transfer from NAME".
        score: How good it is by its source's own measure (balanced accuracy of an explanation, cosine of a transfer); None if unknown.
        details: Whatever else its source wants kept, as JSON values.
        created_at, id: When it was kept, and as which row; None before.
    """

    sae: str
    feature: int
    text: str
    source: str
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: datetime | None = None
    id: int | None = None


class Suggestions:
    """Suggested labels in one database, and what became of them.

    Args:
        database: See `explorer.database.Place`.
    """

    def __init__(self, database: Place = None) -> None:
        self.database = Database.of(database)

    def add(self, given: Iterable[Suggestion]) -> int:
        """Keep suggestions; the same text of the same source for a feature is kept once. Gives how many are new.

        Raises:
            LabelError: If one of them says nothing or too much; none is then kept.
        """
        rows = list(given)
        for one in rows:
            if (
                not one.text.strip()
                or len(one.text) > LIMITS["label"]
                or not one.source
                or len(one.source) > LIMITS["author"]
            ):
                raise LabelError(
                    f"The suggestion {one.text[:40]!r} cannot be kept",
                    expected="a source, and a label of 1 to 500 characters",
                )
        added = 0
        with self.database.writing() as connection:
            known: dict[str, set[tuple[int, str, str]]] = {}
            for sae in {one.sae for one in rows}:
                found = connection.execute(sa.select(_SUGGESTIONS).where(_SUGGESTIONS.c.sae == sae))
                known[sae] = {(row.feature, row.text, row.author) for row in found}
            for one in rows:
                key = (one.feature, one.text.strip(), one.source)
                if key in known[one.sae]:
                    continue
                known[one.sae].add(key)
                added += 1
                add_row(
                    connection, _SUGGESTIONS, sae=one.sae, feature=one.feature, text=key[1], author=one.source,
                    score=one.score, details=json.dumps(dict(one.details)),
                )  # fmt: skip
        return added

    def open(self, sae: str) -> dict[int, list[Suggestion]]:
        """Feature -> suggestions that nobody has answered, the best score first."""
        return self._unanswered(sae, _SUGGESTIONS.c.sae == sae)

    def of(self, sae: str, feature: int) -> list[Suggestion]:
        """The open suggestions for one feature."""
        here = sa.and_(_SUGGESTIONS.c.sae == sae, _SUGGESTIONS.c.feature == feature)
        return self._unanswered(sae, here).get(feature, [])

    def _unanswered(self, sae: str, here: Any) -> dict[int, list[Suggestion]]:
        answered = {row.suggestion for row in self.database.read(sa.select(_ANSWERS).where(_ANSWERS.c.sae == sae))}
        found: dict[int, list[Suggestion]] = {}
        for row in self.database.read(sa.select(_SUGGESTIONS).where(here).order_by(_SUGGESTIONS.c.id)):
            if row.id not in answered:
                found.setdefault(row.feature, []).append(_suggestion(row))
        for rows in found.values():
            rows.sort(key=lambda one: -(one.score if one.score is not None else -1.0))
        return found

    def accept(self, one: Suggestion, labels: LabelStore, *, author: str) -> Label:
        """Make a suggestion the person's label; its source stands in the note.

        Raises:
            LabelError: If it cannot be stored.
        """
        made = labels.put(one.sae, one.feature, one.text, f"Suggested by {one.source}.", author=author)
        self._answer(one, True, author)
        return made

    def dismiss(self, one: Suggestion, *, author: str) -> None:
        """Put a suggestion away."""
        self._answer(one, False, author)

    def _answer(self, one: Suggestion, accepted: bool, author: str) -> None:
        if one.id is None:
            raise LabelError("The suggestion is not in the database", do="Add it first")
        self.database.insert(_ANSWERS, sae=one.sae, suggestion=one.id, accepted=accepted, author=author)


def _suggestion(row: Any) -> Suggestion:
    details = json.loads(row.details)
    return Suggestion(row.sae, row.feature, row.text, row.author, row.score, details, moment(row.created_at), row.id)
