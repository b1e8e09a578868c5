"""Parity: a sound world passes, and a world that was broken in one way hears exactly that named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import cli
from explorer.build import build
from explorer.cache import Cache
from explorer.errors import CacheError
from explorer.model import LanguageModel
from explorer.parity import compare, sample
from explorer.parity_file import NAME, Parity, badge, load, places, save
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_folder
from tests.helpers_sae import tiny_sae_folder

BOS, CHAT = "<s>", "<|im_start|>user\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parity")
    tiny_folder(root / "model")
    tiny_folder(root / "other", seed=1)
    tiny_sae_folder(root / "sae")
    tiny_sae_folder(root / "other-sae", seed=1)
    return root


@pytest.fixture(scope="module")
def model(place: Path) -> LanguageModel:
    return LanguageModel.load(place / "model", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def coder(place: Path) -> SparseCoder:
    return SparseCoder.load(place / "sae")


def made(place: Path, name: str, model: LanguageModel, coder: SparseCoder, *, chat: bool = False) -> Cache:
    """A cache built by the real builder, of texts, or of conversations."""
    texts = [f"{a} {b}" for a in TEXT for b in TEXT]
    documents = [
        model.chat_document([{"role": "user", "content": t}]) if chat else model.text_document(t) for t in texts
    ]
    return Cache.open(build(model, coder, documents, place / name, corpus="texts", context_size=96))


@pytest.fixture(scope="module")
def cache(place: Path, model: LanguageModel, coder: SparseCoder) -> Cache:
    return made(place, "sound", model, coder)


def fresh(place: Path, dtype: str = "float32") -> LanguageModel:
    """A model of one's own, to be broken."""
    return LanguageModel.load(place / "model", device="cpu", dtype=dtype)


def reading_after(model: LanguageModel, prefix: list[int]) -> LanguageModel:
    """A model that puts tokens in front of whatever it reads and says nothing of it."""
    plain = model.activations

    def activations(ids, hook, mask=None):
        front = torch.tensor([prefix] * len(ids))
        return plain(torch.cat([front, ids], 1), hook)[:, len(prefix) :]

    model.activations = activations  # type: ignore[method-assign]
    return model


def skipping_first(model: LanguageModel) -> LanguageModel:
    """A model that leaves out the first token of whatever it reads."""
    plain = model.activations

    def activations(ids, hook, mask=None):
        rest = plain(ids[:, 1:], hook)
        return torch.cat([rest[:, :1], rest], 1)

    model.activations = activations  # type: ignore[method-assign]
    return model


def named(found: Parity) -> str:
    """The name of the cause that was named."""
    assert not found.ok
    return next(one["name"] for one in found.tested if one["detail"] == found.cause)


def test_a_sound_world_agrees_to_the_stored_precision(cache: Cache, model, coder):
    found = compare(cache, model, coder)
    assert found.ok
    assert found.beyond == 0
    assert found.error < 2**-11
    assert found.active > 50
    assert (found.cause, found.tested) == ("", [])


def test_the_sample_is_seeded_and_goes_over_features(cache: Cache):
    first, again, other = sample(cache, 8), sample(cache, 8), sample(cache, 8, seed=1)
    assert first == again
    assert first != other
    assert len({example.feature for example in first}) == 8


@pytest.mark.parametrize("token", [BOS, "<|im_end|>"])
def test_a_token_in_front_that_the_windows_do_not_hold_is_named(place: Path, model, coder, token: str):
    broken = reading_after(fresh(place), [model.tokenizer.convert_tokens_to_ids(token)])
    found = compare(made(place, f"bos{len(token)}", broken, coder), model, coder)
    assert named(found) == "bos"
    assert token in found.cause
    assert found.remaining is not None
    assert found.remaining < 0.01 < found.error


def test_a_first_token_that_was_not_read_is_named(place: Path, model, coder):
    found = compare(made(place, "headless", skipping_first(fresh(place)), coder), model, coder)
    assert named(found) == "bos"
    assert "without the first token" in found.cause


@pytest.mark.parametrize(
    ("hook", "words"), [("blocks.0.hook_resid_post", "too early"), ("blocks.2.hook_resid_post", "too late")]
)
def test_a_hook_point_off_by_one_block_is_named_with_the_right_one(place: Path, model, coder, hook: str, words: str):
    elsewhere = SparseCoder.load(place / "sae", hook_point=hook)
    found = compare(made(place, hook, model, elsewhere), model, coder)
    assert named(found) == "hook"
    assert words in found.cause
    assert coder.hook_point in found.fix


def test_what_was_read_before_the_block_instead_of_behind_it_is_named(place: Path, model, coder):
    elsewhere = SparseCoder.load(place / "sae", hook_point="blocks.1.hook_resid_pre")
    found = compare(made(place, "pre", model, elsewhere), model, coder)
    assert named(found) == "hook"
    assert "blocks.0.hook_resid_post" in found.cause


def test_another_precision_than_the_cache_says_is_named(place: Path, model, coder):
    cache = made(place, "half", fresh(place, "bfloat16"), coder)
    cache.manifest = replace(cache.manifest, dtype="float32")
    found = compare(cache, model, coder)
    assert named(found) == "dtype"
    assert "bfloat16" in found.fix


