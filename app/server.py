"""The server: Streamlit's pages and the read API in one process. `python -m app` starts it, as does `streamlit run` of this file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route
from streamlit import cli_util, config
from streamlit.web.server import server_util

from app.api import Api
from app.guard import Guard, names


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    """Open the browser where Streamlit would; a server of one's own leaves that to its maker."""
    if not config.get_option("server.headless"):
        address = config.get_option("browser.serverAddress") or "localhost"
        cli_util.open_browser(server_util.get_url(address))
    yield


_API = Api()
_HOSTS = names(config.get_option("server.address"), [config.get_option("browser.serverAddress")])
application = st.App(
    Path(__file__).with_name("main.py"),
    routes=[Route("/api", _API), Route("/api/{rest:path}", _API)],
    middleware=[Middleware(Guard, hosts=_HOSTS)],
    lifespan=_lifespan,
)
