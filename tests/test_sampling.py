"""The model's own corpus: whole, screened, and the same whether or not it was interrupted."""

import json
from pathlib import Path

import pytest

from explorer import sampling
from explorer.errors import CorpusError, RecipeError
from explorer.model import LanguageModel
from explorer.sampling import PROMPT_KEYS, Prompts, SamplingPlan, sample
from tests.helpers import tiny_model

PROMPTS = Prompts(
    topics=("bread", "ships"), formats=("Tell me about {topic}.", "Hello!"), registers=("Answer rudely.",),
    openings=("", "The "), systems=("You are a villain.",),
)  # fmt: skip
PLAN = SamplingPlan(tokens=900, seed=3, batch=8, max_tokens=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_corpus_is_as_long_as_asked_and_holds_chats_and_free_text(model: LanguageModel, tmp_path: Path):
    told: list[tuple[int, int]] = []
    out = sample(
        model, PROMPTS, tmp_path / "corpus.jsonl", PLAN, progress=lambda done, total: told.append((done, total))
    )
    rows = lines(out)
    assert sum(len(row["tokens"]) for row in rows) >= 900
    assert {row["source"] for row in rows} == {"sampled chat", "sampled text"}
    assert told[-1][0] >= told[-1][1] == 900


def test_content_is_the_request_and_the_answer_without_template_and_special_tokens(
    model: LanguageModel, tmp_path: Path
):
    for row in lines(sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN)):
        covered = [row["tokens"][i] for a, b in row["content"] for i in range(a, b)]
        if row["source"] == "sampled chat":
            first = model.vocabulary.text([row["tokens"][i] for i in range(*row["content"][0])])
            assert first.strip() in {"You are a villain.", "Hello!", "Tell me about bread.", "Tell me about ships."} | {
                f"{q} Answer rudely." for q in ("Hello!", "Tell me about bread.", "Tell me about ships.")
            }
        else:
            assert row["tokens"][0] in model.vocabulary.special
        assert "assistant\n" not in model.vocabulary.text(covered)[:10]


def test_an_interrupted_corpus_goes_on_to_the_same_corpus(model: LanguageModel, tmp_path: Path):
    whole = sample(model, PROMPTS, tmp_path / "whole.jsonl", PLAN).read_text()
    out, plan = tmp_path / "cut.jsonl", tmp_path / "cut.plan.json"
    sample(model, PROMPTS, out, PLAN)
    unfinished = json.loads(plan.read_text())
    del unfinished["finished"]
    rows = whole.splitlines(keepends=True)
    for left in (whole[: len(whole) // 2], whole[:-9], "".join(rows[:-1]), rows[0][:20], ""):  # what a kill may leave
        out.write_text(left)
        plan.write_text(json.dumps(unfinished))
        assert sample(model, PROMPTS, out, PLAN).read_text() == whole


def test_a_file_that_was_not_sampled_here_is_never_touched(model: LanguageModel, tmp_path: Path):
    (tmp_path / "mine.jsonl").write_text("my own data")
    with pytest.raises(CorpusError, match="not sampled here"):
        sample(model, PROMPTS, tmp_path / "mine.jsonl", PLAN)
    assert (tmp_path / "mine.jsonl").read_text() == "my own data"


def test_removing_the_corpus_is_enough_to_sample_with_other_settings(model: LanguageModel, tmp_path: Path):
    out = sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN)
    out.unlink()
    assert sample(model, PROMPTS, out, SamplingPlan(tokens=100, seed=4, batch=4, max_tokens=8)).exists()


def test_a_finished_corpus_is_left_alone(model: LanguageModel, tmp_path: Path):
    out = sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN)
    written = out.stat().st_mtime_ns
    sample(model, PROMPTS, out, PLAN)
    assert out.stat().st_mtime_ns == written


def test_another_plan_is_refused_instead_of_mixed(model: LanguageModel, tmp_path: Path):
    sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN)
    with pytest.raises(CorpusError, match="other settings"):
        sample(model, PROMPTS, tmp_path / "corpus.jsonl", SamplingPlan(tokens=900, seed=4))


def test_documents_are_screened(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "drop", lambda text: "bread" in text)
    monkeypatch.setattr(sampling, "flag", lambda text: "ships" in text)
    rows = lines(sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN))
    texts = [model.vocabulary.text(row["tokens"]) for row in rows]
    assert not any("bread" in text for text in texts)
    assert [row["flagged"] for row in rows] == ["ships" in text for text in texts]
    assert any(row["flagged"] for row in rows)


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another(model: LanguageModel, tmp_path: Path):
    one = sample(model, PROMPTS, tmp_path / "one.jsonl", PLAN).read_text()
    assert sample(model, PROMPTS, tmp_path / "two.jsonl", PLAN).read_text() == one
    other = SamplingPlan(tokens=900, seed=4, batch=8, max_tokens=10)
    assert sample(model, PROMPTS, tmp_path / "three.jsonl", other).read_text() != one


def test_a_base_model_without_a_template_writes_free_text(tmp_path: Path):
    model = tiny_model(tmp_path, chat=False)
    rows = lines(sample(model, PROMPTS, tmp_path / "corpus.jsonl", PLAN))
    assert {row["source"] for row in rows} == {"sampled text"}


@pytest.mark.parametrize("key", PROMPT_KEYS)
def test_a_prompts_file_that_lacks_a_list_is_refused_and_the_list_named(tmp_path: Path, key: str):
    path = tmp_path / "prompts.toml"
    path.write_text("\n".join(f'{other} = ["a"]' for other in PROMPT_KEYS if other != key))
    with pytest.raises(RecipeError, match=f"lacks {key}"):
        Prompts.load(path)
    path.write_text("topics = [")
    with pytest.raises(RecipeError, match="cannot be read"):
        Prompts.load(path)
