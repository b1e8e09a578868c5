"""Labels: nothing that was said is lost, in one process or several, through files and back."""

import io
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from explorer.errors import LabelError
from explorer.label_files import Format
from explorer.labels import (
    BUNDLED,
    COLUMNS,
    FORMATS,
    LABELS_VARIABLE,
    LIMITS,
    Imported,
    Label,
    LabelStore,
    default_url,
    machine_user,
    read_file,
    write_file,
)
from tests.helpers_database import place, postgres  # noqa: F401

SAE = "f" * 64
AWKWARD = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@x",
    "a, b; c\td",
    'say "no"',
    '"',
    '""',
    "two\nlines",
    "two\r\nlines",
    "old mac\rlines",
    "\rfirst",
    "\n",
    " leading and trailing ",
    "\ufeffmark",
    "null",
    "None",
    "NaN",
    "007",
    "1e5",
    "🧑‍🚀 東京 é",
    "\u202eright to left",
    "\u2028separator\x85next\u2029line",
    "\x01\x1b[31m",
    "<script>alert(1)</script>",
    "![x](http://127.0.0.1:9/x.png)",
    "'; DROP TABLE label_changes; --",
    "back\\slash \\n",
    "x" * LIMITS["label"],
]


def export_labels(
    store: LabelStore, path: Path, *, sae: str | None = None, history: bool = False, overwrite: bool = False
) -> int:
    return write_file(store.changes(sae, history=history), path, overwrite=overwrite)


def import_labels(store: LabelStore, path: Path) -> Imported:
    return store.add(read_file(path))


@pytest.fixture
def store(place: str) -> Iterator[LabelStore]:  # noqa: F811
    """An empty store, once in SQLite and once in PostgreSQL."""
    made = LabelStore(place)
    yield made
    made.close()


@pytest.fixture
def in_file(tmp_path: Path) -> LabelStore:
    """An empty store in SQLite, for what only a file can do."""
    return LabelStore(tmp_path / "labels.sqlite")


def content(label: Label | None) -> tuple[str, str, int | None, str] | None:
    return label and (label.label, label.note, label.confidence, label.author)


def bundled_file(path: Path, labels: dict[int, str], sae: str = SAE) -> Path:
    write_file(
        [Label(sae, feature, text, "read from 20 examples", 3, BUNDLED) for feature, text in labels.items()], path
    )
    return path


def test_the_newest_change_is_the_label_and_all_of_them_are_kept(store):
    first = store.put(SAE, 7, "kings", author="ana")
    store.put(SAE, 7, "royalty", "also queens", 2, author="ben")
    assert content(store.get(SAE, 7)) == ("royalty", "also queens", 2, "ben")
    assert [content(change) for change in store.history(SAE, 7)] == [
        ("kings", "", None, "ana"),
        ("royalty", "also queens", 2, "ben"),
    ]
    assert first.created_at is not None
    assert abs(datetime.now(UTC) - first.created_at) < timedelta(minutes=1)
    assert first.id is not None
    assert store.all(SAE) == {7: store.get(SAE, 7)}


def test_labels_belong_to_an_sae_and_a_feature(store):
    store.put(SAE, 7, "kings")
    assert store.get(SAE, 8) is None
    assert store.get("e" * 64, 7) is None
    assert store.all("e" * 64) == {}
    assert store.history(SAE, 8) == []


def test_the_same_words_of_the_same_person_are_not_said_twice_but_those_of_another_are(store):
    first = store.put(SAE, 7, "kings", author="ana")
    assert store.put(SAE, 7, "kings", author="ana") == first
    store.put(SAE, 7, "kings", author="ben")
    assert [change.author for change in store.history(SAE, 7)] == ["ana", "ben"]


def test_all_sees_what_another_store_wrote_and_its_answer_may_be_changed(store):
    other = LabelStore(store.database.url.render_as_string(hide_password=False))
    store.put(SAE, 1, "one")
    store.all(SAE).clear()
    assert set(store.all(SAE)) == {1}
    other.put(SAE, 2, "two")
    assert {feature: label.label for feature, label in store.all(SAE).items()} == {1: "one", 2: "two"}
    other.close()


