"""Zeroing a feature: nothing where it is silent, the same as steering says, and at the last layer what can be worked out by hand."""

import json
import math
from pathlib import Path

import pytest
import torch

from explorer import cli
from explorer.ablation import _spearman, ablate, judge
from explorer.build import build
from explorer.cache import Cache
from explorer.errors import SteeringError
from explorer.generate import Row, Steering, next_logits
from explorer.model import LanguageModel
from explorer.records import Edit
from explorer.sae import SparseCoder
from tests.helpers import TEXT, tiny_model
from tests.helpers_sae import tiny_sae

LAST = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def coder() -> SparseCoder:
    return SparseCoder(tiny_sae(), "tiny")


@pytest.fixture(scope="module")
def tokens(model: LanguageModel) -> tuple[int, ...]:
    return model.text_document(TEXT[0]).tokens


def acts(model, coder, tokens) -> torch.Tensor:
    return coder.encode(model.activations(torch.tensor([tokens]), coder.hook_point)[0])


def busiest(model, coder, tokens) -> int:
    """A feature that fires on some tokens and not on all."""
    fires = (acts(model, coder, tokens) > 0).sum(0)
    return int(torch.where(fires < len(tokens) - 1, fires, 0).argmax())


def test_a_feature_that_does_not_fire_changes_exactly_nothing(model, coder, tokens):
    silent = int((acts(model, coder, tokens) > 0).sum(0).argmin())
    assert not (acts(model, coder, tokens)[:, silent] > 0).any()
    found = ablate(model, coder, silent, tokens, promoted=range(10, 20))
    assert set(found.loss) == set(found.divergence) == {0.0}
    assert (found.lose, found.gain, found.fires, found.verdict.words) == ((), (), 0, "silent")
    assert all(math.isnan(value) for value in found.direct_loss)


def test_nothing_changes_before_the_first_token_on_which_it_fires(model, coder, tokens):
    feature = busiest(model, coder, tokens)
    found = ablate(model, coder, feature, tokens)
    first = next(at for at, act in enumerate(found.acts) if act > 0)
    assert not any(found.divergence[:first])
    assert found.divergence[first] > 0
    assert all(value >= -1e-5 for value in found.divergence)
    assert found.loss[-1] == 0


@pytest.mark.parametrize("mode", [("ablate", 1.0), ("clamp", 0.0), ("scale", 0.0)])
def test_it_equals_the_steering_modes_that_switch_a_feature_off(model, coder, tokens, mode: tuple[str, float]):
    feature = busiest(model, coder, tokens)
    found = ablate(model, coder, feature, tokens)
    rows = [Row(tokens), Row(tokens, (Edit(feature, mode[1], mode[0]),))]
    logits = next_logits(model, rows, Steering(coder, {feature: 2.0}, positions="all")).log_softmax(-1)
    steered = float((logits[0].exp() * (logits[0] - logits[1])).sum())
    assert found.divergence[-1] == pytest.approx(steered, abs=1e-4)
    assert steered > 1e-3


def test_the_loss_is_on_the_token_that_follows(model, coder, tokens):
    feature = busiest(model, coder, tokens)
    found = ablate(model, coder, feature, tokens)
    at = max(range(len(tokens) - 1), key=lambda n: abs(found.loss[n]))
    rows = [Row(tokens[: at + 1]), Row(tokens[: at + 1], (Edit(feature, 1.0, "ablate"),))]
    logits = next_logits(model, rows, Steering(coder, {feature: 2.0}, positions="all")).log_softmax(-1)
    assert found.loss[at] == pytest.approx(float(logits[0, tokens[at + 1]] - logits[1, tokens[at + 1]]), abs=1e-4)


