"""What each path answers: from a request to the wire that reads it and the call that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.edge.anthropic_messages.wire import AnthropicMessages
from penstock.edge.call_options import PREFIX, options_of
from penstock.edge.caller import Refused
from penstock.edge.conversations import (
    RECEIPT_HEADER,
    Conversation,
    Conversations,
    Keeping,
)
from penstock.edge.draining import Draining
from penstock.edge.http_exchange import ClientLeft, HttpExchange
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
from penstock.edge.same_wire import put_wire_request
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import Asked, Failure, FailureKind, Identity, Wire
from penstock.rpc.call import Call
from penstock.service.clock import Clock

MODELS, RECEIPTS, RESPONSES = "/v1/models", "/v1/receipts", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
OPENAI, ANTHROPIC = ChatCompletions(), AnthropicMessages()
WIRES: dict[str, Wire] = {"/v1/chat/completions": OPENAI, MESSAGES: ANTHROPIC}
"""The wire of each path that answers conversations."""
EMPTY_TASK = inference_pb2.GenerateTask()
Act = Callable[["Served"], Awaitable[None]]


@dataclass(frozen=True)
class Served:
    """One request while it is served.

    Attributes:
        exchange: the request, and the way to answer it.
        call: deadline and trace.
        key: the caller's.
        number: the request's own, in hexadecimal.
    """

    exchange: HttpExchange
    call: Call
    key: str = field(repr=False)
    number: str


class Acts:
    """The paths and what answers them."""

    def __init__(
        self,
        router: RouterCalls,
        responses: ResponseKeeper,
        draining: Draining,
        settings: EdgeSettings,
        clock: Clock,
    ) -> None:
        self._router = router
        self._responses = responses
        self._settings = settings
        self._clock = clock
        self._receipts = Receipts(settings.kept_receipts)
        self._conversations = Conversations(router, self._receipts, draining, settings)
        self._acts: dict[tuple[str, str], Act] = {
            ("POST", "/v1/embeddings"): self._embed,
            ("POST", "/v1/rerank"): self._rerank,
            ("GET", MODELS): self._models,
            ("POST", COUNT_TOKENS): self._count_tokens,
            ("POST", RESPONSES): self._respond,
            **{("POST", path): self._converse for path in WIRES},
        }
        self._paths = {path for _, path in self._acts}

    def find(self, method: str, path: str) -> Act:
        """What answers a method of a path.

        Raises:
            Refused: nothing does.
        """
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
        put_wire_request(asked.task, exchange.path, body, exchange.headers)
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
        conversation = Conversation(
            wire, asked, options, identity, served.call, served.key, keeping
        )
        await self._unless_left(exchange, answer(exchange, conversation))

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


def _no_path(path: str) -> Failure:
    message = f"there is no {path}; see the documentation for the paths"
    return Failure(FailureKind.NOT_FOUND, message, code="unknown_url")


def _name_ignored(exchange: HttpExchange, ignored: tuple[str, ...]) -> None:
    if ignored:
        exchange.add_header(f"{PREFIX}ignored", ", ".join(ignored))


def route_name(path: str) -> str:
    """A path without what differs from call to call."""
    for prefix in (MODELS, RECEIPTS, RESPONSES):
        if path.startswith(f"{prefix}/"):
            return f"{prefix}/{{id}}"
    return path
