"""Both answers of a run as one piece of HTML. Everything a model or a person wrote is escaped here."""

from collections.abc import Sequence
from html import escape

from app.facts import veiled
from app.runs import Answer, Run
from explorer.steering import STEERING_MODES

_NOTES = {
    "warming": "the model is warming up",
    "waiting": "waiting for the first token",
    "live": "streaming",
    "failed": "broke off",
}

_WHOSE = {"baseline": "the model by itself", "steered": "the same model, steered"}


def grid(run: Run | None, *, changed: bool = False) -> str:
    """Baseline and steered answer side by side; one element, so that both columns are painted at once.

    Args:
        changed: The settings have been changed since the run.
    """
    cards = _card("baseline", run, changed) + _card("steered", run, changed)
    return f'<div class="answers">{cards}</div>'


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
        return _section(side, title, "not run yet", text, [_WHOSE[side]], live=False)
    answer: Answer = getattr(run, side)
    reused = side == "baseline" and run.reused
    live = run.phase == "live" and not answer.ended
    pieces, old = tuple(answer.pieces), False
    if not pieces and run.phase in ("warming", "waiting", "live", "failed") and not answer.ended:
        pieces, old = tuple(getattr(run, f"old_{side}")), True
    same = shared(tuple(run.baseline.pieces), pieces) if side == "steered" and not old else 0
    text = prose(pieces, same, old=old, looped=answer.looped)
    return _section(side, title, _note(run, answer, reused), text, _facts(run, side, same, changed), live=live)


def _section(side: str, title: str, note: str, text: str, facts: Sequence[str], *, live: bool) -> str:
    footer = "".join(f"<span>{fact}</span>" for fact in facts)
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
    return _NOTES.get(run.phase, "")


def _facts(run: Run, side: str, same: int, changed: bool) -> list[str]:
    facts = [_WHOSE[side]]
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


def _tokens(n: int) -> str:
    return f"{n} token" if n == 1 else f"{n} tokens"


def _strength(run: Run | None) -> str:
    """The strengths of a run, such as +1.50; of many the strongest three."""
    if run is None or not run.question.edits:
        return "by nothing"
    edits = run.question.edits
    said = [
        f"{e.strength:+.2f}"
        if e.mode == "add"
        else f"{STEERING_MODES[e.mode].label.lower()}"
        + (f" {e.strength:.2f}" if STEERING_MODES[e.mode].uses_strength else "")
        for e in edits
    ]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


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
