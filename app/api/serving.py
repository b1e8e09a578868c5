"""The registry of routes as an ASGI app: requests checked against their schemas, answers and errors as JSON."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Router
from starlette.routing import Route as Path

from app.api import PREFIX, ROOT, records
from app.api.describing import document, page
from app.api.reading import Asked
from app.api.refusing import Refused, body, refusal
from app.api.routes import PATH, ROUTES, Route
from app.api.shapes import Schema, check, filled, wrong

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST_BODY = 1 << 18  # bytes
_WHOLE = re.compile(r"-?[0-9]{1,18}")
Endpoint = Callable[[Request], Awaitable[Response]]


def application() -> "ASGIApp":
    """The API."""
    paths = [Path(PREFIX + route.path, endpoint(route), methods=[route.method]) for route in ROUTES]
    paths.append(Path(f"{PREFIX}/openapi.json", told(lambda request: said(document())), methods=["GET"]))
    paths.append(Path(ROOT, told(_page), methods=["GET"]))

    return Router([*paths, Path("/{rest:path}", _Nothing(paths))], redirect_slashes=False)


class _Nothing:
    """What no route takes: another method of a path that is there, or no path of ours. A class, as functions are for GET only."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        error = Refused(404, "There is nothing at this path", expected="a path that /api lists", do="See /api")
        for path in self._paths:
            if path.matches(scope)[0] is Match.PARTIAL:
                allowed = ", ".join(sorted(path.methods or ()))
                found = f"{scope['method'][:20]} is not for this path"
                error = Refused(405, found, expected=allowed, do="See /api", headers={"Allow": allowed})
        await refused(error)(scope, receive, send)


def endpoint(route: Route) -> Endpoint:
    """What answers a route; whatever goes wrong is an answer too."""

    async def answer(request: Request) -> Response:
        try:
            asked = await _asked(route, request)
            if not route.live:
                return said(await asyncio.to_thread(route.run, asked))
            given = await route.run(asked, request)
            return given if isinstance(given, Response) else said(given)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return refused(refusal(error))

    return answer


def told(make: Callable[[Request], Response]) -> Endpoint:
    """An endpoint that is made in a thread."""

    async def answer(request: Request) -> Response:
        return await asyncio.to_thread(make, request)

    return answer


def _page(request: Request) -> Response:
    from app import resources

    return HTMLResponse(page(str(request.base_url).rstrip("/"), next(iter(resources.caches()), "CACHE")))


def said(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer as JSON, in plain ASCII: no reader can take it for anything else."""
    text = json.dumps(records.plain(content), allow_nan=False, separators=(",", ":"))
    head = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text.encode("ascii"), status, head, media_type="application/json")


def refused(error: Refused) -> Response:
    """An error as an answer."""
    return said(body(error), error.status, error.headers)


async def _asked(route: Route, request: Request) -> Asked:
    """What a request says, checked."""
    path = {name: _read(value, PATH[name], name) for name, value in request.path_params.items()}
    query = _query(route, request)
    if route.body is None:
        return Asked(path, query)
    sent = _parsed(await _sent(request))
    check(sent, route.body, "body")
    return Asked(path, query, filled(sent, route.body))


def _query(route: Route, request: Request) -> dict[str, Any]:
    found = {name: schema["default"] for name, schema in route.query.items() if "default" in schema}
    for name in request.query_params:
        if name not in route.query:
            raise Refused(
                422, f"There is no parameter {name[:60]!a}", expected=", ".join(route.query) or "none", do="Leave it out"
            )  # fmt: skip
        if len(given := request.query_params.getlist(name)) > 1:
            raise Refused(422, f"{name} is said {len(given)} times", expected="once", do="Leave the others out")
        found[name] = _read(given[0], route.query[name], name)
    for name, schema in route.query.items():
        if name not in found:
            raise Refused(422, f"The parameter {name} is missing", expected=schema["description"], do="Send it along")
    return found


def _read(given: str, schema: Schema, name: str) -> Any:
    """A text of the address as what its schema says."""
    value: Any = given
    try:
        if schema["type"] == "integer":
            value = int(given) if _WHOLE.fullmatch(given) else given
        elif schema["type"] == "number":
            value = float(given)
    except ValueError:
        raise wrong(name, given, schema["type"]) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(name, given, "a finite number")
    check(value, schema, name)
    return value


async def _sent(request: Request) -> bytes:
    """The body, if it is JSON by its own account and not too large.

    A page on another site can send a form here without being asked, but no JSON: for that a browser asks first, and is not answered.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            415, f"The body is {ascii(kind[:60]) if kind else 'of no kind'}", expected="application/json", do="Send JSON"
        )  # fmt: skip
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise Refused(413, "The body is too large", expected=f"at most {LARGEST_BODY:,} bytes", do="Send less")
        parts.append(part)
    return b"".join(parts)


def _parsed(sent: bytes) -> Any:
    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(sent, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split(":")[0][:100]
        raise Refused(400, f"The body is no JSON ({ascii(reason)[1:-1]})", expected="JSON", do="Correct it") from None
