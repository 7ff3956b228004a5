"""Single requests turned into batches: what arrives while a batch is in flight makes the next one.

For work of equal length only, such as the limiter's decisions: one slow item delays all of its
batch. Calls whose items differ use the item stream (`peers.stream`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from penstock.rpc.errors import Fault, internal

Q = TypeVar("Q")
A = TypeVar("A")


class MicroBatcher(Generic[Q, A]):
    """Sends requests in batches of at most `max_batch`, one batch in flight.

    An idle batcher sends at once; nothing waits on a timer.

    Args:
        send: answers a batch, in order; an answer may be a Fault, which fails that request alone.
            What it raises fails the whole batch.
    """

    def __init__(
        self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A | Fault]]], max_batch: int = 512
    ) -> None:
        self._send_batch = send
        self._max_batch = max_batch
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._in_flight: list[tuple[Q, asyncio.Future[A]]] = []

    async def __call__(self, request: Q) -> A:
        """Send one request and return its answer; raises the Fault that answers it.

        A request whose caller is cancelled leaves the next batch; a batch in flight ignores that.
        """
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        return await future

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = [item for item in self._waiting[: self._max_batch] if not item[1].done()]
                del self._waiting[: self._max_batch]
                if batch:
                    self._in_flight = batch
                    self._settle(batch, await self._answers(batch))
        finally:
            self._sender, self._in_flight = None, []

    def fail_all(self, error: Exception) -> None:
        """Answer all who wait, in flight or not, with `error`.

        The batch in flight goes on; what it brings is dropped.
        """
        waiting, self._waiting = self._waiting, []
        for batch in (self._in_flight, waiting):
            self._settle(batch, [error] * len(batch))

    async def _answers(
        self, batch: Sequence[tuple[Q, asyncio.Future[A]]]
    ) -> Sequence[A | BaseException]:
        try:
            answers = await self._send_batch([request for request, _ in batch])
        except Exception as error:
            return [error] * len(batch)
        if len(answers) != len(batch):
            mismatch = internal(f"{len(answers)} answers came for {len(batch)} requests")
            return [mismatch] * len(batch)
        return answers

    @staticmethod
    def _settle(
        batch: Sequence[tuple[Q, asyncio.Future[A]]], answers: Sequence[A | BaseException]
    ) -> None:
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
