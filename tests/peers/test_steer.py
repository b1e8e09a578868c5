"""Steering: several features, in every mode, beside the answer as it would have been."""

import json
import re

import pytest
import torch
from starlette.testclient import TestClient

from app.api import PREFIX, Api
from explorer.cache import Cache
from explorer.model import LanguageModel
from explorer.sae import SparseCoder
from tests.helpers_app import run_page
from tests.peers.helpers import ASKED, answer, finished, plain_answer, prompt_of


def test_steer_live_several_features():
    def steered(edits: str) -> str:
        app = run_page("steer", edits=edits, **ASKED)
        app.button(key="steer-go").click().run()
        assert not app.exception
        return answer(app, "steered")

    alone, both = [steered(edits) for edits in ("3:2:add", "8:-2:add")], steered("3:2:add,8:-2:add")
    assert len({*alone, both}) == 3
    assert steered("8:-2:add,3:2:add:off") == alone[1], "what is off does nothing"


def by_hand(mode: str, stream: torch.Tensor, read: torch.Tensor, d: torch.Tensor, level: float) -> torch.Tensor:
    """The stream after a mode, written down anew: `read` is the feature's activation, `level` what it is to become."""
    along = (stream @ d / (d @ d))[..., None]
    wanted = {
        "ablate": stream - read[..., None] * d,
        "clamp": stream + (level - read[..., None]) * d,
        "orthogonal": stream - along * d + level * d,
        "cap": torch.where(along > level, stream - along * d + level * d, stream),
        "scale": stream + (level - 1) * read[..., None] * d,
    }
    return wanted[mode]


@pytest.mark.parametrize(
    ("mode", "strength"), [("ablate", 1), ("clamp", 2), ("orthogonal", 0), ("cap", 0), ("scale", 3)]
)
def test_more_than_additive_ablate_clamp_projection(
    model: LanguageModel, coder: SparseCoder, cache: Cache, mode: str, strength: float
):
    prompt = prompt_of(model)
    stream = model.activations(torch.tensor([prompt]), coder.hook_point)[0, -1]
    points = coder.directions()
    speaks = coder.encode(stream[None])[0] * (points @ stream > 0)
    feature = int(
        speaks.argmax()
    )  # speaks where the answer begins, and the stream lies along it there: each mode can do something
    level = strength * (1.0 if mode == "scale" else cache.feature(feature).max)

    def hook(value: torch.Tensor, hook: object) -> torch.Tensor:
        value = value.clone()
        value[:, -1] = by_hand(
            mode, value[:, -1], coder.encode(value[:, -1])[:, feature], coder.direction(feature), level
        )
        return value

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        expected = model.bridge.run_with_hooks(ids, fwd_hooks=[(coder.hook_point, hook)])[0, -1].softmax(-1).max()
    app = run_page("steer", edits=f"{feature}:{strength}:{mode}", **ASKED)
    app.button(key="steer-go").click().run()
    app = finished(app.button(key="next-go").click().run(), "next-tokens")
    table = next(h.value for h in app.html if 'class="tokens num"' in h.value)
    first = re.findall(r"</i>([\d.]+) %", table)[:2]  # the likeliest token by itself, and steered
    assert float(first[1]) == pytest.approx(100 * float(expected), rel=6e-3)
    assert first[0] != first[1]


def test_baseline_beside_steered_streamed(model: LanguageModel):
    sampling = {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": 8}
    body = {"prompt": ASKED["prompt"], "edits": [{"feature": 3, "strength": 2}], "sampling": sampling}
    said = TestClient(Api()).post(f"{PREFIX}/caches/tiny/steer", json=body).text.strip().split("\n\n")
    pieces = [json.loads(block.split("data: ")[1]) for block in said if block.startswith("event: piece")]
    assert len(pieces) == 8, "a piece a step, each with both answers"
    both = ["".join(piece[side] or "" for piece in pieces) for side in ("baseline", "steered")]
    assert both[0] == plain_answer(model, 8)
    assert both[1] != both[0]


def test_strength_sweep():
    def swept(feature: int) -> dict[float, str]:
        asked = {"strengths": "-3,0,3", "questions": ASKED["prompt"], "max_tokens": "16"}
        app = run_page("sweep", edits=f"{feature}:1:add", **asked)
        app = finished(app.button(key="sweep-go").click().run(), "sweep-job")
        table = next(h.value for h in app.html if 'class="sweep"' in h.value)
        assert table.count('class="cell') == 3
        return {cell.strength: cell.text for cell in app.session_state["sweep-job"][2].result}

    one, other = swept(3), swept(8)
    assert set(one) == set(other) == {-3, 0, 3}
    assert one[0] == other[0], "by itself the model says the same"
    assert len({one[0], one[3], other[3], one[-3], other[-3]}) == 5, "and something else with each push"
