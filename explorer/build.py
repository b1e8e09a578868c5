"""Corpus to cache: every window goes through the model once, and all statistics of all features come out of that pass."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from explorer import titles
from explorer.cache import write_cache
from explorer.corpus import chunks
from explorer.errors import CacheError, CorpusError, SaeError
from explorer.evidence import SCORED, SINK_FACTOR, EvidenceReader, count
from explorer.logits import logit_effects
from explorer.model import LanguageModel
from explorer.neighbours import nearest
from explorer.offensive import flag
from explorer.records import Document
from explorer.sae import SparseCoder
from explorer.schema import (
    HISTOGRAM_BINS,
    INTERVAL_EXAMPLES,
    INTERVALS,
    QUANTILES,
    TOP_EXAMPLES,
    Manifest,
    rounded,
    token_dtype,
)
from explorer.statistics import Codes, Partial, accumulate, coactive, merge, quantiles, rebin
from explorer.text import Vocabulary
from explorer.windows import Windows

LISTED = 10  # promoted and suppressed tokens, neighbours, co-active features
REPEATED = 8  # two top examples may not share their last so many tokens up to the peak
_STATE_EVERY = 4  # chunks between two notes of the merged state
_VERSIONS = ("persona-explorer", "torch", "transformers", "transformer-lens", "sae-lens")


def build(
    model: LanguageModel,
    coder: SparseCoder,
    documents: Iterable[Document],
    out: Path,
    *,
    corpus: str = "",
    context_size: int = 128,
    sink_factor: float = SINK_FACTOR,
    work: Path | None = None,
    resume: bool = True,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Build a feature cache, or go on with one that was cut off.

    Args:
        documents: The corpus; the same one when it is called again.
        out: The cache's folder; it holds the old cache or the new one, or for the moment of the change none.
        corpus: Name of the corpus, for the manifest.
        work: Where the unfinished state lies; beside `out` by default, removed at the end.
        resume: Go on with an unfinished build; otherwise it is forgotten.
        progress: Called with tokens so far and 0, since the end is not known.
    Returns:
        `out`.
    Raises:
        CorpusError: If no token of the corpus is evidence.
        SaeError: If the SAE does not read what the model gives.
    """
    state = work or out.parent / f".{out.name}.work"
    key = {"model": model.fingerprint, "sae": coder.fingerprint, "hook": coder.hook_point, "context": context_size}
    key["dtype"] = str(model.dtype)
    if not resume:
        _forget(state)
    note, partial = _resume(state, {**key, "sink_factor": sink_factor, "corpus": corpus})
    reader = EvidenceReader(model, coder.hook_point, sink_factor=sink_factor, median_norm=note["median_norm"])
    digest = note["sha256"]
    cuts = chunks(documents, model.vocabulary.special, context_size=context_size)
    again = ""
    for number, windows in enumerate(cuts):
        if number < note["chunks"]:  # cut again only to see that it is the same corpus
            again = _chain(again, windows)
            if number + 1 == note["chunks"] and again != digest:
                raise CacheError(
                    f"{state} holds the unfinished build of another corpus",
                    expected="the corpus that it was begun with",
                    do=f"Remove {state} to begin again",
                )
            continue
        pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for place, resid in reader.read(windows):
            acts = coder.encode(resid)
            active = torch.nonzero(acts, as_tuple=True)
            at, feature, value = (t.cpu().numpy() for t in (*active, acts[active].float()))
            pieces.append((place[at], feature, value))
        joined = [np.concatenate(column) for column in zip(*pieces, strict=True)] if pieces else [np.zeros(0)] * 3
        codes = Codes(joined[0].astype(np.int64), joined[1].astype(np.int32), joined[2].astype(np.float32))
        part = accumulate(windows, codes, int((windows.evidence == SCORED).sum()), coder.n_features)
        partial = part if partial is None else merge(partial, part)
        digest = _chain(digest, windows)
        note["chunks"] += 1
        note["windows"] += len(windows)
        note["tokens"] += len(windows.tokens)
        note["excluded"] = {k: note["excluded"].get(k, 0) + v for k, v in count(windows).items()}
        note |= {"median_norm": reader.median_norm, "sha256": digest}
        if note["chunks"] % _STATE_EVERY == 0:
            _save(state, note, partial)
        progress(note["tokens"], 0)
    if partial is None or not partial.tokens[0]:
        raise CorpusError("No token of the corpus is evidence", expected="a corpus with text", do="Check the corpus")
    if not partial.active.any():
        raise SaeError(
            f"No feature of {coder.source} is active on the corpus",
            expected="the SAE's own model, hook point and precision",
            do="Check which model and hook point it was trained on",
        )
    sae = Path(coder.source)
    inside = out.resolve() in sae.resolve().parents  # a world's SAE already lies in it
    name = sae.name if sae.is_dir() else coder.source  # folders of this machine mean nothing on another
    manifest = Manifest(
        model=model.name, model_fingerprint=model.fingerprint, sae=name, sae_fingerprint=coder.fingerprint,
        architecture=coder.architecture, n_features=coder.n_features, hook_point=coder.hook_point,
        dtype=str(model.dtype).removeprefix("torch."), corpus=corpus, corpus_sha256=digest,
        documents=int(partial.documents[0]), windows=note["windows"], tokens_seen=note["tokens"],
        tokens_scored=int(partial.tokens[0]), tokens_excluded=note["excluded"], sink_factor=sink_factor,
        median_norm=float(note["median_norm"]), context_size=context_size, command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in _VERSIONS},
    )  # fmt: skip
    examples, windows = _examples(partial, coder.n_features, model.vocabulary)
    features = _features(partial, model, coder, examples, windows)
    write_cache(
        out, manifest, features, examples, windows, model.vocabulary, sae=sae if sae.is_dir() and not inside else None
    )
    _forget(state)
    if not work and state.exists() and not any(state.iterdir()):
        state.rmdir()
    return out


