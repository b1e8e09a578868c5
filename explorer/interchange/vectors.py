"""Features and directions as vectors for other programs: safetensors, which is read back here, and GGUF, which llama.cpp steers with.

Both hold what strength 1 adds to the residual stream: a feature's decoder row times its maximum in the corpus, or a direction as it was
found. Where it is added, how long it is in SAE units, and whose it is stands beside it.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache import Cache
from explorer.decoder import decoder_row
from explorer.directions import Direction, facts_of
from explorer.directions import read as read_direction
from explorer.directions import write as write_direction
from explorer.errors import SteeringError, UsageError
from explorer.interchange.reading import refuse
from explorer.records import DIRECTION_NAME

GGUF_ARCHITECTURE = "controlvector"
_TENSOR = re.compile(r"direction\.(\d+)")
_OURS = "persona_explorer"


def of_feature(cache: Cache, feature: int, *, label: str = "") -> Direction:
    """A feature as a direction: what strength 1 of it adds to the residual stream.

    Args:
        label: What somebody named it.
    Raises:
        UsageError: If there is no such feature, or it never fires: strength 1 would be nothing.
        SaeError: If the SAE does not lie in the cache.
    """
    row, made = decoder_row(cache, feature), cache.manifest
    found = cache.feature(feature)
    if found.max <= 0:
        raise UsageError(
            f"Feature {feature} never fires in the corpus",
            expected="a feature with a maximum, of which strengths are multiples",
            do="Export a live feature",
        )
    facts = {
        "feature": feature, "max_activation": found.max, "unit": "SAE units; strength 1 is the maximum in the corpus",
        "sae": made.sae, "sae_fingerprint": made.sae_fingerprint, "corpus": made.corpus,
    }  # fmt: skip
    vector = (row.astype(np.float32) * np.float32(found.max)).astype(np.float32)
    title = label or found.title or f"Feature {feature}"
    return Direction(
        f"feature-{feature}", title, made.hook_point, vector, 0.0, made.model, made.model_fingerprint, facts
    )


def write_safetensors(directions: Sequence[Direction], out: Path) -> list[Path]:
    """Write directions as files that `explorer.directions` reads: into a folder, or one into a file of any name that ends rightly.

    Raises:
        UsageError: If several directions are to go into one file, or the name of the file is none of a direction.
        SteeringError: If a file cannot be written.
    """
    if out.suffix != ".safetensors":
        return [write_direction(out, direction) for direction in directions]
    if len(directions) > 1:
        raise UsageError(
            f"{len(directions)} vectors do not go into one file", do="Name a folder, not a .safetensors file"
        )
    if not DIRECTION_NAME.fullmatch(out.stem):
        raise UsageError(
            f"{out.stem!r} cannot name a vector", expected="small letters, digits and hyphens", do="Rename the file"
        )
    from dataclasses import replace

    return [write_direction(out.parent, replace(directions[0], name=out.stem))]


def write_gguf(directions: Sequence[Direction], out: Path, *, model_hint: str = "") -> list[Path]:
    """Write directions as GGUF control vectors, one file each: `out` is a folder, or a .gguf file for one.

    Args:
        model_hint: The architecture that the vector is for, in llama.cpp's words; the model's name by default.
    Raises:
        UsageError: If several are to go into one file, or a direction does not lie behind a block that llama.cpp steers.
    """
    if out.suffix == ".gguf" and len(directions) > 1:
        raise UsageError(f"{len(directions)} vectors do not go into one file", do="Name a folder, not a .gguf file")
    written = []
    for direction in directions:
        path = out if out.suffix == ".gguf" else out / f"{direction.name}.gguf"
        _gguf(direction, path, model_hint or direction.model or "any")
        written.append(path)
    return written


def block_of(hook_point: str) -> int:
    """The block whose output a hook point is, counted from 0: what llama.cpp calls the layer of a direction.

    Raises:
        UsageError: If it is the output of no block, or of the first, which llama.cpp leaves alone.
    """
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook_point)
    block = -1 if found is None else int(found[1]) - (found[2] == "pre")
    if block < 1:
        raise UsageError(
            f"{hook_point} cannot be steered by a GGUF control vector",
            expected="the residual stream behind the second block or a later one",
            do="Export it as safetensors",
        )
    return block


def _gguf(direction: Direction, path: Path, model_hint: str) -> None:
    from gguf import GGUFWriter

    layer = block_of(direction.hook_point)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        writer = GGUFWriter(partial, GGUF_ARCHITECTURE)
        writer.add_string(f"{GGUF_ARCHITECTURE}.model_hint", model_hint)
        writer.add_uint32(f"{GGUF_ARCHITECTURE}.layer_count", 1)
        for name, value in _facts(direction).items():
            writer.add_string(f"{_OURS}.{name}", value)
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(direction.vector, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    except OSError as error:
        raise SteeringError(f"{path} cannot be written ({error})", do="Free space or mend its rights") from error
    finally:
        partial.unlink(missing_ok=True)


def _facts(direction: Direction) -> dict[str, str]:
    return {
        "title": direction.title, "hook_point": direction.hook_point, "base": repr(direction.base), "model": direction.model,
        "model_fingerprint": direction.model_fingerprint, "facts": json.dumps(direction.facts),
    }  # fmt: skip


def read(path: Path) -> list[Direction]:
    """The directions in a file that was written here, or in a GGUF control vector of anybody: one a layer.

    Raises:
        ForeignError, SteeringError: If it holds none.
    """
    return _read_gguf(path) if path.suffix == ".gguf" else [read_direction(path)]


def _read_gguf(path: Path) -> list[Direction]:
    from gguf import GGUFReader

    expected = f"a GGUF file of general.architecture {GGUF_ARCHITECTURE!r} with tensors direction.N"
    try:
        reader = GGUFReader(path)
        said = {name: _text(field) for name, field in reader.fields.items()}
        tensors = {int(found[1]): tensor.data for tensor in reader.tensors if (found := _TENSOR.fullmatch(tensor.name))}
        with np.errstate(all="ignore"):  # what is no number is said below
            # a layer of zeros is one that nothing is added to
            vectors = {layer: np.array(data, np.float32).ravel() for layer, data in tensors.items() if data.any()}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise refuse(path, expected) from error
    if said.get("general.architecture") != GGUF_ARCHITECTURE or not vectors:
        raise refuse(path, expected, f"a GGUF file of general.architecture {said.get('general.architecture')!r}")
    if any(data.dtype.kind != "f" for data in tensors.values()):
        raise refuse(path, expected, "a GGUF file of quantised numbers")
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        raise refuse(path, expected, "a GGUF file with a direction that holds no numbers")
    ours = {name.removeprefix(f"{_OURS}."): value for name, value in said.items() if name.startswith(_OURS)}
    if ours and len(vectors) == 1:
        # GGUF keeps no empty text
        title, model, fingerprint = (ours.get(key, "") for key in ("title", "model", "model_fingerprint"))
        try:
            place = (next(iter(vectors.values())), float(ours["base"]), model, fingerprint)
            return [Direction(_name(path), title, ours["hook_point"], *place, facts_of(ours["facts"]))]
        except (KeyError, ValueError) as error:
            raise refuse(path, expected, f"a GGUF file with facts that cannot be read ({error})") from error
    hint = said.get(f"{GGUF_ARCHITECTURE}.model_hint", "")
    note = {"note": f"from {path.name}, made for {hint or 'any model'}"}
    return [
        Direction(
            _name(path) if len(vectors) == 1 else f"{_name(path)}-{layer}",
            path.stem,
            f"blocks.{layer}.hook_resid_post",
            vector,
            model=hint,
            facts=note,
        )
        for layer, vector in sorted(vectors.items())
    ]


def _name(path: Path) -> str:
    """A direction's name out of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:32] or "vector"


def _text(field: Any) -> str:
    value = field.contents()
    return value if isinstance(value, str) else str(value)
