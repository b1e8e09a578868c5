"""A tiny world that is really built, and the whole app over it."""

import json
from pathlib import Path

import numpy as np
import pytest

from app import resources
from app.engine import Engine
from explorer import judging
from explorer.build import build
from explorer.cache import Cache
from explorer.model import DTYPE_VARIABLE, LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_folder
from tests.helpers_judges import WordEmbedder
from tests.helpers_sae import tiny_sae_folder

FEATURES = 48


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model that never ends an answer by itself."""
    folder = tiny_folder(tmp_path_factory.mktemp("peers") / "model", layers=2)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        said = json.loads((folder / name).read_text())
        kept = {key: value for key, value in said.items() if key not in ("eos_token", "eos_token_id")}
        (folder / name).write_text(json.dumps(kept))
    return LanguageModel.load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="package")
def coder(model: LanguageModel) -> SparseCoder:
    return SparseCoder.load(tiny_sae_folder(Path(model.name).parent / "sae", n_features=FEATURES))


@pytest.fixture(scope="package")
def corpus(model: LanguageModel) -> list[Document]:
    """A few texts, and chats of their words in any order."""
    rng, words = np.random.default_rng(0), " ".join(TEXT).split()
    said = [model.text_document(text) for text in TEXT]
    for _ in range(120):
        asked, answer = (" ".join(rng.choice(words, 9)) for _ in range(2))
        said.append(model.chat_document([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]))
    return said


@pytest.fixture(scope="package")
def world(model: LanguageModel, coder: SparseCoder, corpus: list[Document]) -> Path:
    """The cache that `persona-explorer build` makes of the corpus, with its SAE beside it."""
    place = build(model, coder, corpus, Path(model.name).parent / "tiny", corpus="texts", context_size=128)
    tiny_sae_folder(place / "sae", n_features=FEATURES)
    return place


@pytest.fixture(scope="package")
def cache(world: Path) -> Cache:
    return Cache.open(world)


@pytest.fixture(scope="package")
def engine(cache: Cache):
    """The live model behind the pages, loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DTYPE_VARIABLE, "float32")
        made = Engine(cache, embed=lambda: WordEmbedder())
        made.warmup = False
        made.start()
        assert made.wait(120)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def app(caches: Path, world: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has the app over this world, a home of its own, and an embedder that only counts words."""
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(world))
    monkeypatch.setenv(DTYPE_VARIABLE, "float32")
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    monkeypatch.setattr(judging.Embedder, "load", lambda *_: WordEmbedder())
