"""When a text has broken down and says the same thing over and over."""

from collections.abc import Sequence


def repeated(words: Sequence[str], n: int) -> float:
    """Share of runs of `n` words that were there before; 0 where there are fewer words."""
    runs = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def first_loop(words: Sequence[str], n: int = 4, times: int = 3, within: int = 64) -> int | None:
    """Where a text begins to repeat itself: the start of the third copy of `n` words in a row.

    Copies may not overlap, so a laugh of a few syllables is no loop; nor is a run of signs without letters, as lists and tables have.

    Args:
        words: Words or tokens, as they were written; case and surrounding blanks do not matter.
        n: How many in a row make a copy.
        times: Which copy is one too many.
        within: All these copies start within so many words; further apart, a phrase is a habit and not a loop.
    Returns:
        Index of the copy's first word; None where nothing repeats.
    """
    folded = [word.strip().casefold() for word in words]
    wordy = [any(c.isalpha() for c in word) for word in folded]
    seen: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(folded) - n + 1):
        if 2 * sum(wordy[at : at + n]) < n:
            continue
        copies = seen.setdefault(tuple(folded[at : at + n]), [])
        if not copies or at >= copies[-1] + n:
            copies.append(at)
            if len(copies) >= times and at - copies[-times] <= within:
                return at
    return None
