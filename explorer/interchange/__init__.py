"""Features, labels and vectors to other programs and back: what formats there are, and which file is which.

```
saedashboard   batch-N.json                       both ways
neuronpedia    features/, activations/, ...       both ways
safetensors    a vector and what strength 1 means  both ways
gguf           a control vector for llama.cpp      both ways
html           one page that stands alone          out
```
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.cache import Cache
from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.directions import Direction
    from explorer.interchange.records import Account
    from explorer.label_files import Label
    from explorer.scores import Score

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be written.

    Args:
        features: Numbers of the features.
        directions: Directions, for formats of vectors.
        labels: Feature -> label.
        scores: Of labels, oldest first.
        title: Of a page.
    """

    features: Sequence[int] = ()
    directions: "Sequence[Direction]" = ()
    labels: "Mapping[int, Label]" = field(default_factory=dict)
    scores: "Sequence[Score]" = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file that features go out as.

    Args:
        help: One line for a person who chooses.
        suffix: Of a single file; "" where it is always a folder.
        vectors: Whether it holds vectors, which directions have too, or what a feature did in a corpus.
        write: (cache, order, where, progress) -> the files written.
    """

    help: str
    suffix: str
    vectors: bool
    write: Callable[[Cache, Order, Path, Progress], list[Path]]


def _saedashboard(cache: Cache, order: Order, out: Path, progress: Progress) -> list[Path]:
    from explorer.interchange import saedashboard

    return saedashboard.write(cache, order.features, out, progress=progress)


def _neuronpedia(cache: Cache, order: Order, out: Path, progress: Progress) -> list[Path]:
    from explorer.interchange import neuronpedia

    return neuronpedia.write(cache, order.features, out, labels=order.labels, scores=order.scores, progress=progress)


def _html(cache: Cache, order: Order, out: Path, progress: Progress) -> list[Path]:
    from explorer.interchange import pages

    return pages.write(cache, order.features, out, labels=order.labels, title=order.title, progress=progress)


def _vectors(cache: Cache, order: Order, progress: Progress) -> "list[Direction]":
    from explorer.interchange.vectors import of_feature

    found = []
    for done, feature in enumerate(order.features):
        said = order.labels.get(feature)
        found.append(of_feature(cache, feature, label=said.label if said else ""))
        progress(done + 1, len(order.features))
    return [*found, *order.directions]


def _safetensors(cache: Cache, order: Order, out: Path, progress: Progress) -> list[Path]:
    from explorer.interchange.vectors import write_safetensors

    return write_safetensors(_vectors(cache, order, progress), out)


def _gguf(cache: Cache, order: Order, out: Path, progress: Progress) -> list[Path]:
    from explorer.interchange.vectors import write_gguf

    return write_gguf(_vectors(cache, order, progress), out)


FORMATS: dict[str, Format] = {
    "neuronpedia": Format(
        "Neuronpedia's export: a folder of gzipped JSON lines, labels as explanations.", "", False, _neuronpedia
    ),
    "saedashboard": Format("SAEDashboard's batch-N.json: a folder, or one .json file.", ".json", False, _saedashboard),
    "safetensors": Format(
        "What strength 1 adds, with its unit and place: read back by import.", ".safetensors", True, _safetensors
    ),
    "gguf": Format("The same as a control vector for llama.cpp.", ".gguf", True, _gguf),
    "html": Format("One page that needs no network: figures, labels and every token coloured.", ".html", False, _html),
}
"""How features go out, by name."""


def format_named(name: str) -> Format:
    """A format by its name.

    Raises:
        UsageError: If there is none of that name.
    """
    if name not in FORMATS:
        raise UsageError(f"{name!r} is no format", expected=", ".join(FORMATS), do="Use one of these")
    return FORMATS[name]


def export(
    cache: Cache, name: str, order: Order, out: Path, *, force: bool = False, progress: Progress = _silent
) -> list[Path]:
    """Write features in another program's format.

    Args:
        out: A file or a folder, as the format has it.
        force: Replace what is there.
    Returns:
        The files that were written.
    Raises:
        UsageError: If there is no such format, nothing to write, or something at `out` already.
    """
    kind = format_named(name)
    if order.directions and not kind.vectors:
        raise UsageError(f"A direction has no {name} file", expected="safetensors or gguf", do="Choose one of these")
    if not order.features and not order.directions:
        raise UsageError("There is nothing to export", do="Name features, or a direction")
    for feature in order.features:
        cache.feature(feature)  # says what the numbers are, before anything is written
    wanted = kind.suffix and (out.suffix == kind.suffix or name == "html")
    if not wanted and out.suffix in {".json", ".gguf", ".safetensors", ".html"}:
        raise UsageError(
            f"{out.name} is no name for {name}", expected=kind.suffix or "a folder", do="Choose another name"
        )
    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UsageError(
            f"There is something at {out} already", do="Choose another place, or say --force; nothing was written"
        )
    if force and not wanted and out.is_dir():
        _clear(name, out)
    return kind.write(cache, order, out, progress)


def _clear(name: str, out: Path) -> None:
    """Take away the batches of an earlier export, so that a shorter one leaves no stale tail; nothing else in the folder is touched."""
    old = {
        "saedashboard": ("batch-*.json",),
        "neuronpedia": tuple(f"{p}/batch-*.jsonl.gz" for p in ("features", "activations", "explanations")),
    }
    for pattern in old.get(name, ()):
        for path in out.glob(pattern):
            path.unlink()


def spoken_of(cache: Cache) -> list[int]:
    """The features that a cache has something to say of: all, but for those that imported files left out."""
    from explorer.interchange.browsable import ABSENT

    titles = cache.table.column("title").to_pylist()
    return [at for at, title in enumerate(titles) if title != ABSENT]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: a cache and what became of its rows, or directions that were kept."""

    program: str
    where: Path
    account: "Account | None" = None
    directions: tuple[str, ...] = ()


