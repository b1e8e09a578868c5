"""Builders for tests of the app: a page run by AppTest over caches of our own."""

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]


def run_page(url: str = "", **query: Any) -> AppTest:
    """Run the app at a page; "" is Overview. Which caches there are is the environment's business."""
    app = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    if url:
        app.run()
        app.switch_page(f"views/{url}.py")
        for key, value in query.items():
            app.query_params[key] = value
    return app.run()


def words(app: AppTest) -> str:
    """All HTML and text on the page, one string."""
    return "\n".join([*(h.value for h in app.html), *(t.value for t in app.text), *(c.value for c in app.code)])


def drawn(app: AppTest, component: str) -> Any:
    """The data that a component of ours was drawn with."""
    found = (e.proto for e in app.main if e.type == "bidi_component")  # type: ignore[union-attr]
    return next(json.loads(proto.json) for proto in found if proto.component_name == component)
