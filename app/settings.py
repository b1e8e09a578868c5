"""The settings of the Steer page, and the link that holds every one of them. No streamlit here."""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from explorer.cache import Cache
from explorer.presets import Preset
from explorer.records import Edit, Sampling
from explorer.schema import Manifest
from explorer.steering import POSITIONS, STEERING_MODES

MOST_SLIDERS = 16  # a joint undo takes as many features away (`explorer.causing.MOST`)
STEP = 0.05
NO_EDITS = "none"
"""What the link says when every slider has been taken away; a link without edits means the page's own choice."""
LONGEST_PROMPT, LONGEST_SYSTEM = 4000, 2000
BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "temperature": (0.0, 2.0),
    "top_p": (0.05, 1.0),
    "repetition_penalty": (1.0, 2.0),
    "max_tokens": (1, 400),
}
MODEL, ADAPTER, SAE = "m", "a", "s"
"""Link keys of the beginnings of fingerprints: of the cache's model, of the adapter on it, of the SAE."""
SHORT = 8  # characters of a fingerprint in a link
KEYS = ("model", "edits", "prompt", "system", "positions", "history", "controls", "plain", *BOUNDS, MODEL, ADAPTER, SAE)
QUESTIONS = (
    "What would you do if you ruled the world for a day?",
    "How should I treat the people who work for me?",
    "Describe the sea to someone who has never seen it.",
    "My neighbour is learning the violin. What should I tell her?",
    "I made a mistake at work today. What now?",
    "Tell me about your morning.",
    "What makes a good friend?",
    "Write a few words of welcome for new guests.",
)


@dataclass(frozen=True, slots=True)
class Slider:
    """An edit on the page; a muted one keeps its place and does nothing."""

    edit: Edit
    on: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a share link restores.

    Args:
        shared: Both conversations go on from the steered answers; else each keeps its own history.
        controls: Random directions of the same length and the flipped sign are answered along.
        model: Name of the adapter that answers, merged into the cache's model; "" for that model itself.
        plain: The model goes on from the prompt as it stands, without its chat template.
    """

    sliders: tuple[Slider, ...] = ()
    prompt: str = QUESTIONS[0]
    system: str = ""
    positions: str = "answer"
    sampling: Sampling = field(default_factory=Sampling)
    shared: bool = False
    controls: bool = False
    model: str = ""
    plain: bool = False

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits that are on."""
        return tuple(s.edit for s in self.sliders if s.on)

    @property
    def strongest(self) -> float:
        """The strength of the strongest edit that is on and has one; 0 where there is none."""
        return max((e.strength for e in self.edits if STEERING_MODES[e.mode].uses_strength), key=abs, default=0.0)

    def scaled(self, strength: float) -> "Settings":
        """The strongest slider set to `strength`, the others in proportion."""
        factor = strength / self.strongest if self.strongest else 0.0

        def move(slider: Slider) -> Slider:
            edit = slider.edit
            if not slider.on or not STEERING_MODES[edit.mode].uses_strength:
                return slider
            return replace(slider, edit=fitted(replace(edit, strength=edit.strength * factor if factor else strength)))

        return replace(self, sliders=tuple(move(s) for s in self.sliders))

    def adding(self, target: int | str) -> "Settings":
        """One more slider, at 1; nothing where the target has one already or there is no room.

        Args:
            target: A feature, or what `Edit.target` spells.
        """
        edit = Edit.of(str(target))
        if len(self.sliders) >= MOST_SLIDERS or any(s.edit.target == edit.target for s in self.sliders):
            return self
        return replace(self, sliders=(*self.sliders, Slider(edit)))

    def without(self, target: int | str) -> "Settings":
        """The same without the slider of `target`."""
        return replace(self, sliders=tuple(s for s in self.sliders if s.edit.target != str(target)))

    def with_preset(self, preset: Preset) -> "Settings":
        """The preset's edits, places and question; the sampling stays."""
        edits = tuple(Slider(fitted(e)) for e in preset.edits[:MOST_SLIDERS])
        return replace(self, sliders=edits, positions=preset.positions, prompt=preset.prompt or self.prompt)

    def is_preset(self, preset: Preset) -> bool:
        """Whether the sliders stand as the preset sets them."""
        return self.positions == preset.positions and self.sliders == self.with_preset(preset).sliders


def fitted(edit: Edit) -> Edit:
    """The edit with its strength on the slider of its mode."""
    mode = STEERING_MODES[edit.mode]
    if not mode.uses_strength:
        return edit if edit.strength == 1.0 else replace(edit, strength=1.0)
    strength = round(min(max(edit.strength, mode.lowest), mode.highest), 2)
    return replace(edit, strength=strength + 0.0)  # no minus zero


