"""What the session and the URL hold between pages, and the model's switch in the top bar."""

from pathlib import Path

import pytest

from app import resources, state
from explorer.cache import Cache
from tests.helpers_app import run_page, words
from tests.helpers_cache import fake_cache
from tests.helpers_steer import FakeEngine


@pytest.fixture
def cache(caches: Path):
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 12))


def test_a_link_to_a_cache_that_is_not_here_shows_no_other_one(cache: Cache):
    app = run_page("browse", cache="../gone")
    assert not app.exception
    assert "&#x27;../gone&#x27; of this link is not here" in words(app)
    assert "Expected: made-up" in words(app)
    assert " of <b>12</b>" not in words(app)
    app.button(key="look-made-up").click().run()
    assert " of <b>12</b>" in words(app)


@pytest.mark.parametrize(
    ("now", "said", "becomes"),
    [
        (7, "12", 12),
        (7, ["11", "12"], 12),
        (False, "true", True),
        (True, ["false"], False),
        ("all", ["dead"], "dead"),
        (("0%", "100%"), ["1%", "10%"], ("1%", "10%")),
        (None, ["Spread"], "Spread"),
    ],
)
def test_what_a_link_says_takes_the_kind_of_the_widget(now: object, said: str | list[str], becomes: object):
    assert state._like(now, said) == becomes


def test_the_switch_shows_what_another_session_has_chosen_and_the_page_what_became_of_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
):
    engine = FakeEngine(cache)
    monkeypatch.setattr(resources, "engine", lambda name: engine)
    app = run_page("steer")
    assert not app.toggle(key="warmup").value
    assert 'class="tag plain">no model<' in words(app)
    engine.warmup = True
    app.run()
    assert app.toggle(key="warmup").value
    assert engine.wait(10)
    assert 'class="tag causal">live<' in words(app.run())
    assert "model ready" in words(app)
