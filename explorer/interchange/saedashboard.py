"""SAEDashboard's `batch-N.json`, both ways: a file holds a batch of features of one SAE, each with its figures and its texts.

Older files name the SAE `sae_set` alone, newer ones add `sae_id_suffix` and a `vector` a feature. A text that shows a feature in several
ranges of activation stands in the file once a range, and texts on which it is silent fill up the places; `browsable` tells them apart.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache import Cache
from explorer.decoder import decoder_row
from explorer.errors import ExplorerError
from explorer.files import write_whole
from explorer.interchange.reading import (
    bars,
    clean,
    count,
    index,
    number,
    numbers,
    plain_name,
    read_json,
    refuse,
    strings,
    text_row,
)
from explorer.interchange.records import Row, Sheet, Source
from explorer.interchange.spelling import spelled
from explorer.records import Example
from explorer.schema import INTERVALS

EXPECTED = "SAEDashboard's batch-N.json: an object with model_id, layer and features"
PER_FILE = 128
"""Features in one file that is written here."""
_TOP = -1  # bin_min of the strongest texts


def is_batch(value: Any) -> bool:
    """Whether a JSON value is such a file."""
    return isinstance(value, dict) and {"model_id", "layer", "features"} <= value.keys()


def read(paths: Sequence[Path], *, progress: Callable[[int, int], None] = lambda done, total: None) -> Source:
    """Read files of one SAE.

    Raises:
        ForeignError: If one is no such file, or speaks of another SAE than the first.
    """
    source: Source | None = None
    for done, path in enumerate(paths):
        value = read_json(path, EXPECTED)
        if not is_batch(value):
            raise refuse(path, EXPECTED, f"JSON, {_outline(value)}")
        if not isinstance(value["features"], list):
            raise refuse(path, EXPECTED, "JSON whose features are no list")
        found = _source(value, path)
        if source is None:
            source = found
        elif (source.model, source.source) != (found.model, found.source):
            raise refuse(path, f"{source.model}, {source.source}", f"about {found.model}, {found.source}")
        for entry in value["features"]:
            sheet = _sheet(entry, path)
            source.sheets[sheet.index] = sheet
        progress(done + 1, len(paths))
    if source is None:
        raise AssertionError("no file was given")
    return source


def _outline(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value))[:5]) or 'nothing in it'}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list) else "")


def _source(value: dict[str, Any], path: Path) -> Source:
    asked = ("model_id", "layer", "sae_set", "sae_id_suffix")
    model, layer, sae, suffix = (plain_name(value.get(what), what, path) for what in asked)
    if not model:
        raise refuse(path, EXPECTED, "JSON with an empty model_id")
    first = value["features"][0] if value["features"] else {}
    first = first if isinstance(first, dict) else {}
    prompts, size = (count(first.get(what), what, path) for what in ("n_prompts_total", "n_tokens_in_prompt"))
    source = f"{layer}-{sae}" if sae else layer
    return Source(
        "SAEDashboard",
        model,
        f"{source}__{suffix}" if suffix else source,
        f"layer {layer}",
        clean(str(first.get("dataset") or "")),
        prompts,
        size,
    )


def _sheet(entry: Any, path: Path) -> Sheet:
    if not isinstance(entry, dict) or "feature_index" not in entry or not isinstance(entry.get("activations"), list):
        raise refuse(path, "features with feature_index and activations", "JSON with a feature that lacks one of them")
    rows, tops = [], []
    for found in entry["activations"]:
        if not isinstance(found, dict):
            raise refuse(path, "activations with tokens and values", "JSON with an activation that is no object")
        tokens, values = text_row(found.get("tokens"), found.get("values"), path)
        low = number(found.get("bin_min"), "bin_min", path)
        if low == _TOP:
            tops.append(number(found.get("bin_max"), "bin_max", path))
        if tokens:
            rows.append(Row(tokens, values, low == _TOP))
    return Sheet(
        index(entry["feature_index"], path),
        number(entry.get("frac_nonzero"), "frac_nonzero", path),
        max(tops, default=0.0),
        bars(entry.get("freq_hist_data_bar_values"), entry.get("freq_hist_data_bar_heights"), path),
        _pairs(entry, "pos", path),
        _pairs(entry, "neg", path),
        rows=tuple(rows),
    )


def _pairs(entry: dict[str, Any], which: str, path: Path) -> tuple[tuple[str, float], ...]:
    tokens = strings(entry.get(f"{which}_str"), f"{which}_str", path)
    return tuple(zip(tokens, numbers(entry.get(f"{which}_values"), f"{which}_values", path), strict=False))


def write(
    cache: Cache,
    features: Sequence[int],
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write features as SAEDashboard does: one file if `out` ends in .json, else a folder of batches.

    Raises:
        OSError: If it cannot be written.
    """
    whole = out.suffix == ".json"
    batches = [features] if whole else [features[a : a + PER_FILE] for a in range(0, len(features), PER_FILE)]
    written, done = [], 0
    for at, batch in enumerate(batches):
        entries = []
        for feature in batch:
            entries.append(_entry(cache, feature))
            done += 1
            progress(done, len(features))
        path = out if whole else out / f"batch-{at}.json"
        write_whole(path, json.dumps({**names(cache), "features": entries}))
        written.append(path)
    return written


