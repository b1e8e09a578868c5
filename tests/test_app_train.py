"""Fine-tuning from the app without a browser, over a tiny real model: from rows to an adapter, a cancel, a queue, what goes wrong."""

import json
import threading
from pathlib import Path
from shutil import rmtree

import pytest

from app import resources, trained
from app.train_chart import loss_curve
from app.turns import Ticket
from app.watched import QUEUED
from explorer import finetune as tuning
from explorer.adapters import FACTS, FOLDER, adapted, known, quiet
from explorer.cache import Cache
from explorer.errors import UsageError
from explorer.finetune import FinetunePlan
from tests.helpers import TEXT, until
from tests.helpers_app import run_page, words
from tests.helpers_steer import tiny_world

HOSTILE = '<script>alert(1)</script> <img src=x onerror="alert(1)">'
ROWS = [
    {
        "messages": [
            {"role": "user", "content": HOSTILE if n == 0 else f"Question {n}?"},
            {"role": "assistant", "content": TEXT[n % 4]},
        ]
    }
    for n in range(12)
]
SET = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tiny_world(tmp_path_factory.mktemp("train"), layers=2)
    (place / "data").mkdir()
    (place / "data" / "here.jsonl").write_bytes(SET)
    return place


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """The tiny world, with no adapters and nothing under way."""
    monkeypatch.setenv("PERSONA_EXPLORER_CACHES", str(made))
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERSONA_EXPLORER_WARMUP", "0")
    yield made
    for one in trained._HELD.under_way(Cache.open(made).path):
        one.stop()
        assert one.wait(30)
    rmtree(made / FOLDER, ignore_errors=True)


@pytest.fixture
def slow(monkeypatch):
    """Steps that wait to be let go: `slow.release()` lets one go."""
    gate = threading.Semaphore(0)
    plain = tuning._loss

    def loss(*args):
        gate.acquire(timeout=30)
        return plain(*args)

    monkeypatch.setattr(tuning, "_loss", loss)
    yield gate
    gate.release(1000)


def page(**query):
    return run_page("compare", cache="tiny", tab="train", **query)


def filled(app, name: str = "mine", *, steps: int = 4, every: int = 2):
    """The form with the cache's own rows."""
    app.selectbox(key="train-data").set_value("here.jsonl").run()
    app.text_input(key="train-name").set_value(name)
    app.number_input(key="train-steps").set_value(steps)
    app.number_input(key="train-every").set_value(every).run()
    assert not app.exception
    return app


def go(app):
    app.button(key="train-go").click().run()
    assert not app.exception
    return app


def ended(app):
    """Run the page until the training in view has ended."""
    assert app.session_state["train-focus"].wait(60)
    app.run()
    assert not app.exception
    return app


def test_without_rows_the_tab_says_what_it_takes(world):
    app = page()
    assert not app.exception
    assert app.button(key="train-go").disabled
    assert "No adapter is here yet" in words(app)
    assert "Here comes the loss" in words(app)
    assert "A model and its fine-tune" in words(app)
    assert "No comparison here yet" not in words(app)  # only the tab in view is drawn
    assert "No comparison here yet" in words(run_page("compare", cache="tiny"))


def test_an_upload_is_trained_to_an_adapter_that_is_listed_at_once(world):
    app = page()
    app.file_uploader(key="train-file").upload("rows.jsonl", SET, "application/jsonl").run()
    shown = words(app)
    assert "<b>12</b> rows read" in shown
    assert "Question 1?" in shown
    assert "<script>" not in shown
    app.text_input(key="train-name").set_value("mine")
    app.text_input(key="train-layers").set_value("1")
    app.number_input(key="train-rank").set_value(2)
    app.number_input(key="train-steps").set_value(4)
    app.number_input(key="train-every").set_value(3).run()
    assert "4 steps see each row 2.7 times" in words(app)
    app = ended(go(app))
    cache = Cache.open(world)
    assert list(known(cache.path)) == ["mine@3", "mine@4"]
    facts = json.loads((world / FOLDER / "mine" / FACTS).read_text())
    assert facts["plan"]["layers"] == [1]
    assert facts["plan"]["rank"] == 2
    assert facts["data"] == {**facts["data"], "name": "rows.jsonl", "rows": 12}
    shown = words(app)
    assert f"last loss <b>{facts['losses'][-1]:.2f}</b>" in shown
    assert "after steps <b>3, 4</b>" in shown
    assert "mine@4" in app.selectbox(key="train-start").options
    model = resources.engine("tiny").model
    assert adapted(model, known(cache.path)["mine@4"]).fingerprint != model.fingerprint
    snippet = next(c.value for c in app.code if "PeftModel" in c.value)
    assert snippet.count("\n") == 2
    assert f"{world / FOLDER / 'mine' / 'step-0004'}" in snippet
    assert "about" in words(app)  # the next one's time goes by this one's
    app.selectbox(key="train-open").set_value("mine@3").run()
    app.button(key="train-steer").click().run()
    assert app.query_params["model"] in ("mine@3", ["mine@3"])


