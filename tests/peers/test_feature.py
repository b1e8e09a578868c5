"""One feature: what it fires on, what it does, and what it does on a text of one's own."""

import re

import numpy as np
import pytest

from app.facts import number, percent
from explorer.cache import Cache
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from tests.helpers_app import drawn, run_page, words
from tests.peers.helpers import SAID, acts, charts, numbers


def test_density_and_activation_histogram(model: LanguageModel, coder: SparseCoder, corpus: list[Document]):
    on = []
    for document in corpus:
        counts = [
            at for a, b in document.content for at in range(max(a, 1), b)
        ]  # neither the template nor the first token
        on.append(acts(model, coder, document.tokens)[counts, 9])
    on = np.concatenate(on)
    app = run_page("feature", feature="9")
    assert f"fires on <b>{percent((on > 0).mean())}</b> of tokens" in words(app)
    (bars,) = next(chart for chart in charts(app) if chart["layout"]["yaxis"].get("type") == "log")["data"]
    heights, on = numbers(bars["y"]), on[on > 0]
    assert sum(heights) == len(on)
    for edge, below in zip(np.linspace(0, on.max(), len(heights) + 1)[1:-1], np.cumsum(heights), strict=False):
        fewest, most = ((on <= edge * factor).sum() for factor in (2**-0.125, 2**0.125))  # how finely it was counted
        assert fewest - 1 <= below <= most + 1


def test_promoted_and_suppressed_tokens(model: LanguageModel, coder: SparseCoder):
    effect = (model.unembedding() @ coder.directions()[9]).clone()
    effect[list(model.vocabulary.special)] = 0
    shown = next(h.value for h in run_page("feature", feature="9").html if 'class="logit num"' in h.value)
    cells = re.findall(r', token (\d+)">.*?<span class="(pos|neg)">(.*?)</span>', shown)
    for tone, order in (("pos", (-effect).argsort()), ("neg", effect.argsort())):
        said = [(int(token), value) for token, kind, value in cells if kind == tone]
        assert [token for token, _ in said[:3]] == order[:3].tolist()
        assert float(said[0][1].replace("−", "-")) == pytest.approx(float(effect[order[0]]), abs=0.006)


def test_top_and_interval_examples(cache: Cache):
    top = drawn(run_page("feature", feature="9"), "token_heatmap")["rows"]
    peaks = [row["acts"][row["peak"]] for row in top]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == pytest.approx(cache.feature(9).max, rel=1e-3)
    spread = drawn(run_page("feature", feature="9", show="Intervals"), "token_heatmap")["rows"]
    ranges = list(dict.fromkeys(row["group"] for row in spread))
    assert len(ranges) > 2
    assert ranges == sorted(ranges, reverse=True), "from strong to weak"
    for row in spread:
        low, high = map(float, re.match(r"Interval \d: (\S+) to (\S+), ", row["group"]).groups())  # type: ignore[union-attr]
        assert low * 0.99 <= row["acts"][row["peak"]] <= high * 1.01


def test_per_token_heatmap_hover(model: LanguageModel, coder: SparseCoder, cache: Cache):
    # what the tooltip says of a token is drawn from this; tests/browser/test_peers.py puts the mouse on it
    row = drawn(run_page("feature", feature="9", ctx="Whole"), "token_heatmap")["rows"][0]
    example = cache.examples(9, "top")[0]
    live = acts(model, coder, example.tokens)[:, 9]
    for unit, value in enumerate(row["acts"]):
        ids = row["ids"][unit]
        start = row["starts"][unit]
        assert tuple(ids) == example.tokens[start : start + len(ids)]
        if unit not in (*row["special"], *row["unscored"]):
            assert value == pytest.approx(live[start : start + len(ids)].max(), rel=1e-3, abs=1e-4)


def test_test_own_text_live(model: LanguageModel, coder: SparseCoder, cache: Cache):
    live = acts(model, coder, model.text_document(SAID).tokens)[1:]
    feature = int(live.max(0).argmax())
    app = run_page("feature", feature=str(feature))
    app.text_area(key="own-text").set_value(SAID)
    app.button(key="own-analyse").click().run()
    assert not app.exception
    assert f"Maximum <b>{number(live[:, feature].max())}</b>" in words(app)
    share = 100 * live[:, feature].max() / cache.feature(feature).max
    assert f"{share:.0f} % of the corpus maximum" in words(app)
