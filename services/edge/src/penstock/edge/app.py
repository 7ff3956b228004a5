"""The application: from an HTTP request to the wire that reads it and the call that answers it.

Bare ASGI, because every call passes here. A request is served in a task of its own, which ends as
soon as its client leaves, and everything behind it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import orjson
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.edge.anthropic_messages.wire import AnthropicMessages
from penstock.edge.call_options import PREFIX, options_of, timeout_s
from penstock.edge.caller import KeyLimits, Refused, key_of
from penstock.edge.conversations import LEAVING, RECEIPT_HEADER, Conversations, Keeping
from penstock.edge.draining import Draining
from penstock.edge.failures import failure_of, refusal_of
from penstock.edge.http_exchange import (
    BodyTooLarge,
    BodyTooSlow,
    ClientLeft,
    HttpExchange,
    Receive,
    Send,
)
from penstock.edge.json_fields import refused
from penstock.edge.openai_chat.wire import ChatCompletions
from penstock.edge.openai_responses.response_keeper import WIRE as RESPONSES_WIRE
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_rest.embeddings import embeddings_body, read_embeddings
from penstock.edge.openai_rest.models import model_body, models_body
from penstock.edge.openai_rest.rerank import read_rerank, rerank_body
from penstock.edge.receipt_header import receipt_header
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.same_wire import providers_reply, wire_request
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import Asked, BadRequest, Failure, FailureKind, Identity, Wire
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import to_fault
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
MODELS, RECEIPTS, RESPONSES = "/v1/models", "/v1/receipts", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
OPENAI, ANTHROPIC = ChatCompletions(), AnthropicMessages()
WIRES: dict[str, Wire] = {"/v1/chat/completions": OPENAI, MESSAGES: ANTHROPIC}
"""The wire of each path that answers conversations."""
Act = Callable[["Served"], Awaitable[None]]


class Served:
    """One request while it is served."""

    def __init__(self, exchange: HttpExchange, call: Call, key: str, identity: str) -> None:
        self.exchange, self.call, self.key, self.number = exchange, call, key, identity


class EdgeApp:
    """The ASGI application."""

    def __init__(
        self,
        router: RouterCalls,
        responses: ResponseKeeper,
        settings: EdgeSettings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._responses = responses
        self._router = router
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._limits = KeyLimits(settings.max_calls_per_key)
        self._receipts = Receipts(settings.kept_receipts)
        self.draining = Draining()
        self._conversations = Conversations(router, self._receipts, self.draining, settings)
        self._acts: dict[tuple[str, str], Act] = {
            ("POST", "/v1/embeddings"): self._embed,
            ("POST", "/v1/rerank"): self._rerank,
            ("GET", MODELS): self._models,
            ("POST", COUNT_TOKENS): self._count_tokens,
            ("POST", RESPONSES): self._respond,
            **{("POST", path): self._converse for path in WIRES},
        }
        self._paths = {path for _, path in self._acts}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's next request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            timeout_s = self._settings.send_timeout_s
            await self._serve(HttpExchange(scope, receive, send, timeout_s))

    async def _serve(self, exchange: HttpExchange) -> None:
        number = secrets.token_hex(16)
        for header in ("x-request-id", "request-id"):
            exchange.add_header(header, f"req_{number}")
        is_anthropic = exchange.path.startswith(MESSAGES) or "anthropic-version" in exchange.headers
        wire: Wire = ANTHROPIC if is_anthropic else OPENAI
        work = asyncio.create_task(self._answer(exchange, wire, number))
        with self.draining.counted(work):
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                if not work.done():
                    work.cancel()
                    await asyncio.wait((work,))

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
        if exchange.path in ("/healthz", "/") and exchange.method in ("GET", "HEAD"):
            await exchange.reply(200, b'{"status":"ok"}')
            return
        act = self._act_of(exchange)
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
        name = f"{exchange.method} {_route_name(exchange.path)}"
        with (
            self._limits.counted(key),
            self._telemetry.span(name, call, kind="server") as span,
        ):
            await act(Served(exchange, span.call, key, number))

    def _act_of(self, exchange: HttpExchange) -> Act:
        path, method = exchange.path, exchange.method
        act = self._acts.get((method, path))
        if act is not None:
            return act
        if method == "GET" and path.startswith(f"{MODELS}/"):
            return self._model
        if method == "GET" and path.startswith(f"{RECEIPTS}/"):
            return self._receipt
        if path.startswith(f"{RESPONSES}/") and method in ("GET", "DELETE"):
            return self._kept_response
        if path in self._paths:
            raise Refused(Failure(FailureKind.NO_SUCH_METHOD, f"{path} does not take {method}"))
        raise Refused(_no_path(path))

    async def _body(self, exchange: HttpExchange) -> bytes:
        settings = self._settings
        return await exchange.body(settings.max_body_bytes, settings.body_timeout_s)

    async def _converse(self, served: Served) -> None:
        exchange = served.exchange
        wire = WIRES[exchange.path]
        body = await self._body(exchange)
        asked = wire.read(body, exchange.headers)
        asked.task.MergeFrom(_as_it_came(exchange, body))
        await self._answer_asked(served, wire, asked)

    async def _respond(self, served: Served) -> None:
        exchange = served.exchange
        body = await self._body(exchange)
        asked = await self._responses.read(served.key, body, exchange.headers)
        await self._answer_asked(served, RESPONSES_WIRE, asked, self._responses.of(served.key))

    async def _answer_asked(
        self, served: Served, wire: Wire, asked: Asked, keeping: Keeping | None = None
    ) -> None:
        exchange = served.exchange
        options = options_of(asked, exchange.headers)
        _name_ignored(exchange, asked.ignored)
        identity = Identity(served.number, int(self._clock.time()), asked.model)
        answer = self._conversations.stream if asked.streams else self._conversations.whole
        await self._unless_left(
            exchange,
            answer(exchange, wire, asked, options, identity, served.call, served.key, keeping),
        )

    async def _count_tokens(self, served: Served) -> None:
        exchange = served.exchange
        asked = ANTHROPIC.read_count(await self._body(exchange), exchange.headers)
        _name_ignored(exchange, asked.ignored)
        await self._available(served)  # Only a key in force is answered.
        await exchange.reply(200, ANTHROPIC.count(asked))

    async def _kept_response(self, served: Served) -> None:
        exchange, key = served.exchange, served.key
        await self._available(served)  # Only a key in force sees what it was told before.
        response_id, _, rest = exchange.path.removeprefix(f"{RESPONSES}/").partition("/")
        if exchange.query.get("stream", "false").lower() != "false":
            raise refused("stream", "an answer that has ended is not streamed again; leave it out")
        if exchange.method == "DELETE" and not rest:
            await exchange.reply(200, await self._responses.delete(key, response_id))
        elif exchange.method == "GET" and not rest:
            await exchange.reply(200, await self._responses.response(key, response_id))
        elif exchange.method == "GET" and rest == "input_items":
            items = await self._responses.input_items(key, response_id, exchange.query)
            await exchange.reply(200, items)
        else:
            raise Refused(_no_path(exchange.path))

    async def _embed(self, served: Served) -> None:
        exchange = served.exchange
        asked = read_embeddings(await self._body(exchange))
        _name_ignored(exchange, asked.ignored)
        options = options_of(Asked(EMPTY_TASK, asked.model), exchange.headers)
        request = router_pb2.EmbedRequest(options=options, texts=asked.texts)

        async def answer() -> None:
            response = await self._router.call("Embed", request, served.call, served.key)
            self._account(served, response)
            await exchange.reply(200, embeddings_body(response, asked, asked.model))

        await self._unless_left(exchange, answer())

    async def _rerank(self, served: Served) -> None:
        exchange = served.exchange
        asked = read_rerank(await self._body(exchange))
        _name_ignored(exchange, asked.ignored)
        options = options_of(Asked(EMPTY_TASK, asked.model), exchange.headers)
        request = router_pb2.RerankRequest(
            options=options, query=asked.query, documents=asked.documents, top_n=asked.top_n
        )
        identity = Identity(served.number, int(self._clock.time()), asked.model)

        async def answer() -> None:
            response = await self._router.call("Rerank", request, served.call, served.key)
            self._account(served, response)
            await exchange.reply(200, rerank_body(response, asked, identity))

        await self._unless_left(exchange, answer())

    async def _models(self, served: Served) -> None:
        await served.exchange.reply(200, models_body(await self._available(served)))

    async def _model(self, served: Served) -> None:
        name = unquote(served.exchange.path.removeprefix(f"{MODELS}/"))
        body = model_body(await self._available(served), name)
        if body is None:
            raise Refused(Failure(FailureKind.NOT_FOUND, f"no model is called {name!r}", "model"))
        await served.exchange.reply(200, body)

    async def _available(self, served: Served) -> list[router_pb2.AvailableModel]:
        request = router_pb2.ListModelsRequest()
        response = await self._router.call("ListModels", request, served.call, served.key)
        return list(response.models)

    async def _receipt(self, served: Served) -> None:
        request_id = served.exchange.path.removeprefix(f"{RECEIPTS}/")
        await self._available(served)  # Only a key in force sees what it was told before.
        found = self._receipts.find(served.key, request_id)
        if found is None:
            message = f"{request_id!r} is not among the latest receipts of this key"
            raise Refused(Failure(FailureKind.NOT_FOUND, message, code="receipt_not_found"))
        await served.exchange.reply(200, orjson.dumps(found))

    def _account(self, served: Served, response: Any) -> None:
        self._receipts.keep(served.key, response.receipt)
        served.exchange.add_header(RECEIPT_HEADER, receipt_header(response.receipt))

    async def _unless_left(self, exchange: HttpExchange, answer: Any) -> None:
        """Answer, unless the client leaves first: then the answer is cancelled.

        Raises:
            ClientLeft: it has.
        """
        work = asyncio.ensure_future(answer)
        leaving = asyncio.ensure_future(exchange.left())
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientLeft
            work.result()
        finally:
            leaving.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))


def _as_it_came(exchange: HttpExchange, body: bytes) -> inference_pb2.GenerateTask:
    given = wire_request(exchange.path, body, exchange.headers)
    return inference_pb2.GenerateTask(wire_request=given)


EMPTY_TASK = inference_pb2.GenerateTask()


def _no_path(path: str) -> Failure:
    message = f"there is no {path}; see the documentation for the paths"
    return Failure(FailureKind.NOT_FOUND, message, code="unknown_url")


def _route_name(path: str) -> str:
    """The path without what differs from call to call."""
    for prefix in (MODELS, RECEIPTS, RESPONSES):
        if path.startswith(f"{prefix}/"):
            return f"{prefix}/{{id}}"
    return path


def _name_ignored(exchange: HttpExchange, ignored: tuple[str, ...]) -> None:
    if ignored:
        exchange.add_header(f"{PREFIX}ignored", ", ".join(ignored))


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
        exchange.add_header("retry-after", str(max(1, round(failure.retry_after_s))))
        exchange.add_header("retry-after-ms", str(round(failure.retry_after_s * 1e3)))
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