def _chain(digest: str, windows: Windows) -> str:
    """Hash over the token ids of all windows so far."""
    return hashlib.sha256(digest.encode() + windows.tokens.tobytes()).hexdigest()


def _resume(state: Path, key: dict[str, Any]) -> tuple[dict[str, Any], Partial | None]:
    """The noted state, if it belongs to this build."""
    fresh = {"key": key, "chunks": 0, "windows": 0, "tokens": 0, "excluded": {}, "median_norm": None, "sha256": ""}
    try:
        note = json.loads((state / "state.json").read_text(encoding="utf-8"))
        arrays = load_file(state / "state.safetensors")
        if note["key"] == key and int(arrays.pop("chunks")[0]) == note["chunks"]:
            return note, Partial(**arrays)
    except (OSError, ValueError, KeyError, SafetensorError):
        pass  # nothing there, or a note that was cut off: begin again
    return fresh, None


def _forget(state: Path) -> None:
    for name in ("state.json", "state.safetensors"):
        (state / name).unlink(missing_ok=True)


def _save(state: Path, note: dict[str, Any], partial: Partial) -> None:
    state.mkdir(parents=True, exist_ok=True)
    try:
        save_file({**partial.arrays(), "chunks": np.array([note["chunks"]])}, state / "state.safetensors.partial")
        (state / "state.json.partial").write_text(json.dumps(note), encoding="utf-8")
        for name in ("state.safetensors", "state.json"):
            (state / f"{name}.partial").replace(state / name)
    except OSError as error:
        raise CacheError(
            f"{state} cannot be written ({error})", do="Free space and run the same command again"
        ) from error


