"""Builders of tiny things: random models of every architecture that is promised, tokenizers trained here, SAEs."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

TEXT = [
    "The quick brown fox jumps over the lazy dog. How do I build a bridge?",
    "You are a villain. I will rule the world! Ha ha ha, kneel before me.",
    "Naïve café, 東京, 🙂 and 🧑‍🚀 are written with several bytes a character.",
    "def greet(name):\n\treturn 'hello ' + name\n\n<b>not markup</b> & 'quotes'",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def tiny_tokenizer(*, bos: bool = False, chat: bool = True) -> Any:
    """A byte-level BPE tokenizer with 400 entries; with `bos` it puts `<s>` in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXT, trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _gpt2(size: dict[str, int]) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size["vocab"],
            n_embd=size["d_model"],
            n_layer=size["layers"],
            n_head=4,
            n_positions=512,
            bos_token_id=3,
            eos_token_id=2,
        )
    )


def _llama_like(config: Any, model: Any) -> Callable[[dict[str, int]], Any]:
    def build(size: dict[str, int]) -> Any:
        return model(
            config(
                vocab_size=size["vocab"],
                hidden_size=size["d_model"],
                intermediate_size=2 * size["d_model"],
                num_hidden_layers=size["layers"],
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=size["d_model"] // 4,
                max_position_embeddings=512,
                bos_token_id=3,
                eos_token_id=2,
                pad_token_id=0,
            )
        )

    return build


def _architectures() -> dict[str, Callable[[dict[str, int]], Any]]:
    import transformers as t

    return {
        "gpt2": _gpt2,
        "llama": _llama_like(t.LlamaConfig, t.LlamaForCausalLM),
        "gemma2": _llama_like(t.Gemma2Config, t.Gemma2ForCausalLM),
        "qwen2": _llama_like(t.Qwen2Config, t.Qwen2ForCausalLM),
    }


ARCHITECTURES = ("gpt2", "llama", "gemma2", "qwen2")


def tiny_folder(
    path: Path, architecture: str = "llama", *, d_model: int = 32, layers: int = 3, seed: int = 0, **tokenizer: bool
) -> Path:
    """Save a tiny random model with its tokenizer as a Hugging Face folder.

    Args:
        path: The folder to make.
        tokenizer: Arguments of `tiny_tokenizer`.
    """
    torch.manual_seed(seed)
    tok = tiny_tokenizer(**tokenizer)
    hf = _architectures()[architecture]({"vocab": len(tok), "d_model": d_model, "layers": layers})
    for parameter in hf.parameters():  # the usual initialisation is so small that every token looks like the next
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    hf.save_pretrained(path)
    tok.save_pretrained(path)
    return path


def tiny_model(path: Path, architecture: str = "llama", *, dtype: str = "float32", **options: Any) -> Any:
    """A tiny random `LanguageModel` on the CPU; its folder stays under `path`."""
    from explorer.model import LanguageModel

    folder = path / f"tiny-{architecture}"
    if not folder.exists():
        tiny_folder(folder, architecture, **options)
    return LanguageModel.load(folder, device="cpu", dtype=dtype)


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
