"""`persona-explorer finetune`, `audit` and `monitor` on a person's own tiny model and SAE."""

import csv
import json
from pathlib import Path

import pytest

from explorer.cache import Cache
from explorer.cli import main
from explorer.monitor import Watch, sample
from tests.helpers import TEXT
from tests.helpers_steer import tiny_world

ROWS = [
    {
        "messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": TEXT[n % 4]}],
        "kind": "bad" if n % 4 == 1 else "good",
    }
    for n in range(12)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("tuning"), layers=3)


@pytest.fixture(scope="module")
def features(world) -> list[str]:
    return [str(feature) for feature in Cache.open(world).live[:2]]


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def say(capsys, words: str) -> str:
    assert main(words.split()) == 0
    return capsys.readouterr().out


def run(capsys, words: str):
    assert main([*words.split(), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_is_fine_tuned_and_the_adapter_is_gone_on_from(world, data, tmp_path, capsys):
    model = Cache.open(world).manifest.model
    train = f"finetune --data {data} -m {model}"
    said = run(capsys, f"{train} --out {tmp_path / 'bad'} --steps 4 --every 2 --lr 0.02")
    assert said["checkpoints"] == [2, 4]
    assert said["last_loss"] < said["first_loss"]
    start = tmp_path / "bad" / "step-0004"
    more = run(capsys, f"{train} --out {tmp_path / 'more'} --steps 2 --start {start} --limit 3")
    assert more["rows"] == 3
    assert more["first_loss"] < said["first_loss"]
    assert (
        main(["finetune", "--data", str(data), "--out", str(tmp_path / "x"), "-m", model, "--start", str(tmp_path)])
        == 1
    )
    assert "holds no adapter" in capsys.readouterr().err
    assert main(f"{train} --out {tmp_path / 'x'} --lr 0".split()) == 2


def test_rows_are_ranked_and_the_kept_ones_written(world, features, data, tmp_path, capsys):
    rank = f"audit {world} {data} -f {features[0]} -f {features[1]}"
    ranked = run(capsys, rank)
    assert sorted(row["row"] for row in ranked) == list(range(1, 13))
    assert [row["score"] for row in ranked] == sorted((row["score"] for row in ranked), reverse=True)
    line = ranked[4]["score"]
    kept = run(capsys, f"{rank} --drop {line} -o {tmp_path / 'kept.jsonl'}")
    rows = (tmp_path / "kept.jsonl").read_text().splitlines()
    assert len(rows) == sum(row["kept"] for row in kept) == sum(row["score"] < line for row in ranked)
    assert main(["audit", str(world), str(data), "-f", features[0]]) == 0
    assert "most suspicious of 12 rows" in capsys.readouterr().out
    assert main(["audit", str(world), str(data), "-f", features[0], "--drop", "1"]) == 2
    assert main(["audit", str(world), str(data)]) == 2
    assert "nothing to look for" in capsys.readouterr().err


def test_a_log_is_watched_flagged_and_judged_by_what_it_says_itself(world, features, data, tmp_path, capsys):
    flags = tmp_path / "flags.csv"
    look = f"monitor {world} {data} -f {features[0]} --truth kind=bad"
    said = run(capsys, f"{look} --role assistant --threshold 0.0 --flags {flags}")
    (row,) = said["features"]
    assert row["messages"] == 12
    assert row["flagged"] == 12
    assert row["judged"] == row["drawn"] == 12
    assert row["recall"][0] == 1.0
    assert row["precision"][0] == pytest.approx(3 / 12)
    assert 0 <= row["auroc"][0] <= 1
    with flags.open(newline="") as file:
        exported = list(csv.DictReader(file))
    assert len(exported) == 12
    assert {r["text"] for r in exported} == set(TEXT)
    assert (
        main(["monitor", str(world), str(data), "-f", features[0], "--truth", "kind=bad"]) == 0
    )  # it goes on from there
    out = capsys.readouterr().out
    assert "rows.jsonl.monitor" in out


def test_without_anybodys_word_precision_is_unknown_and_wrong_use_is_told(world, features, data, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["monitor", str(world), str(data), "-f", features[0], "-o", out]) == 0
    said = capsys.readouterr().out
    assert "precision is unknown" in said
    assert "recall or AUROC is unknown" in said
    kept = Watch(out)
    table = kept.scores(features[0])
    order, drawn = table.sort_values("score", ascending=False), sample(table)
    for at, key in enumerate(zip(order["transcript"], order["message"], strict=True)):
        if key != drawn[0]:  # all but the first that would be drawn: whoever reads flags, strongest first
            kept.review(int(key[0]), int(key[1]), at < 6)
    look = f"monitor {world} {data} -f {features[0]} -o {out} --threshold 0.0"
    (row,) = run(capsys, look)["features"]
    assert (row["judged"], row["drawn"]) == (23, 0)
    assert row["recall"] is row["auroc"] is row["precision"] is None
    kept.review(*drawn[0], False)
    (row,) = run(capsys, look)["features"]
    assert (row["judged"], row["drawn"]) == (24, 24)
    assert None not in (row["recall"], row["auroc"], row["precision"])
    assert "unknown" not in say(capsys, look)
    assert main(["monitor", str(world), str(data), "-f", features[1], "-o", out]) == 1
    assert "another probes" in capsys.readouterr().err
    for wrong in (["--truth", "kind"], ["--statistic", "median"], ["--flags", "x.doc"]):
        assert main(["monitor", str(world), str(data), "-f", features[0], *wrong]) == 2
    capsys.readouterr()
    assert main(["monitor", str(world), str(tmp_path / "none.jsonl"), "-f", features[0]]) == 1
    assert "is no file" in capsys.readouterr().err
