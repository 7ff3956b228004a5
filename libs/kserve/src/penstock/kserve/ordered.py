"""Answers in the order of their requests, computed side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")
A = TypeVar("A")


async def in_order(
    requests: AsyncIterator[R], serve: Callable[[R], Awaitable[A]], window: int
) -> AsyncGenerator[A, None]:
    """Serve requests as they come, and yield their answers in the order of the requests.

    Owns the tasks: those that are left are cancelled when the generator is closed.

    Args:
        serve: gives the answer; what it raises ends the generator.
        window: requests that are taken in before the first of them has been answered; beyond it
            the sender waits.
    """
    pending: asyncio.Queue[asyncio.Task[A] | None] = asyncio.Queue()
    room = asyncio.Semaphore(window)
    started: set[asyncio.Task[A]] = set()

    async def answered(request: R) -> A:
        return await serve(request)

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                task = asyncio.create_task(answered(request))
                started.add(task)
                pending.put_nowait(task)
        finally:
            pending.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await pending.get()) is not None:
            answer = await task
            started.discard(task)
            room.release()
            yield answer
        await reader
    finally:
        for left in (reader, *started):
            left.cancel()
        await asyncio.gather(reader, *started, return_exceptions=True)
