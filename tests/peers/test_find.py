"""Finding features: by number, by chance, by words, by meaning, by texts."""

import numpy as np
import pytest

from app import resources
from app.engine import Engine
from explorer import meaning
from explorer.cache import Cache
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from tests.helpers import TEXT
from tests.helpers_app import drawn, run_page
from tests.helpers_judges import WordEmbedder
from tests.peers.helpers import SAID, acts, finished


def test_browse_by_index_and_random(cache: Cache):
    app = run_page("browse", q="#7")
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]] == [7]
    app = run_page("feature", feature="7")
    assert any("<b>#7</b>" in h.value for h in app.html)
    app.number_input(key="feature").set_value(11).run()
    assert any("<b>#11</b>" in h.value for h in app.html)
    seen = {app.button(key="random").click().run().session_state["feature"] for _ in range(8)}
    assert len(seen) > 1
    assert seen <= set(cache.live)


def test_filterable_feature_table(cache: Cache):
    density, maxima = (cache.table.column(name).to_numpy() for name in ("density", "max"))
    rare, strong = density <= 0.1, maxima >= 10
    labelled, *fits = (int(i) for i in np.flatnonzero(rare & strong))
    assert len(fits) + 1 < min(rare.sum(), strong.sum()), "each filter takes something away"
    resources.labels().put(cache.manifest.sae_fingerprint, labelled, "bridges")
    app = run_page("browse", density=["0%", "10%"], stronger="10", status="unlabelled", sort="-max")
    rows = [row["index"] for row in drawn(app, "feature_table")["rows"]]
    assert rows == sorted(fits, key=lambda i: -maxima[i])


def test_search_labels_by_meaning(cache: Cache, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    meaning.make(cache, WordEmbedder())
    monkeypatch.setattr(engine, "embedder", WordEmbedder)
    sae = cache.manifest.sae_fingerprint
    resources.labels().put(sae, 4, "my doom machine")
    resources.labels().put(sae, 9, "doom")
    app = run_page("browse", q="the machine of doom", find="Meaning")
    rows = drawn(finished(app, "browse-near") if "browse-near" in app.session_state else app, "feature_table")["rows"]
    assert [row["index"] for row in rows][:2] == [4, 9]  # two words shared, then one


def test_text_to_ranked_features(model: LanguageModel, coder: SparseCoder):
    app = run_page("inspect", rare="false")
    app.text_area(key="inspect-text").set_value(SAID)
    app = finished(app.button(key="inspect-go").click().run(), "inspect-job")
    strongest = acts(model, coder, model.text_document(SAID).tokens)[1:].max(0)  # the first token is no evidence
    order = [int(i) for i in np.argsort(-strongest, kind="stable") if strongest[i] > 0]
    assert [row["index"] for row in drawn(app, "ranking_table")["rows"]] == order


def test_contrast_two_sets_of_texts_to_features(model: LanguageModel, coder: SparseCoder):
    left, right = [TEXT[1], "I rule! Kneel!"], [TEXT[0], "How do I build a dog?"]
    app = run_page("inspect", tab="Two sets")
    app.text_area(key="contrast-left").set_value("\n".join(left))
    app.text_area(key="contrast-right").set_value("\n".join(right))
    app = finished(app.button(key="contrast-go").click().run(), "contrast-job")
    rows = [row["index"] for row in drawn(app, "ranking_table")["rows"]]
    means = [
        np.mean([acts(model, coder, model.text_document(t).tokens)[1:].max(0) for t in side], axis=0)
        for side in (left, right)
    ]
    assert rows
    assert all(means[0][i] > means[1][i] for i in rows)