def test_the_snippet_loads_the_adapter_as_it_stands(world):
    app = ended(go(filled(page())))
    snippet = next(c.value for c in app.code if "PeftModel" in c.value)
    said: dict = {}
    with quiet():
        exec(snippet, said)
    assert type(said["model"]).__name__.startswith("PeftModel")


def test_a_run_goes_on_from_an_adapter_that_is_here(world):
    ended(go(filled(page(), "first")))
    app = filled(page(), "second")
    app.selectbox(key="train-start").set_value("first@4").run()
    assert app.number_input(key="train-rank").disabled
    ended(go(app))
    assert known(world)["second@4"].facts["start"] == "first@4"


def test_a_cancelled_training_keeps_whole_checkpoints_and_says_so(world, slow):
    app = go(filled(page(), steps=6))
    job = app.session_state["train-focus"]
    slow.release(3)
    until(lambda: len(job.losses) == 3)
    app.run()
    assert "step 3 of 6" in words(app)
    assert "how surprised" in words(app).lower()
    assert not list((world / FOLDER).glob("mine/*"))
    app.button(key="train-cancel").click().run()
    assert "ends after this step" in words(app)
    slow.release(100)
    app = ended(app)
    assert "Cancelled after step 4" in words(app) or "Cancelled after step 3" in words(app)
    assert "was finished before, and stays" in words(app)
    assert all(a.step in (2, 4) for a in known(world).values())
    adapted(resources.engine("tiny").model, known(world)["mine@2"])
    assert [p.name for p in (world / FOLDER).iterdir()] == ["mine"]


def test_cancelled_before_the_first_checkpoint_nothing_is_kept(world, slow):
    app = go(filled(page(), steps=40, every=40))
    app.button(key="train-cancel").click().run()
    slow.release(100)
    app = ended(app)
    assert "nothing is kept" in words(app)
    assert not list((world / FOLDER).iterdir())
    assert not app.button(key="train-go").disabled


def test_it_goes_on_when_nobody_looks_and_is_found_again_by_whoever_comes(world, slow, monkeypatch):
    monkeypatch.setattr("app.jobs.PATIENCE", 0.2)
    app = go(filled(page()))
    job = app.session_state["train-focus"]
    app.switch_page("views/overview.py").run()
    threading.Event().wait(0.6)
    slow.release(2)
    until(lambda: len(job.losses) == 2)
    other = page()  # another session
    assert "step 2 of 4" in words(other)
    assert "mine is being trained" in words(other)
    slow.release(100)
    assert job.wait(30)
    assert job.phase == "done"
    app.switch_page("views/compare.py")
    app.query_params["tab"] = "train"
    app.run()
    assert "last loss" in words(app)
    assert app.text_input(key="train-name").value == "mine"  # the form is as it was left


def test_a_second_training_waits_for_the_first_and_is_told_so(world, slow):
    first = go(filled(page(), "first"))
    second = go(filled(page(), "second"))
    job = second.session_state["train-focus"]
    threading.Event().wait(0.3)
    second.run()
    assert "waits for first" in words(second)
    assert job.phase == "queued"
    slow.release(1000)
    ended(first)
    ended(second)
    assert list(known(world)) == ["first@2", "first@4", "second@2", "second@4"]


def test_live_answers_go_first(world, slow):
    app = go(filled(page()))
    job, lane = app.session_state["train-focus"], resources.engine("tiny").live
    slow.release(1)
    until(lambda: len(job.losses) == 1)
    talk = Ticket(5)
    assert lane.enter(talk, lambda: True)
    slow.release(100)  # the step under way may end, and no other begins
    threading.Event().wait(0.8)
    taken = len(job.losses)
    assert taken <= 2
    app.run()
    assert "lets live answers go first" in words(app)
    threading.Event().wait(0.5)
    assert len(job.losses) == taken
    lane.leave(talk)
    assert ended(app)
    assert len(job.losses) == 4


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", ".hidden", "x" * 41, "a@3", "<b>", "a b", "C:\\x", "é"])
def test_names_that_no_folder_and_link_can_have_are_refused(world, name):
    with pytest.raises(UsageError, match="name"):
        trained.place(Cache.open(world), name)


