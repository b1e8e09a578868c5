"""Which features are left by what people said of them: who labelled them, their lists and tags, what was remarked."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from explorer.errors import UsageError
from explorer.evidence_lock import flagged
from explorer.label_files import Label
from explorer.labels import LabelStore
from explorer.lists import Lists
from explorer.remarks import Remarks

if TYPE_CHECKING:
    from explorer.cache import Cache

REMARKED = {
    "commented": "Somebody has commented on it.",
    "voted for": "What the label says has more votes for it than against it.",
    "voted against": "What the label says has more votes against it than for it.",
    "to look at again": "The examples that the label was given for are others now.",
}
"""What can have been remarked of a feature -> what that means."""


def among(
    cache: "Cache",
    store: LabelStore,
    labels: Mapping[int, Label],
    *,
    author: str = "",
    listed: str = "",
    tag: str = "",
    remarked: str = "",
    moved: Collection[int] | None = None,
) -> set[int] | None:
    """The features that all of these leave, for `only` of `explorer.search.search`; None where nothing was asked.

    Args:
        store: Where the labels lie; lists, tags and remarks lie there too.
        labels: Feature -> its label, as the store has them.
        author: Whose label it is.
        listed: A list that it is in; tag: a tag that it has, case aside.
        remarked: One of `REMARKED`.
        moved: What a fine-tune raised (`explorer.comparing.risen`).
    Raises:
        UsageError: If there is no such list, or `remarked` is unknown.
        LabelError: If the database cannot be read.
    """
    sae = cache.manifest.sae_fingerprint
    left: list[Collection[int]] = []
    if author:
        left.append([f for f, label in labels.items() if label.author == author])
    if listed:
        left.append(Lists(store.database).named(sae, listed).features)
    if tag:
        wanted = tag.strip().casefold()
        left.append([f for f, tags in Remarks(store.database).tags(sae).items() if wanted in tags])
    if remarked:
        left.append(_remarked(cache, store, labels, remarked))
    if moved is not None:
        left.append(moved)
    return set.intersection(*map(set, left)) if left else None


def _remarked(cache: "Cache", store: LabelStore, labels: Mapping[int, Label], kind: str) -> Collection[int]:
    if kind not in REMARKED:
        raise UsageError(f"{kind!r} is nothing that is remarked", expected=", ".join(REMARKED), do="Use one of these")
    sae = cache.manifest.sae_fingerprint
    if kind == "to look at again":
        return flagged(labels, cache)
    remarks = Remarks(store.database)
    if kind == "commented":
        return remarks.counts(sae)
    votes = remarks.all_votes(sae)
    said = store.standing(sae, votes)
    # two people may have said the same words: somebody who votes on both has one vote
    by_voter = {
        f: dict(v for change in sorted(by) if change in said[f] for v in by[change].items()) for f, by in votes.items()
    }
    balance = {f: sum(cast.values()) for f, cast in by_voter.items()}
    return [f for f, value in balance.items() if (value > 0 if kind == "voted for" else value < 0)]
