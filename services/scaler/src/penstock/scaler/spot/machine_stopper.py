"""Stops machines: drains each, waits for its replacement where there is one, terminates it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine

from penstock.scaler.actuate.actuator import Drain, wait_for_replacement
from penstock.scaler.spot.observer import FleetObserver
from penstock.scaler.spot.provider import Machine, SpotProvider
from penstock.service.clock import Clock

log = logging.getLogger(__name__)


class MachineStopper:
    """Stops machines in tasks of its own; owner of these until `close`.

    Args:
        drain: called before a machine is terminated; None where machines need not be drained.
    """

    def __init__(
        self, provider: SpotProvider, observer: FleetObserver, clock: Clock, drain: Drain | None
    ) -> None:
        self._provider = provider
        self._observer = observer
        self._clock = clock
        self._drain = drain
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self, machine: Machine) -> None:
        """Drain and terminate a machine."""
        self._observer.stopping.add(machine.id)
        self._start(self._stop(machine, "scale_down"))

    def stop_replaced(
        self, machine: Machine, remaining_s: float, replaced: Callable[[], Awaitable[bool]]
    ) -> None:
        """Drain a machine once it is replaced, and terminate it when its time is over and it still
        runs. The caller has marked it as stopping.
        """
        self._start(self._stop_replaced(machine, remaining_s, replaced))

    async def close(self) -> None:
        """Stop draining. Machines that still run are found again by the next scaler."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop_replaced(
        self, machine: Machine, remaining_s: float, replaced: Callable[[], Awaitable[bool]]
    ) -> None:
        end_s = self._clock.monotonic() + remaining_s
        await wait_for_replacement(replaced, self._clock, remaining_s)
        await self._stop(machine, "spot_notice", not_before_s=end_s)

    async def _stop(self, machine: Machine, reason: str, not_before_s: float = -math.inf) -> None:
        if self._drain is not None:
            await self._drain(machine.id, reason)
        while (rest_s := not_before_s - self._clock.monotonic()) > 0:
            await self._clock.sleep(rest_s)
        try:
            if machine.id in self._observer.machines:
                await self._provider.terminate(machine.id)
        except OSError as error:
            log.warning("%s cannot be terminated now and stays in the fleet: %s", machine.id, error)
            self._observer.stopping.discard(machine.id)
