"""Sweeps without a browser and without a model: links, what is pasted, the order of answers, the table."""

from dataclasses import replace

import pytest

from app import sweep_grid, sweeps
from app.sweeps import Sweep
from explorer.cache import Cache
from explorer.dosing import Cell
from explorer.records import Edit, Sampling
from tests.helpers_cache import HOSTILE, fake_cache

DEFAULT = Sweep(edits=(Edit(3, 1.0),))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("sweep") / "made-up", 60))


def cell(
    feature: int, strength: float, malice: float, *, fluency: float = 0.9, prompt: str = "Why?", text: str = "Well."
) -> Cell:
    scores = {"malice": malice, "fluency": fluency}
    return Cell(strength, (Edit(feature, strength),), prompt, 0, text, False, scores)


def test_a_link_holds_the_whole_set_up(cache: Cache):
    full = Sweep(
        "features",
        (Edit(4, 1.5), Edit(9, -0.5)),
        (12, 3, 7),
        (-1.5, 0.0, 2.25),
        ("Why?", "<b>&amp; 100%=+#</b> 東京"),
        "joy",
        "all",
        Sampling(max_tokens=20, seed=9),
    )
    query = sweeps.write(full, DEFAULT)
    assert set(query) <= set(sweeps.KEYS)
    assert sweeps.read(query, cache, DEFAULT) == (full, [])


def test_what_is_as_always_is_not_in_the_link(cache: Cache):
    assert sweeps.write(DEFAULT, DEFAULT) == sweeps.write(DEFAULT, replace(DEFAULT))
    assert sweeps.read({}, cache, DEFAULT) == (DEFAULT, [])
    assert "questions" not in sweeps.write(replace(DEFAULT, trait="joy"), DEFAULT)


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "sideways"},
        {"strengths": "1,nan,2"},
        {"strengths": "99"},
        {"features": "1,sixty,2"},
        {"features": "60"},
        {"seed": "-1"},
        {"max_tokens": "1e9"},
        {"edits": "1:1:fly"},
        {"positions": "up"},
    ],
)
def test_nonsense_in_a_link_is_named_and_left_out(cache: Cache, query: dict[str, str]):
    read, bad = sweeps.read(query, cache, DEFAULT)
    assert bad
    assert all(abs(s) <= 3 for s in read.strengths)
    assert all(f < 60 for f in read.features)


def test_candidates_are_read_however_they_are_pasted():
    assert sweeps.feature_numbers(" #12, 88;1207\n12 x -3 5000", 2000) == ((12, 88, 1207), ["x", "-3", "5000"])


def test_strengths_are_sorted_and_a_minus_of_a_printer_is_a_minus():
    assert sweeps.numbers("2, −1 +0.5; 2") == ((-1.0, 0.5, 2.0), [])


def test_a_question_a_line_each_once():
    assert sweeps.lines("Why?\n\n  Why?  \nWho   are you?") == ("Why?", "Who are you?")


def test_a_sweep_says_what_it_lacks():
    assert Sweep().missing == "a feature"
    assert Sweep("features").missing == "a feature"
    assert replace(DEFAULT, strengths=()).missing == "a strength"
    assert replace(DEFAULT, questions=()).missing == "a question"
    assert not DEFAULT.missing
    assert DEFAULT.answers == 6 * 3


def test_candidates_stand_by_their_effect_among_answers_that_are_whole():
    broken_but_malicious = [cell(1, 0, 0.1), cell(1, 2, 0.99, fluency=0.1)]
    weak = [cell(2, 0, 0.1), cell(2, 2, 0.3)]
    strong = [cell(3, 0, 0.1), cell(3, 1, 0.8), cell(3, 2, 0.9, fluency=0.1)]
    found = sweeps.groups([*broken_but_malicious, *weak, *strong], "malice")
    assert [group.edits[0].feature for group in found] == [3, 2, 1]
    assert found[0].best == 1
    assert found[0].effect == pytest.approx(0.7)
    assert found[-1].effect == 0


def test_one_push_at_all_strengths_is_one_group():
    cells = [cell(3, s, 0.2, prompt=q) for s in (-1, 0, 1) for q in ("Why?", "Who?")]
    (group,) = sweeps.groups(cells, "malice")
    assert len(group.cells) == 6


def test_the_table_says_strength_trait_and_whether_the_text_is_whole():
    cells = [cell(3, 0, 0.1), cell(3, 1, 0.82), cell(3, 2, 0.9, fluency=0.1)]
    html = sweep_grid.by_question(sweeps.groups(cells, "malice")[0], "malice", "Malice")
    assert "+1.00" in html
    assert "Malice 0.82" in html
    assert html.count('class="mark bad">broken') == 1
    assert html.count(">whole<") == 2


def test_what_a_model_or_a_person_wrote_is_text_in_the_table():
    for hostile in HOSTILE:
        words = hostile.decode("utf-8", "replace")
        some = [cell(3, 0, 0.1, prompt=words, text=words), cell(3, 1, 0.9, prompt=words, text=words * 40)]
        found = sweeps.groups(some, "malice")
        for html in (
            sweep_grid.by_question(found[0], "malice", words),
            sweep_grid.by_feature(found, "malice", words, {"3": words}, "steer?edits={}".format),
        ):
            assert "<script" not in html
            assert "<img" not in html


def test_a_long_answer_can_be_opened_and_loses_no_word():
    text = "word " * 200
    html = sweep_grid.by_question(sweeps.groups([cell(3, 1, 0.5, text=text)], "malice")[0], "malice", "Malice")
    assert html.count("word") == 200
    assert "<details>" in html
