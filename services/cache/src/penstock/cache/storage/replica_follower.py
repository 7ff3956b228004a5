"""Counts the entries of other replicas towards the limits in bytes, so that the limits hold for all
replicas on one store together.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.cache.storage.entry_store import STORE_ERRORS, EntryStore

log = logging.getLogger(__name__)
READ_WAIT_MS = 200
RETRY_S = 0.5
"""Pause after the store has not answered."""


class ReplicaFollower:
    """Follows the stream of new entries. Owner: whoever starts it closes it."""

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries
        self._is_closing = False
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Count the entries that are in the store, then follow the stream in the background."""
        batch_id = await self._entries.new_entries.last_id()
        await self._entries.load_sizes()
        self._follower = asyncio.create_task(self._follow(batch_id), name="follow new entries")

    async def close(self) -> None:
        """Stop following.

        The task is not cancelled: the store's client may swallow a cancellation inside its blocking
        read, which ends by itself within `READ_WAIT_MS`.
        """
        self._is_closing = True
        if self._follower is not None:
            await asyncio.wait([self._follower])

    async def _follow(self, batch_id: str) -> None:
        while not self._is_closing:
            try:
                next_id, entries = await self._entries.new_entries.of_others_after(
                    batch_id, READ_WAIT_MS
                )
                await self._entries.count(entries)
                batch_id = next_id
            except STORE_ERRORS as error:
                log.warning(
                    "new entries: the store does not answer (%s); reading again in %g s",
                    type(error).__name__,
                    RETRY_S,
                )
                await asyncio.sleep(RETRY_S)
