"""A sweep's answers as one readable table, as HTML. Everything a model or a person wrote is escaped here. No streamlit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from app.facts import veiled
from app.sweeps import Group

if TYPE_CHECKING:
    from explorer.dosing import Cell

CLIP = 230  # characters of an answer before it has to be opened


def strength_words(strength: float) -> str:
    """+1.50, −0.50, 0."""
    return f"{strength:+.2f}".replace("-", "−") if strength else "0"


def by_question(group: Group, trait: str, label: str) -> str:
    """One push: strengths down, questions across, those that it moves most first."""
    strengths = sorted({cell.strength for cell in group.cells})
    questions = sorted({cell.prompt: None for cell in group.cells}, key=lambda q: -_reach(group.cells, q, trait))
    head = ['<div class="corner">strength</div>', *(f'<div class="col">{veiled(q)}</div>' for q in questions)]
    rows = [
        f'<div class="row num">{strength_words(s)}</div>'
        + "".join(_box([c for c in group.cells if (c.strength, c.prompt) == (s, q)], trait, label) for q in questions)
        for s in strengths
    ]
    return _table(len(questions), [*head, *rows])


def by_feature(
    found: Sequence[Group], trait: str, label: str, names: Mapping[str, str], href: Callable[[str], str]
) -> str:
    """Many pushes: one a row, the largest effect first; strengths across.

    Args:
        names: Target (`Edit.target`) -> label or title.
        href: Target -> link to Steer with it.
    """
    strengths = sorted({cell.strength for group in found for cell in group.cells})
    head = [
        '<div class="corner">feature</div>',
        *(f'<div class="col num">{strength_words(s)}</div>' for s in strengths),
    ]
    rows = []
    for group in found:
        target = group.edits[0].target
        rows.append(
            f'<div class="row"><a href="{escape(href(target))}" target="_self" title="Steer with it">{spelt(target)}</a> '
            f'{veiled(names.get(target, ""))}<p class="num">{_effect(group, label)}</p></div>'
            + "".join(_box([c for c in group.cells if c.strength == s], trait, label) for s in strengths)
        )
    return _table(len(strengths), [*head, *rows], wide=True)


def spelt(target: str) -> str:
    """#12 for a feature, the name of a direction."""
    return escape(target.removeprefix("~")) if target.startswith("~") else f"#{target}"


def _effect(group: Group, label: str) -> str:
    if round(group.effect, 2) <= 0:
        return f"no more {escape(label)} at any strength that leaves the text whole"
    return f"{escape(label)} +{group.effect:.2f} at {strength_words(group.best)}"


def _reach(cells: "Iterable[Cell]", question: str, trait: str) -> float:
    scores = [cell.scores.get(trait, 0.0) for cell in cells if cell.prompt == question]
    return max(scores) - min(scores)


def _box(cells: "Sequence[Cell]", trait: str, label: str) -> str:
    """The answers at one place of the table; the deeper the teal, the more of the trait."""
    if not cells:
        return '<div class="cell dim">not reached</div>'
    scores = [cell.scores[trait] for cell in cells if trait in cell.scores]
    mean = sum(scores) / len(scores) if scores else 0.0
    whole = sum(cell.coherent for cell in cells)
    mark = "whole" if whole == len(cells) else "broken" if not whole else f"{whole} of {len(cells)} whole"
    tone = "" if whole == len(cells) else " bad"
    said = f'<b class="num">{escape(label)} {mean:.2f}</b>' if scores else ""
    texts = "".join(_answer(cell, len(cells) > 1) for cell in cells)
    return (
        f'<div class="cell{tone}" style="--depth:{round(26 * min(1.0, max(0.0, mean)))}%"><header>{said}'
        f'<span class="mark{tone}">{mark}</span></header>{texts}</div>'
    )


def _answer(cell: "Cell", several: bool) -> str:
    asked = f'<span class="dim">{veiled(cell.prompt)}</span> ' if several else ""
    text = cell.text.strip()
    if not text:
        return f'<p>{asked}<i class="dim">no answer</i></p>'
    end = ' <span class="rep">repeats from here</span>' if cell.looped else ""
    if len(text) <= CLIP:
        return f"<p>{asked}{veiled(text)}{end}</p>"
    cut = text.rfind(" ", 0, CLIP) + 1 or CLIP
    return f"<details><summary>{asked}{veiled(text, 0, cut)}<i>…</i></summary>{veiled(text, cut)}{end}</details>"


def _table(columns: int, parts: Sequence[str], wide: bool = False) -> str:
    return (
        f'<div class="sweep{" wide" if wide else ""}" tabindex="0" style="--columns:{columns}">{"".join(parts)}</div>'
    )
