"""Lists of features: named, of one SAE, with every change kept; and the YAML files that they travel in."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from explorer.database import Database, Place, add_row, keyed
from explorer.errors import LabelError, UsageError
from explorer.label_files import LIMITS, moment, storable

LONGEST_NAME = 60
MOST = 100_000
_LARGEST = 1 << 23  # bytes of a file of lists
_ODD_BREAKS = re.compile("[\x85\u2028\u2029]")
"""What YAML takes for ends of lines, and reads as spaces, except between double quotes, where it is escaped."""
_CHANGES = keyed(
    "list_changes",
    sa.Column("name", sa.String(LONGEST_NAME), nullable=False),
    sa.Column("features", sa.Text, nullable=False),  # JSON, in the order of the list
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("removed", sa.Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class FeatureList:
    """A list of features.

    Args:
        sae: Fingerprint of their SAE.
        name: 1 to 60 characters, on one line.
        features: Their numbers, in the list's order, each once.
        note: What the list is for.
        author: Who changed it last.
        created_at: When.
    """

    sae: str
    name: str
    features: tuple[int, ...] = ()
    note: str = ""
    author: str = ""
    created_at: datetime | None = None


def checked(given: FeatureList) -> FeatureList:
    """The list if it can be kept; its features each once.

    Raises:
        LabelError: Saying why not.
    """
    name = _plain(given.name)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise LabelError(
            f"A list cannot be called {given.name!r}", expected=f"1 to {LONGEST_NAME} characters on a line"
        )
    if not given.sae or len(given.sae) > LIMITS["sae"]:
        raise LabelError(f"The list {name!r} does not say of which SAE it is", expected="a fingerprint in sae")
    for what, text in (("name", name), ("note", given.note)):
        storable(f"list's {what}", text, LIMITS["note"])
    wrong = [f for f in given.features if isinstance(f, bool) or not isinstance(f, int) or not 0 <= f < 2**31]
    if wrong or len(given.features) > MOST:
        what = f"{len(given.features):,} features"
        if wrong:
            what = repr(wrong[0])[:60] if isinstance(wrong[0], str | int | float | None) else "something else"
        raise LabelError(f"The list {name!r} holds {what}", expected=f"whole numbers from 0, at most {MOST:,}")
    return replace(given, name=name, features=tuple(dict.fromkeys(given.features)))


class Lists:
    """The lists of all SAEs in one database.

    Args:
        database: See `explorer.database.Place`.
    """

    def __init__(self, database: Place = None) -> None:
        self.database = Database.of(database)

    def all(self, sae: str) -> list[FeatureList]:
        """The lists of an SAE, by name."""
        newest: dict[str, Any] = {}
        for row in self.database.read(sa.select(_CHANGES).where(_CHANGES.c.sae == sae).order_by(_CHANGES.c.id)):
            newest[row.name] = row
        return [_list(newest[name]) for name in sorted(newest, key=str.casefold) if not newest[name].removed]

    def get(self, sae: str, name: str) -> FeatureList | None:
        """A list by its name."""
        rows = self.database.read(_of(sae, name))
        return _list(rows[0]) if rows and not rows[0].removed else None

    def named(self, sae: str, name: str) -> FeatureList:
        """A list that somebody asked for by its name.

        Raises:
            UsageError: If there is none, naming those that there are.
        """
        found = self.get(sae, name)
        if found is None:
            there = ", ".join(one.name for one in self.all(sae))
            raise UsageError(
                f"There is no list {name!r} of this SAE",
                expected=there or "a list; there is none yet",
                do="Name one of these" if there else "Make one first",
            )
        return found

    def put(self, given: FeatureList) -> FeatureList:
        """Keep a list as it is given, in place of one of that name.

        Raises:
            LabelError: If it cannot be kept.
        """
        made = checked(given)
        self.database.insert(_CHANGES, **_values(made))
        return made

    def add(self, sae: str, name: str, features: Iterable[int], *, author: str) -> FeatureList:
        """Put features at the end of a list; one that is not there is begun. Two who add at once both add."""
        return self._change(sae, name, author, lambda old: (*old, *features))

    def take_away(self, sae: str, name: str, features: Iterable[int], *, author: str) -> FeatureList:
        """Take features out of a list."""
        gone = set(features)
        return self._change(sae, name, author, lambda old: tuple(f for f in old if f not in gone))

    def remove(self, sae: str, name: str, *, author: str) -> None:
        """Take a list away; what it held stays in the table."""
        if found := self.get(sae, name):
            self.database.insert(_CHANGES, **_values(replace(found, author=author)) | {"removed": True})

    def _change(self, sae: str, name: str, author: str, new: Any) -> FeatureList:
        with self.database.writing() as connection:
            row = connection.execute(_of(sae, checked(FeatureList(sae, name)).name)).first()
            old = _list(row) if row is not None and not row.removed else FeatureList(sae, name)
            made = checked(replace(old, features=tuple(new(old.features)), author=author))
            add_row(connection, _CHANGES, **_values(made))
        return made


def _of(sae: str, name: str) -> Any:
    here = (_CHANGES.c.sae == sae, _CHANGES.c.name == _plain(name))
    return sa.select(_CHANGES).where(*here).order_by(_CHANGES.c.id.desc()).limit(1)


def _plain(name: str) -> str:
    return " ".join(name.split())


def _values(one: FeatureList) -> dict[str, Any]:
    features = json.dumps(list(one.features))
    return {
        "sae": one.sae,
        "name": one.name,
        "features": features,
        "note": one.note,
        "author": one.author,
        "removed": False,
    }


def _list(row: Any) -> FeatureList:
    return FeatureList(row.sae, row.name, tuple(json.loads(row.features)), row.note, row.author, moment(row.created_at))


def as_yaml(lists: Iterable[FeatureList]) -> str:
    """Lists as YAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def written(dumper: Dumper, text: str) -> yaml.Node:
        style = '"' if _ODD_BREAKS.search(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, written)
    rows = [{"name": one.name, "sae": one.sae, "note": one.note, "features": list(one.features)} for one in lists]
    said = {"lists": rows}
    return yaml.dump(said, Dumper=Dumper, allow_unicode=True, sort_keys=False, default_flow_style=None, width=120)


def read_yaml(path: str | Path) -> list[FeatureList]:
    """The lists of a YAML file.

    Raises:
        LabelError: If it cannot be read, or holds something else.
    """
    import yaml

    shape = "lists: a list of name, sae, features and perhaps note"
    try:
        if (size := Path(path).stat().st_size) > _LARGEST:
            raise LabelError(f"{path} has {size:,} bytes", expected=f"at most {_LARGEST:,}")
        said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise LabelError(f"{path} cannot be read ({str(error).splitlines()[0][:120]})", expected="YAML") from error
    rows = said.get("lists") if isinstance(said, dict) else None
    if not isinstance(rows, list):
        raise LabelError(f"{path} holds no lists", expected=shape)
    made = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get("features"), list):
            raise LabelError(f"{path}, list {number}: features are missing", expected=shape)
        texts = [row.get(key) for key in ("name", "sae", "note")]
        # an alias can stand for a thousand million lists: such a value is never turned into text
        if not all(text is None or isinstance(text, str | int) for text in texts):
            raise LabelError(f"{path}, list {number}: name, sae or note is no text", expected=shape)
        name, sae, note = ("" if text is None else str(text) for text in texts)
        made.append(checked(FeatureList(sae, name, tuple(row["features"]), note)))
    return made
