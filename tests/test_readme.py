"""The README says what is the case."""

import re
from pathlib import Path

from tools import readme_figures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_figures_in_the_readme_are_those_of_the_reports():
    assert readme_figures.filled(README) == README, "run python -m tools.readme_figures"


def test_the_file_map_names_every_module_of_the_library_and_nothing_else():
    section = README.split("explorer/            ")[1].split("\napp/")[0]
    mapped = set(re.findall(r"\b(\w+)\.py\b", section)) | {"cli"}
    present = {path.stem for path in (ROOT / "explorer").glob("*.py")} - {"__init__", "__main__"} | {"cli"}
    assert mapped == present


def test_every_command_in_the_readme_exists():
    from typer.main import get_command

    from explorer.cli import app

    known = set(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]
    assert set(re.findall(r"persona-explorer ([a-z][\w-]+)", README)) <= known


def test_every_make_target_and_local_file_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_where_do_i_add_table_points_at_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:explorer|app|tests)/[\w/]+(?:\.py|/))`", text):
        assert (ROOT / path).exists(), path


def test_every_test_that_answers_a_complaint_exists():
    section = README.split("## What users of other tools complain of")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row.split("|")[3])
        assert named, row
        for file, test in named:
            assert f"def {test or 'test_'}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
