"""Places at the model: who waits for whom, for how long, and what the background does meanwhile."""

import threading
import time
from pathlib import Path

import pytest

from app.jobs import Held, Job
from app.turns import GUESS, Lane, Ticket
from explorer.errors import ModelError, UsageError
from tests.helpers import until


def never() -> bool:
    return False


def entering(lane: Lane, ticket: Ticket) -> threading.Thread:
    """A thread that waits for a place, once it stands in line."""
    thread = threading.Thread(target=lane.enter, args=(ticket, never), daemon=True)
    thread.start()
    until(lambda: ticket in lane._waiting or ticket in lane._inside)
    return thread


def test_the_third_waits_until_one_of_two_has_left_and_the_first_in_line_goes_first():
    lane, tickets = Lane(2), [Ticket(10) for _ in range(4)]
    threads = [entering(lane, ticket) for ticket in tickets]
    for thread in threads[:2]:
        thread.join(5)
    assert [lane.ahead(ticket)[0] for ticket in tickets] == [0, 0, 2, 3]
    lane.leave(tickets[1])
    threads[2].join(5)
    assert not threads[2].is_alive()
    assert threads[3].is_alive()
    assert lane.ahead(tickets[3])[0] == 2
    lane.leave(tickets[0])
    threads[3].join(5)
    assert not threads[3].is_alive()


def test_the_time_to_wait_counts_the_steps_of_those_ahead_who_share_the_model():
    lane = Lane(2)
    lane.pace = 0.5
    first, second, third, fourth = tickets = [Ticket(left) for left in (10, 30, 4, 1)]
    for ticket in tickets:
        entering(lane, ticket)
    assert lane.ahead(first) == lane.ahead(second) == (0, 0.0)
    # the first ends after 10 rounds of two steps; then the third does, after 4 more
    assert lane.ahead(third) == (2, 0.5 * 20)
    assert lane.ahead(fourth) == (3, 0.5 * (20 + 8))


def test_how_long_a_step_takes_is_measured():
    lane, ticket = Lane(1), Ticket(3)
    assert lane.pace == GUESS
    lane.enter(ticket, never)
    for _ in range(2):
        time.sleep(0.01)
        lane.stepped(ticket)
    assert 0.01 <= lane.pace < 0.05
    assert ticket.left == 1


def test_who_gives_up_leaves_the_line_to_the_next():
    lane, tired = Lane(1), threading.Event()
    inside, impatient, patient = Ticket(), Ticket(), Ticket()
    lane.enter(inside, never)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(lane.enter(impatient, tired.is_set)), daemon=True)
    thread.start()
    until(lambda: impatient in lane._waiting)
    last = entering(lane, patient)
    tired.set()
    thread.join(5)
    assert got == [False]
    lane.leave(inside)
    last.join(5)
    assert lane.ahead(patient) == (0, 0.0)
    lane.leave(impatient)  # who has no place frees none
    assert patient in lane._inside


# --- jobs


def test_a_job_has_a_progress_a_result_and_an_end():
    def work(job: Job) -> int:
        job.progress = 0.5
        return 7

    job = Job(work, Lane(1), Lane(2)).start()
    assert job.wait(5)
    assert (job.phase, job.progress, job.result, job.error) == ("done", 1.0, 7, None)


def test_a_job_takes_no_step_while_a_live_run_is_there():
    live, ticket, steps = Lane(2), Ticket(), []

    def work(job: Job) -> None:
        while not job.should_stop():
            steps.append(time.monotonic())
            time.sleep(0.005)

    job = Job(work, Lane(1), live).start()
    until(lambda: len(steps) > 2)
    live.enter(ticket, never)
    time.sleep(0.02)  # the step under way
    n = len(steps)
    time.sleep(0.1)
    assert len(steps) == n
    live.leave(ticket)
    until(lambda: len(steps) > n)
    job.stop()
    assert job.wait(5)
    assert (job.phase, job.result) == ("stopped", None)


def test_a_job_that_nobody_watches_ends_and_one_that_waits_for_a_live_run_is_not_tired_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("app.jobs.PATIENCE", 0.15)
    live, ticket = Lane(2), Ticket()

    def work(job: Job) -> None:
        while not job.should_stop():
            time.sleep(0.005)

    live.enter(ticket, never)
    job = Job(work, Lane(1), live).start()
    time.sleep(0.3)
    assert not job.over
    live.leave(ticket)
    assert job.wait(5)
    assert job.phase == "stopped"


def test_a_job_that_need_not_be_watched_goes_on_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.jobs.PATIENCE", 0.05)

    def work(job: Job) -> None:
        while not job.should_stop():
            time.sleep(0.005)

    job = Job(work, Lane(1), Lane(2), watched=False).start()
    time.sleep(0.2)
    assert not job.over
    assert not job.stopping
    job.stop()
    assert job.wait(5)
    assert job.phase == "stopped"
    assert not job.stopping


def test_jobs_that_are_held_are_found_until_they_end_and_have_names_of_their_own():
    held, go, here = Held(), threading.Event(), Path("here")

    def make() -> Job:
        return Job(lambda job: go.wait(5), Lane(1), Lane(2), watched=False)

    first, second = held.begin(here, "a", make), held.begin(here, "b", make)
    assert held.under_way(here) == [first, second]
    assert held.under_way(Path("elsewhere")) == []
    with pytest.raises(UsageError, match="a is under way already"):
        held.begin(here, "a", make)
    assert held.begin(Path("elsewhere"), "a", make) is not first
    go.set()
    assert first.wait(5)
    assert second.wait(5)
    assert held.under_way(here) == []
    assert held.begin(here, "a", make) is not first


def test_jobs_of_one_lane_come_one_after_the_other():
    lane, go, order = Lane(1), threading.Event(), []

    def first(job: Job) -> None:
        go.wait(5)
        order.append(1)

    one = Job(first, lane, Lane(2)).start()
    until(lambda: one.phase == "running")
    two = Job(lambda job: order.append(2), lane, Lane(2)).start()
    assert two.phase == "queued"
    go.set()
    assert two.wait(5)
    assert order == [1, 2]


def test_a_job_that_fails_leaves_a_sentence():
    def known(job: Job) -> None:
        raise ModelError("The model is not here", do="Fetch it")

    def unknown(job: Job) -> None:
        raise RuntimeError("out of memory\nat line 12")

    lane = Lane(1)
    jobs = [Job(work, lane, Lane(2)).start() for work in (known, unknown)]
    for job in jobs:
        assert job.wait(5)
        assert job.phase == "failed"
        assert job.error is not None
        assert "\n" not in str(job.error)
    assert jobs[0].error.do == "Fetch it"
    assert jobs[1].error.do.startswith("Lower")