def test_texts_are_what_labels_say_and_none_of_those_that_say_nothing(store):
    store.put(SAE, 1, "one")
    store.put(SAE, 2, "", "a note without a label")
    assert store.texts(SAE) == {1: "one"}
    assert set(store.all(SAE)) == {1, 2}


def test_undo_walks_back_step_by_step_and_is_itself_kept(store):
    for text in ("a", "b", "c"):
        store.put(SAE, 7, text, author="ana")
    assert content(store.undo(SAE, 7, author="ben")) == ("b", "", None, "ben")
    assert store.undo(SAE, 7).label == "a"
    assert store.undo(SAE, 7).empty
    assert store.get(SAE, 7) is None
    assert store.all(SAE) == {}
    assert store.undo(SAE, 7) is None
    assert [change.label for change in store.history(SAE, 7)] == ["a", "b", "c", "b", "a", ""]


def test_undo_after_an_undo_and_a_new_label_goes_to_what_was_typed_before_it(store):
    for text in ("a", "b"):
        store.put(SAE, 7, text)
    store.undo(SAE, 7)
    store.put(SAE, 7, "c")
    assert store.undo(SAE, 7).label == "b"
    assert store.undo(SAE, 7).label == "a"


def test_undo_of_a_feature_that_nobody_labelled_does_nothing(store):
    assert store.undo(SAE, 7) is None
    assert store.history(SAE, 7) == []


def test_a_label_is_newer_than_the_one_before_it_whatever_the_clock_says(store):
    ahead = datetime.now(UTC) + timedelta(days=1)
    store.add([Label(SAE, 7, "from a machine whose clock is wrong", author="ana", created_at=ahead)])
    store.put(SAE, 7, "said after that")
    assert store.get(SAE, 7).label == "said after that"
    assert store.undo(SAE, 7).label == "from a machine whose clock is wrong"


def test_a_persons_label_wins_over_the_bundled_one_and_taking_it_back_shows_that_again(tmp_path, store):
    store.bundle(bundled_file(tmp_path / "bundled.csv", {7: "kings", 8: "ships"}))
    assert store.get(SAE, 7).bundled
    assert store.get(SAE, 7).author == BUNDLED
    store.put(SAE, 7, "royalty", author="ana")
    assert {feature: label.label for feature, label in store.all(SAE).items()} == {7: "royalty", 8: "ships"}
    store.put(SAE, 7, "", author="ana")
    assert store.get(SAE, 7).label == "kings"
    assert store.all(SAE)[7].bundled
    assert {feature: label.label for feature, label in store.bundled(SAE).items()} == {7: "kings", 8: "ships"}


def test_bundled_labels_are_never_written(tmp_path):
    path = bundled_file(tmp_path / "bundled.csv", {7: "kings"})
    before = path.read_bytes()
    store = LabelStore(tmp_path / "home" / "labels.sqlite", bundled=[path])
    assert store.all(SAE)[7].note == "read from 20 examples"
    assert not store.file.exists(), "looking makes no files"
    store.put(SAE, 7, "royalty")
    store.undo(SAE, 7)
    assert path.read_bytes() == before
    assert store.history(SAE, 7)[0].label == "royalty"
    with pytest.raises(LabelError, match="come with a cache"):
        store.put(SAE, 7, "x", author=BUNDLED)


def test_a_bundled_label_that_was_imported_gives_way_to_the_file_beside_the_cache(tmp_path, store):
    import_labels(store, bundled_file(tmp_path / "old.csv", {7: "kigns", 9: "numbers"}))
    store.bundle(bundled_file(tmp_path / "new.csv", {7: "kings"}))
    assert {feature: label.label for feature, label in store.all(SAE).items()} == {7: "kings", 9: "numbers"}
    assert store.get(SAE, 7).label == "kings"


