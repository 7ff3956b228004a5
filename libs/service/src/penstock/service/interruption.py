"""A long wait that something else may end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from penstock.service.work_stream import stop

T = TypeVar("T")


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T], otherwise: T) -> T:
    """What `work` returns, or `otherwise` where the event is set before that; `work` has then been
    cancelled. Raises what `work` raises.
    """
    loop = asyncio.get_running_loop()
    working, interrupted = loop.create_task(work), loop.create_task(event.wait())
    try:
        await asyncio.wait((working, interrupted), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else otherwise
    finally:
        await stop([working, interrupted])
