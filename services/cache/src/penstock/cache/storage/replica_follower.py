"""Counts the entries of the store and those of other replicas towards the limits in bytes, so that
the limits hold for all replicas on one store together.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.cache.storage.entry_store import STORE_ERRORS, EntryStore
from penstock.service.store_connections import READ_WAIT_MS
from penstock.service.work_stream import stop

log = logging.getLogger(__name__)
GATHER_S = 0.5
"""Pause after new entries, so that those that come one by one are read together; what others have
written is not counted towards the limits for so long.
"""
RETRY_S = 0.5
"""Pause after the store has not answered."""


class ReplicaFollower:
    """Counts what the store holds, then follows the stream of new entries. Owner: whoever starts it
    closes it.

    The cache serves meanwhile: what is not counted yet only stands outside the limits in bytes.
    """

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries
        self.is_caught_up = False
        """Whether all that the store held at the start is counted."""
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin in the background, whether or not the store answers."""
        self._follower = asyncio.create_task(self._run(), name="follow new entries")

    async def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            await stop([self._follower])

    async def _run(self) -> None:
        batch_id = ""
        while True:
            try:
                batch_id = await self._go_on(batch_id)
            except STORE_ERRORS as error:
                log.warning(
                    "new entries: the store does not answer (%s); reading again in %g s",
                    type(error).__name__,
                    RETRY_S,
                )
                await asyncio.sleep(RETRY_S)

    async def _go_on(self, batch_id: str) -> str:
        """Count everything where no batch was read yet, else the entries after the last batch;
        returns the last batch now.
        """
        if not batch_id:
            # The position in the stream is taken first, so that no new entry is missed.
            last_id = await self._entries.new_entries.last_id()
            await self._entries.load_sizes()
            self.is_caught_up = True
            return last_id
        next_id, entries = await self._entries.new_entries.of_others_after(batch_id, READ_WAIT_MS)
        await self._entries.count(entries)
        if next_id != batch_id:
            await asyncio.sleep(GATHER_S)
        return next_id
