"""Fine-tune a model on conversations with LoRA, and keep adapters on the way.

The loss is that of the answers only. A run is seeded and ends in minutes, so one that was stopped keeps its checkpoints and is run anew.
"""

import copy
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.adapters import CONFIG, FACTS, WEIGHTS, Adapter, checkpoint, is_checkpoint, quiet
from explorer.errors import CacheError, CorpusError, ModelError, UsageError
from explorer.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.model import LanguageModel

Conversation = tuple[Mapping[str, str], ...]
"""Messages `{"role", "content"}` that end with an assistant's."""
_IGNORED = -100  # a label that the loss leaves out
_ROUND = 16  # tokens to which the widths of a batch are rounded up


@dataclass(frozen=True, slots=True)
class FinetunePlan:
    """How a fine-tune goes.

    Args:
        steps: Optimiser steps.
        rank: Of the adapters; their scale is twice it over it, that is 2.
        layers: Blocks that get adapters; all of them if empty.
        batch: Conversations a step.
        lr: Peak learning rate, after `warmup` steps; falls to a tenth of it in a line.
        every: Steps between checkpoints; the last step is always one.
        longest: Tokens of an answer that are learnt.
        seed: Of the adapters' beginnings and of the order of the rows.
    """

    steps: int = 40
    rank: int = 4
    layers: tuple[int, ...] = ()
    batch: int = 8
    lr: float = 1e-3
    warmup: int = 5
    every: int = 8
    longest: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rank", "batch", "every", "longest"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr is {self.lr}", expected="a learning rate above 0, such as 0.001")

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup)) * (1 - 0.9 * step / self.steps)

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps after which there is a checkpoint."""
        return tuple(step for step in range(1, self.steps + 1) if step % self.every == 0 or step == self.steps)


def read_rows(path: str | Path) -> list[Conversation]:
    """Conversations of a JSONL file in OpenAI's form, `{"messages": [{"role", "content"}, ...]}` a line.

    Raises:
        CorpusError: If it cannot be read, or a line is no conversation that an assistant ends; the message names the line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error})", expected="a .jsonl file of conversations") from error
    return rows_of(content, str(path))


def rows_of(content: bytes, name: str) -> list[Conversation]:
    """`read_rows` of a file's content.

    Args:
        name: What messages call it.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")  # splitlines would cut a text at U+2028
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} cannot be read ({error})",
            expected="a .jsonl file of conversations in UTF-8",
            do="Save it as UTF-8",
        ) from error
    rows = [_conversation(line, f"{name}, line {at}") for at, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise CorpusError(f"{name} is empty", expected="at least one conversation", do="Choose a file with rows")
    return rows


def finetune(
    model: "LanguageModel",
    rows: Sequence[Conversation],
    out: Path,
    plan: FinetunePlan = FinetunePlan(),
    *,
    start: Adapter | None = None,
    data: str = "",
    replacing: bool = True,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Adapter]:
    """Train an adapter; `model` itself is left as it is.

    However it ends, by `should_stop` or by an error, the checkpoints that are finished are kept, each whole.

    Args:
        rows: Conversations; of each, the last message is learnt.
        out: The folder of the run, which appears when the run has ended.
        start: An adapter to go on from, such as a misaligned one that good rows are to bring back; its rank and layers are kept.
        data: What the rows are called in finetune.json.
        replacing: What another run left in `out` is replaced once this one has a checkpoint; else that is an error.
        progress: Called after each step with its number, how many there will be, and its loss in nats a token.
        should_stop: Asked before each step; it may wait, to let others go first.
    Returns:
        The checkpoints that were written: fewer than planned if it was stopped.
    Raises:
        ModelError: If the model has no chat template, or cannot be adapted.
        UsageError: If a block does not exist, or there is a run and it may not be replaced, or something that is no run.
        CorpusError: If a row is longer than the model can read.
        CacheError: If `out` cannot be written.
    """
    import torch

    if replacing:
        _check_run(out)
    else:
        check_free(out)
    example = cache(lambda at: _example(model, rows[at], plan.longest, f"Row {at + 1}"))
    facts = {
        "base": model.name,
        "base_fingerprint": model.fingerprint,
        "data": {"name": data, "rows": len(rows), "sha256": hash_rows(rows)},
        "plan": asdict(plan),
        "start": start.name if start else None,
    }
    losses: list[float] = []
    done: list[Adapter] = []
    with torch.random.fork_rng(), quiet():  # the adapters' beginnings come from torch's global stream
        torch.manual_seed(plan.seed)
        tuned = _with_adapter(model, plan, start)
    weights = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=plan.lr, weight_decay=0.0)
    batches = _batches(len(rows), plan)
    with _beside(out) as place:
        try:
            for step in range(plan.steps):
                if should_stop():
                    break
                for group in optimiser.param_groups:
                    group["lr"] = plan.rate(step)
                loss = _loss(tuned, [example(at) for at in next(batches)], model)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                optimiser.zero_grad()
                losses.append(round(float(loss.detach()), 4))
                if step + 1 in plan.kept:
                    with _writing(out):
                        _save(tuned, checkpoint(place, step + 1), model.name)
                    done.append(Adapter(out.name, step + 1, checkpoint(out, step + 1), facts))
                progress(step + 1, plan.steps, losses[-1])
        finally:
            if done:
                with _writing(out):
                    _put(place, out, {**facts, "losses": losses}, {a.folder.name for a in done}, replacing)
    return [replace(adapter, facts={**facts, "losses": losses}) for adapter in done]


def check_free(out: Path) -> None:
    """Nothing lies at the folder of a run yet, and it could be written.

    Raises:
        UsageError: If something does.
        CacheError: If it could not.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(
            f"There is a run called {out.name} already", do="Take another name; runs are never overwritten"
        )
    with _beside(out):
        pass


