"""The `persona-explorer` command: the same things that the app does, and the making of worlds, for scripts.

Every command prints a table for people or, with `--json`, one JSON value for programs; progress goes to stderr. It
exits with 0 on success, 2 on wrong use and 1 on failure (130 where Ctrl+C stopped it); a failure is one line that says
what to do.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from explorer.cli import (
    ablating,
    browsing,
    comparing,
    directing,
    exchanging,
    explaining,
    finding,
    judging,
    labelling,
    making,
    personas,
    recording,
    relating,
    serving,
    steering,
    tuning,
)
from explorer.cli.console import say
from explorer.errors import ExplorerError, UsageError

DEBUG_VARIABLE = "PERSONA_EXPLORER_DEBUG"

app = typer.Typer(
    name="persona-explorer",
    help="Browse, steer and label the features inside a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    making, browsing, ablating, finding, relating, steering, recording, judging, personas, tuning, comparing, explaining, exchanging, serving,
):  # fmt: skip
    part.register(app)
app.add_typer(labelling.app, name="labels")
app.add_typer(directing.app, name="directions")

_ClickException: Any = typer.BadParameter.__mro__[2]  # typer carries its own copy of click and exports no more of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give back its exit code.

    Args:
        arguments: Without the program's name; those of the process if None.
    """
    # Libraries talk to stderr while they load; what a person needs to know is said by us.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_MODE", "disabled")
    given = sys.argv[1:] if arguments is None else list(arguments)
    command = typer.main.get_command(app)
    try:
        with command.make_context("persona-explorer", given or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit:  # how rich leaves when the reader has seen enough
        return 0
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        say("Stopped. What was finished is kept; the same command goes on from there.")
        return 130
    except _ClickException as error:
        message = getattr(error, "format_message", str)().rstrip(".")
        if message:  # empty where the help was printed for lack of a command
            context = getattr(error, "ctx", None)
            say(f"{message}. See {context.command_path if context else 'persona-explorer'} --help.")
        return 2
    except UsageError as error:
        say(str(error))
        return 2
    except ExplorerError as error:
        return _failed(str(error))
    except MemoryError:
        return _failed("There is not enough memory. Close other programs, or lower the batch size.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}. Check the path, the permissions and the free space.")
    except Exception as error:
        text = str(error).strip()
        reason = f"{type(error).__name__}{': ' + text.splitlines()[0] if text else ''}"
        return _failed(f"Unexpected failure ({reason}). Please report it, with what {DEBUG_VARIABLE}=1 prints.")


def _failed(message: str) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exc()
    say(message)
    return 1
