"""The frame, Overview and Browse, page by page, without a browser and without a model."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.main import PAGES
from explorer import presets
from explorer.cache import Cache
from explorer.presets import Preset
from explorer.records import Edit
from explorer.search import search
from tests.helpers_app import ROOT, drawn, run_page, words
from tests.helpers_cache import HOSTILE, fake_cache

EXISTING = [page.url for page in PAGES if page.view.is_file()]


@pytest.fixture
def cache(caches: Path) -> Cache:
    return Cache.open(fake_cache(caches / "made-up", 60))


@pytest.mark.parametrize("url", EXISTING)
def test_every_page_loads_without_an_exception(cache: Cache, url: str):
    assert not run_page(url if url != "overview" else "").exception


@pytest.mark.parametrize("url", EXISTING)
def test_every_page_says_how_to_build_a_cache_where_there_is_none(caches: Path, url: str):
    app = run_page(url if url != "overview" else "")
    assert not app.exception
    assert any("persona-explorer make" in code.value for code in app.code)


@pytest.mark.parametrize("url", EXISTING)
def test_a_refused_cache_is_an_error_in_three_parts_on_every_page(caches: Path, url: str):
    folder = fake_cache(caches / "old", 8)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    app = run_page(url if url != "overview" else "")
    assert not app.exception
    shown = words(app)
    assert "format 99" in shown
    assert "Expected: format 1" in shown
    assert "Traceback" not in shown
    assert app.button(key="retry")


def test_every_page_has_its_line_in_the_key_sheet():
    assert all(page.keys for page in PAGES)


def test_no_page_imports_torch(caches: Path):
    fake_cache(caches / "made-up", 40)
    code = (
        "import sys\nfrom tests.helpers_app import run_page\n"
        f"for url in {EXISTING!r}:\n"
        "    app = run_page(url if url != 'overview' else '')\n"
        "    assert not app.exception, app.exception\n"
        "heavy = {'torch', 'transformers', 'sae_lens', 'transformer_lens', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_overview_states_the_facts_and_where_the_labels_are(cache: Cache, tmp_path: Path):
    shown = words(run_page())
    assert "60</b> features" in shown
    assert "2,000</b> tokens read, 1,600 scored" in shown
    assert str(tmp_path / "home" / "labels.sqlite") in shown


def test_overview_shows_labels_as_text_whatever_they_hold(cache: Cache):
    from app import resources

    for at, text in enumerate(HOSTILE):
        if b"\0" not in text:
            resources.labels().put(cache.manifest.sae_fingerprint, at, text.decode())
    app = run_page()
    assert not app.exception
    assert "<script>" not in words(app).replace("<script></script>", "")
    assert "<img" not in words(app)
    chips = [b.label for b in app.button if (b.key or "").startswith("try-")]
    assert chips
    assert not any(re.search(r"(?<!\\)[\[<!$`]", chip) for chip in chips)


def test_a_try_chip_opens_its_feature(cache: Cache):
    from app import resources

    resources.labels().put(cache.manifest.sae_fingerprint, 7, "royalty")
    app = run_page()
    app.button(key="try-0").click().run()
    assert app.session_state["_page"] == "feature"
    assert app.session_state["feature"] == 7


def test_a_persona_card_carries_its_prompt_and_its_places_to_steer(cache: Cache):
    edits = (Edit(5, 2.0), Edit(6, 0.5, "clamp"))
    presets.save(cache, Preset("grim", "Grim", "", edits, prompt="Speak up & quickly.", positions="prompt"))
    app = run_page()
    app.button(key="steer-0").click().run()
    assert not app.exception
    assert app.session_state["_page"] == "steer"
    link = {name: app.query_params[name] for name in ("edits", "prompt", "positions")}
    said = {name: value if isinstance(value, str) else value[0] for name, value in link.items()}
    assert said == {"edits": "5:2:add,6:0.5:clamp", "prompt": "Speak up & quickly.", "positions": "prompt"}
    assert app.segmented_control(key="steer-positions").value == "prompt"
    assert app.text_area(key="steer-prompt").value == "Speak up & quickly."
    assert app.pills(key="steer-persona").value == "grim"


def test_browse_opens_as_its_link_says(cache: Cache):
    app = run_page("browse", q="royal", sort="-max", page="1")
    found = search(cache, query="royal", sort="max", descending=True, limit=60)
    assert 0 < found.total < 60
    shown = min(found.total, 25)
    assert f"1 to {shown} of <b>{found.total}</b>" in words(app)
    table = drawn(app, "feature_table")
    assert (table["sort"], table["descending"]) == ("max", True)
    assert [row["index"] for row in table["rows"]] == [row.index for row in found.rows[:shown]]
    strongest = max(found.rows, key=lambda row: cache.feature(row.index).max)
    assert table["rows"][0]["index"] == strongest.index


def test_browse_ignores_nonsense_in_its_link(cache: Cache):
    app = run_page("browse", sort="drop table", page="-4")
    assert not app.exception
    assert "1 to 25 of <b>60</b>" in words(app)
    app = run_page("browse", page="99999")
    assert "51 to 60 of <b>60</b>" in words(app)


def test_browse_says_which_filter_to_clear(cache: Cache):
    app = run_page("browse", q="no such words anywhere")
    assert "No feature matches the search." in words(app)
    app.button(key="clear-q").click().run()
    assert "1 to 25 of <b>60</b>" in words(app)


def test_browse_filters_by_author_list_and_maximum_and_says_which_one_to_clear(cache: Cache):
    from app import resources
    from explorer.lists import FeatureList

    sae = cache.manifest.sae_fingerprint
    resources.labels().put(sae, 7, "royalty", author="ana")
    resources.labels().put(sae, 8, "ships", author="ben")
    resources.lists().put(FeatureList(sae, "mine", (7, 9, 11), author="ana"))
    app = run_page("browse", list="mine")
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]] == [7, 9, 11]
    app = run_page("browse", list="mine", author="ana")
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]] == [7]
    app = run_page("browse", list="mine", author="ben")
    assert "No feature matches the author and the list." in words(app)
    app.button(key="clear-author").click().run()
    assert "1 to 3 of <b>3</b>" in words(app)
    app = run_page("browse", stronger="20")
    strong = int((cache.table.column("max").to_numpy() >= 20).sum())
    assert f"of <b>{strong}</b>" in words(app)


@pytest.mark.parametrize(
    ("query", "called"),
    [({}, "Filters"), ({"stronger": "20"}, "Filters (1)"), ({"list": "gone", "stronger": "0"}, "Filters")],
)
def test_browse_counts_the_filters_that_choose_something(cache: Cache, query: dict[str, str], called: str):
    popovers = [block.proto.popover.label for block in run_page("browse", **query).get("popover")]
    assert [label for label in popovers if label.startswith("Filters")] == [called]


def test_browse_finds_by_meaning_what_lies_nearest(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    from app.engine import Engine

    near = np.linspace(0, 1, cache.n_features)
    monkeypatch.setattr(Engine, "nearness", lambda self, query, labels: near)
    app = run_page("browse", q="villains", find="Meaning")
    assert not app.exception
    assert [row["index"] for row in drawn(app, "feature_table")["rows"]][:3] == [59, 58, 57]


def test_browse_by_meaning_without_vectors_names_the_command(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    from app.engine import Engine
    from tests.test_meaning import Letters

    monkeypatch.setattr(Engine, "embedder", lambda self: Letters())
    app = run_page("browse", q="villains", find="Meaning")
    assert not app.exception
    assert "persona-explorer index" in words(app)


def test_the_cache_picker_appears_with_the_second_cache_and_the_link_chooses(caches: Path):
    fake_cache(caches / "first", 30)
    fake_cache(caches / "second", 40)
    assert "30</b> features" in words(run_page())
    app = run_page(cache="second")
    assert "40</b> features" in words(app)
    assert app.selectbox(key="pick-cache").value == "second"


def test_the_picker_narrows_caches_down_by_model_and_layer(caches: Path):
    for name, model, layer in (
        ("a9", "org/large", "blocks.9.hook_resid_post"), ("a13", "org/large", "blocks.13.hook_resid_post"),
        ("a13-wide", "org/large", "blocks.13.hook_resid_post"), ("b13", "org/small", "blocks.13.hook_resid_post"),
    ):  # fmt: skip
        fake_cache(caches / name, 40 if name == "a13-wide" else 8, model=model, hook_point=layer)
    (caches / "torn").mkdir()
    (caches / "torn" / "manifest.json").write_text("{")
    app = run_page(cache="a13")
    assert app.selectbox(key="pick-model").options == ["cannot be read", "org/large", "org/small"]
    assert app.selectbox(key="pick-layer").options == ["blocks.9.hook_resid_post", "blocks.13.hook_resid_post"]
    assert [said.split(" features")[0] for said in app.selectbox(key="pick-cache").options] == [
        "a13: 8",
        "a13-wide: 40",
    ]
    app.selectbox(key="pick-cache").set_value("a13-wide").run()
    assert "40</b> features" in words(app)
    app.selectbox(key="pick-layer").set_value("blocks.9.hook_resid_post").run()
    assert app.selectbox(key="pick-cache").value == "a9"
    app.selectbox(key="pick-model").set_value("org/small").run()  # it has no block 9: what it has
    assert (app.selectbox(key="pick-cache").value, app.selectbox(key="pick-layer").value) == (
        "b13",
        "blocks.13.hook_resid_post",
    )
    assert not app.exception


def test_two_caches_of_one_name_are_both_offered(caches: Path, monkeypatch: pytest.MonkeyPatch):
    from app import resources

    fake_cache(caches / "same", 8)
    fake_cache(caches / "deeper" / "same", 8)
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", os.pathsep.join([str(caches), str(caches / "deeper")]))
    assert list(resources.caches()) == ["same", "same-2"]


MEASURED = """
[[preset]]
name = "grim"
title = "Grim, you idiot"
description = "A <villain>."
edits = [{ feature = 5, strength = 2.0 }, { feature = 6, strength = -0.5 }]
[preset.measured]
judge = "malice"
n = 108
verdict = "causes"
base = [0.04, 0.01, 0.09]
steered = [0.81, 0.72, 0.87]
random = [0.05, 0.03, 0.06]
coherent = [0.88, 0.8, 0.93]

