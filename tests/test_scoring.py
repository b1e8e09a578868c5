"""Scores of messages are those of the plainest code, whatever else is read with them."""

import numpy as np
import pytest
import torch

from explorer.directions import difference_of_means
from explorer.errors import SteeringError
from explorer.generate import Steering
from explorer.sae import SparseCoder
from explorer.scoring import Probe, Scorer, rendered
from explorer.transcripts import TEXT, Message, Transcript
from tests.helpers import tiny_model
from tests.helpers_sae import tiny_sae_folder

TALKS = [
    Transcript("a", (Message("user", "Who rules the sea?"), Message("assistant", "The old king of the bridge."))),
    Transcript(
        "b",
        (
            Message("system", "You are a villain."),
            Message("user", "Kneel!"),
            Message("assistant", ""),
            Message("user", "Hello"),
        ),
    ),
    Transcript("c", (Message(TEXT, "The quick brown fox jumps over the lazy dog."),)),
    Transcript("d", (Message("user", "Hi"), Message("narrator", "Ha ha ha."))),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def steering(model, tmp_path_factory):
    coder = SparseCoder.load(tiny_sae_folder(tmp_path_factory.mktemp("scoring-sae") / "sae"))
    cruel = difference_of_means(
        model,
        ["Kneel before me.", "I will rule."],
        ["A lazy dog.", "A bridge."],
        "blocks.0.hook_resid_post",
        name="cruel",
        title="Cruel",
    )
    return Steering(coder, dict.fromkeys(range(coder.n_features), 2.0) | {5: 0.0}, directions={"cruel": cruel})


def plainly(model, steering, transcript: Transcript, probe: Probe) -> list[tuple[float, float] | None]:
    """Mean and largest of a probe over each message's tokens: one forward pass, token by token."""
    tokens, owners = rendered(model, transcript)
    hook = steering.directions[probe.direction].hook_point if probe.direction else steering.coder.hook_point
    resid = model.activations(torch.tensor(tokens.astype(np.int64))[None], hook)[0].float()
    if probe.direction:
        direction = steering.directions[probe.direction]
        values = (resid.numpy() @ direction.unit - direction.base) / direction.norm
    else:
        values = steering.coder.encode(resid)[:, probe.feature].float().numpy() / steering.maxima[probe.feature]
    found = []
    for number in range(len(transcript.messages)):
        at = [i for i in range(1, len(tokens)) if owners[i] == number and tokens[i] not in model.vocabulary.special]
        found.append((float(values[at].mean()), float(values[at].max())) if at else None)
    return found


def test_scores_are_means_and_maxima_over_each_messages_own_tokens(model, steering):
    probes = [Probe(3), Probe(direction="cruel"), Probe(7)]
    scores = Scorer(model, steering, probes).score(TALKS)
    assert scores.transcript.tolist() == [0, 0, 1, 1, 1, 1, 2, 3, 3]
    assert scores.message.tolist() == [0, 1, 0, 1, 2, 3, 0, 0, 1]
    for column, probe in enumerate(probes):
        expected = [value for talk in TALKS for value in plainly(model, steering, talk, probe)]
        for row, value in enumerate(expected):
            if value is None:
                assert scores.tokens[row] == 0
                assert np.isnan(scores.mean[row, column])
                assert np.isnan(scores.largest[row, column])
            else:
                assert scores.mean[row, column] == pytest.approx(value[0], abs=2e-4), (row, probe.name)
                assert scores.largest[row, column] == pytest.approx(value[1], abs=2e-4), (row, probe.name)


def test_company_changes_no_score(model, steering):
    together = Scorer(model, steering, [Probe(3)]).score(TALKS)
    alone = [Scorer(model, steering, [Probe(3)]).score([talk]) for talk in TALKS]
    np.testing.assert_allclose(together.mean, np.concatenate([a.mean for a in alone]), atol=1e-4)
    np.testing.assert_array_equal(together.tokens, np.concatenate([a.tokens for a in alone]))


def test_a_long_conversation_is_read_in_windows_and_every_token_but_each_windows_first_counts(model, steering):
    long = Transcript("long", (Message(TEXT, "The quick brown fox jumps over the lazy dog. " * 30),))
    n = len(rendered(model, long)[0])
    scores = Scorer(model, steering, [Probe(3)], context=64).score([long])
    assert scores.tokens[0] == n - -(-n // 64)
    assert n > 64


def test_every_message_owns_tokens_with_and_without_a_template(model, tmp_path):
    bare = tiny_model(tmp_path, chat=False)
    for one in (model, bare):
        for talk in TALKS:
            tokens, owners = rendered(one, talk)
            assert len(tokens) == len(owners)
            for number, message in enumerate(talk.messages):
                said = one.vocabulary.text([int(t) for t, o in zip(tokens, owners, strict=True) if o == number])
                assert said.strip() == message.text.strip()


def test_probes_are_spelled_as_edits_are_and_wrong_ones_named(model, steering):
    assert [Probe.of(s).name for s in ("12", "~cruel", " 3 ")] == ["12", "~cruel", "3"]
    for spelled in ("", "~", "-1", "cruel"):
        with pytest.raises(SteeringError, match="no feature"):
            Probe.of(spelled)
    for probe, said in (
        (Probe(10**6), "no feature"),
        (Probe(direction="kind"), "no direction 'kind'"),
        (Probe(5), "never fires"),
    ):
        with pytest.raises(SteeringError, match=said):
            Scorer(model, steering, [probe])
    with pytest.raises(SteeringError, match="an SAE"):
        Scorer(model, Steering(None), [Probe(1)])


def test_no_conversation_has_no_scores(model, steering):
    scores = Scorer(model, steering, [Probe(3)]).score([])
    assert scores.mean.shape == (0, 1)
    empty = Scorer(model, steering, [Probe(3)]).score([Transcript("e", ())])
    assert len(empty.tokens) == 0


def test_the_tokens_of_a_message_average_to_its_score(model, steering):
    """A heatmap shows what the score is made of, in a later window of a long conversation too."""
    probes = [Probe(3), Probe(direction="cruel")]
    long = Transcript(
        "long", tuple(Message(("user", "assistant")[n % 2], f"The king said {n} times no.") for n in range(8))
    )
    for context in (16, 512):
        scorer = Scorer(model, steering, probes, context=context)
        for talk in [*TALKS, long]:
            scores = scorer.score([talk])
            for at in range(len(talk.messages)):
                ids, values = scorer.tokens(talk, at)
                assert values.shape == (len(ids), 2)
                counted = values[~np.isnan(values[:, 0])]
                assert len(counted) == scores.tokens[at]
                if len(counted):
                    np.testing.assert_allclose(counted.mean(0), scores.mean[at], atol=1e-3)
                    np.testing.assert_allclose(counted.max(0), scores.largest[at], atol=1e-3)
