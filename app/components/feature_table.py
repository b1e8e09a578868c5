"""The table of features on Browse: sortable heads, rows that open with a click or Enter, tokens coloured in place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

_HERE = Path(__file__).parent
_component = component(
    "feature_table",
    html='<table aria-label="Features"><thead></thead><tbody></tbody></table>',
    css="".join((_HERE / name).read_text(encoding="utf-8") for name in ("scale.css", "feature_table.css")),
    js=(_HERE / "feature_table.js").read_text(encoding="utf-8"),
)


def feature_table(
    rows: Sequence[dict[str, Any]],
    *,
    sort: str,
    descending: bool,
    on_open: Callable[[], None],
    on_sort: Callable[[], None],
    key: str,
) -> None:
    """Draw one page of features.

    Args:
        rows: dicts `{index, href, name, labelled, max, density, promoted, units, blurred, dead}`; `units` are
            `[text, level 0-8, is the peak, is special]`, see `app.browse_rows.snippet`; `blurred` says of name,
            promoted and text whether they are hidden until the row has the keyboard.
        sort, descending: The order in view, marked in the head.
        on_open, on_sort: Callbacks; `st.session_state[key].open` is a feature, `.sort` a column.
    """
    _component(
        data={"rows": list(rows), "sort": sort, "descending": descending},
        key=key,
        on_open_change=on_open,
        on_sort_change=on_sort,
    )
