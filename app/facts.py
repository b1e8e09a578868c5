"""What is known of a feature, in words and HTML for people; foreign text is escaped, and swearing hidden, here."""

import math
import re
from collections.abc import Collection
from html import escape

from explorer.cache import Cache
from explorer.offensive import spans
from explorer.records import Feature

# Control characters show as a sign of their own; direction overrides would reach beyond their own text.
_BARE = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], "\ufffd") | dict.fromkeys(
    [*range(0x202A, 0x202F), *range(0x2066, 0x206A)], ""
)
_SENTENCE = re.compile(r"\S[^.!?\n]*[.!?]*")
_VEIL = '<span class="blur" tabindex="0" role="button" aria-label="hidden word, focus to read">'


def bare(text: str) -> str:
    """Without the characters that HTML cannot hold or that would turn the page's writing around."""
    return text.translate(_BARE)


def veiled(text: str, start: int = 0, stop: int | None = None, *, judged: bool = False) -> str:
    """`text[start:stop]` as HTML, with a veil over each word that is not for every room.

    Args:
        judged: A judge takes the text as a whole for insulting: each sentence gets a veil.
    """
    stop = len(text) if stop is None else stop
    out, at = [], start
    for first, last in (m.span() for m in _SENTENCE.finditer(text)) if judged else spans(text):
        first, last = max(first, start), min(last, stop)
        if first < last:
            out += [escape(bare(text[at:first])), _VEIL, escape(bare(text[first:last])), "</span>"]
            at = last
    return "".join(out) + escape(bare(text[at:stop]))


def masked(text: str) -> str:
    """`veiled` where no HTML is read: of such a word its first letter stays."""
    for first, last in spans(text):
        text = text[: first + 1] + "•" * (last - first - 1) + text[last:]
    return bare(text)


def percent(share: float) -> str:
    """A share for people: three significant digits, in percent."""
    if share <= 0:
        return "0 %"
    digits = max(0, 2 - math.floor(math.log10(share * 100)))
    return f"{share * 100:.{min(digits, 5)}f} %"


def number(value: float) -> str:
    """An activation for people: three significant digits, to six places where it is tiny; never as a power of ten."""
    if 0 < abs(value) < 1e-4:
        return f"{value:.6f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def logit_effects(cache: Cache, feature: Feature, rows: int = 10, *, shared: Collection[int] = ()) -> str:
    """The tokens that a feature promotes and suppresses, side by side, as HTML.

    Args:
        rows: At most so many of each.
        shared: Tokens to mark where they are promoted.
    """
    sides = ((feature.promoted[:rows], "pos", "+"), (feature.suppressed[:rows], "neg", "−"))
    cells = []
    for at in range(max(len(effects) for effects, _, _ in sides)):
        for effects, tone, sign in sides:
            if at >= len(effects):
                cells.append("<div></div>")
                continue
            token, logit = effects[at]
            piece = cache.vocabulary.piece(token)
            mark = ' class="shared"' if token in shared and tone == "pos" else ""
            cells.append(
                f'<div><code{mark} title="“{escape(masked(piece))}”, token {token}">{veiled(piece)}</code>'
                f'<span class="{tone}">{sign}{abs(logit):.2f}</span></div>'
            )
    return f'<div class="logit num">{"".join(cells)}</div>' if cells else ""


def markdown_text(text: str, longest: int = 48) -> str:
    """Other people's words where Streamlit reads markdown: one line, masked, with every sign that it knows escaped."""
    line = " ".join(masked(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-.!|~$:&^=/@" else c for c in line) or "without words"
