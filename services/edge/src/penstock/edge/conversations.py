"""Answers to conversations, whole or as events, for every wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.edge.draining import Draining
from penstock.edge.failures import failure_of
from penstock.edge.http_exchange import HttpExchange
from penstock.edge.receipt_header import receipt_header
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.same_wire import EVENT_END, providers_event
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import Asked, Events, Failure, FailureKind, Identity, Wire
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, internal, to_fault

RECEIPT_HEADER = "x-penstock-receipt"
COMMENT = b": keep-alive\n\n"
"""Sent while nothing is known of an answer; clients skip it."""
LEAVING = Failure(
    FailureKind.OVERLOADED, "the server is being stopped; send the request again", may_retry=True
)


class Keeping(Protocol):
    """Keeps answers of one caller before their end is told."""

    async def whole(
        self,
        result: inference_pb2.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> None:
        """Keep a whole answer."""
        ...

    async def streamed(self, events: Events) -> None:
        """Keep an answer whose last events are made."""
        ...


class Conversations:
    """Serves what wires have read."""

    def __init__(
        self, router: RouterCalls, receipts: Receipts, draining: Draining, settings: EdgeSettings
    ) -> None:
        self._router = router
        self._receipts = receipts
        self._draining = draining
        self._settings = settings

    async def whole(
        self,
        exchange: HttpExchange,
        wire: Wire,
        asked: Asked,
        options: router_pb2.CallOptions,
        identity: Identity,
        call: Call,
        key: str,
        keeping: Keeping | None = None,
    ) -> None:
        """Answer in one piece.

        Args:
            keeping: keeps the answer; None keeps nothing.

        Raises:
            Fault: as the router says.
        """
        request = router_pb2.GenerateRequest(options=options, task=asked.task)
        answer = await self._router.call("Generate", request, call, key)
        self._receipts.keep(key, answer.receipt)
        exchange.add_header(RECEIPT_HEADER, receipt_header(answer.receipt))
        if keeping is not None:
            await keeping.whole(answer.result, answer.receipt.usage, asked, identity)
        body: bytes = answer.result.wire_body
        if not body:
            body = wire.whole(answer.result, answer.receipt.usage, asked, identity)
        await exchange.reply(200, body)

    async def stream(
        self,
        exchange: HttpExchange,
        wire: Wire,
        asked: Asked,
        options: router_pb2.CallOptions,
        identity: Identity,
        call: Call,
        key: str,
        keeping: Keeping | None = None,
    ) -> None:
        """Answer by events. A failure before the first piece has a status of its own; a later one
        is the last event.

        Args:
            keeping: keeps the answer; None keeps nothing.

        Raises:
            Fault: before anything was sent.
        """
        request = router_pb2.GenerateStreamRequest(options=options, task=asked.task)
        events = wire.events(asked, identity)
        messages: Any = self._router.stream("GenerateStream", request, call, key)
        async with aclosing(messages):
            first = await self._first(exchange, messages)
            try:
                if not first.exception() and first.result().chunk.wire_piece:
                    await self._pass_on(exchange, first.result(), messages, key)
                    return
                await self._begin(exchange)
                await exchange.send_events(events.start())
                receipt = await self._send_pieces(exchange, events, first, messages)
                await self._end(exchange, events, receipt, key, keeping)
            except Fault as fault:
                await self._fail(exchange, events, failure_of(fault))
            except asyncio.CancelledError:
                if not self._draining.is_over:
                    raise
                await self._fail(exchange, events, LEAVING)

    async def _first(
        self, exchange: HttpExchange, messages: AsyncIterator[Any]
    ) -> asyncio.Task[Any]:
        """The first message, once it is there; while it is long in coming, the client is told that
        the answer is worked at.
        """
        first = asyncio.ensure_future(anext(messages))
        wait_s = self._settings.first_piece_s
        try:
            while not (await asyncio.wait((first,), timeout=wait_s))[0]:
                await self._begin(exchange)
                await exchange.send_events(COMMENT)
                wait_s = self._settings.keep_alive_s
        except BaseException:
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await first
            raise
        if not exchange.has_begun and first.exception() is not None:
            raise to_fault(first.exception() or internal("no answer"))
        return first

    async def _begin(self, exchange: HttpExchange) -> None:
        if not exchange.has_begun:
            await exchange.begin_events()

    async def _pass_on(
        self, exchange: HttpExchange, message: Any, messages: AsyncIterator[Any], key: str
    ) -> None:
        """The provider's own events, byte by byte; after the last a comment with the receipt."""
        await self._begin(exchange)
        receipt: common_pb2.Receipt | None = None
        while message is not None:
            if message.HasField("receipt"):
                receipt = message.receipt
            if message.chunk.wire_piece:
                await exchange.send_events(message.chunk.wire_piece)
            message = await anext(messages, None)
        if receipt is None:
            raise internal("the answer ended without its receipt")
        self._receipts.keep(key, receipt)
        await exchange.send_events(_receipt_note(receipt))
        await exchange.end_events()

    async def _send_pieces(
        self,
        exchange: HttpExchange,
        events: Events,
        first: asyncio.Task[Any],
        messages: AsyncIterator[Any],
    ) -> common_pb2.Receipt:
        """Send the answer as it comes; returns its receipt."""
        receipt: common_pb2.Receipt | None = None
        async with _Beat(exchange, events, self._settings.keep_alive_s) as beat:
            message = first.result()
            while message is not None:
                if message.HasField("receipt"):
                    receipt = message.receipt
                frames = events.piece(message.chunk) if message.HasField("chunk") else b""
                if frames:
                    beat.tick()
                    await exchange.send_events(frames)
                message = await anext(messages, None)
        if receipt is None:
            raise internal("the answer ended without its receipt")
        return receipt

    async def _end(
        self,
        exchange: HttpExchange,
        events: Events,
        receipt: common_pb2.Receipt,
        key: str,
        keeping: Keeping | None,
    ) -> None:
        self._receipts.keep(key, receipt)
        last = events.end(receipt.usage)
        if keeping is not None:
            await keeping.streamed(events)
        await exchange.send_events(_receipt_note(receipt) + last)
        await exchange.end_events()

    async def _fail(self, exchange: HttpExchange, events: Events, failure: Failure) -> None:
        said = providers_event(failure) or events.failure(failure)
        # A provider's stream may have broken off inside a line.
        await exchange.send_events(EVENT_END + said)
        await exchange.end_events()


def _receipt_note(receipt: common_pb2.Receipt) -> bytes:
    """The receipt as a comment, which clients skip."""
    return f": {RECEIPT_HEADER} {receipt_header(receipt)}\n\n".encode()


class _Beat:
    """Says on a stream that it is alive after each silence of so many seconds."""

    def __init__(self, exchange: HttpExchange, events: Events, every_s: float) -> None:
        self._exchange, self._events, self._every_s = exchange, events, every_s
        self._last_s = 0.0

    async def __aenter__(self) -> _Beat:
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._task = self._loop.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def tick(self) -> None:
        """Something was said."""
        self._last_s = self._loop.time()

    async def _run(self) -> None:
        while True:
            silent_s = self._loop.time() - self._last_s
            if silent_s < self._every_s:
                await asyncio.sleep(self._every_s - silent_s)
            else:
                self.tick()
                await self._exchange.send_events(self._events.keep_alive())
