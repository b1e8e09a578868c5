"""What the API answers with: one schema a record, and the function that makes it from ours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.api.shapes import Schema, flag, many, maybe, real, record, table, text, whole
from explorer.schema import QUANTILES

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.labels import Label
    from explorer.records import Example, Feature
    from explorer.search import Row

_INDEX = whole("Number of the feature.", minimum=0)
_LABEL = text("What somebody named it; empty where nobody did.")
_TITLE = text("Its own words, provisional; no label.")
_TOKEN = record(
    {
        "id": whole("Id of the token."),
        "text": text(
            "The token as the app's tables spell it: line breaks visible, part of a character as bytes in hex."
        ),
    }
)
EFFECT = record({**_TOKEN["properties"], "logit": real("Logit effect of one unit of activation.")})
OTHER = record({"feature": _INDEX, "value": real("Cosine of the decoder directions, or share of tokens they share.")})

CACHE = record(
    {
        "name": text("What other paths call it."),
        "model": text("The language model."),
        "model_fingerprint": text("Of its weights."),
        "sae": text("The sparse autoencoder, without the folder it lies in."),
        "sae_fingerprint": text("Of its weights; labels belong to it."),
        "architecture": text("Of the SAE."),
        "hook_point": text("Where the SAE reads."),
        "features": whole("How many features it has."),
        "corpus": text("Name of the corpus."),
        "documents": whole("Of the corpus."),
        "tokens_scored": whole("Tokens that count as evidence."),
        "created": text("When it was built, ISO 8601 in UTC."),
        "hash": text("sha256 of its manifest: other contents have another hash."),
        "format": whole("Version of the cache format."),
        "fine_tunes": many(text("Name of a fine-tune."), "What `model` may say in /activations and /steer."),
        "directions": many(text("Name of a direction."), "What an edit may name instead of a feature."),
    }
)
ROW = record(
    {
        "feature": _INDEX,
        "title": _TITLE,
        "label": _LABEL,
        "density": real("Share of scored tokens on which it is active."),
        "max": real("Strongest activation in the corpus, in SAE units."),
        "promoted": many(text("A token."), "Tokens it promotes, strongest first."),
    }
)
ROWS = record({"total": whole("How many were found in all."), "rows": many(ROW, "One page of them.")})
FEATURE = record(
    {
        "feature": _INDEX,
        "title": _TITLE,
        "label": _LABEL,
        "density": real("Share of scored tokens on which it is active."),
        "max": real("Strongest activation in the corpus, in SAE units."),
        "mean_active": real("Mean of its activations above 0, in SAE units."),
        "tokens_active": whole("Scored tokens on which it is active."),
        "documents_active": whole("Documents in which it is active."),
        "dead": flag("The corpus never fires it."),
        "quantiles": table(real("Activation."), "Quantile -> value among its activations above 0."),
        "histogram": many(whole("Tokens."), "Active tokens in equal bins from 0 to `max`."),
        "promoted": many(EFFECT, "Next tokens it makes likelier, strongest first."),
        "suppressed": many(EFFECT, "Next tokens it makes less likely, strongest first."),
        "neighbours": many(OTHER, "Features with the nearest decoder directions, by cosine."),
        "coactive": many(OTHER, "Features that fire on the same tokens: of the tokens on which either fires, those on which both do."),
    }
)  # fmt: skip
EXAMPLE = record(
    {
        "rank": whole("Place among its kind."),
        "kind": text("top, or interval: a sample of one fifth of the feature's range.", enum=["top", "interval"]),
        "interval": whole("0 (weakest fifth) to 4; -1 for top examples."),
        "document": whole("Document of the corpus."),
        "offset": whole("Where the window begins in its document, in tokens."),
        "peak": whole("Position of the strongest activation."),
        "value": real("The strongest activation, in SAE units."),
        "flagged": flag("It holds words that the app blurs until asked for."),
        "text": text("The whole window."),
        "tokens": many(_TOKEN, "Its tokens."),
        "acts": many(real("SAE units."), "Activation at each token; 0 where the token does not count."),
        "scored": many(flag("It counts."), "Whether each token counts as evidence."),
    }
)
LABEL = record(
    {
        "feature": _INDEX,
        "label": _LABEL,
        "note": text("What was said besides."),
        "confidence": maybe(whole("1 to 3; null where nobody said.")),
        "author": text("Who said it; `bundled` for labels that came with the cache."),
        "created_at": maybe(text("When, ISO 8601 in UTC; null where a bundled file does not say.")),
    }
)
LABELS = record({"total": whole("How many features have one."), "rows": many(LABEL, "One page of them.")})
VECTOR = record(
    {
        "feature": _INDEX,
        "hook_point": text("Where it may be added to the residual stream."),
        "vector": many(
            real("A component."), "The decoder direction, d_model numbers: what one unit of activation adds."
        ),
    }
)


def cache_record(name: str, cache: "Cache") -> dict[str, Any]:
    """A cache in short; paths of this machine stay here."""
    from explorer import adapters, directions
    from explorer.citing import cache_hash

    said = cache.manifest
    return {
        "name": name,
        **{
            key: getattr(said, key)
            for key in ("model_fingerprint", "sae_fingerprint", "architecture", "hook_point", "corpus")
        },
        "model": base_name(said.model),
        "sae": base_name(said.sae),
        "features": said.n_features,
        "documents": said.documents,
        "tokens_scored": said.tokens_scored,
        "created": said.created,
        "hash": cache_hash(cache),
        "format": said.format,
        "fine_tunes": sorted(adapters.known(cache.path)),
        "directions": sorted(directions.names(cache)),
    }


def base_name(source: str) -> str:
    """A model's or SAE's name without the folders that it lies in here."""
    return Path(source).name if Path(source).is_absolute() else source


def row_record(row: "Row") -> dict[str, Any]:
    """A feature in a table."""
    return {
        "feature": row.index,
        "title": row.title,
        "label": row.label,
        "density": row.density,
        "max": row.max,
        "promoted": list(row.promoted),
    }


def feature_record(cache: "Cache", feature: "Feature", label: str) -> dict[str, Any]:
    """A feature with its statistics."""
    piece = cache.vocabulary.piece

    def effects(pairs: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
        return [{"id": token, "text": piece(token), "logit": value} for token, value in pairs]

    def others(pairs: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
        return [{"feature": index, "value": value} for index, value in pairs]

    return {
        "feature": feature.index,
        "title": feature.title or "",
        "label": label,
        **{
            key: getattr(feature, key) for key in ("density", "max", "mean_active", "tokens_active", "documents_active")
        },
        "dead": feature.dead,
        "quantiles": {f"{q:g}": feature.quantiles[q] for q in QUANTILES},
        "histogram": list(feature.histogram),
        "promoted": effects(feature.promoted),
        "suppressed": effects(feature.suppressed),
        "neighbours": others(feature.neighbours),
        "coactive": others(feature.coactive),
    }


def example_record(cache: "Cache", example: "Example") -> dict[str, Any]:
    """A window of the corpus with the activations of a feature."""
    return {
        **{key: getattr(example, key) for key in ("rank", "kind", "interval", "document", "offset", "peak", "value", "flagged")},
        "text": cache.vocabulary.text(example.tokens),
        "tokens": token_records(cache, example.tokens),
        "acts": list(example.acts),
        "scored": list(example.scored),
    }  # fmt: skip


def token_records(cache: "Cache", tokens: Sequence[int]) -> list[dict[str, Any]]:
    """Tokens with what they spell."""
    return [{"id": token, "text": cache.vocabulary.piece(token)} for token in tokens]


def label_record(label: "Label") -> dict[str, Any]:
    """What somebody said of a feature."""
    return {
        **{key: getattr(label, key) for key in ("feature", "label", "note", "confidence", "author")},
        "created_at": label.created_at.isoformat() if label.created_at else None,
    }


def plain(value: Any) -> Any:
    """The same with null for what JSON cannot hold (nan, infinities)."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


TOKENS: Schema = many(_TOKEN, "The tokens, the chat template's included.")
