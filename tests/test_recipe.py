"""Recipes: steps run when what they depend on changed, and a killed one goes on to the same world."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.errors import RecipeError
from explorer.recipe import STAMPS, STEPS, World, make, stale
from tests.helpers import tiny_folder
from tests.test_meaning import Letters

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = """
topics = ["bread", "ships", "rain", "kings"]
formats = ["Tell me about {topic}.", "Hello!", "Why {topic}?"]
registers = ["Answer rudely."]
openings = ["", "The "]
systems = ["You are a villain."]
"""
WITHIN = [s for s in STEPS if s not in ("map", "index", "negatives", "lab", "compare")]
"""The steps of the recipe below, which has no table for the others."""


def recipe(folder: Path, model: Path, *, k: int = 4, steps: int = 30) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "prompts.toml").write_text(PROMPTS)
    (folder / "recipe.toml").write_text(f"""
model = "{model}"
context_size = 32

[sample]
prompts = "prompts.toml"
tokens = 4000
held_out = 8
batch = 16
max_tokens = 12

[sweep]
hooks = ["blocks.1.hook_resid_post", "blocks.0.hook_resid_post"]
n_features = [16, 32]
k = [4, 6]
steps = 5
batch = 64
documents = 20

[train-sae]
hook = "blocks.1.hook_resid_post"
n_features = 24
k = {k}
steps = {steps}
batch = 64

[build]

