"""Settlements that the store could not take: kept, and sent when it answers again.

Sending a settlement twice books nothing twice, for settling is idempotent by the hold's id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.limiter.script import ScriptCall
from penstock.limiter.store.errors import StoreLost
from penstock.rpc.errors import Fault

log = logging.getLogger(__name__)
MAX_OWED = 100_000
"""Settlements that are kept. Beyond this the oldest is dropped, and its hold expires."""
SENT_AT_ONCE = 256


class OwedSettlements:
    """Settlements by organisation and hold, in the order in which they came.

    Args:
        send: runs one script call; raises StoreLost or Fault.
    """

    def __init__(self, send: Callable[[ScriptCall], Awaitable[Any]]) -> None:
        self._send = send
        self._sender: asyncio.Task[None] | None = None
        self.pending: dict[tuple[str, str], ScriptCall] = {}
        """What is owed; only read from outside."""

    def add(self, organisation: str, hold_id: str, call: ScriptCall) -> None:
        """Keep a settlement; a later one of the same hold replaces it."""
        self.pending[organisation, hold_id] = call
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
                await asyncio.gather(*(self._send(call) for _, call in batch))
                for key, call in batch:
                    if self.pending.get(key) is call:
                        del self.pending[key]
        except (StoreLost, Fault):
            log.warning("the store is lost again: %d settlements are still owed", len(self.pending))
        finally:
            self._sender = None

    async def close(self) -> None:
        """Stop sending."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
