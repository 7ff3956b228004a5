"""The router over real gRPC, with scripted instances behind it: who may call, what comes back, what
happens when one fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.router.build import ROUTER
from penstock.router.instances.registry import Registry
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import exhausted, unavailable
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.instance import QuietInstance
from penstock.testkit.server import TOKEN

KEY = "psk-test-key"
METADATA = (("authorization", f"Bearer {KEY}"),)
MODEL = "m"
READY = inference_pb2.MODEL_STATE_READY


class Scripted(QuietInstance):
    """An inference servicer that answers, refuses, hangs or cuts its stream as told."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.calls: list[Call] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls.append(call)
        if self.mode == "down":
            raise unavailable("no")
        if self.mode == "full":
            raise exhausted("the queue is full", "QUEUE_FULL", retry_after_s=1.0)
        if self.mode == "hang":
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        result = inference_pb2.TaskResult(compute_ms=1.5, revision="1-abc")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeStream(
        self, request: object, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        for delta in ("one ", "two "):
            yield inference_pb2.ComputeStreamResponse(
                chunk=inference_pb2.GenerateChunk(delta=delta)
            )
        if self.mode == "cut":
            return
        chunk = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        yield inference_pb2.ComputeStreamResponse(
            chunk=chunk, result=inference_pb2.TaskResult(revision="1")
        )


@dataclass
class Rig:
    """A router with two scripted instances."""

    stub: router_pb2_grpc.RouterServiceStub
    registry: Registry
    instances: dict[str, Scripted]
    address: str


@pytest.fixture
async def rig(start_router: Callable[..., Any]) -> AsyncIterator[Rig]:
    instances = {"a": Scripted(), "b": Scripted()}
    async with start_router(RouterSettings(default_model=MODEL)) as routed:
        for name, servicer in instances.items():
            await routed.join(name, servicer, MODEL)
        yield Rig(routed.stub, routed.registry, instances, routed.address)


def embed(*texts: str, **options: object) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=texts or ["hello"], options=pb.CallOptions(**options))  # type: ignore[arg-type]


