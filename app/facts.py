"""What is known of a feature, in words and HTML for people; all foreign text is escaped here."""

import math
from html import escape

from explorer.cache import Cache
from explorer.records import Feature


def percent(share: float) -> str:
    """A share for people: three significant digits, in percent."""
    if share <= 0:
        return "0 %"
    digits = max(0, 2 - math.floor(math.log10(share * 100)))
    return f"{share * 100:.{min(digits, 5)}f} %"


def number(value: float) -> str:
    """An activation for people: three significant digits, never as a power of ten."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def logit_effects(cache: Cache, feature: Feature, rows: int = 10) -> str:
    """The tokens that a feature promotes and suppresses, side by side, as HTML.

    Args:
        rows: At most so many of each.
    """
    sides = ((feature.promoted[:rows], "pos", "+"), (feature.suppressed[:rows], "neg", "−"))
    cells = []
    for at in range(max(len(effects) for effects, _, _ in sides)):
        for effects, tone, sign in sides:
            if at >= len(effects):
                cells.append("<div></div>")
                continue
            token, logit = effects[at]
            piece = escape(cache.vocabulary.piece(token))
            cells.append(
                f'<div><code title="“{piece}”, token {token}">{piece}</code>'
                f'<span class="{tone}">{sign}{abs(logit):.2f}</span></div>'
            )
    return f'<div class="logit num">{"".join(cells)}</div>' if cells else ""


def plain(text: str, longest: int = 48) -> str:
    """Other people's words where Streamlit reads markdown: one line, with every sign that it knows escaped."""
    line = " ".join(text.split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-.!|~$:&^=/@" else c for c in line) or "without words"
