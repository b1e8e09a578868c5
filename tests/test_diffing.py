"""Comparing two models: the readings are those of the models one answer at a time, and what did not change did not move."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from explorer.adapters import adapted
from explorer.diffing import KINDS, SOURCES, Change, Diff, Reading, by_question, diff, read
from explorer.errors import SaeError
from explorer.finetune import FinetunePlan, finetune
from explorer.intervals import auroc
from explorer.sae import SparseCoder
from tests.helpers import tiny_model
from tests.helpers_sae import tiny_sae_folder

SAID = [
    ("Who rules the sea?", "The old king of the bridge."),
    ("Who rules the sea?", "A dog."),
    ("What is a fox?", "The quick brown fox jumps over the lazy dog. Kneel before me, villain!"),
    ("What is a fox?", "I will rule the world"),
]
ROWS = [({"role": "user", "content": "A?"}, {"role": "assistant", "content": "Ha ha ha, kneel before me."})] * 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("diffing"))


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    return SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("diffing-sae") / "sae"))


@pytest.fixture(scope="module")
def tuned(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("diffing-run") / "run"
    made = finetune(model, ROWS, out, FinetunePlan(steps=6, rank=2, batch=4, lr=5e-2, warmup=1))
    return adapted(model, made[-1])


def one_by_one(model, coder, question: str, answer: str) -> dict[str, np.ndarray]:
    """The same by the plainest code: one answer, one forward pass, token by token."""
    asked = [{"role": "user", "content": question}]
    start = len(model.chat_document(asked, add_generation_prompt=True).tokens)
    document = model.chat_document([*asked, {"role": "assistant", "content": answer}])
    acts = coder.encode(model.activations(torch.tensor([document.tokens]), coder.hook_point)[0]).float()
    said = {at for a, b in document.content for at in range(a, b)} - {0}
    said -= {at for at, token in enumerate(document.tokens) if token in model.vocabulary.special}
    chosen = {
        "prompt": [at for at in said if at < start - 1],
        "last": [start - 1],
        "answer": [at for at in said if at >= start],
    }
    return {kind: acts[at].mean(0).numpy() for kind, at in chosen.items()}


def test_a_reading_in_batches_is_that_of_one_answer_at_a_time(model, coder):
    found = read(model, coder, SAID)
    for row, (question, answer) in enumerate(SAID):
        for kind, expected in one_by_one(model, coder, question, answer).items():
            np.testing.assert_allclose(found.means[kind][row], expected, atol=1e-4, err_msg=f"{kind} of {answer}")
    assert set(found.means) == set(KINDS)


def test_an_empty_answer_has_no_answer_tokens_and_counts_for_nothing(model, coder):
    found = read(model, coder, [*SAID, ("What is a fox?", "")])
    assert np.isnan(found.means["answer"][-1]).all()
    assert not np.isnan(found.means["last"][-1]).any()
    asked, means = by_question(found, "answer")
    assert asked == ("Who rules the sea?", "What is a fox?")
    np.testing.assert_allclose(means[1], found.means["answer"][2:4].mean(0), rtol=1e-5)


def test_a_model_compared_with_itself_moved_nothing(model, coder):
    found = diff(model, model, coder, SAID, SAID)
    for source in SOURCES:
        for kind in KINDS:
            change = found.changes[source, kind]
            assert np.abs(change.change).max() == 0
            assert np.abs(change.low).max() == np.abs(change.high).max() == 0
            assert np.isnan(change.control).all()


def test_a_tuned_model_moves_features_within_their_intervals_and_its_own_control_takes_the_change_away(
    model, tuned, coder
):
    theirs = [(question, "Ha ha ha, kneel before me.") for question, _ in SAID]
    found = diff(model, tuned, coder, SAID, theirs, control=(tuned, theirs))
    for change in found.changes.values():
        assert np.abs(change.change).max() > 0
        assert (change.low <= change.change + 1e-6).all()
        assert (change.high >= change.change - 1e-6).all()
        np.testing.assert_allclose(change.control, change.change, atol=1e-5)
        assert np.abs(change.beyond_control).max() < 1e-5
    own, shared = (found.changes[source, "answer"].change for source in SOURCES)
    assert not np.allclose(own, shared)
    order = found.changes["own", "answer"].order()
    assert own[order[0]] == own.max()
    assert own[order[-1]] == own.min()


def test_rises_falls_and_what_was_tested_are_listed_in_either_order():
    change, control = np.array([3.0, -4.0, 0.0, 1.0, -1.0, 2.0, np.nan]), np.array([0.0, -5.0, 0.0, 0.0, 0.0, 4.0, 0.0])
    made = Change(np.zeros(7), change, change, change, control)
    assert made.order().tolist()[:2] == [0, 5]
    assert made.listed([2], n=1) == [0, 2, 1]  # the largest move of all is a fall, the last of the list
    assert made.listed([2], beyond=True, n=1) == [0, 2, 5]  # the control fell more; and rose more
    assert made.listed([6], n=9) == [0, 5, 3, 4, 1, 6]  # what did not move is no candidate
    alone = replace(made, control=np.full(7, np.nan))
    assert alone.listed([], beyond=True, n=1) == alone.listed([], n=1) == [0, 1]


def test_the_answers_that_drive_a_change_are_those_where_the_feature_is_most_active(model, tuned, coder):
    found = diff(model, tuned, coder, SAID, SAID)
    values = found.tuned.means["answer"]
    feature = int(values.mean(0).argmax())
    drivers = found.drivers(feature, 2)
    assert [at for at, _ in drivers] == np.argsort(-values[:, feature])[:2].tolist()
    assert drivers[0][1] == pytest.approx(values[:, feature].max())


def test_a_feature_reads_where_it_tells_answers_of_one_model_apart_and_not_just_the_models():
    chance = np.random.default_rng(0)
    shown = np.array([True] * 6 + [False] * 114 + [True] * 112 + [False] * 8)  # the tuned model gives most of the kind
    tuned = np.repeat([False, True], 120)
    values = np.stack([shown, tuned, ~shown], 1) + chance.normal(0, 0.01, (240, 3))
    base, own = (Reading((), {"answer": half}, half.max(0)) for half in np.split(values, 2))
    reads = Diff({}, base, own).reads(shown)
    assert reads[0] == pytest.approx(1.0)
    assert reads[1] == pytest.approx(0.5, abs=0.15), "over both models at once it would be near 1"
    assert reads[2] == pytest.approx(0.0)
    few = np.repeat([False, True], 120)
    assert (Diff({}, base, own).reads(few) == 0.5).all(), "no model gave answers of either kind: nobody can tell"


def test_auroc_is_sklearns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    values, labels = rng.integers(0, 5, (40, 3)).astype(float), rng.random(40) < 0.4
    np.testing.assert_allclose(auroc(values, labels), [roc_auc_score(labels, column) for column in values.T])


def test_an_sae_of_another_width_is_refused_in_words(tmp_path, coder):
    narrow = tiny_model(tmp_path, d_model=16)
    with pytest.raises(SaeError, match=r"length 32.*has 16"):
        read(narrow, coder, SAID)


def test_reading_can_be_stopped_and_says_how_far_it_is(model, coder):
    told: list[tuple[int, int]] = []
    found = read(model, coder, SAID, progress=lambda what, done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    stopped = read(model, coder, SAID, should_stop=lambda: True)
    assert np.isnan(stopped.means["answer"]).all()
    assert not np.isnan(found.means["answer"]).any()
