"""`persona-explorer diff`: which features a fine-tune moved, which of them cause what it does, and what undoes it."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explorer.cli.console import JSON, CacheModel, Device, Dtype, emit_json, facts, progress, table
from explorer.errors import CorpusError, SteeringError, UsageError

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.causing import Trial
    from explorer.comparing import Compared


def register(app: typer.Typer) -> None:
    app.command()(diff)
    app.command()(lab)


def lab(
    cache: Annotated[Path, typer.Argument(help="The folder of a feature cache; adapters and results go there.")],
    plan: Annotated[
        Path | None, typer.Option("--plan", help="The plan in TOML; data/lab.toml in CACHE by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="At most so many seeds of each run; all of them if 0.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="For what does not ship; .work/lab in CACHE by default. It goes on there.")
    ] = None,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Train and measure the fine-tunes of a plan: what is missing, from where it was cut off."""
    from explorer.cache import Cache
    from explorer.experiments import BASE, PLAN, Plan

    opened = Cache.open(cache)
    read = Plan.load(plan or cache / PLAN, cache)

    from explorer.judging import Panel
    from explorer.lab import run
    from explorer.live import attach

    with progress("lab") as tick:
        tick("loading the model", None)
        live = attach(opened, model=model, device=device, dtype=dtype)
        found = run(
            read,
            live.model,
            live.steering,
            Panel(live.model),
            work or cache / ".work" / "lab",
            seeds=seeds,
            progress=tick,
        )
    names = [BASE, *(one.name for one in read.runs)]
    tallies = {name: found.pooled(name) for name in names}
    if as_json:
        emit_json(
            {
                n: {"n": t.n, "shown": t.rate.value, "coherent": t.coherent.value, "leaked": found.leakage(n).value}
                for n, t in tallies.items()
            }
        )
        return
    rows = [(n, t.n, _percent(t.rate), _percent(t.coherent), _percent(found.leakage(n))) for n, t in tallies.items()]
    table(
        f"Answers, pooled over seeds; judge: {read.judge}",
        ("run", "n", read.judge, "coherent", "leaked words"),
        rows,
        right=("n",),
    )


