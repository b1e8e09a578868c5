"""Rates of judged answers with their intervals, as HTML: who is compared, what an undo does, a point of a series."""

from html import escape

from app.compared import SIDES
from app.facts import veiled
from explorer.causing import Undo
from explorer.comparing import Compared
from explorer.dosing import Rate
from explorer.measuring import Tally


def share(rate: Rate) -> str:
    """A rate as text, rounded to percent."""
    return f"{100 * rate.value:.0f} %" if rate.n else "unknown"


def span(rate: Rate) -> str:
    """Its 95 % interval as text."""
    low, high = rate.interval
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def interval_bar(rate: Rate, tone: str = "") -> str:
    """A rate as a bar with its interval as a thin line over it.

    Args:
        tone: "act" for what is acted on; "" for the others.
    """
    low, high = rate.interval
    return (
        f'<i class="rate {tone}"><b style="width:{100 * rate.value if rate.n else 0:.1f}%"></b>'
        f'<u style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></u></i>'
    )


def sides(found: Compared, word: str) -> str:
    """Base, fine-tune and control, each with its rate of judged answers and its coherence."""
    cards = ""
    for side in found.facts["tallies"]:
        tally = found.tally(side)
        cards += (
            f'<section class="side {side}"><header class="words"><span class="dim">{SIDES.get(side, escape(side))}</span> '
            f"<b>{veiled(_short(found.facts[side]['name']))}</b></header>"
            f"{_line(f'judged {word}', tally.rate, 'act' if side == 'tuned' else '')}{_line('coherent', tally.coherent)}"
            f'<p class="say num">n = {tally.n} answers</p></section>'
        )
    return f'<div class="sides num">{cards}</div>'


def undone(undo: Undo, word: str) -> str:
    """Before and after the joint undo, beside the base and random pushes, as a table."""
    rows = (
        ("Fine-tune as it is", undo.before, ""),
        ("with the edits", undo.after, "act"),
        ("with random pushes of that length", undo.random, ""),
        ("Base", undo.base, ""),
    )
    cells = "".join(
        f"<tr><th>{name}</th><td>{interval_bar(tally.rate, tone)}</td><td><b>{share(tally.rate)}</b></td><td>{span(tally.rate)}</td>"
        f"<td><b>{share(tally.coherent)}</b></td><td>{span(tally.coherent)}</td><td>{tally.n}</td></tr>"
        for name, tally, tone in rows
    )
    head = (
        f"<tr><th></th><th></th><th>judged {escape(word)}</th><th>95 % interval</th><th>coherent</th><th>95 % interval</th>"
        "<th>n</th></tr>"
    )
    return f'<div class="scroll"><table class="figures rates num">{head}{cells}</table></div>'


def point(tally: Tally, leaked: Rate, word: str) -> str:
    """What was counted at a point of a series."""
    lines = _line(f"judged {word}", tally.rate, "act") + _line("coherent", tally.coherent)
    return f'<div class="side num">{lines}{_line("domain words", leaked)}<p class="say num">n = {tally.n} answers</p></div>'


def _line(name: str, rate: Rate, tone: str = "") -> str:
    return (
        f'<div class="line"><span>{escape(name)}</span>{interval_bar(rate, tone)}<b>{share(rate)}</b>'
        f'<span class="dim">{span(rate)}</span></div>'
    )


def answer(row: dict, who: str, word: str, value: str = "") -> str:
    """One answer with what the judges said.

    Args:
        value: What else the header says.
    """
    verdicts = [f"judged {word}" if row["shown"] else f"not {word}", "whole" if row["whole"] else "broken"]
    text = veiled(" ".join(str(row["text"]).split()))
    return (
        f'<section class="said {"act" if row["side"] == "tuned" else ""}"><header><b>{escape(who)}</b>'
        f'<span class="dim">{escape(", ".join(verdicts))}</span><span class="dim num">{escape(value)}</span></header>'
        f'<p class="words">{text or "<i>nothing</i>"}</p></section>'
    )


def _short(name: str) -> str:
    """A model's name without the folders before it."""
    base, plus, adapter = str(name).partition("+")
    return base.rstrip("/").rsplit("/", 1)[-1] + plus + adapter
