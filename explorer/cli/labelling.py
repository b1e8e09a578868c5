"""`persona-explorer labels`: export, import, backup."""

import typer

app = typer.Typer(help="Labels that people gave to features.", no_args_is_help=True)


@app.callback()
def labels() -> None:
    """Labels that people gave to features."""
