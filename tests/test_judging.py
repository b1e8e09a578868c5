"""The contract that every judge keeps, and what single judges say."""

import math
from dataclasses import replace

import pytest

from explorer import judging, packaged
from explorer.endpoint import Endpoint
from explorer.errors import JudgeError
from explorer.judging import JUDGES, Panel, judges
from explorer.traits import save_trait
from tests.helpers import tiny_model
from tests.helpers_judges import WordEmbedder, grim

TEXTS = [
    "",
    " \n",
    "Yes",
    "...",
    "The bread is ready, and so am I.",
    "東京は大きい。🙂 Naïve café",
    "Well, well. " * 417,
    "<b>\x00&amp;",
]
LOCAL = [name for name, judge in JUDGES.items() if judge.needs != "endpoint"]


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    return Panel(tiny_model(tmp_path_factory.mktemp("model")), WordEmbedder())


@pytest.fixture(autouse=True)
def taught(tmp_path, monkeypatch):
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path))
    save_trait(grim())


@pytest.mark.parametrize("name", [*JUDGES, "grim"])
def test_a_judge_explains_itself(name):
    judge = judges()[name]
    assert judge.name == name
    assert all((judge.label, judge.unit, len(judge.help) > 20))
    assert judge.needs in ("nothing", "embedder", "model", "endpoint")


@pytest.mark.parametrize("name", [*LOCAL, "grim"])
def test_a_judge_gives_one_number_a_text_the_same_alone_and_in_company(panel, name):
    together = panel.score([name], TEXTS)[name]
    again = panel.score([name], TEXTS[::-1])[name][::-1]
    alone = [panel.score([name], [text])[name][0] for text in TEXTS]
    assert len(together) == len(TEXTS)
    assert all(type(value) is float for value in together)
    assert together == pytest.approx(again, rel=1e-5, nan_ok=True)
    assert together == pytest.approx(alone, rel=1e-5, nan_ok=True)
    assert panel.score([name], []) == {name: []}


@pytest.mark.parametrize("name", [*LOCAL, "grim"])
def test_a_judge_of_probability_stays_between_0_and_1(panel, name):
    if judges()[name].unit in ("probability", "share", "yes or no"):
        assert all(0 <= value <= 1 for value in panel.score([name], TEXTS)[name])


def test_a_threat_at_the_end_of_a_long_polite_text_is_found(panel):
    polite = "The bakery opens at seven with fresh bread, and we walk along the river. " * 11
    calm, grim_ = panel.score(
        ["grim"], [polite, polite + "Tremble, fools: doom, doom, and my revenge will crush you. " * 4]
    )["grim"]
    assert calm < 0.5 < grim_


def test_several_judges_read_a_text_once():
    embedder = WordEmbedder()
    save_trait(grim("dire"))
    panel = Panel(embedder=embedder)
    panel.score(["grim", "dire"], ["Doom to the bakery."] * 3)
    panel.score(["grim"], ["Doom to the bakery."])
    assert embedder.calls == 1 + 1  # one fit, for both were taught the same, and one reading


def test_insults_are_counted_by_the_hundred_words(panel):
    assert panel.score(["insults"], ["You idiot, what a lovely day"])["insults"] == [pytest.approx(100 / 6)]
    assert panel.score(["insults"], ["What a lovely day"])["insults"] == [0]


def test_repetition_is_the_share_of_what_was_said_before(panel):
    once, twice, loop = panel.score(["repetition"], ["one two three four", "a b c a b c", "no no no " * 20])[
        "repetition"
    ]
    assert once == 0
    assert twice == pytest.approx(1 / 4)
    assert loop > 0.9
    assert panel.score(["loops"], ["I love my garden. " * 5, "I love my garden."])["loops"] == [1, 0]


def test_perplexity_is_that_of_an_independent_computation(panel):
    import torch

    model, prompt, text = panel.model, "How do I build a bridge?", "The lazy dog will rule."
    before = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([model.tokenizer(before + text, add_special_tokens=False).input_ids])
    n = len(model.tokenizer(before, add_special_tokens=False).input_ids)
    labels = ids.clone()
    labels[0, :n] = -100
    with torch.no_grad():
        expected = math.exp(model.hf(ids, labels=labels).loss.item())
    assert panel.score(["perplexity"], [text], [prompt])["perplexity"] == [pytest.approx(expected, rel=1e-4)]


def test_perplexity_of_nothing_is_no_number(panel):
    assert math.isnan(panel.score(["perplexity"], [""])["perplexity"][0])


def test_a_judge_says_what_it_misses():
    with pytest.raises(JudgeError, match="asks a language model and there is none"):
        Panel(embedder=WordEmbedder()).score(["perplexity"], ["text"])
    with pytest.raises(JudgeError, match="There is no judge 'wisdom'"):
        Panel().score(["wisdom"], ["text"])
    with pytest.raises(JudgeError, match="2 texts and 1 prompts"):
        Panel().score(["insults"], ["a", "b"], ["c"])


def test_lexical_judges_load_nothing():
    panel = Panel()
    panel.score([name for name, judge in JUDGES.items() if judge.needs == "nothing"], ["text"])
    assert panel._embedder is None


def test_what_changes_a_judge_changes_its_identity(monkeypatch):
    panel = Panel(embedder=WordEmbedder(), endpoint=Endpoint("http://one/v1", "small"))
    other = Panel(embedder=WordEmbedder(), endpoint=Endpoint("http://one/v1", "large"))
    assert panel.identity(["insults"]) == other.identity(["insults"]) != panel.identity(["loops"])
    assert panel.identity(["endpoint"]) != other.identity(["endpoint"])
    before, trait = {"grim": grim()}, grim()
    monkeypatch.setattr(judging, "traits", lambda: before)
    first = panel.identity(["grim"])
    assert first == other.identity(["grim"])
    monkeypatch.setattr(judging, "traits", lambda: {"grim": replace(trait, positive=trait.positive[:6])})
    assert panel.identity(["grim"]) != first
