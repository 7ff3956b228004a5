"""The compute threads, and the instance's load: work goes in from the event loop, and its outcome
comes back.

All outcomes that are ready come back with one wake-up of the loop. A loop whose tasks take a
millisecond feels every wake-up (a system call and a switch of threads), which is why this is not
`run_in_executor`. Ownership: a job belongs to the thread that took it until its outcome is
delivered, even when nobody waits for it any more.

The load is what is in flight, how long recent tasks took, and how busy the slots were. Requests are
counted on the event loop; slots are counted by the compute threads, under a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from statistics import median
from typing import Any, TypeVar

from penstock.service.clock import Clock

RECENT_TASKS = 64

T = TypeVar("T")
Cancelled = Callable[[], bool]
"""Whether the caller has cancelled; the work calls it between two steps."""


class LoadMeter:
    """Counts work as it comes and goes."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.in_flight = 0
        self.running = 0
        self._lock = threading.Lock()
        self._service_s: deque[float] = deque(maxlen=RECENT_TASKS)
        self._busy_s = 0.0
        self._changed_at_s = 0.0
        self._reported_at_s = 0.0

    def add(self, requests: int) -> None:
        """Count requests that came in."""
        self.in_flight += requests

    def remove(self, requests: int) -> None:
        """Count requests that left, answered or not."""
        self.in_flight -= requests

    def start_slot(self, now: float) -> None:
        """Count a slot that begins to compute."""
        with self._lock:
            self._add_busy_time(now)
            self.running += 1

    def end_slot(self, now: float, service_s: float) -> None:
        """Count a slot that is free again after computing for `service_s`."""
        with self._lock:
            self._add_busy_time(now)
            self.running -= 1
            self._service_s.append(service_s)

    def _add_busy_time(self, now: float) -> None:
        self._busy_s += self.running * max(0.0, now - self._changed_at_s)
        self._changed_at_s = max(now, self._changed_at_s)

    def utilization(self, now: float) -> float:
        """Share of slot time that was busy since the last call of this method, 0 to 1."""
        with self._lock:
            self._add_busy_time(now)
            slot_s = (now - self._reported_at_s) * self.concurrency
            share = self._busy_s / slot_s if slot_s > 0 else 0.0
            self._busy_s = 0.0
            self._reported_at_s = now
        return min(1.0, max(0.0, share))

    @property
    def queued(self) -> int:
        """Requests in flight that do not compute yet."""
        return max(0, self.in_flight - self.running)

    @property
    def service_ms(self) -> float:
        """Median computing time of recent tasks in milliseconds; 0 before the first."""
        recent = list(self._service_s)
        return median(recent) * 1e3 if recent else 0.0


class _Job:
    """Work, its outcome, and the future that waits for it."""

    __slots__ = ("error", "future", "is_cancelled", "result", "seconds", "work")

    def __init__(self, work: Callable[[Cancelled], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.is_cancelled = False
        self.result: Any = None
        self.error: Exception | None = None
        self.seconds = 0.0

    def cancelled(self) -> bool:
        return self.is_cancelled

    def deliver(self) -> None:
        """Settle the future; called on the event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result((self.result, self.seconds))
        else:
            self.future.set_exception(self.error)


class ComputeThreads:
    """A fixed number of threads that compute. Owner: whoever made them must `close` them."""

    def __init__(self, threads: int, meter: LoadMeter, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._finished: deque[_Job] = deque()
        self._is_loop_woken = False
        self._wake_lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, name=f"compute-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Cancelled], T]) -> tuple[T, float]:
        """Do `work` in a thread; returns its result and its seconds in the thread.

        Cancelling the caller ends the work when it next asks whether it is cancelled; its slot is
        free then.
        """
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._jobs.put(job)
        try:
            outcome: tuple[T, float] = await job.future
            return outcome
        except asyncio.CancelledError:
            job.is_cancelled = True
            raise

    def close(self) -> None:
        """Let running and waiting work finish, then end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """The life of one thread."""
        while (job := self._jobs.get()) is not None:
            if not job.is_cancelled:
                self._compute(job)
            self._hand_back(job)

    def _compute(self, job: _Job) -> None:
        began_s = self._clock.monotonic()
        self._meter.start_slot(began_s)
        try:
            job.result = job.work(job.cancelled)
        except Exception as error:
            job.error = error
        ended_s = self._clock.monotonic()
        job.seconds = ended_s - began_s
        self._meter.end_slot(ended_s, job.seconds)

    def _hand_back(self, job: _Job) -> None:
        """Leave the job for the event loop, and wake the loop unless that was done already."""
        self._finished.append(job)
        with self._wake_lock:
            was_woken = self._is_loop_woken
            self._is_loop_woken = True
        if not was_woken:
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits
                job.future.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Deliver everything finished until now; called on the event loop.

        The flag falls first, so that a job that finishes meanwhile wakes the loop again.
        """
        self._is_loop_woken = False
        while self._finished:
            self._finished.popleft().deliver()
