"""The database of people: made, brought up to date and shared without losing a row, as SQLite and as PostgreSQL."""

import importlib
import json
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from explorer.database import HEAD, METADATA, Database
from explorer.errors import LabelError
from explorer.labels import LabelStore
from explorer.lists import FeatureList, Lists
from tests.helpers_database import place, postgres  # noqa: F401

SAE = "f" * 64
OLD = """
CREATE TABLE label_changes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, sae VARCHAR(128) NOT NULL, feature INTEGER NOT NULL, label TEXT NOT NULL,
    note TEXT NOT NULL, confidence INTEGER, author VARCHAR(200) NOT NULL, created_at VARCHAR(27) NOT NULL, restores INTEGER
);
CREATE INDEX label_changes_newest ON label_changes (sae, feature, created_at, id);
"""


def old_file(path, rows: int = 3) -> None:
    """A file as versions before revisions made it."""
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
        for n in range(rows):
            said = (SAE, n, f"label {n}", "", 2, "ana", f"2026-01-0{n + 1}T10:00:00.000000Z", None)
            connection.execute("INSERT INTO label_changes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", said)
    connection.close()


def test_the_revisions_make_exactly_the_tables_that_the_modules_declare(place):  # noqa: F811
    for module in ("labels", "lists", "remarks", "assignments", "suggestions", "scores"):
        importlib.import_module(f"explorer.{module}")
    database = Database(place)
    with database.writing() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    database.close()
    assert not found


def test_head_is_the_newest_revision():
    from pathlib import Path

    import explorer.migrations

    names = sorted(path.name for path in (Path(explorer.migrations.__file__).parent / "versions").glob("r*.py"))
    assert names[-1].startswith(f"r{HEAD}_")


def test_a_file_of_an_older_version_keeps_every_row_and_is_copied_first(tmp_path):
    path = tmp_path / "labels.sqlite"
    old_file(path)
    store = LabelStore(path)
    assert [label.label for label in store.changes()] == ["label 0", "label 1", "label 2"]
    assert store.put(SAE, 1, "new", author="ben", evidence="{}").evidence == "{}"
    assert [label.label for label in store.history(SAE, 1)] == ["label 1", "new"]
    copy = tmp_path / f"labels.sqlite.before-{HEAD}"
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM label_changes").fetchone() == (3,)
        assert "alembic_version" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()


def test_looking_at_a_file_that_is_not_there_makes_none(tmp_path):
    database = Database(tmp_path / "none.sqlite")
    assert Lists(database).all(SAE) == []
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "labels.sqlite"
    LabelStore(path).put(SAE, 1, "kings")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LabelError, match="newer version of this program"):
        LabelStore(path).put(SAE, 1, "queens")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT label FROM label_changes").fetchall() == [("kings",)]
    connection.close()


