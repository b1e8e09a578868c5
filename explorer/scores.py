"""How well a label tells where its feature fires: one scale for people and machines, with every answer kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from explorer.database import Database, Place, keyed
from explorer.errors import LabelError
from explorer.label_files import moment

KINDS = ("person", "machine")
METHODS = ("quiz", "detection", "fuzzing")
_SCORES = keyed(
    "label_scores",
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("details", sa.Text, nullable=False),  # JSON: snippet ids and single answers
)


@dataclass(frozen=True, slots=True)
class Score:
    """One test of a label.

    Args:
        sae, feature: Of what.
        label: The words that were tested.
        who: The person who answered, or the model.
        kind: One of `KINDS`.
        method: One of `METHODS`.
        score: Balanced accuracy, 0 to 1; .5 is chance.
        n: How many snippets were answered.
        details: Snippet ids and single answers, as JSON values.
        created_at, id: When it was kept, and as which row; None before.
    """

    sae: str
    feature: int
    label: str
    who: str
    kind: str
    method: str
    score: float
    n: int
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: datetime | None = None
    id: int | None = None


class Scores:
    """Scores of labels in one database.

    Args:
        database: See `explorer.database.Place`.
    """

    def __init__(self, database: Place = None) -> None:
        self.database = Database.of(database)

    def add(self, one: Score) -> int:
        """Keep a score; gives its id.

        Raises:
            LabelError: If it makes no sense.
        """
        if one.kind not in KINDS or one.method not in METHODS or not 0 <= one.score <= 1 or one.n < 1:
            raise LabelError(
                f"{one.score!r} by {one.kind!r} with {one.method!r} on {one.n} snippets is no score",
                expected=f"0 to 1 by {' or '.join(KINDS)} with {', '.join(METHODS)}",
            )
        return self.database.insert(
            _SCORES, sae=one.sae, feature=one.feature, label=one.label, author=one.who, kind=one.kind,
            method=one.method, score=one.score, n=one.n, details=json.dumps(dict(one.details)),
        )  # fmt: skip

    def of(self, sae: str, feature: int) -> list[Score]:
        """The scores of a feature's labels, oldest first."""
        return self._read(_SCORES.c.sae == sae, _SCORES.c.feature == feature)

    def all(self, sae: str) -> list[Score]:
        """The scores of an SAE's labels, oldest first."""
        return self._read(_SCORES.c.sae == sae)

    def _read(self, *here: Any) -> list[Score]:
        rows = self.database.read(sa.select(_SCORES).where(*here).order_by(_SCORES.c.id))
        return [
            Score(
                row.sae, row.feature, row.label, row.author, row.kind, row.method, row.score, row.n,
                json.loads(row.details), moment(row.created_at), row.id,
            )
            for row in rows
        ]  # fmt: skip
