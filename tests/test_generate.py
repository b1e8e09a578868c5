"""Decoding with a change a row: identity, independence of rows, and a model that is never left hooked."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.directions import random_direction
from explorer.errors import SteeringError
from explorer.generate import Row, Steering, _Edits, complete, draw, stream
from explorer.model import LanguageModel
from explorer.records import Edit, Sampling
from explorer.steering import POSITIONS, STEERING_MODES
from tests.helpers import ARCHITECTURES, TEXT, tiny_model

GREEDY = Sampling(max_tokens=12, temperature=0, repetition_penalty=1.0)
WARM = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, repetition_penalty=1.2)


@dataclass
class Rods:
    """Features that are plain directions, for tests of decoding alone."""

    d_in: int
    hook_point: str = "blocks.1.hook_resid_post"
    n_features: int = 8

    def direction(self, feature: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(feature)
        return torch.nn.functional.normalize(torch.randn(self.d_in, generator=generator), dim=0)

    def read(self, feature: int):
        return lambda resid: (resid @ self.direction(feature)).relu()


def steering(model: LanguageModel, positions: str = "answer", **options) -> Steering:
    return Steering(Rods(model.d_model, **options), dict.fromkeys(range(8), 20.0), positions)  # type: ignore[arg-type]


def hooks(model: LanguageModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


def prompt(model: LanguageModel, text: str = TEXT[0]) -> tuple[int, ...]:
    return model.text_document(text).tokens


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_baseline_row_equals_hugging_faces_greedy_generate(model: LanguageModel, penalty: float):
    ids = torch.tensor([prompt(model)])
    theirs = model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, repetition_penalty=penalty,
        pad_token_id=0, top_k=None, top_p=None, temperature=None,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    sampling = Sampling(12, 0, repetition_penalty=penalty)
    rows = [Row(prompt(model)), Row(prompt(model), (Edit(3, 1.0),))]
    assert complete(model, rows, sampling, steering(model))[0] == theirs


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_adding_nothing_equals_the_baseline_token_for_token(model: LanguageModel, sampling: Sampling):
    rows = [Row(prompt(model), seed=5), Row(prompt(model), (Edit(3, 0.0),), seed=5)]
    baseline, steered = complete(model, rows, sampling, steering(model, "all"))
    assert baseline == steered


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_a_rows_text_does_not_depend_on_what_else_is_in_the_batch(model: LanguageModel, sampling: Sampling):
    rows = [
        Row(prompt(model), seed=1),
        Row(prompt(model, TEXT[2]), (Edit(1, 1.0),), seed=2),
        Row(prompt(model, "Ha"), (Edit(2, -1.0, "clamp"), Edit(4, 1.0, "ablate")), seed=3),
        Row(prompt(model, TEXT[3]), seed=1),
    ]
    together = complete(model, rows, sampling, steering(model, "all"))
    alone = [complete(model, [row], sampling, steering(model, "all"))[0] for row in rows]
    assert together == alone


def test_steering_changes_only_the_rows_that_are_steered(model: LanguageModel):
    rows = [Row(prompt(model)), Row(prompt(model), (Edit(0, 3.0),))]
    baseline, steered = complete(model, rows, GREEDY, steering(model))
    assert baseline == complete(model, rows[:1], GREEDY)[0]
    assert steered != baseline


def test_a_steered_step_equals_a_forward_pass_with_the_vector_added_by_hand(model: LanguageModel):
    ids = torch.tensor([prompt(model)])
    vector = 20.0 * Rods(model.d_model).direction(3)

    def by_hand(value: torch.Tensor, hook: object) -> torch.Tensor:
        value = value.clone()
        value[:, -1] += vector
        return value

    logits = model.bridge.run_with_hooks(ids, fwd_hooks=[("blocks.1.hook_resid_post", by_hand)])
    ours = complete(
        model, [Row(prompt(model), (Edit(3, 1.0),))], Sampling(1, 0, repetition_penalty=1.0), steering(model)
    )
    assert ours[0] == [int(logits[0, -1].argmax())]


def test_an_sae_that_reads_before_a_block_steers_what_comes_out_of_the_one_before(model: LanguageModel):
    rows = [Row(prompt(model), (Edit(3, 1.0),))]
    after = complete(model, rows, GREEDY, steering(model, hook_point="blocks.0.hook_resid_post"))
    assert complete(model, rows, GREEDY, steering(model, hook_point="blocks.1.hook_resid_pre")) == after


def test_positions_choose_what_is_steered(llama: LanguageModel):
    touched: dict[str, list[list[int]]] = {}
    for positions in POSITIONS:
        seen: list[list[int]] = []

        class Spy(Rods):
            def read(self, feature: int):
                def look(resid: torch.Tensor) -> torch.Tensor:
                    seen.append([resid.shape[0]])  # noqa: B023
                    return resid[..., 0] * 0

                return look

        at = Steering(Spy(llama.d_model), {0: 1.0}, positions)  # type: ignore[arg-type]
        complete(llama, [Row(prompt(llama), (Edit(0, 1.0, "ablate"),))], Sampling(3, 0), at)
        touched[positions] = seen
    n = len(prompt(llama))
    assert touched == {"answer": [[1]] * 3, "prompt": [[n]], "all": [[n], [1], [1]], "first": [[1]]}


def stepped(model: LanguageModel, row: Row, at: Steering, others: tuple[Row, ...] = ()) -> list[torch.Tensor]:
    """The stream that every block gives out in the first step of a batch, at the row's own tokens."""
    seen: list[torch.Tensor] = []
    handles = []
    try:
        with_edits = stream(model, [row, *others], Sampling(1, 0, repetition_penalty=1.0), at)
        applied = _Edits.applied

        def spying(self: _Edits, state: object):  # our hooks come after those that edit
            stack = ExitStack()
            stack.enter_context(applied(self, state))  # type: ignore[arg-type]
            for block in model.blocks:
                hook = block.register_forward_hook(
                    lambda _m, _i, out: seen.append((out if isinstance(out, torch.Tensor) else out[0])[0])
                )
                handles.append(hook)
                stack.callback(hook.remove)
            return stack

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Edits, "applied", spying)
            list(with_edits)
    finally:
        for handle in handles:
            handle.remove()
    return [one[-len(row.prompt) :] for one in seen]


