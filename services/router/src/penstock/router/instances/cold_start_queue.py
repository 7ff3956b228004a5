"""The waiting room of models that scale from zero: calls wait here while the scaler starts the
first instance.

A batcher's queue stands before an instance; where there is none yet, this room stands before the
fleet. A model has one as long as a scaler keeps asking about it: nobody waits for an instance that
nobody will start. A place belongs to the call until its `wait` returns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.rpc.reasons import Reason
from penstock.rpc.errors import exhausted
from penstock.service.clock import Clock

HEARD_S = 30.0
"""A scaler that has not asked for so long starts nothing any more."""
LOOK_S = 1.0
MOST = 1000
"""Calls that wait for one model at most."""


class WaitingRoom:
    """Who waits for a model without instances, and which models a scaler looks after."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_at: dict[str, float] = {}
        self._elsewhere_until: dict[str, float] = {}
        self._waiting_elsewhere: Counter[str] = Counter()
        self._arrivals: dict[str, asyncio.Event] = {}
        self._waiting: Counter[str] = Counter()

    def scaled(self, models: Iterable[str]) -> None:
        """A scaler says that it starts instances of these models."""
        now = self._clock.monotonic()
        self._heard_at = {name: at for name, at in self._heard_at.items() if now - at <= HEARD_S}
        self._heard_at |= dict.fromkeys(models, now)

    def heard(self) -> dict[str, float]:
        """Seconds for which what a scaler said here still holds, by model."""
        now = self._clock.monotonic()
        left = {name: at + HEARD_S - now for name, at in self._heard_at.items()}
        return {name: seconds for name, seconds in left.items() if seconds > 0}

    def waiting_here(self) -> dict[str, int]:
        """Calls that wait at this router, by model."""
        return dict(self._waiting)

    def told(self, left_s: Mapping[str, float], waiting: Mapping[str, int]) -> None:
        """Other routers' scalers look after these models for so many seconds more, and so many
        calls wait there.
        """
        now = self._clock.monotonic()
        self._elsewhere_until = {name: now + seconds for name, seconds in left_s.items()}
        self._waiting_elsewhere = Counter(waiting)

    def alone(self) -> None:
        """Other routers cannot be heard: their calls count no more; rooms that they opened stay
        open for their time.
        """
        self._waiting_elsewhere.clear()

    def opens(self, model: str) -> bool:
        """Whether a call may wait for the model's first instance."""
        now, heard_at = self._clock.monotonic(), self._heard_at.get(model)
        here = heard_at is not None and now - heard_at <= HEARD_S
        return here or now < self._elsewhere_until.get(model, now)

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
        if not self.opens(model):
            return False
        if self._waiting[model] >= MOST:
            raise exhausted(
                f"{MOST} calls wait for the first instance of {model!r}",
                reason=Reason.SHED,
                retry_after_s=5.0,
            )
        self._waiting[model] += 1
        try:
            while self.opens(model):
                arrival = self._arrivals.setdefault(model, asyncio.Event())
                try:
                    async with asyncio.timeout(LOOK_S):
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
