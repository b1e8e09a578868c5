"""The cache on disk, column by column: the one place that says what a file holds.

History of the format:
1   First version: manifest.json, features.parquet, examples.parquet, windows.safetensors, tokens.parquet.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_origin

import numpy as np
import pyarrow as pa

from explorer.errors import CacheError

FORMAT_VERSION = 1

HISTOGRAM_BINS = 40
QUANTILES = (0.5, 0.9, 0.99)
TOP_EXAMPLES = 24
INTERVALS = 5
INTERVAL_EXAMPLES = 4
FEATURES_PER_ROW_GROUP = 32

MANIFEST, FEATURES, EXAMPLES, WINDOWS, TOKENS = (
    "manifest.json",
    "features.parquet",
    "examples.parquet",
    "windows.safetensors",
    "tokens.parquet",
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of the cache.

    Args:
        name: As it stands in the file.
        type: Its Arrow type.
        unit: What its numbers count or measure; empty for text.
        help: One sentence for a person who meets the column.
    """

    name: str
    type: pa.DataType
    unit: str
    help: str


_IDS, _VALUES = pa.list_(pa.int32()), pa.list_(pa.float32())

FEATURE_COLUMNS = (
    Column("index", pa.int32(), "feature", "Number of the feature in its SAE."),
    Column("density", pa.float64(), "share of scored tokens", "How often the feature is active (activation > 0)."),
    Column("max", pa.float32(), "SAE units", "Strongest activation in the corpus; strength 1.0 when steering."),
    Column("mean_active", pa.float32(), "SAE units", "Mean over the tokens on which the feature is active."),
    Column("q50", pa.float32(), "SAE units", "Median of the active values."),
    Column("q90", pa.float32(), "SAE units", "Nine in ten active values lie below."),
    Column("q99", pa.float32(), "SAE units", "99 in a hundred active values lie below."),
    Column("tokens_active", pa.int64(), "tokens", "Scored tokens on which the feature is active."),
    Column("documents_active", pa.int64(), "documents", "Documents in which the feature is active at least once."),
    Column("histogram", pa.list_(pa.int64()), "tokens", f"Active tokens in {HISTOGRAM_BINS} equal bins from 0 to max."),
    Column("promoted", _IDS, "token ids", "Tokens whose logits the feature raises most, strongest first."),
    Column("promoted_logits", _VALUES, "logits per unit", "Direct logit effect on each promoted token."),
    Column("suppressed", _IDS, "token ids", "Tokens whose logits the feature lowers most, strongest first."),
    Column("suppressed_logits", _VALUES, "logits per unit", "Direct logit effect on each suppressed token."),
    Column("neighbours", _IDS, "features", "Features with the nearest decoder directions."),
    Column("neighbours_cosine", _VALUES, "cosine", "Cosine of the two decoder directions."),
    Column("coactive", _IDS, "features", "Features that fire on the same tokens."),
    Column("coactive_jaccard", _VALUES, "share", "Tokens on which both fire over tokens on which either does."),
    Column("title", pa.string(), "", "Provisional title out of the feature's own words; not a label."),
    Column("context", pa.string(), "", "Text around the peaks of the top examples, one a line: what search reads."),
)

EXAMPLE_COLUMNS = (
    Column("feature", pa.int32(), "feature", "The feature that fires."),
    Column("rank", pa.int16(), "", "Order among the feature's examples, from 0: top examples first."),
    Column("kind", pa.dictionary(pa.int8(), pa.string()), "", "top: strongest. interval: sampled from one range."),
    Column("interval", pa.int8(), "", "Fifth of the range from 0 to max, 0 the weakest; -1 for top examples."),
    Column("window", pa.int32(), "window", "Row in windows.safetensors."),
    Column("peak", pa.uint16(), "tokens", "Position of the strongest activation in the window."),
    Column("value", pa.float32(), "SAE units", "The strongest activation in the window, to 11 significant bits."),
    Column("positions", pa.list_(pa.uint16()), "tokens", "Positions at which the feature is active."),
    Column("values", _VALUES, "SAE units", "Activation at each of the positions, to 11 significant bits."),
)

