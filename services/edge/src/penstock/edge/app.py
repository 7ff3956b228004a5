"""The application: serves requests, ends them, and says what went wrong, for all paths.

Bare ASGI, because every call passes here. A request is served in the task that the port made for
it. Where its client leaves, what is being done for it is cancelled, and everything behind it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import MutableMapping
from typing import Any

from penstock.edge.acts import ANTHROPIC, MESSAGES, OPENAI, Acts, route_name
from penstock.edge.call_options import timeout_s
from penstock.edge.caller import Bounds, KeyLimits, Refused, key_of
from penstock.edge.conversations import LEAVING
from penstock.edge.description.document import openapi_json
from penstock.edge.draining import Draining
from penstock.edge.failures import failure_of, refusal_of
from penstock.edge.http_exchange import (
    BodyTooLarge,
    BodyTooSlow,
    ClientLeft,
    HttpExchange,
    Receive,
    Send,
    current_task,
)
from penstock.edge.lookups import no_method
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.same_wire import providers_reply
from penstock.edge.served import Served
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import BadRequest, Failure, FailureKind, Wire
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import to_fault
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
HEALTHY = b'{"status":"ok"}'
OPEN_PAGES = {"/": HEALTHY, "/healthz": HEALTHY, "/openapi.json": openapi_json()}
"""What everybody may read."""


class EdgeApp:
    """The ASGI application."""

    def __init__(
        self,
        router: RouterCalls,
        responses: ResponseKeeper,
        receipts: Receipts,
        settings: EdgeSettings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._limits = KeyLimits(
            Bounds(
                settings.max_calls_per_key, settings.max_key_body_bytes, settings.max_bodies_bytes
            )
        )
        self.draining = Draining()
        self._acts = Acts(router, responses, receipts, self.draining, settings, clock)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's next request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(HttpExchange(scope, receive, send))

    async def _serve(self, exchange: HttpExchange) -> None:
        number = secrets.token_hex(16)
        for header in ("x-request-id", "request-id"):
            exchange.add_header(header, f"req_{number}")
        is_anthropic = exchange.path.startswith(MESSAGES) or "anthropic-version" in exchange.headers
        wire: Wire = ANTHROPIC if is_anthropic else OPENAI
        with self.draining.counted(current_task()):
            await self._answer(exchange, wire, number)

    async def _answer(self, exchange: HttpExchange, wire: Wire, number: str) -> None:
        """Answer, or say what went wrong; never fails."""
        try:
            await self._route(exchange, number)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not self.draining.is_over or exchange.has_begun:
                return
            await _refuse(exchange, wire, LEAVING, number)
        except Exception as error:
            failure = _failure(error)
            if failure.kind is FailureKind.INTERNAL and not exchange.has_begun:
                log.warning("%s %s: %s", exchange.method, exchange.path, failure.message)
            if not exchange.has_begun:
                await _refuse(exchange, wire, failure, number)

    async def _route(self, exchange: HttpExchange, number: str) -> None:
        if (page := OPEN_PAGES.get(exchange.path)) is not None:
            if exchange.method not in ("GET", "HEAD"):
                raise Refused(no_method(exchange.method, exchange.path, ("GET", "HEAD")))
            await exchange.reply(200, page)
            return
        act = self._acts.find(exchange.method, exchange.path)
        if self.draining.has_begun:
            raise Refused(LEAVING)
        if exchange.header_bytes > self._settings.max_header_bytes:
            message = f"the headers have more than {self._settings.max_header_bytes} bytes"
            raise Refused(Failure(FailureKind.INVALID, message))
        key = key_of(exchange)
        deadline_s = self._clock.monotonic() + timeout_s(
            exchange.headers, self._settings.http_deadline_s
        )
        call = Call(deadline_s=deadline_s, traceparent=exchange.headers.get("traceparent", ""))
        name = f"{exchange.method} {route_name(exchange.path)}"
        with (
            self._limits.counted(key) as share,
            self._telemetry.span(name, call, kind="server") as span,
        ):
            await act(Served(exchange, span.call, key, number, share))


def _failure(error: Exception) -> Failure:
    match error:
        case BadRequest():
            return refusal_of(error)
        case Refused():
            return error.failure
        case BodyTooLarge():
            return Failure(FailureKind.TOO_LARGE, "the body is larger than is taken")
        case BodyTooSlow():
            return Failure(FailureKind.TIMED_OUT_READING, "the body was not there in time")
    return failure_of(to_fault(error))


async def _refuse(exchange: HttpExchange, wire: Wire, failure: Failure, number: str) -> None:
    status, body = providers_reply(failure) or wire.error(failure, f"req_{number}")
    if failure.retry_after_s:
        exchange.add_header("retry-after", str(math.ceil(failure.retry_after_s)))
        exchange.add_header("retry-after-ms", str(math.ceil(failure.retry_after_s * 1e3)))
    if failure.allowed:
        exchange.add_header("allow", ", ".join(failure.allowed))
    if failure.may_retry is not None:
        exchange.add_header("x-should-retry", str(failure.may_retry).lower())
    await exchange.reply(status, body)


async def _live(receive: Receive, send: Send) -> None:
    """The protocol of an application's life; there is nothing to do."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
