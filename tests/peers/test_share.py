"""The map, links, programs, and a machine without a network."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api import PREFIX, Api
from explorer import mapping
from explorer.cache import Cache
from explorer.cli.serving import free_port
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from tests.helpers_app import run_page, words
from tests.peers.conftest import FEATURES
from tests.peers.helpers import ASKED, SAID, acts, charts, numbers, ran


def test_map_umap(world: Path, cache: Cache, capsys):
    assert ran(capsys, "map", world)["method"] == "umap"
    app = run_page("map")
    assert not app.exception
    (chart,) = charts(app)
    dots = [trace for trace in chart["data"] if trace["type"] == "scattergl" and "customdata" in trace]
    made = mapping.load(cache)
    assert made is not None
    drawn_at = {}
    for trace in dots:
        which = [int(np.ravel(one)[0]) for one in numbers(trace["customdata"])]
        drawn_at |= dict(zip(which, zip(numbers(trace["x"]), numbers(trace["y"]), strict=True), strict=True))
    assert set(drawn_at) == set(range(FEATURES))
    assert drawn_at[9] == pytest.approx(made.places[9].tolist(), abs=1e-4)


def test_permalinks():
    app = run_page("steer", edits="3:1:add", **ASKED)
    app.slider(key="steer-strength-3-add").set_value(-1.5).run()
    app.text_area(key="steer-prompt").set_value("A fox & a dog?").run()
    app.number_input(key="steer-seed").set_value(5).run()
    link = next(code.value for code in app.code if "steer?" in code.value)
    theirs = run_page("steer", **dict(parse_qsl(urlsplit(link).query)))
    assert not theirs.exception
    assert theirs.slider(key="steer-strength-3-add").value == -1.5
    assert theirs.text_area(key="steer-prompt").value == "A fox & a dog?"
    assert theirs.number_input(key="steer-seed").value == 5
    assert "This link was made" not in words(theirs), "same model, same SAE"


def test_api(model: LanguageModel, coder: SparseCoder):
    client = TestClient(Api())
    paths = client.get(f"{PREFIX}/openapi.json").json()["paths"]
    assert {path.rsplit("/", 1)[1] for path in paths} >= {"features", "examples", "search", "activations", "steer"}
    said = client.post(f"{PREFIX}/caches/tiny/activations", json={"text": SAID, "limit": 3}).json()
    live = acts(model, coder, model.text_document(SAID).tokens)
    assert len(said["features"]) == 3
    for one in said["features"]:
        assert one["values"][1:] == pytest.approx(live[1:, one["feature"]].tolist(), abs=1e-3)


REFUSING = """
import os, socket
def refuse(what, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost", None):
        with open(os.environ["ASKED_OUTSIDE"], "a") as out:
            print(what, address, file=out)
        raise OSError(101, "Network is unreachable")
def guarded(name):
    plain = getattr(socket.socket, name)
    def call(self, address, *more):
        refuse(name, address)
        return plain(self, address, *more)
    setattr(socket.socket, name, call)
for name in ("connect", "connect_ex"):
    guarded(name)
resolve = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    refuse("getaddrinfo", (host,))
    return resolve(host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


def test_offline_one_command(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sitecustomize.py").write_text(REFUSING)
    asked = tmp_path / "asked"
    monkeypatch.setenv("ASKED_OUTSIDE", str(asked))
    monkeypatch.delenv("PERSONA_EXPLORER_CACHES")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    port = free_port("127.0.0.1", 18_501)
    where = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "explorer",
        "app",
        str(world),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--headless",
    ]
    with (tmp_path / "log").open("w") as log:
        served = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        page = patient(where, served)
        assert b"<title>" in page
        body = json.dumps({"text": SAID, "limit": 1}).encode()
        said = json.loads(patient(f"{where}{PREFIX}/caches/tiny/activations", served, body))
        assert said["features"][0]["values"]
    finally:
        served.terminate()
        served.wait(30)
    assert not asked.exists(), asked.read_text()


def patient(url: str, served: subprocess.Popen, body: bytes | None = None, seconds: float = 300) -> bytes:
    """What an address answers, once the server is there and the model has been loaded."""
    until = time.monotonic() + seconds
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()
        except OSError as error:
            if getattr(error, "code", 503) != 503 or served.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.3)
