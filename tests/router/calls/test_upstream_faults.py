"""An upstream's fault on its whole way: through the upstream service and the batcher to the router.
It is tried elsewhere, charged once, and remembered by score and batcher.

Real servers in this process: scripted upstreams, an upstream service in front of each, one batcher
in front of them all, and a router with a real limiter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.batcher.api.batcher_service import BatcherServicer
from penstock.batcher.instance import INFERENCE
from penstock.batcher.settings import BatchingSection
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.prompts.direct_calls import DirectCalls
from penstock.router.prompts.prefixes import Prefixes
from penstock.router.prompts.rules import PromptsSection, ShapingRule
from penstock.router.prompts.shaping import PromptShape
from penstock.router.settings import ModelRoute, RouterSettings, RoutesSection
from penstock.rpc.auth import internal
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import connect
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.store import embedded_store, open_store
from penstock.tasks.kind import Task
from penstock.tasks.kinds import GENERATE
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN, peer_to, serving
from penstock.testkit.upstream import ScriptedUpstream

from ..routed import JOINED_SUCCESSES, Routed, StartRouter

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
RULES = [
    {
        "name": what,
        "kind": "budget",
        "counts": what,
        "limit": 10**9,
        "window": "month",
        "calendar": True,
        "holds": "expected",  # so that each call holds for itself, and is read at once
    }
    for what in ("requests", "tokens", "microusd")
]
PRICES = {
    name: ModelPrice(name=name, input_microusd_per_mtok=price, output_microusd_per_mtok=price)
    for name, price in (("small", 1_000_000), ("big", 9_000_000))
}
SLOTS = 16


@dataclass
class Books:
    """The limiter and its store: what was charged."""

    limiter: LimiterServicer
    store: LedgerStore

    async def charged(self) -> tuple[int, int, int]:
        """Requests, tokens and micro-dollars, once nothing is held any more; the ledger says the
        same.
        """

        async def settled() -> dict[str, limiter_pb2.RuleUsage]:
            usage = await self.limiter.GetUsage(
                limiter_pb2.GetUsageRequest(), Call(Principal("acme"))
            )
            held = [row.held for row in usage.rules]
            assert not any(one.requests or one.tokens or one.microusd for one in held), held
            return {row.rule: row for row in usage.rules}

        rows = await eventually(settled, timeout_s=20)
        _, differences = await self.store.verify("acme")
        assert differences == []
        return (
            rows["requests"].committed.requests,
            rows["tokens"].committed.tokens,
            rows["microusd"].committed.microusd,
        )


@dataclass
class Rig:
    """A router with its batcher and limiter; instances have the name of their upstream."""

    router: Routed
    batcher: BatcherServicer
    books: Books

    async def join(
        self, name: str, model: str, faults: deque[Any], **knobs: Any
    ) -> ScriptedUpstream:
        """An upstream that has these faults, with its service, which the router takes for one that
        is proven.
        """
        stack = self.router.stack
        upstream = await stack.enter_async_context(ScriptedUpstream(faults=faults))
        section = Upstream(
            name=name,
            base_url=upstream.url,
            models=(UpstreamModel(name=model),),
            most_answer_bytes=100_000,
            **knobs,
        )
        client = Client(section, NO_TELEMETRY)
        stack.push_async_callback(client.close)
        servicer = UpstreamServicer(client, SystemClock(), NO_TELEMETRY)
        server = await stack.enter_async_context(
            serving([Endpoint(INFERENCE, servicer, internal(TOKEN))])
        )
        await self.router.registry.register(
            pb.Instance(
                id=name,
                address=server.address,
                models=servicer.models(),
                concurrency=SLOTS,
                tenancy=pb.TENANCY_UPSTREAM,
            )
        )
        self.router.registry.members[name].successes = JOINED_SUCCESSES
        return upstream

    async def slots(self) -> dict[str, int]:
        """What the batcher gives each instance at once."""
        listed = await self.batcher.ListQueues(batcher_pb2.ListQueuesRequest(), Call())
        return {queue.instance_id: queue.concurrency for queue in listed.queues}

    def failures(self) -> dict[str, int]:
        """What the router's score holds against each instance."""
        return {name: member.failures for name, member in self.router.registry.members.items()}


