"""`persona-explorer directions`: make one from two sets of texts, list them, look at one, forget one."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli.console import JSON, Device, Dtype, emit_json, facts, progress, table
from explorer.errors import SteeringError, UsageError

if TYPE_CHECKING:
    from explorer.directions import Direction

app = typer.Typer(
    help="Directions: a trait as one vector, from texts with it and texts without it.", no_args_is_help=True
)

CacheFolder = Annotated[Path, typer.Argument(help="The folder of a feature cache.")]
Name = Annotated[str, typer.Argument(help="Small letters, digits and hyphens; the command line writes ~NAME for it.")]


@app.command()
def make(
    cache: CacheFolder,
    name: Name,
    having: Annotated[
        list[Path],
        typer.Option("--with", help="Texts with the trait, one a line; or CSV with the columns text, label."),
    ],
    lacking: Annotated[
        list[Path] | None, typer.Option("--without", help="Texts without it; a CSV's lines go where their label says.")
    ] = None,
    hook: Annotated[str, typer.Option(help="Where to read the stream; where the cache's SAE does by default.")] = "",
    title: Annotated[str, typer.Option(help="What people see; the name by default.")] = "",
    question: Annotated[
        list[str] | None, typer.Option(help="What the texts answer, in turn; some neutral questions by default.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Read the texts as they are, not as answers.")] = False,
    bundle: Annotated[bool, typer.Option("--bundle", help="Into the cache, for everybody who gets it.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="Instead of the model that the cache names.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Make a direction: the mean of texts with a trait minus the mean of texts without it."""
    from explorer.cache import Cache
    from explorer.directions import FOLDER, QUESTIONS, difference_of_means, save, write

    opened = Cache.open(cache)
    positive, negative = _texts(having, lacking or [])

    from explorer.model import LanguageModel

    with progress("loading the model") as tick:
        tick("loading the model", None)
        live = LanguageModel.load(model or opened.manifest.model, device=device, dtype=dtype)
        opened.require(model=(live.name, live.fingerprint))
        tick("reading the texts", None)
        asked = "" if plain else question or QUESTIONS
        point = hook or opened.manifest.hook_point
        made = difference_of_means(live, positive, negative, point, name=name, title=title, question=asked)
    if bundle:
        write(opened.path / FOLDER, made)
    else:
        save(opened, made)
    _tell(made, as_json)


@app.command("list")
def list_(cache: CacheFolder, as_json: JSON = False) -> None:
    """All directions of a cache's model, those that came with it first."""
    from explorer.cache import Cache
    from explorer.directions import bundled, known

    opened = Cache.open(cache)
    found, came = known(opened), bundled(opened)
    if as_json:
        emit_json([_plain(direction) | {"bundled": name in came} for name, direction in found.items()])
        return
    rows = [
        (f"~{d.name}", d.title, d.hook_point, f"{d.norm:.2f}", _auroc(d), "the cache" if name in came else "yourself")
        for name, d in found.items()
    ]
    table("Directions", ("name", "title", "hook point", "length", "AUROC", "from"), rows, right=("length", "AUROC"))


