"""The shape of the project, read from its syntax trees: which way imports point, and what no file may hold."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up. A module may import modules of its own layer and of those above it in this list, never of those
# below. A module that is in no layer fails the test: say where it belongs.
LAYERS = [
    (
        "words",
        {
            "errors",
            "records",
            "files",
            "text",
            "offensive",
            "packaged",
            "windows",
            "intervals",
            "steering",
            "repetition",
            "transcripts",
        },
    ),
    ("disk", {"schema", "cache", "foreign", "titles", "parity_file"}),
    (
        "reading",
        {
            "search",
            "word_index",
            "label_files",
            "database",
            "migrations",
            "labels",
            "lists",
            "remarks",
            "assignments",
            "suggestions",
            "scores",
            "evidence_lock",
            "among",
            "presets",
            "citing",
            "decoder",
            "mapping",
            "affinity",
            "counterparts",
            "heatmap_html",
            "frames",
            "notebook",
            "snippets",
            "quiz",
        },
    ),
    ("model", {"hooks", "model", "adapters"}),
    ("sparse", {"sae"}),
    ("evidence", {"evidence", "corpus"}),
    ("live", {"generate", "directions", "diffing", "scoring", "inspecting", "contrast", "parity", "ablation"}),
    ("judges", {"embedding", "meaning", "traits", "fluency", "endpoint", "judging"}),
    ("doses", {"dosing", "sheets"}),
    ("making", {"sampling", "training", "finetune", "statistics", "logits", "neighbours"}),
    (
        "wiring",
        {
            "build",
            "check",
            "fidelity",
            "live",
            "measuring",
            "personas",
            "causing",
            "comparing",
            "experiments",
            "lab",
            "lab_report",
            "monitor",
            "audit",
            "report",
            "promoted",
            "exams",
            "recipe",
            "steps",
            "scripts",
            "recording",
            "silence",
            "agreement",
            "purse",
            "autointerp",
            "interchange",
            "explaining",
        },
    ),
    ("command line", {"cli", "__main__"}),
]
TORCH_FREE = {
    "database",
    "lists",
    "remarks",
    "assignments",
    "suggestions",
    "scores",
    "evidence_lock",
    "among",
    "word_index",
    "meaning",
    "parity_file",
    "foreign",
    "titles",
    "heatmap_html",
    "frames",
    "notebook",
    "interchange",
    "inspecting",
    "contrast",
    "errors",
    "records",
    "files",
    "text",
    "offensive",
    "packaged",
    "adapters",
    "finetune",
    "embedding",
    "traits",
    "fluency",
    "endpoint",
    "judging",
    "dosing",
    "causing",
    "comparing",
    "experiments",
    "lab",
    "sheets",
    "schema",
    "cache",
    "search",
    "citing",
    "decoder",
    "mapping",
    "affinity",
    "counterparts",
    "snippets",
    "quiz",
    "agreement",
    "purse",
    "autointerp",
    "explaining",
    "labels",
    "presets",
    "directions",
    "diffing",
    "scoring",
    "transcripts",
    "monitor",
    "audit",
    "scripts",
    "steering",
    "repetition",
    "cli",
}
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "openai",
    "sae_lens",
    "transformer_lens",
    "datasets",
    "scipy",
    "sklearn",
    "wandb",
}
CONSOLE = {"streamlit"}


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def own_name(path: Path) -> str:
    """`cli` for explorer/cli/console.py, `cache` for explorer/cache.py."""
    return path.relative_to(ROOT / "explorer").parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Dotted names of what a module imports; at its top, what only type checkers see is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


EXPLORER = [path for path in modules("explorer") if path != ROOT / "explorer" / "__init__.py"]
RANK = {module: rank for rank, (_, members) in enumerate(LAYERS) for module in members}


@pytest.mark.parametrize("path", EXPLORER, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_the_library_imports_only_its_own_layer_and_lower_ones(path):
    name = own_name(path)
    assert name in RANK, f"{name} is in no layer: add it to LAYERS"
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] == "explorer" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[name], f"{name} imports {parts[1]}, which lies higher"


@pytest.mark.parametrize("path", modules("explorer"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_no_front_end(path):
    assert not roots(imports(path)) & (CONSOLE | {"app", "tests", "benchmarks"})


@pytest.mark.parametrize("path", modules("app"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_app_imports_nothing_heavy_at_module_level(path):
    assert not roots(imports(path, top_only=True)) & HEAVY


@pytest.mark.parametrize("path", modules("app/views"), ids=lambda path: path.stem)
def test_a_view_holds_no_model(path):
    """Live functions lie in app/engine.py; a view asks it."""
    assert not roots(imports(path)) & HEAVY


def test_only_one_module_of_the_app_caches():
    for path in modules("app"):
        text = path.read_text(encoding="utf-8")
        if path.name != "resources.py":
            assert not re.search(r"st\.cache_(data|resource)\b", text), path


@pytest.mark.parametrize("name", sorted(TORCH_FREE))
def test_what_browsing_needs_imports_no_torch(name):
    if not (ROOT / "explorer" / f"{name}.py").exists() and not (ROOT / "explorer" / name).is_dir():
        pytest.fail(f"there is no explorer.{name}")
    code = f"import sys, explorer.{name}; sys.exit(bool({HEAVY!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


WALK = """
import sys
import numpy as np
from app.main import PAGES
from explorer.monitor import curve
from tests.helpers_app import run_page
from tests.test_layers import HEAVY

