"""Train a sparse autoencoder on a model's activations, with SAELens' trainer.

The activations are collected once, to a file on disk; training then reads rows of it at random. Both go on where they were cut off.

To see it at work on a corpus:

    model = LanguageModel.load("smollm2-135m-instruct")
    store = collect(model, read("corpus.jsonl", model), "blocks.13.hook_resid_post", Path(".work/activations-13"))
    coder = train(store, TrainingPlan(n_features=4096, k=32, steps=2000), Path("sae"), checkpoints=Path(".work/checkpoints"))
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.corpus import chunks
from explorer.errors import RecipeError, SaeError
from explorer.evidence import SINK_FACTOR, EvidenceReader, count
from explorer.files import write_whole
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import CONFIG, SparseCoder

Progress = Callable[[int, int], None]
_DATA, _INDEX = "rows.bin", "index.json"
_SOURCE = ("model", "hook_point", "d_in", "corpus", "context_size", "sink_factor")  # of a store; other ones are refused
_CHUNK_WINDOWS = 512  # windows between two notes of how far collecting has come


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How an SAE is trained.

    Args:
        n_features: Number of latents.
        k: Latents active on a token.
        steps: Optimiser steps.
        batch: Tokens a step.
        lr: Peak learning rate; it warms up over `warm_up` steps and falls to a tenth over the last quarter.
        dead_after: Steps without firing after which the auxiliary loss tries to revive a latent.
        seed: Of the initial weights and of the order of rows.
    """

    n_features: int = 4096
    k: int = 32
    steps: int = 2000
    batch: int = 2048
    lr: float = 8e-4
    warm_up: int = 50
    dead_after: int = 100
    seed: int = 0


