"""Settlements that the store could not take: kept, and sent when it answers again.

Sending a settlement twice books nothing twice, for settling is idempotent by the hold's id. A
settlement is owed until it is on the store's disk; one that the script cannot run is dropped, so
that it does not keep the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from penstock.limiter.script import ScriptCall
from penstock.limiter.store.errors import StoreLost
from penstock.rpc.errors import Fault
from penstock.service.work_stream import stop

log = logging.getLogger(__name__)
BOOKED_ANEW_FOR_S = 45.0
"""For this time a settlement is booked even if the store does not know its hold. Later it is not:
it may have been booked before without an answer, and the store remembers settled holds for 60 s
only (`SETTLED_KEPT_MS` in `ledger/holds.lua`).
"""
MAX_OWED = 100_000
"""Settlements that are kept. Beyond this the oldest is dropped, and its hold expires."""
SENT_AT_ONCE = 256


class OwedSettlement(NamedTuple):
    """A settlement, as it is sent while it is fresh and as it is sent later."""

    fresh: ScriptCall
    late: ScriptCall
    since_s: float
    """When it was first owed, by the loop's time."""

    def call_at(self, now_s: float) -> ScriptCall:
        """What to send at a time."""
        return self.fresh if now_s - self.since_s < BOOKED_ANEW_FOR_S else self.late


class OwedSettlements:
    """Settlements by organisation and hold, in the order in which they came.

    Args:
        send: runs one script call; raises StoreLost, or the Fault of a call that cannot be run.
        durable: returns when what was run is on the store's disk; raises StoreLost.
    """

    def __init__(
        self,
        send: Callable[[ScriptCall], Awaitable[Any]],
        durable: Callable[[], Awaitable[None]],
    ) -> None:
        self._send = send
        self._durable = durable
        self._sender: asyncio.Task[None] | None = None
        self.pending: dict[tuple[str, str], OwedSettlement] = {}
        """What is owed; only read from outside."""

    def add(self, organisation: str, hold_id: str, fresh: ScriptCall, late: ScriptCall) -> None:
        """Keep a settlement; a later one of the same hold replaces it.

        Args:
            fresh, late: what to send while the store still knows whether it was booked, and after.
        """
        before = self.pending.get((organisation, hold_id))
        now_s = asyncio.get_running_loop().time()
        since_s = now_s if before is None else before.since_s
        self.pending[organisation, hold_id] = OwedSettlement(fresh, late, since_s)
        if len(self.pending) > MAX_OWED:
            del self.pending[next(iter(self.pending))]

    def send_soon(self) -> None:
        """Send what is owed in the background, unless that goes on already."""
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all(), name="send owed settlements")

    async def _send_all(self) -> None:
        """Send until nothing is owed; what fails stays owed until the store's next answer."""
        try:
            while self.pending:
                batch = list(self.pending.items())[:SENT_AT_ONCE]
                await asyncio.gather(*(self._send_one(owed) for _, owed in batch))
                await self._durable()
                for key, owed in batch:
                    if self.pending.get(key) is owed:
                        del self.pending[key]
        except StoreLost:
            log.warning("the store is lost again: %d settlements are still owed", len(self.pending))
        finally:
            self._sender = None

    async def _send_one(self, owed: OwedSettlement) -> None:
        with contextlib.suppress(Fault):  # it has been logged
            await self._send(owed.call_at(asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Stop sending."""
        if self._sender is not None:
            await stop([self._sender])
