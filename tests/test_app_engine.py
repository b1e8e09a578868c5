"""The live engine: loaded once in the background, honest about failure, equal to the library underneath."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.engine import Engine
from app.jobs import Job
from app.loading import WARMUP_VARIABLE, load_pair
from app.runs import KEPT, History, Question, Run, Turn
from explorer.cache import Cache
from explorer.errors import CacheError, ModelError
from explorer.model import DTYPE_VARIABLE
from explorer.records import Edit, Sampling
from tests.helpers_cache import fake_cache

GREEDY = Sampling(max_tokens=10, temperature=0.0, repetition_penalty=1.0)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DTYPE_VARIABLE, "float32")  # in less, company in a batch could change a text


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
    made = Engine(pair)
    made.warmup = False
    return made


def watched(run: Run, seconds: float = 60) -> Run:
    """The run at its end, watched until then."""
    end = time.monotonic() + seconds
    while not run.wait(0.05):
        run.watch()
        assert time.monotonic() < end
    return run


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
        watched(run)
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


@pytest.mark.parametrize("field", ["model_fingerprint", "sae_fingerprint"])
def test_a_model_or_sae_that_does_not_fit_is_refused_naming_both(pair: Cache, tmp_path: Path, field: str):
    from tests.helpers_sae import tiny_sae_folder

    fields = {name: pair.manifest[name] for name in ("model", "model_fingerprint", "sae_fingerprint")}
    other = fake_cache(tmp_path / "other", 24, **{**fields, field: "f" * 64})
    tiny_sae_folder(other / "sae")
    with pytest.raises(CacheError) as caught:
        load_pair(Cache.open(other))
    assert "f" * 12 in caught.value.expected
    assert pair.manifest[field][:12] in caught.value.found


def test_a_direction_that_cannot_be_read_is_not_in_the_way_of_the_model(pair: Cache):
    from explorer.directions import SUFFIX, own

    (file := own(pair) / f"broken{SUFFIX}").parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"no vector")
    try:
        assert load_pair(pair)[0].fingerprint == pair.manifest.model_fingerprint
    finally:
        file.unlink()


# --- rows beside the answer, and conversations


def test_further_rows_and_another_history_change_no_text(engine: Engine):
    """Company in the batch, padding included, is without influence; `extra_directions` can be named by edits."""
    import numpy as np

    from explorer.directions import Direction

    sideways = Direction("sideways", "Sideways", "blocks.0.hook_resid_post", np.linspace(-9, 9, 32, dtype=np.float32))
    rows = [(Edit(3, 2.0),), (Edit(direction="sideways"),), (Edit(6, 2.0), Edit(direction="sideways", strength=-1.0))]
    extra = {"sideways": sideways}

    def texts(steps) -> list[str]:
        return ["".join(piece or "" for piece in row) for row in zip(*steps, strict=True)]

    alone = [
        texts(engine.stream("the old king", row, GREEDY, baseline=False, extra_directions=extra))[0] for row in rows
    ]
    alone.append(texts(engine.stream("who rules the sea and the ships?", (), GREEDY, baseline=False))[0])
    together = texts(
        engine.stream(
            "the old king",
            rows[0],
            GREEDY,
            others=rows[1:],
            extra_directions=extra,
            baseline_messages="who rules the sea and the ships?",
        )
    )
    assert together == [alone[3], *alone[:3]]
    assert len(set(together)) == 4


def test_a_conversation_is_remembered_by_each_model_as_it_went_or_by_both_as_the_steered_one_put_it():
    asked = Question("And now?", "Be brief.", (Edit(3),), "answer", Sampling(), (Turn("Who?", "Me.", "Your king!"),))
    assert [m["content"] for m in asked.messages(True)] == ["Be brief.", "Who?", "Your king!", "And now?"]
    assert [m["role"] for m in asked.messages(True)] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in asked.messages(True, steered=False)] == ["Be brief.", "Who?", "Me.", "And now?"]
    shared = replace(asked, shared=True)
    assert shared.messages(True, steered=False) == shared.messages(True) == asked.messages(True)
    assert replace(asked, plain=True).messages(True) == "Be brief.\n\nWho?\n\nYour king!\n\nAnd now?"


def test_a_turn_can_be_added_and_asked_again():
    asked = Question("Who?", "", (Edit(3),), "answer", Sampling())
    later = asked.followed_by("And now?", "Me.", "Your king!").followed_by("Why?", "Because.", "Obey!")
    assert [turn.user for turn in later.turns] == ["Who?", "And now?"]
    assert later.prompt == "Why?"
    assert later.back_to(1) == asked.followed_by("And now?", "Me.", "Your king!")
    assert later.back_to(0) == asked
    assert later.back_to(2) == later


def test_a_baseline_is_the_same_only_where_it_remembers_the_same():
    asked = Question("And now?", "", (Edit(3),), "answer", Sampling(), (Turn("Who?", "Me.", "Your king!"),))
    other = replace(asked, turns=(Turn("Who?", "Me.", "The sea!"),), edits=(Edit(4),), controls=True)
    assert asked.same_baseline(other)
    assert not replace(asked, shared=True).same_baseline(replace(other, shared=True))
    assert not asked.same_baseline(replace(asked, turns=(Turn("Who?", "Nobody.", "Your king!"),)))
    assert not asked.same_baseline(replace(asked, plain=True))
    assert not asked.same_baseline(replace(asked, sampling=Sampling(seed=1)))


def test_each_answer_of_a_conversation_goes_on_from_its_own_history(engine: Engine):
    turns = (Turn("the old king", "of the sea", "cruel and cold"),)
    asked = Question("who rules?", "", (Edit(3, 2.0),), "answer", GREEDY, turns)
    run = watched(Run(engine, asked).start())
    assert run.phase == "done", run.error
    steps = engine.stream(asked.messages(engine.has_template, steered=False), (), GREEDY, baseline=False)
    assert run.baseline.text == "".join(step[0] or "" for step in steps)
    steps = engine.stream(asked.messages(engine.has_template), asked.edits, GREEDY, baseline=False)
    assert run.steered.text == "".join(step[0] or "" for step in steps)


# --- waiting


class Slow(Engine):
    """Lets a step of a generation come only when it is told to."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.warmup, self.steps = False, threading.Semaphore(0)

    def stream(self, *asked, **more):
        for step in super().stream(*asked, **more):
            self.steps.acquire()
            yield step


