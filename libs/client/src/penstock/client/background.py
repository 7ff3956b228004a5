"""The thread behind the sync clients, with one event loop for all of them.

gRPC's asyncio needs a single event loop in a process, and does not survive a fork.
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
THREAD_NAME = "penstock-client"


class _ForkState:
    """Whether this process opened a client, and whether it is the fork of one that had.

    gRPC's threads do not exist in a forked child, where its locks stay held or abort the process.
    """

    client_opened = False
    forked_after_open = False

    @classmethod
    def after_fork(cls) -> None:
        cls.forked_after_open = cls.client_opened


os.register_at_fork(after_in_child=_ForkState.after_fork)


def check_process() -> None:
    """Record that this process opens a client.

    Raises:
        NotOpen: the process was forked after its parent had opened a client.
    """
    if _ForkState.forked_after_open:
        raise not_open(
            "this process was forked after its parent had opened a client, which gRPC does not "
            "support; start processes by spawn, or fork before the first client is opened"
        )
    _ForkState.client_opened = True


class Background:
    """An event loop in a thread of its own, shared by all sync clients of the process.

    Each user calls `acquire` once and `release` once; the last release ends the thread.
    """

    _lock = threading.Lock()
    _shared: Background | None = None

    def __init__(self) -> None:
        self._users = 0
        self._stop = asyncio.Event()
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    @classmethod
    def acquire(cls) -> Background:
        """The background thread of this process; its first user starts it.

        Raises:
            NotOpen: the process was forked after its parent had opened a client.
        """
        check_process()
        with cls._lock:
            cls._shared = cls._shared or cls()
            cls._shared._users += 1
            return cls._shared

    def release(self) -> None:
        """End the use of one client; the last one cancels all tasks and ends the thread."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            Background._shared = None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it.

        Raises:
            NotOpen: the thread has ended, or the process was forked.
        """
        if _ForkState.forked_after_open or self._loop.is_closed():
            coroutine.close()
            check_process()
            raise not_open("the client was closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        asyncio.run(self._run_until_stopped())

    async def _run_until_stopped(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
