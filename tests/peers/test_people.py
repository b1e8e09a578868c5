"""What people add: labels, lists, comments, explanations, comparisons and conversations."""

import json
from pathlib import Path

import numpy as np
import pytest

from app import resources
from explorer.autointerp import CLOSE, OPEN, plain_passage
from explorer.cache import Cache
from explorer.endpoint import MODEL, URL
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from explorer.snippets import held_out
from explorer.traits import save_trait
from tests.helpers import TEXT
from tests.helpers_app import drawn, run_page, words
from tests.helpers_cache import fake_cache
from tests.helpers_judges import grim
from tests.helpers_steer import tiny_fine_tunes
from tests.peers.helpers import acts, charts, finished, numbers, ran
from tests.test_autointerp import Model, serve


def test_hand_labels(cache: Cache):
    sae = cache.manifest.sae_fingerprint
    app = run_page("feature", feature="9")
    app.text_input(key=f"feature-text-{sae[:12]}-9").set_value("talk of <bridges>").run()
    assert not app.exception
    assert any("<b>#9</b> talk of &lt;bridges&gt;" in h.value for h in app.html)
    (change,) = resources.labels().history(sae, 9)
    assert change.author
    assert change.created_at
    found = drawn(run_page("browse", q="bridges", status="labelled"), "feature_table")["rows"]
    assert [(row["index"], row["name"]) for row in found] == [(9, "talk of <bridges>")]


def test_lists_comments(cache: Cache):
    app = run_page("browse")
    app.segmented_control(key="bulk-which").set_value("These").run()
    app.text_input(key="bulk-numbers").set_value("9, 3")
    app.text_input(key="bulk-name").set_value("for Monday")
    app.button(key="bulk-list").click().run()
    found = drawn(run_page("browse", list="for Monday"), "feature_table")["rows"]
    assert {row["index"] for row in found} == {3, 9}
    key = f"{cache.manifest.sae_fingerprint[:12]}-9"
    app = run_page("label", feature="9")
    app.text_area(key=f"comment-{key}").set_value("fires on code, too")
    app.button(key=f"comment-go-{key}").click().run()
    assert "fires on code, too" in words(run_page("label", feature="9"))


def test_auto_interp_and_scoring(tmp_path: Path, capsys, httpserver, monkeypatch: pytest.MonkeyPatch):
    made = Cache.open(fake_cache(tmp_path / "made-up", 24, n_windows=120, longest=160))  # has silent text enough
    fires = {plain_passage(made, s): int(max(s.acts) > 0) for s in held_out(made, 1).snippets}
    monkeypatch.setenv(URL, httpserver.url_for("/v1"))
    monkeypatch.setenv(MODEL, "clever")
    knows = Model(judge=lambda text: fires.get(text.replace(OPEN, "").replace(CLOSE, "")), text="kings and crowns")
    serve(httpserver, knows)
    (told,) = ran(capsys, "explain", made.path, "--features", "1")["features"]
    assert told["text"] == "kings and crowns"
    assert (told["detection"]["score"], told["fuzzing"]["score"]) == (1.0, 1.0), "who knows where it fires scores one"
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(made.path))
    assert "kings and crowns" in words(run_page("label", feature="1"))
    assert not resources.labels().all(made.manifest.sae_fingerprint), "a suggestion is no label"


def test_two_model_diff(world: Path, model: LanguageModel, tmp_path: Path, capsys):
    (tuned,) = tiny_fine_tunes(world, "gardening")
    save_trait(grim())
    out, prompts = world / "diffs" / "mine", tmp_path / "prompts.txt"
    prompts.write_text("Who rules the world?\nWhat do you bake?\n")
    asked = ("--prompts", prompts, "--judge", "grim", "--answers", "6", "--test", "2", "--dtype", "float32")
    said = ran(capsys, "diff", "--base", model.name, "--tuned", tuned, "--cache", world, "--out", out, *asked)
    assert (said["rates"]["base"]["n"], said["rates"]["tuned"]["n"]) == (6, 6)
    app = run_page("compare")
    assert not app.exception
    assert "gardening" in words(app)
    found = (e.proto for e in app.main if e.type == "bidi_component")  # type: ignore[union-attr]
    shown = [json.loads(proto.json) for proto in found if proto.component_name == "ranking_table"]
    assert {row["index"] for table in shown for row in table["rows"]} >= {one["feature"] for one in said["features"]}


def test_persona_trace_over_a_conversation(model: LanguageModel, coder: SparseCoder, cache: Cache):
    chat = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(TEXT)]
    document = model.chat_document(chat)
    live = acts(model, coder, document.tokens)
    means = np.array([live[a:b].mean(0) for a, b in document.content])
    feature = int((means.min(0) / np.maximum(means.max(0), 1e-9) * (means.max(0) > 0)).argmin())
    app = run_page("monitor")
    app.file_uploader(key="monitor-log").upload("chat.jsonl", json.dumps({"messages": chat}).encode()).run()
    app.text_input(key="monitor-watch-features").set_value(str(feature)).run()
    app = finished(app.button(key="monitor-go").click().run(), "monitor-job")
    app.number_input(key="monitor-on-threshold").set_value(-1.0).run()
    trace = next(c for c in charts(app) if c["layout"]["xaxis"]["title"]["text"] == "message of the conversation")
    expected = means[:, feature] / cache.feature(feature).max
    assert numbers(trace["data"][0]["y"]) == pytest.approx(expected.tolist(), rel=2e-2, abs=2e-3)
