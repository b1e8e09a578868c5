"""What was found when a cache was last checked against the live model: one JSON file, read without the model.

It lies in the cache's folder beside the files of the manifest and is none of them, so a check never makes a cache look damaged; where that
folder cannot be written, it lies in the user's home.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from explorer.cache import Cache
from explorer.errors import CacheError
from explorer.files import write_whole
from explorer.packaged import HOME_VARIABLE, home

NAME = "parity.json"
State = Literal["ok", "stale", "mismatch", "unchecked"]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a live model and SAE agree with a cache, over a sample of its examples.

    Args:
        ok: Whether they agree as far as the precisions of both allow.
        cause, fix: The likely cause of a disagreement, in words, and what to do; "" where they agree.
        remaining: `error` with the cause undone; nan where none was found.
        windows, tokens, active: Examples read, their scored tokens, and those of them on which the cache or the model has the feature fire.
        error: Summed absolute differences over the active tokens as a share of the summed cached activations.
        mean, worst: Absolute difference on an active token, as a share of the feature's maximum: on average, and at most.
        beyond, tolerance: Share of the active tokens that differ by more than `tolerance` (of the feature's maximum).
        allowed: The largest `beyond` that counts as agreement.
        example: The example with the largest mean difference: feature, rank, tokens, cached, live, scored.
        tested: What was tried to explain a disagreement: name, detail, and the error that remained.
        model_fingerprint, sae_fingerprint: Of those that were at hand.
        corpus_sha256: Of the cache, which may have been built again since.
        dtype, device: What the model ran in, and on.
        created: UTC, ISO 8601.
        versions: Library -> version.
    """

    ok: bool
    cause: str
    fix: str
    remaining: float | None
    windows: int
    tokens: int
    active: int
    error: float
    mean: float
    worst: float
    beyond: float
    tolerance: float
    allowed: float
    example: dict[str, Any]
    tested: list[dict[str, Any]]
    model_fingerprint: str
    sae_fingerprint: str
    corpus_sha256: str
    dtype: str
    device: str
    created: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Badge:
    """The state of a cache's parity in a few words.

    Args:
        state: ok, stale (it was another model, SAE or build), mismatch, or unchecked.
        words: As a tag.
        detail: One sentence more.
        parity: What it stands on.
    """

    state: State
    words: str
    detail: str
    parity: Parity | None = None


def places(cache: Cache) -> tuple[Path, Path]:
    """Where a finding may lie: in the cache's folder, and in the user's home."""
    mark = f"{cache.manifest.sae_fingerprint[:16]}-{cache.manifest.corpus_sha256[:16]}.json"
    return cache.path / NAME, home() / "parity" / mark


def save(cache: Cache, found: Parity) -> Path:
    """Keep a finding, with the cache if its folder can be written, else in the user's home.

    Returns:
        Where it lies.
    Raises:
        CacheError: If neither can be written.
    """
    text = json.dumps(asdict(found), indent=1, allow_nan=False) + "\n"
    beside, own = places(cache)
    try:
        write_whole(beside, text)
    except OSError:
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
            write_whole(own, text)
        except OSError as error:
            raise CacheError(
                f"The finding cannot be kept ({error})", do=f"Set {HOME_VARIABLE} to a folder of yours"
            ) from error
        return own
    return beside


def load(cache: Cache) -> Parity | None:
    """The newest finding on a cache that can be read; None where there is none."""
    found = []
    for path in places(cache):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            found.append(Parity(**{f.name: said[f.name] for f in fields(Parity)}))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged note is no note: the check can be made again
    return max(found, key=lambda one: one.created, default=None)


def badge(cache: Cache) -> Badge:
    """The state of a cache's parity; nothing is loaded but one small file."""
    found, made = load(cache), cache.manifest
    if found is None:
        return Badge("unchecked", "parity not checked", "Nobody has compared this cache with the live model yet.")
    if (found.sae_fingerprint, found.corpus_sha256) != (made.sae_fingerprint, made.corpus_sha256) or (
        found.model_fingerprint != made.model_fingerprint and found.ok
    ):
        return Badge("stale", "parity stale", "The check was of another model, SAE or build: make it again.", found)
    if found.ok:
        return Badge("ok", "parity ok", figures(found), found)
    return Badge("mismatch", "parity wrong", f"{found.cause}. {figures(found)}", found)


def figures(found: Parity) -> str:
    """The numbers of a finding in one sentence."""
    return (
        f"{found.windows:,} examples, {found.active:,} active tokens: mean difference {100 * found.mean:.2g} % of the feature’s maximum, "
        f"{100 * found.beyond:.2g} % of the tokens beyond {100 * found.tolerance:g} % ({found.dtype}, {found.created[:10]})"
    )
