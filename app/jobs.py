"""Work that a page asks for and that may wait: one piece at a time, behind every live run, and mostly only while somebody looks."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from app.turns import Lane, Ticket
from explorer.errors import ExplorerError, ModelError, UsageError

PATIENCE = 15.0  # seconds without anybody looking; pages poll every second or so
Phase = Literal["queued", "running", "done", "stopped", "failed"]
_log = logging.getLogger(__name__)


class Job:
    """A piece of work in a thread of its own.

    Args:
        work: Called with this job, gives the result; it sets `progress` (0 to 1) and asks `should_stop` before every step.
        lane: The background's places.
        live: The places of live runs, which this work gives way to.
        watched: It ends once nobody looks; else it leaves something for later, and goes on until somebody stops it.
    """

    def __init__(self, work: "Callable[[Job], Any]", lane: Lane, live: Lane, *, watched: bool = True) -> None:
        self._work, self._lane, self._live, self._needs_watching = work, lane, live, watched
        self._phase: Phase = "queued"
        self._stopped, self._over = threading.Event(), threading.Event()
        self._watched = time.monotonic()
        self.progress = 0.0
        self.result: Any = None
        self.error: ExplorerError | None = None

    @classmethod
    def finished(cls, result: Any) -> "Job":
        """A job that had been done before."""
        job = cls(lambda job: result, Lane(1), Lane(1))
        job.result, job.progress, job._phase = result, 1.0, "done"
        job._over.set()
        return job

    def start(self) -> "Job":
        """Begin; this job."""
        threading.Thread(target=self._run, name="background-job", daemon=True).start()
        return self

    def stop(self) -> None:
        """End at the next step."""
        self._stopped.set()

    def watch(self) -> None:
        """Say that somebody still looks."""
        self._watched = time.monotonic()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._over.wait(timeout)

    @property
    def phase(self) -> Phase:
        """How far it is; to ask is to watch."""
        self.watch()
        return self._phase

    @property
    def over(self) -> bool:
        return self._over.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop and has not yet."""
        return self._stopped.is_set() and not self.over

    def should_stop(self) -> bool:
        """Whether to end; comes back only when no live run wants the model. Time spent waiting tries nobody's patience."""
        began = time.monotonic()
        self._live.empty(self._stopped.is_set)
        self._watched += time.monotonic() - began
        return self._given_up()

    def _given_up(self) -> bool:
        if self._needs_watching and time.monotonic() - self._watched > PATIENCE:
            self._stopped.set()
        return self._stopped.is_set()

    def _run(self) -> None:
        ticket, end = Ticket(), "stopped"
        try:
            if self._lane.enter(ticket, self._given_up) and not self.should_stop():
                self._phase = "running"
                result = self._work(self)
                if not self._stopped.is_set():
                    self.result, self.progress, end = result, 1.0, "done"
        except ExplorerError as error:
            self.error, end = error, "failed"
        except Exception as error:  # a thread must leave a sentence behind, whatever went wrong
            _log.exception("Work in the background broke off")
            self.error, end = explained(error, "This"), "failed"
        finally:
            self._lane.leave(ticket)
            self._phase = end
            self._over.set()


J = TypeVar("J", bound=Job)


class Held(Generic[J]):
    """Jobs of one kind that go on while nobody looks: whoever opens their page finds them, and may stop them."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[Path, str], J] = {}
        self._guard = threading.Lock()

    def begin(self, cache: Path, name: str, make: Callable[[], J]) -> J:
        """Start a job and hold it until it ends.

        Args:
            cache: Folder of the cache that it is about.
            name: Of what it leaves there.
            make: Gives the job.
        Raises:
            UsageError: If one of that name is under way there.
        """
        with self._guard:
            self._jobs = {key: job for key, job in self._jobs.items() if not job.over}
            if (cache, name) in self._jobs:
                raise UsageError(f"{name} is under way already", do="Take another name, or cancel that one")
            job = self._jobs[cache, name] = make()
        job.start()
        return job

    def under_way(self, cache: Path) -> list[J]:
        """Those about a cache that have not ended, whoever began them, in the order in which they take their turn."""
        with self._guard:
            return [job for (place, _), job in self._jobs.items() if place == cache and not job.over]


def explained(error: Exception, what: str) -> ExplorerError:
    """An unexpected failure as a sentence for people.

    Args:
        what: What broke off.
    """
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ModelError(
            "The memory did not suffice", do="Lower the number of tokens or shorten the prompt; run again"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{what} broke off ({reason})", do="Run again; the terminal has the details")
