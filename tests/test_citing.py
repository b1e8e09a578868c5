"""A feature's vector without torch, and a reference to it."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from explorer.cache import Cache
from explorer.citing import cache_hash, citation
from explorer.decoder import decoder_row
from explorer.errors import SaeError, UsageError
from tests.helpers_cache import HOSTILE, fake_cache


@pytest.fixture
def cache(tmp_path) -> Cache:
    folder = fake_cache(tmp_path / "made-up", 24)
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text("{}")
    return Cache.open(folder)


def decoder(cache: Cache, kind: str, rows: int = 24) -> np.ndarray:
    """Write a decoder beside another array; gives it back."""
    made = np.random.default_rng(0).normal(size=(rows, 8)).astype(kind)
    save_file(
        {"W_enc": made.T.copy(), "W_dec": made, "b_dec": made[0].copy()}, cache.path / "sae" / "sae_weights.safetensors"
    )
    return made


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_a_row_is_the_decoder_s_in_every_precision(cache, kind):
    made = decoder(cache, kind)
    for feature in (0, 7, 23):
        assert np.array_equal(decoder_row(cache, feature), made[feature].astype(np.float32))


def test_a_row_in_bfloat16_is_what_torch_reads(cache):
    import torch
    from safetensors.torch import save_file as save

    made = torch.randn(24, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save({"W_dec": made}, cache.path / "sae" / "sae_weights.safetensors")
    assert decoder_row(cache, 5).tolist() == made[5].float().tolist()


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 8, b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}", b"\x10\0\0\0\0\0\0\0no json at all.."]
)
def test_a_damaged_file_is_an_error_in_words(cache, raw):
    (cache.path / "sae" / "sae_weights.safetensors").write_bytes(raw)
    with pytest.raises(SaeError, match="cannot be read"):
        decoder_row(cache, 0)


def test_a_file_that_ends_early_or_of_another_width_is_refused(cache):
    decoder(cache, "float32", rows=23)
    with pytest.raises(SaeError, match="23 features"):
        decoder_row(cache, 0)
    decoder(cache, "float32")
    file = cache.path / "sae" / "sae_weights.safetensors"
    whole = file.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[: head + 16])
    with pytest.raises(SaeError, match="ends too early"):
        decoder_row(cache, 23)


def test_a_feature_that_is_not_and_an_autoencoder_that_is_elsewhere_are_refused(cache):
    with pytest.raises(SaeError, match="does not lie beside it"):
        decoder_row(cache, 0)
    with pytest.raises(UsageError, match="no feature 24"):
        decoder_row(cache, 24)


def test_a_citation_says_which_feature_of_which_files_it_was(cache):
    said = citation(cache, 12, "kings", "http://localhost/feature?feature=12")
    for part in (
        "@misc{",
        "Feature 12",
        "kings",
        cache.manifest.sae_fingerprint,
        cache_hash(cache),
        "Persona Explorer",
        "?feature=12",
    ):
        assert part in said
    assert str(cache.path) not in said


@pytest.mark.parametrize("label", [*(raw.decode() for raw in HOSTILE), "}{", "50 % \\input{x} $a_b^c ~ #1 & more\n\n}"])
def test_whatever_a_label_holds_the_braces_of_a_citation_match(cache, label):
    said = citation(cache, 1, label)
    depth, escaped = 0, False
    for character in said:
        if not escaped:
            depth += {"{": 1, "}": -1}.get(character, 0)
        escaped = character == "\\" and not escaped
        assert depth >= 0
    assert depth == 0
    assert said.count("\n  ") == said.count(" = {")
