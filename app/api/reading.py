"""What is read from caches and labels; plain functions that run in a thread and never touch the model."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app import resources
from app.api import records
from app.api.refusing import Refused
from explorer.search import search

if TYPE_CHECKING:
    import numpy as np

    from explorer.cache import Cache


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose parts have been checked against their schemas.

    Args:
        path: What stands in the path: `cache`, `feature`.
        query: Parameters, with defaults.
        body: The JSON that was sent, with defaults.
    """

    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


def opened(asked: Asked) -> "Cache":
    """The cache of the path.

    Raises:
        Refused: 404 if it is not here, or has no such feature.
    """
    name, known = asked.path["cache"], resources.caches()
    if name not in known:
        raise Refused(404, "There is no such feature cache", expected=", ".join(known), do="GET /api/v1/caches")
    cache = resources.cache(name)
    feature = asked.path.get("feature", 0)
    if feature >= cache.n_features:
        raise Refused(404, f"There is no feature {feature}", expected=f"0 to {cache.n_features - 1}", do="Ask for one")
    return cache


def caches(asked: Asked) -> Any:
    """Every cache that can be opened; one that is refused is told by its own path."""
    from explorer.errors import CacheError

    found = []
    for name in resources.caches():
        try:
            found.append(records.cache_record(name, resources.cache(name)))
        except CacheError:
            continue
    return {"caches": found}


def cache(asked: Asked) -> Any:
    """One cache."""
    return records.cache_record(asked.path["cache"], opened(asked))


def features(asked: Asked) -> Any:
    """One page of the table of features."""
    return found(asked, asked.query["query"], asked.query["sort"], descending=asked.query["order"] == "down")


def found(asked: Asked, query: str, sort: str, *, descending: bool = True, nearness: "np.ndarray | None" = None) -> Any:
    """A page of what the words and the request's filters leave.

    Args:
        nearness: See `explorer.search.search`.
    Raises:
        UsageError: If a list or a comparison is named that is not there.
    """
    from explorer.among import among
    from explorer.comparing import risen

    cache, said, store = opened(asked), asked.query, resources.labels()
    labels = store.all(cache.manifest.sae_fingerprint)
    people = {"author": said["author"], "listed": said["list"], "tag": said["tag"], "remarked": said["remarked"]}
    moved = risen(cache.path, said["moved"]) if said["moved"] else None
    page = search(
        cache,
        query=query,
        sort=sort,
        descending=descending,
        min_density=said["min_density"],
        max_density=said["max_density"],
        min_max=said["min_max"],
        status=said["status"],
        labels=store.texts(cache.manifest.sae_fingerprint),
        notes={index: label.note for index, label in labels.items() if label.note},
        only=among(cache, store, labels, **people, moved=moved),
        nearness=nearness,
        limit=said["limit"],
        offset=said["offset"],
    )
    return {"total": page.total, "rows": [records.row_record(row) for row in page.rows]}


def feature(asked: Asked) -> Any:
    """One feature with its statistics."""
    cache, index = opened(asked), asked.path["feature"]
    said = resources.labels().texts(cache.manifest.sae_fingerprint)
    return records.feature_record(cache, cache.feature(index), said.get(index, ""))


def examples(asked: Asked) -> Any:
    """The examples of one feature."""
    cache, kind = opened(asked), asked.query["kind"]
    found = cache.examples(asked.path["feature"], None if kind == "all" else kind)
    return {"examples": [records.example_record(cache, example) for example in found]}


def vector(asked: Asked) -> Any:
    """The decoder direction of one feature."""
    from explorer.decoder import decoder_row
    from explorer.errors import SaeError

    cache, index = opened(asked), asked.path["feature"]
    try:
        row = decoder_row(cache, index).tolist()
    except SaeError as error:  # a cache may come without its autoencoder
        raise Refused(404, error.found, expected=error.expected, do=error.do) from error
    return {"feature": index, "hook_point": cache.manifest.hook_point, "vector": row}


def labels(asked: Asked) -> Any:
    """What people called features, the newest of each."""
    cache, said = opened(asked), asked.query
    known = resources.labels().all(cache.manifest.sae_fingerprint)
    kept = [known[index] for index in sorted(known)]
    page = kept[said["offset"] : said["offset"] + said["limit"]]
    return {"total": len(kept), "rows": [records.label_record(label) for label in page]}
