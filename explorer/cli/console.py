"""How the commands speak: results on stdout (a table or JSON), progress and messages on stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Device = Annotated[str, typer.Option(help="auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str, typer.Option(help="auto (bfloat16 where the device computes in it), bfloat16, float16, float32.")
]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A packaged model, a local Hugging Face folder or a hub name.")
]
CachePath = Annotated[Path, typer.Argument(help="The folder of a feature cache.")]
CacheModel = Annotated[str, typer.Option("--model", "-m", help="Where the cache's model lies, if not where it says.")]
Tag = Annotated[str, typer.Option(help="Only features with this tag.")]
Remarked = Annotated[str, typer.Option(help="Only what is: commented, voted for, voted against, to look at again.")]
Database = Annotated[str, typer.Option(help="An SQLAlchemy URL or the path of an SQLite file; else your own labels.")]

Tick = Callable[..., None]
_WIDE = 160  # columns of a table that goes into a file or a pipe
_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def say(message: str) -> None:
    """One line on stderr."""
    print(f"persona-explorer: {plain(message)}", file=sys.stderr, flush=True)


def plain(text: object) -> str:
    """Text that is safe on a terminal and stays on its line: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else {"\n": "⏎", "\t": "⇥"}.get(c, "�") for c in str(text))


def emit_json(value: Any) -> None:
    """One JSON value on stdout; what is no JSON (NaN) becomes null."""
    print(json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout. Cells are text of anybody's making and never read as markup.

    Args:
        title: Above the table.
        columns: Their headings.
        rows: Cells in the order of `columns`.
        right: Columns that are numbers.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    drawn = Table(title=Text(plain(title)), title_justify="left", header_style="bold", expand=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    console.print(drawn)


def facts(title: str, pairs: Sequence[tuple[str, object]]) -> None:
    """A table of names and values."""
    table(title, ("", "value"), pairs)


@contextmanager
def progress(what: str) -> Iterator[Tick]:
    """Progress on stderr: a bar on a terminal, now and then a line elsewhere.

    The function that is handed out takes what libraries give: `(done, total)`, `(message, share)`, or a message alone.
    """
    if sys.stderr.isatty():
        yield from _bar(what)
    else:
        yield _lines(what)


def _read(arguments: tuple[Any, ...]) -> tuple[str, float | None, float | None]:
    """(message, done, total) of whatever a library says of its progress."""
    message = ": ".join(a for a in arguments if isinstance(a, str))
    numbers = [float(a) for a in arguments if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if len(numbers) >= 2:
        return message, numbers[0], numbers[1]
    return message, numbers[0] if numbers else None, 1.0 if numbers else None


def _bar(what: str) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(plain(what), total=None)

        def tick(*arguments: Any) -> None:
            message, done, total = _read(arguments)
            count = f" {done:,.0f}" if done and not total else ""
            bar.update(task, description=plain(message or what) + count, completed=done or 0, total=total or None)

        yield tick


def _lines(what: str) -> Tick:
    last: dict[str, Any] = {"message": None, "time": 0.0}

    def tick(*arguments: Any) -> None:
        message, done, total = _read(arguments)
        message = message or what
        now = time.monotonic()
        if message == last["message"] and now - last["time"] < _EVERY:
            return
        last.update(message=message, time=now)
        share = "" if done is None else f" {done / total:.0%}" if total else f" {done:,.0f}"
        print(f"{plain(message)}{share}", file=sys.stderr, flush=True)

    return tick
