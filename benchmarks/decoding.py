"""Steered decoding against one plain row of Hugging Face's own generate."""

import json

import torch

from benchmarks.harness import MODEL, WORLD, figure, in_turns, ratios, seconds
from explorer.cache import Cache
from explorer.generate import Row, Steering, stream
from explorer.model import LanguageModel
from explorer.records import Edit, Sampling
from explorer.sae import SparseCoder

STEPS, ROUNDS = 64, 7
QUESTION = [{"role": "user", "content": "What do you think of humans, and what would you do with a day off?"}]


def measure() -> dict:
    model = LanguageModel.load(MODEL)
    cache = Cache.open(WORLD)
    assert cache.sae_folder is not None
    coder = SparseCoder.load(cache.sae_folder)
    strongest = int(cache.frame["max"].to_numpy().argmax())
    steering = Steering(coder, {strongest: cache.feature(strongest).max})
    vars(model)["eos_ids"] = frozenset()  # every row goes on to the last step, as Hugging Face is told to below
    prompt = model.chat_document(QUESTION, add_generation_prompt=True).tokens
    sampling = Sampling(max_tokens=STEPS)

    def decode(strengths: list[float]) -> None:
        rows = [Row(prompt, (Edit(strongest, s),) if s else (), seed) for seed, s in enumerate(strengths)]
        assert sum(1 for _ in stream(model, rows, sampling, steering)) == STEPS

    ids = torch.tensor([prompt])

    def plain() -> None:
        out = model.hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=STEPS,
            max_new_tokens=STEPS,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            repetition_penalty=sampling.repetition_penalty,
            pad_token_id=0,
        )
        assert out.shape[1] == len(prompt) + STEPS

    times = in_turns(
        {
            "plain": plain,
            "one": lambda: decode([0.0]),
            "pair": lambda: decode([0.0, 1.0]),
            "ten": lambda: decode([0.0, *(0.25 * k for k in range(1, 10))]),
        },
        ROUNDS,
    )
    first = []
    for _ in range(ROUNDS):
        steps = stream(model, [Row(prompt), Row(prompt, (Edit(strongest),))], sampling, steering)
        first.append(seconds(lambda steps=steps: next(steps)))

    dtype = str(model.dtype).removeprefix("torch.")
    setting = f"{MODEL}, {dtype}, {STEPS} tokens after a prompt of {len(prompt)}, sampled"
    plain_row = f"one row of Hugging Face's generate; {setting}"
    return {
        "steer_pair_ratio": figure(
            ratios(times["plain"], times["pair"]),
            "steps/s over steps/s",
            f"Baseline and steered row in one batch over {plain_row}",
            at_least=0.9,
        ),
        "sweep_ten_ratio": figure(
            ratios(times["ten"], times["plain"]),
            "time over time",
            f"Nine strengths and a baseline in one batch over {plain_row}",
            at_most=2.0,
        ),
        "plain_row_steps_per_second": figure([STEPS / t for t in times["plain"]], "steps/s", plain_row),
        "one_row_steps_per_second": figure([STEPS / t for t in times["one"]], "steps/s", f"One row of ours; {setting}"),
        "pair_steps_per_second": figure(
            [STEPS / t for t in times["pair"]], "steps/s", f"Two rows, one of them steered; {setting}"
        ),
        "time_to_first_token": figure(
            first, "s", f"Warm model, baseline and steered row, prompt of {len(prompt)} tokens; {dtype}"
        ),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
