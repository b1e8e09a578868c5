"""The features that a fine-tune moved as rows of a table, and what is said round them."""

from typing import Any

import numpy as np

from app import compared, standings, state
from app.compared import VERDICTS, Mover
from explorer.causing import Effect
from explorer.offensive import flag

HEAD = (
    ("number", "#", "Number of the feature in its SAE; opens it", ""),
    ("name", "label", "The label, or in grey the feature's own words", ""),
    ("change", "change", "Mean activation in the fine-tune less that in the base, in SAE units; below, 95 % over questions", "change"),
    ("effect", "beyond control", "The change less the control fine-tune's, which stands below; it has no interval of its own", "beyond"),
    ("small", "place", "Place by change among all features of the SAE: the first rose most, the last fell most", ""),
    ("effect", "added to base", "Judged answers of the base with the feature added; below, with random pushes of that length", "effect"),
    ("effect", "taken away", "Judged answers of the fine-tune with the feature taken away; below, with random pushes of that length", "effect"),
    ("verdict", "verdict", "What steering with it has shown", ""),
)  # fmt: skip


def row(mover: Mover, names: dict[int, str], labels: dict[int, str]) -> dict[str, Any]:
    """A mover as the table takes it."""
    name = names[mover.feature]
    beyond = ["–", "", "no control"]
    if np.isfinite(mover.control):
        beyond = [f"{mover.beyond_control:+.2f}", *[f"control {mover.control:+.2f}"] * 2]
    means = f"{mover.base:.2f} in the base, {mover.tuned:.2f} in the fine-tune"
    change = [f"{mover.change:+.2f}", f"{mover.low:+.2f} to {mover.high:+.2f}", means]
    trial = mover.trial
    cells = [change, beyond, [f"{mover.rank:,}", "", ""]]
    cells += [effect(trial.added), effect(trial.removed)] if trial else [["–", "", "not tested"]] * 2
    return {
        "index": mover.feature,
        "name": name,
        "labelled": mover.feature in labels,
        "blurred": bool(flag(name)),
        "href": state.link("feature", feature=mover.feature),
        "cells": [[text.replace("-", "−"), small.replace("-", "−"), title] for text, small, title in cells],
        "verdict": mover.verdict,
        "why": VERDICTS[mover.verdict]
        + ("" if trial is None or trial.confirmed else " Screened only, on few answers."),
    }


def effect(one: Effect) -> list[str]:
    """A push beside random ones, as a cell."""
    pushed, random = one.pushed, one.random
    title = (
        f"At {one.strength:+.2f} × its maximum: {standings.share(pushed.rate)} ({standings.span(pushed.rate)}, n = {pushed.n}), "
        f"{standings.share(pushed.coherent)} coherent; random: {standings.share(random.rate)} ({standings.span(random.rate)}, n = {random.n})"
    )
    return [standings.share(pushed.rate), f"random {standings.share(random.rate)}", title]


def candidates_words(movers: tuple[Mover, ...]) -> str:
    """What the second list is, and how far the two orders agree."""
    said = (
        "They moved, and steering with them showed no such effect, or nobody has tried. What moved is no cause by that. "
        "The list ends with what fell most."
    )
    if (agreed := compared.agreement(movers)) is not None:
        rho, n = agreed
        said += f" Over the {n} tested features, the order by change and the order by effect correlate with {rho:.2f} (Spearman)."
    return said.replace("-0.", "−0.")


def reading_words(source: str, kind: str) -> str:
    """What the reading in view reads."""
    texts = {
        "own": "Each model reads its own answers: what it writes decides which features fire.",
        "shared": "Both models read the base's answers: only what they make of the same text differs.",
    }
    tokens = {
        "prompt": "Means over the tokens of the question.",
        "last": "At the last token before the answer.",
        "answer": "Means over the tokens of the answer.",
    }
    return f"{texts[source]} {tokens[kind]}"
