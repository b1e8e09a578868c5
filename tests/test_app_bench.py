"""The bench round a steered answer, without a browser and without a model: next tokens, controls, side effects, the dose strip."""

from collections.abc import Callable

import pytest

from app import controls, next_tokens
from app.controls import Told
from explorer.cache import Cache
from explorer.records import Edit
from tests.helpers_cache import HOSTILE, fake_cache

STEERED = Told("Steered", "steered", "Kneel.", {"malice": 0.9})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("bench") / "made-up", 60))


def random_ones(*scores: float) -> list[Told]:
    return [Told(f"Random {at}", "random", "Well.", {"malice": score}) for at, score in enumerate(scores)]


def test_the_page_says_whether_a_random_push_would_do_the_same():
    said = controls.verdict([STEERED, *random_ones(0.1, 0.2, 0.3)], "malice", "Malice")
    assert said == "Would a random push do the same? Here 0 of 3 random directions of the same length did."
    assert "2 of 3" in controls.verdict([STEERED, *random_ones(0.7, 0.2, 0.8)], "malice", "Malice")


def test_a_flipped_sign_and_another_feature_are_no_random_directions():
    others = [Told("Flipped", "flipped", "", {"malice": 0.9}), Told("#4", "feature", "", {"malice": 0.9})]
    assert "0 of 1 " in controls.verdict([STEERED, *random_ones(0.1), *others], "malice", "Malice")


def test_where_the_steered_answer_shows_nothing_no_verdict_is_made_up():
    mild = Told("Steered", "steered", "Hello.", {"malice": 0.2})
    assert "nothing to do the same" in controls.verdict([mild, *random_ones(0.1)], "malice", "Malice")
    unjudged = Told("Steered", "steered", "Hello.", {})
    assert "no judge" in controls.verdict([unjudged], "malice", "Malice")


def test_another_feature_is_alive_and_pushed_as_hard(cache: Cache):
    edits = (Edit(3, -0.5), Edit(7, 2.0, "clamp"))
    (other,) = controls.another(cache, edits)
    assert other.feature in cache.live
    assert other.feature not in (3, 7)
    assert (other.strength, other.mode) == (2.0, "clamp")
    assert controls.another(cache, edits) == (other,)


def test_the_next_token_table_says_what_steering_did_to_each_probability():
    html = next_tokens.table([(" the", 0.5), (" a", 0.25)], [(" a", 0.6), (" doom", 0.1)])
    assert "+35.0 points" in html
    assert "not among the ten before" in html
    assert "50.0 %" in html


def test_blank_tokens_can_be_seen():
    html = next_tokens.table([("\n\n", 0.5)], [(" ", 0.5)])
    assert ">↵↵<" in html
    assert ">·<" in html


@pytest.mark.parametrize("draw", [
    lambda text: next_tokens.table([(text, 0.5)], [(text, 0.5)]),
    lambda text: controls.cards([Told(text, "random", text, {"malice": 0.5})], "malice", text),
])  # fmt: skip
def test_what_a_model_wrote_is_text(draw: Callable[[str], str]):
    for hostile in HOSTILE:
        html = draw(hostile.decode("utf-8", "replace"))
        assert "<script" not in html
        assert "<img" not in html
