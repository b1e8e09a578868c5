"""A persona on Overview: what is turned, and what turning it was measured to do, beside what happens without and at random."""

from collections.abc import Mapping
from html import escape
from typing import Any

from app.facts import veiled
from explorer.cache import Cache
from explorer.presets import Preset
from explorer.steering import STEERING_MODES

LEVERS = 3
VERDICTS: dict[str, tuple[str, str]] = {
    "causes": ("causal", "Turning it up changes the answers; random directions of the same length do not."),
    "only reads": ("plain", "It fires on such text, but turning it up does not bring such answers about."),
    "untested": ("plain", "Nobody has measured yet what turning it up does."),
}
"""Verdict -> its look, and what it means."""
_BARS = (("rate", "turned up"), ("base", "as it is"), ("random", "random push"))


def card(cache: Cache, preset: Preset, labels: Mapping[int, str]) -> str:
    """A preset as HTML: title, verdict, what is turned, and its figures against the controls."""
    measured: Mapping[str, Any] = getattr(preset, "measured", None) or {}
    verdict = measured.get("verdict", "untested")
    look, meaning = VERDICTS.get(verdict, VERDICTS["untested"])
    return (
        f'<h3 class="words">{veiled(preset.title)} <span class="tag {look}" title="{escape(meaning)}">'
        f'{escape(verdict)}</span></h3><p class="words">{veiled(preset.description)}</p>'
        f'<p class="levers words">{_levers(cache, preset, labels)}</p>{figures(measured)}'
    )


def figures(measured: Mapping[str, Any]) -> str:
    """What was measured: a bar each for the preset, the model by itself, and random directions; "" where nothing was."""
    if "rate" not in measured:
        return '<p class="say">Not measured: try it and judge for yourself.</p>'
    bars = "".join(
        f'<div class="{key}"><span>{said}</span><i><b style="width:{100 * min(1.0, max(0.0, measured[key])):.1f}%"></b></i>'
        f"<span>{100 * measured[key]:.0f} %</span></div>"
        for key, said in _BARS
        if measured.get(key) is not None
    )
    facts = [str(measured.get("word") or measured.get("trait") or "with the trait")]
    facts += [f"n = {measured['n']:,}"] if "n" in measured else []
    facts += [f"{100 * measured['fluent']:.0f} % fluent"] if measured.get("fluent") is not None else []
    return f'<div class="figures num">{bars}</div><p class="say num">{escape(" · ".join(facts))}</p>'


def _levers(cache: Cache, preset: Preset, labels: Mapping[int, str]) -> str:
    """The features and directions of a preset, by name, with their strengths."""
    names = []
    for edit in preset.edits[:LEVERS]:
        name = labels.get(edit.feature) or cache.feature(edit.feature).title if edit.feature >= 0 else "direction"
        target = f"~{getattr(edit, 'direction', '')}" if edit.feature < 0 else f"#{edit.feature}"
        mode = STEERING_MODES[edit.mode]
        strength = f"{edit.strength:+.2g}".replace("-", "−") if mode.uses_strength else mode.label.lower()
        names.append(
            f'<span title="{escape(strength)} of its maximum"><b>{escape(target)}</b> {veiled(_short(name))}</span>'
        )
    more = len(preset.edits) - LEVERS
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _short(name: str, longest: int = 28) -> str:
    """A label cut at its first clause, then at a length."""
    name = name.split(":")[0].split(",")[0]
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
