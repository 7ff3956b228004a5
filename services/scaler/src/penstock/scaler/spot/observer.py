"""Observes the machines of a spot fleet, and learns from what has gone.

What is learned is stored, so that a restart or a new leader begins with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Protocol

from penstock.scaler.spot.offerings import Offerings
from penstock.scaler.spot.offerings_json import dump_offerings, load_offerings
from penstock.scaler.spot.provider import Machine, SpotProvider
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

STORE_EVERY_S = 60.0
ABSENT_S = 60.0
"""After so long without an observation, another scaler may have acted: the store is read again."""


class StateStore(Protocol):
    """Where text outlives this process. Neither call raises: a lost store is logged there."""

    async def load(self) -> str | None:
        """Return what was saved last; None where nothing is, or the store is lost."""
        ...

    async def save(self, text: str) -> None:
        """Replace what was saved."""
        ...


class FleetObserver:
    """Keeps the machines as they were last seen.

    Attributes:
        machines: by id, in the order of their launch.
        stopping: ids of machines that are being drained and terminated.

    Args:
        store: None where what is learned is not kept.
    """

    def __init__(
        self,
        provider: SpotProvider,
        offerings: Offerings,
        clock: Clock,
        store: StateStore | None = None,
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.stopping: set[str] = set()
        self._provider = provider
        self._offerings = offerings
        self._clock = clock
        self._store = store
        self._observed_at_s = -math.inf
        self._stored_at_s = -math.inf
        self._stored_changes = 0
        self._stored: str | None = None

    @property
    def staying(self) -> list[Machine]:
        """The machines that are not being stopped."""
        return [one for one in self.machines.values() if one.id not in self.stopping]

    def capacity(self, machines: Iterable[Machine]) -> float:
        """Return how many wanted instances these machines replace.

        One on demand, or of an offering that is no longer used, replaces one.
        """
        known = self._offerings.by_name
        return sum(
            known[one.offering].capacity if one.offering in known else 1.0 for one in machines
        )

    async def observe(self) -> bool:
        """Read the machines and prices, and learn from them.

        Returns:
            True where another scaler has acted since the last observation, or the state of an
            earlier run was found. What was decided here before is then void.

        Raises:
            OSError: the provider cannot be asked.
        """
        machines, now_s = await self._provider.machines(), self._clock.time()
        was_replaced = False
        if now_s - self._observed_at_s > ABSENT_S:
            was_replaced = await self._load({one.offering for one in machines}, now_s)
        self._observed_at_s = now_s
        self._learn_losses({one.id for one in machines}, now_s)
        self._learn_launches(machines, now_s)
        self.machines = {one.id: one for one in machines}
        for name, price in (await self._provider.prices()).items():
            if name in self._offerings.by_name:
                self._offerings.record_price(name, price, now_s)
        self._offerings.record_availability()
        await self._save_if_due(now_s)
        return was_replaced

    def _learn_losses(self, present: set[str], now_s: float) -> None:
        """Machines that have gone without being stopped were taken away."""
        for gone in [one for one in self.machines.values() if one.id not in present]:
            if gone.offering in self._offerings.by_name and gone.id not in self.stopping:
                self._offerings.record_loss(gone.offering, now_s)
            self.stopping.discard(gone.id)

    def _learn_launches(self, machines: list[Machine], now_s: float) -> None:
        """New machines, those included that ran before this scaler began."""
        for one in machines:
            if one.id not in self.machines and one.offering in self._offerings.by_name:
                self._offerings.record_launch(one.offering, now_s)

    async def _load(self, offerings: set[str], now_s: float) -> bool:
        """Take up what the scaler that acted last has stored; returns whether that is news."""
        text = await self._store.load() if self._store is not None else None
        if text is None or text == self._stored:
            return False
        try:
            load_offerings(text, self._offerings, now_s)
        except ValueError as error:
            log.warning("%s; it is ignored", error)
            return False
        # The other scaler has learned from what has gone meanwhile.
        self.machines.clear()
        self._offerings.keep_up(offerings)
        return True

    async def _save_if_due(self, now_s: float) -> None:
        is_changed = self._offerings.changes != self._stored_changes
        if not is_changed and now_s - self._stored_at_s < STORE_EVERY_S:
            return
        self._stored_at_s = now_s
        self._stored_changes = self._offerings.changes
        if self._store is not None:
            self._stored = dump_offerings(self._offerings)
            await self._store.save(self._stored)
