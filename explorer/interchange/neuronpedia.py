"""Neuronpedia's export, both ways: a folder with features/, activations/ and explanations/, each in gzipped batches of JSON lines.

Beside them lie model.jsonl, source.jsonl and sourceset.jsonl. A feature is named by modelId, layer (the SAE, `LAYER-SET`) and index, which
is a text. Explanations become the labels that came with the cache; labels go out as explanations.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.cache import Cache
from explorer.files import write_whole
from explorer.interchange.reading import (
    bars,
    clean,
    count,
    index,
    number,
    numbers,
    plain_name,
    read_lines,
    refuse,
    strings,
    text_row,
)
from explorer.interchange.records import Row, Said, Sheet, Source
from explorer.interchange.saedashboard import binned, exact, figures, names

if TYPE_CHECKING:
    from explorer.label_files import Label
    from explorer.scores import Score

EXPECTED = "Neuronpedia's JSON lines: objects with modelId, layer and index"
PARTS = ("features", "activations", "explanations")
PER_FILE = 1024
"""Features in one batch."""
_KINDS = {"activations": "values", "explanations": "description", "features": "index"}
"""What tells the kinds of lines apart, the first that fits."""
_SCORES = {"detection": "eleuther_recall", "fuzzing": "eleuther_fuzz", "quiz": "quiz"}
"""Our methods -> what Neuronpedia calls them; a person's test has no name there and keeps its own."""
_TOP = -1


def files_of(folder: Path) -> list[Path]:
    """The batches and facts of a folder as Neuronpedia exports it; none if it is no such folder."""
    batches = [p for part in PARTS for p in sorted(folder.glob(f"{part}*/*.jsonl*"), key=_number)]
    facts = [folder / f"{name}.jsonl" for name in ("source", "model")]
    return [*(p for p in facts if p.is_file()), *batches] if batches else []


def read(paths: Sequence[Path], *, progress: Callable[[int, int], None] = lambda done, total: None) -> Source:
    """Read batches of one SAE; which is which is seen from their lines.

    Raises:
        ForeignError: If one is no such file, or speaks of another SAE than the first.
    """
    key: tuple[str, str] | None = None
    sheets: dict[int, Sheet] = {}
    rows: dict[int, list[Row]] = {}
    said: list[Said] = []
    facts: dict[str, Any] = {}
    for done, path in enumerate(paths):
        for line, entry in read_lines(path, EXPECTED):
            if path.name in ("source.jsonl", "model.jsonl"):
                facts = {**entry, **facts} if path.name == "source.jsonl" else facts
                continue
            kind = next((k for k, sign in _KINDS.items() if sign in entry), "")
            here = (plain_name(entry.get("modelId"), "modelId", path), plain_name(entry.get("layer"), "layer", path))
            if not kind or not all((*here, "index" in entry)):
                raise refuse(path, EXPECTED, f"JSON lines without them in line {line}")
            key = key or here
            if here != key:
                raise refuse(path, " ".join(key), f"about {' '.join(here)} in line {line}")
            feature = index(entry["index"], path)
            if kind == "activations":
                rows.setdefault(feature, []).append(_row(entry, path))
            elif kind == "explanations":
                said.append(_said(feature, entry, path))
            else:
                sheets[feature] = _sheet(feature, entry, path)
                facts.setdefault("hookName", entry.get("hookName"))
        progress(done + 1, len(paths))
    if key is None:
        raise refuse(paths[0], EXPECTED, "a set of files without a line")
    for feature, found in rows.items():
        sheets[feature] = replace(sheets.get(feature, Sheet(feature)), rows=tuple(row for row in found if row.tokens))
    prompts, size = (count(facts.get(n), n, paths[0]) for n in ("num_prompts", "num_tokens_in_prompt"))
    layer = key[1].split("-")[0]
    hook = clean(str(facts.get("hookName") or "")) or (f"layer {layer}" if layer.isdecimal() else key[1])
    dataset = clean(str(facts.get("dataset") or ""))
    return Source("Neuronpedia", *key, hook, dataset, prompts, size, sheets, said)


def _sheet(feature: int, entry: dict[str, Any], path: Path) -> Sheet:
    def pairs(first: list[Any], second: str) -> tuple[tuple[Any, float], ...]:
        return tuple(zip(first, numbers(entry.get(second), second, path), strict=False))

    near = [index(int(i), path) for i in numbers(entry.get("topkCosSimIndices"), "topkCosSimIndices", path)]
    return Sheet(
        feature,
        number(entry.get("frac_nonzero"), "frac_nonzero", path),
        number(entry.get("maxActApprox"), "maxActApprox", path),
        bars(entry.get("freq_hist_data_bar_values"), entry.get("freq_hist_data_bar_heights"), path),
        pairs(strings(entry.get("pos_str"), "pos_str", path), "pos_values"),
        pairs(strings(entry.get("neg_str"), "neg_str", path), "neg_values"),
        tuple((i, cosine) for i, cosine in pairs(near, "topkCosSimValues") if i != feature),
    )


def _row(entry: dict[str, Any], path: Path) -> Row:
    tokens, values = text_row(entry.get("tokens"), entry["values"], path)
    low = entry.get("binMin")  # absent where there are top texts only
    return Row(tokens, values, low is None or number(low, "binMin", path) == _TOP)


