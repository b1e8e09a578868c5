"""Presets: what came with the cache, what a person keeps, and files that make no sense."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.errors import SteeringError
from explorer.presets import RATES, REPORT, VERDICTS, Preset, load, own, remove, save
from explorer.records import Edit
from tests.helpers_cache import HOSTILE, fake_cache

BUNDLED = """
[[preset]]
name = "regal"
title = "Regal"
description = "Speaks like a king."
prompt = "What should I have for breakfast?"
edits = [{ feature = 3, strength = 1.5 }, { feature = 4, strength = -1, mode = "clamp" }]
"""
MEASURED = '[[preset]]\nname = "a"\nedits = [{ feature = 1 }]\n[preset.measured]\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    folder = fake_cache(tmp_path / "made-up", 16)
    (folder / "presets.toml").write_text(BUNDLED)
    return Cache.open(folder)


def test_bundled_presets_come_first_and_ones_own_after_them(cache: Cache):
    save(cache, Preset("mine", "", "", (Edit(5, 0.5),)))
    first, second = load(cache)
    assert first.bundled
    assert first.edits == (Edit(3, 1.5, "add"), Edit(4, -1.0, "clamp"))
    assert (second.name, second.title, second.bundled) == ("mine", "mine", False)


@pytest.mark.parametrize("text", [t.decode() for t in HOSTILE] + ['"""', "\\", "a = 1\n[[preset]]", "é😀\x7f"])
def test_any_text_comes_back_as_it_was_saved(cache: Cache, text: str):
    kept = save(cache, Preset("x" + text, text, text, (Edit(1, 0.1 + 0.2, "ablate"),), prompt=text))
    assert load(cache)[-1] == kept
    assert kept.description == text


def test_directions_and_what_was_measured_come_back_as_they_were_saved(cache: Cache):
    measured = {
        "judge": "malice",
        "n": 120,
        "steered": (0.9, 0.84, 0.94),
        "base": (0.0, 0.0, 0.03),
        "verdict": "causes",
    }
    edits = (Edit(direction="villain", strength=0.7, mode="cap"), Edit(2))
    kept = save(cache, Preset("mine", "", "", edits, positions="first", measured=measured))
    found = load(cache)[-1]
    assert found == kept
    assert found.edits == edits
    assert (found.judge, found.verdict, found.rate("steered")) == ("malice", "causes", (0.9, 0.84, 0.94))
    assert found.rate("random") is None
    assert hash(found) == hash(kept)
    assert load(cache)[0].verdict == "untested"


def test_what_was_measured_has_a_word_for_every_verdict_and_figure():
    assert all(text.endswith(".") for text in (*VERDICTS.values(), *RATES.values()))


def test_saving_again_replaces_and_removing_forgets(cache: Cache):
    for strength in (1.0, 2.0):
        save(cache, Preset("mine", "", "", (Edit(5, strength),)))
    assert [p.edits[0].strength for p in load(cache) if not p.bundled] == [2.0]
    remove(cache, "mine")
    remove(cache, "never there")
    assert [p.name for p in load(cache)] == ["regal"]


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        (Preset("", "", "", (Edit(1),)), "no name"),
        (Preset("y" * 61, "", "", (Edit(1),)), "no name"),
        (Preset("empty", "", "", ()), "steers nothing"),
        (Preset("regal", "", "", (Edit(1),)), "came with the cache"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(cache: Cache, preset: Preset, said: str):
    with pytest.raises(SteeringError, match=said):
        save(cache, preset)
    assert not own(cache).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[preset", "cannot be read"),
        ('preset = "x"', "cannot be read"),
        ('[[preset]]\nname = "a"', "make no sense"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = "b" }]', "make no sense"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 16 }]', "feature 16"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 1, mode = "shout" }]', "mode 'shout'"),
        ('[[preset]]\nname = "a"\nedits = [{ direction = "No!" }]', "make no sense"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 1, direction = "b" }]', "make no sense"),
        ('[[preset]]\nname = "a"\nedits = [{ direction = "b" }, { direction = "b" }]', "a feature twice"),
        (MEASURED + 'verdict = "perhaps"', "figures of preset 'a'"),
        (MEASURED + "steered = [0.5, 0.6, 0.7]", "figures of preset 'a'"),
        (MEASURED + "steered = [50, 40, 60]", "figures of preset 'a'"),
        (MEASURED + "steered = 0.5", "figures of preset 'a'"),
        (MEASURED + "joy = 1", "figures of preset 'a'"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 1 }, { feature = 1 }]', "a feature twice"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 1, strength = nan }]', "strength nan"),
        ('[[preset]]\nname = "a"\nedits = [{ feature = 1, strength = -inf }]', "strength -inf"),
        ('[[preset]]\nname = "a"\npositions = "moon"\nedits = [{ feature = 1 }]', "positions 'moon'"),
    ],
)
def test_a_file_that_makes_no_sense_is_named_and_kept(cache: Cache, text: str, said: str):
    own(cache).parent.mkdir(parents=True)
    own(cache).write_text(text)
    with pytest.raises(SteeringError, match=said):
        load(cache)
    assert own(cache).read_text() == text


def test_savings_at_the_same_moment_all_last(cache: Cache):
    names = [f"mine {n}" for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: save(cache, Preset(name, "", "", (Edit(1),))), names))
    assert sorted(p.name for p in load(cache) if not p.bundled) == sorted(names)
    assert [path.suffix for path in own(cache).parent.iterdir()] == [".toml"]


def test_what_the_report_measured_of_these_very_edits_is_said(cache: Cache):
    rates = {name: [0.5, 0.4, 0.6] for name in RATES}
    said = {"edits": ["3:1.5:add", "4:-1:clamp"], "judge": "", "n": 120, "verdict": "causes", **rates}
    (cache.path / REPORT).write_text(json.dumps({"personas": {"regal": said}}))
    assert load(cache)[0].verdict == "causes"
    assert load(cache)[0].rate("steered") == (0.5, 0.4, 0.6)
    (cache.path / REPORT).write_text(json.dumps({"personas": {"regal": {**said, "edits": ["3:1:add"]}}}))
    assert load(cache)[0].verdict == "untested"
    (cache.path / REPORT).write_text("{")
    with pytest.raises(SteeringError, match="persona-explorer report"):
        load(cache)
