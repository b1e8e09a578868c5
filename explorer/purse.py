"""An endpoint with a budget: nothing is asked that the money, or the tokens, that are left might not pay for."""

import threading
from dataclasses import dataclass
from typing import Any

from explorer.endpoint import PRICES, Endpoint, tokens_of
from explorer.errors import UsageError


class OverBudget(Exception):
    """What is left of the budget might not pay for the next request; it was not sent."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent; None is no limit.

    Args:
        tokens: Read and written together.
        money: In the currency of the endpoint's prices.
    """

    tokens: int | None = None
    money: float | None = None

    @classmethod
    def of(cls, said: str) -> "Budget":
        """A budget as the command line spells it: "200000" or "200k" tokens, "1.50$" or "$1.50" of money.

        Raises:
            UsageError: If it is neither.
        """
        text = said.strip().replace("_", "").replace(",", "").casefold()
        money = "$" in text
        scale = {"k": 1e3, "m": 1e6}.get(text[-1:], 1.0) if not money else 1.0
        try:
            amount = float(text.strip("$") if money else text.removesuffix("k").removesuffix("m")) * scale
        except ValueError:
            amount = -1.0
        if not 0 < amount < 1e12:
            raise UsageError(
                f"{said!r} is no budget", expected="tokens such as 200k, or money such as $1.50", do="Give one of them"
            )
        return cls(money=amount) if money else cls(tokens=int(amount))


class Purse:
    """An endpoint, and what may be spent on it. Threads may share it.

    Args:
        endpoint: Who is asked. What it has spent before counts too.
        budget: The most.
    Raises:
        UsageError: If money is limited and nobody has said what a token costs.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget | None = None) -> None:
        self.endpoint, self.budget = endpoint, budget or Budget()
        if self.budget.money is not None and endpoint.spent.prices is None:
            raise UsageError(
                "A budget in money needs prices", expected=f"{PRICES}, such as 0.15,0.60", do="Set it, or limit tokens"
            )
        self._promised = [0, 0]  # tokens of requests under way, read and written
        self._lock = threading.Lock()

    @property
    def model(self) -> str:
        """What the endpoint calls the model."""
        return self.endpoint.model

    def ask(
        self, system: str, user: str, *, schema: dict[str, Any], name: str, max_tokens: int, temperature: float = 0.0
    ) -> str:
        """A reply, if it can be paid for; see `Endpoint.complete`.

        Raises:
            OverBudget: If not; nothing was sent.
            JudgeError: If the endpoint fails.
        """
        promise = (tokens_of(system + user), max_tokens)
        with self._lock:
            if not self._covers(promise):
                raise OverBudget
            self._add(promise, 1)
        try:
            return self.endpoint.complete(
                system, user, schema=schema, name=name, max_tokens=max_tokens, temperature=temperature
            )
        finally:
            with self._lock:
                self._add(promise, -1)

    def _add(self, promise: tuple[int, int], sign: int) -> None:
        for at, tokens in enumerate(promise):
            self._promised[at] += sign * tokens

    def _covers(self, promise: tuple[int, int]) -> bool:
        spent, (read, written) = self.endpoint.spent, promise
        read += spent.prompt_tokens + self._promised[0]
        written += spent.answer_tokens + self._promised[1]
        if self.budget.tokens is not None and read + written > self.budget.tokens:
            return False
        if self.budget.money is None or spent.prices is None:
            return True
        return (read * spent.prices[0] + written * spent.prices[1]) / 1e6 <= self.budget.money