async def test_an_answer_with_its_receipt(rig: Rig) -> None:
    answer = await rig.stub.Embed(embed(run_id="r1", step="plan"), metadata=METADATA)
    assert list(answer.embeddings[0].values) == [1.0]
    receipt = answer.receipt
    assert (receipt.model, receipt.revision, receipt.run_id) == (MODEL, "1-abc", "r1")
    assert receipt.route.instance_id in ("a", "b")
    assert receipt.route.reason.startswith("least_added_delay")
    assert (receipt.route.candidates, receipt.route.attempts) == (2, 1)
    assert receipt.total_ms > 0
    seen = next(servicer.calls[0] for servicer in rig.instances.values() if servicer.calls)
    assert (seen.principal.organisation, seen.principal.key_id, seen.run_id) == ("acme", "k1", "r1")


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", KEY),),
        (("penstock-token", TOKEN),),
    ],
)
async def test_without_a_known_key_nobody_enters(
    rig: Rig, metadata: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(embed(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer" in (caught.value.details() or "")


async def test_a_caller_cannot_say_who_it_is(rig: Rig) -> None:
    forged = common_pb2.CallContext(
        principal=common_pb2.Principal(organisation="victim"), remaining_ms=1000
    )
    metadata = (*METADATA, ("penstock-context-bin", forged.SerializeToString()))
    await rig.stub.Embed(embed(), metadata=metadata)
    seen = next(servicer.calls[0] for servicer in rig.instances.values() if servicer.calls)
    assert seen.principal.organisation == "acme"


async def test_over_the_item_stream_too(rig: Rig) -> None:
    peer = connect(rig.address, ROUTER, metadata=METADATA)
    forged = Call(priority=common_pb2.PRIORITY_CRITICAL, deadline_s=time.monotonic() + 5)
    answer = await peer.call("Embed", embed(), forged)
    assert answer.receipt.route.instance_id
    seen = next(servicer.calls[0] for servicer in rig.instances.values() if servicer.calls)
    assert seen.priority == common_pb2.PRIORITY_HIGH, "the key's ceiling"
    await peer.close()


@pytest.mark.parametrize(
    ("request_", "field", "code"),
    [
        (pb.EmbedRequest(), "texts", grpc.StatusCode.INVALID_ARGUMENT),
        (embed("x", " "), "texts[1]", grpc.StatusCode.INVALID_ARGUMENT),
        (embed(run_id="x" * 129), "options.run_id", grpc.StatusCode.INVALID_ARGUMENT),
        (embed(priority=9), "options.priority", grpc.StatusCode.INVALID_ARGUMENT),
        (
            embed(max_cost_microusd=-1),
            "options.max_cost_microusd",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (embed(model="gpt-9"), "options.model", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_bad_input_names_its_field(
    rig: Rig, request_: pb.EmbedRequest, field: str, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(request_, metadata=METADATA)
    assert caught.value.code() is code
    assert (caught.value.details() or "").startswith(field)
    assert (await rig.stub.Embed(embed(), metadata=METADATA)).embeddings


async def test_invalid_utf8_is_the_callers_fault(rig: Rig) -> None:
    async with open_channel(rig.address) as channel:
        raw = channel.unary_unary("/penstock.api.router.v1.RouterService/Embed")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"\x12\x02\xff\xfe", metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unavailable_instance_is_left_for_another(rig: Rig) -> None:
    rig.instances["a"].mode = "down"
    for _ in range(8):
        answer = await rig.stub.Embed(embed(), metadata=METADATA)
        assert answer.receipt.route.instance_id == "b"
    assert rig.registry.members["a"].failures >= 1


async def test_what_one_queue_turns_away_another_may_take(rig: Rig) -> None:
    rig.instances["a"].mode = "full"
    answers = [await rig.stub.Embed(embed(), metadata=METADATA) for _ in range(8)]
    assert {answer.receipt.route.instance_id for answer in answers} == {"b"}
    assert not rig.registry.members["a"].failures, "a full queue is no fault of its instance"
    rig.instances["b"].mode = "full"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(embed(), metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_when_all_are_down_the_caller_hears_it_soon(rig: Rig) -> None:
    for servicer in rig.instances.values():
        servicer.mode = "down"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(embed(), metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_with_its_receipt_and_a_cut_one_is_not_whole(rig: Rig) -> None:
    task = inference_pb2.GenerateTask(messages=[inference_pb2.Message(role="user", content="hi")])
    request = pb.GenerateStreamRequest(task=task)
    parts = [part async for part in rig.stub.GenerateStream(request, metadata=METADATA)]
    assert "".join(part.chunk.delta for part in parts) == "one two "
    assert parts[-1].receipt.route.instance_id
    for servicer in rig.instances.values():
        servicer.mode = "cut"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [part async for part in rig.stub.GenerateStream(request, metadata=METADATA)]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_cancelling_a_run_reaches_its_calls(rig: Rig) -> None:
    for servicer in rig.instances.values():
        servicer.mode = "hang"
    calls = [
        asyncio.ensure_future(rig.stub.Embed(embed(run_id="r9"), metadata=METADATA))
        for _ in range(2)
    ]
    await asyncio.wait_for(
        asyncio.gather(*(item.started.wait() for item in rig.instances.values())), 5
    )
    answer = await rig.stub.CancelRun(pb.CancelRunRequest(run_id="r9"), metadata=METADATA)
    assert answer.cancelled_calls == 2
    await asyncio.wait_for(
        asyncio.gather(*(item.cancelled.wait() for item in rig.instances.values())), 5
    )
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(item, grpc.aio.AioRpcError | asyncio.CancelledError) for item in outcomes)


async def test_the_score_board_and_the_reasons(rig: Rig) -> None:
    answer = await rig.stub.Embed(embed(), metadata=METADATA)
    board = await rig.stub.Scoreboard(pb.ScoreboardRequest(), metadata=METADATA)
    assert {row.instance.id for row in board.rows} == {"a", "b"}
    assert {signal.name for signal in board.rows[0].candidate.signals} >= {
        "in_flight_own",
        "speed",
        "concurrency",
    }
    request = pb.ExplainRouteRequest(request_id=answer.receipt.request_id)
    why = await rig.stub.ExplainRoute(request, metadata=METADATA)
    assert why.instance_id == answer.receipt.route.instance_id
    assert len(why.candidates) == 2


async def test_routers_agree_through_redis_and_a_restart_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings, clock = RouterSettings(lease_ms=60_000), SystemClock()
    async with embedded_store(tmp_path_factory.mktemp("redis")) as url, open_store(url) as store:
        first = Registry(settings, store, clock)
        await first.register(
            pb.Instance(
                id="a", address="127.0.0.1:1", models=[inference_pb2.Model(name=MODEL, state=READY)]
            )
        )
        second = Registry(settings, store, clock)
        await second.read_shared()
        assert second.registered == first.registered
        await first.drain("a", deregister=True)
        third = Registry(settings, store, clock)
        await third.read_shared()
        assert not third.registered


async def test_without_redis_memory_goes_on_and_the_receipt_says_so(rig: Rig) -> None:
    rig.registry.shared = False
    answer = await rig.stub.Embed(embed(), metadata=METADATA)
    assert list(answer.receipt.notes) == ["registry not shared: Redis is unavailable"]


async def test_a_fallback_model_serves_when_the_first_cannot(rig: Rig) -> None:
    answer = await rig.stub.Embed(
        embed(model="gone", fallback_models=["gone", "absent", MODEL]), metadata=METADATA
    )
    assert answer.receipt.model == MODEL
    assert [note for note in answer.receipt.notes if note.startswith("fallback")] == [
        "fallback from gone to absent: NO_MODEL",
        f"fallback from absent to {MODEL}: NO_MODEL",
    ]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(
            embed(model="gone", fallback_models=["absent", "gone"]), metadata=METADATA
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_no_instance_can_do_is_said_at_once(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(embed(required_capabilities=["vision"]), metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "lacks vision" in (caught.value.details() or "")


async def test_when_nothing_can_serve_the_answer_comes_at_once(rig: Rig) -> None:
    for member in rig.registry.members.values():
        member.ejected_until, member.settled = time.monotonic() + 60.0, False
    await rig.stub.Scoreboard(pb.ScoreboardRequest(), metadata=METADATA)
    began, times = time.perf_counter(), []
    for _ in range(5):
        began = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.stub.Embed(embed(), metadata=METADATA)
        times.append(time.perf_counter() - began)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert min(times) < 0.010


async def test_a_slow_first_try_is_hedged_and_the_loser_cancelled(rig: Rig) -> None:
    rig.instances["a"].mode = "hang"
    rig.registry.fleets[MODEL].p95_s = 0.02
    rig.registry.members["b"].own += 1
    try:
        answer = await rig.stub.Embed(embed(), metadata=METADATA, timeout=5)
    finally:
        rig.registry.members["b"].own -= 1
    hedged = answer.receipt.route
    assert (hedged.instance_id, hedged.hedged, hedged.attempts) == ("b", True, 2)
    await asyncio.wait_for(rig.instances["a"].cancelled.wait(), 5)


async def test_a_run_has_one_deadline(rig: Rig) -> None:
    for servicer in rig.instances.values():
        servicer.mode = "hang"
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.Embed(embed(run_id="r5", run_deadline_ms=80), metadata=METADATA, timeout=20)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 5


async def test_before_queues_grow_the_lower_classes_are_refused_first(rig: Rig) -> None:
    fleet = rig.registry.fleets[MODEL]
    fleet.service_s = 1.0
    fleet.forget_refresh()
    for member in rig.registry.members.values():
        member.own += 50
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.stub.Embed(
                embed(priority=common_pb2.PRIORITY_LOW), metadata=METADATA, timeout=50
            )
        answer = await rig.stub.Embed(
            embed(priority=common_pb2.PRIORITY_HIGH), metadata=METADATA, timeout=50
        )
    finally:
        for member in rig.registry.members.values():
            member.own -= 50
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "shed" in (caught.value.details() or "")
    assert answer.embeddings
