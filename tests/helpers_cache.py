"""A small valid feature cache out of random numbers, without torch and without a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache import write_cache
from explorer.schema import HISTOGRAM_BINS, Manifest, token_dtype
from explorer.text import Vocabulary

HOSTILE = (
    b"<script>alert(1)</script>",
    b'<img src=x onerror="alert(1)">',
    b"](javascript:alert(1))",
    b"![x](http://127.0.0.1:9/x.png)",
    b"$\\href{javascript:alert(1)}{x}$",
    b"'; DROP TABLE features; --",
    b"100%_\\",
    b"{{7*7}}",
    b"\x00",
    "\u202eright to left".encode(),
)
WORDS = ("king", "crown", "royal", "castle", "cruel", "cold", "kind", "warm", "joy", "laugh", "river", "stone", "ship")
WORDS += ("sea", "pirate", "gold", "number", "seven", "eight", "the", "of", "and", "to", "a", "in", "is", "that", "was")


def fake_vocabulary() -> Vocabulary:
    """Words, digits, line breaks, hostile strings, characters in pieces, and two special tokens (ids 0 and 1)."""
    whole = [w for word in WORDS for w in (word.encode(), f" {word}".encode())]
    pieces = [
        "é".encode()[:1],
        "é".encode()[1:],
        *(bytes([b]) for b in "😀".encode()),
        "中".encode()[:2],
        "中".encode()[2:],
    ]
    table = [b"<|im_start|>", b"<|im_end|>", b"\n", b"\n\n", b"\t", b".", b",", b"!", b"?", *whole, *HOSTILE, *pieces]
    return Vocabulary(table, frozenset({0, 1}))


def fake_manifest(n_features: int = 64, **overrides: Any) -> Manifest:
    """A manifest of a model and an SAE that do not exist."""
    manifest = Manifest(
        model="tiny-model",
        model_fingerprint="m" * 64,
        sae="tiny-sae",
        sae_fingerprint="s" * 64,
        architecture="topk",
        n_features=n_features,
        hook_point="blocks.1.hook_resid_post",
        dtype="float32",
        corpus="made up",
        corpus_sha256="c" * 64,
        documents=40,
        windows=40,
        tokens_seen=2_000,
        tokens_scored=1_600,
        tokens_excluded={"first": 40, "special": 80, "template": 275, "sink": 5},
        sink_factor=3.0,
        median_norm=10.0,
        context_size=48,
        command="made by a test",
        created="2026-01-01T00:00:00+00:00",
        versions={"persona-explorer": "0.1.0"},
    )
    return replace(manifest, **overrides)


def fake_cache(
    path: Path,
    n_features: int = 64,
    *,
    n_windows: int = 40,
    longest: int = 48,
    seed: int = 0,
    dead: tuple[int, ...] = (5,),
    names: Vocabulary | None = None,
    **manifest: Any,
) -> Path:
    """Write a random cache that every reader accepts.

    Args:
        path: The folder to make.
        n_features: How many features; feature 3 is titled and fires in hostile strings, those in `dead` never fire.
        n_windows: How many windows the examples come from; every seventh is flagged.
        longest: Tokens of the longest window; the shortest has 24.
        names: What the cache says that token ids stand for, where a model is to read it; else the made-up words.
        manifest: Overrides of the manifest's fields.
    Returns:
        `path`.
    """
    rng = np.random.default_rng(seed)
    vocabulary = fake_vocabulary()
    size = len(vocabulary)
    hostile = vocabulary.bytes_of.index(HOSTILE[0])
    emoji = vocabulary.bytes_of.index("😀".encode()[:1])
    lengths = rng.integers(24, longest + 1, n_windows)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # two thirds words, so that it reads like something
    tokens = np.where(
        rng.random(starts[-1]) < 0.7, rng.integers(9, hostile, starts[-1]), rng.integers(2, size, starts[-1])
    )
    scored = np.ones(starts[-1], np.uint8)
    for start in starts[:-1]:
        tokens[start : start + 3] = (0, 9, 2)
        tokens[start + 10 : start + 14] = np.arange(emoji, emoji + 4)
        tokens[start + 14 : start + 14 + 3] = (hostile, hostile + 1, hostile + 2)
        scored[start : start + 3] = 0
    windows = {
        "tokens": tokens.astype(token_dtype(size)),
        "starts": starts.astype(np.int64),
        "document": np.arange(n_windows, dtype=np.int32),
        "offset": np.zeros(n_windows, np.int32),
        "scored": scored,
        "flagged": (np.arange(n_windows) % 7 == 6).astype(np.uint8),
    }
    examples: dict[str, list[Any]] = {
        k: [] for k in ("feature", "rank", "kind", "interval", "window", "peak", "value", "positions", "values")
    }
    maxima = np.round(rng.uniform(4, 40, n_features), 2)
    density = np.sort(10 ** rng.uniform(-4, -1, n_features))[::-1].copy()
    for feature in range(n_features):
        if feature in dead:
            continue
        kinds = [("top", -1)] * 24 + [("interval", k) for k in range(5) for _ in range(4)]
        order = rng.permutation(n_windows)
        for rank, (kind, interval) in enumerate(kinds):
            window = int(order[rank % n_windows])
            top = maxima[feature] * (1 - 0.02 * rank if kind == "top" else (interval + rng.uniform(0.1, 1)) / 5)
            at = np.unique(np.append(rng.integers(3, lengths[window], 3), 14 if feature == 3 else 3 + feature % 20))
            values = rng.uniform(0.05, 0.9, len(at)) * top
            peak = int(np.flatnonzero(at == 14)[0]) if feature == 3 else int(rng.integers(len(at)))
            values[peak] = top
            row = (feature, rank, kind, interval, window, int(at[peak]), top, at.tolist(), values.tolist())
            for name, value in zip(examples, row, strict=True):
                examples[name].append(value)
    alive = np.array([f not in dead for f in range(n_features)])
    active = np.where(alive, np.maximum(1, density * 1_600), 0).astype(np.int64)
    ids = [rng.choice(np.arange(9, size), 10, replace=False).tolist() for _ in range(n_features)]
    down = [rng.choice(np.arange(9, size), 10, replace=False).tolist() for _ in range(n_features)]
    near = [rng.permutation(np.delete(np.arange(n_features), f))[:8].tolist() for f in range(n_features)]
    falling = [np.linspace(0.9, 0.1, min(8, n_features - 1)).tolist()] * n_features
    best: list[tuple[int, int] | None] = [None] * n_features
    for feature, rank, window, peak in zip(
        examples["feature"], examples["rank"], examples["window"], examples["peak"], strict=True
    ):
        if rank == 0:
            best[feature] = (window, peak)

    def around(feature: int, first: int, last: int) -> str:
        where = best[feature]
        if where is None:
            return ""
        start, stop = starts[where[0] : where[0] + 2]
        at = start + where[1]
        return vocabulary.text(tokens[max(start, at + first) : min(stop, at + last)].tolist())

    histogram = np.zeros((n_features, HISTOGRAM_BINS), np.int64)
    for feature in np.flatnonzero(alive):
        shape = np.exp(-np.arange(HISTOGRAM_BINS) / 8)
        histogram[feature] = rng.multinomial(active[feature], shape / shape.sum())
    features = {
        "index": np.arange(n_features),
        "density": np.where(alive, density, 0.0),
        "max": np.where(alive, maxima, 0).astype(np.float32),
        "mean_active": np.where(alive, maxima * 0.3, 0).astype(np.float32),
        "q50": np.where(alive, maxima * 0.25, 0).astype(np.float32),
        "q90": np.where(alive, maxima * 0.6, 0).astype(np.float32),
        "q99": np.where(alive, maxima * 0.9, 0).astype(np.float32),
        "tokens_active": active,
        "documents_active": np.minimum(active, 40),
        "histogram": histogram.tolist(),
        "promoted": ids,
        "promoted_logits": [np.linspace(2.0, 0.5, 10).tolist()] * n_features,
        "suppressed": down,
        "suppressed_logits": [np.linspace(-2.0, -0.5, 10).tolist()] * n_features,
        "neighbours": near,
        "neighbours_cosine": falling,
        "coactive": [n[::-1] for n in near],
        "coactive_jaccard": falling,
        "title": [
            HOSTILE[0].decode() if f == 3 else ", ".join(vocabulary.piece(i).strip() for i in ids[f][:3])
            for f in range(n_features)
        ],
        "context": [around(f, -8, 3) for f in range(n_features)],
    }
    write_cache(path, fake_manifest(n_features, **manifest), features, examples, windows, names or vocabulary)
    return path
