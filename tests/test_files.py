"""Files are there whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from explorer.errors import CacheError
from explorer.files import append_json, json_lines, read_facts, write_whole


def test_text_and_bytes_come_back_as_they_were_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "é\r\nb\n")
    assert path.read_bytes() == "é\r\nb\n".encode()
    write_whole(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(path.parent.iterdir()) == [path]


def test_writers_at_once_leave_one_whole_file(tmp_path: Path):
    texts = [str(n) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(tmp_path / "file", text), texts))
    assert (tmp_path / "file").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_whole(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_come_back_in_order_and_one_that_a_kill_cut_is_left_out(tmp_path: Path):
    path = tmp_path / "new" / "lines.jsonl"
    assert list(json_lines(path)) == []
    append_json(path, {"a": "é"})
    with path.open("a") as file:
        file.write('{"a": 1, "b')
    append_json(path, [2])
    append_json(path, 3)
    assert list(json_lines(path)) == [{"a": "é"}, [2], 3]
    assert path.read_text().count("\n") == 4


def test_facts_are_empty_where_there_are_none_and_damaged_ones_say_what_to_do(tmp_path: Path):
    path = tmp_path / "facts.json"
    assert read_facts(path, do="Do this") == {}
    path.write_text('{"a": 1}')
    assert read_facts(path, do="Do this") == {"a": 1}
    path.write_text("{")
    with pytest.raises(CacheError, match=r"facts\.json cannot be read .* Do this"):
        read_facts(path, do="Do this")
