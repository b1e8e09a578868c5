"""A table of features that a fine-tune moved: a row shows its feature beside it, its number opens the feature's own page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_TABLE = '<div class="place"><table><colgroup></colgroup><thead></thead><tbody></tbody></table></div>'
_component = component(
    "mover_table",
    html=_TABLE,
    css=(_HERE / "mover_table.css").read_text(encoding="utf-8"),
    js=(_HERE / "mover_table.js").read_text(encoding="utf-8"),
)


def mover_table(
    title: str,
    head: Sequence[tuple[str, str, str, bool]],
    rows: Sequence[dict[str, Any]],
    *,
    chosen: int,
    on_show: Callable[[int], None],
    on_visit: Callable[[int], None],
    key: str,
) -> None:
    """Draw features that moved.

    Args:
        title: What the table is called to those who cannot see it.
        head: (width's class, label, help, is what is sorted by) of each column.
        rows: dicts `{index, name, labelled, blurred, href, cells, verdict, why}`; `cells` are `[text, small print, title]`.
        chosen: The feature that is marked.
        on_show, on_visit: Called with a feature: its row was clicked, or its number.
    """

    def said() -> None:
        for call, index in ((on_show, st.session_state[key].show), (on_visit, st.session_state[key].visit)):
            if index is not None:
                call(int(index))

    data = {"title": title, "head": list(head), "rows": list(rows), "chosen": chosen}
    _component(data=data, key=key, on_show_change=said, on_visit_change=said)