@pytest.mark.parametrize("factor", [3.0, 0.25])
def test_a_constant_factor_on_the_activations_is_fitted(place: Path, model, factor: float):
    scaled = SparseCoder.load(place / "sae")
    plain = scaled.encode
    scaled.encode = lambda resid: factor * plain(resid)  # type: ignore[method-assign]
    found = compare(made(place, f"out{factor}", model, scaled), model, SparseCoder.load(place / "sae"))
    assert named(found) == "scale"
    assert f"{factor:.4g} times" in found.cause


def test_a_factor_on_what_the_sae_reads_is_fitted(place: Path, model):
    scaled = SparseCoder.load(place / "sae")
    plain = scaled.encode
    scaled.encode = lambda resid: plain(resid * 2.0)  # type: ignore[method-assign]
    found = compare(made(place, "in", model, scaled), model, SparseCoder.load(place / "sae"))
    assert named(found) == "scale"
    assert "residual stream scaled by" in found.cause
    assert float(found.cause.split("scaled by ")[1].split(":")[0]) == pytest.approx(2.0, rel=0.1)


def test_a_chat_template_that_the_windows_lack_is_named(place: Path, model, coder):
    prefix = model.tokenizer(CHAT, add_special_tokens=False).input_ids
    found = compare(made(place, "wrapped", reading_after(fresh(place), prefix), coder), model, coder)
    assert named(found) == "template"
    assert "bare" in found.cause


def test_a_chat_template_that_was_not_read_is_named(place: Path, model, coder, monkeypatch):
    cache = made(place, "bared", model, coder, chat=True)

    def bare(index: int, kind: str | None = None):
        found = []
        for example in Cache.examples(cache, index, kind):
            said = np.flatnonzero(example.scored)
            ids = torch.tensor([[example.tokens[at] for at in said]])
            acts = np.zeros(len(example.tokens))
            acts[said] = coder.encode(model.activations(ids, coder.hook_point))[0, :, index].numpy()
            found.append(replace(example, acts=tuple(acts.tolist())))
        return found

    monkeypatch.setattr(cache, "examples", bare)
    found = compare(cache, model, coder)
    assert named(found) == "template"
    assert "without the chat template" in found.cause


def test_other_weights_are_named_and_tried_where_the_right_ones_are_here(cache: Cache, place: Path, model, coder):
    other = LanguageModel.load(place / "other", device="cpu", dtype="float32")
    found = compare(cache, other, coder, original=lambda: model)
    assert named(found) == "weights"
    assert found.remaining is not None
    assert found.remaining < 0.001
    assert compare(cache, other, coder).cause == found.cause, "the fingerprint speaks where they are not"


def test_another_sae_is_named(cache: Cache, place: Path, model):
    found = compare(cache, model, SparseCoder.load(place / "other-sae"))
    assert named(found) == "sae"


def test_what_nothing_explains_is_unknown(place: Path, model, coder, cache: Cache, monkeypatch):
    rng = np.random.default_rng(0)

    def noise(index: int, kind: str | None = None):
        return [
            replace(e, acts=tuple((np.array(e.scored) * rng.random(len(e.acts)) * 9).tolist()))
            for e in Cache.examples(cache, index, kind)
        ]

    monkeypatch.setattr(cache, "examples", noise)
    found = compare(cache, model, coder)
    assert found.cause.startswith("unknown")
    assert found.fix
    assert len(found.tested) > 6


def test_work_that_is_stopped_ends_in_words(cache: Cache, model, coder):
    with pytest.raises(CacheError, match="stopped"):
        compare(cache, model, coder, should_stop=lambda: True)


def test_the_badge_goes_from_unchecked_to_ok_to_stale_to_mismatch(place: Path, model, coder, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path))
    cache = made(place, "badged", model, coder)
    assert badge(cache).state == "unchecked"
    sound = compare(cache, model, coder)
    assert save(cache, sound) == cache.path / NAME
    assert load(cache) == sound
    assert badge(cache).state == "ok"
    Cache.open(cache.path)  # no file of the manifest
    save(cache, replace(sound, corpus_sha256="another build"))
    assert badge(cache).state == "stale"
    save(cache, replace(sound, ok=False, cause="It is broken", fix="Mend it"))
    assert badge(cache).state == "mismatch"
    assert "It is broken" in badge(cache).detail
    (cache.path / NAME).write_text("{")
    assert badge(cache).state == "unchecked"


def test_where_the_folder_cannot_be_written_the_finding_lies_in_the_home(
    cache: Cache, model, coder, tmp_path, monkeypatch
):
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path))
    found = compare(cache, model, coder)
    beside, own = places(cache)
    beside.mkdir()  # what is a folder cannot become a file
    try:
        assert save(cache, found) == own
        assert load(cache) == found
    finally:
        beside.rmdir()
        own.unlink()


def test_the_command_prints_the_cause_and_the_fix_and_exits_with_1(place: Path, model, coder, capsys):
    elsewhere = SparseCoder.load(place / "sae", hook_point="blocks.0.hook_resid_post")
    for name, reads, code in (("cli-sound", coder, 0), ("cli-early", elsewhere, 1)):
        folder = made(place, name, model, reads).path
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest |= {"sae": str(place / "sae"), "sae_fingerprint": coder.fingerprint, "hook_point": coder.hook_point}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert cli.main(["check", str(folder), "--live", "--json", "--device", "cpu"]) == code
        said = json.loads(capsys.readouterr().out)
        assert said["parity"]["ok"] == (code == 0)
        assert (folder / NAME).is_file()
    assert cli.main(["check", str(folder), "--live", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "too early" in out
    assert "Build it again at" in out
