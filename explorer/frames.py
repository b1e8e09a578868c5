"""A pandas frame of texts, which a notebook shows as they are."""

from typing import Any

import pandas as pd


class TextFrame(pd.DataFrame):
    """A frame whose $ signs are no mathematics: a notebook would set what stands between two of them, and obey links in it."""

    @property
    def _constructor(self) -> Any:
        return TextFrame

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.html.use_mathjax", False):
            return super()._repr_html_()
