"""Answers on paper: cells as CSV, and as one HTML file that needs no network and no program but a browser."""

import csv
import io
from collections.abc import Sequence
from html import escape

from explorer.dosing import Cell
from explorer.judging import COHERENT_RULE
from explorer.offensive import spans

_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:110rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}th,td{border:1px solid #8886;padding:.5rem .7rem;
text-align:left;vertical-align:top}
th{font-weight:600}td{overflow-wrap:anywhere;min-width:14rem}td p{margin:.2rem 0;white-space:pre-wrap}small{opacity:.75}
.broken{opacity:.65}.blur{filter:blur(.3em)}.blur:hover,.blur:focus{filter:none}
"""
_BARE = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], "\ufffd") | dict.fromkeys(
    [*range(0x202A, 0x202F), *range(0x2066, 0x206A)], ""
)
_FORMULA = tuple("=+-@\t\r")


def as_csv(cells: Sequence[Cell]) -> str:
    """One line an answer: what was pushed how far, the question, the answer, and a column a judge.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    judges = list(dict.fromkeys(name for cell in cells for name in cell.scores))
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["strength", "edits", "question", "seed", "answer", "looped", "coherent", *judges])
    for cell in cells:
        scores = [f"{cell.scores[name]:.4g}" if name in cell.scores else "" for name in judges]
        said = (f"{cell.strength:g}", pushed(cell), unformula(cell.prompt), cell.seed, unformula(cell.text))
        lines.writerow([*said, int(cell.looped), int(cell.coherent), *scores])
    return file.getvalue()


def as_html(cells: Sequence[Cell], *, title: str, judge: str, note: str = "") -> str:
    """A table to read: strengths down and questions across; with several pushes, pushes down and strengths across.

    Args:
        judge: Whose number stands at each answer.
        note: One line about how it was made.
    """
    pushes = list(dict.fromkeys(_push(cell) for cell in cells))
    several = len(pushes) > 1
    down = pushes if several else sorted({cell.strength for cell in cells})
    across = sorted({c.strength for c in cells}) if several else list(dict.fromkeys(c.prompt for c in cells))
    head = "".join(f"<th scope=col>{_said(place)}</th>" for place in across)
    rows = []
    for row in down:
        boxes = []
        for column in across:
            wanted = (row, column)
            here = [c for c in cells if ((_push(c), c.strength) if several else (c.strength, c.prompt)) == wanted]
            boxes.append(f"<td>{''.join(_answer(cell, judge, several) for cell in here)}</td>")
        rows.append(f"<tr><th scope=row>{_said(row)}</th>{''.join(boxes)}</tr>")
    corner = "pushed" if several else "strength"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(_bare(title))}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style><h1>{veiled(title)}</h1>"
        f"<p>{veiled(note)}</p><p>Strength 1 is as much as the strongest activation in the corpus; 0 is the model as it is. "
        f"{escape(COHERENT_RULE)} Broken answers are pale. Words under a blur show when you point at them.</p>"
        f"<table><thead><tr><th>{corner}</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></html>\n"
    )


def pushed(cell: Cell) -> str:
    """The edits of a cell as the command line spells them."""
    return " ".join(e.spelled for e in cell.edits)


def veiled(text: str) -> str:
    """`text` as HTML, with a blur over each word that is not for every room."""
    out, at = [], 0
    for first, last in spans(text):
        out += [
            escape(_bare(text[at:first])),
            "<span class=blur tabindex=0>",
            escape(_bare(text[first:last])),
            "</span>",
        ]
        at = last
    return "".join(out) + escape(_bare(text[at:]))


def _push(cell: Cell) -> str:
    """What is pushed, whatever the strength."""
    return " ".join(f"{e.target}:{e.mode}" for e in cell.edits)


def _answer(cell: Cell, judge: str, several: bool) -> str:
    asked = f"<small>{veiled(cell.prompt)}</small> " if several else ""
    score = f"{escape(judge)} {cell.scores[judge]:.2f}, " if judge in cell.scores else ""
    state = "whole" if cell.coherent else "repeats itself" if cell.looped else "broken"
    tone = "" if cell.coherent else " class=broken"
    return f"<div{tone}>{asked}<small>{score}{state}</small><p>{veiled(cell.text)}</p></div>"


def _said(place: str | float) -> str:
    return veiled(place) if isinstance(place, str) else f"{place:+g}".replace("-", "−") if place else "0"


def _bare(text: str) -> str:
    return text.translate(_BARE)


def unformula(text: str) -> str:
    """A text as a spreadsheet shows it: one that it would take for a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(_FORMULA) else text