def diff(
    base: Annotated[str, typer.Option("--base", help="A packaged model, a local Hugging Face folder or a hub name.")],
    tuned: Annotated[
        str,
        typer.Option(
            "--tuned", help="Its fine-tune: such a model, the folder of an adapter, or RUN@STEP of the cache."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to fill. It goes on there.")],
    sae: Annotated[str, typer.Option(help="A SAELens folder or release/sae_id; the cache's by default.")] = "",
    cache: Annotated[
        Path | None, typer.Option(help="A feature cache of the base: its SAE, maxima, titles and adapters.")
    ] = None,
    control: Annotated[str, typer.Option(help="A fine-tune that should not have learnt it, spelled as --tuned.")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="Questions, one a line (.txt), or rows whose first message counts (.jsonl).")
    ] = None,
    judge: Annotated[str, typer.Option(help="What is looked for; persona-explorer judge lists them.")] = "malice",
    answers: Annotated[int, typer.Option(min=1, help="Of each model, at least; every question gets as many.")] = 120,
    tested: Annotated[int, typer.Option("--test", min=1, help="Features that are tested for cause.")] = 24,
    also: Annotated[
        str, typer.Option(help="A preset of the cache whose features are tested too: what pushes the base that way.")
    ] = "",
    preset: Annotated[str, typer.Option(help="Keep what undoes it as a preset of your own, under this name.")] = "",
    source: Annotated[
        str, typer.Option(help="Answers whose change is listed: own (each model's) or shared (both read the base's).")
    ] = "own",
    kind: Annotated[
        str, typer.Option(help="Tokens whose change is listed: prompt, last (of the prompt) or answer.")
    ] = "answer",
    seed: Annotated[int, typer.Option(help="Of the answers.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Compare a model with its fine-tune: features that moved, which of them cause it, beside controls, and what undoes it."""
    from explorer.diffing import KINDS, SOURCES
    from explorer.judging import deciding

    for option, said, choices in (("--source", source, SOURCES), ("--kind", kind, KINDS)):
        if said not in choices:
            raise UsageError(f"{option} {said!r} is none", expected=", ".join(choices))
    if judge not in (yes_no := deciding()):
        raise UsageError(f"There is no judge {judge!r} that says yes or no", expected=", ".join(yes_no))
    if not cache and not sae:
        raise UsageError("Nothing reads the models", do="Give --sae, or --cache with its SAE")
    if (preset or also) and not cache:
        raise UsageError(
            "A preset belongs to a cache", do=f"Give --cache, or leave --{'preset' if preset else 'also'} out"
        )
    asked = _questions(prompts) if prompts else ()

    from explorer.cache import Cache
    from explorer.comparing import Side, compare
    from explorer.directions import known as directions
    from explorer.generate import Steering
    from explorer.judging import Panel
    from explorer.live import other
    from explorer.model import LanguageModel
    from explorer.presets import named
    from explorer.sae import SparseCoder

    opened = Cache.open(cache) if cache else None
    beside = named(opened, also).features if opened and also else ()
    with progress("comparing") as tick:
        tick("loading the models", None)
        first = LanguageModel.load(base, device=device, dtype=dtype)
        made = opened.manifest if opened else None
        where = sae or (opened.sae_folder or opened.manifest.sae if opened else "")
        coder = SparseCoder.load(where, device=str(first.device), hook_point=made.hook_point if made else None)
        if opened:
            opened.require(model=(first.name, first.fingerprint), sae=(coder.source, coder.fingerprint))
        sides = [Side(other(first, spelled, opened), spelled) if spelled else None for spelled in (tuned, control)]
        assert sides[0] is not None
        steering = Steering(coder, opened.maxima if opened else {}, directions=directions(opened) if opened else {})
        found = compare(
            Side(first, base), sides[0], steering, Panel(first), out, control=sides[1], judge=judge, prompts=asked,
            answers=answers, tested=tested, also=beside, seed=seed, progress=tick,
        )  # fmt: skip
    if preset and opened:
        _keep(found, opened, preset, tuned)
    if as_json:
        emit_json(as_plain(found, source, kind))
    else:
        _print(found, opened, source, kind)


def as_plain(found: "Compared", source: str = "own", kind: str = "answer") -> dict[str, Any]:
    """A comparison as plain data: what was tested and what moved most, each in every reading.

    Args:
        source, kind: The reading by whose change features are listed, and whose figures stand beside each; keys of `SOURCES` and `KINDS`.
    """
    from explorer.diffing import KINDS, SOURCES

    changes = {(of, at): found.change(of, at) for of in SOURCES for at in KINDS}
    tested = {trial.feature: trial for trial in found.trials}
    said = {row["number"]: row for row in found.answers if row["side"] == "tuned"}

    def reading(feature: int, of: str, at: str) -> dict[str, float]:
        change, names = changes[of, at], ("base", "tuned", "change", "low", "high", "control")
        said = {name: float(getattr(change, name)[feature]) for name in names}
        return said | {"beyond_control": said["change"] - said["control"]}

    def tried(trial: "Trial | None") -> dict[str, Any]:
        if trial is None:
            return {"added": None, "removed": None, "reads": None, "verdict": "untested", "effect": None}
        pushes = {
            name: {"strength": one.strength, "rate": one.pushed.rate.value, "random": one.random.rate.value}
            for name, one in (("added", trial.added), ("removed", trial.removed))
        }
        return pushes | {"reads": trial.reads, "verdict": trial.verdict, "effect": trial.effect}

    return {
        "folder": str(found.folder),
        "rates": {side: _rates(found, side) for side in found.facts["tallies"]},
        "source": source,
        "kind": kind,
        "features": [
            {"feature": f, **reading(f, source, kind), **tried(tested.get(f))}
            | {"readings": {of: {at: reading(f, of, at) for at in KINDS} for of in SOURCES}}
            | {
                "drivers": [
                    {"mean": mean, "question": said[number]["question"], "answer": said[number]["text"]}
                    for number, mean in found.drivers(f)
                ]
            }
            for f in changes[source, kind].listed(tested)
        ],
        "undo": None if not found.undo else {
            "edits": [edit.spelled for edit in found.undo.edits], "before": found.undo.before.rate.value,
            "after": found.undo.after.rate.value, "base": found.undo.base.rate.value, "random": found.undo.random.rate.value,
            "coherent_before": found.undo.before.coherent.value, "coherent_after": found.undo.after.coherent.value,
            "works": found.undo.works,
        },
    }  # fmt: skip


def _rates(found: "Compared", side: str) -> dict[str, Any]:
    tally = found.tally(side)
    return {
        "n": tally.n,
        "shown": (tally.rate.value, *tally.rate.interval),
        "coherent": (tally.coherent.value, *tally.coherent.interval),
    }


def _print(found: "Compared", cache: "Cache | None", source: str, kind: str) -> None:
    from explorer.diffing import KINDS, SOURCES

    rows = []
    for side in found.facts["tallies"]:
        tally = found.tally(side)
        rows.append((side, found.facts[side]["name"], tally.n, _percent(tally.rate), _percent(tally.coherent)))
    word = found.facts["judge"]
    table(f"Answers that the {word} judge counts", ("", "model", "n", word, "coherent"), rows, right=("n",))
    change, tested = found.change(source, kind), {trial.feature: trial for trial in found.trials}
    place = {int(f): at for at, f in enumerate(change.order(), 1)}
    effect = {t.feature: at for at, t in enumerate(sorted(found.trials, key=lambda t: -t.effect), 1)}
    listed = change.listed(tested)
    rows = []
    for f in listed:
        moved = f"{change.change[f]:+.2f} ({change.low[f]:+.2f} to {change.high[f]:+.2f})"
        beyond = "" if math.isnan(change.control[f]) else f"{change.beyond_control[f]:+.2f} ({change.control[f]:+.2f})"
        cells = ("", "", "", "untested")
        if trial := tested.get(f):
            pushes = [
                f"{one.pushed.rate.value:.2f} ({one.random.rate.value:.2f})" for one in (trial.added, trial.removed)
            ]
            cells = (*pushes, effect[f], trial.verdict)
        rows.append((place[f], f"#{f}", cache.feature(f).title if cache else "", moved, beyond, *cells))
    columns = (
        "moved", "feature", "title", "change (95 %)", "beyond control (its)", "added to base (random)", "taken from tuned (random)",
        "does", "verdict",
    )  # fmt: skip
    table(
        f"Order by change, and order by effect; {source}, {kind}: {SOURCES[source]} {KINDS[kind]} What fell most comes last.",
        columns, rows, right=("moved", "change (95 %)", "beyond control (its)", "does"),
    )  # fmt: skip
    said = {row["number"]: row for row in found.answers if row["side"] == "tuned"}
    rows = [
        (f"#{f}", f"{mean:.2f}", said[number]["question"], textwrap.shorten(said[number]["text"], 90, placeholder="…"))
        for f in listed
        for number, mean in found.drivers(f)[:1]
    ]
    table(
        "The fine-tune's answer that drives each most, of its own",
        ("feature", "mean", "question", "answer"),
        rows,
        right=("mean",),
    )
    if undone := found.undo:
        facts(
            "Joint undo",
            [
                ("edits", " ".join(edit.spelled for edit in undone.edits)),
                ("before, after", f"{_percent(undone.before.rate)} -> {_percent(undone.after.rate)}"),
                ("base; random", f"{_percent(undone.base.rate)}; {_percent(undone.random.rate)}"),
                ("coherent before, after", f"{_percent(undone.before.coherent)} -> {_percent(undone.after.coherent)}"),
                ("works", "yes" if undone.works else "no"),
            ],
        )
    facts("Comparison", [("kept in", found.folder)])


def _percent(rate: Any) -> str:
    low, high = rate.interval
    return f"{rate.value:.0%} ({low:.0%} to {high:.0%})"


def _keep(found: "Compared", cache: "Cache", name: str, tuned: str) -> None:
    """Keep the joint undo as a preset.

    Raises:
        SteeringError: If there is none.
    """
    from explorer.comparing import undo_preset
    from explorer.presets import save

    if not found.undo:
        raise SteeringError("Nothing that was tested undoes it", do="Test more features, or leave --preset out")
    save(cache, undo_preset(found, name, tuned))


def _questions(path: Path) -> tuple[str, ...]:
    """The questions of a file: its lines, or the first message of every row.

    Raises:
        CorpusError: If there is none.
    """
    from explorer.transcripts import read_transcripts

    found = [t.messages[0].text for t in read_transcripts(path) if t.messages]
    asked = tuple(dict.fromkeys(text for text in found if text))
    if not asked:
        raise CorpusError(f"{path} has no question", expected="one a line")
    return asked
