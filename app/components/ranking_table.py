"""A table of features, ranked: a row shows its feature beside it, its number opens the feature's own page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_TABLE = '<div class="place"><table><colgroup></colgroup><thead></thead><tbody></tbody></table></div>'
_component = component(
    "ranking_table",
    html=_TABLE,
    css=(_HERE / "ranking_table.css").read_text(encoding="utf-8"),
    js=(_HERE / "ranking_table.js").read_text(encoding="utf-8"),
)


FEATURE = (
    ("number", "#", "Number of the feature in its SAE; opens it", False),
    ("name", "label", "The label, or in grey the feature's own words", False),
)
"""The heads of the first two columns of every ranking."""


def ranking_table(
    title: str,
    head: Sequence[tuple[str, str, str, bool]],
    rows: Sequence[dict[str, Any]],
    *,
    chosen: int,
    on_show: Callable[[int], None],
    on_visit: Callable[[int], None],
    key: str,
) -> None:
    """Draw ranked features.

    Args:
        title: What the table is called to those who cannot see it.
        head: (width's class, label, help, is what is sorted by) of each column.
        rows: dicts `{index, name, labelled, blurred, href, cells}`, and where there is one `verdict` and `why`; `cells` are
            `[text, small print, title]`.
        chosen: The feature that is marked.
        on_show, on_visit: Called with a feature: its row was clicked, or its number.
    """

    def said() -> None:
        for call, index in ((on_show, st.session_state[key].show), (on_visit, st.session_state[key].visit)):
            if index is not None:
                call(int(index))

    data = {"title": title, "head": list(head), "rows": list(rows), "chosen": chosen}
    _component(data=data, key=key, on_show_change=said, on_visit_change=said)
