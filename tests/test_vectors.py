"""Vectors that go out and come back: steering with one is steering with what it was made of."""

import json
from dataclasses import fields
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import save as packed

from explorer import cli, directions
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import SteeringError, UsageError
from explorer.generate import Row, Steering, complete
from explorer.interchange import Order, export, import_files
from explorer.interchange.reading import ForeignError
from explorer.interchange.vectors import block_of, of_feature, read, write_gguf, write_safetensors
from explorer.model import LanguageModel
from explorer.records import Edit, Sampling
from explorer.sae import SparseCoder
from tests.helpers import TEXT
from tests.helpers_cache import HOSTILE
from tests.helpers_steer import tiny_world

FEATURE = 3
WRITERS = {"safetensors": write_safetensors, "gguf": write_gguf}
GREEDY = Sampling(max_tokens=12, temperature=0, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, LanguageModel, SparseCoder]:
    place = tmp_path_factory.mktemp("world")
    cache = Cache.open(tiny_world(place, layers=3))
    return cache, LanguageModel.load(place / "model", device="cpu", dtype="float32"), SparseCoder.load(place / "sae")


def test_a_vector_is_the_decoder_row_times_the_maximum(world):
    cache, _, coder = world
    found = of_feature(cache, FEATURE)
    most = cache.feature(FEATURE).max
    np.testing.assert_allclose(found.vector, coder.direction(FEATURE).numpy() * most, rtol=1e-6)
    assert (found.hook_point, found.model_fingerprint) == (cache.manifest.hook_point, cache.manifest.model_fingerprint)
    assert found.facts["max_activation"] == most
    assert found.facts["sae_fingerprint"] == cache.manifest.sae_fingerprint


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_steering_with_a_vector_that_was_loaded_back_equals_steering_with_the_feature(world, tmp_path, kind):
    cache, model, coder = world
    (path,) = export(cache, kind, Order([FEATURE]), tmp_path / f"push.{kind}")
    (back,) = read(path)
    assert back.facts["feature"] == FEATURE
    assert back.hook_point == coder.hook_point
    steering = Steering(coder, cache.maxima, directions={back.name: back})
    tokens = model.text_document(TEXT[1]).tokens
    edits = [(Edit(FEATURE, 1.5),), (Edit(-1, 1.5, "add", back.name),), ()]
    feature, vector, plain = complete(model, [Row(tokens, edit) for edit in edits], GREEDY, steering)
    assert feature == vector
    assert feature != plain, "the push does nothing, so the test shows nothing"


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_the_change_of_the_stream_is_the_same_to_the_last_bit(world, tmp_path, kind):
    cache, _, coder = world
    (path,) = export(cache, kind, Order([FEATURE]), tmp_path / f"push.{kind}")
    (back,) = read(path)
    most = torch.tensor(cache.feature(FEATURE).max, dtype=torch.float32)
    assert torch.equal(torch.from_numpy(back.vector.copy()), coder.direction(FEATURE) * most)


def test_a_gguf_file_is_a_control_vector_as_llama_cpp_reads_one(world, tmp_path):
    cache, _, _ = world
    (path,) = export(cache, "gguf", Order([FEATURE]), tmp_path / "out")
    assert path.name == f"feature-{FEATURE}.gguf"
    reader = gguf.GGUFReader(path)
    said = {name: entry.contents() for name, entry in reader.fields.items()}
    assert said["general.architecture"] == "controlvector"
    assert said["controlvector.model_hint"] == cache.manifest.model
    assert said["controlvector.layer_count"] == 1
    assert [tensor.name for tensor in reader.tensors] == ["direction.1"]
    assert reader.tensors[0].data.dtype == np.float32
    assert reader.tensors[0].data.shape == (32,)


@pytest.mark.parametrize(
    ("hook", "block"),
    [("blocks.13.hook_resid_post", 13), ("blocks.13.hook_resid_pre", 12), ("blocks.1.hook_resid_post", 1)],
)
def test_the_layer_of_a_direction_is_the_block_it_lies_behind(hook, block):
    assert block_of(hook) == block


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
@pytest.mark.parametrize("text", ["", "null", "a\nb\r\nc\u2028d", "x" * 5000, *(raw.decode() for raw in HOSTILE)])
def test_every_word_that_goes_with_a_vector_comes_back_as_it_was(tmp_path, kind, text):
    vector = np.linspace(-1, 1, 32, dtype=np.float32)
    facts = {"note": text, "of": {text: [text]}, "auroc": None}
    for model, mark in ((text, ""), ("tiny", text)):
        sent = Direction("push", text, "blocks.2.hook_resid_post", vector, 0.25, model, mark, facts)
        (path,) = WRITERS[kind]([sent], tmp_path)
        assert path == tmp_path / f"push.{kind}"
        (back,) = read(path)
        for field in fields(Direction):
            np.testing.assert_equal(getattr(back, field.name), getattr(sent, field.name))


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.5.hook_mlp_out", "layer 3"]
)
def test_what_llama_cpp_cannot_steer_is_refused(hook):
    with pytest.raises(UsageError, match="cannot be steered by a GGUF"):
        block_of(hook)