class ActivationStore:
    """Rows of activations on disk, as bfloat16, in the order of the corpus.

    Args:
        folder: What `collect` wrote.
    Raises:
        SaeError: If it is not complete.
    """

    def __init__(self, folder: Path) -> None:
        index = _read_index(folder)
        if not index.get("complete"):
            raise SaeError(f"{folder} holds no complete activations", do="Collect them again; what is there is used")
        if not index["rows"]:
            raise SaeError(
                f"{folder} holds no activations: no token of the corpus is evidence", do="Use a longer corpus"
            )
        self.folder, self.index = folder, index
        self.hook_point: str = index["hook_point"]
        self.d_in: int = index["d_in"]
        rows = np.memmap(folder / _DATA, dtype=np.uint16, mode="r", shape=(index["rows"], self.d_in))
        self._rows = rows

    def __len__(self) -> int:
        return self.index["rows"]

    def take(self, at: np.ndarray | slice) -> Tensor:
        """Rows `at`, `[len(at), d_in]`, float32."""
        return torch.from_numpy(self._rows[at].astype(np.int16, casting="unsafe")).view(torch.bfloat16).float()

    def shuffled(self, size: int, seed: int, skip: int = 0) -> Iterator[Tensor]:
        """Endless batches of rows, each row once an epoch, from batch number `skip` on."""
        a_epoch = max(1, len(self) // size)
        for number in range(skip, 1 << 62):
            epoch, at = divmod(number, a_epoch)
            if at == 0 or number == skip:
                order = np.random.default_rng([seed, epoch]).permutation(len(self))
            yield self.take(np.sort(order[at * size : (at + 1) * size]))


def collect(
    model: LanguageModel,
    documents: Iterable[Document],
    hook: str,
    folder: Path,
    *,
    corpus: str = "",
    context_size: int = 256,
    sink_factor: float = SINK_FACTOR,
    progress: Progress = lambda done, total: None,
) -> ActivationStore:
    """Activations of every scored token at a hook point.

    Args:
        documents: The same ones in the same order when it is called again after it was cut off.
        folder: Where the rows go.
        corpus: What tells these documents from others, such as a path with its size; noted with the rows.
        progress: Called with rows so far and 0, since the end is not known.
    Raises:
        SaeError: If `folder` holds activations of another model or hook point, or no token is evidence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = {"model": model.fingerprint, "hook_point": hook, "d_in": model.d_model, "corpus": corpus}
    source |= {"context_size": context_size, "sink_factor": sink_factor}
    fresh = {**source, "rows": 0, "chunks": 0, "median_norm": None, "complete": False, "excluded": {}}
    index = _read_index(folder) or fresh
    different = [key for key, value in source.items() if index.get(key, "") != value]
    if different:
        raise SaeError(
            f"{folder} holds activations collected with another {' and '.join(different)}",
            expected="one folder for each model, hook point and corpus",
            do=f"Remove {folder} to collect again",
        )
    if index["complete"]:
        return ActivationStore(folder)
    data = folder / _DATA
    data.touch()
    with data.open("r+b") as file:
        file.truncate(index["rows"] * model.d_model * 2)
        file.seek(0, 2)
        reader = EvidenceReader(model, hook, sink_factor=sink_factor, median_norm=index["median_norm"])
        cuts = chunks(documents, model.vocabulary.special, context_size=context_size, windows=_CHUNK_WINDOWS)
        for windows in islice(cuts, index["chunks"], None):
            for _, resid in reader.read(windows):
                if resid.shape[1] != model.d_model:
                    raise SaeError(
                        f"{hook} gives {resid.shape[1]} numbers a token",
                        expected=f"{model.d_model}, the width of the residual stream",
                        do="Name a hook point of the residual stream, such as blocks.0.hook_resid_post",
                    )
                file.write(resid.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
                index["rows"] += len(resid)
            file.flush()
            index["chunks"] += 1
            index["median_norm"] = reader.median_norm
            for reason, number in count(windows).items():
                index["excluded"][reason] = index["excluded"].get(reason, 0) + number
            _write_index(folder, index)
            progress(index["rows"], 0)
    _write_index(folder, {**index, "complete": True})
    return ActivationStore(folder)


def train(
    store: ActivationStore,
    plan: TrainingPlan,
    out: Path,
    *,
    checkpoints: Path,
    every: int = 200,
    metadata: dict[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
) -> SparseCoder:
    """Train a TopK SAE and write it as a SAELens folder.

    Weights, optimiser, learning rate and place in the data are noted every `every` steps, so a killed training goes on from there and ends
    as it would have ended.

    Args:
        out: The folder to write.
        checkpoints: A folder for the notes; emptied at the end.
        metadata: Added to the SAE's own: model, corpus, ...
        device: Where it is trained; a training may go on elsewhere than it began.
        progress: Called with steps so far and `plan.steps`.
    Returns:
        The SAE, with the stored precision (float16).
    Raises:
        RecipeError: If the plan cannot be carried out with these rows.
    """
    if plan.k > plan.n_features or plan.steps < 1 or len(store) < plan.batch:
        raise RecipeError(
            f"{len(store):,} rows, {plan.n_features} latents, k = {plan.k}, {plan.steps} steps of {plan.batch} cannot be trained",
            expected="k at most the number of latents, at least one step, and at least one batch of rows",
            do="Change the plan or collect more tokens",
        )
    if out.exists() and not (out / CONFIG).is_file() and any(out.iterdir()):
        raise RecipeError(
            f"{out} is there and is no SAE", expected="a new folder, or an SAE to replace", do="Choose another"
        )
    trainer = _trainer(store, plan, device)
    done = _restore(trainer, store, plan, checkpoints)
    trainer.data_provider = store.shuffled(plan.batch, plan.seed, skip=done)
    for step in range(done, plan.steps):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        if (step + 1) % every == 0 and step + 1 < plan.steps:
            _note(trainer, store, plan, checkpoints)
        progress(step + 1, plan.steps)
    scale = trainer.activation_scaler.scaling_factor
    assert scale is not None
    trainer.sae.fold_activation_norm_scaling_factor(scale)
    coder = _inference(trainer.sae, store, plan, metadata or {}, out)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return coder


def _trainer(store: ActivationStore, plan: TrainingPlan, device: str) -> Any:
    """SAELens' trainer at its first step, its decoder bias at the mean of the rows."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(plan.seed)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=store.d_in,
            d_sae=plan.n_features,
            k=plan.k,
            normalize_activations="expected_average_only_in",
            apply_b_dec_to_input=True,
            device=device,
            dtype="float32",
        )
    )
    sample = next(store.shuffled(min(len(store), 50_000), plan.seed))
    scale = math.sqrt(store.d_in) / sample.norm(dim=1).mean().item()
    with torch.no_grad():
        sae.b_dec.copy_(sample.mean(0) * scale)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=plan.batch * plan.steps,
            train_batch_size_samples=plan.batch,
            lr=plan.lr,
            lr_end=plan.lr / 10,
            lr_warm_up_steps=min(plan.warm_up, plan.steps // 4),
            lr_decay_steps=plan.steps // 4,
            device=device,
            dead_feature_window=plan.dead_after,
            feature_sampling_window=plan.steps + 1,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        store.shuffled(plan.batch, plan.seed),
    )
    trainer.activation_scaler.scaling_factor = scale
    return trainer