def test_one_column_is_enough_for_a_bundled_label_besides_its_key(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(f"label,feature,sae\nkings,7,{SAE}\n", encoding="utf-8-sig")
    assert LabelStore(tmp_path / "l.sqlite", bundled=[path]).get(SAE, 7) == Label(SAE, 7, "kings", author=BUNDLED)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("history", [True, False])
def test_a_round_trip_through_a_file_loses_nothing(tmp_path, store, kind, history):
    for feature, text in enumerate(AWKWARD):
        store.put(SAE, feature, text, text, 1 + feature % 3, author=text[: LIMITS["author"]].strip() or "me")
        store.put(SAE, feature, "", text, author="ana") if feature % 4 == 0 else None
    store.put(SAE, 0, "")
    store.undo(SAE, 2)
    path = tmp_path / f"labels.{kind}"
    count = export_labels(store, path, history=history)
    other = LabelStore(tmp_path / "other.sqlite")
    assert import_labels(other, path) == Imported(count, 0)
    assert [replace(c, id=None) for c in other.changes(history=history)] == [
        replace(c, id=None) for c in store.changes(history=history)
    ]
    assert {f: content(label) for f, label in other.all(SAE).items()} == {
        f: content(label) for f, label in store.all(SAE).items()
    }
    again = tmp_path / f"again.{kind}"
    export_labels(other, again, history=history)
    assert again.read_bytes() == path.read_bytes()
    assert import_labels(other, path) == Imported(0, count), "importing twice does no harm"


def test_rows_without_author_and_time_are_taken_in_once(tmp_path, store):
    path = tmp_path / "short.csv"
    path.write_text(f"sae,feature,label\n{SAE},7,kings\n", encoding="utf-8")
    assert import_labels(store, path) == Imported(1, 0)
    assert import_labels(store, path) == Imported(0, 1)
    assert store.get(SAE, 7).author == "unknown"
    assert store.get(SAE, 7).created_at is not None


def test_every_format_explains_itself():
    for kind in FORMATS.values():
        assert isinstance(kind, Format)
        assert len(kind.help) > 10


def test_the_csv_has_the_promised_columns_and_exact_times(store):
    moment = datetime(2026, 1, 31, 10, 2, 0, 5, tzinfo=UTC)
    stream = io.StringIO(newline="")
    FORMATS["csv"].write([Label(SAE, 7, "kings", "", None, "ana", moment)], stream)
    assert stream.getvalue() == f"{','.join(COLUMNS)}\n{SAE},7,kings,,,ana,,2026-01-31T10:02:00.000005Z\n"


def test_an_export_holds_one_sae_if_asked_and_replaces_a_file_only_if_told(tmp_path, store):
    store.put(SAE, 7, "kings")
    store.put("e" * 64, 7, "queens")
    path = tmp_path / "labels.csv"
    assert export_labels(store, path) == 2
    with pytest.raises(LabelError, match="file already"):
        export_labels(store, path)
    assert len(read_file(path)) == 2
    assert export_labels(store, path, sae=SAE, overwrite=True) == 1
    assert [label.label for label in read_file(path)] == ["kings"]
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".labels")] == []