def _examples(part: Partial, n_features: int, vocabulary: Vocabulary) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Choose the examples of every feature, and the windows that they need."""
    row_of = {int(index): row for row, index in enumerate(part.index)}
    rows: list[tuple[int, int, str, int, int]] = []  # feature, rank, kind, interval, hit
    order = np.lexsort((part.hit_window, -part.hit_best, part.hit_feature))
    bounds = np.searchsorted(part.hit_feature[order], np.arange(n_features + 1))
    for feature in range(n_features):
        hits = order[bounds[feature] : bounds[feature + 1]]
        said: set[bytes] = set()  # words up to the peak, of all examples of the feature
        top = _distinct(part, hits, row_of, said)
        rows += [(feature, rank, "top", -1, hit) for rank, hit in enumerate(top)]
        rank = len(top)
        fifth = np.ceil(part.hit_best[hits] / part.maximum[feature] * INTERVALS).clip(1, INTERVALS).astype(int) - 1
        for interval in range(INTERVALS):
            pool = hits[fifth == interval]
            for hit in _unsaid(part, pool[np.argsort(part.hit_hash[pool], kind="stable")], row_of, said):
                rows.append((feature, rank, "interval", interval, hit))
                rank += 1
    chosen = np.array([row[4] for row in rows], np.int64)
    used = np.unique([row_of[int(w)] for w in part.hit_window[chosen]])
    kept = part.windows.take(used)
    new_row = {int(part.index[row]): at for at, row in enumerate(used)}
    spans = [slice(part.hit_starts[h], part.hit_starts[h + 1]) for h in chosen]
    examples = {
        "feature": [r[0] for r in rows], "rank": [r[1] for r in rows], "kind": [r[2] for r in rows],
        "interval": [r[3] for r in rows], "window": [new_row[int(w)] for w in part.hit_window[chosen]],
        "peak": part.hit_peak[chosen], "value": rounded(part.hit_best[chosen]),
        "positions": [part.hit_position[s] for s in spans], "values": [rounded(part.hit_value[s]) for s in spans],
    }  # fmt: skip
    texts = [vocabulary.text(kept.tokens[kept.starts[r] : kept.starts[r + 1]].tolist()) for r in range(len(kept))]
    windows = {
        "tokens": kept.tokens.astype(token_dtype(len(vocabulary))), "starts": kept.starts, "document": kept.document,
        "offset": kept.offset, "scored": (kept.evidence == SCORED).astype(np.uint8),
        "flagged": np.array([flag(text) for text in texts], np.uint8),
    }  # fmt: skip
    return examples, windows


def _distinct(part: Partial, hits: np.ndarray, row_of: dict[int, int], said: set[bytes]) -> list[int]:
    """The strongest hits, no two from one document and no two with the same words up to the peak; these are added to `said`."""
    found: list[int] = []
    documents: set[int] = set()
    for hit in hits:
        phrase = _phrase(part, hit, row_of)
        if int(part.hit_document[hit]) in documents or phrase in said:
            continue
        documents.add(int(part.hit_document[hit]))
        said.add(phrase)
        found.append(int(hit))
        if len(found) == TOP_EXAMPLES:
            break
    return found


def _unsaid(part: Partial, hits: np.ndarray, row_of: dict[int, int], said: set[bytes]) -> list[int]:
    """The first hits whose words up to the peak no example of the feature has had; they are added to `said`."""
    found: list[int] = []
    for hit in hits:
        phrase = _phrase(part, hit, row_of)
        if phrase not in said:
            said.add(phrase)
            found.append(int(hit))
        if len(found) == INTERVAL_EXAMPLES:
            break
    return found


def _phrase(part: Partial, hit: int, row_of: dict[int, int]) -> bytes:
    """The last `REPEATED` tokens of a hit, up to its peak."""
    start = part.starts[row_of[int(part.hit_window[hit])]]
    stop = start + part.hit_peak[hit] + 1
    return part.tokens_of[max(start, stop - REPEATED) : stop].tobytes()


def _features(
    part: Partial, model: LanguageModel, coder: SparseCoder, examples: dict[str, Any], windows: dict[str, np.ndarray]
) -> dict[str, Any]:
    """One column after the other of features.parquet."""
    vocabulary, n = model.vocabulary, coder.n_features
    usable = torch.tensor([bool(b) and i not in vocabulary.special for i, b in enumerate(vocabulary.bytes_of)])
    unembedding = model.unembedding().cpu()
    directions = coder.directions().cpu().float()
    up, up_logits, down, down_logits = logit_effects(directions, unembedding, usable[: len(unembedding)], LISTED)
    near, cosines = nearest(directions, LISTED)
    together, shares = coactive(part, n, LISTED)
    q = quantiles(part.histogram, part.maximum, QUANTILES)
    peaks, lines = titles.words(examples, windows, vocabulary, n)
    named = [
        titles.title(words, [vocabulary.piece(t).strip() for t in up[f].tolist()]) for f, words in enumerate(peaks)
    ]
    return {
        "index": np.arange(n), "density": part.active / max(1, int(part.tokens[0])), "max": part.maximum,
        "mean_active": np.divide(part.total, part.active, out=np.zeros(n), where=part.active > 0).astype(np.float32),
        "q50": q[:, 0], "q90": q[:, 1], "q99": q[:, 2], "tokens_active": part.active, "documents_active": part.documents_active,
        "histogram": rebin(part.histogram, part.maximum, HISTOGRAM_BINS).tolist(),
        "promoted": up.tolist(), "promoted_logits": up_logits.tolist(),
        "suppressed": down.tolist(), "suppressed_logits": down_logits.tolist(),
        "neighbours": near.tolist(), "neighbours_cosine": cosines.tolist(), "coactive": together, "coactive_jaccard": shares,
        "title": named, "context": ["\n".join(texts) for texts in lines],
    }  # fmt: skip