def test_a_third_run_is_queued_and_says_how_long(pair: Cache):
    engine = Slow(pair)
    question = Question("the old king", "", (Edit(3, 2.0),), "answer", GREEDY)
    runs = []
    for _ in range(3):
        runs.append(Run(engine, question).start())
        end = time.monotonic() + 30
        while not (runs[-1].ahead[0] or runs[-1]._ticket in engine.live._inside):
            assert time.monotonic() < end
            time.sleep(0.01)
    assert runs[2].phase == "queued"
    ahead, seconds = runs[2].ahead
    assert ahead == 2
    assert seconds == pytest.approx(2 * GREEDY.max_tokens * engine.live.pace)
    engine.steps.release(1000)
    for run in runs:
        assert watched(run).phase == "done"
    assert len({run.steered.text for run in runs}) == 1
    assert runs[2].ahead == (0, 0.0)


def test_a_run_that_is_stopped_or_left_gives_its_place_back_and_keeps_the_beginning(
    pair: Cache, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.runs.PATIENCE", 0.3)
    slow = Slow(pair)
    drawn = Sampling(max_tokens=12, temperature=1.0, top_p=1.0, seed=3)
    question = Question("the old king", "", (Edit(3, 2.0),), "answer", drawn)
    whole = watched(Run(engine, question).start())
    left, queued = Run(slow, question).start(), None
    slow.steps.release(4)
    end = time.monotonic() + 30
    while len(left.steered.pieces) < 4:
        left.watch()
        assert time.monotonic() < end
        time.sleep(0.01)
    queued = [Run(slow, question).start() for _ in range(2)][1]
    queued.stop()
    time.sleep(0.5)
    slow.steps.release(1000)
    assert left.wait(10)
    assert (left.phase, queued.phase) == ("stopped", "stopped")
    n = len(left.steered.pieces)
    assert n in (4, 5)  # the step that was under way when patience ended may still come
    assert left.steered.pieces == whole.steered.pieces[:n]
    assert not queued.steered.pieces
    assert not any(block._forward_hooks for block in slow._need().model.blocks)
    end = time.monotonic() + 10
    while slow.live._inside or slow.live._waiting:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_work_in_the_background_delays_a_live_answer_by_a_step_at_most(engine: Engine):
    taken: list[str] = []
    long = Sampling(max_tokens=200, temperature=0.0, repetition_penalty=1.0)

    def work(job: Job) -> list[str]:
        ask = job.should_stop

        def step() -> bool:
            stop = ask()
            taken.append("background")
            return stop

        job.should_stop = step  # type: ignore[method-assign]
        return engine.batch([("the sea", (Edit(7, 1.0),)), ("the old king", ())], long, job=job)

    job = engine.job(work, long=True)
    end = time.monotonic() + 30
    while len(taken) < 3:
        assert time.monotonic() < end
        time.sleep(0.001)

    class Noting(Run):
        def _take(self, step):
            taken.append("live")
            return super()._take(step)

        def _more(self):
            taken.append("asked")
            return super()._more()

    run = watched(Noting(engine, Question("the old king", "", (Edit(3, 2.0),), "answer", GREEDY)).start())
    assert run.phase == "done", run.error
    after = taken[taken.index("asked") :]
    first, last = after.index("live"), len(after) - after[::-1].index("live")
    assert after[:first].count("background") <= 2  # the step under way, and the one that was granted just before
    assert "background" not in after[first : last - 1]
    assert job.wait(60)
    assert job.phase == "done", job.error
    alone = engine.batch([("the sea", (Edit(7, 1.0),)), ("the old king", ())], long)
    assert job.result == alone


# --- what is kept


def test_a_record_holds_all_that_a_run_was_and_the_last_twenty_are_kept(engine: Engine, pair: Cache):
    run = watched(Run(engine, Question("the old king", "", (Edit(3, 2.0),), "answer", GREEDY)).start())
    record = run.record()
    assert (record.question, record.baseline, record.steered) == (run.question, run.baseline.text, run.steered.text)
    assert (record.phase, record.scores) == ("done", None)
    assert record.model_fingerprint == pair.manifest.model_fingerprint
    history = History()
    for at in range(KEPT + 3):
        history.keep(replace(record, key=str(at)))
    history.keep(replace(record, key="5", scores={"steered": {"malice": 0.9}}))
    assert [r.key for r in history] == [str(at) for at in reversed(range(3, KEPT + 3))]
    assert history["5"].scores == {"steered": {"malice": 0.9}}
    assert len(history) == KEPT


# --- reading


def test_the_next_token_is_what_decoding_would_choose_steered_and_not(engine: Engine):
    from app.workbench import _spelt
    from explorer.generate import Row, complete

    edits = (Edit(3, 2.0), Edit(6, -1.0))
    model = engine._need().model
    for positions in ("answer", "all", "prompt", "first"):
        prompt = model.text_document("the old king").tokens
        said = complete(model, [Row(prompt, edits)], GREEDY, engine.steering(edits, positions))[0]
        for at in (0, 3):
            baseline, steered = engine.next_tokens("the old king", said[:at], edits, positions, k=5)
            assert steered[0][0] == _spelt(model, said[at])
            assert [len(baseline), len(steered)] == [5, 5]
            assert 1 > steered[0][1] >= steered[1][1] > 0
    alone = engine.next_tokens("the old king", said[:3], (), "answer", k=5)[1]
    assert [token for token, _ in baseline] == [token for token, _ in alone]
    # Company in a batch rounds otherwise.
    assert [p for _, p in baseline] == pytest.approx([p for _, p in alone], rel=1e-4)


def test_side_effects_are_mean_activations_of_the_answers_under_the_unsteered_model(engine: Engine, pair: Cache):
    found = engine.side_effects("who rules?", " the old king and the sea", " cold stone and gold", (Edit(3, 2.0),), n=4)
    others = [moved for moved in found if not moved.edited]
    assert [m.feature for m in found if m.edited] == [3]
    assert len(others) == 4
    assert 3 not in {m.feature for m in others}
    assert [abs(m.change) for m in others] == sorted((abs(m.change) for m in others), reverse=True)
    for moved in found:
        own = engine.activations("who rules? cold stone and gold", moved.feature)
        reading = moved.readings[1]
        assert own.acts[-len(reading.acts) :] == pytest.approx(reading.acts, abs=1e-4)
        counted = [act for act, scored in zip(reading.acts, reading.scored, strict=True) if scored]
        mean = sum(counted) / len(counted) / pair.feature(moved.feature).max
        assert moved.steered == pytest.approx(mean, abs=1e-5)


def test_answers_that_are_the_same_have_no_side_effects(engine: Engine):
    said = [{"role": "user", "content": "who rules?"}]
    assert engine.side_effects(said, "the old king", "the old king", ()) == []


# --- scores


class FakePanel:
    """Judges that count letters; or fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[list[str], list[str]]] = []

    def score(self, names, texts, prompts):
        if self.error:
            raise self.error
        self.asked.append((list(texts), list(prompts)))
        return {"length": [float(len(text)) for text in texts]}


def judged(engine: Engine, panel: FakePanel | None, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(engine, "_panel", panel)
    run = watched(Run(engine, Question("the old king", "", (Edit(3, 2.0),), "answer", GREEDY)).start())
    assert run.phase == "done"
    assert run.wait_scores(10)
    assert not run.judging
    return run


def test_both_answers_are_judged_when_the_run_has_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    panel = FakePanel()
    run = judged(engine, panel, monkeypatch)
    assert panel.asked == [([run.baseline.text, run.steered.text], ["the old king"] * 2)]
    assert run.scores == {
        "baseline": {"length": len(run.baseline.text)},
        "steered": {"length": len(run.steered.text)},
    }
    assert run.record().scores == run.scores


def test_a_judge_that_fails_or_is_not_here_takes_nothing_from_a_run(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    assert judged(engine, None, monkeypatch).scores is None
    run = judged(engine, FakePanel(RuntimeError("no memory")), monkeypatch)
    assert (run.scores, run.error) == (None, None)


def test_the_embedder_is_loaded_once_after_the_model_and_whoever_asks_is_told_why_there_is_none(pair: Cache):
    loads: list[int] = []

    class Embedder:
        fingerprint = "made up"

    def embed() -> Embedder:
        loads.append(1)
        if len(loads) == 1:
            raise ModelError("The embedder is not here", do="Fetch it")
        return Embedder()

    engine = Engine(pair, embed=embed)  # type: ignore[arg-type]
    engine.warmup = False
    with pytest.raises(ModelError, match="not here"):
        engine.panel()
    assert engine.score(["Hello"], "") == {}
    assert engine.panel() is engine.panel()
    assert len(loads) == 2


def test_after_the_model_the_judges_are_warmed_up_behind_live_runs(pair: Cache):
    from app.turns import Ticket

    loads: list[int] = []

    def embed():
        loads.append(1)
        raise ModelError("The embedder is not here", do="Fetch it")

    engine, ticket = Engine(pair, embed=embed), Ticket()
    engine.warmup = True
    engine.live.enter(ticket, lambda: False)
    engine.start()
    assert engine.wait(30)
    time.sleep(0.8)
    assert not loads
    engine.live.leave(ticket)
    end = time.monotonic() + 10
    while not loads:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert engine.state == "ready"
    assert not engine.can_judge


def test_controls_are_decoded_beside_the_answer_and_leave_it_as_it_is(engine: Engine):
    asked = Question("the old king", "", (Edit(3, 2.0),), "answer", GREEDY)
    alone, beside = (watched(Run(engine, q).start()) for q in (asked, replace(asked, controls=True)))
    assert beside.phase == "done", beside.error
    assert (beside.baseline.text, beside.steered.text) == (alone.baseline.text, alone.steered.text)
    kinds = [other.kind for other in beside.others]
    assert kinds.count("random") == 3
    assert "flipped" in kinds
    assert all(other.answer.ended for other in beside.others)
    steps = engine.stream("the old king", (Edit(3, -2.0),), GREEDY, baseline=False)
    flipped = beside.others[kinds.index("flipped")]
    whole = "".join(step[0] or "" for step in steps)
    assert flipped.answer.text
    assert whole.startswith(flipped.answer.text)  # it may have been cut where it repeats itself
    assert set(beside.record().others) == {other.name for other in beside.others}