LEVERS = {"feature": Edit(3, 0.5), "direction": Edit(direction="low", strength=0.5)}


def both(model: LanguageModel, positions: str) -> Steering:
    """Features after block 1, a direction after block 0 and one before block 2, which is after block 1."""
    low = random_direction(15.0, model.d_model, "blocks.0.hook_resid_post", 11, "low")
    high = random_direction(15.0, model.d_model, "blocks.2.hook_resid_pre", 12, "high")
    directions = {"low": replace(low, base=0.5), "high": high}
    return replace(steering(model, positions), directions=directions)


@pytest.mark.parametrize("kind", LEVERS)
@pytest.mark.parametrize("name", STEERING_MODES)
def test_every_mode_leaves_other_positions_and_other_rows_untouched(llama: LanguageModel, name: str, kind: str):
    edit = replace(LEVERS[kind], mode=name)
    tokens, block = prompt(llama), 1 if kind == "feature" else 0
    plain = stepped(llama, Row(tokens), both(llama, "all"))
    for positions, first in (("answer", len(tokens) - 1), ("first", len(tokens) - 1), ("all", 0), ("prompt", 0)):
        changed = stepped(llama, Row(tokens, (edit,)), both(llama, positions))
        assert torch.equal(changed[block][:first], plain[block][:first]), positions
        assert not torch.equal(changed[block][first:], plain[block][first:]) or name == "cap", positions
        bystander = stepped(llama, Row(tokens), both(llama, positions), (Row(tokens, (edit,)),))
        torch.testing.assert_close(bystander[2], plain[2])


@pytest.mark.parametrize("kind", LEVERS)
@pytest.mark.parametrize("name", [name for name, entry in STEERING_MODES.items() if entry.neutral is not None])
def test_a_mode_at_its_neutral_value_equals_the_baseline_token_for_token(llama: LanguageModel, name: str, kind: str):
    edit = replace(LEVERS[kind], mode=name, strength=STEERING_MODES[name].neutral)
    rows = [Row(prompt(llama), seed=5), Row(prompt(llama), (edit,), seed=5)]
    baseline, steered = complete(llama, rows, WARM, both(llama, "all"))
    assert baseline == steered