def test_at_the_last_layer_the_logits_change_by_activation_times_direction_times_unembedding(model, tokens):
    coder = SparseCoder(tiny_sae(hook=LAST), "tiny")
    feature = busiest(model, coder, tokens)
    found = ablate(model, coder, feature, tokens)
    resid = model.activations(torch.tensor([tokens]), LAST)[0]
    only = coder.direction(feature)
    firing = [at for at, act in enumerate(found.acts) if act > 0]
    expected = []
    for at in firing:
        after = resid[at] - found.acts[at] * only
        unembedding, eps = model.unembedding(), model.hf.config.rms_norm_eps
        norm = [(x.pow(2).mean() + eps).sqrt() for x in (resid[at], after)]
        # the logits times the final norm's scale differ by exactly this
        direct = -found.acts[at] * (only @ unembedding.T)
        expected.append((resid[at] @ unembedding.T + direct) / norm[1] - resid[at] @ unembedding.T / norm[0])
    change = torch.stack(expected).mean(0)
    for moved in (*found.lose, *found.gain):
        assert moved.logit == pytest.approx(float(change[moved.token]), abs=2e-3)


def test_at_the_last_layer_everywhere_and_here_only_are_the_same(model, tokens):
    coder = SparseCoder(tiny_sae(hook=LAST), "tiny")
    found = ablate(model, coder, busiest(model, coder, tokens), tokens)
    known = [at for at, value in enumerate(found.direct_divergence) if not math.isnan(value)]
    assert known
    for at in known:
        assert found.direct_divergence[at] == pytest.approx(found.divergence[at], abs=1e-4)
        assert found.direct_loss[at] == pytest.approx(found.loss[at], abs=1e-4)


def test_tokens_that_lose_and_gain_are_in_order_and_on_their_side(model, coder, tokens):
    found = ablate(model, coder, busiest(model, coder, tokens), tokens)
    falls, rises = [m.logit for m in found.lose], [m.logit for m in found.gain]
    assert falls == sorted(falls)
    assert rises == sorted(rises, reverse=True)
    assert falls[0] < 0 < rises[0]
    assert not {m.token for m in (*found.lose, *found.gain)} & model.vocabulary.special


def test_promoted_tokens_are_confirmed_by_what_falls_and_refused_by_what_rises():
    fall, usable = torch.arange(1000.0) - 500, torch.ones(1000, dtype=torch.bool)
    usable[999] = False
    true = judge(list(range(998, 988, -1)), fall, fall, usable)
    assert (true.words, true.overlap, true.listed) == ("confirmed", 10, 10)
    assert true.correlation == pytest.approx(1)
    false = judge(list(range(10)), fall, -fall, usable)
    assert (false.words, false.overlap) == ("not borne out", 0)
    assert false.correlation == pytest.approx(-1)
    half = judge(list(range(940, 950)), fall, fall, usable)
    assert (half.words, half.overlap) == ("partly", 0)


def test_rank_correlation_does_not_mind_the_scale():
    x = torch.tensor([0.1, 5.0, 2.0, -3.0])
    assert _spearman(x, x.exp()) == pytest.approx(1)
    assert _spearman(x, torch.tensor([1.0, 0.0, 3.0, 2.0])) == pytest.approx(-0.4)


def test_what_cannot_be_zeroed_is_refused_in_words(model, coder, tokens):
    with pytest.raises(SteeringError, match="no feature 99"):
        ablate(model, coder, 99, tokens)
    with pytest.raises(SteeringError, match="0 tokens"):
        ablate(model, coder, 0, ())


def test_the_command_ablates_an_example_of_a_cache(model, coder, tmp_path: Path, capsys):
    coder.save(tmp_path / "sae")
    own = SparseCoder.load(tmp_path / "sae")
    texts = [model.text_document(f"{a} {b}") for a in TEXT for b in TEXT]
    cache = Cache.open(build(model, own, texts, tmp_path / "tiny", corpus="texts", context_size=64))
    manifest = json.loads((cache.path / "manifest.json").read_text())
    (cache.path / "manifest.json").write_text(
        json.dumps(manifest | {"model": str(tmp_path / "model"), "sae": str(tmp_path / "sae")})
    )
    model.hf.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    feature = str(cache.live[0])
    arguments = ("ablate", str(cache.path), feature, "--example", "1", "--device", "cpu")
    assert cli.main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tokens"] == list(cache.examples(int(feature))[1].tokens)
    assert max(said["divergence"]) > 0
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "promoted tokens" in out
    assert cli.main(["ablate", str(cache.path), feature, "--example", "9999"]) == 2
    assert "examples" in capsys.readouterr().err
