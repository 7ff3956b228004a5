"""The gathered unary batch, for uniform micro-work such as limiter decisions: what arrives while a
batch is in flight makes the next one.

For work of like length only: one slow item holds all of its batch. Hops whose items differ use the
item stream (`hop`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from penstock.rpc.errors import Fault, internal

Q = TypeVar("Q")
A = TypeVar("A")


class MicroBatcher(Generic[Q, A]):
    """Turns single questions into batches of at most `most`, one batch in flight.

    An idle gatherer sends at once; nothing waits on a timer.

    Args:
        ask: answers a batch, in order; an answer may be a Fault, which fails that question alone.
            What it raises fails the whole batch.
    """

    def __init__(
        self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A | Fault]]], most: int = 512
    ) -> None:
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._flying: list[tuple[Q, asyncio.Future[A]]] = []

    async def __call__(self, question: Q) -> A:
        """Ask one question; raises the Fault that answers it.

        A cancelled one leaves the next batch; a running batch ignores it.
        """
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        return await future

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = [item for item in self._waiting[: self._most] if not item[1].done()]
                del self._waiting[: self._most]
                if batch:
                    self._flying = batch
                    self._settle(batch, await self._answers(batch))
        finally:
            self._sender, self._flying = None, []

    def give_up(self, error: Exception) -> None:
        """Answer all who wait, in flight or not, with `error`.

        The batch in flight goes on; what it brings is dropped.
        """
        waiting, self._waiting = self._waiting, []
        for batch in (self._flying, waiting):
            self._settle(batch, [error] * len(batch))

    async def _answers(
        self, batch: Sequence[tuple[Q, asyncio.Future[A]]]
    ) -> Sequence[A | BaseException]:
        try:
            answers = await self._ask([question for question, _ in batch])
        except Exception as error:
            return [error] * len(batch)
        if len(answers) != len(batch):
            return [internal(f"{len(answers)} answers came for {len(batch)} questions")] * len(
                batch
            )
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
