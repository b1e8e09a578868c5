"""`persona-explorer ablate`: what a feature does in one of its examples."""

from typing import Annotated

import typer

from explorer.cli.browsing import CachePath
from explorer.cli.console import JSON, Device, Dtype, emit_json, facts, progress, table
from explorer.errors import UsageError

_SHOWN = 12


def register(app: typer.Typer) -> None:
    app.command()(ablate)


def ablate(
    cache: CachePath,
    feature: Annotated[int, typer.Argument(help="The feature's number.", min=0)],
    example: Annotated[int, typer.Option(help="Which of its examples, from 0: top examples first.", min=0)] = 0,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Where the model lies, if not where the cache says.")
    ] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Zero a feature in one of its examples: what the model then expects less, and more; are its promoted tokens true?"""
    from dataclasses import asdict

    from explorer.cache import Cache

    opened = Cache.open(cache)
    examples = opened.examples(feature)
    if example >= len(examples):
        raise UsageError(
            f"Feature {feature} has {len(examples)} examples",
            expected=f"--example from 0 to {len(examples) - 1}" if examples else "a feature that fires",
            do="Choose another",
        )

    from explorer.ablation import ablate as zero
    from explorer.live import attach

    with progress("loading the model") as tick:
        tick("loading the model", None)
        live = attach(opened, model=model, device=device, dtype=dtype)
        tick("zeroing the feature", None)
        promoted = [token for token, _ in opened.feature(feature).promoted]
        found = zero(live.model, live.coder, feature, examples[example].tokens, promoted)
    if as_json:
        emit_json(asdict(found))
        return
    piece, verdict = opened.vocabulary.piece, found.verdict
    worst = sorted(range(len(found.tokens)), key=lambda at: -found.divergence[at])[:_SHOWN]
    facts(
        f"Feature {feature} zeroed in its example {example}",
        [
            ("fires", f"on {found.fires} of {len(found.tokens)} tokens"),
            (
                "loss",
                f"{sum(found.loss) / max(1, len(found.loss) - 1):+.4f} nats a token, {max(found.loss):+.3f} at most",
            ),
            (
                "promoted tokens",
                f"{verdict.words}: {verdict.overlap} of {verdict.listed} are among the {verdict.listed} that fall most; on average they fall "
                f"more than {verdict.percentile:.1%} of the vocabulary; rank correlation {verdict.correlation:+.2f}",
            ),
        ],
    )
    table(
        "Where it matters",
        ("position", "token", "activation", "KL (nats)", "loss of the next token"),
        [
            (
                at,
                piece(found.tokens[at]),
                f"{found.acts[at]:.2f}",
                f"{found.divergence[at]:.4f}",
                f"{found.loss[at]:+.4f}",
            )
            for at in worst
            if found.divergence[at] > 0
        ],
        right=("position", "activation", "KL (nats)", "loss of the next token"),
    )
    for title, moved in (("Without it, less likely", found.lose), ("Without it, likelier", found.gain)):
        table(
            title,
            ("token", "logit", "probability with", "without"),
            [(piece(m.token), f"{m.logit:+.3f}", f"{m.before:.3%}", f"{m.after:.3%}") for m in moved],
            right=("logit", "probability with", "without"),
        )
