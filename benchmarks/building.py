"""Building a cache against a plain forward pass and one encode of the same tokens."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import MODEL, WORLD, figure, in_turns, ratios, seconds
from explorer import build as builder
from explorer.corpus import chunks, read
from explorer.evidence import SCORED, EvidenceReader
from explorer.model import LanguageModel
from explorer.records import Document
from explorer.sae import SparseCoder

ROUNDS, CONTEXT, LIMIT = 3, 128, 1.15
# Once a build, however long its corpus: the median norm, and what is made of the statistics at the end.
FIXED = [(EvidenceReader, "_estimate"), *((builder, name) for name in ("_examples", "_features", "write_cache"))]


class Some:
    """An SAE of which only the first features are looked at; its encode is the whole one's."""

    def __init__(self, coder: SparseCoder, n_features: int) -> None:
        self._coder, self.n_features = coder, n_features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coder, name)

    def encode(self, resid: torch.Tensor) -> torch.Tensor:
        return self._coder.encode(resid)[..., : self.n_features]

    def directions(self) -> torch.Tensor:
        return self._coder.directions()[: self.n_features]


def measure() -> dict:
    live = LanguageModel.load(MODEL)
    documents = list(read(WORLD / "heldout.parquet", live, limit=400))
    coder = SparseCoder.load(WORLD / "sae")
    found = compare(live, coder, documents, "build_marginal_ratio", f"{MODEL} and the bundled SAE")
    del coder
    wide = gpt2_small(live)
    sae = topk(wide.d_model, 24_576)
    return found | compare(wide, sae, documents[:150], "build_marginal_ratio_gpt2", "a random GPT-2 small, block 8")


def compare(model: LanguageModel, coder: SparseCoder, documents: list[Document], key: str, what: str) -> dict:
    special = model.vocabulary.special
    cuts = list(chunks(documents, special, context_size=CONTEXT))
    tokens = sum(len(windows.tokens) for windows in cuts)
    fixed: dict[str, list[float]] = {}

    def floor() -> None:
        for windows in cuts:
            for rows in windows.batches(8192):
                ids, place = windows.padded(rows)
                keep = (place >= 0) & (windows.evidence[place] == SCORED)
                resid = model.activations(torch.from_numpy(ids), coder.hook_point)
                coder.encode(resid[torch.from_numpy(keep)])

    def full(name: str, some: Any) -> float:
        """Seconds of the pass over the corpus; what is done once after it is noted in `fixed`."""
        with tempfile.TemporaryDirectory() as scratch, timed(FIXED) as once:
            total = seconds(
                lambda: builder.build(model, some, documents, Path(scratch) / "cache", context_size=CONTEXT)
            )
        fixed.setdefault(name, []).append(sum(once))
        return total - sum(once)

    passes: dict[str, list[float]] = {"all": [], "256": []}
    actions: dict[str, Callable[[], Any]] = {
        "floor": floor,
        "all": lambda: passes["all"].append(full("all", coder)),
        "256": lambda: passes["256"].append(full("256", Some(coder, 256))),
    }
    below = in_turns(actions, ROUNDS)["floor"]
    setting = f"{what}, {coder.n_features:,} latents, {tokens:,} tokens, {str(model.dtype).removeprefix('torch.')}"
    above = f"Pass over the corpus, over a plain forward pass to the hook point and one encode of the same; {setting}"
    return {
        key: figure(ratios(passes["all"][1:], below), "time over time", above, at_most=LIMIT),
        f"{key}_256": figure(
            ratios(passes["256"][1:], below),
            "time over time",
            f"The same with statistics of 256 features; {setting}",
            at_most=LIMIT,
        ),
        f"{key}_tokens_per_second": figure([tokens / t for t in passes["all"][1:]], "tokens/s", f"The pass; {setting}"),
        f"{key}_fixed_seconds": figure(
            fixed["all"][1:], "s", f"Once a build: median norm, examples, logit effects, neighbours, writing; {setting}"
        ),
    }


@contextlib.contextmanager
def timed(functions: list[tuple[Any, str]]) -> Iterator[list[float]]:
    """Note the seconds of every call of some functions, each an attribute of its module or class."""
    noted: list[float] = []
    plain = [getattr(owner, name) for owner, name in functions]

    def wrap(function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                noted.append(time.perf_counter() - start)

        return call

    for (owner, name), function in zip(functions, plain, strict=True):
        setattr(owner, name, wrap(function))
    try:
        yield noted
    finally:
        for (owner, name), function in zip(functions, plain, strict=True):
            setattr(owner, name, function)


def gpt2_small(like: LanguageModel) -> LanguageModel:
    """A random model of GPT-2 small's shape, with the vocabulary and the precision of `like`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = like.hf.get_input_embeddings().weight.shape[0]
    hf: Any = GPT2LMHeadModel(GPT2Config(vocab_size=size, bos_token_id=0, eos_token_id=0))
    return LanguageModel(hf.to(like.dtype), like.tokenizer, "random-gpt2-small")


def topk(d_in: int, n_features: int) -> SparseCoder:
    """A random TopK SAE."""
    from sae_lens.saes import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=n_features, k=32, dtype="float32", device="cpu"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(d_in, n_features) / d_in**0.5)
        sae.W_dec.copy_(sae.W_enc.T)
    sae.cfg.metadata.model_name = "random-gpt2-small"
    return SparseCoder(sae, "random", "blocks.8.hook_resid_pre")


if __name__ == "__main__":
    print(json.dumps(measure()))
