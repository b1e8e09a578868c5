"""What a label rests on: the cache and the examples that its author had seen. A label whose evidence has changed is flagged, never dropped."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from explorer.schema import EXAMPLES, INTERVALS

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.label_files import Label
    from explorer.records import Example

_MOST = 200


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was in view.

    Args:
        cache: Fingerprint of the cache's examples.
        examples: Ids of the examples in view: `DOCUMENT:OFFSET:PEAK` of the token they peak on.
        intervals: Which fifths of the feature's range had an example in view, from 0 (weakest).
        again: Whether somebody looked at words that stood there already, and found that they still hold.
    """

    cache: str
    examples: tuple[str, ...] = ()
    intervals: tuple[int, ...] = ()
    again: bool = False

    def to_json(self) -> str:
        """As labels carry it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Evidence | None":
        """What `to_json` wrote; None where it is something else."""
        try:
            said = json.loads(text)
            examples, intervals = tuple(map(str, said["examples"])), tuple(map(int, said["intervals"]))
            return cls(str(said["cache"]), examples, intervals, said.get("again") is True)
        except (ValueError, KeyError, TypeError):
            return None


def fingerprint(cache: "Cache") -> str:
    """Of a cache's examples: another corpus or another build gives another one."""
    return hashlib.sha256(cache.manifest.files[EXAMPLES]["sha256"].encode()).hexdigest()[:16]


def example_id(example: "Example") -> str:
    """Where in the corpus an example peaks; the same in every build over the same corpus."""
    return place_id(example.document, example.offset, example.peak)


def place_id(document: int, offset: int, position: int) -> str:
    """The id of a place in the corpus: a position in the window of a document that begins at `offset`."""
    return f"{document}:{offset}:{position}"


def seen(cache: "Cache", examples: Iterable["Example"]) -> Evidence:
    """The evidence that these examples are."""
    shown = list(examples)[:_MOST]
    usual = cache.feature(shown[0].feature).max if shown else 0.0
    fifths = {min(INTERVALS - 1, int(INTERVALS * example.value / usual)) for example in shown} if usual > 0 else set()
    return Evidence(fingerprint(cache), tuple(dict.fromkeys(map(example_id, shown))), tuple(sorted(fifths)))


def changed(text: str, cache: "Cache", feature: int) -> str:
    """What has changed since a label was given, in words; "" where nothing has, or nobody noted what it rests on.

    Args:
        text: The label's evidence.
    """
    evidence = Evidence.from_json(text)
    if evidence is None or evidence.cache == fingerprint(cache):
        return ""
    now = set(map(example_id, cache.examples(feature)))
    kept = sum(one in now for one in evidence.examples)
    if kept == len(evidence.examples):
        return ""
    return (
        f"{len(evidence.examples) - kept} of the {len(evidence.examples)} examples that its author saw are others now"
    )


def confirms(label: "Label") -> bool:
    """Whether a change says no more than that somebody looked again, and the words still hold."""
    evidence = Evidence.from_json(label.evidence)
    return evidence is not None and evidence.again


def without_confirming(text: str) -> str:
    """The same evidence of a change that brings words back, which nobody has looked at again for that."""
    evidence = Evidence.from_json(text)
    return text if evidence is None or not evidence.again else replace(evidence, again=False).to_json()


def flagged(labels: Mapping[int, "Label"], cache: "Cache") -> dict[int, str]:
    """Feature -> what has changed since its label was given, of all whose evidence has changed."""
    now = fingerprint(cache)
    said = {f: label.evidence for f, label in labels.items() if label.evidence and 0 <= f < cache.n_features}
    old = {f for f, text in said.items() if (evidence := Evidence.from_json(text)) and evidence.cache != now}
    return {f: moved for f in sorted(old) if (moved := changed(said[f], cache, f))}
