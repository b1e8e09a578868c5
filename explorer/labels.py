"""Labels that people gave to features: every change is kept, and the newest change is the label.

The store only ever inserts. Undo is one more change, which says again what was said before; so nothing that was typed
is lost, several people can write at once, and a copy of the table is a whole history. Labels belong to an SAE, not to a
cache: they are keyed by its fingerprint, so a cache built again on another corpus finds them.

Labels that come with a cache (`bundled`) are read from a CSV file beside it and never written; what a person says wins.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from explorer.errors import LabelError
from explorer.label_files import (
    BUNDLED,
    COLUMNS,
    CONFIDENCES,
    FORMATS,
    LIMITS,
    NOT_INTERPRETABLE,
    Label,
    checked,
    moment,
    new_file,
    read_file,
    stamp,
    write,
    write_file,
)
from explorer.packaged import home

__all__ = [
    "BUNDLED",
    "COLUMNS",
    "CONFIDENCES",
    "FORMATS",
    "LABELS_VARIABLE",
    "LIMITS",
    "NOT_INTERPRETABLE",
    "Imported",
    "Label",
    "LabelStore",
    "default_url",
    "read_file",
    "write",
    "write_file",
]

LABELS_VARIABLE = "PERSONA_EXPLORER_LABELS"

_BUSY_SECONDS = 30.0
_TICK = timedelta(microseconds=1)


PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Imported:
    """How many changes an import added, and how many were in the store already."""

    added: int
    known: int


_METADATA = sa.MetaData()
_CHANGES = sa.Table(
    "label_changes",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("sae", sa.String(LIMITS["sae"]), nullable=False),
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("confidence", sa.Integer),
    sa.Column("author", sa.String(LIMITS["author"]), nullable=False),
    sa.Column("created_at", sa.String(27), nullable=False),  # ISO in UTC: sorts as text, exact in every database
    sa.Column("restores", sa.Integer),  # of an undo: the change that it says again; 0 where there was none
    sa.Index("label_changes_newest", "sae", "feature", "created_at", "id"),
    sqlite_autoincrement=True,
)
_NEWEST_FIRST = (_CHANGES.c.created_at.desc(), _CHANGES.c.id.desc())


def default_url() -> str:
    """Where labels live unless told otherwise: `PERSONA_EXPLORER_LABELS`, else labels.sqlite in this program's home."""
    return os.environ.get(LABELS_VARIABLE) or str(home() / "labels.sqlite")


