"""Revisions of the database, which Alembic runs in their order; one that was published is never changed."""
