"""Changes of labels, as the first versions made them without a revision: a table that is there is left alone."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    if "label_changes" in sa.inspect(op.get_bind()).get_table_names():
        return
    op.create_table(
        "label_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("sae", sa.String(128), nullable=False),
        sa.Column("feature", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("confidence", sa.Integer),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("restores", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("label_changes_newest", "label_changes", ["sae", "feature", "created_at", "id"])