def test_edits_at_several_layers_at_once_equal_applying_each_by_hand_at_its_layer(model: LanguageModel):
    edits = (
        Edit(3, 0.5, "add"),
        Edit(2, 0.2, "clamp"),
        Edit(direction="low", strength=0.7, mode="orthogonal"),
        Edit(direction="high", strength=-1.0, mode="add"),
    )
    at = both(model, "all")
    low, high, rods = at.directions["low"], at.directions["high"], Rods(model.d_model)
    unit = torch.from_numpy(low.unit)

    def after_0(value: torch.Tensor, hook: object) -> torch.Tensor:
        return value + (0.7 * 15.0 + 0.5 - value @ unit)[..., None] * unit

    def after_1(value: torch.Tensor, hook: object) -> torch.Tensor:
        held = (0.2 * 20.0 - (value @ rods.direction(2)).relu())[..., None] * rods.direction(2)
        return value + 0.5 * 20.0 * rods.direction(3) + held - torch.from_numpy(high.vector)

    hooks = [("blocks.0.hook_resid_post", after_0), ("blocks.1.hook_resid_post", after_1)]
    ids, ours = list(prompt(model)), []
    for _ in range(6):
        logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)
        ours.append(int(logits[0, -1].argmax()))
        ids.append(ours[-1])
        if ours[-1] in model.eos_ids:
            break
    rows = [Row(prompt(model, TEXT[1] + TEXT[2])), Row(prompt(model), edits)]  # the shorter row is padded
    assert complete(model, rows, Sampling(6, 0, repetition_penalty=1.0), at)[1] == ours


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_an_answer_that_is_taken_up_again_goes_on_as_it_would_have(llama: LanguageModel, positions: str):
    edits = (Edit(3, 0.7), Edit(direction="low", strength=0.5, mode="clamp"))
    at, tokens = both(llama, positions), prompt(llama)
    whole = complete(llama, [Row(tokens, edits)], GREEDY, at)[0]
    for said in (1, 4):
        begun = Row((*tokens, *whole[:said]), edits, said=said)
        assert complete(llama, [begun], GREEDY, at)[0][: len(whole) - said] == whole[said:]


def test_directions_alone_need_no_sae_and_unknown_ones_are_refused(llama: LanguageModel):
    at = replace(both(llama, "all"), coder=None)
    rows = [Row(prompt(llama)), Row(prompt(llama), (Edit(direction="low", strength=3.0),))]
    baseline, steered = complete(llama, rows, GREEDY, at)
    assert baseline != steered
    for edit, said in [
        (Edit(direction="lost"), "no direction 'lost'.*one of low, high"),
        (Edit(3), "no SAE was given"),
        (Edit(direction="wide"), "vectors of length 40"),
        (Edit(direction="mlp"), "cannot be steered"),
    ]:
        more = {"wide": random_direction(1.0, 40, "blocks.0.hook_resid_post", 1, "wide")} if "w" in edit.target else {}
        more |= {"mlp": random_direction(1.0, 32, "blocks.0.hook_mlp_out", 1, "mlp")} if "mlp" in edit.target else {}
        with pytest.raises(SteeringError, match=said):
            complete(llama, [Row(prompt(llama), (edit,))], GREEDY, replace(at, directions={**at.directions, **more}))


