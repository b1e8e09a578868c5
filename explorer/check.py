"""Is a cache what it says it is? Checksums, columns, and its fit to its SAE, its labels, its presets, and a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from explorer.cache import Cache, file_entry
from explorer.errors import ExplorerError
from explorer.schema import EXAMPLE_COLUMNS, EXAMPLES, FEATURE_COLUMNS, FEATURES, WINDOW_ARRAYS, arrow_schema

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Args:
        what: In a few words.
        ok: Whether it holds.
        detail: What was found; what was expected, where it does not hold.
    """

    what: str
    ok: bool
    detail: str


def check(
    path: str | Path, *, model: "LanguageModel | None" = None, coder: "SparseCoder | None" = None
) -> list[Finding]:
    """Check a cache; nothing is changed.

    Args:
        model: Check that the cache was made with it.
        coder: The same of an SAE; without one, the SAE in the cache is checked if there is one.
    Returns:
        One finding a check. A cache that cannot even be opened gives one finding.
    """
    try:
        cache = Cache.open(path)
    except ExplorerError as error:
        return [Finding("opens", False, str(error))]
    made = cache.manifest
    found = [Finding("opens", True, f"format {made.format}, {cache.n_features:,} features"), *_files(cache)]
    for what, test in CHECKS.items():
        found.append(_held(what, lambda test=test: test(cache)))
    if model is not None:
        found.append(_held("model", lambda: _fits(cache, model=(model.name, model.fingerprint))))
    if coder is not None:
        found.append(_held("SAE", lambda: _fits(cache, sae=(coder.source, coder.fingerprint))))
    elif cache.sae_folder:
        found.append(_held("SAE in the cache", lambda: _own_sae(cache)))
    return found


def _held(what: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, test())
    except ExplorerError as error:
        return Finding(what, False, str(error))
    except (AssertionError, OSError, ValueError, KeyError, IndexError) as error:
        return Finding(what, False, str(error) or type(error).__name__)


def _files(cache: Cache) -> Iterator[Finding]:
    for name, entry in cache.manifest.files.items():
        same = file_entry(cache.path / name)["sha256"] == entry["sha256"]
        yield Finding(name, same, f"{entry['bytes']:,} bytes" + ("" if same else ", but not those that were written"))


def _columns(cache: Cache) -> str:
    for name, columns in ((FEATURES, FEATURE_COLUMNS), (EXAMPLES, EXAMPLE_COLUMNS)):
        schema, wanted = pq.read_schema(cache.path / name), arrow_schema(columns)
        for column in wanted:
            at = schema.get_field_index(column.name)
            if at < 0 or schema.field(at).type != column.type:
                has = "no such column" if at < 0 else f"type {schema.field(at).type}"
                raise ValueError(f"{column.name} of {name}: {has}, expected {column.type}")
    if missing := WINDOW_ARRAYS.keys() - cache.windows.keys():
        raise ValueError(f"the windows lack {', '.join(sorted(missing))}")
    return f"{len(FEATURE_COLUMNS)} of features, {len(EXAMPLE_COLUMNS)} of examples, {len(WINDOW_ARRAYS)} arrays of windows"


def _numbers(cache: Cache) -> str:
    """Statistics that cannot all be true together are a damaged or a foreign table."""
    names = ("index", "density", "tokens_active", "mean_active", "max")
    index, density, active, mean, most = (cache.table.column(name).to_numpy() for name in names)
    wrong = {
        "index is not 0, 1, 2, ...": (index != np.arange(cache.n_features)).any(),
        "a density is outside 0 to 1": ((density < 0) | (density > 1)).any(),
        "a feature fires on more tokens than were scored": (active > cache.manifest.tokens_scored).any(),
        "a mean lies above its maximum": (mean > most * 1.001).any(),
    }
    if said := [what for what, is_wrong in wrong.items() if is_wrong]:
        raise ValueError("; ".join(said))
    lists = cache.table.column("histogram").combine_chunks()
    counts = np.asarray(lists.flatten()).reshape(cache.n_features, -1).sum(1)
    if (counts != active).any():
        raise ValueError("a histogram does not add up to the tokens on which its feature fires")
    return f"{int((active > 0).sum()):,} features fire"