def test_reading_waits_for_no_writer(tmp_path, monkeypatch):
    path = tmp_path / "labels.sqlite"
    LabelStore(path).put(SAE, 1, "kings")
    monkeypatch.setattr("explorer.database.BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert LabelStore(path).get(SAE, 1).label == "kings"
    holder.close()


def test_an_upgrade_whose_copy_fails_leaves_the_old_file_and_no_half_copy(tmp_path, monkeypatch):
    path = tmp_path / "labels.sqlite"
    old_file(path)

    def full(source, target):
        target.write_bytes(b"half a copy")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("explorer.database.copy_sqlite", full)
        with pytest.raises(LabelError, match="disk is full"):
            LabelStore(path).put(SAE, 1, "new")
    assert not list(tmp_path.glob("*.before-*"))
    with sqlite3.connect(path) as connection:
        assert "alembic_version" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert len(LabelStore(path).changes()) == 3
    assert (tmp_path / f"labels.sqlite.before-{HEAD}").exists()


@pytest.mark.parametrize(
    ("text", "says"), [("\0", "NUL"), ("\ud800", "half a character"), ("n" * 201, "201 characters")]
)
def test_what_cannot_be_kept_is_refused_in_the_same_words_by_either_database(place, text, says):  # noqa: F811
    lists = Lists(place)
    for say in (
        lambda: lists.put(FeatureList(SAE, "some", (1,), author=text)),
        lambda: lists.add(SAE, "some", [1], author=text),
    ):
        with pytest.raises(LabelError, match=says):
            say()
    assert lists.all(SAE) == []
    lists.database.close()


UPGRADER = """
import sys
from explorer.labels import LabelStore
print(LabelStore(sys.argv[1]).put("f" * 64, 7, sys.argv[2], author=sys.argv[2]).id)
"""


def test_processes_that_upgrade_at_once_all_get_through(tmp_path):
    path = tmp_path / "labels.sqlite"
    old_file(path)
    started = [
        subprocess.Popen([sys.executable, "-c", UPGRADER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in ("ana", "ben", "eve")
    ]
    ids = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(ids)) == 3
    assert len(LabelStore(path).changes()) == 6


WRITER = """
import sys
from explorer.labels import LabelStore
from explorer.lists import Lists
store, lists = LabelStore(sys.argv[1]), Lists(sys.argv[1])
for step in range(int(sys.argv[3])):
    label = store.put("f" * 64, step % 5, f"{sys.argv[2]}/{step}", author=sys.argv[2])
    print(label.id, label.label, flush=True)
    lists.add("f" * 64, "shared", [int(sys.argv[2]) * 1000000 + step], author=sys.argv[2])
    print("list", int(sys.argv[2]) * 1000000 + step, flush=True)
"""


def test_eight_writers_lose_nothing_that_was_acknowledged(place):  # noqa: F811
    steps, endless = 25, 10**6
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, place, str(n), str(most)], stdout=subprocess.PIPE, text=True)
        for n, most in enumerate([steps] * 5 + [endless] * 3)
    ]
    printed = []
    for lines, writer in zip((1, 8, 20), writers[5:], strict=True):
        printed += [writer.stdout.readline() for _ in range(lines)]
        writer.kill()  # in the middle of its work: what it had said stays
    for writer in writers:
        printed += writer.communicate()[0].splitlines(keepends=True)
    said = [line.split() for line in printed if line.endswith("\n")]
    assert [writer.returncode for writer in writers[:5]] == [0] * 5
    assert all(writer.returncode for writer in writers[5:])
    store = LabelStore(place)
    stored = {str(change.id): change.label for change in store.changes()}
    listed = {str(f) for f in Lists(store.database).get(SAE, "shared").features}
    acknowledged = [(number, text) for number, text in said if number != "list"]
    assert len(acknowledged) >= 5 * steps
    assert all(stored[number] == text for number, text in acknowledged)
    assert {feature for kind, feature in said if kind == "list"} <= listed
    for n in range(8):  # nothing half written, and nothing left out in between
        steps_of = sorted(int(text.split("/")[1]) for text in stored.values() if text.startswith(f"{n}/"))
        assert steps_of == list(range(len(steps_of)))
    for feature in range(5):
        times = [change.created_at for change in store.history(SAE, feature)]
        assert times == sorted(times)
        assert len(set(times)) == len(times)
    store.close()


def test_labels_do_the_same_in_either_database(place):  # noqa: F811
    store = LabelStore(place)
    first = store.put(SAE, 7, "kings", "a note", 2, author="ana", evidence=json.dumps({"cache": "c"}))
    assert store.get(SAE, 7) == first
    store.put(SAE, 7, "queens 😀 <b>", author="ben")
    assert [label.label for label in store.history(SAE, 7)] == ["kings", "queens 😀 <b>"]
    assert store.undo(SAE, 7, author="ben").label == "kings"
    assert store.all(SAE)[7].label == "kings"
    assert store.recent_authors(SAE) == ["ana", "ben"]
    again = store.add(store.changes())
    assert (again.added, again.known) == (0, 3)
    store.close()


def test_a_label_over_words_that_its_writer_had_not_seen_is_kept_and_says_so(place):  # noqa: F811
    from explorer.labels import Label

    store = LabelStore(place)
    first = store.put(SAE, 7, "kings", author="ana")
    mine, over = store.lay(Label(SAE, 7, "crowns", author="ben"), seen={first.id})
    assert over is None
    theirs, over = store.lay(Label(SAE, 7, "royalty", author="ana"), seen={first.id})
    assert over == mine
    assert [label.label for label in store.history(SAE, 7)] == ["kings", "crowns", "royalty"]
    assert store.lay(Label(SAE, 7, "royalty", author="ana"), seen=set()) == (theirs, None), "said already"
    store.close()
