"""Token heatmap: rows of tokens coloured by activation, for the mouse, the keyboard and screen readers."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import streamlit as st
from streamlit.components.v2 import component

from app.components.listening import LISTENING
from app.facts import percent
from explorer.cache import Cache
from explorer.records import Example, Feature
from explorer.schema import INTERVALS
from explorer.text import Vocabulary

_HERE = Path(__file__).parent
SHEET = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("scale.css", "heatmap.css"))
_component = component(
    "token_heatmap",
    html='<div class="hm"></div>',
    css=SHEET,
    js=LISTENING + (_HERE / "heatmap.js").read_text(encoding="utf-8"),
)


def token_heatmap(
    rows: Sequence[dict[str, Any]],
    *,
    vmax: float,
    scale: Literal["feature", "row"] = "feature",
    window: int = 12,
    breaks: bool = False,
    signed: bool = False,
    what: str = "",
    blur: bool = True,
    pinned: int | None = None,
    on_pin: Callable[[int | None], None] | None = None,
    on_take: Callable[[str], None] | None = None,
    key: str,
) -> None:
    """Draw rows of tokens.

    Args:
        rows: As `token_row` and `example_rows` make them.
        vmax: The feature's largest activation in the corpus, in SAE units; the top of the scale "feature".
        scale: What the darkest colour stands for: `vmax`, or each row's own maximum.
        window: Units kept on each side of a row's strongest one; 0 shows whole rows.
        breaks: Break lines where the text does.
        signed: Values have two signs: draw them on the diverging scale.
        what: What the values are, where they are no activations, such as "loss, nats"; `vmax` is then the top of its scale.
        blur: Blur flagged rows until asked for.
        pinned: The unit that is pinned in a single row, as `on_pin` said.
        on_pin: Called with the unit that somebody pins, or None as they let it go; without it a pin is the browser's alone.
        on_take: Called with a row's text, less its special tokens, when somebody wants to try it; without it no row offers that.
        key: Keeps the same elements (pins, open rows, focus) across reruns.
    """

    def told() -> None:
        if on_pin is not None:
            unit = st.session_state[key].get("pin")
            on_pin(None if unit is None else int(unit))

    def taken() -> None:
        if on_take is not None and (row := st.session_state[key].get("take")) is not None:
            said = rows[int(row)]
            on_take("".join(text for n, text in enumerate(said["texts"]) if n not in said["special"]))

    _component(
        data={
            "rows": list(rows),
            "vmax": vmax,
            "scale": scale,
            "window": window,
            "breaks": breaks,
            "signed": signed,
            "what": what,
            "blur": blur,
            "pins": on_pin is not None,
            "pinned": pinned,
            "takes": on_take is not None,
        },
        key=key,
        on_pin_change=told,
        on_take_change=taken,
    )


def token_row(
    vocabulary: Vocabulary,
    tokens: Sequence[int],
    acts: Sequence[float],
    scored: Sequence[bool],
    *,
    group: str = "",
    flagged: bool = False,
) -> dict[str, Any]:
    """One row of the heatmap, its tokens joined to whole characters.

    Args:
        tokens, acts, scored: One a token; activations in SAE units. What is not scored gets no colour.
        group: The heading that the row stands under.
        flagged: Blur it until asked for.
    Returns:
        `texts`, `acts`, `ids` and `starts` (one a unit), `special` and `unscored` (units), `parts` (unit -> its
        tokens' bytes and activations), `peak` (the strongest scored unit, -1 if none is active), `length` in tokens.
    """
    units = vocabulary.units(tokens, acts)
    special = [n for n, unit in enumerate(units) if unit.special]
    unscored = [n for n, unit in enumerate(units) if not unit.special and not any(scored[unit.start : unit.stop])]
    out = {*special, *unscored}
    peak = max((n for n in range(len(units)) if n not in out), key=lambda n: abs(units[n].value), default=-1)
    return {
        "texts": [unit.text for unit in units],
        "acts": [unit.value for unit in units],
        "ids": [list(tokens[unit.start : unit.stop]) for unit in units],
        "starts": [unit.start for unit in units],
        "special": special,
        "unscored": unscored,
        "parts": {str(n): [list(part) for part in unit.parts] for n, unit in enumerate(units) if unit.parts},
        "peak": peak if peak >= 0 and units[peak].value else -1,
        "length": len(tokens),
        "group": group,
        "flagged": flagged,
    }


def example_rows(cache: Cache, examples: Iterable[Example]) -> list[dict[str, Any]]:
    """Examples of one feature as rows of the heatmap, in the order given.

    Top examples stand under "Top", samples under the range of activations that they were drawn from and its share of the active tokens.
    """
    found = list(examples)
    if not found:
        return []
    feature = cache.feature(found[0].feature)
    return [
        token_row(
            cache.vocabulary,
            example.tokens,
            example.acts,
            example.scored,
            group=_group(example, feature),
            flagged=example.flagged,
        )
        for example in found
    ]


def _group(example: Example, feature: Feature) -> str:
    if example.kind == "top":
        return "Top"
    low, high = (feature.max * (example.interval + end) / INTERVALS for end in (0, 1))
    said = f"Interval {example.interval + 1}: {low:.3g} to {high:.3g}"
    wide, rest = divmod(len(feature.histogram), INTERVALS)
    if rest or not (counted := sum(feature.histogram)):  # a file of another program may have no bars, or others
        return said
    inside = sum(feature.histogram[example.interval * wide : (example.interval + 1) * wide])
    return f"{said}, {percent(inside / counted)} of the tokens on which it fires"
