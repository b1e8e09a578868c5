"""What a label rests on; lists, remarks, queues with their marks, suggestions with their answers, and scores of labels."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    op.add_column("label_changes", sa.Column("evidence", sa.Text))
    _table("list_changes", _name(), _text("features"), _text("note"), _yes("removed"))
    _table(
        "remarks",
        _feature(),
        sa.Column("kind", sa.String(16), nullable=False),
        _text("text"),
        sa.Column("target", sa.Integer),
    )
    _table("queue_changes", _name(), _text("features"), _text("people"), _text("query"), _yes("blind"), _yes("removed"))
    _table(
        "queue_marks",
        sa.Column("queue", sa.String(60), nullable=False),
        _feature(),
        sa.Column("kind", sa.String(16), nullable=False),
    )
    _table("suggestions", _feature(), _text("text"), sa.Column("score", sa.Float), _text("details"))
    _table("suggestion_answers", sa.Column("suggestion", sa.Integer, nullable=False), _yes("accepted"))
    _table(
        "label_scores", _feature(), _text("label"), sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("method", sa.String(16), nullable=False), sa.Column("score", sa.Float, nullable=False),
        sa.Column("n", sa.Integer, nullable=False), _text("details"),
    )  # fmt: skip


def _table(name: str, *columns: Any) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("sae", sa.String(128), nullable=False),
        *columns,
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(f"ix_{name}_sae", name, ["sae"])


def _name() -> sa.Column[str]:
    return sa.Column("name", sa.String(60), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _feature() -> sa.Column[int]:
    return sa.Column("feature", sa.Integer, nullable=False)


def _yes(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)
