"""Runs of Steer that go on while nobody draws, and answers as they are drawn."""

from pathlib import Path

import pytest

from app import answers
from app.runs import Answer, Question, Run
from explorer.cache import Cache
from explorer.records import Edit, Sampling
from tests.helpers import until
from tests.helpers_cache import fake_cache
from tests.helpers_steer import FakeEngine, run


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


def test_stop_ends_within_a_token_and_keeps_the_text(cache: Cache):
    engine = FakeEngine(cache, endless=True)
    going = Run(engine, Question("Hello", "", (Edit(1),), "answer", Sampling())).start()
    until(lambda: len(going.steered.pieces) >= 5)
    going.stop()
    n = len(going.steered.pieces)
    assert engine.closed.wait(2)
    assert (going.phase, len(going.steered.pieces)) == ("stopped", n)
    assert f"stopped after {n} tokens" in answers.grid(going)


def test_a_run_that_nobody_watches_ends_by_itself(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.runs.PATIENCE", 0.1)
    engine = FakeEngine(cache, endless=True)
    going = Run(engine, Question("Hello", "", (), "answer", Sampling())).start()
    assert going.wait(5)
    assert engine.closed.wait(2)
    assert going.phase == "stopped"


def test_the_next_run_stops_the_one_before_and_its_words_stay_until_new_ones_come(cache: Cache):
    engine = FakeEngine(cache)
    first = run(engine)
    second = Run(engine, Question("Other", "", (Edit(2),), "answer", Sampling()), first)
    assert not second.reused
    assert '<p class="stale">I will rule you!</p>' in answers.grid(second)
    third = run(engine, first, edits=(Edit(2, -1.0),))
    assert third.reused
    assert third.baseline.text == "I will help."


def test_a_baseline_that_was_cut_short_is_decoded_again(cache: Cache):
    engine = FakeEngine(cache, endless=True)
    first = Run(engine, Question("Hello", "", (Edit(2),), "answer", Sampling())).start()
    until(lambda: first.baseline.pieces)
    second = Run(engine, Question("Hello", "", (Edit(2, 2.0),), "answer", Sampling()), first)
    assert first.phase == "stopped"
    assert not second.reused


def test_a_model_without_a_chat_template_is_given_plain_text():
    question = Question("Who?", "Be brief.", (), "answer", Sampling())
    assert question.messages(chat=False) == "Be brief.\n\nWho?"
    assert question.messages(chat=True)[0] == {"role": "system", "content": "Be brief."}


def test_swearing_is_veiled_and_can_be_focused():
    html = answers.prose(["You ", "id", "iot", "!"])
    assert html.count('class="blur" tabindex="0"') == 1
    assert ">idiot</span>!" in html


def test_a_veiled_word_may_be_cut_by_the_end_of_the_shared_part():
    html = answers.prose(["id", "iot", "!"], same=1)
    assert ">id</span></span>" in html
    assert ">iot</span>!" in html


def test_control_characters_cannot_reach_beyond_their_answer():
    html = answers.prose(["\u202eabc\x00\x1b<b>"])
    assert "\u202e" not in html
    assert "abc\ufffd\ufffd&lt;b&gt;" in html


def test_the_token_that_ends_an_answer_is_not_counted():
    answer = Answer()
    for piece in ("Hi", "", None, "more"):
        answer.take(piece)
    assert (answer.pieces, answer.ended) == (["Hi"], True)


def test_the_rest_of_a_character_is_no_token_of_its_own():
    answer = Answer(most=2)
    for piece in ("Hi", "", "\ufffd", None):
        answer.take(piece)
    assert answer.pieces == ["Hi", "\ufffd"]


def test_a_run_in_the_queue_says_how_long(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    waits = Run(FakeEngine(cache), Question("Hello", "", (), "answer", Sampling()))
    monkeypatch.setattr(Run, "phase", "queued")
    monkeypatch.setattr(Run, "ahead", (2, 6.2))
    assert answers.grid(waits).count("2 ahead, about 6 s") == 2


def judged(cache: Cache, *, looped: bool = False, **scores: float) -> Run:
    made = run(FakeEngine(cache))
    made.steered.looped = looped
    made.scores = {"baseline": {}, "steered": scores}
    return made


def test_an_answer_bears_its_scores_in_words(cache: Cache):
    html = answers.grid(judged(cache, fluency=0.93, malice=0.97, repetition=0.04, perplexity=12.3, loops=0.0))
    for part in (">whole text</span> fluency 0.93", "<b>malice 0.97</b>", "repetition 4.00 %", "perplexity 12.3"):
        assert part in html
    assert "The steered answer is whole." in answers.is_it_broken(judged(cache, fluency=0.9))


@pytest.mark.parametrize(("looped", "fluency"), [(False, 0.2), (True, 0.9)])
def test_a_broken_answer_is_called_broken(cache: Cache, looped: bool, fluency: float):
    made = judged(cache, looped=looped, fluency=fluency)
    assert ">broken text</span>" in answers.grid(made)
    assert "<b>The steered answer is broken.</b>" in answers.is_it_broken(made)


def test_without_judges_nothing_is_said_of_scores(cache: Cache):
    assert "judged" not in answers.grid(judged(cache))
    assert "judged" not in answers.grid(judged(cache, perplexity=float("nan"), unknown=1.0))
