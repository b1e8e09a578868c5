"""What the link of Compare says, and the widgets that write it: `?diff=&source=&kind=&sort=&feature=&series=&at=`; and links to Steer."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import streamlit as st

from app import settings
from app.settings import Settings, Slider
from explorer.adapters import known
from explorer.cache import Cache
from explorer.comparing import Compared
from explorer.presets import Preset
from explorer.records import Edit

S = st.session_state
DIFF, SOURCE, KIND, SORT, SERIES, AT = "diff", "source", "kind", "sort", "series", "at"


def key(name: str) -> str:
    return f"compare-{name}"


def keep(**changes: object) -> None:
    """Change the link, where the state of this page lives; None takes a key out."""
    for name, value in changes.items():
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def chose(name: str, **others: object) -> None:
    """Take over what a widget says; for callbacks."""
    keep(**{name: S.get(key(name))}, **others)


def asked(name: str, options: Iterable[str], default: str = "") -> str:
    """What the link says of a key, or the default where it says nothing sensible; the widget is brought to it.

    Args:
        default: The first option if "".
    """
    known = list(options)
    said = st.query_params.get(name)
    value = said if said in known else default or known[0]
    if S.get(key(name)) != value:
        S[key(name)] = value
    return value


def choice(label: str, name: str, options: Mapping[str, str]) -> None:
    """One of a few options; `asked` has brought it to what the link says."""
    st.segmented_control(
        label, list(options), key=key(name), format_func=lambda o: options.get(o, str(o)), required=True, on_change=chose,
        args=(name,), label_visibility="collapsed",
    )  # fmt: skip


def tuned_here(cache: Cache, found: Compared) -> str:
    """Name of a comparison's fine-tune among the adapters of the cache; "" where Steer cannot load it."""
    spelled, here = str(found.facts["tuned"].get("spelled", "")), known(cache.path)
    if spelled in here:
        return spelled
    place = Path(spelled).resolve()
    return next((name for name, adapter in here.items() if adapter.folder.resolve() == place), "")


def taking_away(model: str, feature: int, strength: float) -> dict[str, str]:
    """The link to Steer that takes a feature from a fine-tune.

    Args:
        strength: Below 0.
    """
    return settings.write(Settings((Slider(settings.fitted(Edit(feature, strength))),), model=model))


def undoing_in_steer(preset: Preset, model: str) -> tuple[dict[str, str], str]:
    """The link to Steer that undoes a fine-tune, and what to say beside it.

    Args:
        model: What `tuned_here` says.
    """
    words = (
        "Steer opens on the fine-tune: its own answer beside the one with these taken away."
        if model
        else "The figures are of the fine-tune. It is not among the adapters of this cache, so Steer opens on the cache’s own model."
    )
    return settings.write(Settings(model=model).with_preset(preset)), words
