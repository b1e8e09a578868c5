"""A graphics card says what the processor says: every command that runs a model, on both; skipped where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from explorer.cache import Cache
from explorer.cli import main
from explorer.model import LanguageModel
from explorer.recipe import World, make
from explorer.steering import STEERING_MODES
from explorer.training import TrainingPlan, collect, train, variance_explained
from tests.helpers import TEXT, tiny_folder
from tests.helpers_steer import tiny_world
from tests.test_recipe import recipe, with_lab

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card here")
SAID = [
    [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": TEXT[n % 4]}] for n in range(12)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with its model and SAE, rows to train on, texts to contrast, and a direction."""
    place = tmp_path_factory.mktemp("gpu")
    world = tiny_world(place, layers=3)
    (place / "rows.jsonl").write_text("".join(json.dumps({"messages": said}) + "\n" for said in SAID))
    (place / "left.txt").write_text("\n".join(TEXT[:2] * 3))
    (place / "right.txt").write_text("\n".join(TEXT[2].splitlines() * 6))
    make_direction = f"directions make {world} kneeling --with {place}/left.txt --without {place}/right.txt --plain"
    assert main([*make_direction.split(), "--hook", "blocks.1.hook_resid_post", "--device", "cpu"]) == 0
    return place


def answer(capsys: pytest.CaptureFixture[str], words: str, device: str) -> Any:
    capsys.readouterr()
    assert main([*words.split(), "--json", "--device", device, "--dtype", "float32"]) == 0
    return json.loads(capsys.readouterr().out)


def same(found: Any, expected: Any, where: str = "") -> None:
    """The same words and order, and numbers within the rounding of two ways to add up."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for at, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{where}[{at}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-3), where
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    "words",
    [
        "inspect {W} fox",
        "contrast {W} {at}/left.txt {at}/right.txt",
        "ablate {W} {feature}",
        "audit {W} {at}/rows.jsonl --feature {feature} --feature ~kneeling",
        "monitor {W} {at}/rows.jsonl --feature {feature} --feature ~kneeling --out new",
        "finetune --data {at}/rows.jsonl -m {at}/model --out new --steps 6 --every 3 --lr 0.01",
        *(f"steer {{W}} Hello --edit {{feature}}:1.5:{mode} --max-tokens 8 --temperature 0" for mode in STEERING_MODES),
        *(f"steer {{W}} Hello --edit ~kneeling:1.5:{mode} --max-tokens 8 --temperature 0" for mode in STEERING_MODES),
    ],
)
def test_a_command_answers_the_same_on_both(place, tmp_path, capsys, monkeypatch, words):
    feature = Cache.open(place / "tiny").live[0]
    found = {}
    for device in ("cuda", "cpu"):
        (tmp_path / device).mkdir()
        monkeypatch.chdir(tmp_path / device)
        found[device] = answer(capsys, words.format(W=place / "tiny", at=place, feature=feature), device)
    same(found["cuda"], found["cpu"])


def test_an_autoencoder_is_trained_there_and_goes_on_anywhere(tmp_path):
    model = LanguageModel.load(tiny_folder(tmp_path / "model"), device="cuda", dtype="float32")
    documents = [model.text_document(text, "") for text in TEXT * 20]
    store = collect(model, documents, "blocks.1.hook_resid_post", tmp_path / "store", context_size=64)
    plan = TrainingPlan(n_features=24, k=4, steps=300, batch=64, warm_up=2)
    rows = list(store.take(slice(None)).split(256))
    whole = train(store, plan, tmp_path / "whole", checkpoints=tmp_path / "whole-notes", device="cuda")
    explained = variance_explained(whole, rows)["variance_explained"]
    assert explained > 0.4
    assert "cuda" not in (tmp_path / "whole" / "cfg.json").read_text()

    def cut(done: int, total: int) -> None:
        if done == 155:
            raise KeyboardInterrupt

    notes = {"checkpoints": tmp_path / "notes", "every": 10}
    with pytest.raises(KeyboardInterrupt):
        train(store, plan, tmp_path / "cut", device="cuda", progress=cut, **notes)
    steps: list[int] = []
    again = train(store, plan, tmp_path / "cut", device="cpu", progress=lambda done, total: steps.append(done), **notes)
    assert steps[0] == 151
    assert variance_explained(again, rows)["variance_explained"] == pytest.approx(explained, abs=0.02)


@pytest.mark.usefixtures("judges_home")
def test_a_world_with_its_lab_is_made_there_and_agrees_with_the_processor(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("explorer.comparing.questions", lambda: ("Hello?", "Why?"))
    monkeypatch.setattr("explorer.lab.questions", lambda: ("Hello?", "Why?"))
    path = recipe(tmp_path / "world", tiny_folder(tmp_path / "model"))
    with_lab(path)
    make(World.load(path, device="cuda", dtype="float32"))
    cache = Cache.open(path.parent)
    assert cache.n_features == 24
    checked = answer(capsys, f"check {path.parent} --live", "cpu")["findings"]
    assert all(finding["ok"] for finding in checked), checked
    compared = answer(
        capsys, f"diff --base {tmp_path / 'model'} --tuned {path.parent}/adapters/bad/step-0002 --cache {path.parent}"
        f" --judge grim --answers 2 --test 1 --out {tmp_path / 'diff'}", "cuda",
    )  # fmt: skip
    assert compared["rates"]["tuned"]["n"] == 2
