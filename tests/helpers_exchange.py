"""Files of our own making in the shapes that other programs write."""

import gzip
import json
from pathlib import Path
from typing import Any

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data"
"""Where real files lie on some machines; tests that read them are skipped elsewhere."""


def row(
    tokens: list[str], values: list[float], low: float = -1, high: float = 2.0, share: float = -1
) -> dict[str, Any]:
    """A text as SAEDashboard writes it."""
    return {
        "bin_min": low, "bin_max": high, "bin_contains": share, "tokens": tokens, "values": values,
        "qualifying_token_index": max(range(len(values)), key=values.__getitem__),
        "dfa_values": [], "dfa_maxValue": 0, "dfa_targetIndex": -1,
    }  # fmt: skip


STRONG = row([" the", " ship", " sails"], [0.0, 2.0, 0.5])
WEAK = row(["a", " boat"], [0.0, 0.3], 0.0, 0.4, 0.99)
CUT = row(["ľ", " caf", "Ã", "©", "Ċ", "<"], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
SILENT = row([" no", "thing"], [0.0, 0.0], 0.0, 0.4, 0.99)
SINK = row(["<|endoftext|>", " x"], [1.5, 0.0])


def entry(index: int = 0, *activations: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """A feature as SAEDashboard writes it: 10 active tokens among 1,000, in four bars up to 2."""
    return {
        "feature_index": index, "neg_str": ["ãĤ±", " land"], "neg_values": [-0.7, -0.5], "pos_str": [" ship", "Ċ"],
        "pos_values": [3.1, 2.5], "frac_nonzero": 0.01, "freq_hist_data_bar_values": [0.25, 0.75, 1.25, 1.75],
        "freq_hist_data_bar_heights": [6, 2, 1, 1], "n_prompts_total": 10, "n_tokens_in_prompt": 100,
        "dataset": "made up", "activations": list(activations or (STRONG, WEAK)), **overrides,
    }  # fmt: skip


def batch(*features: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """A file as SAEDashboard writes it."""
    return {"model_id": "toy", "layer": 3, "sae_set": "res-toy", "features": list(features or [entry()]), **overrides}


def write_batch(path: Path, *features: dict[str, Any], **overrides: Any) -> Path:
    """Write such a file."""
    path.write_text(json.dumps(batch(*features, **overrides)), encoding="utf-8")
    return path


def neuronpedia_folder(path: Path) -> Path:
    """A folder as Neuronpedia exports it: two features, three texts, and explanations of the first."""
    key = {"modelId": "toy", "layer": "3-res-toy"}
    features = [
        {
            **key, "index": str(i), "maxActApprox": 2.0, "frac_nonzero": 0.01, "pos_str": [" ship"], "pos_values": [3.1],
            "neg_str": [" land"], "neg_values": [-0.5], "freq_hist_data_bar_values": [0.5, 1.5],
            "freq_hist_data_bar_heights": [8, 2], "topkCosSimIndices": [i, 1 - i], "topkCosSimValues": [1.0, 0.25],
            "hookName": "blocks.3.hook_resid_post", "sourceSetName": "res-toy",
        }
        for i in range(2)
    ]  # fmt: skip
    texts = [(0, [" the", " ship"], [0.0, 2.0], -1), (0, [" a", " boat"], [0.0, 0.3], 0.0), (1, [" gold"], [1.5], -1)]
    rows = [
        {
            **key,
            "index": str(i),
            "tokens": tokens,
            "values": values,
            "maxValue": max(values),
            "binMin": low,
            "binMax": 2.0,
        }
        for i, tokens, values, low in texts
    ]
    said = [("ships at sea", "some-model"), ("vessels", "")]
    told = [
        {**key, "index": "0", "description": text, "typeName": None, "explanationModelName": by} for text, by in said
    ]
    source = {"id": "3-res-toy", "modelId": "toy", "num_prompts": 10, "num_tokens_in_prompt": 100, "dataset": "made up"}
    for part, lines in (("features", features), ("activations", rows), ("explanations", told)):
        (path / part).mkdir(parents=True)
        raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (path / part / "batch-0.jsonl.gz").write_bytes(gzip.compress(raw))
    (path / "source.jsonl").write_text(json.dumps(source) + "\n", encoding="utf-8")
    return path
