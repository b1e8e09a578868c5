"""Runs as files: one as JSON or CSV, a whole session as one HTML file that needs no network and runs no script."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from html import escape
from typing import Any

from app.answers import strengths
from app.facts import bare
from app.runs import Record
from explorer.adapters import titled
from explorer.cache import Cache
from explorer.offensive import spans
from explorer.records import Edit

_LOOK = """
:root { color-scheme: light dark; --ink: light-dark(#1A1D23, #E9EBEF); --dim: light-dark(#5B6270, #9AA2B1);
  --line: light-dark(#DDE1E7, #343946); --act: light-dark(#0F6E66, #4FC4B5); --warn: light-dark(#8A5A00, #FBD54F) }
body { font: 1rem/1.6 "Source Sans 3", system-ui, sans-serif; color: var(--ink); background: light-dark(#FFF, #15171C);
  max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem }
h1 { font-size: 1.5rem } .run { border-top: 1px solid var(--line); padding: 1rem 0 } .rep { color: var(--warn) }
.both { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem }
.both > div { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem }
.both > .steered { border-color: var(--act); border-left-width: 4px }
.text, p { margin: .4rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
.say { color: var(--dim); font-size: .88rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.veil { display: inline-block } .veil summary { display: inline; list-style: none; cursor: pointer; border-bottom: 1px dotted }
.veil summary::-webkit-details-marker { display: none } .veil:not([open]) summary { filter: blur(.3em); user-select: none }
"""


def record_facts(record: Record, cache: Cache) -> dict[str, Any]:
    """All that is known of a run, for a file."""
    asked = record.question
    return {
        "when": record.when,
        "cache": cache.name,
        "model": record.model,
        "model_fingerprint": record.model_fingerprint,
        "adapter": asked.model,
        "adapter_fingerprint": record.adapter_fingerprint,
        "sae_fingerprint": record.sae_fingerprint,
        "prompt": asked.prompt,
        "system": asked.system,
        "turns": [asdict(turn) for turn in asked.turns],
        "history": "shared" if asked.shared else "own",
        "plain": asked.plain,
        "positions": asked.positions,
        "sampling": asdict(asked.sampling),
        "edits": [_edit(edit, cache) for edit in asked.edits],
        "baseline": record.baseline,
        "steered": record.steered,
        "controls": record.others,
        "scores": record.scores or {},
        "state": record.phase,
    }


def _edit(edit: Edit, cache: Cache) -> dict[str, Any]:
    said = {"strength": edit.strength, "mode": edit.mode}
    if edit.direction:
        return {"direction": edit.direction, **said}
    return {"feature": edit.feature, **said, "maximum": cache.feature(edit.feature).max}


def as_json(facts: Mapping[str, Any]) -> str:
    """One run as JSON."""
    return json.dumps(facts, ensure_ascii=False, indent=1)


def as_csv(facts: Mapping[str, Any]) -> str:
    """One run as a table of one row."""
    table = io.StringIO()
    flat = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in facts.items()}
    # a spreadsheet would take a cell that begins with one of these for a formula
    safe = {k: f"'{v}" if v[:1] in ("=", "+", "-", "@", "\t", "\r") else v for k, v in flat.items()}
    writer = csv.DictWriter(table, list(safe))
    writer.writeheader()
    writer.writerow(safe)
    return table.getvalue()


def as_html(records: Iterable[Record], title: str = "Persona Explorer: a session on the Steer page") -> str:
    """All runs, the newest first, as one HTML file; swearing is blurred until it is clicked.

    Args:
        records: What `History` holds.
    """
    runs = "".join(map(_run, records))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_LOOK}</style><h1>{escape(title)}</h1>"
        f'<p class="say">Blurred words open with a click.</p>{runs}</html>'
    )


def _run(record: Record) -> str:
    asked = record.question
    told = {"Baseline": record.baseline, "Steered": record.steered, **record.others}
    keys = {"Baseline": "baseline", "Steered": "steered"}
    answers = "".join(_answer(record, name, keys.get(name, name), text) for name, text in told.items())
    before = "".join(
        f'<div class="text"><b>{_text(turn.user)}</b></div><div class="both"><div class="text">{_text(turn.baseline)}</div>'
        f'<div class="text steered">{_text(turn.steered)}</div></div>'
        for turn in asked.turns
    )
    system = f'<div class="say text">System prompt: {_text(asked.system)}</div>' if asked.system else ""
    return (
        f'<section class="run">{before}<div class="text"><b>{_text(asked.prompt)}</b></div><p class="say">'
        f'{escape(_facts(record))}</p>{system}<div class="both">{answers}</div></section>'
    )


def _facts(record: Record) -> str:
    asked, s = record.question, record.question.sampling
    tuned = f" + fine-tune {titled(asked.model)} {record.adapter_fingerprint[:12]}" if asked.model else ""
    edits = (", ".join(e.spelled for e in asked.edits) or "no edits") + (" · plain text" if asked.plain else "")
    return (
        f"{record.when} · {edits} · steered tokens: {asked.positions} · seed {s.seed}, temperature {s.temperature:g}, "
        f"top-p {s.top_p:g}, repetition penalty {s.repetition_penalty:g}, up to {s.max_tokens} tokens · {record.phase} · "
        f"{record.model} {record.model_fingerprint[:12]}{tuned} · SAE {record.sae_fingerprint[:12]}"
    )


def _answer(record: Record, name: str, judged: str, text: str) -> str:
    scores = (record.scores or {}).get(judged, {})
    said = " · ".join(f"{judge} {score:.3g}" for judge, score in scores.items())
    title = f"{name} {strengths(record.question.edits)}" if judged == "steered" else name
    looped = record.looped and judged == "steered"
    end = ' <span class="rep">repeats from here, stopped</span>' if looped else ""
    return (
        f'<div class="{"steered" if judged == "steered" else "other"}"><b>{escape(title)}</b>'
        f'<div class="text">{_text(text.lstrip())}{end}</div><p class="say">{escape(said)}</p></div>'
    )


def _text(text: str) -> str:
    """A text, with a veil over swearing that opens with a click: no script, and a phone has no focus to open it with."""
    out, at = "", 0
    for first, last in spans(text):
        hidden = escape(bare(text[first:last]))
        out += f'{escape(bare(text[at:first]))}<details class="veil"><summary>{hidden}</summary></details>'
        at = last
    return out + escape(bare(text[at:]))
