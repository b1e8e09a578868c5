"""The live engine: loaded once in the background, honest about failure, equal to the library underneath."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.engine import WARMUP_VARIABLE, Engine, load_pair
from app.runs import Question, Run
from explorer.cache import Cache
from explorer.errors import ExplorerError, ModelError, SaeError
from explorer.records import Edit, Sampling
from tests.helpers_cache import fake_cache

GREEDY = Sampling(max_tokens=10, temperature=0.0, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache.open(fake_cache(tmp_path_factory.mktemp("caches") / "made-up", 24))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model and SAE, and a cache that says it was made with them."""
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder
    from tests.helpers import tiny_folder
    from tests.helpers_sae import tiny_sae_folder

    place = tmp_path_factory.mktemp("pair")
    tiny_folder(place / "model")
    folder = fake_cache(place / "cache", 24, median_norm=1e6)
    tiny_sae_folder(folder / "sae")
    model, coder = LanguageModel.load(place / "model"), SparseCoder.load(folder / "sae")
    fake_cache(
        folder,
        24,
        median_norm=1e6,
        model=str(place / "model"),
        model_fingerprint=model.fingerprint,
        sae_fingerprint=coder.fingerprint,
    )
    tiny_sae_folder(folder / "sae")
    return Cache.open(folder)


@pytest.fixture(scope="module")
def engine(pair: Cache) -> Engine:
    return Engine(pair)


