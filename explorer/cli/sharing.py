"""`persona-explorer labels lists` and `labels queue`: what people who label together share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explorer.cli.console import JSON, CachePath, Database, Remarked, Tag, emit_json, facts, table
from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.assignments import Assignments, Queue
    from explorer.cache import Cache
    from explorer.lists import Lists

lists = typer.Typer(help="Lists of features: what is in them, and out of and into YAML files.", no_args_is_help=True)
queue = typer.Typer(
    help="Queues of features to label: made from a search, given to people, and how far they are.", no_args_is_help=True
)

CacheOption = Annotated[Path | None, typer.Option(help="The cache whose SAE is meant.")]
Sae = Annotated[str, typer.Option(help="The SAE with this fingerprint, in place of a cache.")]
Author = Annotated[str, typer.Option(help="Who does this; by default the user of this machine.")]
People = Annotated[list[str] | None, typer.Option("--to", help="A person; once for each. Nobody: whoever comes.")]

_FIRES = 1e-12
"""Less than one token in any corpus: a feature that never fires gives nothing to label."""


@lists.command("show")
def show_lists(
    name: Annotated[str, typer.Argument(help="One list, with its features; without it, all of them.")] = "",
    cache: CacheOption = None,
    sae: Sae = "",
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Show the lists of an SAE, or the features of one."""
    store, mark = _lists(database), _sae(cache, sae)
    if name:
        one = store.get(mark, name) or _unknown("list", name, [known.name for known in store.all(mark)])
        if as_json:
            emit_json(_plain(one))
        else:
            facts(one.name, [(key, _words(value)) for key, value in _plain(one).items() if key != "name"])
        return
    found = store.all(mark)
    if as_json:
        emit_json([_plain(one) for one in found])
        return
    rows = [(one.name, f"{len(one.features):,}", one.author, one.note) for one in found]
    table("Lists", ("name", "features", "author", "note"), rows, right=("features",))


