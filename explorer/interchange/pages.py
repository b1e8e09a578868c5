"""Features as one HTML file that needs no network and no program but a browser."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.cache import Cache
from explorer.files import write_whole
from explorer.heatmap_html import document, feature_html

if TYPE_CHECKING:
    from explorer.label_files import Label


def write(
    cache: Cache,
    features: Sequence[int],
    out: Path,
    *,
    labels: "Mapping[int, Label] | None" = None,
    title: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write features with all their examples into one file.

    Args:
        labels: Feature -> label.
        title: Of the page; the features' numbers by default.
    Raises:
        OSError: If it cannot be written.
    """
    blocks = []
    for done, index in enumerate(features):
        said = (labels or {}).get(index)
        label, note = (said.label, said.note) if said else ("", "")
        blocks.append(feature_html(cache, index, label=label, note=note, examples=cache.examples(index), whole=True))
        progress(done + 1, len(features))
    made = cache.manifest
    called = title or (f"Feature {features[0]}" if len(features) == 1 else f"{len(features):,} features")
    note = (
        f"{cache.name}: {made.model} at {made.hook_point}, SAE {made.sae} ({made.sae_fingerprint[:12]}), corpus {made.corpus}. "
        "The colour of a token is its activation in eight steps of the feature's maximum; the bold one is the strongest of its text."
    )
    write_whole(out, document(called, blocks, note=note))
    return [out]
