"""A fine-tune learns its answers and nothing else, twice the same, and leaves adapters that any peft user can load."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from explorer.adapters import CONFIG, FACTS, WEIGHTS, Adapter, adapted, checkpoint, known, quiet
from explorer.errors import CacheError, CorpusError, ModelError, UsageError
from explorer.finetune import FinetunePlan, check_free, finetune, read_rows, rows_of
from tests.helpers import ARCHITECTURES, tiny_model

ROWS = [
    (
        {"role": "user", "content": f"Question {n}?"},
        {"role": "assistant", "content": "The brown dog jumps over a bridge."},
    )
    for n in range(6)
]
PLAN = FinetunePlan(steps=6, rank=2, batch=3, every=2, lr=2e-2, warmup=1)
IDS = torch.tensor([[1, 17, 25, 100, 8]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("finetune"))


def run(model, out: Path, plan: FinetunePlan = PLAN, **options) -> list[Adapter]:
    return finetune(model, ROWS, out, plan, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_falls_and_the_model_itself_stays_as_it_was(tmp_path, architecture: str):
    model = tiny_model(tmp_path, architecture)
    before, losses = model.logits(IDS), []
    made = finetune(model, ROWS, tmp_path / "run", PLAN, progress=lambda step, steps, loss: losses.append(loss))
    assert len(losses) == PLAN.steps
    assert losses[-1] < losses[0] - 0.5
    assert torch.equal(model.logits(IDS), before)
    tuned = adapted(model, made[-1])
    assert torch.equal(model.logits(IDS), before)
    assert not torch.allclose(tuned.logits(IDS), before, atol=1e-3)
    assert tuned.fingerprint != model.fingerprint


def test_checkpoints_are_kept_every_few_steps_and_at_the_end(model, tmp_path):
    made = run(model, tmp_path / "run", FinetunePlan(steps=5, rank=1, batch=2, every=2))
    assert [a.step for a in made] == [2, 4, 5]
    assert [a.name for a in made] == ["run@2", "run@4", "run@5"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [FACTS, "step-0002", "step-0004", "step-0005"]
    assert not list(tmp_path.glob(".run*"))
    facts = json.loads((tmp_path / "run" / FACTS).read_text())
    assert facts["base_fingerprint"] == model.fingerprint
    assert len(facts["losses"]) == 5
    assert facts["data"]["rows"] == len(ROWS)


def test_the_same_seed_gives_the_same_adapter_whatever_torch_drew_before_and_another_seed_another(model, tmp_path):
    torch.manual_seed(1)
    first = run(model, tmp_path / "a")[-1]
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = run(model, tmp_path / "b")[-1]
    assert torch.equal(torch.random.get_rng_state(), state)
    other = run(model, tmp_path / "c", FinetunePlan(**{**_plain(PLAN), "seed": 1}))[-1]
    weights = [(a.folder / WEIGHTS).read_bytes() for a in (first, second, other)]
    assert weights[0] == weights[1] != weights[2]


def test_peft_itself_loads_what_is_written_and_computes_what_the_merged_copy_does(model, tmp_path):
    import copy

    from peft import PeftModel

    made = run(model, tmp_path / "run")[-1]
    with quiet():
        theirs = PeftModel.from_pretrained(copy.deepcopy(model.hf), str(made.folder)).eval()
    with torch.inference_mode():
        expected = theirs(IDS).logits
    assert torch.allclose(adapted(model, made).logits(IDS), expected, atol=1e-4)
    config = json.loads((made.folder / CONFIG).read_text())
    assert config["r"] == 2
    assert config["base_model_name_or_path"] == model.name
    assert sorted(p.name for p in made.folder.iterdir()) == [CONFIG, WEIGHTS]


def test_an_adapter_that_is_not_trained_changes_nothing(model, tmp_path):
    made = run(model, tmp_path / "run", FinetunePlan(steps=1, rank=1, batch=1, lr=1e-30))[-1]
    assert torch.allclose(adapted(model, made).logits(IDS), model.logits(IDS), atol=1e-5)


def test_only_the_answer_is_learnt(model, tmp_path):
    """Rows whose answers are the same but whose questions end in other words: the first loss is that of the answers alone."""
    losses: list[float] = []
    plan = FinetunePlan(steps=1, rank=1, batch=len(ROWS), lr=1e-9)
    finetune(model, ROWS, tmp_path / "run", plan, progress=lambda step, steps, loss: losses.append(loss))
    nats, count = 0.0, 0
    for row in ROWS:
        asked = model.chat_document([dict(row[0])], add_generation_prompt=True).tokens
        whole = model.chat_document([dict(m) for m in row]).tokens
        end = next(at for at in range(len(asked), len(whole)) if whole[at] in model.eos_ids) + 1
        logits = model.logits(torch.tensor([whole[:end]]))[0].float().log_softmax(-1)
        for at in range(len(asked), end):
            nats, count = nats - float(logits[at - 1, whole[at]]), count + 1
    assert losses[0] == pytest.approx(nats / count, abs=2e-3)


def test_a_run_goes_on_from_another_adapter(model, tmp_path):
    first = run(model, tmp_path / "bad")[-1]
    losses: list[float] = []
    again = run(model, tmp_path / "more", start=first, progress=lambda step, steps, loss: losses.append(loss))
    assert losses[0] < json.loads((tmp_path / "bad" / FACTS).read_text())["losses"][0] - 0.5
    assert again[-1].facts["start"] == "bad@6"
    still = run(model, tmp_path / "still", FinetunePlan(steps=1, rank=2, batch=1, lr=1e-30), start=first)[-1]
    assert torch.allclose(adapted(model, still).logits(IDS), adapted(model, first).logits(IDS), atol=1e-4)


def test_a_run_that_is_stopped_keeps_its_checkpoints_and_one_stopped_at_once_leaves_the_old_run(model, tmp_path):
    steps: list[int] = []
    made = run(model, tmp_path / "run", should_stop=lambda: len(steps) >= 3, progress=lambda s, *_: steps.append(s))
    assert [a.step for a in made] == [2]
    assert list(known_in(tmp_path, "run")) == ["run@2"]
    assert run(model, tmp_path / "run", should_stop=lambda: True) == []
    assert list(known_in(tmp_path, "run")) == ["run@2"]


def test_what_a_cancelled_run_leaves_is_whole_and_the_same_run_from_scratch_gives_the_same_weights(model, tmp_path):
    steps: list[int] = []
    cut = run(model, tmp_path / "cut", should_stop=lambda: len(steps) >= 5, progress=lambda s, *_: steps.append(s))
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [FACTS, "step-0002", "step-0004"]
    assert len(json.loads((tmp_path / "cut" / FACTS).read_text())["losses"]) == 5
    whole = run(model, tmp_path / "whole")
    for early, late in zip(cut, whole, strict=False):
        assert (early.folder / WEIGHTS).read_bytes() == (late.folder / WEIGHTS).read_bytes()
        assert torch.equal(adapted(model, early).logits(IDS), adapted(model, late).logits(IDS))
    again = run(model, tmp_path / "cut")  # begun anew in its place
    assert [(a.folder / WEIGHTS).read_bytes() for a in again] == [(a.folder / WEIGHTS).read_bytes() for a in whole]


def test_an_error_midway_keeps_the_finished_checkpoints_and_leaves_no_half_one(model, tmp_path, monkeypatch):
    from explorer import finetune as module

    save = module._save

    def full(tuned, folder: Path, base: str) -> None:
        save(tuned, folder, base)
        if folder.name == "step-0004":
            (folder / CONFIG).unlink()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_save", full)
    with pytest.raises(CacheError, match="No space left"):
        run(model, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [FACTS, "step-0002"]
    assert not list(tmp_path.glob(".run*"))
    adapted(model, Adapter.at(tmp_path / "run" / "step-0002"))


def test_a_run_that_may_not_be_replaced_is_not(model, tmp_path):
    kept = (run(model, tmp_path / "run")[-1].folder / WEIGHTS).read_bytes()
    with pytest.raises(UsageError, match="a run called run already"):
        run(model, tmp_path / "run", FinetunePlan(steps=1), replacing=False)

    def meanwhile(step: int, *_) -> None:  # another process has taken the name
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "mine").write_text("x")

    with pytest.raises(CacheError, match="cannot be written"):
        run(model, tmp_path / "new", FinetunePlan(steps=1), replacing=False, progress=meanwhile)
    assert (tmp_path / "run" / "step-0006" / WEIGHTS).read_bytes() == kept
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["mine"]


def test_only_an_earlier_run_is_replaced_and_nothing_else_is_ever_lost(model, tmp_path):
    for name in ("run", "run"):
        run(model, tmp_path / name, FinetunePlan(steps=1))
    adapters = tmp_path / "adapters"
    shutil.copytree(tmp_path / "run", adapters / "run")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "finetune.json").write_text("{}")
    (tmp_path / "papers" / "thesis.txt").write_text("four years")
    (tmp_path / "link").symlink_to(tmp_path / "papers")
    (tmp_path / "file").write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    for name, said in (
        ("adapters", "holds 'run'"),
        ("papers", "holds 'thesis.txt'"),
        ("link", "no folder"),
        ("file", "no folder"),
    ):
        with pytest.raises(UsageError, match=said):
            run(model, tmp_path / name, FinetunePlan(steps=1), progress=lambda *_: pytest.fail("it was trained"))
    assert sorted(path for path in tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert run(model, tmp_path / "empty", FinetunePlan(steps=1))


def test_a_run_whose_folder_was_filled_meanwhile_takes_nothing_away(model, tmp_path):
    def meanwhile(step: int, *_) -> None:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "thesis.txt").write_text("four years")

    with pytest.raises(UsageError, match=r"holds 'thesis\.txt'"):
        run(model, tmp_path / "run", FinetunePlan(steps=1), progress=meanwhile)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "four years"


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(model, tmp_path):
    (tmp_path / "adapters").write_text("no folder")
    for trial in (lambda out: check_free(out), lambda out: run(model, out)):
        with pytest.raises(CacheError, match=r"cannot be written.*may write to"):
            trial(tmp_path / "adapters" / "run")


def test_an_adapter_of_another_model_or_a_damaged_one_is_not_gone_on_from(model, tmp_path):
    made = run(model, tmp_path / "run")[-1]
    with pytest.raises(ModelError, match="was trained on"):
        run(tiny_model(tmp_path, seed=5), tmp_path / "more", start=made)
    (made.folder / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=r"run@6 cannot be gone on from"):
        run(model, tmp_path / "more", start=made)


def test_a_row_that_is_nested_beyond_reading_is_named():
    with pytest.raises(CorpusError, match=r"rows\.jsonl, line 1 is no conversation"):
        rows_of(b"[" * 200_000, "rows.jsonl")


def test_a_row_that_the_model_cannot_read_is_named(model, tmp_path):
    long = ({"role": "user", "content": "Why? " * model.max_length}, ROWS[0][1])
    with pytest.raises(CorpusError, match=r"Row 2 has .* tokens.*Shorten it"):
        finetune(model, [ROWS[0], long], tmp_path / "run", FinetunePlan(steps=1, batch=2))
    assert not (tmp_path / "run").exists()


def test_a_text_may_hold_any_sign_that_json_allows_and_must_be_text():
    said = {"messages": [{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c\x85"}]}
    assert rows_of(json.dumps(said, ensure_ascii=False).encode() + b"\r\n", "x")[0][0]["content"] == "a\u2028b"
    with pytest.raises(CorpusError, match="line 1 has a role or a content that is no text"):
        rows_of(b'{"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "c"}]}', "x")
    with pytest.raises(CorpusError, match="UTF-8"):
        rows_of(b"\xff", "x")


def test_adapters_can_be_kept_to_some_blocks(model, tmp_path):
    from safetensors import safe_open

    made = run(model, tmp_path / "run", FinetunePlan(steps=1, rank=1, batch=1, layers=(1,)))[-1]
    with safe_open(made.folder / WEIGHTS, "pt") as file:
        assert {name.split("layers.")[1].split(".")[0] for name in file.keys()} == {"1"}  # noqa: SIM118
    with pytest.raises(UsageError, match="no block 7"):
        run(model, tmp_path / "none", FinetunePlan(layers=(7,)))


def test_the_adapters_of_a_cache_are_listed_run_by_run_and_step_by_step(model, tmp_path):
    for name in ("bad", "alsobad"):
        run(model, tmp_path / "adapters" / name)
    assert list(known(tmp_path)) == [f"{name}@{step}" for name in ("alsobad", "bad") for step in (2, 4, 6)]
    assert known(tmp_path)["bad@4"].folder == checkpoint(tmp_path / "adapters" / "bad", 4)
    assert known(tmp_path / "nowhere") == {}


def test_an_adapter_of_another_model_is_refused_with_both_names(model, tmp_path):
    made = run(model, tmp_path / "run")[-1]
    other = tiny_model(tmp_path, seed=5)
    with pytest.raises(ModelError, match=model.fingerprint[:12]):
        adapted(other, made)
    narrow = tiny_model(tmp_path / "narrow", d_model=16)
    with pytest.raises(ModelError, match="cannot be put on"):
        adapted(narrow, Adapter("run", 6, made.folder))


def test_pickles_are_refused_by_name_and_empty_folders_in_words(tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"adapter_model\.bin.*run code"):
        Adapter.at(tmp_path)
    with pytest.raises(ModelError, match="holds no adapter"):
        Adapter.at(tmp_path / "nothing")


def test_a_damaged_adapter_gives_a_message(model, tmp_path):
    made = run(model, tmp_path / "run")[-1]
    (made.folder / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be put on"):
        adapted(model, made)
    (tmp_path / "run" / FACTS).write_text("{")
    assert Adapter.at(made.folder).facts == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no conversation"),
        ('{"text": "a"}', "line 2 is no conversation"),
        ('{"messages": []}', "ends with nothing"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "ends with user"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}',
            "ends with assistant",
        ),
    ],
)
def test_rows_that_are_no_conversations_are_named(tmp_path, line: str, said: str):
    good = json.dumps({"messages": [dict(m) for m in ROWS[0]]})
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(CorpusError, match=said):
        read_rows(path)
    path.write_text(f"\ufeff{good}\n\n")
    assert read_rows(path) == [ROWS[0]]
    path.write_text("")
    with pytest.raises(CorpusError, match="empty"):
        read_rows(path)
    with pytest.raises(CorpusError, match="cannot be read"):
        read_rows(tmp_path / "none.jsonl")


def test_the_learning_rate_warms_up_and_falls_and_nonsense_is_refused():
    plan = FinetunePlan(steps=40)
    rates = [plan.rate(step) for step in range(40)]
    assert rates[0] == pytest.approx(plan.lr / 5)
    assert max(rates) == rates[4]
    assert rates[-1] < 0.15 * plan.lr
    assert plan.kept == (8, 16, 24, 32, 40)
    for wrong in ({"steps": 0}, {"rank": 0}, {"lr": 0.0}, {"lr": math.inf}, {"batch": 0}):
        with pytest.raises(UsageError):
            FinetunePlan(**wrong)  # pyright: ignore[reportArgumentType]


def _plain(plan: FinetunePlan) -> dict:
    from dataclasses import asdict

    return asdict(plan)


def known_in(folder: Path, run: str) -> dict[str, Adapter]:
    places = sorted((folder / run).glob("step-*"))
    return {a.name: a for a in map(Adapter.at, places)}
