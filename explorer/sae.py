"""A sparse autoencoder to read a model with: SAELens' own, loaded, checked and given one interface.

Metadata of published SAEs has gaps, and SAELens answers None to a key that is missing or misspelt; what is needed here is checked when the
SAE is loaded, and can be given by the caller.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explorer.errors import SaeError

ARCHITECTURES: dict[str, str] = {
    "standard": "ReLU of the pre-activations.",
    "topk": "The k largest pre-activations of a token, where positive.",
    "jumprelu": "Pre-activations above a learned threshold of each feature; BatchTopK and Matryoshka SAEs are saved as this.",
    "gated": "A gate says whether a feature is active, a magnitude how much.",
}
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_COMPUTES = (
    "k",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "rescale_acts_by_decoder_norm",
)
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy")


class SparseCoder:
    """A SAELens SAE, in evaluation mode.

    Args:
        sae: The SAE.
        source: Where it comes from, for messages.
        hook_point: Where it reads; from its metadata when not given.
    Raises:
        SaeError: If its architecture is not supported or it does not say where it reads.
    """

    def __init__(self, sae: Any, source: str, hook_point: str | None = None) -> None:
        self.sae, self.source = sae.eval(), source
        self.architecture: str = sae.cfg.architecture()
        if self.architecture not in ARCHITECTURES:
            raise SaeError(
                f"{source} has the architecture {self.architecture!r}",
                expected=f"one of {', '.join(ARCHITECTURES)}",
                do="Use an SAE that reads and writes the same activations",
            )
        if sae.cfg.normalize_activations == "expected_average_only_in":
            raise SaeError(
                f"{source} expects activations scaled by an average norm that it does not carry",
                expected="the scale folded into the weights",
                do="Save it again with SAELens after fold_activation_norm_scaling_factor",
            )
        self.metadata: dict[str, Any] = dict(sae.cfg.metadata.to_dict())
        point = hook_point or self.metadata.get("hook_name")
        if not isinstance(point, str) or not point:
            raise SaeError(
                f"{source} does not say where it reads",
                expected="hook_name in the metadata of its cfg.json, such as blocks.13.hook_resid_post",
                do="Give the hook point with --hook",
            )
        self.hook_point = point
        self.n_features, self.d_in = int(sae.W_dec.shape[0]), int(sae.W_dec.shape[1])

    @classmethod
    def load(
        cls, source: str | Path, *, device: str = "cpu", dtype: str = "float32", hook_point: str | None = None
    ) -> "SparseCoder":
        """Load a SAELens folder, or "release/sae_id" from SAELens' registry.

        Args:
            source: A folder with cfg.json and sae_weights.safetensors, or a name such as `gpt2-small-res-jb/blocks.8.hook_resid_pre`.
            dtype: Precision of the weights; encoding in less than float32 changes which features pass a top-k.
            hook_point: Overrides what the metadata says.
        Raises:
            SaeError: If there is no such SAE, it is damaged, or it is stored as a pickle.
        """
        from sae_lens import SAE
        from safetensors import SafetensorError

        folder = Path(source)
        try:
            if folder.exists():
                _check_folder(folder)
                sae = SAE.load_from_disk(folder, device=device, dtype=dtype)
            elif "/" in str(source) and not str(source).startswith((".", "/", "~")):
                release, name = str(source).split("/", 1)
                sae = SAE.from_pretrained(release, name, device=device, dtype=dtype)
            else:
                raise SaeError(
                    f"There is no SAE at {source}",
                    expected="a SAELens folder or release/sae_id",
                    do="Check the path",
                )
        except SaeError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SaeError(
                f"{source} cannot be loaded as an SAE ({reason})",
                expected=f"a SAELens folder with {CONFIG} and {WEIGHTS}, or release/sae_id",
                do="Check the files, or the name in SAELens' list of pretrained SAEs",
            ) from error
        return cls(sae, str(source), hook_point)

    @property
    def device(self) -> torch.device:
        return self.sae.W_dec.device

    @torch.inference_mode()
    def encode(self, resid: Tensor) -> Tensor:
        """Activations of all features.

        Args:
            resid: `[..., d_in]`, in any precision.
        Returns:
            `[..., n_features]` in the SAE's precision and units; 0 where a feature is not active.
        Raises:
            SaeError: If the last axis is not `d_in`.
        """
        if resid.shape[-1] != self.d_in:
            raise SaeError(
                f"The activations have length {resid.shape[-1]}", expected=f"{self.d_in}, what {self.source} reads",
                do="Use the model and hook point that the SAE was trained on",
            )  # fmt: skip
        return self.sae.encode(resid.to(self.device, self.sae.dtype))

    @torch.inference_mode()
    def decode(self, acts: Tensor) -> Tensor:
        """`[..., n_features]` -> the reconstruction `[..., d_in]`."""
        return self.sae.decode(acts)

    def direction(self, feature: int) -> Tensor:
        """`[d_in]`: the change of the residual stream for one unit of activation (the decoder row)."""
        return self.sae.W_dec[feature].detach()

    def directions(self) -> Tensor:
        """`[n_features, d_in]`: all decoder rows."""
        return self.sae.W_dec.detach()

    def read(self, feature: int) -> Callable[[Tensor], Tensor]:
        """A function from the residual stream `[..., d_in]` to the feature's activation `[...]`.

        All features are encoded: under a top-k rule a feature's activation depends on the others.
        """
        return lambda resid: self.encode(resid)[..., feature].to(resid.device, torch.float32)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over architecture, hook point, the settings that change what it computes, and every weight as stored in float16.

        Half precision, because that is what bundled SAEs are stored in: a copy saved in float32 is the same SAE.
        """
        config = self.sae.cfg.to_dict()
        settings = {key: config[key] for key in _COMPUTES if key in config}
        digest = hashlib.sha256(f"{self.architecture} {self.hook_point} {settings}".encode())
        for name, weight in sorted(self.sae.state_dict().items()):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().to("cpu", torch.float16).contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(
        self, folder: Path, *, dtype: torch.dtype = torch.float16, metadata: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a SAELens folder.

        Args:
            dtype: Of the stored weights; the config names it, and loading converts to what the caller wants.
            metadata: Added to the SAE's own.
        Returns:
            `folder`.
        """
        import copy

        stored = copy.deepcopy(self.sae).to(dtype=dtype)
        stored.cfg.dtype = str(dtype).removeprefix("torch.")
        for key, value in (metadata or {}).items():
            stored.cfg.metadata[key] = value
        stored.save_model(folder)
        return folder


def _check_folder(folder: Path) -> None:
    """Refuse what is no SAELens folder before SAELens does, in words."""
    if folder.is_file() or not (folder / WEIGHTS).is_file():
        pickles = [folder] if folder.is_file() else sorted(folder.iterdir())
        for file in pickles:
            if file.suffix in _PICKLES:
                raise SaeError(
                    f"{file} is a {file.suffix} file, which may run code when it is opened",
                    expected=f"a SAELens folder with {CONFIG} and {WEIGHTS}",
                    do="Convert it with SAELens' save_model where you trust it",
                )
        raise SaeError(
            f"{folder} has no {WEIGHTS}", expected=f"a SAELens folder with {CONFIG} and {WEIGHTS}", do="Check the path"
        )
    if not (folder / CONFIG).is_file():
        raise SaeError(
            f"{folder} has no {CONFIG}", expected=f"a SAELens folder with {CONFIG} and {WEIGHTS}", do="Check the path"
        )
