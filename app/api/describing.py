"""The registry of routes for programs (OpenAPI 3.1) and for people (one page, without scripts)."""

import json
from html import escape
from typing import Any
from urllib.parse import quote

from app.api import PREFIX
from app.api.routes import PATH, ROUTES, Route
from app.api.shapes import Schema, record, text
from explorer.citing import app_version

ERROR = record(
    {
        "error": record(
            {
                "found": text("What is the case."),
                "expected": text("What should have been the case."),
                "do": text("What to do next."),
            }
        )
    }
)
STATUSES = {
    "400": "The body is no JSON.",
    "404": "There is no such cache or feature, or no vector of it; or nothing to find meanings by.",
    "413": "The body is too large.",
    "415": "The body is not sent as application/json.",
    "421": "The request names another host than this one.",
    "422": "A parameter or a part of the body is wrong; the error says which.",
    "503": "The model is being loaded or busy: ask again, after Retry-After seconds where it says so.",
}
_WHO = {"GET": ("404", "421", "422"), "POST": ("400", "404", "413", "415", "421", "422")}


def document() -> dict[str, Any]:
    """The OpenAPI document of the routes."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Persona Explorer",
            "version": app_version(),
            "summary": "Reads feature caches and labels, and asks the model; changes nothing.",
        },
        "servers": [{"url": PREFIX}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }


def _operation(route: Route) -> dict[str, Any]:
    kind = "text/event-stream" if route.events else "application/json"
    varies = [name for name in PATH if f"{{{name}}}" in route.path]
    operation: dict[str, Any] = {
        "operationId": f"{route.run.__module__.rsplit('.', 1)[-1]}_{route.run.__name__}",
        "summary": route.summary,
        "parameters": [_parameter(name, PATH[name], "path", True) for name in varies]
        + [_parameter(name, schema, "query", "default" not in schema) for name, schema in route.query.items()],
        "responses": {
            "200": {"description": _streamed(route), "content": {kind: {"schema": route.answer}}},
            **{
                status: {
                    "description": STATUSES[status],
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status in (*_WHO[route.method], *(("503",) if route.live else ()))
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": route.body, "example": route.example}},
        }
    return operation


def _streamed(route: Route) -> str:
    return f"Server-sent events: {', '.join(route.events)}." if route.events else route.summary


def _parameter(name: str, schema: Schema, where: str, required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "description": schema["description"], "schema": schema}


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.55 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font: 600 1rem/1.4 ui-monospace, monospace; margin: 2rem 0 .2rem; overflow-wrap: anywhere }
h2 b { color: light-dark(#0F6E66, #4FC4B5) } p { margin: .2rem 0 .5rem }
pre { padding: .6rem .8rem; border-radius: 6px; background: light-dark(#F6F7F9, #1E2128); overflow-x: auto }
table { border-collapse: collapse }
td { padding: .1rem 1rem .1rem 0; vertical-align: top }
td:first-child { font-family: ui-monospace, monospace }
a { color: light-dark(#0F6E66, #4FC4B5) } :focus-visible { outline: 2px solid }
"""


def page(base: str, cache: str) -> str:
    """The routes as one page of HTML.

    Args:
        base: Address of the server.
        cache: Name of a cache, for examples.
    """
    parts = "".join(_section(route, base, cache) for route in ROUTES)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Persona Explorer: API</title><style>{_STYLE}</style></head><body><main><h1>API</h1>"
        "<p>Everything is JSON. It reads: no path here changes a label, a file or a setting. Nobody is asked who they are, so "
        "whoever reaches this address can read caches, labels with the names of their authors, and can use the model.</p>"
        "<p>An error says what was found, what was expected and what to do. A model that is not loaded yet is answered with "
        "503: ask again.</p>"
        f'<p><a href="{PREFIX}/openapi.json">OpenAPI 3.1</a> · <a href="/">the app</a></p>{parts}</main></body></html>'
    )


def _section(route: Route, base: str, cache: str) -> str:
    path = f"{PREFIX}{route.path}"
    real = path.replace("{cache}", quote(cache, safe="")).replace("{feature}", "12")
    if route.body is None:
        address = f"{real}?{route.example}" if route.example else real
        tried = f'<p><a href="{escape(address)}">{escape(address)}</a></p>'
        taken = {**route.query}
    else:
        sent = json.dumps(route.example).replace("'", "'\\''")
        command = f"curl -N {base}{real} -H 'Content-Type: application/json' \\\n  -d '{sent}'"
        tried = f"<pre>{escape(command)}</pre>"
        taken = route.body["properties"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(schema.get('description', ''))}</td></tr>"
        for name, schema in taken.items()
    )
    return (
        f"<section><h2><b>{route.method}</b> {escape(path)}</h2><p>{escape(route.summary)}</p>{tried}"
        f"{f'<table>{rows}</table>' if rows else ''}</section>"
    )
