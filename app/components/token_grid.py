"""Tokens across, features down: where in a text each feature fires. A token or a feature is chosen by its head."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_component = component(
    "token_grid",
    html='<div class="place"><table><thead></thead><tbody></tbody></table></div>',
    css="".join((_HERE / name).read_text(encoding="utf-8") for name in ("scale.css", "token_grid.css")),
    js=(_HERE / "token_grid.js").read_text(encoding="utf-8"),
)


def token_grid(
    tokens: Sequence[str],
    rows: Sequence[dict[str, Any]],
    *,
    token: int | None,
    feature: int | None,
    on_token: Callable[[int], None],
    on_feature: Callable[[int], None],
    key: str,
) -> None:
    """Draw the grid.

    Args:
        tokens: Texts of the columns.
        rows: dicts `{index, name, blurred, cells}`; `cells` are `[column, level 1 to 8, what the value is in words]` where it fires.
        token, feature: The column and the feature that are marked.
        on_token, on_feature: Called with what was chosen.
    """

    def said() -> None:
        for call, chosen in ((on_token, st.session_state[key].token), (on_feature, st.session_state[key].feature)):
            if chosen is not None:
                call(int(chosen))

    data = {"tokens": list(tokens), "rows": list(rows), "token": token, "feature": feature}
    _component(data=data, key=key, on_token_change=said, on_feature_change=said)
