"""ROUTES: every path of the API with what it takes and gives. Serving, the OpenAPI document and the page all read this list."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.api import asking, live, reading, records
from app.api.shapes import Schema, many, real, record, text, whole
from explorer.among import REMARKED
from explorer.search import SORTS, STATUSES

LONGEST_PAGE = 200
LONGEST_QUERY = 500


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API.

    Args:
        path: Below /api/v1, with `{cache}` and `{feature}` where they vary.
        summary: What it gives, in one sentence.
        run: Answers it: `reading.Asked` -> what `answer` describes. One that is `live` is awaited with the HTTP request too.
        answer: Schema of its answer; of each event, where it streams.
        query: Parameter -> schema; those without a default have to be there.
        body: Schema of what is sent; none for a GET.
        example: A query, or a body, to try it with.
        live: It may ask a model: it may be answered with 503 while that is loaded or busy.
        events: Name of a server-sent event -> schema of its data, where it streams.
    """

    path: str
    summary: str
    run: Callable[..., Any]
    answer: Schema
    query: dict[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    example: Any = ""
    live: bool = False
    events: dict[str, Schema] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


PATH: dict[str, Schema] = {
    "cache": text("Name of a feature cache, as /caches lists it.", maxLength=255),
    "feature": whole("Number of a feature.", minimum=0, maximum=10**9),
}
_PAGE = {
    "limit": whole("How many rows.", minimum=1, maximum=LONGEST_PAGE, default=25),
    "offset": whole("How many rows to leave out before the first.", minimum=0, maximum=10**9, default=0),
}
_SORTED = {
    "query": text(
        'Words that have to be there, in label, note, title, promoted tokens or examples; "two words" in quotes are one, #12 is a feature.',
        maxLength=LONGEST_QUERY,
        default="",
    ),
    "sort": text("What rows are sorted by.", enum=list(SORTS), default="density"),
    "order": text("Largest first, or smallest.", enum=["down", "up"], default="down"),
}
_FOUND = {
    "q": text("The words.", minLength=1, maxLength=LONGEST_QUERY),
    "find": text(
        "Words as they stand, or what is near their meaning, nearest first.", enum=["words", "meaning"], default="words"
    ),
}
_FILTERS = {
    "min_density": real("Least share of tokens on which it fires.", minimum=0, maximum=1, default=0.0),
    "max_density": real("Largest share of tokens on which it fires.", minimum=0, maximum=1, default=1.0),
    "min_max": real("Least maximum, in SAE units.", minimum=0, maximum=1e30, default=0.0),
    "status": text("Which features.", enum=list(STATUSES), default="all"),
    "author": text("Only what this person labelled.", maxLength=LONGEST_QUERY, default=""),
    "list": text("Only the features of this list.", maxLength=LONGEST_QUERY, default=""),
    "tag": text("Only features with this tag.", maxLength=LONGEST_QUERY, default=""),
    "remarked": text("Only what has been remarked so.", enum=["", *REMARKED], default=""),
    "moved": text(
        "Only what rose in this comparison with a fine-tune, over the fine-tune's own answers.",
        maxLength=LONGEST_QUERY,
        default="",
    ),
}
_ONE = "/caches/{cache}"
_FEATURE = f"{_ONE}/features/{{feature}}"
ROUTES: tuple[Route, ...] = (
    Route("/caches", "The feature caches that are here.", reading.caches, record({"caches": many(records.CACHE)})),
    Route(_ONE, "One cache: model, SAE, corpus, fingerprints.", reading.cache, records.CACHE),
    Route(
        f"{_ONE}/features", "A page of the table of features.", reading.features, records.ROWS,
        query={**_SORTED, **_FILTERS, **_PAGE}, example="status=live&sort=max&limit=5",
    ),
    Route(_FEATURE, "One feature with its statistics.", reading.feature, records.FEATURE),
    Route(
        f"{_FEATURE}/examples", "The windows of the corpus on which it fires.", reading.examples,
        record({"examples": many(records.EXAMPLE)}),
        query={"kind": text("Which.", enum=["all", "top", "interval"], default="all")}, example="kind=top",
    ),
    Route(f"{_FEATURE}/vector", "Its decoder direction.", reading.vector, records.VECTOR),
    Route(
        f"{_ONE}/search", "The features that fit words best, label first, or that are nearest to their meaning.",
        live.search, records.ROWS, query={**_FOUND, **_FILTERS, **_PAGE}, example="q=king&limit=5", live=True,
    ),
    Route(
        f"{_ONE}/labels", "What people called features, the newest of each.", reading.labels, records.LABELS,
        query={**_PAGE, "limit": {**_PAGE["limit"], "maximum": 10_000}}, example="limit=5",
    ),
    Route(
        f"{_ONE}/activations", "Which features a text or a conversation fires, ranked, with a value for each token.",
        live.activations, asking.ACTIVATIONS, body=asking.READ, example={"text": "The king lost his crown.", "limit": 5}, live=True,
    ),
    Route(
        f"{_ONE}/steer", "The same question answered as the model is and as it is steered, piece by piece in step.",
        live.steer, asking.EVENT, body=asking.ASK, live=True, events=asking.EVENTS,
        example={"prompt": "What is courage?", "edits": [{"feature": 12, "strength": 1}], "sampling": {"max_tokens": 40}},
    ),
)  # fmt: skip
