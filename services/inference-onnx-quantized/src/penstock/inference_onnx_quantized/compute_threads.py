"""The compute threads: work goes in from the event loop and its outcome comes back, with one
wake-up of the loop for all that is ready.

A loop that computes one row in a millisecond feels every wake-up (a system call, a switch of
threads), which is why this is not `run_in_executor`. Ownership: a job belongs to the thread that
took it until its outcome is delivered, even when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from penstock.inference_onnx_quantized.load_meter import LoadMeter
from penstock.service.clock import Clock

T = TypeVar("T")
Cancelled = Callable[[], bool]


class _Job:
    """Work, where its outcome goes, and whether anybody still wants it."""

    __slots__ = ("error", "future", "result", "seconds", "stopped", "work")

    def __init__(self, work: Callable[[Cancelled], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.stopped = False
        self.result: Any = None
        self.error: Exception | None = None
        self.seconds = 0.0

    def cancelled(self) -> bool:
        return self.stopped

    def deliver(self) -> None:
        """On the event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result((self.result, self.seconds))
        else:
            self.future.set_exception(self.error)


class ComputeThreads:
    """Owns the threads.

    A cancelled await stops the work at its next question of `cancelled`, and its slot is free then.
    """

    def __init__(self, threads: int, meter: LoadMeter, clock: Clock) -> None:
        self._meter, self._clock = meter, clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._finished: deque[_Job] = deque()
        self._woken = False
        self._waking = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, name=f"compute-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Cancelled], T]) -> tuple[T, float]:
        """Do `work` in a thread; returns its result and its seconds in the thread."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._jobs.put(job)
        try:
            outcome: tuple[T, float] = await job.future
            return outcome
        except asyncio.CancelledError:
            job.stopped = True
            raise

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.stopped:
                self._do(job)
            self._hand_back(job)

    def _do(self, job: _Job) -> None:
        began = self._clock.monotonic()
        self._meter.began(began)
        try:
            job.result = job.work(job.cancelled)
        except Exception as error:
            job.error = error
        ended = self._clock.monotonic()
        job.seconds = ended - began
        self._meter.ended(ended, job.seconds)

    def _hand_back(self, job: _Job) -> None:
        self._finished.append(job)
        with self._waking:
            awake, self._woken = self._woken, True
        if not awake:
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits
                job.future.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """On the event loop: everything finished until now.

        The flag falls first, so that what comes later wakes the loop again.
        """
        self._woken = False
        while self._finished:
            self._finished.popleft().deliver()

    def close(self) -> None:
        """Let running work finish; take no more."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