def test_two_sessions_that_ask_at_once_load_the_model_once(made_up: Cache):
    loads = []

    def load(cache: Cache):
        loads.append(cache)
        time.sleep(0.05)
        return object(), object()

    engine = Engine(made_up, load)  # type: ignore[arg-type]
    askers = [threading.Thread(target=engine.start) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert engine.wait(5)
    assert (engine.state, len(loads)) == ("ready", 1)


def test_a_failure_is_kept_in_three_parts_and_can_be_tried_again(made_up: Cache):
    outcomes = [ModelError("The model is not here", expected="a folder", do="Fetch it"), None]

    def load(cache: Cache):
        if error := outcomes.pop(0):
            raise error
        return object(), object()

    engine = Engine(made_up, load)  # type: ignore[arg-type]
    engine.start()
    assert not engine.wait(5)
    assert engine.state == "failed"
    assert engine.error is not None
    assert engine.error.do == "Fetch it"
    engine.start()
    assert engine.wait(5)
    assert engine.error is None


def test_an_unexpected_failure_becomes_one_sentence(made_up: Cache):
    def load(cache: Cache):
        raise RuntimeError("out of memory\nat line 12")

    engine = Engine(made_up, load)
    engine.start()
    assert not engine.wait(5)
    assert engine.error is not None
    assert "\n" not in str(engine.error)
    assert "out of memory" in str(engine.error)


def test_warm_up_is_switched_off_by_the_environment(made_up: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WARMUP_VARIABLE, "0")
    engine = Engine(made_up, lambda cache: (object(), object()))  # type: ignore[arg-type,return-value]
    engine.warm_up()
    assert engine.state == "cold"
    monkeypatch.setenv(WARMUP_VARIABLE, "1")
    engine = Engine(made_up, lambda cache: (object(), object()))  # type: ignore[arg-type,return-value]
    engine.warm_up()
    assert engine.wait(5)


def test_an_engine_is_busy_until_it_can_be_asked(made_up: Cache):
    go = threading.Event()
    engine = Engine(made_up, lambda cache: (go.wait(5), object()))  # type: ignore[arg-type,return-value]
    engine.warmup = False
    assert not engine.busy
    engine.warmup = True
    assert engine.busy
    engine.start()
    assert engine.busy
    go.set()
    assert engine.wait(5)
    assert not engine.busy


def test_baseline_and_steered_equal_what_the_library_decodes(engine: Engine, pair: Cache):
    from explorer.generate import Row, Steering, complete

    edits = (Edit(3, 2.0), Edit(6, -1.0))
    shown = list(engine.stream("the old king", edits, GREEDY))
    loaded = engine._need()
    prompt = loaded.model.text_document("the old king").tokens
    maxima = dict(enumerate(pair.table.column("max").to_pylist()))
    expected = complete(loaded.model, [Row(prompt), Row(prompt, edits)], GREEDY, Steering(loaded.coder, maxima))
    for row in (0, 1):
        text = "".join(pieces[row] or "" for pieces in shown)
        kept = [t for t in expected[row] if t not in loaded.model.eos_ids]
        assert text == loaded.model.vocabulary.text(kept)


def test_without_edits_the_steered_row_is_the_baseline(engine: Engine):
    assert all(a == b for a, b in engine.stream("the old king", (), GREEDY))


def test_two_generations_at_once_do_not_mix(engine: Engine):
    alone = [list(engine.stream("the sea", (Edit(k, 3.0),), GREEDY)) for k in (2, 7)]
    together: dict[int, list] = {}

    def run(k: int) -> None:
        together[k] = list(engine.stream("the sea", (Edit(k, 3.0),), GREEDY))

    threads = [threading.Thread(target=run, args=(k,)) for k in (2, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[2], together[7]] == alone


def test_two_runs_at_once_are_what_each_is_alone(pair: Cache):
    meeting = threading.Barrier(2)

    class Meeting(Engine):
        """Lets each of its generations go on only while the other one is in the middle of its own."""

        together = False

        def stream(self, *asked, **more):
            for at, step in enumerate(super().stream(*asked, **more)):
                if self.together and at < 8:
                    meeting.wait(20)
                yield step

    engine = Meeting(pair)
    drawn = Sampling(max_tokens=24, temperature=1.0, top_p=1.0, repetition_penalty=1.2, seed=3)
    questions = (
        Question("the old king", "", (Edit(3, 2.0), Edit(6, -1.0)), "all", drawn),
        Question("who rules the sea?", "Be brief.", (Edit(7, 2.0, "clamp"),), "answer", replace(drawn, seed=8)),
    )

    def texts(run: Run) -> tuple[str, str]:
        end = time.monotonic() + 60
        while not run.wait(0.1):
            run.watch()
            assert time.monotonic() < end
        assert run.phase == "done", run.error
        assert len(run.steered.pieces) > 8
        return run.baseline.text, run.steered.text

    alone = [texts(Run(engine, question).start()) for question in questions]
    assert len({text for two in alone for text in two}) == 4
    engine.together = True
    runs = [Run(engine, question).start() for question in questions]
    assert [texts(run) for run in runs] == alone


def test_own_text_has_an_activation_for_every_token_and_the_first_is_never_scored(engine: Engine):
    reading = engine.activations("the old king and the sea", 3)
    assert len(reading.tokens) == len(reading.acts) == len(reading.scored)
    assert not reading.scored[0]
    assert all(reading.scored[1:])
    chat = engine.activations([{"role": "user", "content": "the old king"}], 3)
    assert 0 < sum(chat.scored) < len(chat.tokens)


def test_an_empty_text_has_no_tokens(engine: Engine):
    assert engine.activations("", 0).tokens == ()


@pytest.mark.parametrize(
    ("field", "error"), [("model_fingerprint", ModelError), ("sae_fingerprint", SaeError)], ids=["model", "sae"]
)
def test_a_model_or_sae_that_does_not_fit_is_refused_naming_both(
    pair: Cache, tmp_path: Path, field: str, error: type[ExplorerError]
):
    from tests.helpers_sae import tiny_sae_folder

    fields = {name: pair.manifest[name] for name in ("model", "model_fingerprint", "sae_fingerprint")}
    other = fake_cache(tmp_path / "other", 24, **{**fields, field: "f" * 64})
    tiny_sae_folder(other / "sae")
    with pytest.raises(error) as caught:
        load_pair(Cache.open(other))
    assert "f" * 12 in caught.value.expected
    assert pair.manifest[field][:12] in caught.value.found