for page in PAGES:
    assert not run_page(page.url if page is not PAGES[0] else "").exception, page.url
    assert not HEAVY & sys.modules.keys(), f"{page.url} imports {HEAVY & sys.modules.keys()}"
curve(np.array([0.1, 0.9]), np.array([0.0, 1.0]))  # Monitor draws it once messages of both kinds are judged
assert not HEAVY & sys.modules.keys(), f"the curves of Monitor import {HEAVY & sys.modules.keys()}"
"""


def test_no_page_waits_for_anything_heavy_nor_inside_the_functions_it_calls(tmp_path):
    """A page stays blank while something is imported: scikit-learn takes two seconds, on a busy machine many more."""
    place = {"PERSONA_EXPLORER_HOME": str(tmp_path), "PERSONA_EXPLORER_CACHES": "", "PERSONA_EXPLORER_WARMUP": "0"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WALK], cwd=ROOT, env=os.environ | place, stderr=subprocess.PIPE, text=True, check=False
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-1000:]


REGISTRIES = [
    ("explorer.steering", "STEERING_MODES"),
    ("explorer.steering", "POSITIONS"),
    ("explorer.schema", "FEATURE_COLUMNS"),
    ("explorer.schema", "EXAMPLE_COLUMNS"),
    ("explorer.schema", "WINDOW_ARRAYS"),
    ("explorer.packaged", "PACKAGED"),
]


@pytest.mark.parametrize(("module", "name"), REGISTRIES, ids=[name for _, name in REGISTRIES])
def test_every_line_of_a_registry_explains_itself(module, name):
    registry = getattr(importlib.import_module(module), name)
    lines = registry.items() if isinstance(registry, dict) else ((entry.name, entry) for entry in registry)
    seen = []
    for key, entry in lines:
        seen.append(key)
        text = entry if isinstance(entry, str) else entry.help
        assert len(text) > 10, f"{name}[{key}] has no help"
    assert len(seen) == len(set(seen)) > 0


TEXT_FILES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".sh", ".css", ".js", ".json", ".cfg", ".csv", ""}


def project_files() -> list[Path]:
    skipped = {".git", "__pycache__", ".pytest_cache", ".ruff_cache", ".work", "build", ".hypothesis"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and path.suffix in TEXT_FILES
        and not any(part in skipped or part.startswith(".venv") or part.endswith(".egg-info") for part in path.parts)
    ]


def test_no_file_names_a_machine_of_its_makers_or_the_host_of_an_index():
    """A clone must work anywhere: no absolute path of ours, no host that its user did not choose."""
    forbidden = re.compile(
        "|".join(["/wo" + "rk/", "/tm" + "p/", "/ho" + "me/", "pypi" + r"\.org", "pythonhosted" + r"\."])
    )
    for path in project_files():
        found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found or path.name == ".gitignore", f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.css")), ids=lambda path: path.name)
def test_a_style_sheet_closes_what_it_opens(path):
    """A brace too few or too many silently drops the rules after it."""
    depth = 0
    for brace in re.findall("[{}]", path.read_text(encoding="utf-8")):
        depth += 1 if brace == "{" else -1
        assert 0 <= depth <= 3, path.name  # @media, a rule, a rule within it
    assert not depth, path.name


def test_a_module_asks_what_is_hiding_in_it_before_it_grows_too_long():
    for package in ("explorer", "app"):
        for path in modules(package):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 520, path.relative_to(ROOT)
