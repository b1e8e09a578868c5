"""Shared promoted tokens, counterparts in another SAE, and labels offered to them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from explorer import affinity, cli
from explorer.cache import Cache
from explorer.counterparts import best, counterparts, same_place, suggested
from explorer.database import Database
from explorer.errors import SaeError, UsageError
from explorer.label_files import Label
from explorer.labels import LabelStore
from explorer.suggestions import Suggestions
from tests.helpers_cache import fake_cache

N, WIDTH = 24, 16


def rows(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


def with_decoder(path: Path, decoder: np.ndarray, **manifest) -> Cache:
    cache = Cache.open(fake_cache(path, len(decoder), **manifest))
    (path / "sae").mkdir()
    (path / "sae" / "cfg.json").write_text("{}")
    save_file({"W_dec": decoder}, path / "sae" / "sae_weights.safetensors")
    return cache


def named(cache: Cache, texts: dict[int, str]) -> dict[int, Label]:
    return {i: Label(cache.manifest.sae_fingerprint, i, text, author="Ana") for i, text in texts.items()}


def test_shared_promoted_tokens_are_counted_as_sets_are(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "cache", 60))
    lists = [set(row) for row in cache.table.column("promoted").to_pylist()]
    for feature in (0, 3, 59):
        found = affinity.sharing(cache, feature, 60)
        want = {o: len(lists[feature] & lists[o]) for o in range(60) if o != feature and lists[feature] & lists[o]}
        assert dict(found) == want
        assert list(found) == sorted(found, key=lambda pair: (-pair[1], pair[0]))
        assert affinity.sharing(cache, feature, 4) == found[:4]
        assert affinity.promoted(cache, feature) == lists[feature]
    with pytest.raises(UsageError, match="no feature 60"):
        affinity.sharing(cache, 60)


def test_a_permuted_and_rescaled_copy_is_its_own_counterpart():
    here = rows()
    order = np.random.default_rng(1).permutation(N)
    there = here[order] * np.random.default_rng(2).uniform(0.1, 9, (N, 1)).astype(np.float32)
    features, cosines, mutual = best(here, there)
    assert (order[features[:, 0]] == np.arange(N)).all()
    assert np.allclose(cosines[:, 0], 1, atol=1e-5)
    assert mutual[:, 0].all()
    assert not mutual[:, 1:].any()
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_cosines_do_not_change_when_both_decoders_are_rotated_together():
    here, there = rows(), rows(40, 1)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    plain, turned = best(here, there), best(here @ turn, there @ turn)
    assert (plain[0] == turned[0]).all()
    assert np.allclose(plain[1], turned[1], atol=1e-5)
    alone = best(here, here @ turn)  # one that is rotated by itself has lost its counterparts
    assert alone[1][:, 0].max() < 0.95


def test_the_blocks_give_what_one_matrix_gives(monkeypatch):
    monkeypatch.setattr("explorer.counterparts._BLOCK", 7)
    here, there = rows(), rows(40, 1)
    cosine = (here / np.linalg.norm(here, axis=1)[:, None]) @ (there / np.linalg.norm(there, axis=1)[:, None]).T
    features, cosines, mutual = best(here, there, 5)
    assert (features == np.argsort(-cosine, axis=1)[:, :5]).all()
    assert np.allclose(cosines, -np.sort(-cosine, axis=1)[:, :5], atol=1e-6)
    assert (mutual[:, 0] == (cosine.argmax(0)[features[:, 0]] == np.arange(N))).all()


def test_of_a_feature_that_was_split_one_half_is_mutual_and_both_are_found(tmp_path):
    here = rows()
    halves = here[:1] + 0.2 * rows(2, 5)
    there = np.concatenate([rows(30, 7), halves])
    features, _, _ = best(here, there, 2)
    assert set(features[0]) == {30, 31}
    back = best(there, here, 1)
    assert back[0][30:, 0].tolist() == [0, 0]
    assert back[2][30:, 0].sum() == 1


def test_one_feature_is_answered_as_all_of_them_are(tmp_path):
    a = with_decoder(tmp_path / "a", rows())
    b = with_decoder(tmp_path / "b", rows(40, 1), sae_fingerprint="t" * 64)
    features, cosines, mutual = best(rows(), rows(40, 1), 4)
    for feature in range(N):
        found = counterparts(a, b, feature, 4)
        assert [one.feature for one in found] == features[feature].tolist()
        assert [one.cosine for one in found] == pytest.approx(cosines[feature].tolist(), abs=1e-5)
        assert [one.mutual for one in found] == mutual[feature].tolist()


@pytest.mark.parametrize("other", [{"model_fingerprint": "n" * 64}, {"hook_point": "blocks.0.hook_resid_post"}])
def test_an_sae_of_another_model_or_place_is_refused_naming_both(tmp_path, other):
    a, b = with_decoder(tmp_path / "a", rows()), with_decoder(tmp_path / "b", rows(), **other)
    assert not same_place(a, b)
    for call in (lambda: counterparts(a, b, 0), lambda: suggested(a, b, named(a, {0: "x"}))):
        with pytest.raises(UsageError, match=r"b is of .*Expected|b is of") as said:
            call()
        assert b.manifest.hook_point in str(said.value)
        assert "as a" in str(said.value)


def test_decoders_of_two_widths_or_without_numbers_are_refused():
    with pytest.raises(SaeError, match="8 numbers"):
        best(rows(), rows()[:, :8])
    with pytest.raises(SaeError, match="no numbers"):
        best(rows(), np.full((3, WIDTH), np.inf, np.float32))


def test_a_label_is_offered_from_the_threshold_on_with_where_it_comes_from(tmp_path):
    here = np.eye(N, WIDTH, dtype=np.float32)
    here[WIDTH:] = rows(N - WIDTH, 9)
    there = here[:8].copy()
    there[1] = here[1] * 0.8 + here[2] * 0.6  # cosine .8 with 1, .6 with 2
    there[3] = here[3] * 0.6 + here[4] * 0.8
    a = with_decoder(tmp_path / "old", here)
    b = with_decoder(tmp_path / "new", there, sae_fingerprint="t" * 64)
    labels = named(a, {1: "royalty", 3: "ships", 5: "joy", 6: ""})
    found = suggested(a, b, labels, threshold=0.7)
    assert [(one.feature, one.text, one.score) for one in found] == [(5, "joy", 1.0), (1, "royalty", 0.8)]
    assert {one.sae for one in found} == {"t" * 64}
    assert {one.source for one in found} == {"transfer from old"}
    assert found[1].details["author"] == "Ana"
    assert found[1].details["mutual"]
    lower = {one.feature: one for one in suggested(a, b, labels, threshold=0.55)}
    assert lower[3].text == "ships"
    assert not lower[3].details["mutual"]  # feature 4, which nobody named, is nearer to it
    for wrong in (0.0, 1.1, -1.0):
        with pytest.raises(UsageError, match="threshold"):
            suggested(a, b, labels, threshold=wrong)


def test_nothing_is_offered_where_nothing_is_labelled(tmp_path):
    a, b = with_decoder(tmp_path / "a", rows()), with_decoder(tmp_path / "b", rows(), sae_fingerprint="t" * 64)
    assert suggested(a, b, {}) == []


@pytest.fixture
def two(tmp_path, monkeypatch) -> tuple[Cache, Cache]:
    """An SAE and its retrained copy in another order, the first one labelled."""
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    a = with_decoder(tmp_path / "old", rows())
    b = with_decoder(tmp_path / "new", rows()[::-1].copy(), sae_fingerprint="t" * 64)
    LabelStore().put("s" * 64, 2, "royalty", author="Ana")
    return a, b


def test_the_command_says_counterparts_for_people_and_programs(two, capsys):
    a, b = (str(cache.path) for cache in two)
    assert cli.main(["counterparts", a, b, "--feature", "2", "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert (first["feature"], first["counterpart"], first["mutual"]) == (2, N - 3, True)
    assert first["cosine"] == pytest.approx(1)
    assert len(others) == 2
    assert cli.main(["counterparts", a, b, "-k", "1"]) == 0
    shown = capsys.readouterr().out
    assert "royalty" in shown
    assert shown.count("yes") == N


def test_the_command_offers_labels_once_and_moves_none(two, capsys):
    a, b = (str(cache.path) for cache in two)
    for options, added in ((["--plan"], 0), ([], 1), ([], 0)):
        assert cli.main(["labels", "transfer", a, b, *options, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["found"], said["added"]) == (1, added)
        if options:
            assert Suggestions(Database()).open("t" * 64) == {}
    (one,) = Suggestions(Database()).of("t" * 64, N - 3)
    assert (one.text, one.source, one.score) == ("royalty", "transfer from old", 1.0)
    assert LabelStore().all("t" * 64) == {}
    assert LabelStore().all("s" * 64)[2].label == "royalty"
    assert cli.main(["labels", "transfer", a, b, "--threshold", "0.99"]) == 0
    assert "royalty" in capsys.readouterr().out


def test_the_command_refuses_another_hook_point_in_one_line(two, tmp_path, capsys):
    other = with_decoder(tmp_path / "elsewhere", rows(), hook_point="blocks.0.hook_resid_post")
    for command in (["counterparts"], ["labels", "transfer"]):
        assert cli.main([*command, str(two[0].path), str(other.path)]) == 2
        assert "blocks.0.hook_resid_post" in capsys.readouterr().err


def test_the_command_makes_a_map_and_says_what_it_made(tmp_path, capsys):
    few = with_decoder(tmp_path / "few", rows(8))
    assert cli.main(["map", str(few.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["features"], said["method"]) == (8, "circle")
    assert Path(said["file"]).is_file()
