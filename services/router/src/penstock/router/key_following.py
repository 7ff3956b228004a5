"""Learning at each router what has become of the store's keys: at once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from penstock.router.identity.key_store import KeyStore
from penstock.router.keys import KeyRing
from penstock.service.clock import Clock
from penstock.service.store_connections import READ_WAIT_MS
from penstock.service.work_stream import LOST

log = logging.getLogger(__name__)

LOST_S = 0.2
"""Between two tries while the store does not answer."""
MAX_BLIND_S = 30.0
"""Longest that keys of the store are believed while the store does not answer."""


class KeyFollower:
    """Keeps a key ring as the store has it.

    Args:
        end_refused: ends open calls of whoever is not accepted any more.
        secret: under which keys are hashed; empty: the store's.
    """

    def __init__(
        self,
        store: KeyStore,
        keys: KeyRing,
        clock: Clock,
        end_refused: Callable[[], object],
        secret: str,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._end_refused = end_refused
        self._configured_secret = secret
        self._secret = b""
        self._version = -1
        self._read_at_s = clock.monotonic()

    async def read(self) -> None:
        """Take in what has changed; raises redis' own errors."""
        if await self._store.version() != self._version:
            version, records = await self._store.read()
            if records and not self._secret:
                self._secret = await self._store.secret(self._configured_secret)
            self._version = version
            self._keys.replace_records(self._secret, records)
        self._read_at_s = self._clock.monotonic()

    async def run(self) -> None:
        """Read for ever, whenever a key has changed and now and then: its open calls end at once
        where it is refused now. While the store does not answer its keys are believed for
        MAX_BLIND_S, then refused: one of them may have been revoked.
        """
        change_id = ""
        while True:
            try:
                change_id = change_id or await self._store.latest_change_id()
                await self.read()
                self._end_refused()
                change_id = await self._store.wait_for_change(change_id, READ_WAIT_MS)
            except LOST:
                self._distrust()
                self._end_refused()
                await self._clock.sleep(LOST_S)

    def _distrust(self) -> None:
        blind_s = self._clock.monotonic() - self._read_at_s
        if blind_s > MAX_BLIND_S and self._version >= 0:
            log.error("keys of the store are refused: it has not answered for %.0f s", blind_s)
            self._keys.replace_records(self._secret, {})
            self._version = -1