def _check_run(out: Path) -> None:
    """What lies at the folder of a run may go: nothing does, or an empty folder, or an earlier run.

    Raises:
        UsageError: If something else does.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is no folder", expected="a free name", do="Take another one")
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if strange := [name for name in there if name != FACTS and not is_checkpoint(name)]:
        raise UsageError(
            f"{out} holds {strange[0][:60]!r}, which is no part of a run",
            expected="a free name, an empty folder, or an earlier run, which is replaced",
            do="Name a folder for this run alone",
        )


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder to fill, on the disk of `out`; what is left in it at the end goes away."""
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    with fresh as place:
        yield Path(place) / out.name


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CacheError(
            f"{out} cannot be written ({error})",
            expected="a folder that you may write to, with room on its disk",
            do="Make room or change who may write there, or work on a copy of the folder",
        ) from error


def _put(place: Path, out: Path, facts: dict[str, Any], whole: set[str], replacing: bool) -> None:
    """Bring what is finished to its place."""
    for folder in place.iterdir():
        if folder.name not in whole:  # an error cut it off
            shutil.rmtree(folder)
    write_whole(place / FACTS, json.dumps(facts, indent=1) + "\n")
    if replacing:
        _check_run(out)  # again: training takes its time
        shutil.rmtree(out, ignore_errors=True)
    place.rename(out)


def _conversation(line: str, where: str) -> Conversation:
    form = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
    do = "Mend that line, or leave it out"
    try:
        messages = json.loads(line)["messages"]
        read = tuple({"role": m["role"], "content": m["content"]} for m in messages)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(
            f"{where} is no conversation ({type(error).__name__}: {error})", expected=form, do=do
        ) from error
    if not all(isinstance(text, str) for message in read for text in message.values()):
        raise CorpusError(f"{where} has a role or a content that is no text", expected=form, do=do)
    if len(read) < 2 or read[-1]["role"] != "assistant" or not read[-1]["content"].strip():
        raise CorpusError(
            f"{where} ends with {read[-1]['role'] if read else 'nothing'}",
            expected="a question, and an assistant's answer at the end",
            do=do,
        )
    return read


def _example(model: "LanguageModel", row: Conversation, longest: int, where: str) -> tuple[list[int], list[int]]:
    """Token ids of what stands before the answer, and of the answer with the token that ends it."""
    asked = model.chat_document([dict(m) for m in row[:-1]], add_generation_prompt=True).tokens
    whole = model.chat_document([dict(m) for m in row]).tokens
    answer = list(whole[len(asked) :]) if whole[: len(asked)] == asked else None
    if answer is None:  # a template that writes past answers in another way
        answer = list(model.tokenizer(row[-1]["content"], add_special_tokens=False).input_ids)
        answer += sorted(model.eos_ids)[:1]
    end = next((at for at, token in enumerate(answer) if token in model.eos_ids), len(answer) - 1)
    answer = answer[: min(end + 1, longest)]
    if (tokens := len(asked) + len(answer)) > model.max_length:
        raise CorpusError(
            f"{where} has {tokens:,} tokens", expected=f"at most {model.max_length:,}", do="Shorten it, or leave it out"
        )
    return list(asked), answer


