"""Telling a stream's client after each silence that its answer is worked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from penstock.edge.http_exchange import HttpExchange

COMMENT = b": keep-alive\n\n"
"""Clients skip it. It is said while nothing is known of an answer."""


class KeepAlive:
    """Says on a stream that it is alive: after `first_s` without a word, then after each `every_s`.

    While words come often enough a timer is all there is: none is set or moved for a word, it looks
    at the time of the last one when it is due. Owner: the block that opens it, which must `stop` it
    before it says the stream's last words.
    """

    def __init__(self, exchange: HttpExchange, first_s: float, every_s: float) -> None:
        self._exchange = exchange
        self._first_s, self._every_s = first_s, every_s
        self._words: Callable[[], bytes] = lambda: COMMENT
        self._saying: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._wait_for(self._first_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def heard(self) -> None:
        """Something else was said."""
        self._heard_s = self._loop.time()

    async def say_from_now_on(self, words: Callable[[], bytes]) -> None:
        """Say something else than the comment, after each `every_s`. Returns once no word is being
        sent.
        """
        await self.stop()
        self._words = words
        self._wait_for(self._every_s)

    async def stop(self) -> None:
        """Say nothing any more. Returns once no word is being sent."""
        self._timer.cancel()
        if self._saying is not None:
            await self._saying
            self._timer.cancel()

    def _wait_for(self, silence_s: float) -> None:
        self._wait_s = silence_s
        self.heard()
        self._timer = self._loop.call_later(silence_s, self._look)

    def _look(self) -> None:
        left_s = self._heard_s + self._wait_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._saying = self._loop.create_task(self._say())

    async def _say(self) -> None:
        if not self._exchange.has_begun:
            await self._exchange.begin_events()
        await self._exchange.send_events(self._words())
        self._saying = None
        self._wait_for(self._every_s)
