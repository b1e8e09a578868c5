"""Does the live model still do what the cache says? Cached examples are read again; where they differ, causes are tried one by one.

Every cause is tried by computing the activations as they would be if it were the reason, and counts for what it leaves unexplained.
"""

import copy
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import numpy as np
import torch

from explorer.cache import Cache
from explorer.errors import CacheError, ExplorerError
from explorer.model import LanguageModel
from explorer.parity_file import Parity
from explorer.records import Example
from explorer.sae import SparseCoder

EXAMPLES, TRIED_ON = 64, 16  # examples read; of them, those that a cause is tried on
TOLERANCE = {"float32": (0.005, 0.02), "float16": (0.02, 0.05), "bfloat16": (0.05, 0.05)}
"""Precision -> difference on a token that counts as agreement, as a share of the feature's maximum, and the share of the active tokens that
may differ by more: near the threshold of a top-k rule rounding alone switches features on and off."""
EXPLAINS = 0.35  # a cause is named if it leaves no more than this share of the error
_COPIED = 1_500_000_000  # parameters of a model that is copied to be tried in another precision
_VERSIONS = ("persona-explorer", "torch", "transformers", "sae-lens")
Reads = Callable[[Example], np.ndarray]
"""An example -> the feature's activation on each of its tokens `[pos]`; nan where it cannot be told."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Something that may have gone wrong.

    Args:
        name: One of `causes`, for programs.
        cause, fix: What it would mean, and what to do, each a sentence without a full stop.
        read: The activations as they would be then; None where only a fingerprint speaks for it.
        precision: Whose rounding it is. Rounding falls differently in every batch, so such a cause counts by the size of the difference.
    """

    name: str
    cause: str
    fix: str
    read: Reads | None
    precision: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a cause leaves unexplained; `error` is nan where it could not be computed."""

    name: str
    detail: str
    error: float | None


@dataclass(frozen=True, slots=True)
class _Difference:
    """Cached and recomputed activations of all examples, over the scored tokens on which either is above 0."""

    error: float
    mean: float
    worst: float
    beyond: float
    active: int
    tokens: int
    example: int


def sample(cache: Cache, n: int = EXAMPLES, seed: int = 0) -> list[Example]:
    """One example each of `n` features that fire, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    live = np.asarray(cache.live)
    chosen = np.sort(rng.permutation(live)[:n])
    found = [(cache.examples(int(feature)), rng.random()) for feature in chosen]
    return [examples[int(draw * len(examples))] for examples, draw in found if examples]


