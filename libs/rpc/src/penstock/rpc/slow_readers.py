"""Ends streams whose readers take nothing: what serves them, and what they were admitted for, would
else be kept until their deadline.
"""

from __future__ import annotations

import asyncio
from typing import Any

SLOW_READER_S = 30.0
"""A peer that takes nothing for so long, while something waits to be taken, is cut; it is noticed
within twice that time.
"""


class WatchedWriter:
    """Writes the messages of one stream, and cancels the task that does so once the peer takes
    none. Owner: whoever made it must `close` it.

    Args:
        context: grpc.aio's, of the stream that the current task serves.
        slow_s: how long a peer may take nothing.
    """

    def __init__(self, context: Any, slow_s: float) -> None:
        self._context = context
        self._slow_s = slow_s
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._writes = self._writes_seen = 0
        self._is_writing = False
        self.has_cut = False
        self._timer = self._loop.call_later(slow_s, self._look)

    async def write(self, message: bytes) -> None:
        """Write a message; returns when there is room for the next."""
        self._is_writing = True
        self._writes += 1
        await self._context.write(message)
        self._is_writing = False

    def cancelled(self) -> bool:
        """Whether the task that writes was cancelled by this, and goes on."""
        if not self.has_cut or self._task is None:
            return False
        self._task.uncancel()
        return True

    def close(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._is_writing and self._writes == self._writes_seen and self._task is not None:
            self.has_cut = True
            self._task.cancel()
            return
        self._writes_seen = self._writes
        self._timer = self._loop.call_later(self._slow_s, self._look)