def names(cache: Cache) -> dict[str, Any]:
    """How such files name the SAE of a cache."""
    made = cache.manifest
    model = made.model.rstrip("/").rsplit("/", 1)[-1]
    imported = re.fullmatch(r"(\d+)-(.+?)(?:__(.+))?", made.sae)
    if imported:  # a cache that was made from such files keeps their names
        return {
            "model_id": model,
            "layer": int(imported[1]),
            "sae_set": imported[2],
            "sae_id_suffix": imported[3],
        }
    place = re.search(r"\d+", made.hook_point)
    sae = re.sub(r"[^A-Za-z0-9._-]+", "-", made.sae.rstrip("/").rsplit("/", 1)[-1])
    return {"model_id": model, "layer": int(place[0]) if place else 0, "sae_set": sae, "sae_id_suffix": None}


def figures(cache: Cache, feature: int) -> dict[str, Any]:
    """What both SAEDashboard and Neuronpedia call the figures of a feature."""
    found = cache.feature(feature)
    width = found.max / max(len(found.histogram), 1)
    bars = [] if found.dead else [exact((at + 0.5) * width) for at in range(len(found.histogram))]
    said: dict[str, Any] = {}
    for name, pairs in (("neg", found.suppressed), ("pos", found.promoted)):
        said[f"{name}_str"] = [spelled(cache.vocabulary.bytes_of[token]) for token, _ in pairs]
        said[f"{name}_values"] = [exact(logit) for _, logit in pairs]
    empty = ("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices")
    empty += ("correlated_neurons_l1", "correlated_neurons_pearson", "logits_hist_data_bar_heights")
    said |= {name: [] for name in (*empty, "logits_hist_data_bar_values", "decoder_weights_dist")}
    heights = [] if found.dead else list(found.histogram)
    return {
        **said,
        "frac_nonzero": found.density,
        "freq_hist_data_bar_values": bars,
        "freq_hist_data_bar_heights": heights,
        "vector": vector(cache, feature),
    }


def _entry(cache: Cache, feature: int) -> dict[str, Any]:
    made = cache.manifest
    related = {f"correlated_features_{name}": [] for name in ("indices", "l1", "pearson")}
    return {
        "feature_index": feature,
        **figures(cache, feature),
        **related,
        "n_prompts_total": made.windows,
        "n_tokens_in_prompt": made.context_size,
        "dataset": made.corpus,
        "activations": [_activation(*row) for row in binned(cache, cache.examples(feature), feature)],
    }


def binned(
    cache: Cache, examples: Iterable[Example], feature: int
) -> Iterable[tuple[list[str], Example, float, float, float]]:
    """(tokens as they are spelled, example, lower end of its range, upper end, share of all tokens in it); -1, maximum, -1 for the top."""
    found = cache.feature(feature)
    shares = _shares(found.histogram, cache.manifest.tokens_scored)
    for example in examples:
        tokens = [spelled(cache.vocabulary.bytes_of[token]) for token in example.tokens]
        if example.kind == "top":
            yield tokens, example, _TOP, found.max, -1
        else:
            low, high = (found.max * (example.interval + end) / INTERVALS for end in (0, 1))
            yield tokens, example, low, high, shares[example.interval]


def _shares(histogram: Sequence[int], scored: int) -> list[float]:
    """Share of all scored tokens in each fifth of the range; the silent ones count to the lowest."""
    counts = np.array(histogram or [0] * INTERVALS).reshape(INTERVALS, -1).sum(1)
    shares = counts / max(scored, 1)
    shares[0] = 1 - shares[1:].sum()
    return shares.tolist()


def _activation(tokens: list[str], example: Example, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": exact(low), "bin_max": exact(high), "bin_contains": exact(share), "tokens": tokens,
        "values": [exact(act) for act in example.acts], "qualifying_token_index": example.peak,
        "dfa_values": [], "dfa_maxValue": 0, "dfa_targetIndex": -1,
    }  # fmt: skip


def vector(cache: Cache, feature: int) -> list[float]:
    """The decoder direction of a feature; empty where the SAE does not lie in the cache."""
    try:
        return [exact(value) for value in decoder_row(cache, feature).tolist()]
    except ExplorerError:
        return []


def exact(value: float) -> float:
    """A float32 as the shortest number that reads back as the same one."""
    return float(f"{value:.9g}")
