"""Both answers of a run as one piece of HTML. Everything a model or a person wrote is escaped here."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from app.facts import percent, veiled
from app.runs import Answer, Other, Run
from explorer.adapters import titled
from explorer.judging import COHERENT_RULE, Judge, coherent, judges
from explorer.records import Edit
from explorer.steering import STEERING_MODES

_NOTES = {
    "waiting": "waiting for the first token",
    "live": "streaming",
    "failed": "broke off",
}

_WHOSE = {"baseline": "{} by itself", "steered": "{}, steered"}


def grid(run: Run | None, *, changed: bool = False) -> str:
    """Baseline and steered answer side by side; one element, so that both columns are painted at once.

    Args:
        changed: The settings have been changed since the run.
    """
    cards = _card("baseline", run, changed) + _card("steered", run, changed)
    streaming = run is not None and run.others and (not run.over or run.judging)
    return f'<div class="answers">{cards}</div>' + (_others(run.others) if run and streaming else "")


def _others(others: Sequence[Other]) -> str:
    """The controls that are answered along; once they are judged, the part below the answers shows them."""
    cards = (
        f'<section class="push {other.kind}" aria-label="{escape(other.name)}"><header><b>{veiled(other.name)}</b>'
        f'<span class="dim num">{_tokens(len(other.answer.pieces))}</span></header>{prose(other.answer.pieces)}</section>'
        for other in others
    )
    return f'<div class="controls along">{"".join(cards)}</div>'


def notice(run: Run) -> str:
    """One amber line where the steered answer broke down; "" where it did not."""
    if not run.steered.looped:
        return ""
    n = len(run.steered.pieces)
    return (
        '<div class="trouble amber" role="status">The steered answer repeats itself after '
        f"{_tokens(n)} at strength {_strength(run)} and was cut there: too strong for this prompt.</div>"
    )


def _card(side: str, run: Run | None, changed: bool) -> str:
    title = "Baseline" if side == "baseline" else f"Steered{' ' + _strength(run) if run else ''}"
    if run is None:
        body = "what the model says by itself" if side == "baseline" else "what it says with these features"
        text = f'<p class="dim">Press Run: here comes {body}.</p>'
        return _section(side, title, "not run yet", text, [_WHOSE[side].format(_model(None))], live=False)
    answer: Answer = getattr(run, side)
    reused = side == "baseline" and run.reused
    live = run.phase == "live" and not answer.ended
    pieces, old = tuple(answer.pieces), False
    if not pieces and run.phase in ("warming", "waiting", "live", "failed") and not answer.ended:
        pieces, old = tuple(getattr(run, f"old_{side}")), True
    same = shared(tuple(run.baseline.pieces), pieces) if side == "steered" and not old else 0
    text = prose(pieces, same, old=old, looped=answer.looped)
    judged = verdict((run.scores or {}).get(side, {}), looped=answer.looped) if run.over else ""
    return _section(
        side, title, _note(run, answer, reused), text, _facts(run, side, same, changed), live=live, judged=judged
    )


def verdict(scores: Mapping[str, float], *, looped: bool) -> str:
    """What the judges say of an answer, as HTML: whether it is whole in words, then traits and measures; "" before they do."""
    known = judges()
    said = {n: score for n, score in scores.items() if (n in known or n == "fluency") and not math.isnan(score)}
    if not said:
        return ""
    parts = []
    if (fluency := said.pop("fluency", None)) is not None:
        whole = coherent(fluency, looped)
        kind, words = ("causal", "whole text") if whole else ("broken", "broken text")
        parts.append(f'<span class="tag {kind}" title="{escape(COHERENT_RULE)}">{words}</span> fluency {fluency:.2f}')
    parts += [_score(known[name], score) for name, score in said.items() if name != "loops"]
    return f'<div class="judged num">{"".join(f"<span>{part}</span>" for part in parts)}</div>'


def _score(judge: Judge, score: float) -> str:
    shown = (
        percent(score) if judge.unit == "share" else f"{score:.2f}" if judge.unit == "probability" else f"{score:.3g}"
    )
    words = f"{escape(judge.label.lower() if judge.label.istitle() else judge.label)} {shown}"
    return f'<span title="{escape(judge.help)}">{f"<b>{words}</b>" if judge.shows(score) else words}</span>'


def is_it_broken(run: Run | None) -> str:
    """The sentence that answers "is this text broken?": the rule, and the steered answer under it, as HTML."""
    fluency = ((run.scores or {}).get("steered") or {}).get("fluency") if run else None
    said = ""
    if run and fluency is not None and not math.isnan(fluency):
        whole = coherent(fluency, run.steered.looped)
        said = " The steered answer is whole." if whole else " <b>The steered answer is broken.</b>"
    return f'<p class="say words">Is this text broken? {escape(COHERENT_RULE)}{said}</p>'


def _section(side: str, title: str, note: str, text: str, facts: Sequence[str], *, live: bool, judged: str = "") -> str:
    footer = "".join(f"<span>{fact}</span>" for fact in facts) + judged
    return (
        f'<section class="ans {side}{" live" if live else ""}" aria-label="{escape(title)}">'
        f'<header><b>{escape(title)}</b><span class="dim num">{escape(note)}</span></header>'
        f'{text}<footer class="dim num">{footer}</footer></section>'
    )


def _note(run: Run, answer: Answer, reused: bool) -> str:
    n = len(answer.pieces)
    if reused:
        return f"reused, {_tokens(n)}"
    if answer.looped:
        return f"stopped after {_tokens(n)}"
    if answer.ended:
        return _tokens(n)
    if run.phase == "stopped":
        return f"stopped after {_tokens(n)}"
    if run.phase == "live":
        return f"streaming, {_tokens(n)}"
    return waiting(run) or (run.engine.warming if run.phase == "warming" else _NOTES.get(run.phase, ""))


def waiting(run: Run) -> str:
    """How many runs go before this one and for how long, such as "2 ahead, about 6 s"; "" while it does not queue."""
    if run.phase != "queued":
        return ""
    ahead, seconds = run.ahead
    return f"{ahead} ahead, about {max(1, round(seconds))} s" if ahead else _NOTES["waiting"]


def _facts(run: Run, side: str, same: int, changed: bool) -> list[str]:
    facts = [_WHOSE[side].format(_model(run))]
    if side == "steered":
        if run.steered.pieces and run.baseline.pieces:
            if run.over and same == len(run.steered.pieces) == len(run.baseline.pieces):
                facts.append("word for word the baseline")
            else:
                facts.append(f"first {_tokens(same)} as the baseline" if same else "parts from the baseline at once")
        if run.first is not None:
            facts.append(f"first token after {run.first:.1f} s")
    if changed and run.over:
        facts.append("settings have changed since: press Run")
    return facts


def _model(run: Run | None) -> str:
    """Who answers, as HTML."""
    return escape(titled(run.question.model)) if run and run.question.model else "the model"


def _tokens(n: int) -> str:
    return f"{n} token" if n == 1 else f"{n} tokens"


def _strength(run: Run | None) -> str:
    """The strengths of a run; "by nothing" where it has no edits."""
    return strengths(run.question.edits) if run else "by nothing"


def strengths(edits: Sequence[Edit]) -> str:
    """Such as "+1.50, clamp 2.00"; of many the first three."""
    said = [
        f"{e.strength:+.2f}"
        if e.mode == "add"
        else f"{STEERING_MODES[e.mode].label.lower()}"
        + (f" {e.strength:.2f}" if STEERING_MODES[e.mode].uses_strength else "")
        for e in edits
    ]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "") if said else "by nothing"


def shared(first: Sequence[str], second: Sequence[str]) -> int:
    """How many pieces two answers have in common before they part."""
    n = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        n += 1
    return n


def prose(pieces: Sequence[str], same: int = 0, *, old: bool = False, looped: bool = False) -> str:
    """An answer as a paragraph: what it shares with the baseline in grey, swearing blurred until asked for.

    Args:
        pieces: The text, a piece a token.
        same: How many pieces it shares with the baseline.
        old: The text of the run before, dimmed until the new one comes.
        looped: Say that it was cut because it repeats itself.
    """
    text, cut = "".join(pieces), len("".join(pieces[:same]))
    lead = len(text) - len(text.lstrip())  # a model often begins with a blank
    body = ""
    if cut > lead:
        body += f'<span class="same">{veiled(text, lead, cut)}</span>'
    body += veiled(text, max(lead, cut), len(text))
    if looped:
        body += ' <span class="rep">repeats from here, stopped</span>'
    return f'<p class="{"stale" if old else ""}">{body}</p>'