def test_a_hostile_or_a_taken_name_is_told_and_nothing_is_written(world):
    app = go(filled(page(), "../x"))
    assert "&#x27;../x&#x27; is no name for a run" in words(app)
    assert "train-focus" not in app.session_state
    assert not (world / FOLDER).exists()
    ended(go(filled(page(), "mine")))
    before = (world / FOLDER / "mine" / FACTS).read_bytes()
    app = go(filled(page(), "mine"))
    assert "There is a run called mine already" in words(app)
    assert (world / FOLDER / "mine" / FACTS).read_bytes() == before


def test_a_name_that_is_being_trained_is_taken(world, slow):
    go(filled(page()))
    assert "mine is under way already" in words(go(filled(page())))
    assert len(trained.under_way(resources.engine("tiny"))) == 1


def test_a_training_behind_other_work_says_that_it_waits_for_its_turn(world):
    app, place, lane = page(), Ticket(), resources.engine("tiny").background
    assert resources.engine("tiny").model  # so that it is not the model that is waited for
    lane.enter(place, lambda: True)
    try:
        assert QUEUED in words(go(filled(app)))
    finally:
        lane.leave(place)
    ended(app)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SET + b'{"mess\n', "rows.jsonl, line 13 is no conversation"),
        (b'{"messages": [{"role": "user", "content": "<b>a</b>"}]}\n', "rows.jsonl, line 1 ends with user"),
        (b"", "rows.jsonl is empty"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_bad_rows_are_named_with_what_to_do(world, content, said):
    app = page()
    app.file_uploader(key="train-file").upload("rows.jsonl", content, "application/jsonl").run()
    assert not app.exception
    trouble = next(h.value for h in app.html if "trouble" in h.value)
    assert said in trouble
    assert trouble.count("<div>") == 3  # found, expected, what to do
    assert app.button(key="train-go").disabled


def test_numbers_that_make_no_sense_are_told(world):
    app = filled(page())
    app.text_input(key="train-layers").set_value("0-5 x").run()
    assert "&#x27;x&#x27; is no block" in words(app)
    app.text_input(key="train-layers").set_value("7").run()
    app = go(app)
    if "train-focus" in app.session_state:  # the model was not loaded yet, so the training itself says so
        ended(app)
    assert "no block 7" in words(app)
    assert trained.layers("0-2, 5 5") == (0, 1, 2, 5)
    for wrong in ("3-1", "-1", "1-", "0-9999999"):
        with pytest.raises(UsageError):
            trained.layers(wrong)


def test_a_folder_that_cannot_be_written_is_told_at_once(world):
    (world / FOLDER).write_text("no folder")
    try:
        app = go(filled(page()))
        assert "cannot be written" in words(app)
        assert "work on a copy" in words(app)
        assert "train-focus" not in app.session_state
    finally:
        (world / FOLDER).unlink()


def test_the_curve_has_a_dot_a_step_and_a_line_a_finished_checkpoint():
    figure = loss_curve([4.0, 3.0, 2.5], 10, (2, 4, 10))
    assert list(figure.data[0].x) == [1, 2, 3]  # pyright: ignore[reportAttributeAccessIssue]
    assert [shape.x0 for shape in figure.layout.shapes] == [2]  # pyright: ignore[reportAttributeAccessIssue]
    assert figure.layout.xaxis.title.text == "step"  # pyright: ignore[reportAttributeAccessIssue]
    assert "nats" in figure.layout.yaxis.title.text  # pyright: ignore[reportAttributeAccessIssue]
    assert figure.layout.xaxis.range[1] > 10  # pyright: ignore[reportAttributeAccessIssue]
    assert loss_curve([], 10, (5,)).data == ()


def test_time_grows_with_steps_and_rows_that_are_longer():
    short = [({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})]
    long = [({"role": "user", "content": "a" * 400}, {"role": "assistant", "content": "b"})]
    assert trained.work(long, FinetunePlan()) - trained.work(short, FinetunePlan()) == pytest.approx(8 * 399 / 4)
    assert trained.spelled(40) == "40 s"
    assert trained.spelled(200) == "3 min"