StartRig = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def start_rig(start_router: StartRouter, tmp_path: Path) -> StartRig:
    @contextlib.asynccontextmanager
    async def start(**more: Any) -> AsyncIterator[Rig]:
        clock = SystemClock()
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(embedded_store(tmp_path / "store"))
            store = LedgerStore(open_store(url), clock, StoreTimings(5.0, 1.0))
            stack.push_async_callback(store.close)
            batcher = BatcherServicer(
                BatchingSection(),
                lambda address: connect(address, INFERENCE, token=TOKEN),
                clock,
                NO_TELEMETRY,
            )
            stack.push_async_callback(batcher.close)
            section = LimitsSection.model_validate({"rules": RULES})
            prices = PricesSection(models=tuple(PRICES.values()))
            limiter = LimiterServicer(LimiterSettings(), section, prices, store, clock)
            admission = LimiterAdmission(peer_to(LIMITER, limiter), Current(Prices(PRICES)), clock)
            stack.push_async_callback(admission.close)
            server = await stack.enter_async_context(
                serving([Endpoint(BATCHER, batcher, internal(TOKEN))])
            )
            settings = RouterSettings(batcher_address=server.address)
            router = await stack.enter_async_context(
                start_router(settings, admission=admission, prices=PRICES, **more)
            )
            yield Rig(router, batcher, Books(limiter, store))

    return start


def asking(model: str, *words: str) -> pb.GenerateRequest:
    request = pb.GenerateRequest(options=pb.CallOptions(model=model))
    request.task.messages.add(role="ROLE_USER", content=" ".join(words) or "one two three four")
    return request


@pytest.mark.parametrize(
    "fault",
    [
        "429",
        "408",
        "409",
        "529",
        "500",
        "503",
        "reset",
        "silence",
        "malformed",
        "content_type",
        "oversized",
        "cut",
    ],
)
async def test_a_fault_is_tried_elsewhere_charged_once_and_remembered_by_score_and_batcher(
    start_rig: StartRig, fault: str
) -> None:
    faults: deque[Any] = deque([fault])  # shared: whichever upstream is asked first has it
    knobs = {"whole_timeout_ms": 500} if fault == "silence" else {}
    async with start_rig() as rig:
        upstreams = {name: await rig.join(name, "small", faults, **knobs) for name in ("a", "b")}
        answer = await rig.router.stub.Generate(
            asking("small"), metadata=rig.router.metadata, timeout=20
        )
        assert answer.result.message.content == "one two three four"
        receipt = answer.receipt
        assert receipt.route.attempts == 2
        assert [len(upstream.requests) for upstream in upstreams.values()] == [1, 1]
        served = receipt.route.instance_id
        [failed] = {*upstreams} - {served}
        assert rig.failures() == {served: 0, failed: 1}
        slots = await rig.slots()
        assert slots[failed] < SLOTS <= slots[served]
        assert (receipt.usage.input_tokens, receipt.usage.output_tokens) == (7, 4)
        assert receipt.cost.paid_microusd == 7 + 4
        # What fell silent took the request and may bill it: it is booked, and the receipt says so.
        billed = QUESTION_TOKENS if fault == "silence" else 0
        assert any("may be billed" in note for note in receipt.notes) is bool(billed)
        sends = 2 if billed else 1
        assert await rig.books.charged() == (sends, 11 + billed, 11 + billed)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(status, grpc.StatusCode.INVALID_ARGUMENT) for status in ("400", "413", "422")],
)
async def test_a_refused_request_is_tried_nowhere_else_costs_nothing_and_blames_nobody(
    start_rig: StartRig, fault: str, code: grpc.StatusCode
) -> None:
    async with start_rig() as rig:
        upstreams = [await rig.join(name, "small", deque([fault])) for name in ("a", "b")]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.router.stub.Generate(
                asking("small"), metadata=rig.router.metadata, timeout=20
            )
        assert refused.value.code() is code
        assert sum(len(upstream.requests) for upstream in upstreams) == 1
        assert rig.failures() == {"a": 0, "b": 0}
        assert min((await rig.slots()).values()) >= SLOTS
        assert (await rig.books.charged())[1:] == (0, 0)


@pytest.mark.wire_case(18)
@pytest.mark.parametrize("fault", ["401", "403", "404"])
async def test_what_the_operator_has_to_mend_is_served_elsewhere_and_the_instance_rests(
    start_rig: StartRig, fault: str
) -> None:
    async with start_rig() as rig:
        refusing = await rig.join("a", "small", deque([fault] * 10))
        serving_one = await rig.join("b", "small", deque())
        for _ in range(6):
            answer = await rig.router.stub.Generate(
                asking("small"), metadata=rig.router.metadata, timeout=20
            )
            assert answer.receipt.route.instance_id == "b"
        assert len(refusing.requests) == 1, "it rests after the first refusal"
        assert len(serving_one.requests) == 6
        assert min((await rig.slots()).values()) >= SLOTS, "nothing there is overloaded"
        assert (await rig.books.charged())[0] == 6


def streaming(rig: Rig) -> Any:
    request = pb.GenerateStreamRequest(
        options=pb.CallOptions(model="small"), task=asking("small").task
    )
    return rig.router.stub.GenerateStream(request, metadata=rig.router.metadata, timeout=20)


QUESTION_TOKENS = GENERATE.estimate(Task(generate=asking("small").task)).input_tokens
"""Tokens of the question as they are estimated, and micro-dollars."""


