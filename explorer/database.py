"""The database of what people say of features: SQLite by default, or any that SQLAlchemy reaches by URL.

Its tables only grow: a change is one more row, so that nothing acknowledged is lost and several people can write at once. Alembic brings an
older database up to date when it is first used (`explorer/migrations/`); an SQLite file is copied beside itself before that.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Union

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from explorer.errors import LabelError
from explorer.label_files import LIMITS, new_file, stamp, storable
from explorer.packaged import home

LABELS_VARIABLE = "PERSONA_EXPLORER_LABELS"
HEAD = "0002"
"""The newest revision in `explorer/migrations/versions`."""
METADATA = sa.MetaData()

_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION = "alembic_version"
_FIRST = "label_changes"  # the one table of databases from before there were revisions
_LOCK = 0x50E45  # of PostgreSQL's advisory lock
BUSY_SECONDS = 30.0

PathLike = str | os.PathLike[str]
Place = Union["Database", PathLike, None]
"""A database, an SQLAlchemy URL, the path of an SQLite file, or None for `default_url()`."""


def default_url() -> str:
    """Where labels live unless told otherwise: `PERSONA_EXPLORER_LABELS`, else labels.sqlite in this program's home."""
    return os.environ.get(LABELS_VARIABLE) or str(home() / "labels.sqlite")


