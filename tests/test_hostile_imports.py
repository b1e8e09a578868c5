"""Files that somebody made wrongly, or to do harm: each is refused in words, and nothing of it is kept."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorer import label_files
from explorer.cache import Cache
from explorer.check import check
from explorer.errors import ExplorerError, LabelError
from explorer.interchange import import_files, reading
from explorer.label_files import read_file
from explorer.lists import read_yaml
from tests.helpers_exchange import STRONG, batch, entry, neuronpedia_folder, row, write_batch


def refusal(tmp_path: Path, content: bytes, name: str = "batch-0.json") -> str:
    """What is said of a file that must not come in."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExplorerError) as refused:
        import_files([tmp_path / name], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert refused.value.expected or refused.value.do
    return str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"freq_hist_data_bar_heights": [2**70, 1, 1, 1]}, "bar_heights is 1.18"),
        ({"freq_hist_data_bar_heights": [-5, 1, 1, 1]}, "bar_heights is -5"),
        ({"freq_hist_data_bar_heights": {}}, "a list of counts"),
        ({"freq_hist_data_bar_values": [1e300, 2e300, 3e300, 4e300]}, "at most 3.4e"),
        ({"frac_nonzero": 10**400}, "frac_nonzero is none"),
        ({"frac_nonzero": "0.1"}, "frac_nonzero is none"),
        ({"n_prompts_total": 10**30}, "n_prompts_total is 1e"),
        ({"n_prompts_total": -1}, "n_prompts_total is -1"),
        ({"pos_values": [1e308, 1]}, "pos_values is none"),
        ({"pos_str": [1, 2]}, "a list of texts"),
        ({"activations": [row([" a"], [1e39])]}, "values is none"),
        ({"activations": [row([" a"], [1.0], -1, 1e308)]}, "bin_max is none"),
        ({"activations": [row([" a"] * 70_000, [1.0] * 70_000)]}, "a text of 70,000 tokens"),
        ({"activations": [7]}, "no object"),
        ({"activations": None}, "lacks one of them"),
        ({"feature_index": "٣"}, "a feature '٣'"),
        ({"feature_index": 1.5}, "a feature 1.5"),
        ({"feature_index": True}, "a feature True"),
        ({"feature_index": 1 << 20}, "a feature 1048576"),
    ],
)
def test_a_feature_of_wrong_values_is_refused_by_the_name_of_the_field(tmp_path, wrong, said):
    assert said in refusal(tmp_path, json.dumps(batch(entry(0, **wrong))).encode())


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "a" * 301, "two\nlines", True, 3.5, {}, [], ""])
def test_a_model_without_a_name_is_refused(tmp_path, name):
    assert "model_id" in refusal(tmp_path, json.dumps(batch(model_id=name)).encode())
    folder = neuronpedia_folder(tmp_path / "np") / "features"
    (folder / "batch-0.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"modelId": name, "layer": "x", "index": 0}).encode())
    )
    with pytest.raises(ExplorerError, match="modelId"):
        import_files([folder / "batch-0.jsonl.gz"], tmp_path / "cache")


