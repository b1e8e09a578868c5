"""Figures, their intervals, and the machine they were measured on."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORLD = ROOT / "cached_features" / "smollm2-135m"
MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        value: Median over the repetitions.
        low, high: Smallest and largest of them.
        n: How many there were.
        unit: Of `value`.
        target: What was asked for, in words; empty where nothing was.
        met: Whether `value` keeps to it; None without a target.
        peak_memory_mb: Largest resident size of the process that measured it.
        note: What exactly was measured.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str
    target: str
    met: bool | None
    peak_memory_mb: float
    note: str


def figure(
    values: Sequence[float], unit: str, note: str, *, at_most: float | None = None, at_least: float | None = None
) -> dict:
    """A figure from its repetitions, as plain data."""
    value = statistics.median(values)
    target, met = "", None
    if at_most is not None:
        target, met = f"at most {at_most:g}", value <= at_most
    if at_least is not None:
        target, met = f"at least {at_least:g}", value >= at_least
    shape = (round(value, 4), round(min(values), 4), round(max(values), 4), len(values))
    return asdict(Figure(*shape, unit, target, met, peak_memory_mb(), note))


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(actions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each action, measured in turns, so that a machine that slows down slows all; one round goes before."""
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def machine() -> dict[str, Any]:
    """The machine and the libraries that the figures belong to."""
    from importlib.metadata import version

    import psutil

    names = ("torch", "transformers", "transformer-lens", "sae-lens", "streamlit", "pyarrow", "numpy")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in names},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def apart(module: str) -> dict[str, Any]:
    """What a module of benchmarks measures, in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}"]
    quiet = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.{module} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