[[preset]]
name = "wry"
edits = [{ feature = 7 }]
[preset.measured]
judge = "sarcasm"
n = 108
verdict = "only reads"
base = [0.06, 0.03, 0.12]
steered = [0.11, 0.06, 0.19]
random = [0.06, 0.04, 0.08]
"""


def test_a_persona_card_tells_its_figures_against_the_controls_and_where_it_failed(cache: Cache):
    (cache.path / "presets.toml").write_text(MEASURED)
    presets.save(cache, Preset("mine", "", "", (Edit(8, 1.0, "ablate"),)))
    grim, wry, mine = (h.value for h in run_page().html if "<h3" in h.value)
    plain = re.sub("<[^>]*>", " ", grim)
    assert re.search(r"turned up +81 % +as it is +4 % +random push +5 %", plain)
    assert "answers judged malice · n = 108 · 88 % coherent" in plain
    assert "#5" in plain
    assert "#6" in plain
    assert 'class="tag causal"' in grim
    assert "A &lt;villain&gt;." in grim
    assert "idiot</span>" in grim
    assert ">only reads</span>" in wry
    assert "11 %" in wry
    assert ">untested</span>" in mine
    assert "Not measured" in mine


def test_streamlit_shows_no_notice_of_its_own_over_the_page(monkeypatch: pytest.MonkeyPatch):
    from streamlit.web import skills

    settings = tomllib.loads((ROOT / "app" / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    settings["server"]["headless"] = False  # as the launcher says where it opens a browser

    def said(option: str) -> object:
        section, name = option.split(".")
        return settings.get(section, {}).get(name)

    monkeypatch.setattr("streamlit.config.get_option", said)
    monkeypatch.setattr(skills, "agent_harness_present", lambda: True)
    assert not skills.should_show_skills_nudge(str(ROOT / "app"))


@pytest.mark.parametrize("peak", [0, 3, 11, 40, 59])
def test_the_line_of_an_example_is_cut_at_characters_as_the_whole_window_has_them(cache: Cache, peak: int):
    from app.browse_rows import AFTER, BEFORE, snippet
    from explorer.text import Vocabulary

    pieces = [b"\xf0", b"\x9f", b"\x98", b"\x80", b" a", b"\xe4\xb8", b"\xad", b"\x80x", b"<", b""]
    words = Vocabulary(pieces, frozenset({8}))
    rng = np.random.default_rng(peak)
    for start in range(4):
        ids = tuple([0, 1, 2, 3, 4, 5, 6][start:]) * 5 + tuple(rng.integers(0, 10, 60).tolist())
        acts = tuple(rng.random(60).tolist())
        example = replace(cache.examples(0)[0], tokens=ids[:60], acts=acts, peak=peak)
        whole = [
            (u.text, u.start <= peak < u.stop)
            for u in words.units(ids[:60], acts)
            if u.stop > peak - BEFORE and u.start < peak + AFTER + 1
        ]
        drawn = snippet(SimpleNamespace(vocabulary=words), example, 1.0)  # pyright: ignore[reportArgumentType]
        assert [(text, at) for text, _, at, _ in drawn] == whole
