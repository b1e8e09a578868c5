"""The answers of a presentation, given once by the live model and kept with the time of every token."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.adapters import adapted, named
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.directions import known as known_directions
from explorer.errors import ScriptError
from explorer.files import write_whole
from explorer.records import Edit
from explorer.scripts import Recorded, Script, Step, recordings_path

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder


def record(
    model: "LanguageModel",
    coder: "SparseCoder",
    cache: Cache,
    script: Script,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Path:
    """Answer every steer step of a script at each of its strengths, and write the recordings beside it.

    Returns:
        The file of recordings.
    Raises:
        SteeringError: If an edit cannot be applied.
        ModelError: If the adapter of a step is not here or cannot be put on the model.
        ScriptError: If the file cannot be written.
    """
    answers: dict[str, dict[str, Any]] = {}
    stops = [(step, stop) for step in script.steps for stop in range(step.stops) if step.kind == "steer"]
    stops.sort(key=lambda one: one[0].model)  # one fine-tune after the other: each is a copy of the model
    fine_tunes = {name: named(cache.path, name) for step, _ in stops if (name := step.model)}
    loaded = ("", model)
    for at, (step, stop) in enumerate(stops):
        progress(step.title, at, len(stops))
        wanted = {name: key for name, key in step.answers(stop).items() if key not in answers}
        about: dict[str, Any] = {"prompt": step.prompt, "edits": [asdict(edit) for edit in step.at(stop)]}
        if step.model:
            about |= {"model": step.model, "adapter_fingerprint": fine_tunes[step.model].fingerprint}
        if loaded[0] != step.model:
            del loaded  # before the next copy is made
            loaded = (step.model, adapted(model, fine_tunes[step.model]))
        told = _answer(loaded[1], coder, cache, step, step.at(stop), list(wanted))
        for name, key in wanted.items():
            answers[key] = {
                **about,
                **({"edits": []} if name == "baseline" else {}),
                "answer": name,
                **asdict(told[name]),
            }
    made = cache.manifest
    said = {
        "model": made.model,
        "model_fingerprint": made.model_fingerprint,
        "sae_fingerprint": made.sae_fingerprint,
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
        "answers": answers,
    }
    path = recordings_path(script.path)
    try:
        write_whole(path, json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n")
    except OSError as error:
        raise ScriptError(f"{path} cannot be written ({error})", do="Free space or mend its rights") from error
    return path


def _answer(
    model: "LanguageModel", coder: "SparseCoder", cache: Cache, step: Step, edits: tuple[Edit, ...], names: list[str]
) -> dict[str, Recorded]:
    """Name -> the answer, all decoded in step as the app does it."""
    from explorer.generate import Row, Steering, stream

    if not names:
        return {}
    directions: Mapping[str, Direction] = known_directions(cache)
    steering = Steering(coder, cache.maxima, step.positions, directions)
    rows = {"baseline": (), "steered": edits}
    if step.control in names:
        from explorer.dosing import controls

        found = controls(edits, steering, n=1, seed=step.sampling.seed)
        control = next(c for c in found if c.kind == step.control)
        rows[step.control] = control.edits
        steering = Steering(coder, cache.maxima, step.positions, {**directions, **control.directions})
    if model.has_template:
        system = [{"role": "system", "content": step.system}] if step.system else []
        prompt = model.chat_document([*system, {"role": "user", "content": step.prompt}], add_generation_prompt=True)
    else:
        prompt = model.text_document("\n\n".join(filter(None, (step.system, step.prompt))))
    asked = [Row(prompt.tokens, rows[name], step.sampling.seed) for name in names]
    pieces: list[list[str]] = [[] for _ in names]
    times: list[list[float]] = [[] for _ in names]
    streamers = [model.vocabulary.streamer() for _ in names]
    began = time.perf_counter()
    for tokens in stream(model, asked, step.sampling, steering):
        now = round(time.perf_counter() - began, 3)
        for row, token in enumerate(tokens):
            if token is not None and token not in model.eos_ids:
                pieces[row].append(streamers[row].push(token))
                times[row].append(now)
    for row, streamer in enumerate(streamers):
        if pieces[row]:
            pieces[row][-1] += streamer.flush()  # what a cut left of a character
    return {name: Recorded(tuple(pieces[row]), tuple(times[row])) for row, name in enumerate(names)}
