"""Nonsense in every link, words made to break programs in every label, files that go away meanwhile: no page falls over."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import resources, state
from app.engine import Engine
from app.main import PAGES
from explorer import directions
from explorer.assignments import Queue
from explorer.cache import Cache
from explorer.errors import JudgeError, SteeringError
from explorer.packaged import home
from explorer.traits import remove_trait, save_trait
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_judges import grim
from tests.helpers_map import fake_map
from tests.test_meaning import Letters

URLS = [page.url if page is not PAGES[0] else "" for page in PAGES]
SAID = (
    "feature other cache colour q page sort status density find author tag remarked moved stronger by what queue size seed list text tab "
    "rare often as set "
    "probe statistic role threshold message diff at lab with script step edits prompt system positions history controls plain model "
    "temperature max_tokens strengths questions show ctx scale breaks"
)
"""What links of the app say; a key that is not among them is not looked at."""
NONSENSE = ("abc", "-1", "99999999", "1e400", "../../etc", "<b>x</b>", "0,1", "\u202e\u0661 \U0001f9ff", "x" * 5000)


@pytest.fixture
def cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(Engine, "embedder", lambda self: Letters())  # a real one may still be read as the tests end
    made = Cache.open(fake_cache(caches / "made-up", 24))
    fake_map(made)
    return made


def whole(app: AppTest) -> str:
    """What a page says: something, and nothing of the program's insides."""
    assert not app.exception, app.exception[0].message
    said = words(app)
    assert said.strip()
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("url", URLS)
def test_nonsense_in_every_key_of_a_link_is_no_exception(cache: Cache, url: str):
    app = run_page(url)
    for nonsense in NONSENSE:
        for key in SAID.split():
            app.query_params[key] = nonsense
        assert "<b>x</b>" not in whole(app.run()), "a link's words are no markup"


@pytest.mark.parametrize("url", URLS)
def test_words_made_to_break_programs_are_text_wherever_people_wrote_them(cache: Cache, url: str):
    sae = cache.manifest.sae_fingerprint
    texts = [text.decode().replace("\0", " ") for text in HOSTILE]
    for at, text in enumerate((*texts, "# h *b* [a](b) :material/x:", "w" * 400, "\U0001f9ff \u0634")):
        short = "".join(c for c in text if c.isprintable())[:40].strip() or "x"
        resources.labels().put(sae, at, text, text, author="kim")
        resources.labels().put(sae, at, text[::-1], text, author=short)
        resources.lists().add(sae, short, [at], author=short)
        resources.assignments().put(Queue(sae, short, (at,), (short, "kim"), author=short))
        resources.remarks().comment(sae, 0, text.strip() or "x", author=short)
        resources.remarks().tag(sae, 0, short, author=short)
    query = {state.FEATURE: "0", "other": "1", "q": "script", "edits": "0:1:add,1:1:add", "colour": "label state"}
    said = whole(run_page(url, **query))
    if url == "label":
        whole(run_page(url, what="Disagreements"))
    assert "<script>" not in said
    assert "<img" not in said


@pytest.mark.parametrize("url", URLS)
def test_files_that_go_away_while_the_app_runs_are_an_error_in_words(cache: Cache, url: str):
    app = run_page(url)
    whole(app)
    for at, gone in enumerate(("examples.parquet", "tokens.parquet", "features.parquet", "")):
        shutil.rmtree(cache.path) if not gone else (cache.path / gone).unlink()
        app.query_params[state.FEATURE] = str(at + 6)
        whole(app.run())


@pytest.mark.parametrize("manifest", ['{"format": 1}', "[" * 200_000, ""])
def test_another_cache_that_says_nothing_of_itself_is_not_in_the_way(cache: Cache, manifest: str):
    (other := cache.path.parent / "another").mkdir()
    (other / "manifest.json").write_text(manifest)
    app = run_page("browse", cache=cache.path.name)
    assert "24" in whole(app)
    assert list(resources.manifests()) == sorted(["another", cache.path.name])


@pytest.mark.parametrize("url", URLS)
def test_a_labels_database_that_is_none_is_an_error_in_words(cache: Cache, url: str):
    path = home() / "labels.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not a database, " * 900)
    said = whole(run_page(url))
    if url not in ("monitor", "judges", "present"):  # these ask for no label before there is something to show
        assert "labels.sqlite" in said