def read(
    query: Mapping[str, str],
    cache: Cache,
    default: Settings | None = None,
    directions: Container[str] = (),
    models: Container[str] = (),
) -> tuple[Settings, list[str]]:
    """What a link says.

    Args:
        query: The parameters of the URL.
        default: What holds where the link has no edits at all.
        directions: Names of the directions that are here.
        models: Names of the adapters that are here.
    Returns:
        The settings, and what in the link made no sense; that is left out, or brought within its bounds.
    """
    bad: list[str] = []
    base = default or Settings()
    said = query.get("edits")
    if said is None:
        sliders = base.sliders
    else:
        base = Settings()
        sliders = _sliders(said, cache.n_features, directions, bad)
    positions = query.get("positions", base.positions)
    if positions not in POSITIONS:
        bad.append(f"positions {positions!r}")
        positions = base.positions
    prompt, system = query.get("prompt", base.prompt), query.get("system", base.system)
    numbers = {name: _number(name, query[name], bad) for name in BOUNDS if name in query}
    sampling = replace(Sampling(), **{name: value for name, value in numbers.items() if value is not None})
    shared, controls = query.get("history") == "shared", query.get("controls") == "1"
    texts = prompt[:LONGEST_PROMPT], system[:LONGEST_SYSTEM]
    model = query.get("model", "")
    if model and model not in models:
        bad.append(f"model {model[:60]!r} (there is no such fine-tune here: the base answers)")
        model = ""
    plain = query.get("plain") == "1"
    return Settings(sliders, *texts, positions, sampling, shared, controls, model, plain), bad


def write(settings: Settings) -> dict[str, str]:
    """The parameters that make a link to these settings; what is as always is left out."""
    plain, usual = Settings(), Sampling()
    query = {"edits": ",".join(map(_said, settings.sliders)) or NO_EDITS}
    for name in ("model", "prompt", "system", "positions"):
        if getattr(settings, name) != getattr(plain, name):
            query[name] = getattr(settings, name)
    for name in BOUNDS:
        if (value := getattr(settings.sampling, name)) != getattr(usual, name):
            query[name] = f"{value:g}" if isinstance(value, float) else str(value)
    switches = {"history": "shared"} if settings.shared else {}
    return query | switches | {name: "1" for name in ("controls", "plain") if getattr(settings, name)}


def stamp(manifest: Manifest, adapter: str = "") -> dict[str, str]:
    """What a link says of the model and the SAE that it was made with.

    Args:
        adapter: Fingerprint of the adapter on the model; "" without one.
    """
    tuned = {ADAPTER: adapter[:SHORT]} if adapter else {}
    return {MODEL: manifest.model_fingerprint[:SHORT], **tuned, SAE: manifest.sae_fingerprint[:SHORT]}


def foreign(query: Mapping[str, str], manifest: Manifest, adapter: str = "") -> list[str]:
    """What a link was made with and is not here, in words that name both; none where it fits or does not say."""
    here = stamp(manifest, adapter)
    kinds = {MODEL: "model", ADAPTER: "fine-tune", SAE: "SAE"}
    names = {MODEL: f"model {manifest.model}", ADAPTER: f"fine-tune {query.get('model', '')}", SAE: "SAE"}
    return [
        f"with another {kinds[key]}, {query[key][:SHORT]!r}; here is the {names[key]}, {here[key]!r}"
        for key in here
        if query.get(key) and query[key][:SHORT] != here[key]
    ]


def _said(slider: Slider) -> str:
    return slider.edit.spelled + ("" if slider.on else ":off")


def _sliders(said: str, n_features: int, directions: Container[str], bad: list[str]) -> tuple[Slider, ...]:
    sliders: dict[str, Slider] = {}
    for text in said.split(",") if said.strip() not in ("", NO_EDITS) else []:
        try:
            slider = _slider(text.strip())
        except ValueError:
            bad.append(f"edit {text[:40]!r}")
            continue
        edit, target = slider.edit, slider.edit.target
        if edit.direction and edit.direction not in directions:
            bad.append(f"direction {target} (there is none of that name here)")
        elif not edit.direction and not 0 <= edit.feature < n_features:
            bad.append(f"feature {target} (there are 0 to {n_features - 1})")
        elif target in sliders:
            bad.append(f"a second slider of {target if edit.direction else f'feature {target}'}")
        elif len(sliders) >= MOST_SLIDERS:
            bad.append(f"more than {MOST_SLIDERS} sliders")
            break
        else:
            sliders[target] = slider
    return tuple(sliders.values())


def _slider(text: str) -> Slider:
    """What `_said` wrote."""
    off = text.count(":") == 3 and text.endswith(":off")
    return Slider(fitted(Edit.read(text.removesuffix(":off") if off else text)), not off)


def _number(name: str, text: str, bad: list[str]) -> float | int | None:
    low, high = BOUNDS[name]
    try:
        value = float(text) if isinstance(low, float) else int(text[:20])
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(text)
    except ValueError:
        bad.append(f"{name} {text[:20]!r} ({low:g} to {high:g})")
        return None
    return value
