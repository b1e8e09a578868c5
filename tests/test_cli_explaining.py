"""The commands explain, agreement and negatives."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from explorer import cli
from explorer.cli.explaining import read_features
from explorer.endpoint import KEY, MODEL, PRICES, URL
from explorer.errors import UsageError
from explorer.labels import NOT_INTERPRETABLE, LabelStore
from tests.helpers_cache import fake_cache
from tests.test_autointerp import Model, serve

SAE = "s" * 64


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 24, n_windows=120, longest=160)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    for name in (URL, MODEL, KEY, PRICES):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def endpoint(httpserver, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv(URL, httpserver.url_for("/v1"))
    monkeypatch.setenv(MODEL, "clever")
    return serve(httpserver, Model())


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def store(home: Path) -> LabelStore:
    return LabelStore(home / "labels.sqlite")


# Which features


def test_features_are_numbers_and_ranges_each_once():
    assert read_features("12, 3-5,#4") == [12, 3, 4, 5]


@pytest.mark.parametrize("said", ["", "x", "1-", "-3", "1,,2", "9999999999", "1-x"])
def test_what_names_no_feature_is_refused(said):
    with pytest.raises(UsageError, match="no feature"):
        read_features(said)


@pytest.mark.parametrize("options", [(), ("--features", "1", "--query", "king")], ids=str)
def test_one_way_of_naming_features_is_wanted(cache, capsys, options):
    code, _, err = run(capsys, "explain", cache, *options)
    assert code == 2
    assert "one of --features, --list, --query" in err


# explain


def test_without_an_endpoint_nothing_is_sent_and_it_is_said_how_to_name_one(cache, capsys):
    code, out, err = run(capsys, "explain", cache, "--features", "1")
    assert (code, out) == (1, "")
    assert URL in err
    assert err.count("\n") == 1


def test_features_are_explained_scored_and_kept_as_suggestions_and_no_label_is_written(cache, capsys, endpoint, home):
    store(home).put(SAE, 1, "mine", author="ada")
    code, out, _ = run(capsys, "explain", cache, "--features", "1-2", "--json")
    assert code == 0
    told = json.loads(out)
    assert [(row["feature"], row["text"]) for row in told["features"]] == [
        (1, "words about kings"),
        (2, "words about kings"),
    ]
    assert told["features"][0]["detection"]["score"] == 0.5
    assert told["suggestions"] == 2
    label = store(home).get(SAE, 1)
    assert label is not None
    assert label.label == "mine"
    asked = len(endpoint.asked)
    code, out, _ = run(capsys, "explain", cache, "--features", "1-2", "--json")
    assert (code, len(endpoint.asked)) == (0, asked)


def test_labels_of_people_are_scored_by_the_same_means(cache, capsys, endpoint, home):
    store(home).put(SAE, 4, "crowns", author="ada")
    code, out, _ = run(capsys, "explain", cache, "--features", "3-4", "--score-only", "--json")
    assert code == 0
    (row,) = json.loads(out)["features"]
    assert (row["feature"], row["text"], row["author"]) == (4, "crowns", "ada")
    assert json.loads(out)["suggestions"] == 0


def test_a_query_names_features_and_a_limit_holds(cache, capsys, endpoint):
    code, out, _ = run(capsys, "explain", cache, "--query", "king", "--limit", "2", "--json")
    assert code == 0
    assert 1 <= len(json.loads(out)["features"]) <= 2


def test_a_spent_budget_is_said_and_what_was_finished_is_printed(cache, capsys, endpoint, tmp_path):
    code, out, err = run(
        capsys, "explain", cache, "-f", "0-9", "--budget", "5k", "--workers", "1", "-o", tmp_path / "found.jsonl"
    )
    assert code == 0
    assert "the budget is spent" in err
    assert "words about kings" in out
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) < 10


def test_money_without_prices_is_refused_before_anything_is_sent(cache, capsys, endpoint):
    code, _, err = run(capsys, "explain", cache, "-f", "1", "--budget", "$1")
    assert code == 2
    assert PRICES in err
    assert endpoint.asked == []


# agreement


def test_agreement_prints_measures_and_the_worst_first(cache, capsys, home):
    for feature in range(6):
        first = NOT_INTERPRETABLE if feature > 3 else "crowns"
        store(home).put(SAE, feature, first, author="ada")
        store(home).put(SAE, feature, "crowns" if feature == 5 else first, author="ben")
    code, out, _ = run(capsys, "agreement", cache, "--no-meaning", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["measures"]["interpretable"]["features"] == 6
    assert told["measures"]["interpretable"]["value"] == pytest.approx(1 - (2 / 12) / (2 * 9 * 3 / (12 * 11)))
    assert told["pairs"][0]["feature"] == 5
    code, out, _ = run(capsys, "agreement", cache, "--no-meaning")
    assert code == 0
    assert "ada: not interpretable" in out


def test_agreement_without_two_labels_says_so(cache, capsys):
    code, out, _ = run(capsys, "agreement", cache)
    assert code == 0
    assert "judged by two people" in out


# negatives


def test_negatives_says_what_was_found(cache, capsys, monkeypatch):
    from explorer import live, silence

    def find(opened, attached, **asked):
        assert asked["sample"] == 50
        return silence.Found(opened.path / "manifest.json", 50, 120, 3, 0.999)

    monkeypatch.setattr(live, "attach", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(silence, "find", find)
    code, out, _ = run(capsys, "negatives", cache, "--sample", "50", "--json")
    assert code == 0
    assert json.loads(out)["spans"] == 120