WINDOW_ARRAYS = {
    "tokens": "Token ids of all windows, one after the other: uint16, or int32 for a vocabulary above 65,536.",
    "starts": "int64 [windows + 1]: where each window begins in tokens; the last entry is their number.",
    "document": "int32 [windows]: the document a window was cut from.",
    "offset": "int32 [windows]: where the window starts in its document.",
    "scored": "uint8, one a token: 1 where the token counts as evidence, 0 where it does not.",
    "flagged": "uint8 [windows]: 1 where the window holds words that the app blurs until asked for.",
}


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of a table, with units and help as field metadata."""
    return pa.schema([pa.field(c.name, c.type, metadata={"unit": c.unit, "help": c.help}) for c in columns])


def rounded(values: np.ndarray) -> np.ndarray:
    """Activations as the examples keep them: float32 to 11 significant bits, which zstd packs to half the size.

    That is float16's precision without its small range, and finer than the bfloat16 that most models run in.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & ~np.uint32((1 << 13) - 1)).view(np.float32)


def token_dtype(vocabulary_size: int) -> type[np.integer]:
    """The smallest integer type of the format that holds every token id."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cache was made of and from.

    Args:
        model, model_fingerprint: The language model, by the name it was loaded as and by its weights.
        sae, sae_fingerprint, architecture: The sparse autoencoder.
        n_features, hook_point, dtype: Its width, where it reads, and the model's precision during the build.
        corpus: Name of the corpus.
        corpus_sha256: Hash over the token ids of every window seen, in order.
        documents, windows: How many were seen.
        tokens_seen, tokens_scored: Tokens read, and those that count as evidence.
        tokens_excluded: Reason (see `explorer.evidence.REASONS`) -> tokens; the rest of `tokens_seen` is scored.
        sink_factor, median_norm: A token is an attention sink where its residual norm exceeds their product.
        context_size: Longest window, in tokens.
        bos: How windows begin.
        command: The command that built the cache.
        created: UTC, ISO 8601.
        versions: Library -> version.
        files: Path in the cache -> sha256 and size in bytes.
    """

    model: str
    model_fingerprint: str
    sae: str
    sae_fingerprint: str
    architecture: str
    n_features: int
    hook_point: str
    dtype: str
    corpus: str
    corpus_sha256: str
    documents: int
    windows: int
    tokens_seen: int
    tokens_scored: int
    tokens_excluded: dict[str, int]
    sink_factor: float
    median_norm: float
    context_size: int
    bos: str = "as the corpus has it; nothing added"
    command: str = ""
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object) -> "Manifest":
        """Read manifest.json.

        Args:
            text: Its text.
            where: The cache, for messages.
        Raises:
            CacheError: If it is no manifest, of another format version, or a field is missing or of another kind.
        """
        again = "Build the cache again with persona-explorer build"
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CacheError(f"The manifest of {where} is no JSON ({error})", do=again) from error
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            newer = isinstance(version, int) and version > FORMAT_VERSION
            raise CacheError(
                f"{where} has cache format {version}",
                expected=f"format {FORMAT_VERSION}",
                do="Update persona-explorer" if newer else again,
            )
        required: dict[str, Any] = {f.name: get_origin(f.type) or f.type for f in fields(cls)}
        missing = sorted(required.keys() - data.keys())
        if missing:
            raise CacheError(f"The manifest of {where} lacks {', '.join(missing)}", do=again)
        # a page lists all caches: one with a list as its model would be in the way of the others
        for name, kind in required.items():
            if isinstance(data[name], bool) or not isinstance(data[name], (int, float) if kind is float else kind):
                raise CacheError(f"The manifest of {where} has {str(data[name])[:60]!r} as its {name}", do=again)
        return cls(**{name: data[name] for name in required})
