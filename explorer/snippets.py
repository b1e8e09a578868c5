"""Held-out snippets of a feature: short spans of text that a label has not been written from, half of them silent.

Somebody who knows only the label should be able to tell where the feature fires. That is only a test if every snippet's status is certain:

*   It fires at the peak of an example, by what the cache holds.
*   It is silent on a stretch of one of its own examples' windows that lists no activation: an example keeps all of a feature's activations
    on its window. Where a related feature peaks on such a stretch, that is a near-miss; elsewhere it is the same text at another place.
*   Of any other window the cache says nothing, for most activations become no examples. So `persona-explorer negatives` reads a sample of
    windows with the model once and leaves a table of spans on which it saw each feature silent (`explorer.silence`).

No window is used twice in one test, and none from which an example has been seen. The order is a hash of the snippet, so people who have
seen the same examples are asked about the same snippets, and so is a machine.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from explorer.cache import Cache
from explorer.evidence_lock import Evidence, example_id, place_id
from explorer.files import write_whole
from explorer.records import Example
from explorer.schema import INTERVALS, WINDOWS

NEGATIVES = "negatives.parquet"
BEFORE, AFTER = 16, 8  # tokens of a snippet round its peak
SIZE, LEAST = 12, 4  # snippets of a test, and the fewest that are one
SHOWN_TOP, SHOWN_INTERVALS = (
    8,
    (1, 1, 2, 2, 2),
)  # what a labeller is shown: the strongest, and of each fifth from weak to strong
_WEAK = (0, 1)  # fifths of the range

TOP, WEAK, NEAR_MISS, RANDOM, ELSEWHERE = "top", "weak", "near-miss", "random", "elsewhere"
KINDS = {
    TOP: "Fires strongly: one of the feature's strongest examples that the label was not written from.",
    WEAK: "Fires weakly: a sample of the lowest two fifths of the feature's range.",
    NEAR_MISS: "Silent where a feature with a near decoder direction, or one that often fires beside it, peaks.",
    RANDOM: "Silent in a span taken by chance from the corpus.",
    ELSEWHERE: "Silent in another part of a text in which the feature does fire.",
}
"""What a snippet is, by name."""
COLUMNS = pa.schema(
    [
        pa.field("feature", pa.int32(), metadata={"help": "The feature that is silent."}),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), metadata={"help": "near-miss or random."}),
        pa.field("window", pa.int32(), metadata={"help": "Row in windows.safetensors."}),
        pa.field("peak", pa.uint16(), metadata={"help": "Position about which the feature is silent."}),
        pa.field("other", pa.int32(), metadata={"help": "The related feature that peaks there; -1 for random."}),
    ]
)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A span of a window, and whether the feature fires in it.

    Args:
        id: Where in the corpus, `DOCUMENT:OFFSET:PEAK` as of examples: the same for everybody who is asked about this place.
        kind: A name in `KINDS`.
        window: Row in the cache's windows; `start` to `stop`: the span in it; `peak`: the position it was cut about.
        tokens, scored: One a token of the span.
        acts: `[stop - start]`, the feature's activations in SAE units; all 0 where it is silent.
        other: The related feature that peaks there, for a near-miss; -1 otherwise.
        flagged: The window holds words that the app blurs.
    """

    id: str
    feature: int
    kind: str
    window: int
    start: int
    stop: int
    peak: int
    tokens: tuple[int, ...]
    acts: tuple[float, ...]
    scored: tuple[bool, ...]
    other: int = -1
    flagged: bool = False

    @property
    def fires(self) -> bool:
        """Whether the feature is active on a token of the span."""
        return any(act > 0 for act in self.acts)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The snippets of one test, in the order in which they are asked.

    Args:
        snippets: Half of them fire; empty where there are too few.
        lacking: Why there are fewer than were asked for; "" where there are not.
    """

    feature: int
    snippets: tuple[Snippet, ...]
    lacking: str = ""


def shown(examples: Iterable[Example]) -> list[Example]:
    """The examples that a labeller, or a machine, is shown: the strongest, then some of each fifth, strong to weak."""
    found = list(examples)
    chosen = [e for e in found if e.kind == "top"][:SHOWN_TOP]
    for interval in range(INTERVALS - 1, -1, -1):
        of_it = [e for e in found if e.interval == interval][: SHOWN_INTERVALS[interval]]
        chosen += sorted(of_it, key=lambda e: -e.value)
    return chosen


def held_out(
    cache: Cache,
    feature: int,
    *,
    seen: Collection[int] | None = None,
    told: Collection[int] = (),
    size: int = SIZE,
    seed: int = 0,
) -> HeldOut:
    """Snippets to test a label of `feature` with.

    Args:
        seen: Ranks of the examples that the label was written from; None for those of `shown`.
        told: Windows whose truth an earlier test has told: they are not asked about again.
        size: How many, at most; half fire.
        seed: Another one gives other snippets.
    Raises:
        CacheError: If there is no such feature, or the cache is damaged.
    """
    examples = cache.examples(feature)
    known = {e.rank for e in shown(examples)} if seen is None else set(seen)
    burnt = {e.window for e in examples if e.rank in known} | set(told)
    fresh = [e for e in examples if e.window not in burnt]
    order = _order(feature, seed)
    half, taken = size // 2, set(burnt)
    tops, weak = [e for e in fresh if e.kind == "top"], [e for e in fresh if e.interval in _WEAK]
    firing = [
        _of_example(e, TOP if e.kind == "top" else WEAK, e.peak)
        for e in _fill([_sorted(tops, order), _sorted(weak, order)], half, taken)
    ]
    table, doubt = negatives(cache, feature)
    near, chance = ([s for s in table if s.kind == kind] for kind in (NEAR_MISS, RANDOM))
    elsewhere = _sorted(_elsewhere(fresh, order), order)
    if not table:
        near = list(_near_in_own(cache, feature, fresh))
    silent = _fill([_sorted(near, order), _sorted(chance, order) or elsewhere], half, taken)
    silent += _fill([elsewhere], half - len(silent), taken)
    even = min(len(firing), len(silent))
    short = _lacking(examples, len(firing), len(silent)) if even < half else ""
    lacking = ". ".join(why for why in (short, doubt) if why)
    if 2 * even < LEAST:
        return HeldOut(feature, (), lacking)
    # the sources were drawn in turn, so the first ones hold each kind in its share
    return HeldOut(feature, tuple(_sorted([*firing[:even], *silent[:even]], order)), lacking)


def _lacking(examples: list[Example], firing: int, silent: int) -> str:
    """Why a test is short, in one sentence."""
    if not examples:
        return "The feature never fires in this corpus: there is nothing to ask about"
    what = "on which it fires" if firing <= silent else "on which it is known to be silent"
    return f"Only {min(firing, silent)} held-out snippets {what} are left"


def cut(cache: Cache, feature: int, kind: str, window: int, peak: int, *, other: int = -1) -> Snippet:
    """A span of the cache on which the feature is known to be silent."""
    arrays = cache.windows
    begin, end = (int(at) for at in arrays["starts"][window : window + 2])
    start, stop = span(end - begin, peak)
    tokens = arrays["tokens"][begin + start : begin + stop].tolist()
    scored = (arrays["scored"][begin + start : begin + stop] > 0).tolist()
    silent = (0.0,) * (stop - start)
    flagged = bool(arrays["flagged"][window])
    where = place_id(arrays["document"][window], arrays["offset"][window], peak)
    return Snippet(
        where, feature, kind, window, start, stop, peak, tuple(tokens), silent, tuple(scored), other, flagged
    )


def span(length: int, peak: int) -> tuple[int, int]:
    """Where a snippet about `peak` begins and ends in a window of `length` tokens."""
    return max(0, peak - BEFORE), min(length, peak + AFTER + 1)


def made_for(cache: Cache) -> bytes:
    """What a table of negatives belongs to: these windows, this SAE, this length of a snippet."""
    said = {
        "windows": cache.manifest.files[WINDOWS]["sha256"],
        "model": cache.manifest.model_fingerprint,
        "sae": cache.manifest.sae_fingerprint,
        "span": [BEFORE, AFTER],
    }
    return json.dumps(said, sort_keys=True).encode()


def negatives(cache: Cache, feature: int) -> tuple[list[Snippet], str]:
    """The spans on which the model was seen silent, and what is wrong with their table ("" where nothing is, or there is none)."""
    path = cache.path / NEGATIVES
    if not path.is_file():
        return [], ""
    again = "Make it again with persona-explorer negatives"
    try:
        if (pq.read_schema(path).metadata or {}).get(b"made_for") != made_for(cache):
            return [], f"{NEGATIVES} was made for another cache and is not used. {again}"
        table = pq.read_table(path, filters=[("feature", "==", feature)])
        rows = table.select(COLUMNS.names).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [], f"{NEGATIVES} cannot be read ({str(error).splitlines()[0][:100]}). {again}"
    return [cut(cache, feature, r["kind"], r["window"], r["peak"], other=r["other"]) for r in rows], ""


def write_negatives(cache: Cache, rows: dict[str, list[int] | list[str]]) -> Path:
    """Write the table of negatives of a cache, whole; gives back its path."""
    path = cache.path / NEGATIVES
    table = pa.table({name: rows[name] for name in COLUMNS.names}, schema=COLUMNS)
    table = table.replace_schema_metadata({b"made_for": made_for(cache)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=12)
    write_whole(path, buffer.getvalue())
    return path


_ID = re.compile(r"\d{1,9}:\d{1,9}:\d{1,9}")
Key = Callable[[int, int], bytes]
T = TypeVar("T", Example, Snippet)


def _order(feature: int, seed: int) -> Key:
    def key(window: int, peak: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{feature}:{window}:{peak}".encode(), digest_size=8).digest()

    return key


def _sorted(some: Iterable[T], order: Key) -> list[T]:
    return sorted(some, key=lambda one: order(one.window, one.peak))


def _fill(sources: list[list[T]], wanted: int, taken: set[int]) -> list[T]:
    """Draw from the sources in turn until there are `wanted`, no window twice; `taken` grows."""
    found: list[T] = []
    queues = [iter(source) for source in sources]
    while len(found) < wanted and queues:
        for queue in list(queues):
            if len(found) == wanted:
                break
            one = next((o for o in queue if o.window not in taken), None)
            if one is None:
                queues.remove(queue)
            else:
                taken.add(one.window)
                found.append(one)
    return found


def _of_example(example: Example, kind: str, peak: int, other: int = -1) -> Snippet:
    """The span about `peak` of a window of which an example tells all activations."""
    start, stop = span(len(example.tokens), peak)
    within = slice(start, stop)
    return Snippet(
        place_id(example.document, example.offset, peak), example.feature, kind, example.window, start, stop, peak,
        example.tokens[within], example.acts[within], example.scored[within], other, example.flagged,
    )  # fmt: skip


def windows_of(cache: Cache, ids: Iterable[str]) -> set[int]:
    """The windows that snippets of these ids were cut from; ids of another corpus name none."""
    places = {tuple(map(int, name.split(":")[:2])) for name in ids if _ID.fullmatch(name)}
    document, offset = (np.asarray(cache.windows[name]) for name in ("document", "offset"))
    return {int(at) for d, o in places for at in np.flatnonzero((document == d) & (offset == o))}


def ranks_seen(cache: Cache, feature: int, evidence: str) -> set[int] | None:
    """The ranks of the examples that a label says it rests on; None where it does not say, or names another corpus's.

    Args:
        evidence: As a label carries it.
    """
    noted = Evidence.from_json(evidence)
    if noted is None or not noted.examples:
        return None
    return {e.rank for e in cache.examples(feature) if example_id(e) in set(noted.examples)}


def _silent(example: Example, peak: int) -> bool:
    start, stop = span(len(example.tokens), peak)
    return not any(example.acts[start:stop])


def _near_in_own(cache: Cache, feature: int, fresh: list[Example]) -> Iterator[Snippet]:
    """Where related features peak in the windows of the feature's own examples, and it does not fire."""
    of = {e.window: e for e in fresh}
    facts = cache.feature(feature)
    for other in dict.fromkeys([i for i, _ in facts.neighbours] + [i for i, _ in facts.coactive]):
        for theirs in cache.examples(other):
            own = of.get(theirs.window)
            if own is not None and _silent(own, theirs.peak):
                yield _of_example(own, NEAR_MISS, theirs.peak, other)


def _elsewhere(fresh: list[Example], order: Key) -> Iterator[Snippet]:
    """One silent stretch of each window, by chance, in which most tokens count as evidence."""
    for example in fresh:
        places = [
            at
            for at in range(len(example.tokens))
            if example.scored[at] and _silent(example, at) and _told(example.scored, at)
        ]
        if places:
            yield _of_example(example, ELSEWHERE, min(places, key=lambda at: order(example.window, at)))


def _told(scored: tuple[bool, ...], peak: int) -> bool:
    start, stop = span(len(scored), peak)
    return float(np.mean(scored[start:stop])) >= 0.8
