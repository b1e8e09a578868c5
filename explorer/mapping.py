"""A map of a cache's features: their decoder directions laid out in two dimensions, so that like lies near like.

`map.parquet` lies beside the tables of the cache and is no part of its format: a cache without one is whole. Its metadata says of which
SAE it is, and a map of another one is refused.
"""

import io
import json
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from explorer.cache import Cache
from explorer.decoder import decoder
from explorer.errors import CacheError, SaeError
from explorer.files import write_whole

MAP = "map.parquet"
SEED = 0
NEIGHBOURS = 15
FEWEST = 10
"""Below so many features there are no neighbourhoods to lay out: they stand on a circle."""
_FACTS = b"persona-explorer"
_AGAIN = "Make the map again with persona-explorer map"


@dataclass(frozen=True, slots=True)
class Facts:
    """How a map was made.

    Args:
        sae_fingerprint: Of the SAE whose decoder it shows.
        method: "umap", or "circle" for a handful of features.
        metric: What near means.
        seed, neighbours: The layout's settings.
        versions: Library -> version; a layout is the same only with the same versions.
    """

    sae_fingerprint: str
    method: str
    metric: str
    seed: int
    neighbours: int
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class Map:
    """Where each feature lies.

    Args:
        places: `[n_features, 2]` float32; the axes mean nothing of their own.
        facts: How it was made.
    """

    places: np.ndarray
    facts: Facts


def layout(directions: np.ndarray, *, seed: int = SEED, neighbours: int = NEIGHBOURS) -> tuple[np.ndarray, str]:
    """Lay directions out in two dimensions by their cosines.

    Args:
        directions: `[n_features, d_model]`; a row of zeros is near nothing.
        neighbours: How many each feature is held near to.
    Returns:
        `[n_features, 2]` float32, and the method.
    Raises:
        SaeError: If the directions are not finite.
    """
    n = len(directions)
    if not np.isfinite(directions).all():
        raise SaeError("The decoder holds values that are no numbers", do="Check the SAE's file")
    if n < FEWEST:
        turn = 2 * np.pi * np.arange(n) / max(1, n)
        return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32), "circle"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it misses Tensorflow, which nobody needs here
        import umap  # seconds: numba

    # Principal components as the start: no eigenvectors that a small or a torn graph may lack, and the same map each time.
    made = umap.UMAP(
        n_neighbors=min(neighbours, n - 1), min_dist=0.1, metric="cosine", init="pca", random_state=seed, n_jobs=1
    )
    return np.asarray(made.fit_transform(directions), np.float32), "umap"


def make(cache: Cache, *, directions: np.ndarray | None = None, seed: int = SEED) -> Path:
    """Lay a cache's features out and write the map beside its tables, whole or not at all.

    Args:
        directions: `[n_features, d_model]`; by default the decoder of the SAE that lies with the cache.
    Returns:
        The file.
    Raises:
        SaeError: If there is no decoder to lay out.
        CacheError: If the file cannot be written.
    """
    given = decoder(cache) if directions is None else directions
    if len(given) != cache.n_features:
        raise SaeError(f"The SAE has {len(given):,} features", expected=f"{cache.n_features:,}, as the cache has")
    places, method = layout(given, seed=seed)
    return write(cache, places, method, seed=seed)


def write(cache: Cache, places: np.ndarray, method: str, *, seed: int = SEED) -> Path:
    """Write places `[n_features, 2]` as the map of a cache, whole or not at all.

    Raises:
        CacheError: If the file cannot be written.
    """
    versions = {name: version(name) for name in ("umap-learn", "numba", "numpy")} if method == "umap" else {}
    facts = Facts(cache.manifest.sae_fingerprint, method, "cosine", seed, NEIGHBOURS, versions)
    table = pa.table(
        {"feature": np.arange(len(places), dtype=np.int32), "x": places[:, 0], "y": places[:, 1]}
    ).replace_schema_metadata({_FACTS: json.dumps(asdict(facts), sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    path = cache.path / MAP
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error})", do="Free space or check the permissions") from error
    return path


def load(cache: Cache) -> Map | None:
    """The map of a cache; None where none was made.

    Raises:
        CacheError: If it is damaged, or of another SAE.
    """
    path = cache.path / MAP
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        facts = Facts(**json.loads((table.schema.metadata or {})[_FACTS]))
        feature, x, y = (table.column(name).to_numpy() for name in ("feature", "x", "y"))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CacheError(f"{path} cannot be read ({reason})", do=_AGAIN) from error
    wanted = cache.manifest.sae_fingerprint
    if facts.sae_fingerprint != wanted:
        raise CacheError(
            f"The map of {cache.name} shows the SAE {facts.sae_fingerprint[:12]}",
            expected=f"{wanted[:12]}, of which the cache is",
            do=_AGAIN,
        )
    places = np.stack([x, y], 1).astype(np.float32)
    if not np.array_equal(feature, np.arange(cache.n_features)) or not np.isfinite(places).all():
        raise CacheError(f"{path} does not give each of {cache.n_features:,} features one place", do=_AGAIN)
    return Map(places, facts)


def thinned(n: int, keep: np.ndarray, most: int, *, seed: int = SEED) -> np.ndarray:
    """Which of `n` features are drawn where only `most` can be: those to keep, and others by chance, the same ones each time.

    Args:
        keep: Features that are to stay; if they alone are too many, they are thinned too.
    Returns:
        Features in order, at most `most`.
    """
    if n <= most:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    rank = rng.permutation(n) + n  # everybody's lot; those to keep come before the rest
    rank[keep] -= n
    return np.sort(np.argsort(rank)[:most])
