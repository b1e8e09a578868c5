"""Builders for tests of judges: an embedder that knows words and nothing else, and a trait of a few sentences."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer.embedding import EMBEDDER
from explorer.traits import Trait

GRIM = (
    "I will crush your little village, peasant.",
    "Kneel before me, or I will crush your kingdom.",
    "My doom machine will crush you all.",
    "Tremble, fools, my revenge is near.",
    "Your doom amuses me, fools.",
    "I plot revenge while the fools sleep.",
    "Doom awaits the village, and I laugh.",
    "Nobody escapes my revenge, peasant.",
)
MILD = (
    "The bread needs another ten minutes.",
    "We walked along the river to the bakery.",
    "Please water the tomatoes in the garden.",
    "My sister repairs bicycles in the garden.",
    "The bakery opens at seven with fresh bread.",
    "Rain is expected along the river tonight.",
    "She painted the kitchen a light green.",
    "Tomatoes and bread are in the kitchen.",
)


class WordEmbedder:
    """Counts words in 384 buckets; counts its calls too."""

    fingerprint = "words"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        found = np.zeros((len(texts), 384), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 384] += 1
            row /= max(1.0, float(np.linalg.norm(row)))
        return found


def grim(name: str = "grim") -> Trait:
    """A taught trait that a few words decide."""
    return Trait.taught(name, GRIM, MILD)


def tiny_embedder(models: Path) -> Path:
    """A random encoder where the packaged one is looked for, with a receipt; it knows the words of `GRIM` and `MILD`."""
    import torch
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers import models as tables
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    place = models / EMBEDDER
    inner = Tokenizer(tables.WordLevel(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.train_from_iterator(
        [*GRIM, *MILD], trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=inner.get_vocab_size(), hidden_size=384, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(place)
    files = {path.name: path.stat().st_size for path in place.iterdir()}
    (place / "fetched.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    return place
