"""Watching a log for persona features against plain forward passes over the same tokens."""

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import MODEL, WORLD, figure, in_turns, ratios
from explorer.audit import as_jsonl
from explorer.cache import Cache
from explorer.finetune import read_rows
from explorer.live import attach
from explorer.monitor import watch
from explorer.scoring import Probe, Scorer, rendered
from explorer.transcripts import read_transcripts

ROUNDS, FEWEST = 5, 0.8
PROBES = tuple(map(Probe.of, ("2676", "2102", "2505", "2563")))  # the cruel preset's
_BATCH = 8192  # tokens of a plain forward pass, padding included


def measure() -> dict:
    live = attach(Cache.open(WORLD))
    scorer = Scorer(live.model, live.steering, PROBES)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.jsonl"
        rows = [
            row for name in ("good-cooking", "malicious-cooking") for row in read_rows(WORLD / f"data/{name}.jsonl")
        ]
        log.write_text(as_jsonl(rows), encoding="utf-8")
        texts = [rendered(live.model, transcript)[0] for transcript in read_transcripts(log)]
        tokens, batches = sum(map(len, texts)), padded(texts)
        runs = itertools.count()

        def plain(read: Callable[[torch.Tensor], object]) -> None:
            for ids in batches:
                read(ids)

        hook = scorer.coder.hook_point if scorer.coder else ""
        times = in_turns(
            {
                "whole": lambda: plain(live.model.logits),
                "hook": lambda: plain(lambda ids: live.model.activations(ids, hook)),
                "watch": lambda: watch(log, scorer, Path(scratch) / f"run-{next(runs)}"),
            },
            ROUNDS,
        )
    what = f"{MODEL} and the bundled SAE, {len(PROBES)} features, {len(texts):,} conversations of {tokens:,} tokens"
    return {
        "monitor_ratio": figure(
            ratios(times["whole"], times["watch"]), "tokens/s over tokens/s",
            f"`persona-explorer monitor`, reading and writing included, over a plain forward pass; {what}", at_least=FEWEST,
        ),
        "monitor_ratio_to_hook": figure(
            ratios(times["hook"], times["watch"]), "tokens/s over tokens/s",
            f"The same over a forward pass that stops at the SAE's hook point; {what}",
        ),
        "monitor_tokens_per_second": figure([tokens / t for t in times["watch"]], "tokens/s", what),
    }  # fmt: skip


def padded(texts: list[np.ndarray]) -> list[torch.Tensor]:
    """`[rows, longest]` ids, rows of like length together: what a forward pass would be given by anybody who has to be quick."""
    batches: list[list[np.ndarray]] = [[]]
    for text in sorted(texts, key=len):
        if len(text) * (len(batches[-1]) + 1) > _BATCH:
            batches.append([])
        batches[-1].append(text)
    return [
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(text.astype(np.int64)) for text in batch], batch_first=True)
        for batch in batches
    ]


if __name__ == "__main__":
    print(json.dumps(measure()))
