"""The command line: exit codes, one-line errors, JSON for programs, nothing heavy loaded for nothing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from explorer import cli
from explorer.cli import console, serving
from explorer.cli.steering import read_edit
from explorer.errors import ExplorerError, UsageError
from explorer.records import Edit

COMMANDS = get_command(cli.app).commands  # pyright: ignore[reportAttributeAccessIssue]


def leaves(commands: dict[str, Any], *above: str) -> list[tuple[str, ...]]:
    """The words of every command, groups in groups included."""
    return [
        words
        for name, command in commands.items()
        for words in (leaves(command.commands, *above, name) if hasattr(command, "commands") else [(*above, name)])
    ]


LEAVES = leaves(COMMANDS)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def failing(monkeypatch, error: BaseException) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("explorer.packaged.fetch", fail)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_and_option_explains_itself(words, capsys):
    code, out, _ = run(capsys, *words, "--help")
    assert code == 0
    assert "Usage" in out
    command: Any = COMMANDS[words[0]]
    for word in words[1:]:
        command = command.commands[word]
    assert command.help
    for parameter in command.params:
        obvious = parameter.name in ("seed", "max_tokens", "top_p", "repetition_penalty", "temperature")
        assert obvious or parameter.help, f"{' '.join(words)} {parameter.name}"


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("fetch", "--nonsense"), ("info",), ("app", "--port", "0"), ("search", "x", "--limit", "many")],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_one_line(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--help" in err


def test_failure_exits_with_1_and_one_line(capsys):
    code, out, err = run(capsys, "info", "nowhere")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ExplorerError("the sea is wet", do="Bring a towel"), 1, "Bring a towel"),
        (UsageError("there is nothing to do"), 2, "nothing to do"),
        (OSError(28, "No space left on device", "file"), 1, "file: No space left on device"),
        (MemoryError(), 1, "memory"),
        (KeyboardInterrupt(), 130, "Stopped"),
        (ZeroDivisionError("a\nb"), 1, "ZeroDivisionError: a)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_failure_shows_a_traceback(capsys, monkeypatch, error, code, words):
    failing(monkeypatch, error)
    found, out, err = run(capsys, "fetch", "anything")
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("persona-explorer: ")]) == 1


def test_a_traceback_is_there_for_those_who_ask(capsys, monkeypatch):
    failing(monkeypatch, ZeroDivisionError())
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    assert "Traceback" in run(capsys, "fetch", "anything")[2]


def test_json_goes_to_stdout_and_progress_to_stderr(capsys, monkeypatch):
    def fetch(name, tick):
        tick("downloading", 0.5)
        return Path("somewhere")

    monkeypatch.setattr("explorer.packaged.fetch", fetch)
    code, out, err = run(capsys, "fetch", "anything", "--json")
    assert code == 0
    assert json.loads(out) == {"name": "anything", "folder": "somewhere"}
    assert "downloading 50%" in err


def test_json_holds_no_nan(capsys):
    console.emit_json({"value": float("nan"), "list": [float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"value": None, "list": [None, 1.5]}


def test_hostile_text_reaches_the_terminal_as_text(capsys):
    console.table("[bold]title[/bold]", ("word",), [("[red]x[/red]\x1b[31m\x07\nnext",)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "[bold]title[/bold]" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = f"{sys.executable} -m explorer fetch --help | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("7", Edit(7)),
        ("#7", Edit(7)),
        ("7:1.5", Edit(7, 1.5)),
        ("7:-2:clamp", Edit(7, -2.0, "clamp")),
        ("~villain", Edit(direction="villain")),
        ("~mr-2:0.5:cap", Edit(-1, 0.5, "cap", "mr-2")),
    ],
)
def test_edits_are_written_as_feature_strength_mode(text, edit):
    assert read_edit(text) == edit


@pytest.mark.parametrize("text", ["", "king", "1:2:add:4", "1:much", "1.5", "-1", "~", "~No:1"])
def test_what_is_no_edit_is_wrong_use(text):
    with pytest.raises(UsageError, match="FEATURE:STRENGTH"):
        read_edit(text)


def test_a_busy_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert serving.free_port("127.0.0.1", port) > port


def test_a_host_that_is_not_ours_is_wrong_use():
    with pytest.raises(UsageError, match="localhost"):
        serving.free_port("192.0.2.1", 8501)
    with pytest.raises(UsageError, match="no address"):
        serving.free_port("no such host.invalid", 8501)


def test_the_app_binds_to_localhost_and_says_when_it_does_not(capsys, monkeypatch):
    started = {}
    monkeypatch.setattr(os, "chdir", lambda path: None)
    monkeypatch.setattr(
        os, "execve", lambda file, command, environment: started.update(command=command, env=environment)
    )
    monkeypatch.setattr(serving.subprocess, "run", lambda *_, **__: pytest.fail("two processes"))
    monkeypatch.setattr(serving, "free_port", lambda host, port: port + 1)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - execve does not come back; here it does
        serving.serve()
    assert "--server.address=localhost" in started["command"]
    assert "--server.port=8502" in started["command"]
    err = capsys.readouterr().err
    assert "8501 is busy" in err
    assert "whoever" not in err
    with pytest.raises(BaseException):  # noqa: B017, PT011
        serving.serve(host="0.0.0.0")
    assert "whoever can reach this machine" in capsys.readouterr().err


def test_the_command_line_starts_without_torch():
    code = "import sys, explorer.cli; explorer.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_labels_go_out_in_and_into_a_copy(capsys, tmp_path):
    from explorer.labels import LabelStore

    first, second = str(tmp_path / "first.sqlite"), str(tmp_path / "second.sqlite")
    LabelStore(first).put("f" * 64, 3, 'kings, and their "crowns"', "seen\nin examples", 2, author="ada")
    assert run(capsys, "labels", "export", "--database", first)[1].splitlines()[0].startswith("sae,feature,label")
    for kind in ("csv", "jsonl", "parquet"):
        file = str(tmp_path / f"labels.{kind}")
        code, out, _ = run(capsys, "labels", "export", file, "--database", first, "--json")
        assert (code, json.loads(out)["labels"]) == (0, 1)
        assert run(capsys, "labels", "export", file, "--database", first)[0] == 1  # what is there stays
    added = run(capsys, "labels", "import", str(tmp_path / "labels.csv"), "--database", second, "--json")[1]
    again = run(capsys, "labels", "import", str(tmp_path / "labels.jsonl"), "--database", second, "--json")[1]
    assert (json.loads(added)["added"], json.loads(again)["added"], json.loads(again)["known"]) == (1, 0, 1)
    assert LabelStore(second).changes() == LabelStore(first).changes()
    assert run(capsys, "labels", "backup", str(tmp_path / "copy.sqlite"), "--database", first)[0] == 0
    assert LabelStore(tmp_path / "copy.sqlite").changes() == LabelStore(first).changes()


PROMPTS = """
topics = ["rain", "bread"]
formats = ["Write about {topic}.", "What is {topic}?"]
registers = ["Answer like a sailor."]
openings = ["The", "Once upon a time"]
systems = ["You are a king."]
"""


def finding(capsys, tmp_path, done) -> None:
    """Texts are inspected and contrasted, and a list narrows a search."""
    from explorer.cache import Cache
    from explorer.lists import FeatureList, Lists

    read = done("inspect", "caches/mine", "The old king of the bridge laughs.", "--by", "mean")
    assert read["features"]
    assert all(len(one["activations"]) == len(read["tokens"]) == len(read["scored"]) for one in read["features"])
    scores = [one["score"] for one in read["features"]]
    assert scores == sorted(scores, reverse=True)
    first = str(read["features"][0]["feature"])
    assert first in run(capsys, "inspect", "caches/mine", "The old king of the bridge laughs.", "--by", "mean")[1]
    (tmp_path / "left.txt").write_text("The old king.\nA king of old.\n\nKneel, king!\n")
    (tmp_path / "right.txt").write_text("Good morning.\nHello 123.\nA bridge, a dog.\n")
    told = done("contrast", "caches/mine", str(tmp_path / "left.txt"), str(tmp_path / "right.txt"))
    assert (told["n_left"], told["n_right"]) == (3, 3)
    assert all(row["left"] > row["right"] for row in told["rows"])
    sae = Cache.open("caches/mine").manifest.sae_fingerprint
    Lists().put(FeatureList(sae, "mine", (3, 5)))
    listed = json.loads(run(capsys, "search", "caches/mine", "--list", "mine", "--json")[1])
    assert {row["index"] for row in listed["rows"]} == {3, 5}
    assert run(capsys, "search", "caches/mine", "--list", "other", "--json")[0] == 2


def directed(capsys, tmp_path, done) -> None:
    """A direction is made of two sets of texts, steered, listed, compared with features, and forgotten."""
    cache = "caches/mine"
    (tmp_path / "with.txt").write_text("I rule the world!\n\nKneel before me.\nHa ha ha, you fools.\n")
    (tmp_path / "without.txt").write_text("The fox jumps.\nThe dog is lazy.\n")
    files = ("--with", "with.txt", "--without", "without.txt")
    made = done("directions", "make", cache, "villain", *files, "--title", "Villain")
    assert (made["n_positive"], made["n_negative"], made["hook_point"]) == (3, 2, "blocks.1.hook_resid_post")
    rows = ["text,label", '"I rule, and you do not.",1', "The fox jumps.,0", "The dog is lazy.,0"]
    (tmp_path / "both.csv").write_text("\n".join(rows))
    low = ("--hook", "blocks.0.hook_resid_post", "--bundle")
    assert done("directions", "make", cache, "low", "--with", "both.csv", *low)["n_negative"] == 2
    assert run(capsys, "directions", "make", cache, "low", "--with", "with.txt")[0] == 2
    listed = json.loads(run(capsys, "directions", "list", cache, "--json")[1])
    assert [(d["name"], d["bundled"]) for d in listed] == [("low", True), ("villain", False)]
    assert "~villain" in run(capsys, "directions", "list", cache)[1]
    shown = json.loads(run(capsys, "directions", "show", cache, "villain", "--json", "--limit", "3")[1])
    assert [f["cosine"] for f in shown["nearest"]] == sorted((f["cosine"] for f in shown["nearest"]), reverse=True)
    assert "lies at blocks.0" in run(capsys, "directions", "show", cache, "low")[1].replace("\n", " ")
    edits = ("--edit", "~villain:0:add", "--edit", "~low:0:add", "--max-tokens", "8", "--positions", "first")
    steered = done("steer", cache, "Hello", *edits)
    assert steered["baseline"] == steered["steered"]
    assert steered["edits"][0] == {"direction": "villain", "strength": 0.0, "mode": "add", "maximum": made["norm"]}
    assert run(capsys, "directions", "remove", cache, "low")[0] == 1
    assert run(capsys, "directions", "remove", cache, "~villain")[0] == 0
    code, _, err = run(capsys, "steer", cache, "Hello", "--edit", "~villain", "--dtype", "float32")
    assert code == 1
    assert "no direction 'villain'" in err


def test_a_world_of_ones_own_from_corpus_to_steering(capsys, tmp_path, monkeypatch):
    from tests.helpers import tiny_folder

    monkeypatch.chdir(tmp_path)
    model = str(tiny_folder(tmp_path / "model"))
    (tmp_path / "prompts.toml").write_text(PROMPTS)

    def done(*arguments: str) -> dict:
        code, out, err = run(capsys, *arguments, "--json", "--dtype", "float32", "--device", "cpu")
        assert code == 0, err
        return json.loads(out)

    sampled = ("sample", "prompts.toml", "corpus.jsonl", "--model", model, "--tokens", "3000", "--batch", "16")
    assert done(*sampled, "--max-tokens", "24")["bytes"] > 0
    hook = ("--hook", "blocks.1.hook_resid_post")
    size = ("--features", "64", "--k", "8", "--steps", "20", "--batch", "64", "--context", "32")
    trained = done("train-sae", "corpus.jsonl", "sae", "--model", model, *hook, *size)
    monkeypatch.setattr("explorer.mapping.layout", lambda rows, **_: (rows[:, :2], "flat"))
    built = done("build", "corpus.jsonl", "--model", model, "--sae", "sae", "--out", "caches/mine", "--context", "32")
    assert (tmp_path / "caches" / "mine" / "map.parquet").is_file()
    assert built["features"] == trained["features"] == 64
    about = json.loads(run(capsys, "info", "caches/mine", "--json")[1])
    assert about["sae_fingerprint"] == trained["fingerprint"]
    assert about["tokens_seen"] == built["tokens_seen"]
    assert "tokens" in run(capsys, "info", "caches/mine")[1]
    found = json.loads(run(capsys, "search", "caches/mine", "--sort", "max", "--limit", "3", "--json")[1])
    assert [row["max"] for row in found["rows"]] == sorted((row["max"] for row in found["rows"]), reverse=True)
    assert str(found["rows"][0]["index"]) in run(capsys, "search", "caches/mine", "--sort", "max", "--limit", "3")[1]
    finding(capsys, tmp_path, done)
    edit = ("--edit", f"{found['rows'][0]['index']}:0", "--max-tokens", "12")
    steered = done("steer", "caches/mine", "Hello", *edit)
    assert steered["baseline"] == steered["steered"]  # nothing added is nothing changed
    assert run(capsys, "steer", "caches/mine", "Hello")[0] == 2
    assert run(capsys, "steer", "caches/mine", "Hello", "--edit", "64:1", "--dtype", "float32")[0] == 1
    directed(capsys, tmp_path, done)
    checked = json.loads(run(capsys, "check", "caches/mine", "--model", model, "--sae", "sae", "--json")[1])
    assert all(finding["ok"] for finding in checked)