def test_a_name_that_looks_like_a_path_names_and_goes_nowhere(tmp_path):
    import_files([write_batch(tmp_path / "a.json", model_id="../../etc", sae_set="../x")], tmp_path / "in" / "cache")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "in"]
    assert Cache.open(tmp_path / "in" / "cache").manifest.model == "../../etc"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(gzip.compress(json.dumps(batch()).encode())[:-30], "cannot be read whole", id="cut short"),
        pytest.param(b"\x1f\x8b" + b"junk" * 20, "cannot be read whole", id="junk"),
        pytest.param(gzip.compress(b"{}") + b"trailing", "cannot be read whole", id="trailing bytes"),
        pytest.param(gzip.compress(b"\xff\xfe"), "no whole JSON", id="no UTF-8"),
        pytest.param(json.dumps(batch()).encode("utf-16"), "no text", id="UTF-16"),
        pytest.param(b" \n ", "white space", id="white space"),
        pytest.param(b'{"a": ' + b"[" * 100_000, "no whole JSON", id="deep"),
        pytest.param(b'{"a": 1' + b"0" * 5_000 + b"}", "no whole JSON", id="long number"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_short_sentence(tmp_path, content, said):
    found = refusal(tmp_path, content)
    assert said in found
    assert len(found) < 500


@pytest.mark.parametrize("name", ["batch-0.json", "batch-0.jsonl.gz"])
def test_a_file_that_unpacks_to_more_than_there_is_room_for_is_not_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr(reading, "_LARGEST", 1 << 20)
    bomb = gzip.compress(b'{"a": "' + b"a" * (4 << 20))
    assert len(bomb) < 1 << 13
    assert "more than 1 MiB when unpacked" in refusal(tmp_path, bomb, name)
    assert "more than 1 MiB" in refusal(tmp_path, b'{"a": "' + b"a" * (4 << 20), name)


@pytest.mark.parametrize(
    "overrides",
    [
        {"freq_hist_data_bar_values": [4, 3, 2, 1]},
        {"freq_hist_data_bar_values": [1, 1, 1, 1]},
        {"freq_hist_data_bar_values": [-4, -3, -2, -1]},
        {"freq_hist_data_bar_values": [0.0], "freq_hist_data_bar_heights": [5]},
        {"frac_nonzero": 5.0},
        {"frac_nonzero": -5.0},
        {"pos_values": [1.0]},
        {"pos_str": ["\udfff", "<script>"]},
        {"dataset": "\ud800 a\0b"},
        {"activations": [row(["\ud800", "\0", "", "<b>"], [1.0, 2.0, 1.0, 1.0])]},
        {"activations": [row([" a"], [1e-320])]},
    ],
)
def test_odd_values_that_can_be_understood_make_a_whole_cache(tmp_path, overrides: dict[str, Any]):
    import_files([write_batch(tmp_path / "a.json", entry(0, **overrides))], tmp_path / "cache")
    assert [finding.detail for finding in check(tmp_path / "cache") if not finding.ok] == []
    cache = Cache.open(tmp_path / "cache")
    found = cache.feature(0)
    assert 0 <= found.density <= 1
    assert sum(found.histogram) == found.tokens_active
    cache.manifest.corpus.encode()


def test_activations_that_are_no_numbers_count_as_nothing(tmp_path):
    text = json.dumps(batch(entry(0, STRONG))).replace("2.0, 0.5", "Infinity, 0.5").replace("[0.0,", "[NaN,")
    (tmp_path / "a.json").write_text(text)
    import_files([tmp_path / "a.json"], tmp_path / "cache")
    assert Cache.open(tmp_path / "cache").examples(0)[0].acts == (0.0, 0.0, 0.5)


LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 20))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS + "lists: [{name: *a19, sae: x, features: [1]}]", "no text"),
        (LAUGHS + "lists: [{name: n, sae: x, note: *a19, features: [1]}]", "no text"),
        (LAUGHS + "lists: [{name: n, sae: x, features: *a19}]", "holds something else"),
        ("lists: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("lists: [{name: 2001-99-99, sae: x, features: [1]}]", "month must be"),
        ("lists: [{name: n, sae: x, features: [1" + "0" * 6_000 + "]}]", "cannot be read"),
        ("lists: [{name: n, sae: x, features: ['1']}]", "holds '1'"),
        ("lists: [{name: n, sae: x, features: [-1]}]", "holds -1"),
        ("lists: [{name: n, sae: x, features: 7}]", "features are missing"),
        ('lists: [{name: n, sae: x, note: "a\\0b", features: [1]}]', "NUL"),
        ('lists: [{name: n, sae: x, note: "\\ud800", features: [1]}]', "half a character"),
        ("lists: &a [*a]", "features are missing"),
        ("? {a: [1]}\n: 1", "cannot be read"),
        ("a: 1\n---\nb: 2", "cannot be read"),
        ("", "holds no lists"),
    ],
)
def test_yaml_that_is_no_file_of_lists_is_refused_and_no_alias_is_unfolded(tmp_path, text, said):
    (tmp_path / "lists.yaml").write_text(text)
    with pytest.raises(LabelError, match=said) as refused:
        read_yaml(tmp_path / "lists.yaml")
    assert len(str(refused.value)) < 500


def test_yaml_that_is_not_utf_8_or_too_large_is_refused(tmp_path):
    (tmp_path / "lists.yaml").write_bytes(b"lists: [{name: \xff}]")
    with pytest.raises(LabelError, match="cannot be read"):
        read_yaml(tmp_path / "lists.yaml")
    (tmp_path / "lists.yaml").write_bytes(b" " * (9 << 20))
    with pytest.raises(LabelError, match="bytes"):
        read_yaml(tmp_path / "lists.yaml")


def test_json_lines_that_nest_too_deeply_are_refused_by_their_line(tmp_path):
    (tmp_path / "labels.jsonl").write_text("\n" + "[" * 100_000)
    with pytest.raises(LabelError, match="Line 2: This is no JSON"):
        read_file(tmp_path / "labels.jsonl")


def test_a_parquet_table_of_more_rows_than_anybody_labels_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(label_files, "_MOST", 1_000)
    rows = {"sae": ["x"] * 1_001, "feature": [1] * 1_001, "label": ["king"] * 1_001}
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    with pytest.raises(LabelError, match="1,001 rows"):
        read_file(tmp_path / "labels.parquet")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1]}, "is missing"),
        ({"sae": [1], "feature": [1], "label": ["x"]}, "sae is 1"),
        ({"sae": ["x"], "feature": [[1]], "label": ["x"]}, "feature is"),
        ({"sae": ["x"], "feature": [float("nan")], "label": ["x"]}, "feature is nan"),
        ({"sae": ["x"], "feature": [None], "label": ["x"]}, "feature is missing"),
    ],
)
def test_a_parquet_table_of_other_columns_is_refused(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(LabelError, match=said):
        read_file(tmp_path / "labels.parquet")