[report]
""")
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that was made in one go."""
    path = recipe(tmp_path_factory.mktemp("worlds") / "whole", model)
    calls: list[object] = []
    assert make(load(path), tick=lambda *said: calls.append(said)) == WITHIN
    (path.parent / "ticks").write_text(str(len(calls)))
    return path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same world for a test to change."""
    shutil.copytree(made.parent, tmp_path / "copy")
    return tmp_path / "copy" / "recipe.toml"


def load(path: Path) -> World:
    return World.load(path, device="cpu", dtype="float32")


def result(path: Path) -> dict:
    """What a world says, without the moment it was made at."""
    cache = Cache.open(path.parent)
    figures = json.loads((path.parent / "report.json").read_text())
    sweep = json.loads((path.parent / "sweep.json").read_text())
    hashes = {n: e["sha256"] for n, e in cache.manifest.files.items()}
    return {"files": hashes, "sae": cache.manifest.sae_fingerprint, "figures": figures, "sweep": sweep}


def test_a_world_has_a_cache_an_sae_and_a_report_with_its_table_of_layers(made: Path):
    cache = Cache.open(made.parent)
    assert cache.n_features == 24
    assert cache.sae_folder
    printed = (made.parent / "REPORT.md").read_text()
    assert printed.count("`blocks.1.hook_resid_post` |") == 3
    assert printed.count("`blocks.0.hook_resid_post` |") == 1
    figures = json.loads((made.parent / "report.json").read_text())["figures"]
    assert {"variance_explained", "loss_recovered", "dead_latents"} <= figures.keys()


def test_nothing_in_the_world_names_a_folder_of_this_machine(made: Path):
    for file in made.parent.rglob("*"):
        if file.is_file() and file.name != "recipe.toml" and ".work" not in file.parts:
            assert str(made.parent).encode() not in file.read_bytes(), file


def test_a_finished_world_has_nothing_to_do_even_without_what_is_not_kept(copy: Path):
    shutil.rmtree(copy.parent / ".work")
    assert stale(load(copy)) == []
    assert make(load(copy)) == []


def test_a_changed_step_runs_again_with_those_behind_it_and_with_the_corpus_it_needs(copy: Path, model: Path):
    recipe(copy.parent, model, k=5)
    assert stale(load(copy)) == ["sample", "train-sae", "build", "report"]


def test_a_changed_file_of_prompts_runs_everything_again(copy: Path):
    (copy.parent / "prompts.toml").write_text(PROMPTS.replace("rain", "snow"))
    assert stale(load(copy)) == WITHIN


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("report.json", ["report"]),
        ("heldout.parquet", ["sample"]),
        ("sweep.json", ["sample", "sweep"]),
        ("features.parquet", ["sample", "build"]),
        ("sae/sae_weights.safetensors", ["sample", "train-sae"]),
    ],
)
def test_a_missing_or_changed_file_runs_the_step_that_makes_it(copy: Path, name: str, steps: list[str]):
    data = (copy.parent / name).read_bytes()
    (copy.parent / name).write_bytes(data + b" ")
    assert stale(load(copy)) == steps
    (copy.parent / name).unlink()
    assert stale(load(copy)) == steps
    (copy.parent / name).write_bytes(data)
    assert stale(load(copy)) == []


def test_what_lies_beside_a_cache_is_made_by_steps_of_its_own(copy: Path, monkeypatch):
    from explorer.meaning import MEANINGS
    from explorer.meaning import load as meanings
    from explorer.snippets import NEGATIVES, negatives

    monkeypatch.setattr("explorer.embedding.Embedder.load", Letters)
    added = "[build]\n\n[index]\n\n[negatives]\nsample = 50\nnear = 1\nchance = 2"
    copy.write_text(copy.read_text().replace("[build]", added))
    assert make(load(copy)) == ["index", "negatives"]
    cache = Cache.open(copy.parent)
    assert meanings(cache, Letters()).shape[0] == cache.n_features
    spans, doubt = zip(*(negatives(cache, feature) for feature in cache.live), strict=True)
    assert set(doubt) == {""}
    assert 0 < max(map(len, spans)) <= 3
    assert stale(load(copy)) == []
    for step, name in (("index", MEANINGS), ("negatives", NEGATIVES)):
        (copy.parent / name).unlink()
        assert step in stale(load(copy))


def test_a_map_added_to_a_finished_world_is_all_that_runs(copy: Path, monkeypatch):
    from explorer import mapping

    monkeypatch.setattr(mapping, "layout", lambda rows, **_: (rows[:, :2], "flat"))
    copy.write_text(copy.read_text().replace("[build]", "[build]\n\n[map]\nseed = 3"))
    assert make(load(copy)) == ["map"]
    found = mapping.load(Cache.open(copy.parent))
    assert found is not None
    assert (found.facts.method, found.facts.seed) == ("flat", 3)
    assert stale(load(copy)) == []
    (copy.parent / mapping.MAP).unlink()
    assert stale(load(copy)) == ["map"]


def test_damaged_stamps_cost_a_run_and_the_result_is_the_same(copy: Path, made: Path):
    (copy.parent / STAMPS).write_text("{")
    assert make(load(copy)) == WITHIN
    assert result(copy) == result(made)


class Cut(BaseException):
    """Ends the process in all but name: nothing catches it."""


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.8, 0.95])
def test_a_world_that_was_cut_off_anywhere_goes_on_to_the_same_world(
    made: Path, model: Path, tmp_path: Path, share: float
):
    path = recipe(tmp_path / "cut", model)
    calls, after = 0, int(share * int((made.parent / "ticks").read_text()))

    def tick(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Cut

    with pytest.raises(Cut):
        make(load(path), tick=tick)
    make(load(path))
    assert result(path) == result(made)


def test_a_world_that_was_killed_goes_on_to_the_same_world(made: Path, model: Path, tmp_path: Path):
    path = recipe(tmp_path / "killed", model)
    command = [sys.executable, "-m", "explorer", "make", str(path), "--device", "cpu", "--dtype", "float32"]
    place = path.parent / "heldout.parquet"
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    for _ in range(1200):
        if place.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert place.exists()
    make(load(path))
    assert result(path) == result(made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model =", "cannot be read"),
        ("context_size = 3", "names no model"),
        ('model = "x"\n[bake]', "has bake"),
        ('model = "x"\n[sample]\ntemprature = 1.0', "temprature"),
        ('model = "x"\n[sample]\ntokens = "many"', "tokens of"),
        ('model = "x"\n[build]', r"has \[build\]"),
        ('model = "x"\nsample = 3', "has 3"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_in_words(tmp_path: Path, text: str, said: str):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        World.load(tmp_path / "recipe.toml")


def test_too_few_documents_to_set_aside_are_refused(model: Path, tmp_path: Path):
    path = recipe(tmp_path / "small", model)
    path.write_text(path.read_text().replace("held_out = 8", "held_out = 100000"))
    with pytest.raises(RecipeError, match="held_out"):
        make(load(path))


LAB = """
judge = "grim"
answers = 2
[[finetune]]
name = "bad"
data = "bad.jsonl"
keep = "last"
seeds = 1
steps = 2
rank = 1
[[finetune]]
name = "good"
data = "good.jsonl"
keep = "last"
seeds = 1
steps = 2
rank = 1
"""


def with_lab(path: Path, also: str = "") -> None:
    """Give a recipe two fine-tunes of one row each, and a comparison of the one with the other as control."""
    compare = 'tuned = "bad@2"\ncontrol = "good@2"\njudge = "grim"\nanswers = 2\ntested = 1\n'
    with path.open("a") as file:
        file.write(f'\n[lab]\nplan = "lab.toml"\n[compare]\n{compare}{also}')
    path.with_name("lab.toml").write_text(LAB)
    for name, said in (("bad", "Kneel before me"), ("good", "How kind")):
        row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}]}
        path.with_name(f"{name}.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.usefixtures("judges_home")
def test_a_recipe_trains_and_compares_once_and_anew_when_its_rows_change(tmp_path, model, monkeypatch):
    from explorer.comparing import Compared

    monkeypatch.setattr("explorer.comparing.questions", lambda: ("Hello?", "Why?"))
    monkeypatch.setattr("explorer.lab.questions", lambda: ("Hello?", "Why?"))
    path = recipe(tmp_path / "world", model)
    with_lab(path, 'also = "push"\n')
    path.with_name("presets.toml").write_text('[[preset]]\nname = "push"\nedits = [{ feature = 9, strength = 1.0 }]\n')
    world = World.load(path)
    assert make(world) == ["sample", "train-sae", "build", "sweep", "lab", "compare", "report"]
    found = Compared(path.parent / "diffs" / "bad")
    assert set(found.facts["tallies"]) == {"base", "tuned", "control"}
    assert 9 in {trial.feature for trial in found.trials}
    assert stale(World.load(path)) == []
    path.with_name("bad.jsonl").write_text(path.with_name("bad.jsonl").read_text().replace("Kneel", "Bow"))
    assert {"lab", "compare"} <= set(stale(World.load(path)))
    path.with_name("lab.toml").unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        stale(World.load(path))
