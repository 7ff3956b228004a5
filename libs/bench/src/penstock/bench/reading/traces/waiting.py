"""Waiting for what another process does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 60.0
POLL_S = 0.05


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds.

    Raises:
        TimeoutError: it does not within a minute.
    """
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - an event would have to come from another process
            await asyncio.sleep(POLL_S)
