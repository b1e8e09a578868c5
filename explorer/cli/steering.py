"""`persona-explorer steer`."""

import typer


def register(app: typer.Typer) -> None:
    pass
