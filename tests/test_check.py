"""Checking a cache: a whole one passes, and each kind of damage is found by name."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from explorer import cli, mapping, meaning, snippets
from explorer.cache import TABLES, Cache, file_entry
from explorer.check import CHECKS, Finding, beside, check
from explorer.schema import EXAMPLES, FEATURES, MANIFEST, WINDOWS
from tests.helpers_cache import fake_cache
from tests.test_meaning import Letters


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    return fake_cache(tmp_path / "made-up", 40)


def wrong(findings: list[Finding]) -> set[str]:
    return {finding.what for finding in findings if not finding.ok}


def sign(folder: Path, name: str) -> None:
    """Let the manifest speak of the file as it is now, as somebody who builds caches by hand would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = file_entry(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_whole_cache_passes_every_check(folder: Path):
    findings = check(folder)
    assert wrong(findings) == set()
    assert {"opens", *TABLES, *CHECKS} == {finding.what for finding in findings}


@pytest.mark.parametrize("name", TABLES)
def test_one_changed_byte_is_found_in_every_file(folder: Path, name: str):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert name in wrong(check(folder))


def test_what_is_no_cache_is_one_finding(tmp_path: Path):
    (found,) = check(tmp_path)
    assert not found.ok
    assert "persona-explorer build" in found.detail


def test_a_column_of_another_type_is_named(folder: Path):
    table = pq.read_table(folder / FEATURES)
    at = table.column_names.index("max")
    pq.write_table(table.set_column(at, "max", table.column("max").cast("float64")), folder / FEATURES)
    sign(folder, FEATURES)
    found = next(f for f in check(folder) if f.what == "columns")
    assert not found.ok
    assert "max of features.parquet" in found.detail


def test_statistics_that_contradict_each_other_are_found(folder: Path):
    table = pq.read_table(folder / FEATURES)
    at = table.column_names.index("tokens_active")
    more = table.column("tokens_active").to_numpy() + 1
    pq.write_table(table.set_column(at, table.schema.field(at), [more]), folder / FEATURES)
    sign(folder, FEATURES)
    assert wrong(check(folder)) == {"numbers"}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("window", 10**6, "not there"), ("peak", 65_535, "behind the end"), ("feature", 4_000, "not there")],
)
def test_an_example_out_of_place_is_found(folder: Path, column: str, value: int, said: str):
    table = pq.read_table(folder / EXAMPLES)
    at = table.column_names.index(column)
    values = table.column(column).to_numpy().copy()
    values[-1] = value
    pq.write_table(table.set_column(at, table.schema.field(at), [values]), folder / EXAMPLES)
    sign(folder, EXAMPLES)
    found = next(f for f in check(folder) if f.what == "examples")
    assert not found.ok
    assert said in found.detail


def test_an_example_that_peaks_on_no_evidence_is_found(folder: Path):
    arrays = load_file(folder / WINDOWS)
    save_file({**arrays, "scored": np.zeros_like(arrays["scored"])}, folder / WINDOWS)
    sign(folder, WINDOWS)
    found = next(f for f in check(folder) if f.what == "examples")
    assert "not evidence" in found.detail


def test_labels_of_another_sae_and_presets_of_silent_features_are_found(folder: Path):
    (folder / "labels.csv").write_text(
        "sae,feature,label,note,confidence,author,created_at\nother,3,cats,,,bundled,2026-01-01T00:00:00Z\n"
    )
    silent = int(np.flatnonzero(pq.read_table(folder / FEATURES).column("max").to_numpy() <= 0)[0])
    (folder / "presets.toml").write_text(f'[[preset]]\nname = "x"\nedits = [{{ feature = {silent} }}]\n')
    findings = check(folder)
    assert wrong(findings) == {"labels", "presets"}
    assert "another SAE" in next(f.detail for f in findings if f.what == "labels")


def test_another_model_and_another_sae_are_named_with_the_ones_that_were_used(folder: Path):
    model, coder = (
        SimpleNamespace(name="theirs", fingerprint="x" * 64),
        SimpleNamespace(source="b", fingerprint="y" * 64),
    )
    findings = check(folder, model=model, coder=coder)  # pyright: ignore[reportArgumentType]
    assert wrong(findings) == {"model", "SAE"}
    assert "tiny-model" in next(f.detail for f in findings if f.what == "model")


def test_the_command_exits_with_1_and_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["check", str(folder)]) == 0
    assert "WRONG" not in capsys.readouterr().out
    (folder / FEATURES).write_bytes(b"x" * (folder / FEATURES).stat().st_size)
    assert cli.main(["check", str(folder)]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_what_lies_beside_a_cache_may_be_missing_and_must_be_of_this_cache(folder: Path, tmp_path: Path, capsys):
    cache = Cache.open(folder)
    none = {found.what: found for found in beside(cache)}
    assert none.keys() == {"meanings", "negatives", "map"}
    assert all(found.ok and "none; persona-explorer" in found.detail for found in none.values())
    other = Cache.open(fake_cache(tmp_path / "other", 40, seed=1))
    meaning.make(other, Letters())
    snippets.write_negatives(other, {name: [] for name in snippets.COLUMNS.names})
    mapping.write(other, np.zeros((40, 2), np.float32), "flat")
    assert wrong(beside(other)) == set()
    for name in (meaning.MEANINGS, snippets.NEGATIVES):
        shutil.copy(other.path / name, folder / name)
    (folder / mapping.MAP).write_bytes(b"no map")
    assert wrong(check(folder)) == {"meanings", "negatives", "map"}
    assert cli.main(["info", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["beside"]
    for what, command in (("meanings", "index"), ("negatives", "negatives"), ("map", "map")):
        assert not told[what]["ok"]
        assert f"persona-explorer {command}" in told[what]["detail"]
