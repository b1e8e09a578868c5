"""The read API: JSON beside the pages, in the same process. It is put together when it is first asked."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROOT = "/api"
PREFIX = f"{ROOT}/v1"


class Api:
    """The API as an ASGI app; until its first request it imports nothing, so that the first page need not wait for it."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if self._app is None:
            self._app = await asyncio.to_thread(_build)
        await self._app({**scope, "path_params": {}}, receive, send)  # the routes below have their own


def _build() -> "ASGIApp":
    from app.api.serving import application

    return application()
