"""Promoted tokens over many features: borne out where nothing comes after the SAE, at chance for other features' tokens."""

from pathlib import Path

import pytest

from explorer.ablation import ablate
from explorer.build import build
from explorer.cache import Cache
from explorer.model import LanguageModel
from explorer.promoted import CONFIRMED_FIGURE, MEAN_FIGURE, PARTLY_FIGURE, promoted_figures
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae

LAST = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


def built(model: LanguageModel, coder: SparseCoder, folder: Path) -> Cache:
    texts = [model.text_document(f"{a} {b}") for a in TEXT for b in TEXT]
    return Cache.open(build(model, coder, texts, folder, corpus="texts", context_size=64))


def test_at_the_last_layer_a_features_own_tokens_fall_and_another_features_do_not(model, tmp_path: Path):
    coder = SparseCoder(tiny_sae(hook=LAST), "last")
    found = promoted_figures(built(model, coder, tmp_path / "last"), model, coder)
    partly = found[PARTLY_FIGURE]
    assert partly.value > 0.8
    assert partly.control is not None
    assert partly.control < 0.2
    assert partly.low is not None
    assert partly.low < partly.value
    assert found[CONFIRMED_FIGURE].value <= partly.value
    mean = found[MEAN_FIGURE]
    assert mean.low is not None
    assert mean.high is not None
    assert mean.control is not None
    assert mean.control < mean.low < mean.value < mean.high <= 1


def test_each_feature_is_judged_as_its_page_judges_it(model, tmp_path: Path):
    coder = SparseCoder(tiny_sae(), "tiny")
    cache = built(model, coder, tmp_path / "tiny")
    words = []
    for feature in cache.live:
        promoted = [token for token, _ in cache.feature(feature).promoted]
        words.append(ablate(model, coder, feature, cache.examples(feature)[0].tokens, promoted).verdict.words)
    judged = [word for word in words if word != "silent"]
    figures = promoted_figures(cache, model, coder)
    assert figures[CONFIRMED_FIGURE].value == pytest.approx(judged.count("confirmed") / len(judged))
    at_least = judged.count("confirmed") + judged.count("partly")
    assert figures[PARTLY_FIGURE].value == pytest.approx(at_least / len(judged))
    assert figures[CONFIRMED_FIGURE].n.startswith(f"{len(judged)} features")


def test_fewer_are_drawn_when_fewer_are_asked_for_and_the_same_each_time(model, tmp_path: Path):
    coder = SparseCoder(tiny_sae(), "tiny")
    cache = built(model, coder, tmp_path / "tiny")
    once, again = (promoted_figures(cache, model, coder, features=3, seed=1) for _ in range(2))
    assert once == again
    assert once[PARTLY_FIGURE].n.startswith("3 features")