def keyed(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A table of changes: a number, the SAE, the given columns, who and when."""
    return sa.Table(
        name,
        METADATA,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("sae", sa.String(LIMITS["sae"]), nullable=False, index=True),
        *columns,
        sa.Column("author", sa.String(LIMITS["author"]), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),  # ISO in UTC: sorts as text, exact in every database
        sqlite_autoincrement=True,
    )


def now() -> str:
    """The time as the tables write it."""
    return stamp(datetime.now(UTC))


def add_row(connection: sa.Connection, table: sa.Table, **values: Any) -> int:
    """Add one row of a `keyed` table, now, in the transaction at hand; gives its id.

    Raises:
        LabelError: If a text is too long, or holds what not every database gives back.
    """
    for name, value in values.items():
        if isinstance(value, str):
            storable(name, value, getattr(table.c[name].type, "length", None))
    result = connection.execute(table.insert().values(**values, created_at=now()))
    return int((result.inserted_primary_key or (0,))[0])


class Database:
    """A database that threads and processes share; nothing is made before the first writing.

    Args:
        url: An SQLAlchemy URL, or the path of an SQLite file; None for `default_url()`.
    Raises:
        LabelError: If the URL makes no sense.
    """

    def __init__(self, url: PathLike | None = None) -> None:
        self.url = _parse(os.fspath(url) if url is not None else default_url())
        self.file = Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None
        self._engine = _engine(self.url)
        self._ready = False
        self._lock = threading.Lock()

    @classmethod
    def of(cls, place: Place) -> "Database":
        """A database itself, or the one at a place."""
        return place if isinstance(place, Database) else cls(place)

    @property
    def where(self) -> str:
        """Its place for people: a path, or a URL without its password."""
        return str(self.file) if self.file else self.url.render_as_string(hide_password=True)

    def read(self, query: Any) -> list[Any]:
        """The rows of a query; none where there is no database yet."""
        if self.file is not None and not self.file.exists():
            return []  # looking makes no files
        self._prepare()
        with self.words(), self._engine.connect() as connection:
            return list(connection.execute(query))

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it, or nothing."""
        self._prepare()
        with self.words(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def insert(self, table: sa.Table, **values: Any) -> int:
        """Add one row of a `keyed` table, now; gives its id.

        Raises:
            LabelError: If it cannot be stored.
        """
        with self.writing() as connection:
            return add_row(connection, table, **values)

    def close(self) -> None:
        """Let go of the database's files."""
        self._engine.dispose()

    def _prepare(self) -> None:
        """Make or upgrade the tables, once; two processes may try at the same time."""
        with self._lock:
            if self._ready and (self.file is None or self.file.exists()):  # the file may be deleted under a running app
                return
            with self.words():
                if self.file is not None:
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._upgrade()
                except DBAPIError:  # another process was faster: then it works now
                    self._upgrade()
            self._ready = True

    def _upgrade(self) -> None:
        with self._engine.connect() as connection:  # reading waits for no writer
            if _revision(connection) == HEAD:
                return
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            found = _revision(connection)
            if found == HEAD:  # another process was faster
                return
            tables = sa.inspect(connection).get_table_names()
            if found is not None and not list((_MIGRATIONS / "versions").glob(f"r{found}_*.py")):
                raise LabelError(
                    f"{self.where} was last used by a newer version of this program (revision {found})",
                    expected=f"revision {HEAD} or an older one",
                    do=f"Update this program, or choose another database through {LABELS_VARIABLE}",
                )
            if _FIRST in tables:
                self._copy(f"before-{HEAD}")
            _migrate(connection)
            _complete(connection, self.where)

    def _copy(self, suffix: str) -> None:
        """Keep an SQLite file as it is, beside itself, before it is upgraded."""
        if self.file is None:
            return
        target = self.file.with_name(f"{self.file.name}.{suffix}")
        if target.exists():
            return
        with new_file(target) as scratch:
            copy_sqlite(self.file, scratch)

    @contextmanager
    def words(self) -> Iterator[None]:
        """Turn what a database says into what a person can act on."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise _trouble(error, self.where) from error


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database whole, as one file, while others read and write it."""
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # one file, without companions that somebody forgets to copy
        if (found := new.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise LabelError(f"{source} is damaged ({found})", do="Restore an earlier backup")


def _revision(connection: sa.Connection) -> str | None:
    if _VERSION not in sa.inspect(connection).get_table_names():
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {_VERSION}")).scalar()


def _migrate(connection: sa.Connection) -> None:
    """Run the revisions that are missing, in the transaction at hand."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _complete(connection: sa.Connection, where: str) -> None:
    """Refuse a table of somebody else's that has the name of one of ours."""
    there = sa.inspect(connection)
    for table in METADATA.sorted_tables:
        found = {column["name"] for column in there.get_columns(table.name)}
        if missing := {column.name for column in table.columns} - found:
            raise LabelError(
                f"The table {table.name} in {where} lacks {', '.join(sorted(missing))}",
                expected="a table made by this program",
                do=f"Choose another database through {LABELS_VARIABLE}",
            )


def _parse(text: str) -> sa.URL:
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    hint = (
        f"Give an SQLAlchemy URL such as postgresql+psycopg://user@host/name, or the path of a file ({LABELS_VARIABLE})"
    )
    try:
        url = sa.make_url(text)
    except ArgumentError as error:
        raise LabelError("The URL of the labels cannot be read", do=hint) from error
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise LabelError("Labels in memory would be lost with the program", expected="a file", do=hint)
    return url


def _engine(url: sa.URL) -> sa.Engine:
    sqlite = url.get_backend_name() == "sqlite"
    # SQLite opens in a fraction of a millisecond; a pool would go on writing into a file that somebody has deleted
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_SECONDS}, "poolclass": sa.NullPool} if sqlite else {"pool_pre_ping": True}
    )
    try:
        engine = sa.create_engine(url, **options)
    except (SQLAlchemyError, ImportError) as error:
        raise LabelError(
            f"No driver for {url.drivername} is installed ({_first_line(error)})",
            do="Install it with pip, or use SQLite",
        ) from error
    if sqlite:
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
    elif url.get_backend_name() == "postgresql":
        event.listen(engine, "begin", _queue_up)
    return engine


def _configure(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says so, not where the driver guesses
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut


def _begin(connection: sa.Connection) -> None:
    """Writers queue up at the start: a reader that turns writer late would be refused instead of made to wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _queue_up(connection: sa.Connection) -> None:
    """The same for PostgreSQL: what a change rests on must not be read before another writer has ended."""
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _trouble(error: BaseException, where: str) -> LabelError:
    said = _first_line(getattr(error, "orig", None) or error)
    low = said.lower()
    elsewhere = f"Choose another place through {LABELS_VARIABLE}"
    if "locked" in low or "busy" in low:
        return LabelError(f"Another program holds {where} locked", do="Nothing was saved; close it and try again")
    if "full" in low or "no space" in low:
        return LabelError(f"The disk is full at {where}", do="Nothing was saved; make room and try again")
    if "not a database" in low or "malformed" in low:
        return LabelError(f"{where} is not a sound SQLite database", do=f"Restore a backup. {elsewhere}")
    if "readonly" in low or "read-only" in low or "permission" in low or "unable to open" in low:
        return LabelError(f"{where} cannot be written ({said})", do=elsewhere)
    return LabelError(f"The labels in {where} cannot be used ({said})", do=elsewhere)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
