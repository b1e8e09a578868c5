"""Labels that people gave to features: every change is kept, and the newest change is the label.

The store only ever inserts. Undo is one more change, which says again what was said before; so nothing that was typed
is lost, several people can write at once, and a copy of the table is a whole history. Labels belong to an SAE, not to a
cache: they are keyed by its fingerprint, so a cache built again on another corpus finds them.

Labels that come with a cache (`bundled`) are read from a CSV file beside it and never written; what a person says wins.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from explorer.database import LABELS_VARIABLE, METADATA, Database, Place, copy_sqlite, default_url
from explorer.errors import LabelError
from explorer.evidence_lock import confirms, without_confirming
from explorer.label_files import (
    BUNDLED,
    COLUMNS,
    CONFIDENCES,
    FORMATS,
    LIMITS,
    NOT_INTERPRETABLE,
    Label,
    checked,
    machine_user,
    moment,
    new_file,
    read_file,
    stamp,
    write,
    write_file,
)

if TYPE_CHECKING:
    from explorer.cache import Cache

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
    "machine_user",
    "read_file",
    "write",
    "write_file",
]

_TICK = timedelta(microseconds=1)
_SOME = 500  # features a query: databases take only so many parameters


PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Imported:
    """How many changes an import added, and how many were in the store already."""

    added: int
    known: int


_CHANGES = sa.Table(
    "label_changes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("sae", sa.String(LIMITS["sae"]), nullable=False),
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("confidence", sa.Integer),
    sa.Column("author", sa.String(LIMITS["author"]), nullable=False),
    sa.Column("created_at", sa.String(27), nullable=False),  # ISO in UTC: sorts as text, exact in every database
    sa.Column("evidence", sa.Text),  # JSON, as `explorer.evidence_lock` writes it
    sa.Column("restores", sa.Integer),  # of an undo: the change that it says again; 0 where there was none
    sa.Index("label_changes_newest", "sae", "feature", "created_at", "id"),
    sqlite_autoincrement=True,
)
_KEPT = f"The name {BUNDLED!r} is kept for labels that come with a cache"
_NEWEST_FIRST = (_CHANGES.c.created_at.desc(), _CHANGES.c.id.desc())


class LabelStore:
    """The labels of all SAEs in one database; threads and processes may share it.

    Args:
        url: A database, an SQLAlchemy URL, or the path of an SQLite file; None for `default_url()`.
        bundled: CSV files of labels that come with caches, read only.
    Raises:
        LabelError: If the URL makes no sense, or a bundled file cannot be read.
    """

    def __init__(self, url: Place = None, bundled: Iterable[PathLike] = ()) -> None:
        self.database = Database.of(url)
        self.file, self.where = self.database.file, self.database.where
        self._seen: dict[str, tuple[Any, dict[int, Label]]] = {}
        self._bundled: dict[str, dict[int, Label]] = {}
        for path in bundled:
            self.bundle(path)

    @classmethod
    def over(cls, cache: "Cache", url: Place = None) -> "LabelStore":
        """The labels of people over those that came with a cache."""
        return cls(url, [cache.bundled_labels] if cache.bundled_labels else [])

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
        self,
        sae: str,
        feature: int,
        label: str,
        note: str = "",
        confidence: int | None = None,
        *,
        author: str = "me",
        evidence: str = "",
    ) -> Label:
        """Say something of a feature. What the same person has just said in the same words is not said twice.

        Args:
            evidence: What it rests on, as `Evidence.to_json` gives it.
        Raises:
            LabelError: If it cannot be stored; nothing is then changed.
        """
        return self.lay(Label(sae, feature, label, note, confidence, author, evidence=evidence))[0]

    def fill(self, sae: str, features: Iterable[int], label: str, *, author: str) -> list[int]:
        """Give a label to those features that have none when it is given: all of them, or nothing.

        Returns:
            The features that got it.
        Raises:
            LabelError: If it cannot be stored.
        """
        said, filled = checked(Label(sae, 0, label, author=author.strip())), []
        if said.bundled:
            raise LabelError(_KEPT, do="Choose another name")
        with self.database.writing() as connection:
            for feature in dict.fromkeys(features):
                newest = self._newest(connection, sae, feature)
                bare = newest is None or newest.empty
                shown = self._bundled.get(sae, {}).get(feature) if bare else newest
                if not (shown and shown.label):
                    self._insert(connection, replace(said, feature=feature), newest, None)
                    filled.append(feature)
        return filled

    def lay(self, label: Label, seen: Collection[int | None] | None = None) -> tuple[Label, Label | None]:
        """Put a label over what is there, and say whom that concerns.

        The same words by the same person are not stored again, unless they were looked at again (`Evidence.again`) on other evidence.

        Args:
            seen: The changes of the feature that the writer knew of, by id; None where nobody asks.
        Returns:
            The change, and the one that it lies over if the writer had not seen it and it says something else. Both are kept.
        Raises:
            LabelError: If it cannot be stored; nothing is then changed.
        """
        said = checked(replace(label, author=label.author.strip()))
        if said.bundled:
            raise LabelError(_KEPT, do="Choose another name")
        with self.database.writing() as connection:
            newest = self._newest(connection, said.sae, said.feature)
            renewed = newest is not None and confirms(said) and newest.evidence != said.evidence
            if newest and _content(newest) == _content(said) and newest.author == said.author and not renewed:
                return newest, None
            unseen = seen is not None and newest is not None and newest.id not in seen
            conflict = newest if unseen and newest and _content(newest) != _content(said) else None
            return self._insert(connection, said, newest, None), conflict

    def get(self, sae: str, feature: int) -> Label | None:
        """The label of a feature: what a person said last, else the bundled one."""
        query = sa.select(_CHANGES).where(_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        rows = self.database.read(query.order_by(*_NEWEST_FIRST).limit(1))
        return self._over_bundled(_label(rows[0])) if rows else self._bundled.get(sae, {}).get(feature)

    def all(self, sae: str) -> dict[int, Label]:
        """The label of every feature that has one."""
        version = tuple(
            self.database.read(sa.select(sa.func.max(_CHANGES.c.id), sa.func.count()).where(_CHANGES.c.sae == sae))
        )
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

    def texts(self, sae: str) -> dict[int, str]:
        """Feature -> what its label says, of those whose label says something."""
        return {feature: label.label for feature, label in self.all(sae).items() if label.label}

    def bundled(self, sae: str) -> dict[int, Label]:
        """The labels that came with caches of this SAE."""
        return dict(self._bundled.get(sae, {}))

    def history(self, sae: str, feature: int) -> list[Label]:
        """Every change of a feature's label, oldest first; the bundled one is not among them."""
        query = sa.select(_CHANGES).where(_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        return [_label(row) for row in reversed(self.database.read(query.order_by(*_NEWEST_FIRST)))]

    def standing(self, sae: str, features: Iterable[int]) -> dict[int, set[int]]:
        """Feature -> ids of all changes that say what its label says now, whoever said it and whenever."""
        wanted = list(features)
        rows: dict[int, list[Any]] = {feature: [] for feature in wanted}
        for at in range(0, len(wanted), _SOME):
            here = (_CHANGES.c.sae == sae, _CHANGES.c.feature.in_(wanted[at : at + _SOME]))
            for row in self.database.read(sa.select(_CHANGES).where(*here).order_by(*_NEWEST_FIRST)):
                rows[row.feature].append(row)
        return {f: {row.id for row in of if row.label == of[0].label} for f, of in rows.items()}

    def undo(self, sae: str, feature: int, *, author: str = "me") -> Label | None:
        """Say again what was said before the newest change; called again, it goes one step further back.

        Returns:
            The new change, which is empty where nothing had been said before; None if there is nothing to undo.
        Raises:
            LabelError: If it cannot be stored.
        """
        here = (_CHANGES.c.sae == sae, _CHANGES.c.feature == feature)
        with self.database.writing() as connection:
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
            undone = checked(replace(said, author=author.strip(), evidence=without_confirming(said.evidence)))
            return self._insert(connection, undone, _label(newest), row.id if row is not None else 0)

    def changes(self, sae: str | None = None, *, history: bool = True) -> list[Label]:
        """What is in the store, by SAE, feature and time.

        Args:
            sae: Only of this SAE.
            history: All changes, or only the newest of each feature that still says something.
        """
        if not history:
            saes = (
                [sae]
                if sae is not None
                else [row[0] for row in self.database.read(sa.select(_CHANGES.c.sae).distinct())]
            )
            return [change for one in sorted(saes) for change in self._current(one) if not change.empty]
        query = sa.select(_CHANGES).order_by(*(_CHANGES.c[name] for name in ("sae", "feature", "created_at", "id")))
        return [_label(row) for row in self.database.read(query if sae is None else query.where(_CHANGES.c.sae == sae))]

    def recent_authors(self, sae: str, minutes: float = 10.0) -> list[str]:
        """Who has changed labels of this SAE in the last minutes."""
        since = stamp(datetime.now(UTC) - timedelta(minutes=minutes))
        query = sa.select(_CHANGES.c.author).where(_CHANGES.c.sae == sae, _CHANGES.c.created_at >= since).distinct()
        return sorted(row[0] for row in self.database.read(query))

    def add(self, labels: Iterable[Label]) -> Imported:
        """Take in changes made elsewhere with their authors and times: all of them, or none.

        A change that is here already, in every column, is left out; so importing a file twice does no harm.

        Raises:
            LabelError: If one of them makes no sense, or they cannot be stored.
        """
        given = [checked(label) for label in labels]
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        with self.database.writing() as connection:
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
        with self.database.words(), new_file(target) as scratch:
            copy_sqlite(self.file, scratch)
        return target

    def close(self) -> None:
        """Let go of the database's files."""
        self.database.close()

    def _current(self, sae: str) -> Iterator[Label]:
        place = sa.func.row_number().over(partition_by=_CHANGES.c.feature, order_by=_NEWEST_FIRST)
        ranked = sa.select(_CHANGES, place.label("place")).where(_CHANGES.c.sae == sae).subquery()
        for row in self.database.read(sa.select(ranked).where(ranked.c.place == 1).order_by(ranked.c.feature)):
            yield _label(row)

    def _over_bundled(self, change: Label) -> Label | None:
        """What to show of a feature whose newest change is this one."""
        beneath = self._bundled.get(change.sae, {}).get(change.feature)
        if change.empty or (change.bundled and beneath is not None):
            return beneath
        return self._by_whom(change, beneath)

    def _by_whom(self, shown: Label, beneath: Label | None) -> Label:
        """Whoever confirms words that stand there has not written them: the label stays that of the one who has."""
        if not confirms(shown):
            return shown
        said = [c for c in self.history(shown.sae, shown.feature) if c.label == shown.label and not confirms(c)]
        wrote = said[-1] if said else beneath
        return replace(shown, author=wrote.author) if wrote else shown

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


def _content(label: Label) -> tuple[str, str, int | None]:
    return label.label, label.note, label.confidence


def _values(label: Label) -> dict[str, Any]:
    said = {name: getattr(label, name) for name in COLUMNS}
    return said | {"evidence": label.evidence or None, "created_at": stamp(label.created_at)}


def _label(row: Any) -> Label:
    """The change that a row of the table holds."""
    return Label(
        row.sae, row.feature, row.label, row.note, row.confidence, row.author, moment(row.created_at), int(row.id), row.evidence or ""
    )  # fmt: skip
