"""Neighbourhoods on the Feature page and the Pair page, without a browser and without a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from app import resources
from app.neighbourhood import lists
from explorer.affinity import promoted, sharing
from explorer.cache import Cache
from tests.helpers_app import drawn, run_page, words
from tests.helpers_cache import fake_cache

N, WIDTH = 60, 16


def with_decoder(path: Path, decoder: np.ndarray, **manifest: Any) -> Cache:
    cache = Cache.open(fake_cache(path, len(decoder), **manifest))
    (path / "sae").mkdir()
    (path / "sae" / "cfg.json").write_text("{}")
    save_file({"W_dec": decoder}, path / "sae" / "sae_weights.safetensors")
    return cache


@pytest.fixture
def decoder() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)


@pytest.fixture
def cache(caches: Path, decoder: np.ndarray) -> Cache:
    return with_decoder(caches / "made-up", decoder)


@pytest.fixture
def retrained(caches: Path, cache: Cache, decoder: np.ndarray) -> Cache:
    """The same SAE in the opposite order, under another name."""
    return with_decoder(caches / "retrained", decoder[::-1].copy(), sae_fingerprint="t" * 64, seed=1)


def links(app) -> dict[str, list[dict]]:
    """Title of each list of links -> its rows, in the order of the page."""
    import json

    found = [e.proto for e in app.main if e.type == "bidi_component"]
    rows = [json.loads(p.json)["rows"] for p in found if p.component_name == "feature_links"]
    titles = [
        h.value.split(">")[1].split(" <")[0]
        for h in app.html
        if 'class="sec"' in h.value and "font-weight:400" in h.value
    ]
    assert len(titles) == len(rows)
    return dict(zip(titles, rows, strict=True))


def test_three_ways_to_be_near_are_listed_each_with_its_number_and_a_way_to_both(cache: Cache):
    app = run_page("feature", feature="9")
    assert not app.exception
    found, feature = links(app), cache.feature(9)
    assert list(found)[:3] == ["Nearest decoder directions", "Fires together with", "Promotes the same tokens"]
    near, together, tokens = list(found.values())[:3]
    assert [(r["index"], r["value"]) for r in near] == [(f, f"{v:.2f}") for f, v in feature.neighbours]
    assert together[0]["value"].endswith(" %")
    assert [(r["index"], int(r["value"])) for r in tokens] == list(sharing(cache, 9, 8))
    assert all(r["pair"] == f"pair?feature=9&other={r['index']}" for row in (near, together, tokens) for r in row)
    assert [one.unit for one in lists(cache, feature)] == ["cosine", "share", "of 10 tokens"]


def test_two_features_stand_side_by_side_with_what_they_have_in_common(cache: Cache, decoder: np.ndarray):
    other = sharing(cache, 9, 1)[0][0]
    app = run_page("pair", feature="9", other=str(other))
    assert not app.exception
    shown = words(app)
    a, b = decoder[9], decoder[other]
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert f"decoder cosine <b>{cosine:.2f}</b>".replace("-", "−") in shown
    common = promoted(cache, 9) & promoted(cache, other)
    assert f"<b>{len(common)}</b> of 10 promoted tokens in common" in shown
    assert shown.count('class="shared"') == 2 * len(common) > 0
    assert "#9</a>" in shown
    assert f"#{other}</a>" in shown
    heat = drawn(app, "token_heatmap")
    assert len(heat["rows"]) == 8
    windows = [{e.window for e in cache.examples(i)} for i in (9, other)]
    assert f"<b>{len(windows[0] & windows[1])}</b> of their example windows" in shown


def test_how_often_two_fire_together_is_read_from_either_list(cache: Cache):
    other, share = cache.feature(9).coactive[0]
    for pair in ((9, other), (other, 9)):
        app = run_page("pair", feature=str(pair[0]), other=str(pair[1]))
        shown = words(app)
        assert "of the tokens on which either does" in shown
    stranger = next(
        i
        for i in range(N)
        if i != 9 and i not in dict(cache.feature(9).coactive) and 9 not in dict(cache.feature(i).coactive)
    )
    assert "neither is among those" in words(run_page("pair", feature="9", other=str(stranger)))
    assert 0 < share <= 1


def test_one_feature_twice_is_said_and_the_two_can_change_places(cache: Cache):
    assert "one feature twice" in words(run_page("pair", feature="4", other="4"))
    app = run_page("pair", feature="4", other="7")
    assert "one feature twice" not in words(app)
    app.button(key="pair-swap").click().run()
    assert (app.session_state["feature"], app.session_state["other"]) == (7, 4)
    app.button(key="pair-steer").click().run()
    assert app.session_state["_page"] == "steer"


@pytest.mark.parametrize("nonsense", ["1e400", "-3", "999", "x"])
def test_nonsense_in_the_link_shows_the_first_feature(cache: Cache, nonsense: str):
    app = run_page("pair", feature="4", other=nonsense)
    assert not app.exception
    assert app.session_state["other"] == 0


def test_a_pair_of_silent_features_and_one_without_an_sae_are_shown(caches: Path):
    fake_cache(caches / "bare", 20, dead=(5, 6))
    app = run_page("pair", feature="5", other="6")
    assert not app.exception
    assert words(app).count("No window in this corpus activates it") == 2
    assert "cosine" in words(app)


def test_counterparts_in_another_sae_of_the_layer_are_listed_and_stand_beside(cache: Cache, retrained: Cache):
    resources.labels().put("t" * 64, N - 1 - 9, "zeppelins")
    app = run_page("feature", feature="9", cache="made-up")
    assert not app.exception
    rows = links(app)["Counterparts in retrained"]
    assert (rows[0]["index"], rows[0]["value"], rows[0]["name"]) == (N - 1 - 9, "1.00", "zeppelins")
    assert "with=retrained" in rows[0]["pair"]
    assert "cache=retrained" in rows[0]["href"]
    app = run_page("pair", feature="9", other=str(N - 1 - 9), cache="made-up", **{"with": "retrained"})
    assert not app.exception
    shown = words(app)
    assert "decoder cosine <b>1.00</b>" in shown
    assert "zeppelins" in shown
    assert not [b for b in app.button if b.key == "pair-steer"]


def test_a_cache_of_another_place_is_no_counterpart_and_a_link_to_it_is_refused_in_words(
    caches: Path, cache: Cache, decoder
):
    with_decoder(caches / "elsewhere", decoder, sae_fingerprint="t" * 64, hook_point="blocks.0.hook_resid_post")
    assert resources.siblings("made-up") == {}
    assert not [title for title in links(run_page("feature", feature="9", cache="made-up")) if "Counterparts" in title]
    for name, said in (("elsewhere", "blocks.0.hook_resid_post"), ("nowhere", "There is no cache")):
        app = run_page("pair", feature="9", other="4", cache="made-up", **{"with": name})
        assert not app.exception
        assert said in words(app)