def import_files(paths: Sequence[Path], out: Path, *, force: bool = False, progress: Progress = _silent) -> Imported:
    """Read another program's files: features become a browsable cache at `out`, vectors directions of the cache at `out`.

    Args:
        paths: Files, or one folder that Neuronpedia exported.
        force: Replace the cache, or the directions of the same names, that are there.
    Raises:
        UsageError: If a file is of another kind, saying what it is and what was expected; or something is at `out` already.
        ExplorerError: If the cache cannot be written.
    """
    from explorer.interchange import browsable, neuronpedia, reading, saedashboard

    lost = next((path for path in paths if not path.exists()), None)
    if not paths or lost:
        raise UsageError(f"There is no {lost or 'file'}", do="Check the path")
    if all(path.suffix in {".safetensors", ".gguf"} for path in paths):
        return _import_vectors(paths, out, force)
    files: list[Path] = []
    for path in paths:
        inside = (neuronpedia.files_of(path) or sorted(path.glob("batch-*.json"))) if path.is_dir() else [path]
        if not inside:
            raise reading.refuse(
                path, f"{saedashboard.EXPECTED}; or {neuronpedia.EXPECTED}", "a folder without such files"
            )
        files += inside
    if (out / "manifest.json").exists() and not force:
        raise UsageError(
            f"There is a cache at {out} already", do="Choose another folder, or say --force; nothing was written"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / browsable.RECORD).is_file():
        raise UsageError(
            f"{out} holds something that no import wrote", expected="a new folder", do="Choose another folder"
        )
    lines = all(".jsonl" in path.suffixes for path in files)
    source = (neuronpedia if lines else saedashboard).read(files, progress=progress)
    account = browsable.make_cache(source, out, files=files, progress=progress)
    return Imported(source.program, out, account)


def _import_vectors(paths: Sequence[Path], out: Path, force: bool) -> Imported:
    from explorer.directions import bundled, known, save
    from explorer.interchange.vectors import read

    cache = Cache.open(out)
    found = [direction for path in paths for direction in read(path)]
    there = set(known(cache)) | bundled(cache)
    if taken := [d.name for d in found if d.name in there and not force]:
        raise UsageError(
            f"{cache.name} has ~{', ~'.join(taken)} already", do="Rename the file, or say --force; nothing was kept"
        )
    kept: list[Any] = [save(cache, direction) for direction in found]
    return Imported("vectors", cache.path, directions=tuple(direction.name for direction in kept))
