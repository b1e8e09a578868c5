"""Builders for tests of the app: a page run by AppTest over caches of our own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
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


class Touches:
    """The browser asks for something else at one touch of the session while a press is taken in.

    Args:
        at: Which touch; None: it asks for nothing.
        again: It sends the same press once more.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.again = False
        self.seen = 0
        self._sent = RerunData()
        request, look = ScriptRunner.request_rerun, ScriptRunner._maybe_handle_execution_control_request

        def note(runner: ScriptRunner, data: RerunData) -> bool:
            self._sent, self.seen = data, 0
            return request(runner, data)

        def touch(runner: ScriptRunner) -> None:
            context = get_script_run_ctx(suppress_warning=True)
            if runner._execing and context is not None and not context._has_script_started:
                if self.seen == self.at:
                    request(runner, self.something_else())
                self.seen += 1
            look(runner)

        monkeypatch.setattr(ScriptRunner, "request_rerun", note)
        monkeypatch.setattr(ScriptRunner, "_maybe_handle_execution_control_request", touch)

    def something_else(self) -> RerunData:
        """What a browser sends next that has not heard of what the press did: the same link and values."""
        widgets = self._sent.widget_states.widgets if self._sent.widget_states else ()
        if self.again:
            return self._sent
        held = [w for w in widgets if w.WhichOneof("value") != "trigger_value"]
        return replace(self._sent, widget_states=WidgetStates(widgets=held))
