"""Tiny SAELens SAEs of every architecture that is promised."""

from pathlib import Path
from typing import Any

import torch


def tiny_sae(
    architecture: str = "topk",
    *,
    d_in: int = 32,
    n_features: int = 24,
    hook: str = "blocks.1.hook_resid_post",
    seed: int = 0,
) -> Any:
    """A random SAELens SAE in float32."""
    import sae_lens.saes as s

    shared = {"d_in": d_in, "d_sae": n_features, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True}
    config, kind = {
        "standard": (s.StandardSAEConfig, s.StandardSAE),
        "topk": (s.TopKSAEConfig, s.TopKSAE),
        "jumprelu": (s.JumpReLUSAEConfig, s.JumpReLUSAE),
        "gated": (s.GatedSAEConfig, s.GatedSAE),
    }[architecture]
    if architecture == "topk":
        shared["k"] = 6
    sae = kind(config(**shared))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if name == "threshold":
                parameter.abs_()
    sae.cfg.metadata.hook_name = hook
    sae.cfg.metadata.model_name = "tiny"
    return sae.eval()


def tiny_sae_folder(path: Path, architecture: str = "topk", **options: Any) -> Path:
    """A SAELens folder of `tiny_sae`."""
    tiny_sae(architecture, **options).save_model(path)
    return path
