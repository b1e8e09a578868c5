"""The rows themselves: what people expect of a tool like this, each with a test of its name in this folder."""

import ast
import re
from pathlib import Path

ROWS = (
    "Browse by index / random",
    "Filterable feature table",
    "Search labels by meaning",
    "Text -> ranked features",
    "Contrast two sets of texts -> features",
    "Density and activation histogram",
    "Promoted / suppressed tokens",
    "Top and interval examples",
    "Per-token heatmap, hover",
    "Test own text live",
    "Steer live, several features",
    "More than additive (ablate, clamp, projection)",
    "Baseline beside steered, streamed",
    "Strength sweep",
    "Hand labels",
    "Lists, comments",
    "Auto-interp and scoring",
    "Two-model diff",
    "Persona trace over a conversation",
    "Map (UMAP)",
    "Permalinks",
    "API",
    "Offline, one command",
)


def name_of(row: str) -> str:
    """The test that shows a row."""
    said = row.lower().replace("->", "to").replace("/", "and")
    return f"test_{'_'.join(re.findall('[a-z]+', said))}"


def test_every_row_has_one_test_of_its_name_and_no_other_test_is_here():
    found = [
        node.name
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert sorted(found) == sorted(map(name_of, ROWS))
