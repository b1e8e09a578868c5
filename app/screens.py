"""What Present puts on the wall, as HTML: words, and answers side by side in large type."""

from collections.abc import Mapping
from html import escape

from app.answers import prose, shared
from app.facts import veiled
from app.runs import Answer, Run
from explorer.adapters import titled
from explorer.judging import judges

NAMES = {"baseline": "The model as it is", "steered": "Steered", "random": "A random push of the same length"}


def words(text: str) -> str:
    """Paragraphs, parted by blank lines."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "".join(f"<p>{veiled(part)}</p>" for part in paragraphs if part)


def heading(title: str, text: str, *, large: bool = False) -> str:
    """The title of a step and what is said about it.

    Args:
        large: The words are the whole screen.
    """
    return f'<div class="stage{" large" if large else ""}"><h1>{veiled(title)}</h1>{words(text)}</div>'


def prompt(text: str) -> str:
    """What the model is asked."""
    return f'<div class="stage asked"><span class="dim">asked</span> {veiled(text)}</div>'


def tag(words: str, *, live: bool) -> str:
    """Where the answers on the screen come from."""
    return f'<span class="tag {"causal" if live else "plain"}" role="status">{escape(words)}</span>'


def answers(
    shown: Mapping[str, Answer], strength: str, said: str, toxic: frozenset[str] = frozenset(), model: str = ""
) -> str:
    """Answers side by side, one element, so that all are painted at once.

    Args:
        shown: Name -> the answer so far: "baseline", "steered", a control.
        strength: Of the steered answer, for its title.
        said: The tag.
        toxic: Names of answers that a judge takes for insults: they are veiled whole.
        model: Name of the adapter that answered; "" for the cache's own model.
    """
    names = {**NAMES, "baseline": f"{titled(model)}, as it is"} if model else NAMES
    cards, first = "", tuple(shown["baseline"].pieces) if "baseline" in shown else ()
    for name, answer in shown.items():
        title = names.get(name, name) + (f" {strength}" if name == "steered" and strength else "")
        pieces = tuple(answer.pieces)
        same = shared(first, pieces) if name != "baseline" else 0
        text = (
            prose(pieces, same, looped=answer.looped)
            if name not in toxic
            else f"<p>{veiled(answer.text.strip(), judged=True)}</p>"
        )
        live = "" if answer.ended else " live"
        cards += (
            f'<section class="ans {name}{live}" aria-label="{escape(title)}"><header><b>{escape(title)}</b></header>'
            f"{text}</section>"
        )
    return f'<div class="stage-tag">{said}</div><div class="answers stage-answers n{len(shown)}">{cards}</div>'


def of_run(run: Run, control: str) -> dict[str, Answer]:
    """The answers of a live run that a step shows, as a replay names them."""
    found = {"baseline": run.baseline, "steered": run.steered}
    if control:
        other = next((o.answer for o in run.others if o.kind == control), None)
        found[control] = other or Answer()
    return found


def toxic(run: Run) -> frozenset[str]:
    """Names of the answers of a run that a judge, if there is one, takes for insults."""
    if not run.scores:
        return frozenset()
    insults = judges()["toxicity"].shows
    return frozenset(name for name, scores in run.scores.items() if insults(scores.get("toxicity", 0.0)))