BAD_FILES = {
    "a.csv": [
        ("", "Column feature, label, sae is missing"),
        ("sae,feature,label\n,7,x\n", "Line 2: .*fingerprint"),
        (f"sae,feature,label\n{SAE},seven,x\n", "Line 2: The feature is 'seven'"),
        (f"sae,feature,label\n{SAE},-7,x\n", "Line 2"),
        (f"sae,feature,label\n{SAE},,x\n", "Line 2: The feature is missing"),
        (f"sae,feature,label\n{SAE},7,x\n{SAE},7,x,y\n", "Line 3: .*more or fewer cells"),
        (f"sae,feature,label,note\n{SAE},7,x\n", "Line 2: .*more or fewer cells"),
        (f"sae,feature,label,confidence\n{SAE},7,x,9\n", "Line 2: The confidence is 9. expected 1, 2, 3"),
        (f"sae,feature,label,created_at\n{SAE},7,x,yesterday\n", "Line 2: The time 'yesterday'"),
        (f'sae,feature,label\n{SAE},7,"x\n', "no CSV"),
        (f"sae,feature,label\n{SAE},7,a\0b\n", "Line 2: The label holds a NUL character"),
        (f"sae,feature,label\n{SAE},7,{'x' * 501}\n", "Line 2: The label has 501 characters"),
        (f"sae,feature,label\n{SAE},7,\udcff\n", "not UTF-8"),
    ],
    "a.jsonl": [
        ("[1]\n", "Line 1: sae, feature or label is missing"),
        ('{"sae": "f", "feature": 7, "label": "x"}\n{"sae"\n', "Line 2: This is no JSON"),
        ('{"sae": "f", "feature": 7.5, "label": "x"}', "Line 1: The feature is 7.5"),
        ('{"sae": "f", "feature": true, "label": "x"}', "Line 1: The feature is True"),
        ('{"sae": "f", "feature": 7, "label": ["x"]}', "Line 1: The label is"),
        ('{"sae": "f", "feature": 7, "label": "a\\u0000b"}', "NUL"),
        ('{"sae": "f", "feature": 7, "label": "\\ud800"}', "half a character"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "says"), [(name, *case) for name, cases in BAD_FILES.items() for case in cases]
)
def test_a_bad_file_is_refused_whole_by_name_and_line(tmp_path, store, name, text, says):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LabelError, match=says) as caught:
        import_labels(store, path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.changes() == []


def test_a_file_of_another_kind_or_none_is_refused_in_words(tmp_path, store):
    with pytest.raises(LabelError, match="csv or jsonl"):
        import_labels(store, tmp_path / "labels.xlsx")
    with pytest.raises(LabelError, match="csv or jsonl"):
        export_labels(store, tmp_path / "labels")
    with pytest.raises(LabelError, match="cannot be read"):
        import_labels(store, tmp_path / "missing.csv")
    with pytest.raises(LabelError, match="cannot be written"):
        export_labels(store, tmp_path / "no folder" / "labels.csv")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((SAE, 7, "a\0b"), "NUL"),
        ((SAE, 7, "\ud800"), "half a character"),
        ((SAE, 7, "x" * 501), "at most 500"),
        ((SAE, 7, "x", "y" * 20_001), "at most 20,000"),
        ((SAE, 7, "x", "", 4), "confidence"),
        ((SAE, -1, "x"), "-1"),
        ((SAE, True, "x"), "True"),
        (("", 7, "x"), "fingerprint"),
    ],
)
def test_what_cannot_be_kept_as_it_is_is_refused_in_words(store, arguments, says):
    with pytest.raises(LabelError, match=says):
        store.put(*arguments)
    assert store.changes() == []


@pytest.mark.parametrize("text", AWKWARD)
def test_every_character_comes_back_as_it_was_typed(store, text):
    store.put(SAE, 7, text, text)
    assert content(store.get(SAE, 7)) == (text, text, None, "me")


def test_eight_threads_lose_nothing_that_was_acknowledged(store):
    acknowledged: list[Label] = []

    def work(number: int) -> None:
        for step in range(20):
            acknowledged.append(store.put(SAE, step % 5, f"{number}/{step}", author=f"writer {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = {change.id: change for change in store.changes()}
    assert len(acknowledged) == 160
    assert all(stored[label.id] == label for label in acknowledged)
    for feature in range(5):
        times = [change.created_at for change in store.history(SAE, feature)]
        assert len(set(times)) == len(times)


WRITER = """
import sys
from explorer.labels import LabelStore
store = LabelStore(sys.argv[1])
for step in range(60):
    label = store.put("f" * 64, step % 3, f"{sys.argv[2]}/{step}", author=sys.argv[2])
    print(label.id, label.label, flush=True)
"""


def test_two_processes_that_start_on_an_empty_folder_lose_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "new" / "labels.sqlite"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in ("ana", "ben", "eve")
    ]
    processes[2].stdout.readline()
    processes[2].kill()  # in the middle of its work: what it had said stays
    said = [line for process in processes for line in process.communicate()[0].splitlines() if line.count(" ") == 1]
    assert [process.returncode for process in processes[:2]] == [0, 0]
    stored = {str(change.id): change.label for change in LabelStore(path).changes()}
    assert len(said) >= 120
    for line in said:
        number, text = line.split()
        assert stored[number] == text
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_backup_is_whole_taken_while_others_write_and_never_replaces_a_file(tmp_path, in_file):
    in_file.put(SAE, 7, "kings")
    target = tmp_path / "backup.sqlite"
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            in_file.put(SAE, 8, str(number := number + 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert in_file.backup(target) == target
    finally:
        stop.set()
        writer.join()
    assert LabelStore(target).get(SAE, 7).label == "kings"
    before = target.read_bytes()
    with pytest.raises(LabelError, match="file already"):
        in_file.backup(target)
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".labels")] == []


def test_a_backup_without_labels_or_beside_no_folder_says_so(tmp_path, in_file):
    with pytest.raises(LabelError, match="no labels yet"):
        in_file.backup(tmp_path / "backup.sqlite")
    in_file.put(SAE, 7, "kings")
    with pytest.raises(LabelError, match="cannot be written"):
        in_file.backup(tmp_path / "nowhere" / "backup.sqlite")


def test_any_database_can_be_named_by_url_and_a_password_is_not_shown(tmp_path, monkeypatch):
    store = LabelStore(f"sqlite:///{tmp_path / 'by url.sqlite'}")
    store.put(SAE, 7, "kings")
    assert store.where == str(tmp_path / "by url.sqlite")
    assert Path(store.where).exists()
    monkeypatch.setenv(LABELS_VARIABLE, str(tmp_path / "chosen.sqlite"))
    assert LabelStore().where == str(tmp_path / "chosen.sqlite") == default_url()
    monkeypatch.delenv(LABELS_VARIABLE)
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    assert default_url() == str(tmp_path / "home" / "labels.sqlite")
    with pytest.raises(LabelError) as caught:
        LabelStore("postgresql+psycopg2://ana:secret@127.0.0.1:1/labels").get(SAE, 7)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "://", "nonsense://somewhere/else"])