@pytest.mark.parametrize("url", ["feature", "label"])
def test_a_labels_database_that_can_no_longer_be_written_keeps_what_was_typed_and_says_so(cache: Cache, url: str):
    sae = cache.manifest.sae_fingerprint
    resources.labels().put(sae, 1, "royalty", author="kim")
    app = run_page(url, feature="0")
    with closing(sqlite3.connect(home() / "labels.sqlite")) as connection:  # as in a folder that one may only read
        said = "attempt to write a readonly database"
        connection.execute(f"create trigger no before insert on label_changes begin select raise(abort, '{said}'); end")
    box = next(box for box in app.text_input if f"{url}-text" in (box.key or ""))
    box.set_value("ships").run()
    assert "readonly" in whole(app)
    assert next(box for box in app.text_input if f"{url}-text" in (box.key or "")).value == "ships"
    assert resources.labels().all(sae).keys() == {1}


@pytest.mark.parametrize("content", ["{", "5", "[1]", "[" * 9000])
@pytest.mark.parametrize("url", ["browse", "map", "compare"])
def test_a_damaged_comparison_is_told_by_compare_and_takes_no_other_page_away(cache: Cache, url: str, content: str):
    place = cache.path / "diffs" / "one"
    place.mkdir(parents=True)
    (place / "compared.json").write_text(content)
    said = whole(run_page(url))
    assert ("compared.json" in said) == (url == "compare")


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"{", b"[1]"])
def test_a_damaged_cache_takes_no_page_of_another_away(cache: Cache, caches: Path, content: bytes):
    (caches / "zzz").mkdir()
    (caches / "zzz" / "manifest.json").write_bytes(content)
    for url in ("", "feature", "browse"):
        assert "manifest" not in whole(run_page(url, cache="made-up")).lower()
        assert "manifest" in whole(run_page(url, cache="zzz")).lower() or "cache format" in words(
            run_page(url, cache="zzz")
        )


WATCHED = json.dumps(
    dict.fromkeys(("log", "model", "model_fingerprint", "sae_fingerprint"), "a")
    | {"probes": ["1"], "context": 1, "shard": 32}
)


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '{"probes": ["1"]}', WATCHED, WATCHED.replace('["1"]', "1")])
def test_a_damaged_run_is_left_out_of_the_list_and_told_where_it_is_opened(cache: Cache, content: str):
    run = home() / "monitor" / "mine"
    run.mkdir(parents=True)
    (run / "monitor.json").write_text(content)
    (run / "scores-00000.parquet").write_bytes(b"no table")
    assert "None yet" in whole(run_page("monitor"))
    said = whole(run_page("monitor", set="mine"))
    assert "Remove the folder and run again" in said


def test_one_damaged_file_of_labels_takes_labelling_from_no_other_cache(cache: Cache, caches: Path):
    other = Cache.open(fake_cache(caches / "other", 12))
    (other.path / "labels.csv").write_text("nonsense\n1\n")
    resources.labels().put(other.manifest.sae_fingerprint, 0, "still here", author="kim")
    assert run_page("label", cache="made-up").text_input
    assert "labels.csv" not in whole(run_page("label", cache="made-up", feature="0"))
    said = whole(run_page("feature", cache="other", feature="0"))
    assert "labels.csv: Column" in said
    assert "still here" in said, "what people wrote is there all the same"


def test_a_damaged_trait_is_told_and_removed_on_judges_and_takes_nothing_away(cache: Cache):
    place = home() / "traits"
    place.mkdir(parents=True)
    (place / "mine.csv").write_text("text,label\nhello,2\n")
    for url in ("steer", "sweep", "compare", "present"):
        assert "mine.csv" not in whole(run_page(url))
    app = run_page("judges")
    assert "mine.csv" in whole(app)
    app.button(key="judges-forget-mine").click().run()
    assert "mine.csv" not in whole(app)
    assert not list(place.iterdir())


def test_a_disk_that_refuses_is_a_sentence(cache: Cache):
    home().mkdir(parents=True, exist_ok=True)
    (home() / "traits").write_text("no folder")
    with pytest.raises(JudgeError, match="cannot be written"):
        save_trait(grim())
    (home() / "traits").unlink()
    (home() / "traits" / "mine.csv").mkdir(parents=True)
    with pytest.raises(JudgeError, match="cannot be removed"):
        remove_trait("mine")
    (directions.own(cache) / "mine.safetensors").mkdir(parents=True)
    with pytest.raises(SteeringError, match="cannot be removed"):
        directions.remove(cache, "mine")
