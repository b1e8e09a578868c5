"""Sentences as vectors: all-MiniLM-L6-v2, which the judges read.

Loaded with transformers alone: importing the sentence-transformers package takes five seconds, and what it would add is the mean over the
tokens of the last layer. That is about the topic; tone and word order are clearer in the layers below, and so the mean of every layer is given.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from explorer.cache import file_entry
from explorer.errors import JudgeError
from explorer.packaged import locate

EMBEDDER = "all-minilm-l6-v2"
_MAX_TOKENS = 256  # what it was trained on
_BATCH = 32


class Embeds(Protocol):
    """What a judge needs of an embedder: vectors, and a name for the weights they come from."""

    fingerprint: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text, `[n, d]`, float32."""
        ...


class Embedder:
    """A sentence embedder.

    Args:
        hf: A BERT-like encoder; it is put into evaluation mode.
        tokenizer: Its tokenizer.
        fingerprint: Of the weights.
    """

    def __init__(self, hf: Any, tokenizer: Any, fingerprint: str) -> None:
        self.hf, self.tokenizer, self.fingerprint = hf.eval(), tokenizer, fingerprint
        self._lock = threading.Lock()  # fast tokenizers refuse two threads at once

    @classmethod
    def load(cls, name: str | Path = EMBEDDER) -> "Embedder":
        """Load the packaged embedder, or a folder like it. It stays on the CPU: it is small, and the language model needs the rest.

        Raises:
            FetchError: If it has not been fetched.
            JudgeError: If it cannot be loaded.
        """
        place = locate(str(name))
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer

        try:
            hf = AutoModel.from_pretrained(place, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(place)
            fingerprint = file_entry(Path(place) / "model.safetensors")["sha256"]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise JudgeError(
                f"{name} cannot be loaded as an embedder ({str(error).splitlines()[0]})",
                do=f"persona-explorer fetch {EMBEDDER} brings the one that the judges were made for",
            ) from error
        return cls(hf, tokenizer, fingerprint)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of a text's token vectors after each layer, side by side; what lies behind 256 tokens is not read.

        Returns:
            `[n, layers * width]`, float32.
        """
        import torch

        config = self.hf.config
        found = np.zeros((len(texts), config.num_hidden_layers * config.hidden_size), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # neighbours in length share little padding
        with self._lock, torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                some = [texts[at] for at in rows]
                batch = self.tokenizer(some, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
                mask = batch["attention_mask"][..., None].float()
                layers = self.hf(**batch, output_hidden_states=True).hidden_states[1:]
                found[rows] = torch.cat([(layer * mask).sum(1) / mask.sum(1) for layer in layers], -1).numpy()
        return found