@lists.command("export")
def export_lists(
    file: Annotated[Path | None, typer.Argument(help="A YAML file to write; without it, stdout.")] = None,
    names: Annotated[list[str] | None, typer.Option("--list", help="Only this list; once for each.")] = None,
    cache: CacheOption = None,
    sae: Sae = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Write the lists of an SAE as YAML."""
    from explorer.label_files import new_file
    from explorer.lists import as_yaml

    found = _lists(database).all(_sae(cache, sae))
    there = [one.name for one in found]
    for name in names or []:
        if name not in there:
            _unknown("list", name, there)
    chosen = [one for one in found if not names or one.name in names]
    if file is None:
        if as_json:
            raise UsageError("--json says what was written to a file", do="Use labels lists show --json")
        print(as_yaml(chosen), end="")
        return
    with new_file(file.expanduser(), overwrite=overwrite) as scratch:
        scratch.write_text(as_yaml(chosen), encoding="utf-8")
    _tell("Lists", {"file": str(file), "lists": [one.name for one in chosen]}, as_json)


@lists.command("import")
def import_lists(
    file: Annotated[Path, typer.Argument(help="A YAML file as export writes it.")],
    author: Author = "",
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Take in the lists of a YAML file, each in place of one of its name; what that held stays in the history."""
    from dataclasses import replace

    from explorer.lists import read_yaml

    store, kept, known = _lists(database), [], []
    for one in read_yaml(file):
        there = store.get(one.sae, one.name)
        if there and (there.features, there.note) == (one.features, one.note):
            known.append(one.name)
        else:
            kept.append(store.put(replace(one, author=_who(author))).name)
    _tell("Lists", {"file": str(file), "taken in": kept, "there already": known}, as_json)


@queue.command("make")
def make_queue(
    cache: CachePath,
    name: Annotated[str, typer.Argument(help="What the queue is called; one of that name is replaced.")],
    query: Annotated[str, typer.Argument(help="Words to look for, as in search; without them, all.")] = "",
    status: Annotated[str, typer.Option(help="all, labelled or unlabelled.")] = "unlabelled",
    from_list: Annotated[str, typer.Option("--list", help="Only the features of this list.")] = "",
    tag: Tag = "",
    remarked: Remarked = "",
    limit: Annotated[int, typer.Option(help="At most so many features.", min=1)] = 50,
    people: People = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Two people label each feature without seeing the other.")
    ] = False,
    author: Author = "",
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Make a queue of the features that a search finds, the best match or the densest first."""
    from explorer.assignments import Queue
    from explorer.cache import Cache

    opened, store = Cache.open(cache), _queues(database)
    of = {"listed": from_list, "tag": tag, "remarked": remarked}
    features = _found(opened, store, query, status, limit, **of)
    parts = (
        query,
        status if status != "all" else "",
        from_list and f"list {from_list}",
        tag and f"tag {tag}",
        remarked,
    )
    said = ", ".join(part for part in parts if part)
    made = store.put(
        Queue(opened.manifest.sae_fingerprint, name, features, tuple(people or ()), said, blind, _who(author))
    )
    _tell_queue(made, store, as_json)


@queue.command("assign")
def assign_queue(
    cache: CachePath,
    name: Annotated[str, typer.Argument(help="A queue that is there.")],
    people: People = None,
    author: Author = "",
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Give a queue to other people; what has been done in it stays done."""
    from dataclasses import replace

    store = _queues(database)
    found = _queue(store, _sae(cache, ""), name)
    _tell_queue(store.put(replace(found, people=tuple(people or ()), author=_who(author))), store, as_json)


@queue.command("progress")
def queue_progress(
    cache: CachePath,
    name: Annotated[str, typer.Argument(help="One queue; without it, all of them.")] = "",
    database: Database = "",
    as_json: JSON = False,
) -> None:
    """Tell how far everybody is."""
    store, mark = _queues(database), _sae(cache, "")
    shown = [_queue(store, mark, name)] if name else store.all(mark)
    if as_json:
        emit_json([_progress(one, store) for one in shown])
        return
    rows = [
        (one.name, who, part["done"], part["skipped"], part["total"])
        for one in shown
        for who, part in (
            _progress(one, store)["people"] or {"": {"done": 0, "skipped": 0, "total": len(one.features)}}
        ).items()
    ]
    numbers = ("done", "skipped", "of")
    table("Queues", ("queue", "person", *numbers), rows, right=numbers)


def _found(cache: "Cache", store: "Assignments", query: str, status: str, limit: int, **of: Any) -> tuple[int, ...]:
    """The features of a queue, in their order."""
    from explorer.among import among
    from explorer.labels import LabelStore
    from explorer.search import search

    labels = LabelStore.over(cache, store.database)
    said = labels.all(cache.manifest.sae_fingerprint)
    rows = search(
        cache,
        query=query,
        sort="match" if query else "density",
        min_density=_FIRES,
        status=status,
        labels={i: label.label for i, label in said.items()},
        notes={i: label.note for i, label in said.items() if label.note},
        only=among(cache, labels, said, **of),
        limit=limit,
    ).rows
    if not rows:
        raise UsageError("No feature fits, so there is nothing to queue", do="Search for other words, or --status all")
    return tuple(row.index for row in rows)


def _queue(store: "Assignments", sae: str, name: str) -> "Queue":
    return store.get(sae, name) or _unknown("queue", name, [one.name for one in store.all(sae)])


def _lists(database: str) -> "Lists":
    from explorer.lists import Lists

    return Lists(database or None)


def _queues(database: str) -> "Assignments":
    from explorer.assignments import Assignments

    return Assignments(database or None)


def _sae(cache: Path | None, sae: str) -> str:
    if (cache is None) == (not sae):
        raise UsageError("It is not said of which SAE", expected="one of --cache and --sae", do="Name a cache")
    if cache is None:
        return sae
    from explorer.cache import Cache

    return Cache.open(cache).manifest.sae_fingerprint


def _who(author: str) -> str:
    from explorer.labels import machine_user

    return " ".join(author.split()) or machine_user()


def _unknown(what: str, name: str, there: Sequence[str]) -> Any:
    raise UsageError(
        f"There is no {what} {name!r} of this SAE", expected=", ".join(there) or "none", do="Name one of these"
    )


def _plain(one: Any) -> dict[str, Any]:
    return {"name": one.name, "sae": one.sae, "features": list(one.features), "note": one.note, "author": one.author}


def _progress(one: "Queue", store: "Assignments") -> dict[str, Any]:
    from dataclasses import asdict

    people = {who: asdict(part) for who, part in store.progress(one).items()}
    return {
        "name": one.name, "sae": one.sae, "features": list(one.features), "query": one.query, "blind": one.blind,
        "author": one.author, "people": people,
    }  # fmt: skip


def _tell_queue(made: "Queue", store: "Assignments", as_json: bool) -> None:
    said = _progress(made, store)
    if as_json:
        emit_json(said)
        return
    shares = [f"{who} {part['total']:,}" for who, part in said["people"].items()]
    pairs = [("features", f"{len(made.features):,}"), ("from", made.query), ("blind", "yes" if made.blind else "no")]
    facts(made.name, [*pairs, ("people", _words(shares) or "whoever comes")])


def _tell(title: str, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json({key.replace(" ", "_"): value for key, value in result.items()})
    else:
        facts(title, [(key, _words(value)) for key, value in result.items()])


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
