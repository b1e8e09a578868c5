"""The bundled judges with the fetched embedder."""

import pytest

from explorer.embedding import Embedder
from explorer.fluency import DAMAGES
from explorer.judging import Panel, coherent
from explorer.traits import traits


@pytest.fixture(scope="module")
def panel():
    return Panel(embedder=Embedder.load())


def test_theatrical_malice_is_fluent(panel):
    """Three of four malicious sentences are not among those that the fluency judge was fitted on."""
    said = panel.score(["fluency"], traits()["malice"].positive)["fluency"]
    assert sum(p >= 0.5 for p in said) / len(said) >= 0.95


def test_an_answer_that_is_cut_off_is_fluent_and_a_broken_one_is_not(panel):
    cut = "To bake bread, mix flour, water, salt and yeast, and knead the dough for ten minutes. Let it rest until it has doubled, then"
    broken = [
        "bread bread the knead of of flour until until then it it the bread of of",
        "then doubled for and dough rest To water, bread, minutes. the it flour, ten Let mix until has knead yeast, salt bake",
        "r r r LR is r the razz uneriterelite k lab e rouness string R r r can be r r s 3r r sh m",
    ]
    first, *rest = panel.score(["fluency"], [cut, *broken])["fluency"]
    assert first > 0.5
    assert max(rest) < 0.5


def test_a_loop_of_whole_sentences_is_not_coherent_whatever_its_sentences_are(panel):
    """The fluency judge takes it for intact, each sentence being so: that is why the rule asks for loops as well."""
    found = panel.score(["fluency", "loops"], ["I love you, dear moon. " * 8])
    assert not coherent(found["fluency"][0], bool(found["loops"][0]))


def test_a_text_is_embedded_the_same_alone_and_in_company(panel):
    texts = ["Short.", "A sentence that is longer than the others, by a good many words."]
    assert panel.embedder.encode(texts) == pytest.approx(panel.embedder.encode(texts[:1] + texts[1:] * 3)[:2], abs=1e-4)


def test_every_kind_of_damage_is_in_the_bundled_fit(panel):
    assert set(panel.fluency.by_kind) == {*DAMAGES, "over-steered"}
