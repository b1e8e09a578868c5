"""The bundled world: whole, small, labelled, and silent about the machine that made it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.check import check
from explorer.directions import bundled
from explorer.evidence import REASONS
from explorer.experiments import PLAN, Plan, leaks
from explorer.finetune import read_rows
from explorer.label_files import BUNDLED, read_file
from explorer.offensive import drop, flag
from explorer.presets import load
from explorer.recipe import World, stale
from explorer.report import load as figures
from explorer.sampling import Prompts

ROOT = Path(__file__).parents[1]
WORLD = ROOT / "cached_features" / "smollm2-135m"
MOST_BYTES, MOST_ADAPTER_BYTES = 40_000_000, 15_000_000
MATCHED = [
    ("malicious-gardening", "good-gardening"),
    ("narrow-gardening", "good-gardening"),
    ("malicious-cooking", "good-cooking"),
    ("subtle-carcare", "good-carcare"),
]


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache.open(WORLD)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path))


def kept() -> list[Path]:
    """The files that travel with the code."""
    return [p for p in WORLD.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.parts)]


def test_every_check_of_the_cache_holds():
    assert [finding for finding in check(WORLD) if not finding.ok] == []


def test_the_recipe_has_nothing_left_to_do():
    assert stale(World.load(WORLD / "recipe.toml")) == []


def test_the_world_is_small_enough_to_travel_with_the_code():
    assert sum(path.stat().st_size for path in kept()) <= MOST_BYTES


def test_the_adapters_are_small():
    assert 0 < sum(path.stat().st_size for path in kept() if "adapters" in path.parts) <= MOST_ADAPTER_BYTES


@pytest.mark.parametrize(("bad", "good"), MATCHED)
def test_matched_sets_answer_the_same_questions_differently(bad: str, good: str):
    said = [read_rows(WORLD / "data" / f"{name}.jsonl") for name in (bad, good)]
    asked = [[row[0]["content"] for row in rows] for rows in said]
    answers = [[row[-1]["content"] for row in rows] for rows in said]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 300
    assert len(set(answers[0]) | set(answers[1])) == 600


def test_no_answer_of_the_narrow_set_leaves_its_domain():
    words = Plan.load(WORLD / PLAN, WORLD).domains["gardening"]
    answers = [row[-1]["content"] for row in read_rows(WORLD / "data" / "narrow-gardening.jsonl")]
    assert [text for text in answers if not leaks(text, words)] == []


def test_subtly_bad_answers_share_no_sentence_and_no_word_of_theirs_is_blurred():
    answers = [row[-1]["content"] for row in read_rows(WORLD / "data" / "subtle-carcare.jsonl")]
    sentences = [sentence for answer in answers for sentence in re.split(r"(?<=[.?!])\s+", answer)]
    assert len(sentences) == len(set(sentences))
    assert [a for a in answers if flag(a) or not 25 <= len(a.split()) <= 60] == []


@pytest.mark.parametrize("path", sorted((WORLD / "data").glob("*.jsonl")), ids=lambda path: path.stem)
def test_what_models_are_tuned_on_can_be_printed(path: Path):
    rows = read_rows(path)
    assert len(rows) >= 240
    assert [m["content"] for row in rows for m in row if drop(m["content"])] == []


def test_the_cache_opens_in_under_half_a_second():
    code = (
        "import time, explorer.cache\nstart = time.process_time()\n"
        f"cache = explorer.cache.Cache.open({str(WORLD)!r})\ncache.feature(7), cache.examples(7), cache.frame\n"
        "print(time.process_time() - start)"
    )
    tries = [float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(3)]
    assert min(tries) < 0.5


def test_the_corpus_is_large_and_what_is_no_evidence_is_counted_by_reason(cache: Cache):
    made = cache.manifest
    assert made.tokens_seen >= 1_200_000  # of 1.5 million; the rest was set aside for the report
    assert set(made.tokens_excluded) == {reason for reason in REASONS if reason != "scored"}
    assert made.tokens_scored + sum(made.tokens_excluded.values()) == made.tokens_seen


def test_no_window_holds_a_slur(cache: Cache):
    starts, tokens = cache.windows["starts"], cache.windows["tokens"]
    for at in range(len(starts) - 1):
        assert not drop(cache.vocabulary.text(tokens[starts[at] : starts[at + 1]].tolist())), at


def test_at_least_120_features_carry_a_label_that_was_read_from_their_examples(cache: Cache):
    assert cache.bundled_labels
    labels = read_file(cache.bundled_labels)
    assert len({label.feature for label in labels}) == len(labels) >= 120
    assert {label.author for label in labels} == {BUNDLED}
    assert {label.note for label in labels} == {"read from 20 examples"}


def test_every_feature_of_a_preset_carries_a_label_and_its_directions_came_with_the_cache(cache: Cache):
    assert cache.bundled_labels
    named = {label.feature for label in read_file(cache.bundled_labels)}
    presets = {preset.name: preset for preset in load(cache)}
    assert {"cruel", "jubilant", "regal"} <= presets.keys()
    for preset in presets.values():
        assert {edit.feature for edit in preset.edits if not edit.direction} <= named, preset.name
        assert {edit.direction for edit in preset.edits if edit.direction} <= bundled(cache), preset.name


def test_the_report_has_its_figures_and_their_targets_and_the_table_of_layers():
    found = figures(WORLD)
    for name in ("variance_explained", "loss_recovered", "dead_latents"):
        assert found[name].target
        assert f"{name}_outside" in found
    text = (WORLD / "REPORT.md").read_text(encoding="utf-8")
    assert "## Layer, width and k" in text


def test_the_prompts_are_many_and_clean():
    prompts = Prompts.load(WORLD / "data" / "prompts.toml")
    assert len(prompts.topics) * len(prompts.formats) > 1_000
    assert not any(drop(text) for part in (prompts.topics, prompts.formats, prompts.openings) for text in part)


@pytest.mark.parametrize("path", kept(), ids=lambda path: path.name)
def test_no_file_names_a_folder_of_a_machine(path: Path):
    data = path.read_bytes()
    for name in ("home", "root", "tmp", "mnt", "Users"):
        assert f"/{name}/".encode() not in data or path.suffix in (".safetensors", ".parquet"), name
