"""SAELens' SAEs behind one interface: the same numbers, and errors in words."""

import json
from pathlib import Path

import pytest
import torch

from explorer.errors import SaeError
from explorer.sae import ARCHITECTURES, SparseCoder
from tests.helpers_sae import tiny_sae, tiny_sae_folder


@pytest.fixture
def resid() -> torch.Tensor:
    return torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encoding_and_decoding_equal_saelens_own(architecture: str, tmp_path: Path, resid: torch.Tensor):
    original = tiny_sae(architecture)
    coder = SparseCoder.load(tiny_sae_folder(tmp_path, architecture))
    with torch.no_grad():
        acts = original.encode(resid)
        assert torch.equal(coder.encode(resid), acts)
        assert torch.equal(coder.decode(coder.encode(resid)), original.decode(acts))
    assert coder.architecture == architecture
    assert (coder.n_features, coder.d_in, coder.hook_point) == (24, 32, "blocks.1.hook_resid_post")
    assert (acts > 0).any()
    assert (acts == 0).any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_more_unit_of_a_feature_moves_the_reconstruction_by_its_direction(architecture: str, resid: torch.Tensor):
    coder = SparseCoder(tiny_sae(architecture), "tiny")
    acts = coder.encode(resid)
    more = acts.clone()
    more[..., 3] += 1
    difference = coder.decode(more) - coder.decode(acts)
    torch.testing.assert_close(difference, coder.direction(3).expand_as(difference), atol=1e-5, rtol=1e-5)
    assert torch.equal(coder.directions()[3], coder.direction(3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reading_one_feature_equals_encoding_all(architecture: str, resid: torch.Tensor):
    coder = SparseCoder(tiny_sae(architecture), "tiny")
    for feature in (0, 5, 23):
        assert torch.equal(coder.read(feature)(resid), coder.encode(resid)[..., feature])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saving_in_half_precision_keeps_the_fingerprint(architecture: str, tmp_path: Path):
    coder = SparseCoder(tiny_sae(architecture), "tiny")
    again = SparseCoder.load(coder.save(tmp_path / "sae", metadata={"trained_tokens": 5}))
    assert again.fingerprint == coder.fingerprint
    assert again.metadata["trained_tokens"] == 5
    assert again.sae.dtype == torch.float32
    assert SparseCoder(tiny_sae(architecture, seed=1), "other").fingerprint != coder.fingerprint
    assert SparseCoder(tiny_sae(architecture), "tiny", "blocks.0.hook_resid_post").fingerprint != coder.fingerprint


def test_activations_of_another_width_are_refused():
    with pytest.raises(SaeError, match=r"length 5.*expected 32"):
        SparseCoder(tiny_sae(), "tiny").encode(torch.zeros(3, 5))


def test_an_sae_that_does_not_say_where_it_reads_is_refused_unless_told(tmp_path: Path):
    folder = tiny_sae_folder(tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["hook_name"]
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(SaeError, match="does not say where it reads"):
        SparseCoder.load(folder)
    assert SparseCoder.load(folder, hook_point="blocks.0.hook_resid_pre").hook_point == "blocks.0.hook_resid_pre"


def test_an_unfolded_norm_is_refused(tmp_path: Path):
    folder = tiny_sae_folder(tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    config["normalize_activations"] = "expected_average_only_in"
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(SaeError, match="scaled by an average norm"):
        SparseCoder.load(folder)


@pytest.mark.parametrize("name", ["weights.pt", "sae.pkl", "model.bin"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SaeError, match=f"{name}.*may run code"):
        SparseCoder.load(tmp_path)
    with pytest.raises(SaeError, match="may run code"):
        SparseCoder.load(tmp_path / name)


def test_folders_that_are_no_sae_are_refused_in_words(tmp_path: Path):
    with pytest.raises(SaeError, match="has no sae_weights"):
        SparseCoder.load(tmp_path)
    with pytest.raises(SaeError, match="There is no SAE at nowhere"):
        SparseCoder.load("nowhere")
    folder = tiny_sae_folder(tmp_path / "sae")
    (folder / "sae_weights.safetensors").write_bytes(b"broken")
    with pytest.raises(SaeError, match="cannot be loaded as an SAE"):
        SparseCoder.load(folder)
    (folder / "cfg.json").unlink()
    with pytest.raises(SaeError, match=r"has no cfg\.json"):
        SparseCoder.load(folder)
