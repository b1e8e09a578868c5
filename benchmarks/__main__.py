"""`make bench`: every figure, written to results.json and RESULTS.md beside this file."""

import json
import sys
from pathlib import Path

from benchmarks.harness import apart, machine

PARTS = {
    "building": "Building a cache",
    "decoding": "Steered decoding",
    "monitoring": "Watching a log",
    "watching": "A log of a million messages",
    "browsing": "Browsing",
    "searching": "Finding among a million features",
    "mapping": "The map",
    "starting": "Starting the app",
}
HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    """Measure the parts that are named, or all, and keep the other parts' figures if the machine is the same."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise SystemExit(f"There is no benchmark {unknown[0]!r}; there are {', '.join(PARTS)}")
    results = HERE / "results.json"
    now, figures = machine(), {}
    if names and results.exists():
        before = json.loads(results.read_text(encoding="utf-8"))
        if before.pop("machine")["processor"] == now["processor"]:
            figures = before
    for name in names or PARTS:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        figures |= {key: {"part": name, **value} for key, value in apart(name).items()}
    results.write_text(json.dumps({"machine": now, **figures}, indent=1) + "\n", encoding="utf-8")
    (HERE / "RESULTS.md").write_text(render(now, figures), encoding="utf-8")


def render(machine: dict, figures: dict) -> str:
    """RESULTS.md."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; the numbers are in `results.json`. Each value is a median, with the smallest and the",
        "largest of n repetitions; ratios compare two things that were measured in turns on this machine.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']},"
        f" Python {machine['python']}, {machine['date']}. {versions}.",
    ]
    for part, title in PARTS.items():
        rows = [(key, value) for key, value in figures.items() if value["part"] == part]
        if not rows:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| Figure | Value | Range (n) | Asked for | Peak memory | What |",
            "|---|---|---|---|---|---|",
        ]
        for key, f in rows:
            mark = {True: " (met)", False: " (missed)", None: ""}[f["met"]]
            shown = f"| `{key}` | {f['value']:g} {f['unit']} | {f['low']:g} to {f['high']:g} ({f['n']}) "
            lines.append(f"{shown}| {f['target']}{mark} | {f['peak_memory_mb']:,.0f} MB | {f['note']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
