"""What other replicas of the cache keep in the same store, so that the bounds in bytes hold for all
of them together.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.cache.storage.entry_store import STORE_ERRORS, EntryStore

log = logging.getLogger(__name__)
WAIT_MS = 200
PAUSE_S = 0.5


class ReplicaFollower:
    """Follows the stream of new keys. Owner: whoever starts it closes it."""

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries
        self._closing = False
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take in what is there, then follow."""
        at = await self._entries.newest_kept()
        await self._entries.load()
        self._follower = asyncio.create_task(self._follow(at), name="follow replicas")

    async def close(self) -> None:
        """Stop following.

        No cancellation: the client may swallow it inside its blocking read, which ends by itself
        soon.
        """
        self._closing = True
        if self._follower is not None:
            await asyncio.wait([self._follower])

    async def _follow(self, at: str) -> None:
        while not self._closing:
            try:
                at = await self._entries.hear(at, WAIT_MS)
            except STORE_ERRORS as error:
                log.warning(
                    "the store does not answer (%s); what other replicas keep is heard later",
                    type(error).__name__,
                )
                await asyncio.sleep(PAUSE_S)