def _examples(cache: Cache) -> str:
    """Every example lies in a window that is there, fires where it says, and peaks on a scored token."""
    table = pq.read_table(cache.path / EXAMPLES, columns=["feature", "window", "peak", "kind"])
    windows = cache.windows
    at, peak, feature = (table.column(name).to_numpy() for name in ("window", "peak", "feature"))
    if len(at) == 0:
        return "none"
    if at.max() >= len(windows["starts"]) - 1 or at.min() < 0 or feature.max() >= cache.n_features:
        raise ValueError("an example names a window or a feature that is not there")
    places = windows["starts"][at] + peak
    if (places >= windows["starts"][at + 1]).any():
        raise ValueError("an example peaks behind the end of its window")
    unscored = int((windows["scored"][places] == 0).sum())
    if unscored:
        raise ValueError(f"{unscored:,} examples peak on a token that is not evidence")
    top = np.asarray(table.column("kind").to_pylist()) == "top"
    pairs = np.stack([feature[top], windows["document"][at[top]]])
    if np.unique(pairs, axis=1).shape[1] != pairs.shape[1]:
        raise ValueError("a feature has two top examples from one document")
    return f"{len(at):,} in {len(windows['starts']) - 1:,} windows"


def _labels(cache: Cache) -> str:
    from explorer.label_files import read_file

    if cache.bundled_labels is None:
        return "none came with the cache"
    labels = read_file(cache.bundled_labels)
    foreign = sum(label.sae != cache.manifest.sae_fingerprint for label in labels)
    beyond = sum(not 0 <= label.feature < cache.n_features for label in labels)
    if foreign or beyond:
        raise ValueError(f"{foreign} labels are of another SAE, {beyond} of a feature that is not there")
    return f"{len(labels):,} came with the cache"


def _presets(cache: Cache) -> str:
    from explorer.directions import bundled
    from explorer.presets import load

    presets = [preset for preset in load(cache) if preset.bundled]
    edits, there = [e for p in presets for e in p.edits], bundled(cache)
    silent = sorted({e.feature for e in edits if not e.direction and cache.feature(e.feature).max <= 0})
    if silent:
        raise ValueError(f"a preset steers features that never fire: {', '.join(map(str, silent))}")
    if lost := sorted({e.target for e in edits if e.direction and e.direction not in there}):
        raise ValueError(f"a preset steers along directions that did not come with the cache: {', '.join(lost)}")
    return f"{len(presets)} came with the cache"


def _directions(cache: Cache) -> str:
    """Every direction can be read and belongs to the cache's model."""
    from explorer.directions import bundled, known

    known(cache)
    return f"{len(bundled(cache))} came with the cache"


def _meanings(cache: Cache) -> str:
    from explorer.meaning import MEANINGS, load

    if not (cache.path / MEANINGS).is_file():
        return f"none; persona-explorer index {cache.path} makes them"
    return f"{len(load(cache)):,} features can be found by meaning"


def _negatives(cache: Cache) -> str:
    from explorer.snippets import NEGATIVES, negatives

    path = cache.path / NEGATIVES
    if not path.is_file():
        return f"none; persona-explorer negatives {cache.path} finds some"
    if wrong := negatives(cache, 0)[1]:
        raise ValueError(wrong)
    return f"{pq.read_metadata(path).num_rows:,} spans on which a feature is silent, for testing labels"


def _map(cache: Cache) -> str:
    from explorer.mapping import load

    found = load(cache)
    if found is None:
        return f"none; persona-explorer map {cache.path} makes one"
    return f"{len(found.places):,} features by {found.facts.method}"


def _own_sae(cache: Cache) -> str:
    from explorer.sae import SparseCoder

    coder = SparseCoder.load(cache.sae_folder or "", hook_point=cache.manifest.hook_point)
    return _fits(cache, sae=(coder.source, coder.fingerprint))


def _fits(cache: Cache, *, model: tuple[str, str] | None = None, sae: tuple[str, str] | None = None) -> str:
    cache.require(model=model, sae=sae)
    name, fingerprint = model or sae or ("", "")
    return f"{name} ({fingerprint[:12]}), with which the cache was made"


def beside(cache: Cache) -> list[Finding]:
    """What `BESIDE` says of a cache."""
    return [_held(what, lambda test=test: test(cache)) for what, test in BESIDE.items()]


BESIDE: dict[str, Callable[[Cache], str]] = {"meanings": _meanings, "negatives": _negatives, "map": _map}
"""What lies beside a cache and was made of it: one that is missing is no fault, one that is not of this cache is."""
CHECKS: dict[str, Callable[[Cache], str]] = {
    "columns": _columns,
    "numbers": _numbers,
    "examples": _examples,
    "labels": _labels,
    "presets": _presets,
    "directions": _directions,
    **BESIDE,
}
"""What is checked of every cache, by name; each says what it found, or raises what is wrong."""
