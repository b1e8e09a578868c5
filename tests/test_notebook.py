"""A cache in a notebook: frames, texts with colours, and nothing of a corpus that a browser would obey."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import explorer
from app.components import heatmap
from explorer.cache import Cache
from explorer.errors import CacheError
from explorer.heatmap_html import LEVELS, STYLE, document, feature_html, level, tokens_html
from explorer.label_files import Label, write_file
from explorer.text import Vocabulary
from tests.helpers_cache import HOSTILE, fake_cache, fake_vocabulary

HOSTILE_FEATURE, SILENT = 3, 5


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 12, dead=(SILENT,)))


class Reader(HTMLParser):
    """The tags, classes and text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.said += data


def classes(html: str) -> list[set[str]]:
    return [set((said["class"] or "").split()) for tag, said in Reader(html).tags if tag == "span" and "class" in said]


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_the_level_of_a_token_is_eight_times_its_share_of_the_top_rounded_up(value, top):
    assert level(value, top) == min(8, math.ceil(8 * value / top))


@pytest.mark.parametrize(("value", "top"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_what_is_not_active_has_no_colour(value, top):
    assert level(value, top) == 0


def test_the_colours_are_those_of_the_app():
    for step in range(1, LEVELS + 1):
        theirs = re.search(rf"\.a{step} {{ --bg: light-dark\((#\w+), (#\w+)\)", heatmap.SHEET)
        assert theirs
        assert f".a{step}{{--bg:light-dark({theirs[1]},{theirs[2]})}}" in STYLE


def test_each_token_gets_the_class_of_its_level_and_the_strongest_one_is_marked():
    words = Vocabulary([b"zero", b" low", b" high", b" top"])
    html = tokens_html(words, [0, 1, 2, 3], [0.0, 1.0, 5.0, 8.0], [True] * 4, top=8.0)
    assert classes(html) == [{"t", "a1"}, {"t", "a5"}, {"t", "a8", "max"}]
    assert Reader(html).said == "zero low high top"
    assert html.startswith('zero <span class="t a1"'), "the space before a word has no colour"


def test_special_and_unscored_tokens_have_no_colour_and_are_never_the_strongest():
    words = Vocabulary([b"<|im_start|>", b"user", b" hello"], {0})
    html = tokens_html(words, [0, 1, 2], [9.0, 7.0, 1.0], [False, False, True], top=8.0)
    assert classes(html) == [{"t", "sp"}, {"t", "un"}, {"t", "a1", "max"}]
    assert html.count("not scored") == 2


def test_a_character_of_several_tokens_is_one_piece_with_its_strongest_colour():
    raw = "😀".encode()
    words = Vocabulary([b"a ", *(bytes([b]) for b in raw), "é".encode()[:1]])
    html = tokens_html(words, [0, 1, 2, 3, 4], [0.0, 1.0, 8.0, 0.0, 0.0], [True] * 5, top=8.0)
    assert Reader(html).said == "a 😀"
    assert classes(html) == [{"t", "a8", "max", "iso"}]
    assert "\ufffd" in tokens_html(words, [5], [1.0], [True], top=1.0), "a part of a character is shown as one"


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=8), st.data())
def test_no_token_of_any_bytes_becomes_a_tag(tokens, data):
    words = Vocabulary([*tokens, *HOSTILE])
    ids = list(range(len(words)))
    acts = data.draw(st.lists(st.floats(0, 10), min_size=len(ids), max_size=len(ids)))
    read = Reader(tokens_html(words, ids, acts, [True] * len(ids), top=10.0, window=0))
    assert {tag for tag, _ in read.tags} <= {"span"}
    assert all(said.keys() <= {"class", "title"} for _, said in read.tags)
    assert not read.open


def test_hostile_strings_are_text_wherever_a_page_shows_them(cache):
    html = feature_html(
        cache,
        HOSTILE_FEATURE,
        label='"><img src=x onerror=alert(1)>',
        note="</section><script>",
        examples=cache.examples(3),
        whole=True,
    )
    read = Reader(document("<script>alert(1)</script>", [html], note="<b>"))
    known = {"html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3", "p", "b"}
    assert {tag for tag, _ in read.tags} <= known | {"div", "code", "span", "details", "summary"}
    assert not any(name.startswith("on") or name in ("src", "href") for _, said in read.tags for name in said)
    assert "<script>alert(1)</script>" in read.said
    assert "\u202e" not in read.said
    assert "\0" not in read.said
    assert not re.search(r"https?:|url\(|@import", STYLE)


def test_a_feature_shows_itself_with_figures_tokens_and_texts(cache):
    feature = explorer.open(cache.path).feature(0)
    html, found = feature._repr_html_(), cache.feature(0)
    said = Reader(html).said
    assert f"max {found.max:.3g}" in said
    assert f"{found.density:.3%}" in said
    assert cache.vocabulary.piece(found.promoted[0][0]) in said
    assert html.count('class="row"') == 12
    assert f"#0 ({found.title})" in repr(feature)
    assert f"max {found.max:.3g}" in repr(feature)


def test_a_text_with_words_that_the_app_blurs_is_folded_away(cache):
    flagged = [example for example in cache.examples(0) if example.flagged]
    assert flagged
    html = explorer.open(cache.path).examples(0)._repr_html_()
    assert html.count("<summary>offensive words in this text</summary>") == len(flagged)


def test_no_notebook_sets_what_stands_between_two_dollar_signs_as_mathematics(cache):
    book, both = explorer.open(cache.path), {"tex2jax_ignore", "mathjax_ignore"}
    feature, frame = book.feature(HOSTILE_FEATURE), book.features
    outputs: list[Any] = [
        feature,
        feature.examples,
        frame,
        frame.head(3),
        frame.query("max > 0")[["title", "promoted"]],
    ]
    for output in outputs:
        outermost = next(said for tag, said in Reader(output._repr_html_()).tags if "class" in said)
        assert both <= set((outermost["class"] or "").split())


def test_a_silent_feature_says_so(cache):
    view = explorer.open(cache.path).feature(SILENT)
    assert "No text of the corpus activates this feature" in view._repr_html_()
    assert "no text of the corpus activates this feature" in repr(view)


def test_the_features_are_a_frame_with_labels_and_tokens_as_words(tmp_path):
    path = fake_cache(tmp_path / "cache", 8)
    made = Cache.open(path)
    write_file([Label(made.manifest.sae_fingerprint, 2, "ships")], path / "labels.csv")
    book = explorer.open(path)
    frame = book.features
    assert list(frame.index) == list(range(8))
    assert len(book) == 8
    assert frame.loc[2, "label"] == "ships"
    assert frame.loc[1, "label"] == ""
    assert frame.loc[2, "max"] == pytest.approx(made.feature(2).max)
    assert frame.loc[2, "promoted"][0] == fake_vocabulary().piece(made.feature(2).promoted[0][0])
    assert "ships" in repr(book.feature(2))
    assert "ships" in book.feature(2)._repr_html_()


def test_examples_are_a_sequence(cache):
    found = explorer.open(cache.path).examples(0, "top")
    assert [e.rank for e in found] == list(range(len(found)))
    assert found[0].value == cache.examples(0)[0].value
    assert len(found) == 24


def test_what_is_not_there_is_refused_in_words(cache):
    with pytest.raises(CacheError, match="no folder"):
        explorer.open("nowhere")
    with pytest.raises(CacheError, match="no feature 99"):
        explorer.open(cache.path).feature(99)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, explorer; sys.exit(bool({'torch', 'pandas', 'pyarrow', 'numpy', 'sqlalchemy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
