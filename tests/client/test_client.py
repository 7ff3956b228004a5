"""The client against a scripted router on a real server: results, errors, retries, cancellation.

Most tests run over the shared stream and by unary calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    NotFound,
    Penstock,
    PenstockError,
    PenstockSync,
    Refused,
    Unavailable,
)
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.clock import NoWaitClock
from penstock.testkit.router import HANG, KEY, ScriptedRouter

WAIT_S = 20


@pytest.fixture(params=[False, True], ids=["stream", "plain"])
async def client(
    request: pytest.FixtureRequest, address: str, clock: NoWaitClock
) -> AsyncIterator[Penstock]:
    async with Penstock(address, KEY, plain=request.param, clock=clock) as connected:
        yield connected


def user_message(text: str) -> inference_pb2.GenerateTask:
    return inference_pb2.GenerateTask(
        messages=[inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text)]
    )


async def test_a_call_carries_its_run_and_returns_the_answer(
    client: Penstock, router: ScriptedRouter
) -> None:
    run = client.run(step="plan", priority="high")
    answer = await client.embed(["four", "seven77"], run=run)
    assert [item.values[0] for item in answer.embeddings] == [4.0, 7.0]
    options, call = router.calls[0]
    assert (options.run_id, options.step) == (run.id, "plan")
    assert call.remaining_s(asyncio.get_running_loop().time()) < 31


async def test_documents_are_reranked(client: Penstock, router: ScriptedRouter) -> None:
    answer = await client.rerank("long", ["a", "ccc", "bb"], top_n=2, model="m")
    assert [one.index for one in answer.ranking] == [1, 2]
    assert router.calls[0][0].model == "m"


async def test_concurrent_calls_each_get_their_own_answer(client: Penstock) -> None:
    sizes = range(1, 200)
    answers = await asyncio.gather(*(client.embed(["x" * size]) for size in sizes))
    assert [answer.embeddings[0].values[0] for answer in answers] == [float(n) for n in sizes]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, BadRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Busy),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.INTERNAL, PenstockError),
    ],
)
async def test_each_error_has_its_class_and_advice_and_is_not_retried(
    client: Penstock, router: ScriptedRouter, code: grpc.StatusCode, kind: type[PenstockError]
) -> None:
    router.faults = [Fault(Reason[code.name], "texts[2]: no", field="texts[2]", retry_after_s=2.0)]
    with pytest.raises(kind) as caught:
        await client.embed(["x"])
    error = caught.value
    assert type(error) is kind
    assert (error.field, error.reason, error.retry_after_s) == ("texts[2]", code.name, 2.0)
    assert kind.advice in str(error)
    assert len(router.calls) == 1


async def test_unavailable_is_retried_three_times(
    client: Penstock, router: ScriptedRouter, clock: NoWaitClock
) -> None:
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 2
    assert (await client.embed(["x"])).embeddings
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 5
    with pytest.raises(Unavailable):
        await client.embed(["x"])
    assert len(router.calls) == 3 + 4
    assert len(clock.slept_s) == 2 + 3


async def test_a_stream_that_breaks_raises_and_is_not_retried(
    client: Penstock, router: ScriptedRouter
) -> None:
    parts = client.generate_stream(user_message("hi"))
    assert [part.chunk.delta async for part in parts] == ["a", "b", "c"]
    router.faults = [Fault(Reason.UNAVAILABLE, "cut")]
    with pytest.raises(Unavailable):
        _ = [part async for part in client.generate_stream("hi", model="m")]
    assert len(router.calls) == 2


async def test_a_stream_that_has_not_begun_is_retried(
    client: Penstock, router: ScriptedRouter
) -> None:
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 2
    assert [part.chunk.delta async for part in client.generate_stream("hi")] == ["a", "b", "c"]
    assert len(router.calls) == 3


async def test_options_are_sent_and_a_named_model_replaces_theirs(
    client: Penstock, router: ScriptedRouter
) -> None:
    options = pb.CallOptions(model="m", max_cost_microusd=5, cache=pb.CachePolicy(bypass=True))
    run = client.run()
    await client.embed(["x"], run=run, options=options)
    await client.embed(["x"], model="other", run=run, options=options)
    (first, _), (second, _) = router.calls
    assert (first.model, first.max_cost_microusd, first.cache.bypass) == ("m", 5, True)
    assert first.run_id == run.id
    assert second.model == "other"


async def test_a_cancelled_call_is_cancelled_at_the_router(
    client: Penstock, router: ScriptedRouter
) -> None:
    call = asyncio.create_task(client.embed([HANG]))
    await asyncio.wait_for(router.hanging.wait(), WAIT_S)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(router.cancelled.wait(), WAIT_S)
    assert (await client.embed(["x"])).embeddings


async def test_a_closed_stream_is_cancelled_at_the_router(
    client: Penstock, router: ScriptedRouter
) -> None:
    async with contextlib.aclosing(client.generate_stream(HANG)) as parts:
        assert (await anext(parts)).chunk.delta == "a"
        await asyncio.wait_for(router.hanging.wait(), WAIT_S)
    await asyncio.wait_for(router.cancelled.wait(), WAIT_S)


@pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])
async def test_without_a_router_the_error_names_the_address(plain: bool) -> None:
    async with Penstock("127.0.0.1:1", KEY, plain=plain, retries=0) as client:
        with pytest.raises(
            Unavailable, match=r"^127\.0\.0\.1:1: .*check that a router runs at this address"
        ):
            await client.embed(["x"])


async def test_a_wrong_key_is_refused(address: str) -> None:
    async with Penstock(address, "wrong") as client:
        with pytest.raises(Refused):
            await client.embed(["x"])


async def test_the_sync_client_works_in_a_thread_without_a_loop(address: str) -> None:
    def use() -> tuple[float, str]:
        with PenstockSync(address, KEY) as client:
            embedded = client.embed(["four"]).embeddings[0].values[0]
            parts = client.generate_stream(user_message("hi"))
            return embedded, "".join(part.chunk.delta for part in parts)

    result = await asyncio.wait_for(asyncio.to_thread(use), WAIT_S)
    assert result == (4.0, "abc")
