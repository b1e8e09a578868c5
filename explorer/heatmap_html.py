"""A feature as HTML that stands alone: figures, promoted tokens, and its texts with every token coloured. No script, no network.

The colours are those of the app's heatmap (`app/components/scale.css`): level = ceil(8 * activation / top), eight steps for each theme,
so that the contrast of the words on each step is known. Everything that comes from a text or a vocabulary is escaped. A notebook has a
style of its own for <code> and sets what stands between $ as mathematics: there is no <code> here, and `PLAIN` keeps that away.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from explorer.cache import Cache
from explorer.records import Example
from explorer.schema import INTERVALS
from explorer.text import Unit, Vocabulary

LEVELS = 8
WINDOW = 12
"""Units shown on each side of the strongest one."""
PLAIN = "pe tex2jax_ignore mathjax_ignore"
"""Classes of a block: of ours, and those by which either MathJax passes it over."""

_COLOURS = (
    ("#FFF3DF", "#2B2118"), ("#FFE5BD", "#3F2C17"), ("#FFD497", "#553816"), ("#FFC06D", "#6E4514"),
    ("#FBA84A", "#C27A22"), ("#F19138", "#D9902F"), ("#E67F2E", "#EDA944"), ("#DA6D26", "#FFC766"),
)  # fmt: skip
_STEPS = "".join(f".pe .a{n}{{--bg:light-dark({light},{dark})}}" for n, (light, dark) in enumerate(_COLOURS, 1))
STYLE = f"""
.pe{{color-scheme:light dark;--ink:light-dark(#1A1D23,#E9EBEF);--dim:light-dark(#5B6270,#9AA2B1);--line:light-dark(#DDE1E7,#343946);
--hair:light-dark(#E7EAEF,#282C35);--act:light-dark(#0F6E66,#4FC4B5);background:light-dark(#FFFFFF,#15171C);color:var(--ink);
font:14px/1.6 "Source Sans 3",system-ui,sans-serif;padding:.8rem 1rem;border-radius:6px;overflow-wrap:anywhere}}
.pe h2{{font-size:1.2rem;font-weight:600;line-height:1.3;margin:0 0 .2rem;color:inherit}}.pe h2 b{{font-weight:400;color:var(--dim)}}
.pe p,.pe h3{{margin:.1rem 0;font-size:.86rem;color:var(--dim)}}.pe h3{{font-weight:600;margin-top:.8rem}}
.pe b{{font-variant-numeric:tabular-nums}}
.pe .tok,.pe .text{{font-family:"Source Code Pro",ui-monospace,monospace;font-size:.93rem}}
.pe .tok{{margin-right:.8em;white-space:pre}}.pe .row{{display:grid;grid-template-columns:3.6rem minmax(0,1fr);gap:.75rem;
border-top:1px solid var(--hair);padding:.22rem 0;align-items:baseline}}.pe .val{{font-weight:600;font-size:.86rem;text-align:right;
font-variant-numeric:tabular-nums}}.pe .text{{white-space:pre-wrap;line-height:1.65}}
.pe .t{{background:var(--bg,transparent);color:var(--on,inherit);border-radius:2px;padding:.1em 0}}
.pe :is(.a5,.a6,.a7,.a8){{--on:light-dark(#1A1D23,#15171C)}}.pe .max{{font-weight:700;box-shadow:inset 0 -2px currentColor}}
.pe .un{{color:var(--dim)}}.pe .sp{{font-size:.79rem;color:var(--dim);border:1px solid var(--line);border-radius:3px;padding:0 .25em}}
.pe .iso{{unicode-bidi:isolate}}.pe summary{{cursor:pointer;color:var(--dim);font-size:.86rem}}{_STEPS}
"""
_GLYPHS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_ODD = [*range(9), 11, 12, *range(14, 32), 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_INVISIBLE = dict.fromkeys(_ODD, "\ufffd")


def level(value: float, top: float) -> int:
    """The step of the scale, 0 (no colour) to 8: ceil(8 * value / top), and no more than 8.

    Args:
        value: An activation; what is not positive has no colour.
        top: What the strongest colour stands for.
    """
    if not (value > 0 and top > 0):
        return 0
    return min(LEVELS, math.ceil(LEVELS * value / top))


def tokens_html(
    vocabulary: Vocabulary,
    tokens: Sequence[int],
    acts: Sequence[float],
    scored: Sequence[bool],
    *,
    top: float,
    window: int = WINDOW,
) -> str:
    """A text as spans, its tokens joined to whole characters.

    Args:
        tokens, acts, scored: One a token; what is not scored gets no colour.
        top: What the strongest colour stands for, in SAE units.
        window: Units on each side of the strongest one; 0 shows the whole text.
    """
    units = vocabulary.units(tokens, acts)
    counted = [not unit.special and any(scored[unit.start : unit.stop]) for unit in units]
    best = max((n for n, counts in enumerate(counted) if counts), key=lambda n: units[n].value, default=0)
    first, last = (max(0, best - window), min(len(units), best + window + 1)) if window else (0, len(units))
    spans = [
        _span(unit, top, counts, n == best and unit.value > 0)
        for n, (unit, counts) in enumerate(zip(units, counted, strict=True))
        if first <= n < last
    ]
    return f"{'… ' if first else ''}{''.join(spans)}{' …' if last < len(units) else ''}"


def _span(unit: Unit, top: float, counts: bool, strongest: bool) -> str:
    if unit.special:
        return f'<span class="t sp" title="special token, not scored">{shown(unit.text)}</span>'
    if not counts:
        return f'<span class="t un" title="not scored">{_visible(unit.text)}</span>'
    step = level(unit.value, top)
    if not step:
        return shown(unit.text)
    space = " " if unit.text.startswith(" ") and unit.text.strip() else ""  # so that the colour hugs the word
    kind = f"t a{step}{' max' if strongest else ''}{' iso' if not unit.text.isascii() else ''}"
    return f'{space}<span class="{kind}" title="{unit.value:.3g}">{_visible(unit.text[len(space) :])}</span>'


def _visible(text: str) -> str:
    """Text of which white space alone shows as a sign."""
    if text.strip():
        return shown(text)
    return "".join(_GLYPHS.get(c, "·") + ("\n" if c == "\n" else "") for c in text)


def shown(text: str) -> str:
    """Text for HTML: escaped, without characters that turn the line round or cannot be printed."""
    return escape(text.translate(_INVISIBLE))


def examples_html(cache: Cache, examples: Iterable[Example], *, whole: bool = False) -> str:
    """Examples of one feature under the headings of their ranges; those with words that the app blurs are folded away.

    Args:
        whole: A click on a text shows the whole of it.
    """
    parts, group = [], ""
    for example in examples:
        top = cache.feature(example.feature).max
        if (said := _group(example, top)) != group:
            group = said
            parts.append(f"<h3>{said}</h3>")
        text = _text(cache, example, top, WINDOW)
        if whole and (all_of_it := _text(cache, example, top, 0)) != text:
            text += f"<details><summary>the whole text</summary>{all_of_it}</details>"
        if example.flagged:
            text = f"<details><summary>offensive words in this text</summary>{text}</details>"
        parts.append(
            f'<div class="row"><span class="val">{example.value:.3g}</span><div class="text">{text}</div></div>'
        )
    return "".join(parts) or "<p>No text of the corpus activates this feature.</p>"


def _text(cache: Cache, example: Example, top: float, window: int) -> str:
    told = (example.tokens, example.acts, example.scored)
    return tokens_html(cache.vocabulary, *told, top=top, window=window)


def _group(example: Example, top: float) -> str:
    if example.kind == "top":
        return "Top"
    low, high = (top * (example.interval + end) / INTERVALS for end in (0, 1))
    return f"Interval {example.interval + 1}: {low:.3g} to {high:.3g}"


def feature_html(
    cache: Cache, index: int, *, label: str = "", note: str = "", examples: Sequence[Example], whole: bool = False
) -> str:
    """A feature as a block of HTML; `STYLE` belongs above it.

    Args:
        label: What somebody named it; its own words stand there otherwise.
        note: What somebody wrote about it.
        whole: A click on a text shows the whole of it.
    """
    found = cache.feature(index)
    named = shown(label) if label else f"<b>{shown(found.title) or 'silent in this corpus'}</b>"
    facts = [
        f"max <b>{found.max:.3g}</b>",
        f"fires on <b>{found.density:.3%}</b> of tokens",
        f"<b>{found.tokens_active:,}</b> tokens in <b>{found.documents_active:,}</b> documents",
        shown(cache.manifest.hook_point),
        shown(cache.manifest.model),
    ]
    lists = "".join(
        f"<h3>{what}</h3><div>{''.join(_shift(cache.vocabulary.piece(token), by) for token, by in pairs)}</div>"
        for what, pairs in (("Promotes", found.promoted), ("Suppresses", found.suppressed))
        if pairs
    )
    said = f'<p style="white-space:pre-wrap">{shown(note)}</p>' if note else ""
    body = examples_html(cache, examples, whole=whole)
    return f'<section class="{PLAIN}"><h2>#{index} {named}</h2><p>{" · ".join(facts)}</p>{said}{lists}{body}</section>'


def _shift(piece: str, by: float) -> str:
    return f'<span class="tok">{shown(piece)} {by:+.2f}</span>'


def document(title: str, blocks: Iterable[str], *, note: str = "") -> str:
    """A whole page out of blocks: one file that needs nothing but a browser."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{shown(title)}</title><style>body{{margin:0 auto;max-width:80rem;background:light-dark(#FFFFFF,#15171C)}}"
        f":root{{color-scheme:light dark}}{STYLE}</style></head><body>"
        f'<header class="pe"><h1 style="font-size:1.5rem;margin:0">{shown(title)}</h1><p>{shown(note)}</p></header>'
        f"<main>{''.join(blocks)}</main></body></html>\n"
    )
