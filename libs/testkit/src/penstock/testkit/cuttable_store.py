"""A client of a real store whose connection a test cuts and mends."""

from __future__ import annotations

from typing import Any

from penstock.service.store import open_store

NOWHERE = "unix:///nowhere.sock"
"""An address at which no store listens."""


class CuttableStore:
    """Passes everything to a client of the store, or while it is cut to one that cannot connect.

    It is given to what expects a `redis.asyncio.Redis`.
    """

    def __init__(self, url: str) -> None:
        self._connected = open_store(url, retries=0)
        self._cut_off = open_store(NOWHERE, retries=0)
        self._is_cut = False

    def cut(self) -> None:
        """Refuse every connection from now on."""
        self._is_cut = True

    def mend(self) -> None:
        """Reach the store again."""
        self._is_cut = False

    async def aclose(self) -> None:
        """Close both clients."""
        await self._connected.aclose()
        await self._cut_off.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cut_off if self._is_cut else self._connected, name)