@app.command()
def show(
    cache: CacheFolder,
    name: Name,
    n: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the nearest features.")] = 10,
    sae: Annotated[str, typer.Option(help="Instead of the SAE in the cache: a SAELens folder or release/sae_id.")] = "",
    as_json: JSON = False,
) -> None:
    """Length, separation, and the features that point most nearly the same way."""
    from explorer.cache import Cache
    from explorer.directions import known, nearest
    from explorer.labels import LabelStore
    from explorer.sae import SparseCoder

    opened = Cache.open(cache)
    found, name = known(opened), name.removeprefix("~")
    if name not in found:
        raise SteeringError(
            f"There is no direction {name!r}", expected=", ".join(found) or "one that was made", do="Name one of these"
        )
    coder = SparseCoder.load(sae or opened.sae_folder or opened.manifest.sae, hook_point=opened.manifest.hook_point)
    apart, near = "", []
    try:
        near = nearest(found[name], coder, n)
    except SteeringError as error:
        apart = str(error)
    store = LabelStore()
    if opened.bundled_labels:
        store.bundle(opened.bundled_labels)
    labels = store.all(opened.manifest.sae_fingerprint)
    titles = {i: labels[i].label if i in labels else opened.feature(i).title for i, _ in near}
    if as_json:
        features = [{"feature": i, "cosine": cosine, "title": titles[i]} for i, cosine in near]
        emit_json(_plain(found[name]) | {"nearest": features, "nearest_missing": apart})
        return
    _tell(found[name], False)
    if apart:
        facts("Nearest features", [("none", apart)])
    else:
        rows = [(f"#{i}", titles[i], f"{cosine:+.3f}") for i, cosine in near]
        table("Nearest features", ("feature", "label", "cosine"), rows, right=("cosine",))


@app.command()
def remove(cache: CacheFolder, name: Name, as_json: JSON = False) -> None:
    """Forget a direction of your own."""
    from explorer import directions
    from explorer.cache import Cache

    opened, name = Cache.open(cache), name.removeprefix("~")
    path = directions.own(opened) / f"{name}{directions.SUFFIX}"
    if not path.is_file():
        came = name in directions.bundled(opened)
        raise SteeringError(
            f"~{name} came with the cache" if came else f"There is no direction {name!r} of your own",
            do="persona-explorer directions list says which are yours",
        )
    directions.remove(opened, name)
    said = {"removed": name, "file": str(path)}
    emit_json(said) if as_json else facts("Directions", list(said.items()))


def _texts(having: list[Path], lacking: list[Path]) -> tuple[list[str], list[str]]:
    """Texts with and without the trait, of files a line each or of CSV.

    Raises:
        UsageError: If a side is empty, or a CSV has other columns or labels.
    """
    sides: tuple[list[str], list[str]] = ([], [])
    for at, paths in enumerate((having, lacking)):
        for path in paths:
            if path.suffix.lower() == ".csv":
                _rows(path, sides)
            else:
                sides[at].extend(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not all(sides):
        raise UsageError(
            f"There are {len(sides[0])} texts with the trait and {len(sides[1])} without it",
            expected="at least one of each",
            do="Give --with FILE and --without FILE, or one CSV with the columns text and label (1 with, 0 without)",
        )
    return sides


def _rows(path: Path, sides: tuple[list[str], list[str]]) -> None:
    """Sort a CSV's texts by their label."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for number, row in enumerate(reader, start=2):
            text, label = row.get("text"), (row.get("label") or "").strip()
            if not text or label not in ("0", "1"):
                raise UsageError(
                    f"Line {number} of {path} has the label {label!r}",
                    expected="the columns text and label, the label 1 (with the trait) or 0 (without)",
                    do="Mend the file",
                )
            sides[label == "0"].append(text)


def _plain(direction: "Direction") -> dict[str, object]:
    about = {"name": direction.name, "title": direction.title, "hook_point": direction.hook_point}
    return about | {"norm": direction.norm, "base": direction.base, "model": direction.model} | direction.facts


def _auroc(direction: "Direction") -> str:
    auroc = direction.facts.get("auroc")
    return "" if auroc is None else f"{auroc:.3f}"


def _tell(direction: "Direction", as_json: bool) -> None:
    if as_json:
        emit_json(_plain(direction))
        return
    n = f"{direction.facts.get('n_positive', 0)} with, {direction.facts.get('n_negative', 0)} without"
    held_out = _auroc(direction) or "too few texts to say"
    facts(
        f"~{direction.name}",
        [
            ("title", direction.title),
            ("hook point", direction.hook_point),
            ("length, added at strength 1", f"{direction.norm:.3f}"),
            ("texts", n),
            ("separation of held-out texts (AUROC)", held_out),
        ],
    )