class LabelStore:
    """The labels of all SAEs in one database; threads and processes may share it.

    Args:
        url: An SQLAlchemy URL, or the path of an SQLite file; None for `default_url()`.
        bundled: CSV files of labels that come with caches, read only.
    Raises:
        LabelError: If the URL makes no sense, or a bundled file cannot be read.
    """

    def __init__(self, url: PathLike | None = None, bundled: Iterable[PathLike] = ()) -> None:
        self._url = _parse(os.fspath(url) if url is not None else default_url())
        self.file = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        self._engine = _engine(self._url)
        self._ready = False
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Any, dict[int, Label]]] = {}
        self._bundled: dict[str, dict[int, Label]] = {}
        for path in bundled:
            self.bundle(path)

    @property
    def where(self) -> str:
        """The place of the labels for people: a path, or a URL without its password."""
        return str(self.file) if self.file else self._url.render_as_string(hide_password=True)

    def bundle(self, path: PathLike) -> int:
        """Show the labels of a CSV file beneath those of people; gives back how many there are.

        Raises:
            LabelError: If the file cannot be read.
        """
        labels = [replace(label, author=BUNDLED) for label in read_file(path)]
        for label in labels:
            self._bundled.setdefault(label.sae, {})[label.feature] = label
        self._seen.clear()
        return len(labels)

    def put(
        self, sae: str, feature: int, label: str, note: str = "", confidence: int | None = None, *, author: str = "me"
    ) -> Label:
        """Say something of a feature. What the same person has just said in the same words is not said twice.

        Raises:
            LabelError: If it cannot be stored; nothing is then changed.
        """
        said = checked(Label(sae, feature, label, note, confidence, author.strip()))
        if said.bundled:
            raise LabelError(
                f"The name {BUNDLED!r} is kept for labels that come with a cache", do="Choose another name"
            )
        with self._writing() as connection:
            newest = self._newest(connection, sae, feature)
            if newest and _content(newest) == _content(said) and newest.author == said.author:
                return newest
            return self._insert(connection, said, newest, None)

    def get(self, sae: str, feature: int) -> Label | None:
        """The label of a feature: what a person said last, else the bundled one."""
        query = sa.select(_CHANGES).where(_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        rows = self._read(query.order_by(*_NEWEST_FIRST).limit(1))
        return self._over_bundled(_label(rows[0])) if rows else self._bundled.get(sae, {}).get(feature)

    def all(self, sae: str) -> dict[int, Label]:
        """The label of every feature that has one."""
        version = tuple(self._read(sa.select(sa.func.max(_CHANGES.c.id), sa.func.count()).where(_CHANGES.c.sae == sae)))
        known = self._seen.get(sae)
        if known is None or known[0] != version:  # only inserts: the newest id and the count tell versions apart
            labels = dict(self._bundled.get(sae, {}))
            for change in self._current(sae):
                shown = self._over_bundled(change)
                if shown is not None:
                    labels[change.feature] = shown
            known = (version, labels)
            self._seen[sae] = known
        return dict(known[1])

    def bundled(self, sae: str) -> dict[int, Label]:
        """The labels that came with caches of this SAE."""
        return dict(self._bundled.get(sae, {}))

    def history(self, sae: str, feature: int) -> list[Label]:
        """Every change of a feature's label, oldest first; the bundled one is not among them."""
        query = sa.select(_CHANGES).where(_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        return [_label(row) for row in reversed(self._read(query.order_by(*_NEWEST_FIRST)))]

    def undo(self, sae: str, feature: int, *, author: str = "me") -> Label | None:
        """Say again what was said before the newest change; called again, it goes one step further back.

        Returns:
            The new change, which is empty where nothing had been said before; None if there is nothing to undo.
        Raises:
            LabelError: If it cannot be stored.
        """
        here = (_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        with self._writing() as connection:
            newest = connection.execute(sa.select(_CHANGES).where(*here).order_by(*_NEWEST_FIRST).limit(1)).first()
            if newest is None or newest.restores == 0:
                return None
            at = newest
            if newest.restores is not None:
                at = connection.execute(sa.select(_CHANGES).where(_CHANGES.c.id == newest.restores)).one()
            earlier = sa.or_(
                _CHANGES.c.created_at < at.created_at,
                sa.and_(_CHANGES.c.created_at == at.created_at, _CHANGES.c.id < at.id),
            )
            before = sa.select(_CHANGES).where(*here, earlier, _CHANGES.c.restores.is_(None)).order_by(*_NEWEST_FIRST)
            row = connection.execute(before.limit(1)).first()
            if row is None and _label(at).empty:
                return None
            said = _label(row) if row is not None else Label(sae, feature, "")
            undone = checked(replace(said, author=author.strip()))
            return self._insert(connection, undone, _label(newest), row.id if row is not None else 0)

    def changes(self, sae: str | None = None, *, history: bool = True) -> list[Label]:
        """What is in the store, by SAE, feature and time.

        Args:
            sae: Only of this SAE.
            history: All changes, or only the newest of each feature that still says something.
        """
        if not history:
            saes = [sae] if sae is not None else [row[0] for row in self._read(sa.select(_CHANGES.c.sae).distinct())]
            return [change for one in sorted(saes) for change in self._current(one) if not change.empty]
        query = sa.select(_CHANGES).order_by(*(_CHANGES.c[name] for name in ("sae", "feature", "created_at", "id")))
        return [_label(row) for row in self._read(query if sae is None else query.where(_CHANGES.c.sae == sae))]

    def recent_authors(self, sae: str, minutes: float = 10.0) -> list[str]:
        """Who has changed labels of this SAE in the last minutes."""
        since = stamp(datetime.now(UTC) - timedelta(minutes=minutes))
        query = sa.select(_CHANGES.c.author).where(_CHANGES.c.sae == sae, _CHANGES.c.created_at >= since).distinct()
        return sorted(row[0] for row in self._read(query))

    def add(self, labels: Iterable[Label]) -> Imported:
        """Take in changes made elsewhere with their authors and times: all of them, or none.

        A change that is here already, in every column, is left out; so importing a file twice does no harm.

        Raises:
            LabelError: If one of them makes no sense, or they cannot be stored.
        """
        given = [checked(label) for label in labels]
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        with self._writing() as connection:
            known: set[tuple[Any, ...]] = set()  # with their times, and without them for those that bring none
            for sae in {label.sae for label in given}:
                for row in connection.execute(sa.select(_CHANGES).where(_CHANGES.c.sae == sae)):
                    key = tuple(_values(_label(row)).values())
                    known.update((key, key[:-1]))
            for label in given:
                values = _values(replace(label, author=label.author or "unknown"))
                key = tuple(values.values()) if label.created_at else tuple(values.values())[:-1]
                if key not in known:
                    known.add(key)
                    rows.append(values | {"created_at": values["created_at"] or stamp(now)})
            if rows:
                connection.execute(_CHANGES.insert(), rows)
        return Imported(len(rows), len(given) - len(rows))

    def backup(self, path: PathLike) -> Path:
        """Copy the SQLite database whole while others read and write it.

        Raises:
            LabelError: If there is a file already (it is left alone), or it is not an SQLite database.
        """
        target = Path(path).expanduser()
        if self.file is None:
            raise LabelError(
                f"{self.where} is not an SQLite file",
                do="Use its own tools, or persona-explorer labels export --history",
            )
        if not self.file.exists():
            raise LabelError(f"There are no labels yet at {self.where}", do="Label a feature first")
        with self._words(), new_file(target) as scratch:
            uri = f"{self.file.absolute().as_uri()}?mode=ro"
            with (
                closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as source,
                closing(sqlite3.connect(scratch)) as copy,
            ):
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, without companions that somebody forgets to copy
                if (found := copy.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                    raise LabelError(f"{self.where} is damaged ({found})", do="Restore an earlier backup")
        return target

    def close(self) -> None:
        """Let go of the database's files."""
        self._engine.dispose()

    def _current(self, sae: str) -> Iterator[Label]:
        place = sa.func.row_number().over(partition_by=_CHANGES.c.feature, order_by=_NEWEST_FIRST)
        ranked = sa.select(_CHANGES, place.label("place")).where(_CHANGES.c.sae == sae).subquery()
        for row in self._read(sa.select(ranked).where(ranked.c.place == 1).order_by(ranked.c.feature)):
            yield _label(row)

    def _over_bundled(self, change: Label) -> Label | None:
        """What to show of a feature whose newest change is this one."""
        beneath = self._bundled.get(change.sae, {}).get(change.feature)
        if change.empty or (change.bundled and beneath is not None):
            return beneath
        return change

    def _newest(self, connection: sa.Connection, sae: str, feature: int) -> Label | None:
        query = sa.select(_CHANGES).where(_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        row = connection.execute(query.order_by(*_NEWEST_FIRST).limit(1)).first()
        return _label(row) if row is not None else None

    def _insert(self, connection: sa.Connection, said: Label, newest: Label | None, restores: int | None) -> Label:
        now = datetime.now(UTC)
        if newest is not None and newest.created_at is not None:  # a clock that was set back hides nothing new
            now = max(now, newest.created_at + _TICK)
        said = replace(said, created_at=now)
        result = connection.execute(_CHANGES.insert().values(**_values(said), restores=restores))
        return replace(said, id=(result.inserted_primary_key or (None,))[0])

    def _read(self, query: Any) -> list[Any]:
        if self.file is not None and not self.file.exists():
            return []  # looking makes no files
        self._prepare()
        with self._words(), self._engine.connect() as connection:
            return list(connection.execute(query))

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        self._prepare()
        with self._words(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def _prepare(self) -> None:
        """Make the table, once; two processes may try at the same time."""
        with self._lock:
            if self._ready and (self.file is None or self.file.exists()):  # the file may be deleted under a running app
                return
            with self._words():
                if self.file is not None:
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._create()
                except DBAPIError:  # another process was faster: then it works now
                    self._create()
            self._ready = True

    def _create(self) -> None:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            _METADATA.create_all(connection)
            found = {column["name"] for column in sa.inspect(connection).get_columns(_CHANGES.name)}
        if missing := {column.name for column in _CHANGES.columns} - found:
            raise LabelError(
                f"The table {_CHANGES.name} in {self.where} lacks {', '.join(sorted(missing))}",
                expected="a table made by this program",
                do=f"Choose another database through {LABELS_VARIABLE}",
            )

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Turn what a database says into what a person can act on."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise _trouble(error, self.where) from error


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
        {"connect_args": {"timeout": _BUSY_SECONDS}, "poolclass": sa.NullPool} if sqlite else {"pool_pre_ping": True}
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
    return engine


def _configure(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says so, not where the driver guesses
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut


def _begin(connection: sa.Connection) -> None:
    """Writers queue up at the start: a reader that turns writer late would be refused instead of made to wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


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


def _content(label: Label) -> tuple[str, str, int | None]:
    return label.label, label.note, label.confidence


def _values(label: Label) -> dict[str, Any]:
    return {name: getattr(label, name) for name in COLUMNS} | {"created_at": stamp(label.created_at)}


def _label(row: Any) -> Label:
    """The change that a row of the table holds."""
    return Label(
        row.sae, row.feature, row.label, row.note, row.confidence, row.author, moment(row.created_at), int(row.id)
    )
