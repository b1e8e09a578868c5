"""A persona on Overview: what is turned, and what turning it was measured to do, beside what happens without and at random."""

from collections.abc import Mapping
from html import escape

from app.facts import veiled
from app.feature_row import named
from explorer.cache import Cache
from explorer.presets import VERDICTS, Preset
from explorer.steering import STEERING_MODES

LEVERS = 3
_BARS = {"steered": "turned up", "base": "as it is", "random": "random push"}
_ROUND = {"causes": "causal"}


def card(cache: Cache, preset: Preset, labels: Mapping[int, str]) -> str:
    """A preset as HTML: title, verdict, what is turned, and its figures against the controls."""
    verdict = preset.verdict
    return (
        f'<h3 class="words">{veiled(preset.title)} <span class="tag {_ROUND.get(verdict, "plain")}" '
        f'title="{escape(VERDICTS.get(verdict, ""))}">{escape(verdict)}</span></h3>'
        f'<p class="words">{veiled(preset.description)}</p>'
        f'<p class="levers words">{_levers(cache, preset, labels)}</p>{figures(preset)}'
    )


def figures(preset: Preset) -> str:
    """What was measured: a bar each for the preset, the model by itself, and random directions."""
    rates = {name: preset.rate(name) for name in _BARS}
    bars = "".join(
        f'<div class="{name}" title="95 % interval: {100 * rate[1]:.0f} to {100 * rate[2]:.0f} %"><span>{_BARS[name]}</span>'
        f'<i><b style="width:{100 * rate[0]:.1f}%"></b></i><span>{100 * rate[0]:.0f} %</span></div>'
        for name, rate in rates.items()
        if rate
    )
    if not bars:
        return '<p class="say">Not measured: try it and judge for yourself.</p>'
    facts = [f"answers judged {preset.judge}" if preset.judge else "answers of this kind"]
    facts += [f"n = {(preset.measured or {})['n']:,}"] if "n" in (preset.measured or {}) else []
    facts += [f"{100 * whole[0]:.0f} % coherent"] if (whole := preset.rate("coherent")) else []
    return f'<div class="figures num">{bars}</div><p class="say num">{escape(" · ".join(facts))}</p>'


def _levers(cache: Cache, preset: Preset, labels: Mapping[int, str]) -> str:
    """The features and directions of a preset, by name, with their strengths."""
    names = []
    for edit in preset.edits[:LEVERS]:
        name = "direction" if edit.direction else named(cache, edit.feature, labels)
        target = edit.target if edit.direction else f"#{edit.feature}"
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
    return name if len(name) <= longest else (name[:longest].rsplit(" ", 1)[0]).rstrip(" '\"(") + "…"
