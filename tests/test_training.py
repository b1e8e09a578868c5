"""Collecting and training: only evidence is trained on, and a killed training ends as it would have ended."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import training
from explorer.errors import RecipeError, SaeError
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder
from explorer.training import ActivationStore, TrainingPlan, collect, sweep, train, variance_explained
from tests.helpers import TEXT, tiny_model

HOOK = "blocks.1.hook_resid_post"
PLAN = TrainingPlan(n_features=64, k=6, steps=30, batch=64, warm_up=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def documents(model: LanguageModel) -> list[Document]:
    chats = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a in TEXT for b in TEXT]
    return [model.text_document(t) for t in TEXT] + [model.chat_document(chat) for chat in chats]


@pytest.fixture(scope="module")
def store(model: LanguageModel, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return collect(model, documents, HOOK, tmp_path_factory.mktemp("store"), context_size=32)


def test_the_rows_are_the_activations_of_the_scored_tokens(model, documents, store: ActivationStore):
    expected = []
    for document in documents:
        content = [i for a, b in document.content for i in range(a, b)]
        for start in range(0, len(document.tokens), 32):
            ids = torch.tensor([document.tokens[start : start + 32]])
            resid = model.activations(ids, HOOK)[0]
            expected.append(resid[[i - start for i in content if start < i < start + 32]])
    distance = torch.cdist(store.take(slice(None)), torch.cat(expected))
    rounding = 0.01 * store.index["median_norm"]
    assert distance.min(0).values.max() < rounding
    assert distance.min(1).values.max() < rounding
    assert len(store) == sum(map(len, expected))
    tokens = sum(len(d.tokens) for d in documents)
    assert len(store) + sum(store.index["excluded"].values()) == tokens
    assert store.index["excluded"]["template"] > 0


def test_sinks_are_left_out(model, documents, store, tmp_path):
    norms = store.take(slice(None)).norm(dim=1)
    factor = norms.quantile(0.9).item() / store.index["median_norm"]
    kept = collect(model, documents, HOOK, tmp_path / "half", context_size=32, sink_factor=factor)
    assert kept.take(slice(None)).norm(dim=1).max() <= norms.quantile(0.9) * 1.01
    assert kept.index["excluded"]["sink"] - store.index["excluded"]["sink"] == len(store) - len(kept) > 0
    with pytest.raises(SaeError, match="no token of the corpus is evidence"):
        collect(model, documents, HOOK, tmp_path / "none", context_size=32, sink_factor=1e-6)


def test_collecting_goes_on_where_it_was_cut_off(model, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_WINDOWS", 4)
    whole = collect(model, documents, HOOK, tmp_path / "whole", context_size=32)

    class Killed(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done > 100:
            raise Killed

    with pytest.raises(Killed):
        collect(model, documents, HOOK, tmp_path / "cut", context_size=32, progress=die)
    with (tmp_path / "cut" / "rows.bin").open("ab") as file:
        file.write(b"half a row")
    with pytest.raises(SaeError, match="no complete activations"):
        ActivationStore(tmp_path / "cut")
    again = collect(model, documents, HOOK, tmp_path / "cut", context_size=32)
    assert torch.equal(again.take(slice(None)), whole.take(slice(None)))


def test_activations_of_another_hook_point_are_not_mixed(model, documents, store):
    with pytest.raises(SaeError, match="another hook_point"):
        collect(model, documents, "blocks.0.hook_resid_post", store.folder, context_size=32)


def test_every_row_comes_once_an_epoch_and_any_batch_can_be_skipped_to(store: ActivationStore):
    stream = store.shuffled(50, seed=1)
    a_epoch = len(store) // 50
    taken = [next(stream) for _ in range(2 * a_epoch)]
    seen = torch.cat(taken[:a_epoch])
    assert len(np.unique(seen.numpy(), axis=0)) >= len(np.unique(store.take(slice(None)).numpy(), axis=0)) - 50
    assert torch.equal(next(store.shuffled(50, seed=1, skip=a_epoch + 1)), taken[a_epoch + 1])
    assert not torch.equal(taken[0], taken[a_epoch])


def test_training_explains_variance_and_writes_what_saelens_reads(store: ActivationStore, tmp_path: Path):
    coder = train(
        store,
        TrainingPlan(64, 6, 150, 64, warm_up=5),
        tmp_path / "sae",
        checkpoints=tmp_path / "c",
        metadata={"model_name": "tiny"},
    )
    found = variance_explained(coder, [store.take(slice(None))])
    assert found["variance_explained"] > 0.5
    assert found["l0"] <= 6
    assert coder.hook_point == HOOK
    assert coder.metadata["model_name"] == "tiny"
    assert coder.metadata["training"]["steps"] == 150
    assert SparseCoder.load(tmp_path / "sae").fingerprint == coder.fingerprint


def test_a_killed_training_ends_as_it_would_have_ended(store: ActivationStore, tmp_path: Path):
    whole = train(store, PLAN, tmp_path / "whole", checkpoints=tmp_path / "c1")

    class Killed(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done == 25:
            raise Killed

    with pytest.raises(Killed):
        train(store, PLAN, tmp_path / "sae", checkpoints=tmp_path / "c2", every=10, progress=die)
    assert not (tmp_path / "sae").exists()
    steps: list[int] = []
    again = train(
        store, PLAN, tmp_path / "sae", checkpoints=tmp_path / "c2", every=10, progress=lambda d, t: steps.append(d)
    )
    assert steps[0] == 21
    for ours, theirs in zip(again.sae.parameters(), whole.sae.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not (tmp_path / "c2").exists()


def test_variance_explained_is_zero_for_the_mean_and_one_for_the_input():
    rows = torch.randn(100, 32)

    class Flat:
        n_features = 4

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 4)

        def decode(self, acts: torch.Tensor) -> torch.Tensor:
            return rows.mean(0).expand(len(acts), 32)

    found = variance_explained(Flat(), rows.split(50))  # type: ignore[arg-type]
    assert found["variance_explained"] == pytest.approx(0, abs=1e-5)
    assert (found["dead_latents"], found["l0"], found["rows"]) == (0, 4, 100)


def test_a_plan_that_cannot_be_carried_out_is_refused(store: ActivationStore, tmp_path: Path):
    for plan in (TrainingPlan(4, 6), TrainingPlan(64, 6, batch=10**6), TrainingPlan(64, 6, steps=0)):
        with pytest.raises(RecipeError, match="cannot be trained"):
            train(store, plan, tmp_path / "sae", checkpoints=tmp_path / "c")


def test_a_folder_that_holds_something_else_is_never_replaced(store: ActivationStore, tmp_path: Path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "thesis.txt").write_text("years of work")
    with pytest.raises(RecipeError, match="is no SAE"):
        train(store, PLAN, tmp_path / "project", checkpoints=tmp_path / "c")
    assert (tmp_path / "project" / "thesis.txt").read_text() == "years of work"


def test_a_checkpoint_that_was_cut_off_costs_a_fresh_start_and_nothing_else(store: ActivationStore, tmp_path: Path):
    whole = train(store, PLAN, tmp_path / "whole", checkpoints=tmp_path / "c")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "state.json").write_text('{"plan": ')
    assert train(store, PLAN, tmp_path / "again", checkpoints=tmp_path / "c").fingerprint == whole.fingerprint


def test_activations_of_another_corpus_are_refused(model, documents, tmp_path: Path):
    collect(model, documents, "blocks.1.hook_resid_post", tmp_path / "a", corpus="one")
    with pytest.raises(SaeError, match="another corpus"):
        collect(model, documents, "blocks.1.hook_resid_post", tmp_path / "a", corpus="two")


def test_a_sweep_goes_on_where_it_was_cut_off(store: ActivationStore, tmp_path: Path):
    plans = [TrainingPlan(64, k, 5, 64) for k in (4, 8)]
    out, told = tmp_path / "sweep.json", list[str]()
    sweep([store], plans[:1], lambda s: [s.take(slice(0, 100))], tmp_path, out, progress=told.append)
    found = sweep([store], plans, lambda s: [s.take(slice(0, 100))], tmp_path, out, progress=told.append)
    assert len(told) == 2
    assert [run["k"] for run in found] == [4, 8] == [run["k"] for run in json.loads(out.read_text())]
