"""What the tests of this folder share: truth straight from the model, and what a page shows."""

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.jobs import Job
from explorer import cli
from explorer.model import LanguageModel
from explorer.sae import SparseCoder

SAID = "You are a villain. How do I build a bridge?"
ASKED = {"prompt": "Who rules the world?", "temperature": "1", "repetition_penalty": "1", "max_tokens": "16"}


def acts(model: LanguageModel, coder: SparseCoder, tokens: Sequence[int]) -> np.ndarray:
    """Every feature on every token `[tokens, features]`, straight from model and SAE."""
    return coder.encode(model.activations(torch.tensor([list(tokens)]), coder.hook_point))[0].numpy()


def prompt_of(model: LanguageModel) -> tuple[int, ...]:
    """The tokens of the question in ASKED, up to where the answer begins."""
    chat = [{"role": "user", "content": ASKED["prompt"]}]
    return model.chat_document(chat, add_generation_prompt=True).tokens


def plain_answer(model: LanguageModel, tokens: int) -> str:
    """What the model says to the question in ASKED by itself, always the likeliest token: as transformers decodes it."""
    ids = torch.tensor([prompt_of(model)])
    said = model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0, top_k=None,
        top_p=None, temperature=None, eos_token_id=None,
    )  # fmt: skip
    return model.vocabulary.text(said[0, ids.shape[1] :].tolist())


def charts(app: AppTest) -> list[dict[str, Any]]:
    """Every figure on the page."""
    return [json.loads(found.proto.spec) for found in app.get("plotly_chart")]


def numbers(packed: Any) -> list[float]:
    """The values of an axis, which the figure's JSON may hold in binary."""
    return np.frombuffer(b64decode(packed["bdata"]), packed["dtype"]).tolist() if isinstance(packed, dict) else packed


def finished(app: AppTest, key: str) -> AppTest:
    """The page once its work in the background has ended; a page that has seen the end may have put the job away."""
    if key in app.session_state:
        held = app.session_state[key]
        job = held if isinstance(held, Job) else next(one for one in held if isinstance(one, Job))
        while not job.wait(0.5):
            job.watch()  # as the page's clock does: work that nobody looks at gives up
        app.run()
    assert not app.exception
    return app


def answer(app: AppTest, side: str) -> str:
    """What an answer of the Steer page says, without who said it and how fast."""
    grid = next(h.value for h in app.html if 'class="answers"' in h.value)
    section = next(part for part in grid.split("<section") if f"ans {side}" in part)
    (said,) = re.findall(r"<p[ >].*?</p>", section, flags=re.DOTALL)
    return re.sub("<[^>]*>", "", said)


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command prints with --json."""
    code = cli.main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)