def _said(feature: int, entry: dict[str, Any], path: Path) -> Said:
    texts = [entry.get("description"), entry.get("explanationModelName")]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise refuse(path, EXPECTED, f"JSON lines with an explanation of feature {feature} that is no text")
    scores = entry.get("scores")
    told = [
        f"{kind} {number(score.get('value'), 'value', path):.2f}" + (f" by {clean(by)}" if by else "")
        for score in (scores if isinstance(scores, list) else ())
        if isinstance(score, dict)
        and isinstance(kind := score.get("explanationScoreTypeName"), str)
        and isinstance(by := score.get("explanationScoreModelName") or "", str)
    ]
    description, by = (clean(text or "") for text in texts)
    return Said(feature, description, by, ", ".join(map(clean, told)))


def _number(path: Path) -> tuple[str, int, str]:
    found = re.search(r"\d+", path.name)
    return path.parent.name, int(found[0]) if found else 0, path.name


def write(
    cache: Cache,
    features: Sequence[int],
    out: Path,
    *,
    labels: "Mapping[int, Label] | None" = None,
    scores: "Sequence[Score]" = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write features as a folder in Neuronpedia's layout.

    Args:
        labels: Feature -> label; each goes out as an explanation, its author as the one who explains.
        scores: Of labels; those of the very words that go out go with them.
    Raises:
        OSError: If it cannot be written.
    """
    named, made = names(cache), cache.manifest
    source = f"{named['layer']}-{named['sae_set']}" + (f"__{named['sae_id_suffix']}" if named["sae_id_suffix"] else "")
    key = {"modelId": named["model_id"], "layer": source}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {
        "model": {"id": named["model_id"], "displayName": made.model, "displayNameShort": named["model_id"]},
        "source": {
            "id": source, "modelId": named["model_id"], "setName": named["sae_set"], "hasDashboards": True,
            "num_prompts": made.windows, "num_tokens_in_prompt": made.context_size, "dataset": made.corpus, "createdAt": now,
        },
        "sourceset": {"name": named["sae_set"], "modelId": named["model_id"], "description": made.sae, "type": made.architecture},
    }  # fmt: skip
    written = []
    for name, entry in facts.items():
        written.append(_lines(out / f"{name}.jsonl", [entry]))
    done = 0
    for at, start in enumerate(range(0, len(features), PER_FILE)):
        batch = features[start : start + PER_FILE]
        told = [feature for feature in batch if (labels or {}).get(feature) and (labels or {})[feature].label]
        for part, lines in (
            ("features", (_feature(cache, f, key, named["sae_set"]) for f in batch)),
            ("activations", (row for f in batch for row in _activations(cache, f, key, now))),
            ("explanations", (_explanation((labels or {})[f], key, scores) for f in told)),
        ):
            written.append(_lines(out / part / f"batch-{at}.jsonl.gz", lines))
        done += len(batch)
        progress(done, len(features))
    return written


def _lines(path: Path, entries: Iterable[dict[str, Any]]) -> Path:
    raw = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    write_whole(path, gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def _feature(cache: Cache, feature: int, key: dict[str, str], sae_set: str) -> dict[str, Any]:
    found, said = cache.feature(feature), figures(cache, feature)
    return {
        **key, "index": str(feature), "maxActApprox": found.max, **said, "sourceSetName": sae_set,
        "topkCosSimIndices": [i for i, _ in found.neighbours],
        "topkCosSimValues": [exact(cosine) for _, cosine in found.neighbours],
        "hookName": cache.manifest.hook_point, "hasVector": bool(said["vector"]),
        "vectorLabel": None, "vectorDefaultSteerStrength": found.max,
    }  # fmt: skip


def _activations(cache: Cache, feature: int, key: dict[str, str], now: str) -> Iterator[dict[str, Any]]:
    for tokens, example, low, high, share in binned(cache, cache.examples(feature), feature):
        yield {
            "id": f"{key['modelId']}_{key['layer']}_{feature}_{example.rank}", **key, "index": str(feature), "tokens": tokens,
            "values": [exact(act) for act in example.acts], "maxValue": exact(example.value),
            "maxValueTokenIndex": example.peak, "minValue": exact(min(example.acts)), "qualifyingTokenIndex": example.peak,
            "binMin": exact(low), "binMax": exact(high), "binContains": exact(share),
            "dfaValues": [], "dfaTargetIndex": None, "dfaMaxValue": None, "lossValues": [], "createdAt": now,
        }  # fmt: skip


def _explanation(label: "Label", key: dict[str, str], scores: "Sequence[Score]") -> dict[str, Any]:
    made = f"{key['modelId']}_{key['layer']}_{label.feature}_explanation"
    newest = {(s.method, s.who): s for s in scores if (s.feature, s.label) == (label.feature, label.label)}
    return {
        "id": made, **key, "index": str(label.feature), "description": label.label,
        "typeName": None, "explanationModelName": label.author or None, "embedding": None,
        "scores": [
            {
                "id": f"{made}_{at}", "explanationId": made, "value": exact(score.score),
                "explanationScoreTypeName": _SCORES[score.method], "explanationScoreModelName": score.who,
                "jsonDetails": json.dumps({"n": score.n}),
            }
            for at, score in enumerate(newest.values())
        ],
    }  # fmt: skip
