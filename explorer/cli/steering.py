"""`persona-explorer steer`: one question, answered by the model as it is and as it is steered, in one batch."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.cli.console import JSON, Device, Dtype, emit_json, progress, table
from explorer.errors import UsageError
from explorer.records import Edit, Sampling
from explorer.steering import STEERING_MODES


def register(app: typer.Typer) -> None:
    app.command()(steer)


def steer(
    cache: Annotated[Path, typer.Argument(help="The folder of a feature cache.")],
    prompt: Annotated[str, typer.Argument(help="What the model is asked.")],
    edit: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            "-e",
            help="FEATURE, FEATURE:STRENGTH or FEATURE:STRENGTH:MODE, or ~NAME of a direction instead of FEATURE; may be given several times.",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", "-p", help="A named set of edits of the cache or of your own.")
    ] = "",
    positions: Annotated[
        str, typer.Option(help="answer, prompt, all or first; the preset's by default, else answer.")
    ] = "",
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    plain: Annotated[
        bool, typer.Option("--plain", help="Let the model go on from the prompt, without a chat template.")
    ] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="Instead of the model that the cache names.")] = "",
    adapter: Annotated[
        str, typer.Option("--adapter", help="A fine-tune of it: RUN@STEP of the cache, or an adapter's folder.")
    ] = "",
    sae: Annotated[str, typer.Option(help="Instead of the SAE in the cache: a SAELens folder or release/sae_id.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1)] = 80,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 0.95,
    repetition_penalty: Annotated[float, typer.Option(min=0.1)] = 1.1,
    seed: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Ask the model a question twice: as it is, and with features or directions turned up, down or off."""
    from explorer import presets
    from explorer.adapters import adapted, named, titled
    from explorer.cache import Cache
    from explorer.directions import known

    opened = Cache.open(cache)
    chosen = presets.named(opened, preset) if preset else None
    edits = [*(chosen.edits if chosen else ()), *(read_edit(text) for text in edit or [])]
    places = positions or (chosen.positions if chosen else "answer")
    if not edits:
        raise UsageError("There is nothing to steer with", do="Give --edit FEATURE:STRENGTH or --preset NAME")
    sampling = Sampling(max_tokens, temperature, top_p, repetition_penalty, seed)
    directions = known(opened) if any(e.direction for e in edits) else {}

    tuning = named(opened.path, adapter) if adapter else None

    from explorer.foreign import require_weights
    from explorer.generate import Row, Steering, stream
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

    require_weights(opened.manifest)
    with progress("loading the model") as tick:
        tick("loading the model", None)
        live = LanguageModel.load(model or opened.manifest.model, device=device, dtype=dtype)
        opened.require(model=(live.name, live.fingerprint))
        if tuning:
            live = adapted(live, tuning)
        coder, features = None, {e.feature for e in edits if not e.direction}
        if features:
            coder = SparseCoder.load(
                sae or opened.sae_folder or opened.manifest.sae,
                device=str(live.device),
                hook_point=opened.manifest.hook_point,
            )
            opened.require(sae=(coder.source, coder.fingerprint))
        maxima = {feature: opened.feature(feature).max for feature in features}
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        chat = live.has_template and not plain
        document = live.chat_document(messages, add_generation_prompt=True) if chat else live.text_document(prompt)
        rows = [Row(document.tokens, (), seed), Row(document.tokens, tuple(edits), seed)]
        answers: list[list[int]] = [[], []]
        steering = Steering(coder, maxima, places, directions)
        for done, step in enumerate(stream(live, rows, sampling, steering), 1):
            tick("answering", done, max_tokens)
            for answer, token in zip(answers, step, strict=True):
                if token is not None and token not in live.eos_ids:
                    answer.append(token)
    texts = [live.vocabulary.text(answer) for answer in answers]
    if as_json:
        plain_edits = [
            ({"direction": e.direction} if e.direction else {"feature": e.feature})
            | {"strength": e.strength, "mode": e.mode}
            | {"maximum": directions[e.direction].norm if e.direction else maxima[e.feature]}
            for e in edits
        ]
        tuned = {"adapter": tuning.name, "adapter_fingerprint": tuning.fingerprint} if tuning else {}
        asked = {"model": opened.manifest.model, **tuned, "prompt": prompt, "edits": plain_edits, "seed": seed}
        emit_json({**asked, "baseline": texts[0], "steered": texts[1]})
        return
    names = ", ".join(f"{e.mode} {e.target if e.direction else f'#{e.feature}'} at {e.strength:g}" for e in edits)
    whose = titled(tuning.name) if tuning else "as it is"
    table(prompt, ("", "answer"), [(whose, texts[0].strip()), (names, texts[1].strip())])


def read_edit(text: str) -> Edit:
    """`FEATURE[:STRENGTH[:MODE]]` as an edit, with `~NAME` in the feature's place for a direction.

    Raises:
        UsageError: If it is not of that form.
    """
    try:
        return Edit.read(text.removeprefix("#"))
    except ValueError:
        raise UsageError(
            f"{text!r} is no edit",
            expected=f"FEATURE, FEATURE:STRENGTH or FEATURE:STRENGTH:MODE, the mode one of {', '.join(STEERING_MODES)}",
            do="For example 1930:1.5:add, or ~villain:1:add for a direction",
        ) from None
