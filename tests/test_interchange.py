"""Other programs' files: what is read, what is refused in words, and that what goes out comes back the same."""

import gzip
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer import cli
from explorer.cache import Cache
from explorer.check import check
from explorer.errors import SaeError, UsageError
from explorer.foreign import is_foreign, name_fingerprint, require_weights
from explorer.interchange import FORMATS, Order, export, import_files
from explorer.interchange.browsable import ABSENT, RECORD
from explorer.interchange.spelling import is_byte_level, spelled, token_bytes
from explorer.label_files import Label, read_file
from explorer.lists import FeatureList, Lists
from explorer.schema import rounded
from explorer.scores import Score
from tests.helpers_app import run_page
from tests.helpers_cache import fake_cache, fake_manifest
from tests.helpers_exchange import CUT, REAL, SILENT, SINK, STRONG, WEAK, entry, neuronpedia_folder, row, write_batch

FILES = ("saedashboard_gpt2_res-jb_batch-1.json", "saedashboard_test_no_separator_batch-0.json")
OTHERS = (
    "hatecheck_test_suite_cases.csv",
    "axolotl_sharegpt_conversation.json",
    "blns.json",
    "first_plot_questions.yaml",
)


def imported(place: Path, *features: dict[str, Any], **overrides: Any) -> Cache:
    """The cache that comes of a file with these features."""
    import_files([write_batch(place / "batch-0.json", *features, **overrides)], place / "cache")
    return Cache.open(place / "cache")


def told(cache: Cache, index: int) -> dict[str, Any]:
    """All that a cache says of a feature, in bytes instead of token ids."""
    found, raw = cache.feature(index), cache.vocabulary.bytes_of
    said = {name: [(raw[t], v) for t, v in getattr(found, name)] for name in ("promoted", "suppressed")}
    texts = [  # activations as precisely as the format of a cache keeps them
        (e.kind, e.interval, e.peak, rounded(np.array(e.acts)).tolist(), [raw[t] for t in e.tokens])
        for e in cache.examples(index)
    ]
    return {**said, "texts": texts} | {
        name: getattr(found, name) for name in ("index", "density", "max", "tokens_active", "histogram", "title")
    }


@pytest.mark.parametrize(
    "text", ["naïve café — 東京 🙂 x", "łódź in text", "plain\nlines\there", "a \x00\x7f b", "“so” Ġ said"]
)
@pytest.mark.parametrize("width", [1, 2, 3, 50])
def test_bytes_spelled_in_pieces_of_any_width_read_back_as_they_were(text, width):
    raw = text.encode()
    pieces = [raw[at : at + width] for at in range(0, len(raw), width)]
    tokens = [spelled(piece) for piece in pieces]
    assert is_byte_level([tokens]) == any(not token.isascii() for token in tokens)
    assert [token_bytes(token, byte_level=is_byte_level([tokens])) for token in tokens] == pieces


def test_text_that_is_written_out_is_not_taken_for_bytes():
    tokens = ["▁caf", "é", "▁łódź", "<0x0A>"]
    assert not is_byte_level([tokens])
    assert b"".join(token_bytes(token, byte_level=False) for token in tokens).decode() == " café łódź\n"


def test_a_dash_that_a_byte_level_file_writes_out_stays_itself():
    tokens = ["cafÃ©", " —", " x"]
    assert is_byte_level([tokens])
    assert b"".join(token_bytes(token, byte_level=True) for token in tokens).decode() == "café — x"


def test_an_imported_file_is_a_whole_cache_that_can_be_read(tmp_path):
    cache = imported(tmp_path, entry(0, STRONG, WEAK, CUT))
    assert [finding.what for finding in check(cache.path) if not finding.ok] == []
    found, first = cache.feature(0), cache.examples(0)[0]
    assert (found.density, found.max, found.tokens_active) == (0.01, 2.0, 10)
    assert cache.vocabulary.text(first.tokens) == " the ship sails"
    assert (first.value, first.peak, first.kind) == (2.0, 1, "top")
    assert [cache.vocabulary.text([t]) for t, _ in found.suppressed] == ["ケ", " land"]
    assert cache.manifest.tokens_scored == 1_000


def test_a_character_in_two_tokens_is_shown_whole_and_the_rest_of_a_cut_one_is_not_made_up(tmp_path):
    cache = imported(tmp_path, entry(0, CUT))
    text = cache.vocabulary.text(cache.examples(0)[0].tokens)
    assert text == "\ufffd café\n<"
    assert cache.feature(0).title == "é"


