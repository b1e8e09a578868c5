"""Trust, without a browser and without a model: the badge, the check on Overview, a feature zeroed on its page."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import ablation_view, parity_view, resources
from app.ablation_view import on_what_follows
from app.engine import Engine
from explorer.ablation import Ablation, Moved, Verdict
from explorer.cache import Cache
from explorer.errors import ModelError
from explorer.parity_file import Parity, save
from tests.helpers_app import run_page, words
from tests.helpers_cache import fake_cache

SILENT = 5


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 30, dead=(SILENT,)))


class StillEngine(Engine):
    """An engine that is never loaded: the work itself is replaced."""

    def start(self, delay: float = 0.0) -> None:
        pass


@pytest.fixture
def engine(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> StillEngine:
    made = StillEngine(cache, load=lambda cache: pytest.fail("nothing is to be loaded here"))
    made._state = "ready"
    monkeypatch.setattr(resources, "engine", lambda name: made)
    return made


def parity(cache: Cache, **changes: Any) -> Parity:
    example = cache.examples(3)[0]
    worst = {"feature": 3, "rank": 0, "tokens": list(example.tokens), "cached": list(example.acts)}
    worst |= {"live": [2 * act for act in example.acts], "scored": list(example.scored)}
    found = Parity(
        ok=True, cause="", fix="", remaining=None, windows=12, tokens=900, active=77, error=0.01, mean=0.004, worst=0.2,
        beyond=0.01, tolerance=0.05, allowed=0.05, example=worst, tested=[],
        model_fingerprint=cache.manifest.model_fingerprint, sae_fingerprint=cache.manifest.sae_fingerprint,
        corpus_sha256=cache.manifest.corpus_sha256, dtype="bfloat16", device="cpu", created="2026-02-03T00:00:00+00:00",
    )  # fmt: skip
    return replace(found, **changes)


def ablation(tokens: tuple[int, ...], promoted: str = "confirmed", **changes: Any) -> Ablation:
    n = len(tokens)
    lose, gain = (Moved(9, -2.5, 0.3, 0.1),), (Moved(11, 1.5, 0.01, 0.2),)
    loss = (0.0, 0.7, -0.4, *([0.0] * (n - 3)))
    direct = (math.nan, 0.2, *([math.nan] * (n - 2)))
    found = Ablation(
        1, tokens, (0.0, 3.0, *([0.0] * (n - 2))), loss, loss, direct, direct, lose, gain, Verdict(promoted, 6, 10, 0.995, 0.7)
    )  # fmt: skip
    return replace(found, **changes)


def heatmaps(app: AppTest) -> list[dict[str, Any]]:
    import json

    found = (e.proto for e in app.main if e.type == "bidi_component")  # type: ignore[union-attr]
    return [json.loads(proto.json) for proto in found if proto.component_name == "token_heatmap"]


def finished(app: AppTest, key: str) -> AppTest:
    """Wait for the work, and draw its result."""
    assert app.session_state[key][1].wait(30)
    return app.run()


@pytest.mark.parametrize("page", ["", "feature"])
def test_the_badge_says_what_is_known_without_a_model(cache: Cache, page: str):
    assert "parity not checked" in words(run_page(page))
    save(cache, parity(cache))
    said = words(run_page(page))
    assert "parity ok" in said
    assert "77 active tokens" in said
    save(cache, parity(cache, corpus_sha256="of another build"))
    assert "parity stale" in words(run_page(page))
    save(cache, parity(cache, ok=False, cause="It was read <b>too early</b>", fix="Read it later"))
    said = words(run_page(page))
    assert "parity wrong" in said
    assert "<b>too early" not in said


def test_the_button_checks_and_shows_the_worst_example_and_the_fix(cache: Cache, engine, monkeypatch):
    tried = [{"name": "hook", "detail": "It was read too early", "error": 0.01}]
    wrong = parity(
        cache, ok=False, cause="It was read too early", fix="Read it later", error=0.8, remaining=0.01, tested=tried
    )

    def compared(engine: Engine, job: Any) -> Parity:
        save(engine.cache, wrong)
        return wrong

    monkeypatch.setattr(parity_view, "compared", compared)
    app = run_page("")
    assert not heatmaps(app)
    app = finished(app.button(key="parity-go").click().run(), "parity-job")
    assert not app.exception
    assert "Read it later" in words(app)
    error, both = heatmaps(app)
    assert error["signed"]
    assert error["vmax"] == pytest.approx(cache.maxima[3])
    assert max(error["rows"][0]["acts"]) == pytest.approx(max(cache.examples(3)[0].acts))
    assert [row["group"] for row in both["rows"]] == ["Cached", "Live"]


def test_a_check_that_fails_says_why_and_can_be_tried_again(cache: Cache, engine, monkeypatch):
    def compared(engine: Engine, job: Any) -> Parity:
        raise ModelError("The model is not here", do="Fetch it")

    monkeypatch.setattr(parity_view, "compared", compared)
    app = finished(run_page("").button(key="parity-go").click().run(), "parity-job")
    assert "The model is not here" in words(app)
    assert app.button(key="parity-go").label == "Try again"


def test_a_feature_is_zeroed_in_the_chosen_example(cache: Cache, engine, monkeypatch):
    asked: list[int] = []

    def zeroed(engine: Engine, feature: Any, example: Any) -> Ablation:
        asked.append(example.rank)
        return ablation(example.tokens)

    monkeypatch.setattr(ablation_view, "zeroed", zeroed)
    app = run_page("feature", feature=1)
    before = len(heatmaps(app))
    app.number_input(key="ablation-example").set_value(3)
    app = finished(app.button(key="ablation-go").click().run(), "ablation-job")
    assert not app.exception
    assert asked == [2]
    said = words(app)
    assert "Confirmed" in said
    assert "6 of 10" in said
    assert "−2.50" in said
    heat = heatmaps(app)[before]
    assert (heat["signed"], heat["what"]) == (True, "loss, nats")
    starts = heat["rows"][0]["starts"]
    assert heat["rows"][0]["acts"][starts.index(2)] == pytest.approx(0.7), "on the token that is predicted"
    app.session_state["ablation-where"] = "At each token only"
    app.run()
    assert heatmaps(app)[before]["rows"][0]["acts"][starts.index(2)] == pytest.approx(0.2)
    app.number_input(key="feature").set_value(2).run()
    assert len(heatmaps(app)) == before, "what was found is of the other feature"


def test_zeroing_that_fails_says_why(cache: Cache, engine, monkeypatch):
    def zeroed(engine: Engine, feature: Any, example: Any) -> Ablation:
        raise ModelError("The model is not here", do="Fetch it")

    monkeypatch.setattr(ablation_view, "zeroed", zeroed)
    app = finished(run_page("feature", feature=1).button(key="ablation-go").click().run(), "ablation-job")
    assert "The model is not here" in words(app)
    assert app.button(key="ablation-again")


def test_a_silent_feature_has_nothing_to_zero(cache: Cache):
    app = run_page("feature", feature=SILENT)
    assert "What does it do?" not in words(app)


def test_every_judgement_has_its_words():
    tokens = tuple(range(9, 15))
    said = {judged: ablation_view.verdict(ablation(tokens, judged)) for judged in ablation_view._SAID}
    assert len(set(said.values())) == 4
    assert "among" not in said["silent"]


def test_a_loss_stands_on_the_token_that_is_predicted():
    assert on_what_follows((0.1, math.nan, 0.3, 0.0)) == [0.0, 0.1, 0.0, 0.3]
