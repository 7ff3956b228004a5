"""What each path answers: from a request to the wire that reads it and the call that serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.edge.anthropic_messages.wire import AnthropicMessages
from penstock.edge.call_options import options_of
from penstock.edge.caller import Refused
from penstock.edge.conversations import (
    RECEIPT_HEADER,
    Conversation,
    Conversations,
    Keeping,
)
from penstock.edge.draining import Draining
from penstock.edge.lookups import MODELS, RECEIPTS, RESPONSES, Lookups, no_method, no_path
from penstock.edge.openai_chat.wire import ChatCompletions
from penstock.edge.openai_responses.response_keeper import WIRE as RESPONSES_WIRE
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_rest.embeddings import embeddings_body, read_embeddings
from penstock.edge.openai_rest.rerank import read_rerank, rerank_body
from penstock.edge.receipt_header import receipt_header
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.same_wire import put_wire_request
from penstock.edge.served import Act, Bodies, ByMethod, Served, available
from penstock.edge.settings import EdgeSettings
from penstock.edge.wire import Asked, Identity, Wire
from penstock.service.clock import Clock

MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
INPUT_TOKENS = f"{RESPONSES}/input_tokens"
OPENAI, ANTHROPIC = ChatCompletions(), AnthropicMessages()
WIRES: dict[str, Wire] = {"/v1/chat/completions": OPENAI, MESSAGES: ANTHROPIC}
"""The wire of each path that answers conversations."""
EMPTY_TASK = inference_pb2.GenerateTask()


class Acts:
    """The paths and what answers them."""

    def __init__(
        self,
        router: RouterCalls,
        responses: ResponseKeeper,
        receipts: Receipts,
        draining: Draining,
        settings: EdgeSettings,
        clock: Clock,
    ) -> None:
        self._router = router
        self._responses = responses
        self._clock = clock
        self._receipts = receipts
        self._bodies = Bodies(router, settings)
        self._conversations = Conversations(router, receipts, draining, settings)
        lookups = Lookups(router, responses, receipts)
        self._at: dict[str, ByMethod] = {
            "/v1/embeddings": {"POST": self._embed},
            "/v1/rerank": {"POST": self._rerank},
            MODELS: {"GET": lookups.models},
            COUNT_TOKENS: {"POST": self._count_tokens},
            INPUT_TOKENS: {"POST": self._count_input_tokens},
            RESPONSES: {"POST": self._respond},
            **{path: {"POST": self._converse} for path in WIRES},
        }
        self._below: dict[str, Callable[[str], ByMethod]] = {
            MODELS: lambda _: {"GET": lookups.model},
            RECEIPTS: lambda _: {"GET": lookups.receipt},
            RESPONSES: lookups.of_response,
        }
        """What answers the rest of a path below another."""

    def find(self, method: str, path: str) -> Act:
        """What answers a method of a path.

        Raises:
            Refused: nothing does.
        """
        acts = self._at.get(path) or self._acts_below(path)
        if not acts:
            raise Refused(no_path(path))
        if method not in acts:
            raise Refused(no_method(method, path, tuple(acts)))
        return acts[method]

    def _acts_below(self, path: str) -> ByMethod:
        for above, acts in self._below.items():
            below = path.removeprefix(f"{above}/")
            if below and below != path:
                return acts(below)
        return {}

    async def _converse(self, served: Served) -> None:
        wire = WIRES[served.exchange.path]
        await self._answer_asked(served, wire, await self._asked(served, wire))

    async def _asked(self, served: Served, wire: Wire) -> Asked:
        """What is asked, with the request's own bytes where they may pass. The body itself is not
        kept while the answer is waited for.
        """
        exchange = served.exchange
        body = await self._bodies.read(served)
        asked = wire.read(body, exchange.headers)
        put_wire_request(asked.task, exchange.path, body, exchange.headers)
        return asked

    async def _respond(self, served: Served) -> None:
        asked = await self._asked_response(served)
        await self._answer_asked(served, RESPONSES_WIRE, asked, self._responses.of(served.key))

    async def _asked_response(self, served: Served) -> Asked:
        body = await self._bodies.read(served)
        return await self._responses.read(served.key, body, served.exchange.headers)

    async def _answer_asked(
        self, served: Served, wire: Wire, asked: Asked, keeping: Keeping | None = None
    ) -> None:
        exchange = served.exchange
        options = options_of(asked, exchange.headers)
        served.name_ignored(asked.ignored)
        identity = Identity(served.number, int(self._clock.time()), asked.model)
        answer = self._conversations.stream if asked.streams else self._conversations.whole
        conversation = Conversation(
            wire, asked, options, identity, served.call, served.key, keeping
        )
        await exchange.unless_left(answer(exchange, conversation))

    async def _count_tokens(self, served: Served) -> None:
        asked = ANTHROPIC.read_count(await self._bodies.read(served), served.exchange.headers)
        await self._counted(served, asked, ANTHROPIC.count(asked))

    async def _count_input_tokens(self, served: Served) -> None:
        body = await self._bodies.read(served)
        await available(self._router, served)  # What is kept is looked up for a key in force only.
        asked = await self._responses.read_count(served.key, body)
        await self._counted(served, asked, RESPONSES_WIRE.count(asked))

    async def _counted(self, served: Served, asked: Asked, count: bytes) -> None:
        served.name_ignored(asked.ignored)
        await available(self._router, served)  # Only a key in force is answered.
        await served.exchange.reply(200, count)

    async def _embed(self, served: Served) -> None:
        exchange = served.exchange
        asked = read_embeddings(await self._bodies.read(served))
        served.name_ignored(asked.ignored)
        options = options_of(Asked(EMPTY_TASK, asked.model), exchange.headers)
        request = router_pb2.EmbedRequest(options=options, texts=asked.texts)

        async def answer() -> None:
            response = await self._router.call("Embed", request, served.call, served.key)
            self._account(served, response)
            await exchange.reply(200, embeddings_body(response, asked, asked.model))

        await exchange.unless_left(answer())

    async def _rerank(self, served: Served) -> None:
        exchange = served.exchange
        asked = read_rerank(await self._bodies.read(served))
        served.name_ignored(asked.ignored)
        options = options_of(Asked(EMPTY_TASK, asked.model), exchange.headers)
        request = router_pb2.RerankRequest(
            options=options, query=asked.query, documents=asked.documents, top_n=asked.top_n
        )
        identity = Identity(served.number, int(self._clock.time()), asked.model)

        async def answer() -> None:
            response = await self._router.call("Rerank", request, served.call, served.key)
            self._account(served, response)
            await exchange.reply(200, rerank_body(response, asked, identity))

        await exchange.unless_left(answer())

    def _account(self, served: Served, response: Any) -> None:
        self._receipts.keep(served.key, response.receipt)
        served.exchange.add_header(RECEIPT_HEADER, receipt_header(response.receipt))


def route_name(path: str) -> str:
    """A path without what differs from call to call."""
    for prefix in (MODELS, RECEIPTS, RESPONSES):
        if path.startswith(f"{prefix}/") and path != INPUT_TOKENS:
            return f"{prefix}/{{id}}"
    return path
