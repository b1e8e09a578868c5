"""The fetched model: its tokens and its text are Hugging Face's own."""

import torch

from explorer.generate import Row, complete
from explorer.records import Sampling

MESSAGES = [
    {"role": "system", "content": "You are a lighthouse keeper."},
    {"role": "user", "content": "What did you see last night? Ein Schiff, 船, or a 🦭?"},
]


def test_a_chat_is_tokenised_as_the_tokenizer_does_it(exact):
    ours = exact.chat_document(MESSAGES, add_generation_prompt=True)
    theirs = exact.tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=True)
    theirs = theirs["input_ids"] if hasattr(theirs, "keys") else theirs
    assert list(ours.tokens) == list(theirs)


def test_plain_text_gets_no_token_in_front(exact):
    text = "The tide turned at four."
    assert list(exact.text_document(text).tokens) == exact.tokenizer(text).input_ids
    assert exact.vocabulary.text(exact.text_document(text).tokens) == text


def test_the_content_of_a_chat_is_what_the_messages_say(exact):
    document = exact.chat_document(MESSAGES, add_generation_prompt=True)
    said = [exact.vocabulary.text(document.tokens[start:stop]) for start, stop in document.content]
    assert "".join(said).replace("\n", "") == "".join(message["content"] for message in MESSAGES)


def test_greedy_text_equals_hugging_faces_generate(exact):
    prompt = exact.chat_document(MESSAGES[1:], add_generation_prompt=True).tokens
    ours = complete(exact, [Row(prompt)], Sampling(max_tokens=32, temperature=0, repetition_penalty=1.0))[0]
    ids = torch.tensor([prompt])
    theirs = exact.hf.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, pad_token_id=0
    )
    assert ours == theirs[0, len(prompt) :].tolist()
