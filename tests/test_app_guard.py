"""The names that a server answers to, and the headers that its answers carry; without a browser and without a server."""

import asyncio
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from app import guard
from app.guard import HOSTS_VARIABLE, Guard, bare, names, policy


def ask(hosts: frozenset[str] | None, host: bytes | None, kind: str = "http") -> list[dict[str, Any]]:
    """What a guarded app answers to a request of that name."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"SAMEORIGIN")]})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {"type": kind, "headers": [(b"host", host)] if host is not None else []}
    asyncio.run(Guard(app, hosts)(scope, receive, send))
    return sent


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::1", "127.0.0.9"])
def test_a_server_of_this_machine_answers_to_this_machine_s_names(address):
    known = names(address)
    assert known is not None
    for host in (b"localhost:8501", b"LOCALHOST", b"127.0.0.1:1", b"[::1]:8501", b"[::1]"):
        assert ask(known, host)[0]["status"] == 200
    for host in (b"evil.example", b"localhost.evil.example:8501", b"[::2]", b"", None, b"127.0.0.1@evil.example"):
        assert ask(known, host)[0]["status"] == 421


def test_without_being_told_the_server_listens_to_this_machine_only():
    config = tomllib.loads((Path(guard.__file__).parent / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert ip_address(config["server"]["address"]).is_loopback
    assert names(config["server"]["address"])


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", None, "0.0.0.0.0"])
def test_a_server_of_a_network_cannot_know_its_names(address):
    assert names(address) is None
    assert ask(None, b"wall.example")[0]["status"] == 200


def test_the_names_of_a_proxy_can_be_listed(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "wall.example, Other.example,")
    known = names("127.0.0.1")
    assert ask(known, b"wall.example")[0]["status"] == ask(known, b"other.example:443")[0]["status"] == 200
    assert ask(known, b"third.example")[0]["status"] == 421


def test_a_websocket_under_another_name_is_closed():
    assert ask(names("localhost"), b"evil.example", "websocket") == [{"type": "websocket.close", "code": 1008}]


def test_what_an_answer_says_itself_is_left_alone_and_the_rest_is_added():
    said = dict(ask(None, b"x")[0]["headers"])
    assert said[b"X-Frame-Options"] == b"SAMEORIGIN"
    assert b"x-frame-options" not in said
    assert said[b"x-content-type-options"] == b"nosniff"
    assert b"frame-ancestors 'none'" in said[b"content-security-policy"]


def test_only_the_front_end_s_own_inline_scripts_are_allowed():
    said = policy("<script>\n one()</script><script src='x.js'></script><script>two()</script>")
    scripts = next(part for part in said.split("; ") if part.startswith("script-src"))
    assert scripts.count("'sha256-") == 2
    assert "'unsafe-inline'" not in scripts
    assert "*" not in said
    assert "http" not in said


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("[::1]:1", "::1"), ("A.b", "a.b"), ("a:", "a"), ("a:b", "a:b")]
)
def test_a_host_loses_its_port_and_brackets_only(host, name):
    assert bare(host) == name
