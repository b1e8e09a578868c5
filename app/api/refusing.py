"""The API's errors: one form, found / expected / do, and the status that goes with each."""

import logging
from typing import Any

from explorer.errors import CorpusError, ExplorerError, JudgeError, ModelError, SteeringError, UsageError

_CALLERS = (UsageError, SteeringError, ModelError, CorpusError, JudgeError)
"""What a request can be wrong in; a model that is not there at all is refused before it is asked."""
_log = logging.getLogger(__name__)


class Refused(ExplorerError):
    """A request that is not answered.

    Args:
        status: Of the HTTP answer.
        found, expected, do: See `ExplorerError`.
        headers: Of the HTTP answer, such as Retry-After.
    """

    def __init__(
        self, status: int, found: str, *, expected: str = "", do: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(found, expected=expected, do=do)
        self.status, self.headers = status, headers or {}


def body(error: ExplorerError) -> dict[str, Any]:
    """An error as JSON."""
    return {"error": {"found": error.found, "expected": error.expected, "do": error.do}}


def refusal(error: Exception) -> Refused:
    """Whatever went wrong as an answer; what nobody foresaw goes to the log and keeps its details there."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ExplorerError):
        status = 422 if isinstance(error, _CALLERS) else 500
        return Refused(status, error.found, expected=error.expected, do=error.do)
    _log.exception("A request broke off", exc_info=error)
    return Refused(500, "The server made a mistake", do="Look at its terminal for the details")
