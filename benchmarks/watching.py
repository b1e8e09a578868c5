"""A million messages watched with a scorer that costs nothing: what reading, writing and keeping a log take by themselves."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.harness import figure, peak_memory_mb, seconds
from explorer.monitor import watch
from explorer.scoring import Probe, Scorer, Scores
from explorer.transcripts import Transcript

FEW, MANY, MOST_MB = 10_000, 1_000_000, 50
"""Messages; what a hundred times as many may take more."""


class _Stub:
    """Has what a run asks of a scorer; a message's score is from its length."""

    def __init__(self) -> None:
        self.model: Any = SimpleNamespace(name="none", fingerprint="none")
        self.coder, self.context, self.probes = None, 512, (Probe(0),)
        self.readers: dict[str, Any] = {}
        self.directions: dict[str, Any] = {}
        self.median_norms: dict[str, float] = {}

    def score(self, transcripts: Sequence[Transcript]) -> Scores:
        of = [(at, n, len(m.text)) for at, t in enumerate(transcripts) for n, m in enumerate(t.messages)]
        transcript, message, tokens = np.array(of, np.int64).reshape(-1, 3).T
        value = (tokens[:, None] % 97 / 97).astype(np.float32)
        return Scores(transcript, message, tokens, value, value)


def stub_scorer() -> Scorer:
    """A scorer as far as a run can tell."""
    return cast("Scorer", _Stub())


def chats(messages: int, form: str) -> Iterator[str]:
    """A log's text, part by part: so many messages of 190 characters or so, two a conversation.

    Args:
        form: .jsonl, .csv or .txt.
    """
    if form == ".csv":
        yield "session,role,content\n"
    for n in range(messages // 2):
        asked, said = f"Question {n}? {'Well, is it so? ' * 11}", f"Answer {n}. {'Yes, so it is. ' * 12}"
        if form == ".jsonl":
            yield json.dumps({"prompt": asked, "response": said}) + "\n"
        elif form == ".csv":
            yield f'{n},user,"{asked}"\n{n},assistant,"{said}"\n'
        else:
            yield f"Human: {asked}\n\nAssistant: {said}\n\n"


def measure() -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        logs = {messages: Path(scratch) / f"{messages}.jsonl" for messages in (FEW, MANY)}
        for messages, log in logs.items():
            with log.open("w", encoding="utf-8") as file:
                file.writelines(chats(messages, log.suffix))
        took, peak = {}, {}
        for messages, log in logs.items():  # the peak of a process only grows: the short log comes first
            took[messages] = seconds(lambda log=log: watch(log, stub_scorer(), Path(f"{log}.monitor")))
            peak[messages] = peak_memory_mb()
    what = f"{MANY:,} messages as JSONL, read, stub scores, written; no model"
    return {
        "monitor_million_mb": figure(
            [peak[MANY] - peak[FEW]], "MB", f"More than for {FEW:,} messages, at the peak; {what}", at_most=MOST_MB
        ),
        "monitor_million_s": figure([took[MANY]], "s", what),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
