"""The client against a real server with a scripted router behind it: results, errors, retries, both
ways of calling, both flavours.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

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
from penstock.testkit.router import HANG, KEY, ScriptedRouter


@pytest.fixture(params=[False, True], ids=["stream", "plain"])
async def client(
    request: pytest.FixtureRequest, address: str, clock: Any
) -> AsyncIterator[Penstock]:
    async with Penstock(address, KEY, plain=request.param, clock=clock) as connected:
        yield connected


async def test_three_lines_to_a_result(client: Penstock, router: ScriptedRouter) -> None:
    run = client.run(step="plan", priority="high")
    answer = await client.embed(["four", "seven77"], run=run)
    assert [item.values[0] for item in answer.embeddings] == [4.0, 7.0]
    options, call = router.calls[0]
    assert (options.run_id, options.step) == (run.id, "plan")
    assert call.remaining_s(asyncio.get_running_loop().time()) < 31


async def test_many_at_once(client: Penstock) -> None:
    answers = await asyncio.gather(*(client.embed(["x" * size]) for size in range(1, 200)))
    assert [answer.embeddings[0].values[0] for answer in answers] == [
        float(size) for size in range(1, 200)
    ]


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
async def test_each_error_says_what_to_do_and_is_not_tried_again(
    client: Penstock, router: ScriptedRouter, code: grpc.StatusCode, kind: type[PenstockError]
) -> None:
    router.faults = [Fault(Reason[code.name], "texts[2]: no", field="texts[2]", retry_after_s=2.0)]
    with pytest.raises(kind) as caught:
        await client.embed(["x"])
    assert type(caught.value) is kind
    assert (caught.value.field, caught.value.reason, caught.value.retry_after_s) == (
        "texts[2]",
        code.name,
        2.0,
    )
    assert kind.advice in str(caught.value)
    assert len(router.calls) == 1


async def test_unavailable_is_tried_again_and_then_told(
    client: Penstock, router: ScriptedRouter, clock: Any
) -> None:
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 2
    assert (await client.embed(["x"])).embeddings
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 5
    with pytest.raises(Unavailable):
        await client.embed(["x"])
    assert len(router.calls) == 3 + 4
    assert len(clock.slept) == 2 + 3


async def test_a_cut_stream_raises_and_is_not_begun_again(
    client: Penstock, router: ScriptedRouter
) -> None:
    task = inference_pb2.GenerateTask(messages=[inference_pb2.Message(role="user", content="hi")])
    assert [part.chunk.delta async for part in client.generate_stream(task)] == ["a", "b", "c"]
    router.faults = [Fault(Reason.UNAVAILABLE, "cut")]
    with pytest.raises(Unavailable):
        _ = [part async for part in client.generate_stream("hi", model="m")]
    assert len(router.calls) == 2


async def test_a_stream_that_has_not_begun_is_tried_again(
    client: Penstock, router: ScriptedRouter
) -> None:
    router.faults = [Fault(Reason.UNAVAILABLE, "no")] * 2
    assert [part.chunk.delta async for part in client.generate_stream("hi")] == ["a", "b", "c"]
    assert len(router.calls) == 3


async def test_options_say_everything_else(client: Penstock, router: ScriptedRouter) -> None:
    options = pb.CallOptions(model="m", max_cost_microusd=5, cache=pb.CachePolicy(bypass=True))
    run = client.run()
    await client.embed(["x"], run=run, options=options)
    await client.embed(["x"], model="other", run=run, options=options)
    (first, _), (second, _) = router.calls
    assert (first.model, first.max_cost_microusd, first.cache.bypass, first.run_id) == (
        "m",
        5,
        True,
        run.id,
    )
    assert second.model == "other"


async def test_a_call_that_is_cancelled_ends_at_the_router(
    client: Penstock, router: ScriptedRouter
) -> None:
    call = asyncio.create_task(client.embed([HANG]))
    await asyncio.wait_for(router.hanging.wait(), 20)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(router.cancelled.wait(), 20)
    assert (await client.embed(["x"])).embeddings


async def test_a_stream_that_is_left_ends_at_the_router(
    client: Penstock, router: ScriptedRouter
) -> None:
    async with contextlib.aclosing(client.generate_stream(HANG)) as parts:
        assert (await anext(parts)).chunk.delta == "a"
        await asyncio.wait_for(router.hanging.wait(), 20)
    await asyncio.wait_for(router.cancelled.wait(), 20)


async def test_nobody_there_is_said_with_the_address() -> None:
    for plain in (False, True):
        async with Penstock("127.0.0.1:1", KEY, plain=plain, retries=0) as client:
            with pytest.raises(
                Unavailable, match=r"^127\.0\.0\.1:1: .*see that a router runs at this address"
            ):
                await client.embed(["x"])


async def test_a_wrong_key_is_refused(address: str) -> None:
    async with Penstock(address, "wrong") as client:
        with pytest.raises(Refused):
            await client.embed(["x"])


def _use_sync(address: str, out: list[object]) -> None:
    with PenstockSync(address, KEY) as client:
        out.append(client.embed(["four"]).embeddings[0].values[0])
        task = inference_pb2.GenerateTask(
            messages=[inference_pb2.Message(role="user", content="hi")]
        )
        parts: Iterator[pb.GenerateStreamResponse] = client.generate_stream(task)
        out.append("".join(part.chunk.delta for part in parts))


async def test_without_asyncio(address: str) -> None:
    """The sync client runs in a process of its own in real use; here a thread drives it, with its
    own loop, as a plain program would.
    """
    out: list[object] = []
    thread = threading.Thread(target=_use_sync, args=(address, out))
    thread.start()
    await asyncio.to_thread(thread.join, 20)
    assert out == [4.0, "abc"]
