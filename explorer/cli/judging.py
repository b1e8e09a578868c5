"""`persona-explorer judge`, and `traits`: what judges say of texts, and traits that people teach."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from explorer.cli.console import JSON, Device, Dtype, emit_json, facts, progress, say, table
from explorer.errors import UsageError

app = typer.Typer(help="Traits that texts are judged by: the bundled ones and your own.", no_args_is_help=True)


def register(main: typer.Typer) -> None:
    main.command()(judge)
    main.add_typer(app, name="traits")


def judge(
    file: Annotated[
        str,
        typer.Argument(help="Texts: .txt (one a line), .jsonl (text, and prompt if it answers one), or - for stdin."),
    ],
    judges: Annotated[
        list[str] | None, typer.Option("--judge", help="Who judges; may be given several times. Without it, a list.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The unsteered model, for judges that ask it.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Ask judges about texts."""
    from explorer.judging import Panel
    from explorer.judging import judges as known

    if not judges:
        listed = ", ".join(known())
        raise UsageError("No judge is named", expected=f"--judge with one of {listed}", do="Name one")
    registry = known()
    if unknown := [name for name in judges if name not in registry]:
        raise UsageError(
            f"There is no judge {unknown[0]!r}", expected=f"one of {', '.join(registry)}", do="Name one of these"
        )
    texts, prompts = _texts(file)
    live = None
    with progress("judging") as tick:
        if model or any(registry[name].needs == "model" for name in judges):
            from explorer.model import LanguageModel

            tick("loading the model")
            live = LanguageModel.load(model or "smollm2-135m-instruct", device=device, dtype=dtype)
        tick("judging")
        panel = Panel(live)
        scores = panel.score(judges, texts, prompts)
    if "endpoint" in judges:
        say(f"The endpoint was asked: {panel.endpoint.spent}.")
    if as_json:
        emit_json([{"text": text, **{name: scores[name][at] for name in judges}} for at, text in enumerate(texts)])
        return
    rows = [(text[:300], *(f"{scores[name][at]:.3g}" for name in judges)) for at, text in enumerate(texts)]
    table("Judged", ("text", *judges), rows, right=judges)


def _texts(file: str) -> tuple[list[str], list[str]]:
    """Texts and what they answer.

    Raises:
        UsageError: If there are none, or a line is no JSON object with a text.
    """
    raw = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    lines = [(number, line) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{file} holds no text", do="Give one text a line")
    if Path(file).suffix != ".jsonl":
        return [line for _, line in lines], [""] * len(lines)
    rows: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row["text"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{file} line {number} is no text", expected='{"text": ..., "prompt": ...}', do="Correct it"
            ) from None
        rows.append(row)
    return [row["text"] for row in rows], [str(row.get("prompt") or "") for row in rows]


@app.command("list")
def list_(as_json: JSON = False) -> None:
    """The traits there are, and of how many sentences."""
    from explorer.traits import traits, unreadable

    for name, error in unreadable().items():
        say(f"{name} is left out: {error}")
    keys = ("name", "positive", "negative", "bundled", "question")
    rows = [(t.name, len(t.positive), len(t.negative), t.bundled, t.question) for t in traits().values()]
    if as_json:
        emit_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        shown = [(n, p, q, "bundled" if b else "yours", what) for n, p, q, b, what in rows]
        table("Traits", ("name", "show it", "do not", "", "what is asked"), shown, right=("show it", "do not"))


@app.command()
def teach(
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and dashes.")],
    file: Annotated[
        Path, typer.Argument(help="A CSV file with the columns text and label (1: shows the trait, 0: does not).")
    ],
    as_json: JSON = False,
) -> None:
    """Teach a trait by labelled sentences, and say how well its judge tells those that it was not shown."""
    from explorer.judging import Panel
    from explorer.traits import Trait, read_sentences, save_trait

    trait = Trait.taught(name, *read_sentences(file))
    with progress("fitting") as tick:
        tick("reading the sentences")
        found = Panel().judge_of(trait)
    path = save_trait(trait)
    tn, fp, fn, tp = found.confusion
    result = {
        "name": name,
        "file": str(path),
        "sentences": len(trait.sentences),
        "held_out_auroc": round(found.auroc, 4),
        "held_out_interval": f"{found.fitted.auroc_low:.3f} to {found.fitted.auroc_high:.3f}",
        "held_out_right": tn + tp,
        "held_out_false_alarms": fp,
        "held_out_missed": fn,
    }
    if as_json:
        emit_json(result)
    else:
        facts("Taught", list(result.items()))


@app.command()
def remove(name: Annotated[str, typer.Argument(help="A trait that you taught.")], as_json: JSON = False) -> None:
    """Forget a trait that you taught."""
    from explorer.traits import remove_trait

    remove_trait(name)
    if as_json:
        emit_json({"removed": name})
    else:
        facts("Removed", [("name", name)])