def _batches(rows: int, plan: FinetunePlan) -> Iterator[list[int]]:
    """Batches of row numbers without end: every row once in a random order, then all again in another."""
    import numpy as np

    random = np.random.default_rng(plan.seed)
    queue: list[int] = []
    while True:
        while len(queue) < plan.batch:
            queue += random.permutation(rows).tolist()
        yield queue[: plan.batch]
        del queue[: plan.batch]


def _loss(tuned: Any, batch: Sequence[tuple[list[int], list[int]]], model: "LanguageModel") -> "Tensor":
    """Mean next-token loss over the answers' tokens, in nats.

    Questions are padded on the left and answers on the right, so that all answers begin in one column and logits, which are by far the
    largest tensors, are computed for nothing else. Widths are rounded up: memory that is kept for reuse fits the next batch.
    """
    import torch

    before, after = (-(-max(len(part) for part in side) // _ROUND) * _ROUND for side in zip(*batch, strict=True))
    ids = torch.full((len(batch), before + after), next(iter(sorted(model.eos_ids)), 0))
    mask, labels = torch.zeros_like(ids), torch.full((len(batch), after), _IGNORED)
    for at, (asked, answer) in enumerate(batch):
        span = slice(before - len(asked), before + len(answer))
        ids[at, span] = torch.tensor(asked + answer)
        mask[at, span] = 1
        labels[at, : len(answer)] = torch.tensor(answer)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    ids, mask, places, labels = (t.to(model.device) for t in (ids, mask, places, labels))
    out = tuned(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=after + 1)
    logits = out.logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED)


def _with_adapter(model: "LanguageModel", plan: FinetunePlan, start: Adapter | None) -> Any:
    """A copy of the model with adapters that can be trained, in float32; the rest is frozen."""
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if wrong := [layer for layer in plan.layers if not 0 <= layer < model.n_layers]:
        raise UsageError(f"{model.name} has no block {wrong[0]}", expected=f"0 to {model.n_layers - 1}")
    with model.lock:
        base = copy.deepcopy(model.hf)
    if start:
        tuned = _going_on(model, base, start)
    else:
        inner = [(n, m) for n, m in model.blocks.named_modules() if isinstance(m, nn.Linear | Conv1D)]
        config = LoraConfig(
            r=plan.rank,
            lora_alpha=2 * plan.rank,
            target_modules=sorted({name.rsplit(".", 1)[-1] for name, _ in inner}),
            layers_to_transform=list(plan.layers) or None,
            fan_in_fan_out=any(isinstance(m, Conv1D) for _, m in inner),
            task_type="CAUSAL_LM",
        )
        tuned = get_peft_model(base, config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned.eval()  # gradients flow all the same; dropout would draw from a stream that is not seeded


def _going_on(model: "LanguageModel", base: Any, start: Adapter) -> Any:
    """An adapter on its model, ready to be trained further."""
    from peft import PeftModel
    from safetensors import SafetensorError

    made_for = start.facts.get("base_fingerprint", model.fingerprint)
    try:
        if made_for != model.fingerprint:
            raise ValueError(f"it was trained on {start.facts.get('base', 'another model')}")
        return PeftModel.from_pretrained(base, str(start.folder), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{start.name} cannot be gone on from ({reason})",
            expected=f"a LoRA adapter of {model.name}",
            do="Choose another adapter, or begin anew",
        ) from error


def _save(tuned: Any, folder: Path, base: str) -> None:
    """Write an adapter as peft reads it, in bfloat16: the model that it is merged into is no finer."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    own = get_peft_model_state_dict(tuned, save_embedding_layers=False)  # else peft looks the base up on the hub
    state = {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in own.items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.deepcopy(tuned.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = True, base
    config.save_pretrained(str(folder))
    assert (folder / CONFIG).exists()


def hash_rows(rows: Sequence[Conversation]) -> str:
    """What tells rows from others."""
    return hashlib.sha256(json.dumps([[dict(m) for m in row] for row in rows]).encode()).hexdigest()