def cost_of(heard: str) -> int:
    """Tokens, and micro-dollars, of the question and of what was said in answer, as they are
    estimated.
    """
    return QUESTION_TOKENS + len(heard) // 4


@pytest.mark.parametrize(
    ("fault", "said"), [("cut", "one two"), ("malformed", "one"), ("error_event", "one")]
)
async def test_a_broken_stream_ends_in_an_error_and_is_charged_for_what_it_said_and_no_more(
    start_rig: StartRig, fault: str, said: str
) -> None:
    async with start_rig() as rig:
        upstreams = [await rig.join(name, "small", deque([fault])) for name in ("a", "b")]
        heard = ""
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for piece in streaming(rig):
                assert not piece.chunk.finish_reason
                heard += piece.chunk.delta
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert heard == said
        assert sum(len(upstream.requests) for upstream in upstreams) == 1
        assert sorted(rig.failures().values()) == [0, 1]
        assert [slots < SLOTS for slots in (await rig.slots()).values()] == [True]
        assert await rig.books.charged() == (1, cost_of(said), cost_of(said))


@pytest.mark.parametrize("fault", ["429", "529", "reset", "content_type"])
async def test_a_stream_that_fails_before_its_first_piece_is_tried_elsewhere_and_charged_once(
    start_rig: StartRig, fault: str
) -> None:
    faults: deque[Any] = deque([fault])
    async with start_rig() as rig:
        upstreams = [await rig.join(name, "small", faults) for name in ("a", "b")]
        pieces = [piece async for piece in streaming(rig)]
        assert "".join(piece.chunk.delta for piece in pieces) == "one two three four"
        assert [len(upstream.requests) for upstream in upstreams] == [1, 1]
        assert sorted(rig.failures().values()) == [0, 1]
        assert await rig.books.charged() == (1, 11, 11)


async def test_a_callers_cancel_closes_the_upstreams_call_and_is_charged_for_what_was_said(
    start_rig: StartRig,
) -> None:
    async with start_rig() as rig:
        upstream = await rig.join("a", "small", deque())
        upstream.per_word_s = 3600.0
        stream = streaming(rig)
        async for piece in stream:
            if piece.chunk.delta:
                break
        stream.cancel()
        async with asyncio.timeout(20):
            await upstream.caller_left.wait()
        assert await rig.books.charged() == (1, cost_of("one"), cost_of("one"))
        assert rig.failures() == {"a": 0}


def with_tool_result(rows: int) -> tuple[pb.GenerateRequest, str]:
    """A question to `auto` after a tool's result that can be said in fewer tokens, and the result
    itself.
    """
    request = asking("auto", "what is in stock")
    request.task.messages.add(role="ROLE_ASSISTANT").tool_calls.add(
        id="c1", name="find", arguments_json="{}"
    )
    items = [{"name": f"item {number}", "count": number} for number in range(rows)]
    content = json.dumps(items, indent=4)
    request.task.messages.add(role="ROLE_TOOL", content=content, tool_call_id="c1")
    return request, content


async def test_auto_is_shaped_by_the_chosen_models_rule_and_its_fallback_gets_the_prompt_as_it_came(
    start_rig: StartRig,
) -> None:
    rules = (
        ShapingRule(model="big", lossless=False, stable_prefix=False),
        ShapingRule(model="small"),
    )
    routes = RoutesSection(models=(ModelRoute(name="small"), ModelRoute(name="big", quality=0.9)))
    prices = Current(Prices(PRICES))
    clock = SystemClock()
    direct = DirectCalls(prices, clock)
    shape = PromptShape(PromptsSection(rules=rules), prices, Prefixes(prices, clock), direct)
    async with start_rig(shape=shape, routes=routes) as rig:
        small = await rig.join("a", "small", deque(["", "429"]))
        big = await rig.join("b", "big", deque())
        request, content = with_tool_result(rows=40)
        first, second = [
            await rig.router.stub.Generate(request, metadata=rig.router.metadata, timeout=20)
            for _ in range(2)
        ]

        assert first.receipt.model == "small"
        shaped = small.requests[0]["messages"][-1]["content"]
        assert len(shaped) < len(content)
        assert json.loads(shaped) == json.loads(content)
        assert [saving.technique for saving in first.receipt.savings] == ["prompt_optimiser"]

        assert second.receipt.model == "big"
        assert big.requests[0]["messages"][-1]["content"] == content
        assert not second.receipt.savings
        assert [note for note in second.receipt.notes if note.startswith("prompt: ")] == [
            "prompt: as it was sent, big has another rule"
        ]

        receipts = [answer.receipt for answer in (first, second)]
        tokens = sum(one.usage.input_tokens + one.usage.output_tokens for one in receipts)
        paid_microusd = sum(one.cost.paid_microusd for one in receipts)
        assert await rig.books.charged() == (2, tokens, paid_microusd)