def compare(
    cache: Cache,
    model: LanguageModel,
    coder: SparseCoder,
    *,
    n: int = EXAMPLES,
    seed: int = 0,
    original: Callable[[], LanguageModel] | None = None,
    progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Parity:
    """Read a sample of a cache's examples again and compare, token by token.

    Args:
        model, coder: Those at hand; they need not be the ones the cache was made with.
        n, seed: How many examples, and which.
        original: Loads the model that the cache names, where `model` is another; asked only if its weights must be tried.
        progress: Told the share that is done.
        should_stop: Asked between examples.
    Raises:
        CacheError: If the cache has no examples, or the work was stopped.
    """
    examples = sample(cache, n, seed)
    if not examples:
        raise CacheError(f"{cache.name} has no examples", do="Build it with a corpus that fires features")
    maxima = [cache.maxima[example.feature] for example in examples]
    live: list[np.ndarray] = []
    read = reader(model, coder)
    for number, example in enumerate(examples):
        if should_stop():
            raise CacheError("The comparison was stopped", do="Begin it again")
        live.append(np.nan_to_num(read(example)))  # what it cannot read at all is as wrong as can be
        progress(0.6 * (number + 1) / len(examples))
    ran = str(model.dtype).removeprefix("torch.")
    tolerance, allowed = max(TOLERANCE.get(d, TOLERANCE["bfloat16"]) for d in (ran, cache.manifest.dtype))
    found = _difference(examples, live, maxima, tolerance)
    ok = found.beyond <= allowed
    cause, fix, remaining, tried = "", "", None, []
    if not ok:
        hypotheses = causes(cache, model, coder, examples[:TRIED_ON], live[:TRIED_ON], original)
        cause, fix, remaining, tried = _explain(
            examples[:TRIED_ON], live[:TRIED_ON], maxima[:TRIED_ON], hypotheses, tolerance, progress, should_stop
        )
    progress(1.0)
    worst, acts = examples[found.example], live[found.example]
    return Parity(
        ok=ok, cause=cause, fix=fix, remaining=remaining, windows=len(examples), tokens=found.tokens, active=found.active,
        error=found.error, mean=found.mean, worst=found.worst, beyond=found.beyond, tolerance=tolerance, allowed=allowed,
        example={
            "feature": worst.feature, "rank": worst.rank, "tokens": list(worst.tokens), "cached": list(worst.acts),
            "live": [round(float(act), 5) for act in np.nan_to_num(acts)], "scored": list(worst.scored),
        },
        tested=[asdict(one) for one in tried],
        model_fingerprint=model.fingerprint, sae_fingerprint=coder.fingerprint,
        corpus_sha256=cache.manifest.corpus_sha256, dtype=ran, device=str(model.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in _VERSIONS},
    )  # fmt: skip


def reader(
    model: LanguageModel,
    coder: SparseCoder,
    hook: str = "",
    *,
    prefix: Sequence[int] = (),
    keep: Callable[[Example], np.ndarray] | None = None,
) -> Reads:
    """How examples are read.

    Args:
        hook: Another hook point than the SAE's.
        prefix: Tokens read in front of every window.
        keep: Which tokens are read at all, `[pos]` bool; the others give nan.
    """

    def read(example: Example) -> np.ndarray:
        acts = np.full(len(example.tokens), np.nan)
        kept = keep(example) if keep else np.ones(len(example.tokens), bool)
        ids = [*prefix, *(token for token, here in zip(example.tokens, kept, strict=True) if here)]
        if len(ids) > len(prefix) and len(ids) <= model.max_length and max(ids) < len(model.vocabulary):
            resid = model.activations(torch.tensor([ids]), hook or coder.hook_point)[0, len(prefix) :]
            acts[kept] = coder.encode(resid)[:, example.feature].float().cpu().numpy()
        return acts

    return read


def causes(
    cache: Cache,
    model: LanguageModel,
    coder: SparseCoder,
    examples: Sequence[Example],
    live: Sequence[np.ndarray],
    original: Callable[[], LanguageModel] | None = None,
) -> list[Hypothesis]:
    """Everything that is tried on a cache that disagrees, in the order of the table of causes."""
    found = [*_beginnings(model, coder), *_hooks(model, coder), *_precisions(cache, model, coder)]
    found += _scales(model, coder, examples, live)
    return found + _others(cache, model, coder, original)


def _beginnings(model: LanguageModel, coder: SparseCoder) -> list[Hypothesis]:
    """A token in front too many or missing, and the chat template round the text, or not."""
    found: list[Hypothesis] = []
    special = sorted({t for t in (model.tokenizer.bos_token_id, *sorted(model.eos_ids)) if t is not None})
    for token in special:
        name = model.tokenizer.convert_ids_to_tokens(token)
        found.append(
            Hypothesis(
                "bos", f"The cache was made with {name} in front of every window, which its windows do not hold",
                f"Build it from documents that begin with {name}", reader(model, coder, prefix=[token]),
            )
        )  # fmt: skip
    found.append(
        Hypothesis(
            "bos", "The cache was made without the first token (BOS) that its windows hold",
            "Build it from documents as the tokenizer gives them", reader(model, coder, keep=_not_first),
        )
    )  # fmt: skip
    if model.has_template:
        for role in ("user", "assistant"):
            try:
                around = model.chat_document([{"role": role, "content": "Hello"}])
            except ExplorerError:
                continue
            prefix = around.tokens[: around.content[0][0]] if around.content else ()
            found.append(
                Hypothesis(
                    "template", f"The cache was made with the chat template ({role}) round texts that its windows hold bare",
                    "Build it from conversations (rows with `messages`), so that the windows hold the template",
                    reader(model, coder, prefix=prefix),
                )
            )  # fmt: skip
        found.append(
            Hypothesis(
                "template", "The cache was made without the chat template that its windows hold",
                "Build it with the model's own chat template", reader(model, coder, keep=_scored),
            )
        )  # fmt: skip
    return found


def _not_first(example: Example) -> np.ndarray:
    return np.arange(len(example.tokens)) > 0


def _scored(example: Example) -> np.ndarray:
    return np.array(example.scored, bool)


def _hooks(model: LanguageModel, coder: SparseCoder) -> list[Hypothesis]:
    """The residual stream a block earlier and a block later than where the SAE reads."""
    point = model.hook_point(coder.hook_point)
    if not point.residual:
        return []
    after = point.layer - point.before  # the block after which the stream is read
    places = {
        "one block too early": f"blocks.{after - 1}.hook_resid_post" if after > 0 else "blocks.0.hook_resid_pre",
        "one block too late": f"blocks.{after + 1}.hook_resid_post",
    }
    return [
        Hypothesis(
            "hook", f"The cache was read {where}: at {name} instead of {coder.hook_point}",
            f"Build it again at {coder.hook_point}, where the SAE was trained; or name the hook point that the cache was built at",
            reader(model, coder, name),
        )
        for where, name in places.items()
        if 0 <= after + (1 if "late" in where else -1) < model.n_layers or name.endswith("pre")
    ]  # fmt: skip


def _precisions(cache: Cache, model: LanguageModel, coder: SparseCoder) -> list[Hypothesis]:
    """The model in another precision than it runs in."""
    ran = str(model.dtype).removeprefix("torch.")
    if sum(p.numel() for p in model.hf.parameters()) > _COPIED:
        return []
    return [
        Hypothesis(
            "dtype", f"The cache was made in {name}, the model runs in {ran}", f"Run it with --dtype {name}, or build the cache in {ran}",
            _in_precision(model, coder, name), name,
        )
        for name in dict.fromkeys((cache.manifest.dtype, "float32", "bfloat16"))
        if name != ran
    ]  # fmt: skip


def _in_precision(model: LanguageModel, coder: SparseCoder, name: str) -> Reads:
    made: list[Reads] = []

    def read(example: Example) -> np.ndarray:
        if not made:  # a copy of the weights, only once it is needed
            other = copy.deepcopy(model.hf).to(getattr(torch, name))
            made.append(reader(LanguageModel(other, model.tokenizer, model.name), coder))
        return made[0](example)

    return read


def _scales(
    model: LanguageModel, coder: SparseCoder, examples: Sequence[Example], live: Sequence[np.ndarray]
) -> list[Hypothesis]:
    """A constant factor on the activations, and one on what the SAE reads, each fitted."""
    cached = np.concatenate([np.array(e.acts)[_scored(e)] for e in examples])
    now = np.concatenate([acts[_scored(e)] for e, acts in zip(examples, live, strict=True)])
    both = (cached > 0) & (now > 0)
    if not both.any():
        return []
    out = float(np.median(cached[both] / now[both]))
    plain = reader(model, coder)
    resids = [model.activations(torch.tensor([e.tokens]), coder.hook_point)[0] for e in examples]

    def scaled(example: Example, factor: float) -> np.ndarray:
        at = next(n for n, one in enumerate(examples) if one is example)
        return coder.encode(resids[at] * factor)[:, example.feature].float().cpu().numpy()

    def misfit(factor: float) -> float:
        again = [scaled(example, factor) for example in examples[:4]]
        return _difference(examples[:4], again, [1.0] * len(examples[:4]), 1.0).error

    grid = np.geomspace(1 / 16, 16, 25)
    for _ in range(3):
        best = float(min(grid, key=misfit))
        step = grid[1] / grid[0]
        grid = np.geomspace(best / step, best * step, 9)
    fix = "Fold the scale of the activations' norm into the SAE's weights (SAELens' fold_activation_norm_scaling_factor), and build again"
    return [
        Hypothesis(
            "scale", f"The cached activations are {out:.4g} times the live ones: another norm scale", fix,
            lambda example: out * plain(example),
        ),
        Hypothesis(
            "scale", f"The cache was made from a residual stream scaled by {best:.4g}: another norm scale", fix,
            lambda example: scaled(example, best),
        ),
    ]  # fmt: skip


def _others(
    cache: Cache, model: LanguageModel, coder: SparseCoder, original: Callable[[], LanguageModel] | None
) -> list[Hypothesis]:
    """Another model's weights, another SAE: known by their fingerprints, tried where the right ones are here."""
    made, found = cache.manifest, []
    if model.fingerprint != made.model_fingerprint:
        found.append(
            Hypothesis(
                "weights", f"The model at hand has other weights ({model.fingerprint[:12]}, not {made.model_fingerprint[:12]})",
                f"Load {made.model} with the weights that the cache was made with", _lazily(original, coder),
            )
        )  # fmt: skip
    if coder.fingerprint != made.sae_fingerprint:
        own = cache.sae_folder
        found.append(
            Hypothesis(
                "sae", f"The SAE at hand is another one ({coder.fingerprint[:12]}, not {made.sae_fingerprint[:12]})",
                "Use the SAE that the cache was made with" + (", which lies in its folder" if own else ""),
                reader(model, SparseCoder.load(own, device=str(model.device), hook_point=made.hook_point)) if own else None,
            )
        )  # fmt: skip
    return found


def _lazily(load: Callable[[], LanguageModel] | None, coder: SparseCoder) -> Reads | None:
    if load is None:
        return None
    made: list[Reads] = []

    def read(example: Example) -> np.ndarray:
        if not made:
            made.append(reader(load(), coder))
        return made[0](example)

    return read


def _explain(
    examples: Sequence[Example],
    live: Sequence[np.ndarray],
    maxima: Sequence[float],
    hypotheses: Sequence[Hypothesis],
    tolerance: float,
    progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> tuple[str, str, float | None, list[Tried]]:
    """The cause that leaves least unexplained, its fix, what it leaves, and everything tried."""
    base = _difference(examples, live, maxima, tolerance).error
    tried: list[Tried] = [Tried("as it is", "", base)]
    best: tuple[float, Hypothesis] | None = None
    rounding: tuple[float, Hypothesis] | None = None
    for number, one in enumerate(hypotheses):
        if should_stop():
            raise CacheError("The comparison was stopped", do="Begin it again")
        error: float | None = None
        if one.read is not None:
            try:
                again = [one.read(example) for example in examples]
            except ExplorerError:
                again = []
            if again:
                error = _difference(examples, again, maxima, tolerance).error
            if again and one.precision and _is_rounding(examples, live, again, maxima, one.precision):
                rounding = error if error is not None else base, one
        if error is not None and not np.isfinite(error):
            error = None
        tried.append(Tried(one.name, one.cause, error))
        if error is not None and error <= EXPLAINS * base and (best is None or error < best[0]):
            best = error, one
        progress(0.6 + 0.4 * (number + 1) / len(hypotheses))
    best = best or rounding
    if best is not None:
        return best[1].cause, best[1].fix, best[0], tried
    for one in hypotheses:  # fingerprints speak where nothing could be computed
        if one.name in ("weights", "sae"):
            return one.cause, one.fix, None, tried
    return (
        "unknown: none of the causes that were tried explains it",
        "Build the cache again with persona-explorer build, with this model and this SAE",
        None,
        tried,
    )


def _is_rounding(
    examples: Sequence[Example],
    live: Sequence[np.ndarray],
    again: Sequence[np.ndarray],
    maxima: Sequence[float],
    precision: str,
) -> bool:
    """Whether the cache differs from the model by about what the other precision makes of the model itself, and within its tolerance."""
    tolerance, allowed = TOLERANCE.get(precision, TOLERANCE["bfloat16"])
    cached = _difference(examples, live, maxima, tolerance)
    now = [
        replace(e, acts=tuple((np.nan_to_num(a) * _scored(e)).tolist())) for e, a in zip(examples, live, strict=True)
    ]
    own = _difference(now, again, maxima, tolerance)
    return cached.beyond <= allowed and cached.error <= 2 * own.error


def _difference(
    examples: Sequence[Example], live: Sequence[np.ndarray], maxima: Sequence[float], tolerance: float
) -> _Difference:
    """Over the scored tokens on which the cache or the model has the feature fire; what is nan is left out."""
    shares, off, on, tokens, means = [], 0.0, 0.0, 0, []
    for example, acts, most in zip(examples, live, maxima, strict=True):
        cached = np.array(example.acts)
        known = _scored(example) & np.isfinite(acts)
        active = known & ((cached > 0) | (np.nan_to_num(acts) > 0))
        difference = np.abs(acts - cached)[active]
        off, on, tokens = off + float(difference.sum()), on + float(cached[active].sum()), tokens + int(known.sum())
        shares.append(difference / (most or 1.0))
        means.append(float(difference.mean() / (most or 1.0)) if len(difference) else 0.0)
    every = np.concatenate(shares) if shares else np.zeros(0)
    if not len(every) or on <= 0:
        return _Difference(float("nan"), float("nan"), float("nan"), 1.0, 0, tokens, 0)
    return _Difference(
        error=off / on, mean=float(every.mean()), worst=float(every.max()), beyond=float((every > tolerance).mean()),
        active=len(every), tokens=tokens, example=int(np.argmax(means)),
    )  # fmt: skip
