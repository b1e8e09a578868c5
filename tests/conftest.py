"""What every test stands on: no network, no user's files, quiet libraries."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from explorer import packaged

# Before anything imports torch, transformers or the app. Each test process has a home of its own, and the fetched model
# (looked up where the user's is) is shared.
os.environ.setdefault(packaged.MODELS_VARIABLE, str(packaged.models_folder()))
os.environ[packaged.HOME_VARIABLE] = tempfile.mkdtemp(prefix="persona-explorer-tests-")
# The same run on every machine; what a graphics card does is in test_gpu.py.
os.environ["PERSONA_EXPLORER_DEVICE"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The app with a home and a folder of caches of its own, and nothing else; gives that folder."""
    from streamlit import config

    from app import resources

    # As in the app's configuration, which is not looked for here: else pages are taken apart in Python, which now and then fails while
    # another thread imports torch ("AST constructor recursion depth mismatch").
    config.set_option("runner.magicEnabled", False)
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(tmp_path / "caches"))
    monkeypatch.setenv("PERSONA_EXPLORER_WARMUP", "0")
    monkeypatch.setattr(resources, "ROOT", tmp_path / "elsewhere")
    (tmp_path / "caches").mkdir()
    yield tmp_path / "caches"
    for cached in (resources._open, resources._labels, resources._engine):
        cached.clear()


@pytest.fixture
def judges_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, an embedder that only counts words, and a trait called grim that was taught to it."""
    from explorer import judging
    from explorer.traits import save_trait
    from tests.helpers_judges import WordEmbedder, grim

    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(judging.Embedder, "load", lambda *_: WordEmbedder())
    save_trait(grim())
