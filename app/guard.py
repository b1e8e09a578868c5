"""What every answer of the server carries and every request has to show: security headers, and a name that is ours.

A page on another site can make a browser look up its own name as 127.0.0.1 and so speak to whatever listens here; the Host
header then still has that other name. So a server that listens on this machine only answers to this machine's names only.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS_VARIABLE = "PERSONA_EXPLORER_HOSTS"
"""Further names, with commas between, that a server on localhost answers to: those of a proxy in front of it."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_PORT = re.compile(r":\d*$")


def policy(index: str) -> str:
    """The content security policy under which Streamlit's front end works and nothing outside this server is asked.

    Args:
        index: Text of Streamlit's index.html; its own inline scripts are allowed by hash.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in _INLINE.findall(index)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return "; ".join(
        (
            "default-src 'self'",
            # blob: is how Streamlit starts the JavaScript of components; eval is how Plotly makes its WebGL programs.
            f"script-src 'self' blob: 'unsafe-eval' {scripts}".rstrip(),
            "style-src 'self' 'unsafe-inline'",  # it styles elements from JavaScript
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "frame-src 'self'",
            "frame-ancestors 'none'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    )


def headers() -> list[tuple[bytes, bytes]]:
    """The security headers of every answer."""
    import streamlit

    index = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    said = {
        "content-security-policy": policy(index),
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",  # links hold prompts
        "cross-origin-resource-policy": "same-origin",
    }
    return [(name.encode(), value.encode()) for name, value in said.items()]


def names(address: str | None, also: Iterable[str | None] = ()) -> frozenset[str] | None:
    """The names that a server answers to; None for every name, where it listens to the network.

    Args:
        address: What it listens on.
        also: Further names.
    """
    if address not in LOOPBACK and not (address or "").startswith("127."):
        return None
    told = os.environ.get(HOSTS_VARIABLE, "").split(",")
    return LOOPBACK | {name.strip().lower() for name in (address, *also, *told) if name and name.strip()}


def bare(host: str) -> str:
    """A Host header without its port and brackets: `[::1]:8501` is `::1`."""
    host = host.strip().lower()
    return host[1:].split("]")[0] if host.startswith("[") else _PORT.sub("", host)


class Guard:
    """ASGI middleware: refuses foreign names, and adds the security headers to what is answered.

    Args:
        app: What it guards.
        hosts: The names that are answered to; None for all.
    """

    def __init__(self, app: "ASGIApp", hosts: frozenset[str] | None = None) -> None:
        self._app, self._hosts, self._headers = app, hosts, headers()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self._hosts is not None and (len(hosts) != 1 or bare(hosts[0]) not in self._hosts):
            await self._refuse(scope["type"], ", ".join(hosts), send)
            return

        async def dressed(message: "Message") -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.get("headers", ())}
                more = [(name, value) for name, value in self._headers if name not in own]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await self._app(scope, receive, dressed)

    async def _refuse(self, kind: str, host: str, send: "Send") -> None:
        if kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        error = {
            "found": f"This request was sent to {host[:100]!r}",
            "expected": ", ".join(sorted(self._hosts or ())),
            "do": f"Use one of these names, or list another in {HOSTS_VARIABLE}",
        }
        body: dict[str, Any] = {"error": error}
        said = json.dumps(body).encode()
        more = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 421, "headers": [*self._headers, *more]})
        await send({"type": "http.response.body", "body": said})
