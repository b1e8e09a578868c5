"""`persona-explorer app`: the front end in the browser."""

import errno
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import say
from explorer.errors import CacheError, ExplorerError, UsageError

CACHES_VARIABLE = "PERSONA_EXPLORER_CACHES"
_TRIES = 50


def register(app: typer.Typer) -> None:
    app.command("app")(serve)


def serve(
    caches: Annotated[
        list[Path] | None, typer.Argument(help="Feature caches to show beside the bundled world.")
    ] = None,
    port: Annotated[int, typer.Option(help="The first port to try.", min=1, max=65535)] = 8501,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "localhost",
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser window.")] = False,
) -> None:
    """Open the app in the browser. Only this machine can reach it unless --host says otherwise."""
    environment = dict(os.environ)
    if caches:
        missing = [cache for cache in caches if not (cache / "manifest.json").is_file()]
        if missing:
            raise CacheError(f"There is no feature cache at {missing[0]}", do="persona-explorer build makes one")
    known = [Path(cache) for cache in environment.get(CACHES_VARIABLE, "").split(os.pathsep) if cache]
    environment[CACHES_VARIABLE] = os.pathsep.join(str(cache.resolve()) for cache in [*(caches or []), *known])
    chosen = free_port(host, port)
    if chosen != port:
        say(f"Port {port} is busy; using {chosen}.")
    if host not in ("localhost", "127.0.0.1", "::1"):
        say(f"Listening on {host}: whoever can reach this machine can steer the model and change labels.")
    say(f"Open http://{'localhost' if host in ('0.0.0.0', '::') else host}:{chosen} (Ctrl+C stops it).")
    options = {
        "server.address": host,
        "server.port": chosen,
        "server.headless": str(headless).lower(),
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": "localhost" if host in ("0.0.0.0", "::") else host,
        "server.fileWatcherType": "none",
    }
    command = [sys.executable, "-m", "app", *(f"--{key}={value}" for key, value in options.items())]
    os.chdir(_project())  # where the package `app` is found wherever the command was given
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(sys.executable, command, environment)  # one process: what is told to stop is what stops
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)


def _project() -> Path:
    """The folder that holds the package `app`."""
    found = importlib.util.find_spec("app")
    if found is None or found.origin is None:
        raise ExplorerError(
            "The app is not installed beside the library", do="Install the project with pip install -e ."
        )
    return Path(found.origin).parents[1]


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on.

    Raises:
        UsageError: If the host is none of this machine's, or no port is free.
    """
    for port in range(first, min(first + _TRIES, 65536)):
        try:
            candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{host!r} is no address ({error})", do="Use --host localhost") from error
        states = {_state(family, address) for family, _, _, _, address in candidates}
        if states == {"absent"}:  # localhost may have an IPv6 address that the machine lacks; one that it has is enough
            raise UsageError(f"{host} is no address of this machine", do="Use --host localhost")
        if "busy" not in states:
            return port
    raise UsageError(f"Ports {first} to {first + _TRIES - 1} are all busy", do="Name another with --port")


def _state(family: int, address: tuple) -> str:
    """ "free", "busy", or "absent" where the address is none of this machine's."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":  # a port in TIME_WAIT is free; on Windows this option would mean something else
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return "absent" if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) else "busy"
    return "free"
