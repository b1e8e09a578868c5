"""The Monitor page without a browser, over a tiny real model: a log from upload to export, reviews, an audit, and what goes wrong."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from app import monitored, resources
from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.finetune import read_rows
from explorer.monitor import Watch, flags_csv, flags_jsonl, sample
from explorer.transcripts import truth_of
from tests.helpers import TEXT
from tests.helpers_app import run_page, words
from tests.helpers_cache import fake_cache
from tests.helpers_steer import tiny_world

HOSTILE = '=HYPERLINK("x") <script>alert(1)</script>'
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": HOSTILE if n == 5 else TEXT[n % 4]},
            {"role": "user", "content": "Go on."},
            {"role": "assistant", "content": TEXT[(n + 1) % 4]},
        ],
        "kind": "bad" if n % 4 == 1 else "good",
    }
    for n in range(40)
]
LOG = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tiny_world(tmp_path_factory.mktemp("monitor"), layers=2)


@pytest.fixture(scope="module")
def features(world) -> str:
    return " ".join(str(feature) for feature in Cache.open(world).live[:2])


@pytest.fixture
def home(world, tmp_path, monkeypatch) -> Path:
    """A home of its own, with the tiny world in view."""
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(world))
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERSONA_EXPLORER_WARMUP", "0")
    return tmp_path / "home"


def page(**query):
    return run_page("monitor", cache="tiny", **query)


def upload(app, features: str, *, name: str = "chats.jsonl", content: bytes = LOG, truth: str = ""):
    """Give the page a log and press Run."""
    app.file_uploader(key="monitor-log").upload(name, content, "application/jsonl").run()
    if truth:
        app.text_input(key="monitor-truth").set_value(truth).run()
    app.text_input(key="monitor-watch-features").set_value(features).run()
    app.button(key="monitor-go").click().run()
    assert not app.exception
    return app


def ended(app, at: str = "monitor-job"):
    """Run the page until its work in the background has ended."""
    if at in app.session_state:  # a short one may have ended in the run that began it
        assert app.session_state[at][1].wait(60)
        app.run()
    assert not app.exception
    return app


@pytest.fixture
def watched(home, features):
    """The page after a log has been watched, and the run."""
    app = ended(upload(page(), features))
    return app, Watch(monitored.folder_of(one(app.query_params["set"])))


def one(value) -> str:
    return value[0] if isinstance(value, list) else value


def rows_of(app) -> str:
    return next(h.value for h in app.html if "tuning" in h.value)


def test_without_a_log_the_page_says_what_it_takes(home):
    app = page()
    assert not app.exception
    assert "None yet" in words(app)
    assert app.button(key="monitor-go").disabled
    assert app.button(key="monitor-audit-go").disabled


def test_a_log_is_watched_from_upload_to_export(watched, features):
    app, run = watched
    assert run.complete
    assert list(run.probes) == features.split()
    assert not list(run.folder.glob("log/*"))  # the run holds its texts
    assert "chats.jsonl" in words(app)
    assert "<b>160</b> messages" in words(app)
    assert "confirm " in rows_of(app)
    table = run.flagged(run.probes[0], -1.0)
    lines = list(csv.DictReader(io.StringIO(flags_csv(table))))
    assert len(lines) == len(table)
    hostile = [line["text"] for line in lines if "HYPERLINK" in line["text"]]
    assert hostile == ["'" + HOSTILE]
    assert [json.loads(line)["text"] for line in flags_jsonl(table).splitlines()] == table["text"].tolist()
    assert any("chats.jsonl" in h.value for h in page().html)


def test_the_link_restores_what_is_looked_at_and_nonsense_is_named(watched):
    app, run = watched
    name = one(app.query_params["set"])
    seen = page(set=name, feature=run.probes[1], statistic="largest", threshold="0.25", role="assistant")
    assert seen.selectbox(key="monitor-on-probe").value == run.probes[1]
    assert seen.number_input(key="monitor-on-threshold").value == 0.25
    assert "<b>80</b> messages" in words(seen)
    assert f"{(run.scores(run.probes[1], 'largest', roles=('assistant',))['score'] >= 0.25).sum():,} of 80" in rows_of(
        seen
    )
    seen.number_input(key="monitor-on-threshold").set_value(0.5).run()
    assert one(seen.query_params["threshold"]) == "0.5"
    seen.selectbox(key="monitor-on-probe").set_value(run.probes[0]).run()
    assert "threshold" not in seen.query_params  # another feature has one of its own
    wrong = page(set=name, feature="none", statistic="median", threshold="nan")
    assert not wrong.exception
    for word in ("none", "median", "nan"):
        assert f"{word}&#x27;" in words(wrong)
    assert "No message of this log is by nobody" in words(page(set=name, role="nobody"))


def test_reviews_change_precision_and_are_undone(watched):
    app, run = watched
    app.number_input(key="monitor-on-threshold").set_value(-1.0).run()
    queue = sample(run.scores(run.probes[0]), -1.0, None)
    for button in ("A", "D", "A"):
        app.button(key=f"monitor-{button}").click().run()
    assert not app.exception
    assert [(key, review.agree) for key, review in run.reviews().items()] == list(
        zip(queue, (True, False, True), strict=False)
    )
    assert "<b>0.67</b>" in rows_of(app)
    assert "3 of 160 flags, drawn blindly" in rows_of(app)
    assert "2 of the kind, 1 others drawn blindly" in rows_of(
        app
    )  # all are flagged here: what is drawn of them is drawn of all
    app.button(key="monitor-U").click().run()
    assert len(run.reviews()) == 2
    assert "<b>0.50</b>" in rows_of(app)
    app.segmented_control(key="monitor-on-queue").set_value("Random sample of all").run()
    for _ in range(6):
        app.button(key="monitor-A").click().run()
    assert "<b>1.00</b>" in rows_of(app)  # all of the sample are flagged here, and recall is known
    assert not app.exception


def test_what_was_confirmed_strongest_first_counts_for_no_figure(watched):
    app, run = watched
    table = run.scores(run.probes[0])
    threshold = float(np.nanquantile(table["score"], 0.8))
    app.number_input(key="monitor-on-threshold").set_value(threshold).run()
    app.segmented_control(key="monitor-on-queue").set_value("Flagged, strongest first").run()
    for _ in range(3):
        app.button(key="monitor-A").click().run()
    assert not app.exception
    queue = monitored.flagged(table, threshold)
    assert list(run.reviews()) == queue[:3]
    assert sample(table, threshold)[0] not in queue[:3]
    assert rows_of(app).count("<b>unknown</b>") == 3
    assert "confirm 20 drawn blindly" in rows_of(app)
    assert rows_of(app).count("review the random sample") == 2
    for key in queue:
        run.review(*key, True)
    app.run()
    assert f"{len(queue)} of {len(queue)} flags, drawn blindly" in rows_of(app)  # all of them are no choice


def test_a_log_that_says_itself_what_is_of_the_kind_has_figures_at_once(home, features):
    app = ended(upload(page(), features, truth="kind=bad"))
    said = rows_of(app)
    assert "10 of the kind, 30 others that the log judges" in said
    assert "10 of the kind among 40 that the log judges" in said


def test_tokens_have_colours_where_the_model_is_loaded(watched):
    app, run = watched
    app.run()
    engine = resources.engine("tiny")
    assert engine.state == "ready"
    talk = monitored.talk(run, 3)
    ids, values = monitored.tokens(engine, run, run.probes[0], talk, 1)
    assert np.isfinite(values).sum() == talk[1]["tokens"]
    assert np.nanmean(values) == pytest.approx(talk[1][f"{run.probes[0]} mean"], abs=1e-3)
    assert len(ids) == len(values)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chats.jsonl", b'{"messages": []}\n{"mess\n', "chats.jsonl, line 2 is no JSON"),
        ("chats.csv", b"a,b\n1,2\n", "has the columns a, b"),
        ("chats.txt", b"\xff\xfe\x00", "cannot be read"),
        ("chats.jsonl", b"", "is empty"),
    ],
)
def test_a_broken_log_is_told_and_nothing_is_kept(home, features, name, content, said):
    app = ended(upload(page(), features, name=name, content=content))
    assert said in words(app)
    assert str(home) not in words(app)
    assert "Runs that are here" in words(app)
    assert not list(home.glob("monitor/*/monitor.json"))
    assert not list(home.glob("monitor/*/log/*"))


def test_what_cannot_be_looked_for_is_told(home):
    for features, said in (
        ("banana", "is no feature"),
        ("", "No features are named"),
        ("~none", "There is no direction"),
    ):
        app = upload(page(), features)
        if "monitor-job" in app.session_state:
            app = ended(app)
        assert said in words(app)
    assert "no run of a monitor" in words(page(set="gone"))
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        truth_of("kind")


def test_a_run_that_was_cut_off_goes_on(watched):
    app, run = watched
    name, whole = one(app.query_params["set"]), run.scores(run.probes[0])["score"].to_numpy()
    last = sorted(run.folder.glob("scores-*"))[-1]
    last.unlink()
    manifest = run.folder / "monitor.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    assert "run it again with the same log" in words(page(set=name))
    (run.folder / "log").mkdir(exist_ok=True)
    (run.folder / "log" / "chats.jsonl").write_bytes(LOG)
    app = page(set=name)
    assert "cut off" in words(app)
    app.button(key="monitor-more").click().run()
    app = ended(app)
    assert Watch(run.folder).complete
    np.testing.assert_allclose(Watch(run.folder).scores(run.probes[0])["score"], whole, atol=1e-4)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_fields_that_may_hold_the_truth_are_named_and_a_log_without_sense_names_none(name):
    said = {"Prompt": "a", "response": "b", "chat_id": 1, "Gold": "x"}
    head = json.dumps(said) if name == "log.jsonl" else ",".join(said)
    assert monitored.fields(name, head.encode()) == ["Gold"]
    assert monitored.fields("log.jsonl", b"[" * 200_000) == []


def test_a_training_set_is_audited_and_the_kept_rows_are_exported(home, features, tmp_path):
    app = page()
    app.file_uploader(key="monitor-rows").upload("rows.jsonl", LOG, "application/jsonl").run()
    app.text_input(key="monitor-audit-features").set_value(features).run()
    app.button(key="monitor-audit-go").click().run()
    app = ended(app, "audit-job")
    found = app.session_state["audit-job"][1].result
    shown = next(h.value for h in app.html if "audited" in h.value)
    assert shown.count("<tr") == 41
    assert "<script>" not in shown
    line = float(np.median(found.suspicion))
    kept = found.kept(line)
    path = tmp_path / "kept.jsonl"
    path.write_text(app_kept(found, kept))
    assert read_rows(path) == [row for row, keep in zip(found.rows, kept, strict=True) if keep]
    app.slider(key="monitor-audit-slider").set_value(app.slider(key="monitor-audit-slider").min).run()
    assert "40 of 40 rows are dropped" in words(app) or "39 of 40" in words(app)
    app = page()
    app.file_uploader(key="monitor-rows").upload("my rows (1).jsonl", b"{}\n", "application/jsonl").run()
    app.text_input(key="monitor-audit-features").set_value(features).run()
    app.button(key="monitor-audit-go").click().run()
    assert "my rows (1).jsonl, line 1" in words(ended(app, "audit-job"))


def app_kept(found, kept) -> str:
    from app.audit_form import rows_jsonl

    return rows_jsonl(found, kept)


def test_a_cache_of_another_sae_still_shows_the_run(watched, tmp_path, monkeypatch):
    app, _ = watched
    name = one(app.query_params["set"])
    other = fake_cache(tmp_path / "other", 60)
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(other))
    seen = run_page("monitor", cache="other", set=name)
    assert not seen.exception
    assert "another SAE" in words(seen)
