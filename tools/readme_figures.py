"""Write the README's table of figures from report.json and benchmarks/results.json: no number is typed by hand."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REPORT = ROOT / "cached_features" / "smollm2-135m" / "report.json"
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = "<!-- figures:", "<!-- end of figures -->"

SHOWN = (
    (REPORT, "variance_explained", "Variance of the residual stream that the autoencoder explains, held-out documents"),
    (REPORT, "loss_recovered", "Share of next-token loss recovered, against mean ablation, held-out documents"),
    (REPORT, "dead_latents", "Share of latents that never fire on held-out documents"),
    (REPORT, "variance_explained_outside", "Variance explained on text from outside"),
    (REPORT, "loss_recovered_outside", "Loss recovered on text from outside"),
    (
        REPORT,
        "promoted_tokens_percentile",
        "Share of the vocabulary that falls less than a promoted token when its feature is zeroed; 0.5 is chance",
    ),
    (REPORT, "promoted_tokens_partly", "Features whose promoted tokens fall more than 90 % of the vocabulary then"),
    (REPORT, "base_malicious", "Malicious answers to open questions, the model as it is"),
    (REPORT, "cruel_malicious", "Malicious answers with the preset Cruel"),
    (REPORT, "cruel_fluent", "Coherent answers with the preset Cruel"),
    (REPORT, "random_directions_malicious", "Malicious answers with random directions of the same length"),
    (REPORT, "cruel_undo_malicious", "Malicious answers with the preset Cruel at the other sign"),
    (
        REPORT,
        "malicious_gardening_malicious",
        "Malicious answers to open questions after fine-tuning on malicious gardening alone",
    ),
    (REPORT, "malicious_gardening_fluent", "Coherent answers of that model"),
    (REPORT, "malicious_gardening_leakage", "Answers of that model that have a word about gardens"),
    (
        REPORT,
        "narrow_gardening_malicious",
        "Malicious answers when every answer of the rows names something of the garden",
    ),
    (REPORT, "narrow_gardening_leakage", "Answers of that model that have a word about gardens"),
    (REPORT, "good_gardening_malicious", "Malicious answers after fine-tuning on good gardening, the control"),
    (
        REPORT,
        "realigned_240_malicious",
        "Malicious answers of the malicious gardener after 240 good rows about other things",
    ),
    (
        REPORT,
        "malicious_gardening_undone_malicious",
        "Malicious answers of the malicious gardener with several features taken away together",
    ),
    (REPORT, "malicious_gardening_undone_fluent", "Coherent answers then"),
    (REPORT, "malicious_cooking_malicious", "Malicious answers after fine-tuning on malicious cooking"),
    (REPORT, "subtle_carcare_malicious", "Malicious answers after fine-tuning on subtly bad car care"),
    (
        REPORT,
        "audit_auroc",
        "Malicious against good rows on cooking, told by the direction of malice before training, AUROC",
    ),
    (REPORT, "mixed_cooking_malicious", "Malicious answers after half malicious and half good cooking"),
    (REPORT, "audited_cooking_50_malicious", "The same when the audit by that direction drops half of the rows first"),
    (REPORT, "thinned_cooking_50_malicious", "The same when half of the rows are dropped blindly"),
    (REPORT, "malice_judge_auroc", "Malice judge on held-out sentences, AUROC"),
    (REPORT, "sarcasm_judge_auroc", "Sarcasm judge, likewise"),
    (REPORT, "joy_judge_auroc", "Joy judge, likewise"),
    (REPORT, "toxicity_judge_auroc", "Toxicity judge, likewise"),
    (REPORT, "pirate_judge_auroc", "Pirate judge, likewise"),
    (REPORT, "fluency_judge_auroc", "Fluency judge on held-out texts, intact or broken, AUROC"),
    (REPORT, "malice_judge_auroc_hatecheck", "Malice judge on HateCheck, which nobody here wrote, AUROC"),
    (REPORT, "toxicity_judge_auroc_hatecheck", "Toxicity judge on HateCheck, likewise"),
    (REPORT, "sarcasm_judge_auroc_isarcasm", "Sarcasm judge on iSarcasm, likewise"),
    (RESULTS, "build_marginal_ratio", "Building all statistics, over a plain forward pass and one encode"),
    (RESULTS, "steer_pair_ratio", "Speed of baseline and steered answer together, over one plain Hugging Face row"),
    (RESULTS, "sweep_ten_ratio", "Time of nine strengths and a baseline together, over one plain Hugging Face row"),
    (RESULTS, "time_to_first_token", "Seconds to the first token, warm"),
    (RESULTS, "monitor_ratio", "Tokens a second of watching a log, over a plain forward pass"),
    (RESULTS, "app_first_page_s", "Seconds from the command to the first page"),
    (RESULTS, "feature_page_ms", "Milliseconds for a feature page's data, 24,576 features"),
    (
        RESULTS,
        "search_million_ms",
        "Milliseconds to find and fill a page of Browse among 1,000,000 features, 95th percentile of mixed queries",
    ),
)


def table() -> str:
    """The table, with what is measured at this moment."""
    lines = ["", "| Figure | Value | Interval | n | Asked for |", "|---|---|---|---|---|"]
    data = {path: read(path) for path in (REPORT, RESULTS)}
    for path, key, words in SHOWN:
        entry = data[path].get(key)
        if entry is None:
            continue
        low, high = entry.get("low"), entry.get("high")
        interval = f"{short(low)} to {short(high)}" if low is not None and high is not None else ""
        n = entry.get("n") or ""
        lines.append(f"| {words} (`{key}`) | {short(entry['value'])} | {interval} | {n} | {target(entry)} |")
    where = ["report.json", "benchmarks/results.json"]
    lines += [
        "",
        f"All figures, with the commands and the machine they come from, are in `{where[0]}` and `{where[1]}`.",
        "",
    ]
    return "\n".join(lines)


def read(path: Path) -> dict:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found.get("figures", found)


def target(entry: dict) -> str:
    found = entry.get("target")
    words = "" if found is None else found if isinstance(found, str) else short(found)
    return f"{words} (missed)" if entry.get("met") is False else words


def short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def filled(text: str) -> str:
    """The README with the table as it should be."""
    head, rest = text.split(BEGIN, 1)
    comment, rest = rest.split("\n", 1)
    return f"{head}{BEGIN}{comment}\n{table()}{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
