"""`persona-explorer judge` and `traits`."""

import csv
import json

import pytest

from explorer import judging, packaged
from explorer.cli import main
from tests.helpers_judges import GRIM, MILD, WordEmbedder


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(judging.Embedder, "load", lambda *_: WordEmbedder())


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "grim.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((t, 1) for t in GRIM), *((t, 0) for t in MILD)])
    return str(path)


def test_a_trait_is_taught_judges_and_is_forgotten(sentences, tmp_path, capsys):
    assert main(["traits", "teach", "grim", sentences, "--json"]) == 0
    taught = json.loads(capsys.readouterr().out)
    assert taught["sentences"] == 16
    assert 0.5 < taught["held_out_auroc"] <= 1
    texts = tmp_path / "texts.txt"
    texts.write_text("Doom and revenge, fools!\n\nBread from the bakery.\n")
    assert main(["judge", str(texts), "--judge", "grim", "--judge", "insults", "--json"]) == 0
    bad, good = json.loads(capsys.readouterr().out)
    assert bad["grim"] > 0.5 > good["grim"]
    assert good["insults"] == 0
    assert main(["traits", "remove", "grim"]) == 0
    assert main(["judge", str(texts), "--judge", "grim"]) == 2
    assert "There is no judge 'grim'" in capsys.readouterr().err


def test_traits_are_listed(sentences, capsys):
    main(["traits", "teach", "grim", sentences])
    capsys.readouterr()
    assert main(["traits", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (listed["grim"]["positive"], listed["grim"]["bundled"], listed["malice"]["bundled"]) == (8, False, True)
    assert main(["traits", "list"]) == 0


def test_texts_come_from_jsonl_and_from_stdin(tmp_path, monkeypatch, capsys):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "You idiot", "prompt": "Hello?"}\n')
    assert main(["judge", str(file), "--judge", "insults", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"text": "You idiot", "insults": 50}]
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("You idiot\n"))
    assert main(["judge", "-", "--judge", "insults"]) == 0
    assert "You idiot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [
        ("a\n", [], 2, "No judge is named"),
        ("\n", ["--judge", "insults"], 2, "holds no text"),
        ("a\n", ["--judge", "endpoint"], 1, "No endpoint is configured"),
    ],
)
def test_what_cannot_be_judged_is_said(tmp_path, capsys, content, arguments, code, message):
    file = tmp_path / "texts.txt"
    file.write_text(content)
    assert main(["judge", str(file), *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_line_that_is_no_text_is_named(tmp_path, capsys):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "fine"}\n{"words": 3}\n')
    assert main(["judge", str(file), "--judge", "insults"]) == 2
    assert "line 2 is no text" in capsys.readouterr().err


def test_a_trait_that_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    (tmp_path / "home" / "traits").mkdir(parents=True)
    (tmp_path / "home" / "traits" / "mine.csv").write_text("text,label\nhello,2\n")
    assert main(["traits", "list", "--json"]) == 0
    said = capsys.readouterr()
    assert "mine is left out" in said.err
    assert "mine" not in {row["name"] for row in json.loads(said.out)}