def _source(store: ActivationStore, plan: TrainingPlan) -> dict[str, Any]:
    """What a checkpoint must have been made with to be gone on from."""
    return {"plan": asdict(plan), "rows": {key: store.index[key] for key in (*_SOURCE, "rows")}}


def _note(trainer: Any, store: ActivationStore, plan: TrainingPlan, folder: Path) -> None:
    """Write a checkpoint beside the old one and put it in its place."""
    from safetensors.torch import save_file

    fresh = folder.with_name(folder.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {f"sae.{k}": v for k, v in trainer.sae.state_dict().items()}
    optimiser = trainer.optimizer.state_dict()
    for number, state in optimiser["state"].items():
        tensors |= {f"adam.{number}.{key}": torch.as_tensor(value).contiguous() for key, value in state.items()}
    tensors["silent"] = trainer.n_forward_passes_since_fired
    save_file({k: v.contiguous() for k, v in tensors.items()}, fresh / "state.safetensors")
    note = {
        **_source(store, plan),
        "steps": trainer.n_training_steps,
        "groups": optimiser["param_groups"],
        "lr": _plain(trainer.lr_scheduler),
    }
    (fresh / "state.json").write_text(json.dumps(note))
    _replace(folder, fresh)


def _replace(folder: Path, fresh: Path) -> None:
    """Put a folder in the place of another; killed at any point, what is found there is whole."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _plain(scheduler: Any) -> dict[str, Any]:
    """The learning rate schedule's state as JSON can hold it; a sequence of schedules holds theirs."""
    state = {k: v for k, v in scheduler.state_dict().items() if not k.startswith("_schedulers") and k != "lr_lambdas"}
    parts = getattr(scheduler, "_schedulers", [])
    return {**state, "parts": [_plain(part) for part in parts]}


def _load_plain(scheduler: Any, state: dict[str, Any]) -> None:
    for part, inner in zip(getattr(scheduler, "_schedulers", []), state["parts"], strict=True):
        _load_plain(part, inner)
    scheduler.__dict__.update({k: v for k, v in state.items() if k != "parts"})


def _restore(trainer: Any, store: ActivationStore, plan: TrainingPlan, folder: Path) -> int:
    """Put the trainer where the last checkpoint left it; steps done."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        note = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if any(note.get(key) != value for key, value in _source(store, plan).items()):
            return 0
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError):  # nothing there, or a checkpoint that was cut off: begin again
        return 0
    trainer.sae.load_state_dict({k.removeprefix("sae."): v for k, v in tensors.items() if k.startswith("sae.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
    trainer.optimizer.load_state_dict({"state": state, "param_groups": note["groups"]})
    _load_plain(trainer.lr_scheduler, note["lr"])
    trainer.n_forward_passes_since_fired = tensors["silent"].to(trainer.cfg.device)
    trainer.n_training_steps = note["steps"]
    trainer.n_training_samples = note["steps"] * plan.batch
    return note["steps"]


def _inference(
    sae: Any, store: ActivationStore, plan: TrainingPlan, metadata: dict[str, Any], out: Path
) -> SparseCoder:
    """Write the trained SAE whole and open it again as anyone would."""
    sae.cfg.metadata.hook_name = store.hook_point
    fresh = out.with_name(out.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    sae.save_inference_model(fresh)
    facts = {
        "model_fingerprint": store.index["model"],
        "context_size": store.index["context_size"],
        "prepend_bos": False,
        "trained_rows": len(store),
        "training": asdict(plan),
        "sink_factor": store.index["sink_factor"],
        "median_norm": store.index["median_norm"],
    }
    full = SparseCoder.load(fresh)
    shutil.rmtree(fresh)
    full.save(fresh, metadata={**facts, **metadata})
    _replace(out, fresh)
    return SparseCoder.load(out)


@torch.inference_mode()
def variance_explained(coder: SparseCoder, rows: Iterable[Tensor]) -> dict[str, float]:
    """How well an SAE reconstructs rows of activations.

    Args:
        rows: Batches `[batch, d_in]`.
    Returns:
        `variance_explained` (1 minus squared error over squared distance from the mean), `dead_latents` (share that never fires), `l0`
        (mean number of active latents) and `rows`.
    """
    error = total = fired = count = active = 0.0
    mean = square = None
    for batch in rows:
        acts = coder.encode(batch)
        error += (batch - coder.decode(acts)).pow(2).sum().item()
        active += (acts > 0).sum().item()
        seen = (acts > 0).any(0)
        fired = seen if isinstance(fired, float) else fired | seen
        mean = batch.double().sum(0) if mean is None else mean + batch.double().sum(0)
        square = batch.double().pow(2).sum() if square is None else square + batch.double().pow(2).sum()
        count += len(batch)
    assert mean is not None
    assert square is not None
    assert isinstance(fired, Tensor)
    total = (square - mean.pow(2).sum() / count).item()
    return {
        "variance_explained": 1 - error / total,
        "dead_latents": 1 - fired.float().mean().item(),
        "l0": active / count,
        "rows": int(count),
    }


def sweep(
    stores: Iterable[ActivationStore],
    plans: Iterable[TrainingPlan],
    held_out: Callable[[ActivationStore], Iterable[Tensor]],
    work: Path,
    out: Path,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train short runs over hook points, widths and k, and note how each explains held-out rows.

    Args:
        stores: Activations at each hook point.
        plans: What is trained on each.
        held_out: Rows that `store` does not hold, at its hook point.
        work: For the SAEs in between.
        out: A JSON list, written after every run; runs that it holds are not repeated.
        device: Where they are trained.
    """
    found: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    for store in stores:
        for plan in plans:
            key = {"hook_point": store.hook_point, **asdict(plan)}
            key["trained_rows"] = len(store)
            if any({k: run.get(k) for k in key} == key for run in found):
                continue
            coder = train(store, plan, work / "sae", checkpoints=work / "checkpoints", device=device)
            found.append({**key, **variance_explained(coder, held_out(store))})
            write_whole(out, json.dumps(found, indent=1) + "\n")
            progress(
                f"{store.hook_point} {plan.n_features} latents, k = {plan.k}: {found[-1]['variance_explained']:.3f}"
            )
    return found


def _read_index(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        return json.loads((folder / _INDEX).read_text())
    return {}


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    fresh = folder / (_INDEX + ".partial")
    fresh.write_text(json.dumps(index))
    fresh.replace(folder / _INDEX)
