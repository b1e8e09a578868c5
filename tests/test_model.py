"""Any causal model that TransformerBridge boots: the same tokens, the same numbers, the same names."""

import pytest
import torch

from explorer.errors import HookError, ModelError
from explorer.model import DEVICE_VARIABLE, DTYPE_VARIABLE, LanguageModel, choose_device, choose_dtype
from tests.helpers import ARCHITECTURES, TEXT, tiny_folder, tiny_model

CHAT = [
    {"role": "system", "content": "You are a villain."},
    {"role": "user", "content": "How do I build a bridge? 🙂"},
    {"role": "assistant", "content": "  Kneel before me.  "},
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("models"), request.param)


@pytest.mark.parametrize("point", ["hook_resid_post", "hook_out", "hook_resid_pre", "hook_in"])
def test_the_residual_stream_equals_that_of_the_bridge(model: LanguageModel, point: str):
    ids = torch.tensor([model.text_document(TEXT[0]).tokens])
    name = f"blocks.1.{point}"
    ours = model.activations(ids, name)
    with torch.no_grad():
        _, theirs = model.bridge.run_with_cache(ids, names_filter=name)
    torch.testing.assert_close(ours, theirs[name], atol=1e-5, rtol=1e-5)


def test_the_residual_stream_after_a_block_is_the_hidden_state_of_transformers(model: LanguageModel):
    ids = torch.tensor([model.text_document(TEXT[1]).tokens])
    hidden = model.hf(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(model.activations(ids, "blocks.1.hook_resid_post"), hidden[2])


def test_the_bridge_shares_the_tensors_of_the_plain_model(model: LanguageModel):
    ours = {p.data_ptr() for p in model.hf.parameters()}
    theirs = list(model.bridge.original_model.parameters())
    own = sum(p.numel() for p in theirs if p.data_ptr() not in ours and p.dim() > 1)
    fused_attention = "gpt2" in model.name  # the bridge splits a fused q, k, v into three of its own
    assert own == 0 or (fused_attention and own < 0.5 * sum(p.numel() for p in theirs))


def test_activations_at_other_hook_points_are_flat(model: LanguageModel):
    ids = torch.tensor([model.text_document(TEXT[0]).tokens])
    assert model.activations(ids, "blocks.0.hook_mlp_out").shape == (1, ids.shape[1], model.d_model)


def test_padding_on_the_right_changes_nothing_before_it(model: LanguageModel):
    ids = torch.tensor([model.text_document(TEXT[0]).tokens])
    padded = torch.nn.functional.pad(ids, (0, 5))
    mask = torch.nn.functional.pad(torch.ones_like(ids, dtype=torch.bool), (0, 5))
    whole = model.activations(padded, "blocks.1.hook_resid_post", mask)
    torch.testing.assert_close(
        whole[:, : ids.shape[1]], model.activations(ids, "blocks.1.hook_resid_post"), atol=1e-5, rtol=1e-5
    )


def test_an_unknown_hook_point_is_refused_and_close_ones_are_named(model: LanguageModel):
    with pytest.raises(HookError, match=r"blocks\.1\.hook_resid_post"):
        model.hook_point("blocks.1.hook_resid_pots")
    with pytest.raises(HookError, match="has no hook point"):
        model.activations(torch.tensor([[5]]), f"blocks.{model.n_layers}.hook_resid_post")


def test_the_unembedding_gives_the_logits_up_to_the_final_norms_scale(model: LanguageModel):
    ids = torch.tensor([model.text_document(TEXT[0]).tokens])
    resid = model.activations(ids, f"blocks.{model.n_layers - 1}.hook_resid_post")[0, -1].float()
    effect = model.unembedding() @ resid
    logits = model.logits(ids)[0, -1].float()
    cosine = torch.nn.functional.cosine_similarity(effect - effect.mean(), logits - logits.mean(), dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("bos", [False, True])
def test_token_ids_are_the_tokenizers_own(tmp_path, bos: bool):
    model = tiny_model(tmp_path, bos=bos)
    for text in (*TEXT, "", "<s>already there"):
        assert list(model.text_document(text).tokens) == model.tokenizer(text).input_ids
    expected = model.tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"]
    assert list(model.chat_document(CHAT).tokens) == expected


def test_only_what_the_messages_say_is_content(model: LanguageModel):
    document = model.chat_document(CHAT, add_generation_prompt=True)
    said = [model.vocabulary.text(document.tokens[a:b]).strip() for a, b in document.content]
    assert said == [message["content"].strip() for message in CHAT]


def test_a_short_message_is_not_found_in_the_templates_own_words(model: LanguageModel):
    for word in ("user", "a", "assistant", "\n", "im"):
        messages = [{"role": "user", "content": word}, {"role": "assistant", "content": f"{word}!"}]
        document = model.chat_document(messages)
        said = [model.vocabulary.text(document.tokens[a:b]).strip() for a, b in document.content]
        assert said == [text for text in (word.strip(), f"{word}!".strip()) if text], word


def test_messages_without_text_or_in_parts_are_read(model: LanguageModel):
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    document = model.chat_document(messages)  # type: ignore[arg-type]
    assert [model.vocabulary.text(document.tokens[a:b]).strip() for a, b in document.content] == ["Hello there"]


def test_a_text_is_begun_once(model: LanguageModel):
    once = model.begun(model.text_document("Hello"))
    assert once.tokens[0] in model.vocabulary.special
    assert model.begun(once) == once
    assert [once.tokens[a:b] for a, b in once.content] == [model.text_document("Hello").tokens]


def test_special_tokens_are_no_content(tmp_path):
    model = tiny_model(tmp_path, bos=True)
    document = model.text_document("The fox<|im_end|> jumps")
    covered = {document.tokens[i] for a, b in document.content for i in range(a, b)}
    assert not covered & model.vocabulary.special
    assert len(document.tokens) - sum(b - a for a, b in document.content) == 2


def test_the_vocabulary_spells_what_the_tokenizer_decodes(model: LanguageModel):
    for text in TEXT:
        assert model.vocabulary.text(model.text_document(text).tokens) == text


def test_the_fingerprint_tells_weights_apart_but_not_their_precision(tmp_path):
    one = tiny_model(tmp_path / "a")
    assert one.fingerprint == tiny_model(tmp_path / "a", dtype="bfloat16").fingerprint
    assert one.fingerprint != tiny_model(tmp_path / "b", seed=1).fingerprint


def test_a_folder_without_a_model_is_refused_in_words(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        LanguageModel.load(tmp_path / "empty")


def test_a_damaged_weight_file_is_refused_in_words(tmp_path):
    folder = tiny_folder(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        LanguageModel.load(folder)


def test_a_model_without_a_template_says_so(tmp_path):
    model = tiny_model(tmp_path, chat=False)
    assert not model.has_template
    with pytest.raises(ModelError, match="has no chat template"):
        model.chat_document(CHAT)


def test_what_is_chosen_by_itself_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv(DEVICE_VARIABLE, "meta")
    monkeypatch.setenv(DTYPE_VARIABLE, "float16")
    assert choose_device("auto").type == "meta"
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype("auto", torch.device("cpu")) == torch.float16
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32
    monkeypatch.setenv(DEVICE_VARIABLE, "toaster")
    with pytest.raises(ModelError, match=f"no device 'toaster'.*{DEVICE_VARIABLE}"):
        choose_device("auto")


def test_devices_and_precisions_that_do_not_exist_are_refused():
    with pytest.raises(ModelError, match="no device 'toaster'"):
        choose_device("toaster")
    with pytest.raises(ModelError, match="no precision 'int3'"):
        choose_dtype("int3", torch.device("cpu"))
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