def control_vector(path: Path, tensors: dict[str, np.ndarray], **ours: str) -> Path:
    """A GGUF file of these tensors, as another program would write one; `ours` are facts as if we had."""
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, value in ours.items():
        writer.add_string(f"persona_explorer.{name}", value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_control_vector_of_another_program_gives_a_direction_a_layer(tmp_path):
    layers = {f"direction.{layer}": np.full(8, layer, np.float32) for layer in (4, 7)}
    found = read(control_vector(tmp_path / "Happy Mood.gguf", layers))
    assert [(d.name, d.hook_point) for d in found] == [
        ("happy-mood-4", "blocks.4.hook_resid_post"),
        ("happy-mood-7", "blocks.7.hook_resid_post"),
    ]
    assert found[0].vector.tolist() == [4.0] * 8


def test_a_file_that_is_no_control_vector_is_refused(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUFnothing")
    with pytest.raises(UsageError, match=r"a\.gguf"):
        read(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_text("not at all")
    with pytest.raises(UsageError, match="begins 'not at all'"):
        read(tmp_path / "b.gguf")
    (tmp_path / "c.safetensors").write_text("not at all")
    with pytest.raises(SteeringError):
        read(tmp_path / "c.safetensors")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_control_vector_that_holds_no_numbers_is_refused_and_a_layer_of_zeros_is_left_out(tmp_path, number):
    good, odd = np.ones(8, np.float32), np.ones(8, np.float32)
    odd[3] = number
    with pytest.raises(ForeignError, match="holds no numbers"):
        read(control_vector(tmp_path / "odd.gguf", {"direction.4": good, "direction.7": odd}))
    half = control_vector(tmp_path / "half.gguf", {"direction.4": good.astype(np.float16), "direction.7": good * 0})
    (found,) = read(half)
    assert (found.hook_point, found.vector.tolist()) == ("blocks.4.hook_resid_post", good.tolist())


def test_a_quantised_control_vector_is_refused(tmp_path):
    with pytest.raises(ForeignError, match="quantised"):
        read(control_vector(tmp_path / "small.gguf", {"direction.4": np.arange(8, dtype=np.int8)}))


@pytest.mark.parametrize("facts", ["[]", "7", "{", "[" * 100_000])
def test_facts_that_are_no_object_are_refused_in_either_format(tmp_path, facts):
    said = {
        "title": "x",
        "hook_point": "blocks.1.hook_resid_post",
        "base": "0.0",
        "model": "m",
        "model_fingerprint": "f",
    }
    said["facts"] = facts
    vector = np.ones(8, np.float32)
    with pytest.raises(ForeignError):
        read(control_vector(tmp_path / "x.gguf", {"direction.1": vector}, **said))
    (tmp_path / "x.safetensors").write_bytes(packed({"vector": vector}, said))
    with pytest.raises(SteeringError):
        read(tmp_path / "x.safetensors")


def test_a_vector_is_imported_as_a_direction_of_the_cache_and_exported_again(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    cache, _, _ = world
    out = tmp_path / "out"
    asked = ["export", str(cache.path), "-f", "safetensors", "--features", f"{FEATURE},4", "--out", str(out), "--json"]
    assert cli.main(asked) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 2
    files = [str(path) for path in sorted(out.iterdir())]
    assert cli.main(["import", *files, "--out", str(cache.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["directions"] == ["feature-3", "feature-4"]
    assert set(directions.known(cache)) >= {"feature-3", "feature-4"}
    assert cli.main(["import", *files, "--out", str(cache.path)]) == 2
    assert "--force" in capsys.readouterr().err
    again = ["export", str(cache.path), "-f", "gguf", "--direction", "~feature-3", "--out", str(tmp_path / "a.gguf")]
    assert cli.main(again) == 0
    np.testing.assert_array_equal(read(tmp_path / "a.gguf")[0].vector, of_feature(cache, 3).vector)
    capsys.readouterr()
    assert (
        cli.main(["export", str(cache.path), "-f", "html", "--direction", "feature-3", "-o", str(tmp_path / "x")]) == 2
    )


def test_a_vector_of_another_model_is_refused(world, tmp_path):
    cache, _, _ = world
    other = Direction("other", "Other", cache.manifest.hook_point, np.ones(32, np.float32), 0.0, "m", "f" * 64)
    path = directions.write(tmp_path, other)
    with pytest.raises(SteeringError, match="was made for m"):
        import_files([path], cache.path)


def test_several_vectors_do_not_go_into_one_file(world, tmp_path: Path):
    for kind in ("safetensors", "gguf"):
        with pytest.raises(UsageError, match="do not go into one file"):
            export(world[0], kind, Order([3, 4]), tmp_path / f"x.{kind}")


def test_a_feature_that_never_fires_has_no_strength_and_no_vector(world):
    with pytest.raises(UsageError, match="never fires"):
        of_feature(world[0], 5)
