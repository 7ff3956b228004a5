"""The thread behind the sync clients: one event loop for all of them, because gRPC's asyncio wants
a single one; and what a fork ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from penstock.client.errors import not_open

T = TypeVar("T")


class _Process:
    """What this process may no longer do. gRPC's threads do not survive a fork, and its locks stay
    held for ever or abort the child.
    """

    used = False
    forked = False

    @classmethod
    def after_fork(cls) -> None:
        cls.forked = cls.used


os.register_at_fork(after_in_child=_Process.after_fork)


def check_process() -> None:
    """Raise NotOpen in a child that was forked after its parent had opened a client."""
    if _Process.forked:
        raise not_open(
            "this process was forked after its parent had opened a client, and gRPC does not "
            "survive that;"
            " start processes by spawn, or fork before the first client is opened"
        )
    _Process.used = True


class Background:
    """An event loop in a thread of its own.

    Owner: whoever shares it gives it back; the last one ends the thread.
    """

    _lock = threading.Lock()
    _shared: Background | None = None

    def __init__(self) -> None:
        self._users = 0
        self._stop = asyncio.Event()
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self._thread = threading.Thread(target=self._run, name="penstock-client", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    @classmethod
    def share(cls) -> Background:
        """The one of this process, started with its first user."""
        check_process()
        with cls._lock:
            cls._shared = cls._shared or cls()
            cls._shared._users += 1
            return cls._shared

    def give_back(self) -> None:
        """One user less; without any the thread ends, and every task of its loop before it."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            Background._shared = None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run this on the loop; cancelling the future cancels the work."""
        if _Process.forked or self._loop.is_closed():
            work.close()
            check_process()
            raise not_open("the client was closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        asyncio.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