def test_a_text_that_stands_once_a_range_is_kept_once_and_silent_texts_are_left_out(tmp_path):
    again = row(STRONG["tokens"], STRONG["values"], 1.6, 2.0, 0.01)
    path = write_batch(tmp_path / "batch-0.json", entry(0, STRONG, again, WEAK, SILENT, SINK))
    account = import_files([path], tmp_path / "cache").account
    assert account is not None
    assert (account.examples, account.merged, account.silent, account.special) == (2, 1, 1, 1)
    kinds = [(e.kind, e.interval) for e in Cache.open(tmp_path / "cache").examples(0)]
    assert kinds == [("top", -1), ("interval", 0)]
    assert json.loads((tmp_path / "cache" / RECORD).read_text())["merged"] == 1


def test_special_tokens_are_marked_and_never_scored(tmp_path):
    with_sink = row(["<|endoftext|>", " x"], [9.0, 1.0])
    cache = imported(tmp_path, entry(0, with_sink))
    example = cache.examples(0)[0]
    assert (example.scored, example.acts, example.peak) == ((False, True), (0.0, 1.0), 1)
    assert example.tokens[0] in cache.vocabulary.special


def test_the_counts_of_a_histogram_are_kept_when_its_bars_are_cut_anew(tmp_path):
    found = imported(tmp_path).feature(0)
    assert sum(found.histogram) == 10
    assert [sum(found.histogram[a : a + 10]) for a in range(0, 40, 10)] == [6, 2, 1, 1]


def test_features_that_the_files_leave_out_say_so_and_are_not_exported(tmp_path):
    cache = imported(tmp_path, entry(2))
    assert [cache.feature(i).title for i in range(2)] == [ABSENT, ABSENT]
    assert cli.main(["export", str(cache.path), "-f", "saedashboard", "-o", str(tmp_path / "out.json")]) == 0
    assert [f["feature_index"] for f in json.loads((tmp_path / "out.json").read_text())["features"]] == [2]


def test_labels_stay_with_an_sae_by_its_names_and_a_suffix_makes_another_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = imported(tmp_path / "a"), imported(tmp_path / "b", sae_id_suffix="l0-14")
    assert one.manifest.sae_fingerprint == name_fingerprint("toy", "3-res-toy")
    assert (two.manifest.sae, one.manifest.sae) == ("3-res-toy__l0-14", "3-res-toy")
    assert two.manifest.sae_fingerprint != one.manifest.sae_fingerprint


def test_an_imported_cache_says_why_it_cannot_be_steered(tmp_path, capsys):
    from app.loading import load_pair

    cache = imported(tmp_path)
    assert is_foreign(cache.manifest)
    with pytest.raises(SaeError, match="hold no weights: it can be browsed and labelled, not steered"):
        load_pair(cache)
    assert cli.main(["steer", str(cache.path), "Hello", "--edit", "0:1"]) == 1
    assert "hold no weights" in capsys.readouterr().err
    require_weights(fake_manifest())  # one that was built is not refused


HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    '=1+1,"x"',
    "a\nb\r\nc",
    "\u202eevil",
    "ligne\u2028deux",
    "🦜👩‍👩‍👧",
    "{}",
    "null",
)
HOSTILE = {
    "empty.json": (b"", "an empty file"),
    "cut.json": (b'{"model_id": "x", "layer": 1, "features": [', "ends too early"),
    "other.json": (b'[{"from": "human"}]', "a list of 1"),
    "object.json": (b'{"conversations": []}', "an object with conversations"),
    "pickle.json": (pickle.dumps({"a": 1}), "pickle"),
    "torch.json": (b"PK\x03\x04 data.pkl", "zip archive"),
    "table.csv": (b"case,label\n1,2\n", "CSV"),
    "binary.json": (b"\xff\xfe\x00\x01" * 9, "no text"),
    "wrong.json": (b'{"model_id": "x", "layer": 1, "features": [{"feature_index": -1, "activations": []}]}', "feature -1"),
    "huge.json": (b'{"model_id": "x", "layer": 1, "features": [{"feature_index": 9999999999, "activations": []}]}', "9999999999"),
    "deep.json": (b"[" * 100_000, "no whole JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_another_kind_is_refused_with_what_it_is_and_what_was_expected(tmp_path, name):
    content, found = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        import_files([tmp_path / name], tmp_path / "cache")
    assert found in refused.value.found
    assert refused.value.expected
    assert not (tmp_path / "cache").exists()


def test_values_that_do_not_fit_their_tokens_are_refused(tmp_path):
    bad = {**STRONG, "values": [1.0]}
    with pytest.raises(UsageError, match="3 tokens and 1 values"):
        imported(tmp_path, entry(0, bad))
    with pytest.raises(UsageError, match="list of numbers"):
        imported(tmp_path, entry(0, {**STRONG, "values": ["1", "2", "3"]}))


def test_files_of_two_saes_are_not_mixed(tmp_path):
    one, two = write_batch(tmp_path / "a.json"), write_batch(tmp_path / "b.json", layer=4)
    with pytest.raises(UsageError, match="4-res-toy"):
        import_files([one, two], tmp_path / "cache")


def test_several_batches_make_one_cache(tmp_path):
    write_batch(tmp_path / "batch-0.json", entry(0))
    write_batch(tmp_path / "batch-1.json", entry(1), entry(2))
    import_files([tmp_path], tmp_path / "cache")
    assert Cache.open(tmp_path / "cache").live == [0, 1, 2]


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    path = write_batch(tmp_path / "batch-0.json")
    asked = ["import", str(path), "--out", str(tmp_path / "cache")]
    assert cli.main(asked) == 0
    assert cli.main(asked) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main([*asked, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == 1
    page = ["export", str(tmp_path / "cache"), "--format", "html", "--out", str(tmp_path / "page.html")]
    assert cli.main(page) == 0
    before = (tmp_path / "page.html").read_bytes()
    assert cli.main(page) == 2
    assert (tmp_path / "page.html").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert cli.main(["import", str(path), "--out", str(tmp_path / "mine"), "--force"]) == 2


@pytest.mark.parametrize("name", ["saedashboard", "neuronpedia"])
def test_a_cache_that_goes_out_comes_back_with_equal_features(tmp_path, name):
    first = Cache.open(fake_cache(tmp_path / "first", 40, n_windows=60, dead=(5,)))
    export(first, name, Order(range(40)), tmp_path / "out")
    import_files([tmp_path / "out"], tmp_path / "second")
    second = Cache.open(tmp_path / "second")
    assert [finding.detail for finding in check(second.path) if not finding.ok] == []
    for index in range(40):
        one, two = told(first, index), told(second, index)
        del one["title"], two["title"]  # the made-up cache has titles that no text of it tells
        assert one == two
    export(second, name, Order(range(40)), tmp_path / "again")
    import_files([tmp_path / "again"], tmp_path / "third")
    third = Cache.open(tmp_path / "third")
    assert all(told(second, i) == told(third, i) for i in range(40))
    assert second.manifest.sae_fingerprint == third.manifest.sae_fingerprint


def test_what_goes_out_has_the_field_names_of_the_real_files(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    export(cache, "saedashboard", Order([3]), tmp_path / "one.json")
    written = json.loads((tmp_path / "one.json").read_text())
    assert {"model_id", "layer", "sae_set", "sae_id_suffix", "features"} == written.keys()
    figures = {"feature_index", "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero", "vector"}
    figures |= {"freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_values"}
    assert figures < written["features"][0].keys()
    assert STRONG.keys() == written["features"][0]["activations"][0].keys()
    share = sum(
        {r["bin_min"]: r["bin_contains"] for r in written["features"][0]["activations"] if r["bin_min"] >= 0}.values()
    )
    assert share <= 1 + 1e-6


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not on this machine")
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_of_saedashboard_is_read_browsed_and_comes_back_the_same(tmp_path, caches, name):
    account = import_files([REAL / name], caches / "real").account
    assert account is not None
    assert account.merged > 0
    assert account.silent > 0
    cache = Cache.open(caches / "real")
    assert [finding.detail for finding in check(cache.path) if not finding.ok] == []
    real = json.loads((REAL / name).read_text())
    for feature in real["features"]:
        found = cache.feature(feature["feature_index"])
        assert found.density == feature["frac_nonzero"]
        assert found.tokens_active == sum(feature["freq_hist_data_bar_heights"])
        assert [v for _, v in found.promoted] == pytest.approx(feature["pos_values"])
        spelt = "".join(cache.vocabulary.text([t]) for t, _ in (*found.promoted, *found.suppressed))
        assert "Ġ" not in spelt
        assert "ã" not in spelt
        texts = {e.tokens for e in cache.examples(found.index)}
        assert len(texts) == len(cache.examples(found.index)), "a text stands twice"
    live = cache.live
    export(cache, "saedashboard", Order(live), tmp_path / "back.json")
    assert (
        real["features"][0].keys() - {"vector"}
        <= json.loads((tmp_path / "back.json").read_text())["features"][0].keys()
    )
    import_files([tmp_path / "back.json"], tmp_path / "back")
    assert all(told(cache, i) == told(Cache.open(tmp_path / "back"), i) for i in live)
    for page, query in (("browse", {}), ("feature", {"feature": str(live[0])})):
        app = run_page(page, **query)
        assert not app.exception, page


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not on this machine")
@pytest.mark.parametrize("name", OTHERS)
def test_real_files_of_other_kinds_are_refused_in_words(tmp_path, name):
    with pytest.raises(UsageError) as refused:
        import_files([REAL / name], tmp_path / "cache")
    assert name in refused.value.found
    assert "SAEDashboard" in refused.value.expected


def test_neuronpedia_explanations_become_labels_with_their_author(tmp_path):
    account = import_files([neuronpedia_folder(tmp_path / "np")], tmp_path / "cache").account
    assert account is not None
    assert (account.features, account.examples, account.labels) == (2, 3, 1)
    cache = Cache.open(tmp_path / "cache")
    assert [finding.detail for finding in check(cache.path) if not finding.ok] == []
    (label,) = read_file(cache.path / "labels.csv")
    assert (label.label, label.note, label.author) == ("ships at sea", "vessels", "Neuronpedia: some-model")
    assert label.sae == cache.manifest.sae_fingerprint == name_fingerprint("toy", "3-res-toy")
    assert cache.feature(0).neighbours == ((1, 0.25),)
    assert (cache.manifest.hook_point, cache.manifest.tokens_scored) == ("blocks.3.hook_resid_post", 1_000)


def test_labels_go_out_as_explanations_and_come_back_as_labels(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    said = {3: Label(cache.manifest.sae_fingerprint, 3, "königliche <b>Worte</b>", author="Ada")}
    export(cache, "neuronpedia", Order(range(8), labels=said), tmp_path / "out")
    lines = gzip.decompress((tmp_path / "out" / "explanations" / "batch-0.jsonl.gz").read_bytes()).decode().splitlines()
    (told_,) = [json.loads(line) for line in lines]
    assert (told_["index"], told_["description"], told_["explanationModelName"]) == ("3", said[3].label, "Ada")
    assert {"modelId", "layer", "typeName"} < told_.keys()
    import_files([tmp_path / "out"], tmp_path / "back")
    (label,) = read_file(tmp_path / "back" / "labels.csv")
    assert (label.feature, label.label, label.author) == (3, said[3].label, "Neuronpedia: Ada")


def test_scores_go_with_the_words_that_they_are_of_and_come_back_in_the_note(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    sae = cache.manifest.sae_fingerprint
    scores = [
        Score(sae, 3, "kings", "judge-1", "machine", "detection", 0.5, 10),
        Score(sae, 3, "kings", "judge-1", "machine", "detection", 0.82, 20),
        Score(sae, 3, "kings", "judge-1", "machine", "fuzzing", 0.7, 20),
        Score(sae, 3, "queens", "judge-1", "machine", "detection", 0.9, 20),
        Score(sae, 4, "kings", "judge-1", "machine", "detection", 0.9, 20),
    ]
    said = {3: Label(sae, 3, "kings", author="Ada")}
    export(cache, "neuronpedia", Order(range(8), labels=said, scores=scores), tmp_path / "out")
    (line,) = gzip.decompress((tmp_path / "out" / "explanations" / "batch-0.jsonl.gz").read_bytes()).splitlines()
    told_ = [
        (s["explanationScoreTypeName"], s["explanationScoreModelName"], s["value"]) for s in json.loads(line)["scores"]
    ]
    assert told_ == [("eleuther_recall", "judge-1", 0.82), ("eleuther_fuzz", "judge-1", 0.7)]
    import_files([tmp_path / "out"], tmp_path / "back")
    (label,) = read_file(tmp_path / "back" / "labels.csv")
    assert label.note == "Scores there: eleuther_recall 0.82 by judge-1, eleuther_fuzz 0.70 by judge-1"


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_labels_survive_neuronpedias_lines(tmp_path, text):
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    said = {3: Label(cache.manifest.sae_fingerprint, 3, text, author="A<b>")}
    export(cache, "neuronpedia", Order([3], labels=said), tmp_path / "out")
    import_files([tmp_path / "out"], tmp_path / "back")
    (label,) = read_file(tmp_path / "back" / "labels.csv")
    assert label.label == " ".join(text.split())


def test_half_of_a_character_in_an_explanation_is_a_sign_and_a_number_is_refused(tmp_path):
    path = neuronpedia_folder(tmp_path / "np") / "explanations" / "batch-0.jsonl.gz"
    line = {"modelId": "toy", "layer": "3-res-toy", "index": "0", "scores": [{"explanationScoreTypeName": 7}, "x"]}
    path.write_bytes(gzip.compress(json.dumps({**line, "description": "\ud800 kings\0"}).encode()))
    import_files([tmp_path / "np"], tmp_path / "cache")
    assert [label.label for label in read_file(tmp_path / "cache" / "labels.csv")] == ["? kings"]
    path.write_bytes(gzip.compress(json.dumps({**line, "description": 7}).encode()))
    with pytest.raises(UsageError, match="explanation of feature 0 that is no text"):
        import_files([tmp_path / "np"], tmp_path / "other")


def test_an_import_that_replaces_one_leaves_none_of_its_labels(tmp_path):
    import_files([neuronpedia_folder(tmp_path / "np")], tmp_path / "cache")
    import_files([write_batch(tmp_path / "batch-0.json")], tmp_path / "cache", force=True)
    assert not (tmp_path / "cache" / "labels.csv").exists()


def test_a_line_of_another_sae_is_refused_by_its_number(tmp_path):
    folder = neuronpedia_folder(tmp_path / "np")
    path = folder / "features" / "batch-0.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[1] = lines[1].replace("3-res-toy", "4-res-toy")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UsageError, match="line 2"):
        import_files([folder], tmp_path / "cache")


def test_a_gzip_that_ends_too_early_is_refused(tmp_path):
    path = neuronpedia_folder(tmp_path / "np") / "activations" / "batch-0.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cannot be read whole"):
        import_files([tmp_path / "np"], tmp_path / "cache")


def test_an_unknown_format_raises_and_lists_the_choices(tmp_path, capsys):
    cache = fake_cache(tmp_path / "cache", 8)
    assert cli.main(["export", str(cache), "--format", "word", "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_explains_itself_and_refuses_to_write_nothing(tmp_path, name):
    assert len(FORMATS[name].help) > 20
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    with pytest.raises(UsageError, match="nothing to export"):
        export(cache, name, Order(), tmp_path / "x")


def test_the_command_exports_what_a_search_finds(tmp_path, capsys):
    cache = fake_cache(tmp_path / "cache", 8)
    asked = ["export", str(cache), "-f", "saedashboard", "-o", str(tmp_path / "x.json"), "--query", "#3", "--json"]
    assert cli.main(asked) == 0
    assert json.loads(capsys.readouterr().out)["features"] == 1
    for wrong in (
        ["--features", "a"],
        ["--features", "1", "--query", "x"],
        ["--direction", "nobody"],
        ["--query", "zzzz"],
    ):
        assert cli.main([*asked[:6], *wrong]) == 2
    assert cli.main([*asked[:4], "-o", str(tmp_path / "y.json"), "--features", "99"]) == 1


def test_the_command_exports_the_features_of_a_list_in_its_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    Lists().put(FeatureList(cache.manifest.sae_fingerprint, "pirates", (6, 2), author="Ada"))
    asked = ["export", str(cache.path), "-f", "saedashboard", "-o", str(tmp_path / "x.json")]
    assert cli.main([*asked, "--list", "pirates"]) == 0
    assert [f["feature_index"] for f in json.loads((tmp_path / "x.json").read_text())["features"]] == [6, 2]
    assert cli.main([*asked, "--force", "--list", "ships"]) == 2
    assert "expected pirates" in capsys.readouterr().err


def test_the_page_stands_alone_and_holds_labels_and_every_text(tmp_path):
    cache = Cache.open(fake_cache(tmp_path / "cache", 8))
    said = {3: Label(cache.manifest.sae_fingerprint, 3, "a <script>label</script>", "a note")}
    (path,) = export(cache, "html", Order([3, 5], labels=said), tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;label" in page
    assert "a note" in page
    assert not re.search(r"<(script|img|link|iframe|object|svg|a)\b|url\(|@import|\s(src|href|on\w+)\s*=[^<]*>", page)
    assert page.count('class="row"') == len(cache.examples(3))
    assert "No text of the corpus activates this feature" in page


def test_a_record_of_the_manifest_says_what_is_not_known(tmp_path):
    made = imported(tmp_path).manifest
    assert "not known" in made.architecture
    assert made.dtype == "not known"
    assert replace(made, created="").command == "persona-explorer import"