def test_no_layer_stays_hooked_when_one_of_several_fails(llama: LanguageModel):
    bare, before = hooks(llama), llama.logits(torch.tensor([prompt(llama)]))

    class Broken(Rods):
        def read(self, feature: int):
            def fail(resid: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("broken")

            return fail

    at = replace(both(llama, "all"), coder=Broken(llama.d_model))  # type: ignore[arg-type]
    edits = (Edit(direction="low"), Edit(1, 1.0, "clamp"), Edit(direction="high"))
    with pytest.raises(RuntimeError, match="broken"):
        complete(llama, [Row(prompt(llama), edits)], GREEDY, at)
    assert hooks(llama) == bare
    assert torch.equal(llama.logits(torch.tensor([prompt(llama)])), before)


def test_the_model_is_unhooked_after_an_exception_a_cancel_and_a_closed_stream(llama: LanguageModel):
    ids = torch.tensor([prompt(llama)])
    before, bare = llama.logits(ids), hooks(llama)

    class Broken(Rods):
        def read(self, feature: int):
            def fail(resid: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("broken")

            return fail

    broken = Steering(Broken(llama.d_model), {0: 1.0})  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="broken"):
        complete(llama, [Row(prompt(llama), (Edit(0, 1.0, "ablate"),))], GREEDY, broken)
    asked = iter([False, False, True])
    rows = [Row(prompt(llama), (Edit(0, 3.0),))]
    assert len(list(stream(llama, rows, GREEDY, steering(llama), should_stop=lambda: next(asked)))) == 2
    abandoned = stream(llama, rows, GREEDY, steering(llama))
    next(abandoned)
    assert hooks(llama) == bare, "between two steps nothing may be hooked"
    assert torch.equal(llama.logits(ids), before)
    abandoned.close()
    assert hooks(llama) == bare
    assert torch.equal(llama.logits(ids), before)


def test_generations_in_two_threads_do_not_mix(llama: LanguageModel):
    long = Sampling(40, 0, repetition_penalty=1.0)
    jobs = [[Row(prompt(llama), (Edit(f, 2.0),))] for f in range(3)] + [[Row(prompt(llama))]]
    alone = [complete(llama, rows, long, steering(llama)) for rows in jobs]
    found: list[list[list[int]] | None] = [None] * len(jobs)

    def work(at: int) -> None:
        found[at] = complete(llama, jobs[at], long, steering(llama))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_a_row_ends_with_its_end_token_and_the_others_go_on(llama: LanguageModel):
    rows = [Row(prompt(llama, t), seed=s) for s, t in enumerate(TEXT * 4)]
    answers = complete(llama, rows, Sampling(60, 1.5, 1.0, 1.0))
    ended = [a for a in answers if a[-1] in llama.eos_ids]
    assert ended
    assert all(len(a) == 60 for a in answers if a[-1] not in llama.eos_ids)
    assert not any(t in llama.eos_ids for a in answers for t in a[:-1])


def test_what_cannot_be_steered_is_refused_in_words(llama: LanguageModel):
    row = Row(prompt(llama), (Edit(0, 1.0),))
    for wrong, words in [
        (Row(prompt(llama), (Edit(99, 1.0),)), "no feature 99"),
        (Row(prompt(llama), (Edit(0, 1.0, "shout"),)), "no steering mode"),
        (Row(()), "empty prompt"),
        (Row(prompt(llama) * 200), "at most 512"),
    ]:
        with pytest.raises(SteeringError, match=words):
            complete(llama, [wrong], GREEDY, steering(llama))
    with pytest.raises(SteeringError, match="cannot be steered"):
        complete(llama, [row], GREEDY, steering(llama, hook_point="blocks.1.hook_mlp_out"))
    with pytest.raises(SteeringError, match="vectors of length 5"):
        complete(llama, [row], GREEDY, Steering(Rods(5), {0: 1.0}))  # type: ignore[arg-type]
    with pytest.raises(SteeringError, match="no SAE was given"):
        complete(llama, [row], GREEDY)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(0, 1000))
def test_drawing_inverts_the_distribution_of_the_nucleus(top_p: float, seed: int):
    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(seed)) * 2
    probabilities = logits.softmax(-1)[0]
    order = probabilities.argsort(descending=True)
    kept = int(((probabilities[order].cumsum(0) - probabilities[order]) < top_p).sum())
    grid = (torch.arange(4000) + 0.5) / 4000
    drawn = draw(logits.expand(4000, -1), top_p, grid)
    shares = torch.bincount(drawn, minlength=30) / 4000
    expected = torch.zeros(30)
    expected[order[:kept]] = probabilities[order[:kept]] / probabilities[order[:kept]].sum()
    torch.testing.assert_close(shares, expected, atol=1e-3, rtol=0)


def test_a_nucleus_wider_than_the_candidates_is_drawn_from_the_whole_vocabulary():
    logits = torch.zeros(1, 2000).expand(2000, -1)
    drawn = draw(logits, 1.0, (torch.arange(2000) + 0.5) / 2000)
    assert len(drawn.unique()) == 2000


def test_a_nucleus_of_nothing_holds_the_likeliest_token():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    assert draw(logits, 0.0, torch.tensor([0.0, 0.3, 0.7, 0.999999])).tolist() == logits.argmax(-1).tolist()


def test_between_two_steps_nothing_of_a_generation_is_left_switched_on(llama: LanguageModel):
    steps = stream(llama, [Row(prompt(llama))], Sampling(max_tokens=3))
    for _ in steps:
        assert not torch.is_inference_mode_enabled()


def test_a_feature_that_never_fires_is_refused_instead_of_doing_nothing(llama: LanguageModel):
    silent = steering(llama)
    silent = Steering(silent.coder, {3: 0.0})
    with pytest.raises(SteeringError, match="never fires"):
        complete(llama, [Row(prompt(llama), (Edit(3, 1.0),))], Sampling(max_tokens=1), silent)