def test_a_url_that_makes_no_sense_is_refused_in_words(url):
    with pytest.raises(LabelError) as caught:
        LabelStore(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_or_of_another_program_is_refused_in_words(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_text("this is no database, and long enough to look at" * 30)
    with pytest.raises(LabelError, match="not a sound SQLite database"):
        LabelStore(path).get(SAE, 7)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE label_changes (id INTEGER PRIMARY KEY, words TEXT)")
    connection.close()
    with pytest.raises(LabelError, match="lacks author"):
        LabelStore(other).put(SAE, 7, "x")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(LabelError, match=re.escape(str(folder))):
        LabelStore(folder / "labels.sqlite").put(SAE, 7, "x")


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabelError, match="cannot be used"):
        LabelStore(tmp_path / "file" / "labels.sqlite").put(SAE, 7, "x")


def test_a_database_that_another_program_holds_locked_says_that_nothing_was_saved(tmp_path, in_file, monkeypatch):
    in_file.put(SAE, 7, "kings")
    monkeypatch.setattr("explorer.database.BUSY_SECONDS", 0.1)
    late = LabelStore(tmp_path / "labels.sqlite")
    late.get(SAE, 7)
    holder = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LabelError, match="Nothing was saved"):
        late.put(SAE, 7, "royalty")
    holder.execute("ROLLBACK")
    holder.close()
    assert late.put(SAE, 7, "royalty").label == "royalty"


def test_a_file_that_was_deleted_under_a_running_program_is_made_again(in_file):
    in_file.put(SAE, 7, "kings")
    for file in in_file.file.parent.glob("labels.sqlite*"):
        file.unlink()
    assert in_file.get(SAE, 7) is None
    in_file.put(SAE, 7, "royalty")
    assert LabelStore(in_file.file).get(SAE, 7).label == "royalty"


def test_who_labels_now_is_known(store):
    store.put(SAE, 7, "kings", author="ben")
    store.put(SAE, 8, "ships", author="ana")
    store.add([Label(SAE, 9, "old", author="eve", created_at=datetime(2020, 1, 1, tzinfo=UTC))])
    assert store.recent_authors(SAE) == ["ana", "ben"]


@pytest.mark.parametrize(
    ("user", "author"), [("ana", "ana"), ("root", "me"), ("nobody", "me"), (BUNDLED, "me"), (None, "me")]
)
def test_the_author_is_the_user_of_the_machine_unless_that_is_nobody_in_particular(monkeypatch, user, author):
    def getuser() -> str:
        if user is None:
            raise KeyError("getpwuid(): uid not found: 1000")
        return user

    monkeypatch.setattr("getpass.getuser", getuser)
    assert machine_user() == author


def test_labels_of_a_wide_sae_are_there_at_once(store):
    import time

    store.add([Label(SAE, feature, f"label {feature}", author="ana") for feature in range(20_000)])
    assert len(store.all(SAE)) == 20_000
    start = time.perf_counter()
    for _ in range(5):
        store.all(SAE)
    assert (time.perf_counter() - start) / 5 < 0.1
