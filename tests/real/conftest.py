"""The fetched model, the bundled autoencoder and the bundled cache, loaded once a process."""

from pathlib import Path

import pytest

from explorer.packaged import locate

WORLD = Path(__file__).parents[2] / "cached_features" / "smollm2-135m"
MODEL = "smollm2-135m-instruct"


def pytest_collection_modifyitems(items):
    for item in items:
        if "real" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def model_folder() -> str:
    return locate(MODEL)  # fails, and says what to run, where the model was not fetched


@pytest.fixture(scope="session")
def model(model_folder):
    """In the precision that the app uses here."""
    from explorer.model import LanguageModel

    return LanguageModel.load(MODEL)


@pytest.fixture(scope="session")
def exact(model_folder):
    """In float32, where equality token for token is promised."""
    from explorer.model import LanguageModel

    return LanguageModel.load(MODEL, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def cache():
    from explorer.cache import Cache

    return Cache.open(WORLD)


@pytest.fixture(scope="session")
def coder(cache):
    from explorer.sae import SparseCoder

    return SparseCoder.load(cache.sae_folder)
