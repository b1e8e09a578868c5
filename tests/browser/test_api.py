"""The API of a real server process: a stream that is closed ends its run, and the pages' server goes on answering meanwhile."""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers_steer import tiny_world

ASKED = {"prompt": "king", "edits": [{"feature": 3}], "sampling": {"max_tokens": 400}}


@pytest.fixture(scope="module")
def app(start_app, tmp_path_factory):
    with start_app([tiny_world(tmp_path_factory.mktemp("served"))]) as running:
        yield running


def call(app: Any, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(app.url).netloc, timeout=60)
    connection.request(
        method, path, body and json.dumps(body), {"Content-Type": "application/json", "Connection": "close"}
    )
    return connection.getresponse()


def post(app: Any, path: str, body: Any) -> http.client.HTTPResponse:
    """An answer of the model, once it has been loaded."""
    until = time.monotonic() + 200
    while (answer := call(app, "POST", f"/api/v1/caches/tiny/{path}", body)).status == 503 and time.monotonic() < until:
        time.sleep(0.3)
    assert answer.status == 200
    return answer


def test_streams_that_are_closed_leave_the_model_to_others(app):
    """Two runs are decoded and one waits; all three are closed. Reading gives way to runs, so it is answered once they have ended."""
    streams = [post(app, "steer", ASKED) for _ in range(3)]
    assert streams[0].readline().startswith(b"event: ")
    began = time.monotonic()
    assert call(app, "GET", "/_stcore/health").status == 200
    assert time.monotonic() - began < 2
    for stream in streams:
        stream.close()
    read = post(app, "activations", {"text": "king", "limit": 1})
    assert json.load(read)["features"]
    assert time.monotonic() - began < 20, "400 tokens twice take longer: the runs went on"
