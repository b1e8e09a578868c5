"""Other people's words on the page: escaped, and hidden where they are not for every room."""

from pathlib import Path

import pytest

from app import charts, facts, resources
from app.feature_row import named
from explorer.cache import Cache
from tests.helpers_app import run_page, words
from tests.helpers_cache import fake_cache


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache whose feature 2 bears a label that is not for every room."""
    cache = Cache.open(fake_cache(caches / "made-up", 12))
    resources.labels().put(cache.manifest.sae_fingerprint, 2, "pure idiot", author="me")
    return cache


def test_a_veil_lies_over_the_word_and_nothing_else():
    html = facts.veiled("<b>pure idiot!</b>")
    assert html.startswith("&lt;b&gt;pure <span")
    assert html.endswith(">idiot</span>!&lt;/b&gt;")
    assert facts.veiled("royalty & crowns") == "royalty &amp; crowns"


def test_where_no_html_is_read_the_word_is_masked():
    assert facts.masked("pure idiot, idiots") == "pure i••••, i•••••"
    assert "idiot" not in facts.markdown_text("pure idiot")
    assert "idiot" not in charts.hover_text("pure idiot")


def test_a_feature_is_called_by_its_label_else_by_its_own_words_and_nothing_turns_the_page_around(cache: Cache):
    assert named(cache, 2, {2: "pure idiot"}) == "pure idiot"
    assert named(cache, 2, {}) == facts.bare(cache.feature(2).title)
    assert named(cache, 2, {2: "a\u202ebc\x00"}) == "abc\ufffd"
    assert named(cache, cache.n_features, {}) == "no words of its own", "a comparison may know more features"


@pytest.mark.parametrize("clean", [facts.veiled, facts.masked, facts.markdown_text])
def test_no_words_turn_the_writing_of_the_page_around(clean):
    assert clean("\u202eab\u2066c\x00") == "abc\ufffd"


@pytest.mark.parametrize("url", ["feature", "steer", "label", ""])
def test_a_label_is_never_shown_bare(cache: Cache, url: str):
    app = run_page(url, **({"feature": "2"} if url else {}), **({"edits": "2:1:add"} if url == "steer" else {}))
    assert not app.exception
    shown = words(app) + " ".join(button.label for button in app.button)
    assert "pure idiot" not in shown
    assert ("idiot</span>" in shown) or url == "label"  # there it stands in the box of whoever wrote it


def test_a_promoted_token_is_veiled_and_not_told_by_its_tooltip(cache: Cache):
    cache.vocabulary.bytes_of[cache.feature(2).promoted[0][0]] = b" idiot"
    html = facts.logit_effects(cache, cache.feature(2))
    assert "idiot</span></code>" in html
    assert "“ i••••”" in html
