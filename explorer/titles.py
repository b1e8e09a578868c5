"""What a feature is called before anybody named it: its own words, out of its top examples."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from explorer.text import Vocabulary

_SNIPPET = 12
_BROKEN = "\ufffd"  # what part of a character decodes to


def words(
    examples: Mapping[str, Any], windows: Mapping[str, np.ndarray], vocabulary: Vocabulary, n: int
) -> tuple[list[list[str]], list[list[str]]]:
    """Of each feature's top examples: the words at the peaks, and the text around them, whitespace folded.

    No character is cut in two.
    """
    peaks: list[list[str]] = [[] for _ in range(n)]
    lines: list[list[str]] = [[] for _ in range(n)]
    for feature, kind, window, peak in zip(
        *(examples[name] for name in ("feature", "kind", "window", "peak")), strict=True
    ):
        if kind != "top":
            continue
        start, stop = windows["starts"][window : window + 2]
        first = max(0, int(peak) - _SNIPPET)
        tokens = windows["tokens"][start + first : min(stop, start + peak + 1 + _SNIPPET)].tolist()
        word = vocabulary.text(tokens[peak - first : peak - first + 1])
        if _BROKEN in word:  # a piece of a character: the whole of it is the word
            units = vocabulary.units(tokens)
            word = next(u.text for u in units if u.start <= peak - first < u.stop)
        peaks[feature].append(word.strip())
        lines[feature].append(" ".join(vocabulary.text(tokens).strip(_BROKEN).split()))
    return peaks, lines


def title(peaks: list[str], promoted: list[str]) -> str:
    """A provisional title: the words it fires on where they are few, else the words it promotes."""
    if not peaks:
        return ""
    counts = Counter(word.lower() for word in peaks if word.strip())
    common = [word for word, _ in counts.most_common(3)]
    told = sum(counts[word] for word in common) / len(peaks)
    if common and told >= 0.4:
        return " · ".join(common)
    return "→ " + " · ".join(dict.fromkeys(word for word in promoted[:4] if word))
