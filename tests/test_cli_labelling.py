"""Lists and queues on the command line: made, given to people, told, and taken elsewhere and back."""

import json

import pytest

from explorer import cli
from explorer.assignments import Assignments
from explorer.cache import Cache
from explorer.labels import LabelStore
from explorer.lists import FeatureList, Lists
from tests.helpers_cache import fake_cache


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(folder of a cache, fingerprint of its SAE); the labels lie where the variable says."""
    monkeypatch.setenv("PERSONA_EXPLORER_LABELS", str(tmp_path / "labels.sqlite"))
    cache = fake_cache(tmp_path / "cache")
    return str(cache), Cache.open(cache).manifest.sae_fingerprint


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(("labels", *arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def said(capsys, *arguments: str):
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_lists_go_into_yaml_and_into_another_database_and_twice_does_no_harm(world, capsys, tmp_path):
    cache, sae = world
    lists = Lists()
    lists.put(FeatureList(sae, "crowns: and\tthrones", (9, 3, 4), "kings 😀", "ana"))
    lists.put(FeatureList(sae, "sea", (1,), "", "ben"))
    shown = said(capsys, "lists", "show", "--cache", cache)
    assert [(one["name"], one["features"], one["author"]) for one in shown] == [
        ("crowns: and thrones", [9, 3, 4], "ana"), ("sea", [1], "ben"),
    ]  # fmt: skip
    file, other = str(tmp_path / "lists.yaml"), str(tmp_path / "other.sqlite")
    assert said(capsys, "lists", "export", file, "--sae", sae)["lists"] == ["crowns: and thrones", "sea"]
    assert run(capsys, "lists", "export", file, "--sae", sae)[0] == 1, "what is there stays"
    first = said(capsys, "lists", "import", file, "--author", "eve", "--database", other)
    again = said(capsys, "lists", "import", file, "--author", "eve", "--database", other)
    assert (len(first["taken_in"]), first["there_already"]) == (2, [])
    assert (again["taken_in"], len(again["there_already"])) == ([], 2)
    there = Lists(other).all(sae)
    assert [(one.name, one.features, one.note, one.author) for one in there] == [
        ("crowns: and thrones", (9, 3, 4), "kings 😀", "eve"), ("sea", (1,), "", "eve"),
    ]  # fmt: skip


def test_one_list_goes_to_a_pipe(world, capsys):
    cache, sae = world
    Lists().put(FeatureList(sae, "sea", (1, 2), "", "ben"))
    Lists().put(FeatureList(sae, "land", (3,), "", "ben"))
    code, out, _ = run(capsys, "lists", "export", "--cache", cache, "--list", "sea")
    assert code == 0
    assert "features: [1, 2]" in out
    assert "land" not in out
    assert "1, 2" in run(capsys, "lists", "show", "sea", "--cache", cache)[1]


def test_a_queue_is_made_of_what_a_search_finds_and_shared_out(world, capsys):
    cache, sae = world
    LabelStore().put(sae, 7, "kings", author="ana")
    made = said(capsys, "queue", "make", cache, "all", "--limit", "1000", "--to", "ana", "--to", "ben")
    assert 7 not in made["features"], "it has a label"
    assert 5 not in made["features"], "it never fires"
    assert made["query"] == "unlabelled"
    density = Cache.open(cache).table.column("density").to_pylist()
    assert made["features"] == sorted(made["features"], key=lambda f: (-density[f], f))
    queue = Assignments().get(sae, "all")
    assert (made["people"]["ana"]["total"], made["people"]["ben"]["total"]) == (
        len(queue.share("ana")), len(queue.share("ben")),
    )  # fmt: skip
    assert sorted(queue.share("ana") + queue.share("ben")) == sorted(made["features"])
    found = said(capsys, "queue", "make", cache, "kings", "king", "--status", "all", "--blind")
    assert (found["features"][0], found["query"], found["blind"]) == (7, "king", True)


def test_a_queue_given_to_others_keeps_what_is_done(world, capsys):
    cache, sae = world
    Lists().put(FeatureList(sae, "some", (1, 2, 3, 4), "", "ana"))
    made = said(capsys, "queue", "make", cache, "some", "--list", "some", "--to", "ana")
    assert sorted(made["features"]) == [1, 2, 3, 4]
    queue, store = Assignments().get(sae, "some"), Assignments()
    for feature, kind in ((1, "done"), (2, "done"), (3, "skipped")):
        store.mark(queue, feature, kind, author="ana")
    said(capsys, "queue", "assign", cache, "some", "--to", "ben", "--to", "eve")
    (told,) = said(capsys, "queue", "progress", cache)
    assert told["people"] == {
        "ben": {"done": 0, "skipped": 0, "total": 2}, "eve": {"done": 0, "skipped": 0, "total": 2},
        "ana": {"done": 2, "skipped": 1, "total": 3},
    }  # fmt: skip
    assert "ben" in run(capsys, "queue", "progress", cache, "some")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lists", "show", "nothing", "--cache", "CACHE"), "no list 'nothing'"),
        (("lists", "show"), "of which SAE"),
        (("lists", "export", "--cache", "CACHE", "--list", "x"), "no list 'x'"),
        (("lists", "export", "--cache", "CACHE", "--json"), "show --json"),
        (("queue", "progress", "CACHE", "nothing"), "no queue 'nothing'"),
        (("queue", "assign", "CACHE", "nothing", "--to", "ana"), "no queue 'nothing'"),
        (("queue", "make", "CACHE", "q", "nowhere-to-be-found"), "nothing to queue"),
        (("queue", "make", "CACHE", "q", "--list", "x"), "no list 'x'"),
        (("queue", "make", "CACHE", "q", "--status", "odd"), "'odd' is no status"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_wrong_use_of_lists_and_queues_exits_with_2_and_one_line(world, capsys, arguments, says):
    code, out, err = run(capsys, *(world[0] if part == "CACHE" else part for part in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_what_cannot_be_kept_exits_with_1(world, capsys, tmp_path):
    cache, _ = world
    code, _, err = run(capsys, "queue", "make", cache, "q", "--to", "ana", "--blind")
    assert (code, err.count("\n")) == (1, 1)
    assert "two people" in err
    (tmp_path / "bad.yaml").write_text("lists: [{name: x, features: [king]}]")
    code, _, err = run(capsys, "lists", "import", str(tmp_path / "bad.yaml"))
    assert (code, err.count("\n")) == (1, 1)
