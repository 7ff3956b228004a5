"""Calls that wait for the first instance of a model that scales from zero.

A model has such a queue as long as a scaler keeps asking about it: nobody waits for an instance
that nobody will start. A place in it belongs to the call until its `wait` returns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.rpc.errors import exhausted
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

SCALER_MEMORY_S = 30.0
"""A scaler that has not asked for so long starts nothing any more."""
RECHECK_S = 1.0
RETRY_AFTER_S = 5.0
MAX_WAITING = 1000
"""Calls that wait for one model at most."""


class ColdStartQueue:
    """The waiting calls of each model, and which models a scaler looks after."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked_at: dict[str, float] = {}
        self._scaled_elsewhere_until: dict[str, float] = {}
        self._waiting_elsewhere: Counter[str] = Counter()
        self._arrivals: dict[str, asyncio.Event] = {}
        self._waiting: Counter[str] = Counter()

    def set_scaled(self, models: Iterable[str]) -> None:
        """A scaler says that it starts instances of these models."""
        now = self._clock.monotonic()
        self._asked_at = {
            name: at for name, at in self._asked_at.items() if now - at <= SCALER_MEMORY_S
        }
        self._asked_at |= dict.fromkeys(models, now)

    def scaled_for_s(self) -> dict[str, float]:
        """By model, seconds for which what a scaler said here still holds."""
        now = self._clock.monotonic()
        left = {name: at + SCALER_MEMORY_S - now for name, at in self._asked_at.items()}
        return {name: seconds for name, seconds in left.items() if seconds > 0}

    def waiting_here(self) -> dict[str, int]:
        """Calls that wait at this router, by model."""
        return dict(self._waiting)

    def learn_of_others(self, left_s: Mapping[str, float], waiting: Mapping[str, int]) -> None:
        """Other routers' scalers look after these models for so many seconds more, and so many
        calls wait there.
        """
        now = self._clock.monotonic()
        self._scaled_elsewhere_until = {name: now + seconds for name, seconds in left_s.items()}
        self._waiting_elsewhere = Counter(waiting)

    def forget_others(self) -> None:
        """Other routers cannot be asked: their calls count no more; queues that they opened stay
        open for their time.
        """
        self._waiting_elsewhere.clear()

    def is_open(self, model: str) -> bool:
        """Whether a call may wait for the model's first instance."""
        now, asked_at = self._clock.monotonic(), self._asked_at.get(model)
        here = asked_at is not None and now - asked_at <= SCALER_MEMORY_S
        return here or now < self._scaled_elsewhere_until.get(model, now)

    def count(self, model: str) -> int:
        """Calls that wait for the model, at this router and at others."""
        return self._waiting[model] + self._waiting_elsewhere[model]

    def arrived(self, models: Iterable[str]) -> None:
        """An instance serves these models: whoever waits for one of them looks again."""
        for model in models:
            if (arrival := self._arrivals.pop(model, None)) is not None:
                arrival.set()

    async def wait(self, model: str) -> bool:
        """Wait for an instance; True when one has come, False when none is to be expected.

        The call's deadline ends it from outside.

        Raises:
            Fault: RESOURCE_EXHAUSTED where too many wait already.
        """
        if not self.is_open(model):
            return False
        if self._waiting[model] >= MAX_WAITING:
            message = f"{MAX_WAITING} calls wait for the first instance of {model!r}"
            raise exhausted(message, reason=Reason.SHED, retry_after_s=RETRY_AFTER_S)
        self._waiting[model] += 1
        try:
            while self.is_open(model):
                arrival = self._arrivals.setdefault(model, asyncio.Event())
                try:
                    async with asyncio.timeout(RECHECK_S):
                        await arrival.wait()
                    return True
                except TimeoutError:
                    continue
            return False
        finally:
            self._waiting[model] -= 1
            if not self._waiting[model]:
                del self._waiting[model]
                self._arrivals.pop(model, None)
