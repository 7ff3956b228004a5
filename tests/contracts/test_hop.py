"""One suite over every transport of the hop: same results, same faults, same deadlines, same
cancellation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.auth import internal
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, ONE_MESSAGE_BYTES
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault, exhausted, invalid
from penstock.rpc.item_session import ITEM_WINDOW
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.reasons import Reason
from penstock.service.logs import TRACE
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.proxy import tcp_proxy
from penstock.testkit.server import TOKEN, TRANSPORTS, Transport, peer_over, serving

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
HUGE_BYTES = 6 << 20
SECRET = "the password is swordfish"
CALLER = Principal("acme", "support", "kim", "key-1", ("gold",))


class Scripted(EmptyInstance):
    """An inference servicer whose behaviour the request's model name asks for."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.requests: list[inference_pb2.ComputeRequest] = []
        self.answers: list[inference_pb2.ComputeResponse] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.running = 0
        self.most = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls.append(call)
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request.model == "echo":
                return inference_pb2.ComputeResponse(
                    result=inference_pb2.TaskResult(revision=request.task.embed.texts[0])
                )
            answer = await self._answer(request.model)
            self.answers.append(answer)
            return answer
        finally:
            self.running -= 1

    async def _answer(self, model: str) -> inference_pb2.ComputeResponse:
        if model == "invalid":
            raise invalid("task.embed.texts[3]", "is empty")
        if model == "busy":
            raise exhausted("the queue is full", reason=Reason.QUEUE_FULL, retry_after_s=1.5)
        if model == "bug":
            raise RuntimeError(SECRET)
        if model == "huge":
            await self.release.wait()
            return inference_pb2.ComputeResponse(
                result=inference_pb2.TaskResult(revision="x" * HUGE_BYTES)
            )
        if model in ("hang", "held", "stubborn"):
            self.started.set()
            try:
                await (self.release if model == "held" else asyncio.Event()).wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                if model == "stubborn":
                    await self.release.wait()
                raise
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision=model))

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        try:
            for number in range(5):
                if number == 3 and request.model == "cut":
                    raise RuntimeError(SECRET)
                yield inference_pb2.ComputeStreamResponse(
                    chunk=inference_pb2.GenerateChunk(delta=str(number))
                )
                if request.model == "hang":
                    await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        for index in range(len(request.members)):
            yield inference_pb2.ComputeBatchResponse(
                results=[inference_pb2.MemberResult(index=index)]
            )


def door(servicer: Scripted) -> Endpoint:
    return Endpoint(SERVICE, servicer, internal(TOKEN))


def ask(model: str = "m") -> inference_pb2.ComputeRequest:
    return inference_pb2.ComputeRequest(model=model)


def ask_stream(model: str) -> inference_pb2.ComputeStreamRequest:
    return inference_pb2.ComputeStreamRequest(model=model)


@pytest.fixture
def servicer() -> Scripted:
    return Scripted()


@pytest.fixture(params=TRANSPORTS)
async def peer(request: pytest.FixtureRequest, servicer: Scripted) -> AsyncIterator[Peer]:
    transport: Transport = request.param
    before = asyncio.all_tasks()
    async with peer_over(transport, door(servicer)) as connected:
        yield connected
    for _ in range(50):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if runs_our_code(task)]
    assert not left, "a task outlived its connection"


def runs_our_code(task: asyncio.Task[object]) -> bool:
    """True for a task of a coroutine of ours; gRPC's own tasks end when it pleases."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__", "").startswith("penstock.")


async def test_an_answer_and_who_asked(peer: Peer, servicer: Scripted) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    call = Call(CALLER, common_pb2.PRIORITY_HIGH, "run-7", "plan", time.monotonic() + 5, trace)
    answer = await peer.call("Compute", ask("x"), call)
    assert answer.result.revision == "x"
    seen = servicer.calls[0]
    assert (seen.principal, seen.priority, seen.run_id, seen.step) == (
        CALLER,
        common_pb2.PRIORITY_HIGH,
        "run-7",
        "plan",
    )
    assert seen.traceparent == trace
    assert 0 < seen.deadline_s <= call.deadline_s + 0.01


async def test_many_at_once_each_get_their_own(peer: Peer) -> None:
    answers = await asyncio.gather(
        *(peer.call("Compute", ask(f"m{n}"), Call()) for n in range(300))
    )
    assert [answer.result.revision for answer in answers] == [f"m{n}" for n in range(300)]


async def test_a_bad_field_is_named(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", ask("invalid"), Call())
    assert (caught.value.code, caught.value.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "task.embed.texts[3]",
    )


async def test_when_to_try_again_is_said(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", ask("busy"), Call())
    fault = caught.value
    assert (fault.code, fault.reason, fault.retry_after_s) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
        1.5,
    )


@pytest.mark.fault(9)
async def test_an_exceptions_text_never_leaves(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", ask("bug"), Call())
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert "swordfish" not in str(caught.value) + repr(vars(caught.value))


async def test_time_that_is_up_fails_here_and_stops_the_work_there(
    peer: Peer, servicer: Scripted
) -> None:
    await peer.call("Compute", ask("connected"), Call())
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", ask("hang"), Call(deadline_s=time.monotonic() + 0.2))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


@pytest.mark.fault(10)
@pytest.mark.parametrize("left_s", [0.0, -1.0])
async def test_no_time_left_is_not_sent(peer: Peer, servicer: Scripted, left_s: float) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", ask(), Call(deadline_s=time.monotonic() + left_s))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not servicer.calls


@pytest.mark.fault(12)
async def test_cancelling_the_await_cancels_the_work(peer: Peer, servicer: Scripted) -> None:
    task = asyncio.create_task(peer.call("Compute", ask("hang"), Call()))
    await asyncio.wait_for(servicer.started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(servicer.cancelled.wait(), 5)
    assert (await peer.call("Compute", ask("after"), Call())).result.revision == "after"


@pytest.mark.parametrize("transport", [each for each in TRANSPORTS if each != "callers-task"])
async def test_a_caller_who_leaves_does_not_wait_for_the_work_to_end(
    transport: Transport, servicer: Scripted
) -> None:
    async with peer_over(transport, door(servicer)) as peer:
        await peer.call("Compute", ask("connected"), Call())
        with pytest.raises(Fault) as caught:
            await peer.call("Compute", ask("stubborn"), Call(deadline_s=time.monotonic() + 0.2))
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.cancelled.wait(), 5)
        servicer.release.set()


async def test_neither_side_sees_what_the_other_changes_in_a_message(
    peer: Peer, servicer: Scripted
) -> None:
    request = ask("m")
    first = await peer.call("Compute", request, Call())
    request.model = "changed"
    assert [seen.model for seen in servicer.requests] == ["m"]
    first.result.revision = "changed"
    assert servicer.answers[0].result.revision == "m"


async def test_the_work_sets_no_context_of_its_caller(peer: Peer) -> None:
    TRACE.set("the caller's")
    await peer.call("Compute", ask(), Call(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    async for _ in peer.stream("ComputeStream", ask_stream("m"), Call()):
        assert TRACE.get() == "the caller's"
    assert TRACE.get() == "the caller's"


async def test_a_stream_fails_when_its_time_is_up_with_what_came_before(
    peer: Peer, servicer: Scripted
) -> None:
    parts: list[str] = []
    call = Call(deadline_s=time.monotonic() + 0.2)
    with pytest.raises(Fault) as caught:
        async for part in peer.stream("ComputeStream", ask_stream("hang"), call):
            parts.append(part.chunk.delta)  # noqa: PERF401 (the fault comes after them)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert parts == ["0"]
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_closing_the_connection_fails_what_is_in_flight(
    transport: Transport, servicer: Scripted
) -> None:
    async with peer_over(transport, door(servicer)) as peer:
        hanging = asyncio.create_task(peer.call("Compute", ask("hang"), Call()))
        await asyncio.wait_for(servicer.started.wait(), 5)
    with pytest.raises(Fault) as caught:
        await hanging
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_a_stream_arrives_in_order(peer: Peer) -> None:
    assert [
        part.chunk.delta async for part in peer.stream("ComputeStream", ask_stream("m"), Call())
    ] == list("01234")


async def test_a_stream_cut_by_a_fault_is_not_taken_for_whole(peer: Peer) -> None:
    parts: list[str] = []

    async def read() -> None:
        async for part in peer.stream("ComputeStream", ask_stream("cut"), Call()):
            parts.append(part.chunk.delta)  # noqa: PERF401 (what came before the fault is looked at)

    with pytest.raises(Fault) as caught:
        await read()
    assert parts == ["0", "1", "2"]
    assert caught.value.code is grpc.StatusCode.INTERNAL


async def test_closing_a_stream_cancels_the_work(peer: Peer, servicer: Scripted) -> None:
    stream = peer.stream("ComputeStream", ask_stream("hang"), Call())
    assert (await anext(stream)).chunk.delta == "0"
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_one_slow_item_does_not_hold_the_others(peer: Peer, servicer: Scripted) -> None:
    slow = asyncio.create_task(peer.call("Compute", ask("held"), Call()))
    await asyncio.wait_for(servicer.started.wait(), 5)
    fast = await asyncio.gather(*(peer.call("Compute", ask(str(n)), Call()) for n in range(99)))
    assert len(fast) == 99
    assert not slow.done()
    servicer.release.set()
    assert (await slow).result.revision == "held"


async def test_the_window_bounds_what_is_in_flight(servicer: Scripted) -> None:
    async with peer_over("tcp-stream", door(servicer)) as peer:
        tasks = [
            asyncio.create_task(peer.call("Compute", ask("held"), Call()))
            for _ in range(ITEM_WINDOW + 200)
        ]
        await asyncio.wait_for(servicer.started.wait(), 5)
        await eventually(lambda: servicer.running == ITEM_WINDOW, 20)
        servicer.release.set()
        await asyncio.gather(*tasks)
    assert servicer.most <= ITEM_WINDOW


@pytest.mark.fault(25)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stranger_is_refused(servicer: Scripted, transport: Transport) -> None:
    """gRPC may see that the stream broke under a write before it sees why: then, as a caller would,
    it is tried again.
    """
    async with peer_over(transport, door(servicer), token="wrong") as peer:

        async def refused() -> None:
            with pytest.raises(Fault) as caught:
                await peer.call("Compute", ask(), Call())
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED

        await eventually(refused)
    assert not servicer.calls


async def test_a_dead_peer_is_unavailable_and_a_new_one_is_found(servicer: Scripted) -> None:
    async with serving([door(servicer)]) as server:
        peer = connect(server.address, SERVICE, token=TOKEN)
        hanging = asyncio.create_task(peer.call("Compute", ask("hang"), Call()))
        await asyncio.wait_for(servicer.started.wait(), 5)
        address = server.address
    with pytest.raises(Fault) as caught:
        await hanging
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    async with serving([door(servicer)], address), asyncio.timeout(20):
        assert (await _until_back(peer)).result.revision == "back"
    await peer.close()


async def test_a_connection_that_breaks_under_a_write_may_be_tried_again(
    servicer: Scripted,
) -> None:
    async with serving([door(servicer)]) as server, tcp_proxy(server.address) as proxy:
        peer = connect(proxy.address, SERVICE, token=TOKEN)
        assert (await peer.call("Compute", ask("first"), Call())).result.revision == "first"
        proxy.stall()
        large = inference_pb2.ComputeRequest(model="x" * 4_000_000)
        writing = asyncio.create_task(peer.call("Compute", large, Call()))
        await asyncio.wait_for(proxy.stalled.wait(), 5)
        proxy.cut()
        with pytest.raises(Fault) as caught:
            await writing
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(20):
            assert (await _until_back(peer)).result.revision == "back"
        await peer.close()


async def _until_back(peer: Peer) -> inference_pb2.ComputeResponse:
    while True:
        try:
            answer: inference_pb2.ComputeResponse = await peer.call("Compute", ask("back"), Call())
            return answer
        except Fault as fault:
            assert fault.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.fault(2)
async def test_malformed_bytes_are_the_callers_fault(servicer: Scripted) -> None:
    async with serving([door(servicer)]) as server, open_channel(server.address) as channel:
        unary = channel.unary_unary(f"/{SERVICE.full_name}/Compute")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(b"\xff\xff\xff", metadata=(("penstock-token", TOKEN),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def _exchange(channel: grpc.aio.Channel) -> Any:
    """The item stream as it is on the wire."""
    open_stream = channel.stream_stream(
        f"/{SERVICE.full_name}/Exchange",
        inference_pb2.ExchangeRequest.SerializeToString,
        inference_pb2.ExchangeResponse.FromString,
    )
    return open_stream(metadata=(("penstock-token", TOKEN),))


async def test_the_first_piece_of_a_stream_leaves_alone_though_the_others_are_there(
    servicer: Scripted,
) -> None:
    async with serving([door(servicer)]) as server, open_channel(server.address) as channel:
        stream = _exchange(channel)
        item = common_pb2.Item(
            id=1, method="ComputeStream", context=common_pb2.CallContext(remaining_ms=10_000)
        )
        await stream.write(inference_pb2.ExchangeRequest(items=[item], credits=10))
        frames: list[int] = []
        while sum(frames) < 6:  # five pieces and the end
            frames += [size] if (size := len((await stream.read()).results)) else []
        assert frames[0] == 1 and len(frames) < 6
        stream.cancel()


async def test_each_item_of_a_frame_has_its_own_fate(servicer: Scripted) -> None:
    async with serving([door(servicer)]) as server, open_channel(server.address) as channel:
        stream = _exchange(channel)
        context = common_pb2.CallContext(remaining_ms=10_000)
        items = [
            common_pb2.Item(id=1, method="Nope", context=context),
            common_pb2.Item(id=2, method="Compute", context=context, payload=b"\xff\xff"),
            common_pb2.Item(id=3, method="Compute", context=context),
            common_pb2.Item(id=4, method="Compute"),
        ]
        await stream.write(inference_pb2.ExchangeRequest(items=items, credits=10))
        codes: dict[int, int] = {}
        while len(codes) < 4:
            codes |= {result.id: result.status.code for result in (await stream.read()).results}
        assert codes == {1: 3, 2: 3, 3: 0, 4: 4}
        stream.cancel()


def large(text_bytes: int) -> inference_pb2.ComputeRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x" * text_bytes]))
    return inference_pb2.ComputeRequest(model="echo", task=task)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_many_large_items_at_once_are_more_than_one_message(
    transport: Transport, servicer: Scripted
) -> None:
    async with peer_over(transport, door(servicer)) as peer:
        each = MAX_MESSAGE_BYTES // 20
        answers = await asyncio.gather(
            *(peer.call("Compute", large(each), Call()) for _ in range(60))
        )
    assert [len(answer.result.revision) for answer in answers] == [each] * 60


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_larger_than_a_message_comes_whole(
    transport: Transport, servicer: Scripted
) -> None:
    sizes = [ONE_MESSAGE_BYTES, ONE_MESSAGE_BYTES + 1, 3 * MAX_MESSAGE_BYTES, 33 << 20]
    async with peer_over(transport, door(servicer)) as peer:
        asked = [large(size) for size in sizes]
        calls = [peer.call("Compute", each, Call()) for each in (*asked, ask("small"))]
        answers = await asyncio.gather(*calls)
        assert [len(each.result.revision) for each in answers] == [*sizes, len("small")]
        streamed = inference_pb2.ComputeStreamRequest(model="m", task=asked[2].task)
        parts = [part async for part in peer.stream("ComputeStream", streamed, Call())]
        assert len(parts) == 5


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_large_request_that_is_given_up_leaves_nothing_behind(
    transport: Transport, servicer: Scripted
) -> None:
    async with peer_over(transport, door(servicer)) as peer:
        for _ in range(20):
            leaving = asyncio.create_task(peer.call("Compute", large(20 << 20), Call()))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        answers = [await peer.call("Compute", large(5 << 20), Call()) for _ in range(3)]
    assert [len(each.result.revision) for each in answers] == [5 << 20] * 3


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_that_is_too_large_fails_alone_and_says_so(
    transport: Transport, servicer: Scripted
) -> None:
    async with peer_over(transport, door(servicer)) as peer:
        beside = asyncio.create_task(peer.call("Compute", ask("held"), Call()))
        await servicer.started.wait()
        with pytest.raises(Fault) as caught:
            await peer.call("Compute", large(MAX_REQUEST_BYTES), Call())
        servicer.release.set()
        assert (await beside).result.revision == "held"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"at most {MAX_REQUEST_BYTES} fit" in caught.value.message


async def test_many_large_results_at_once_are_more_than_one_message(servicer: Scripted) -> None:
    """A caller takes 64 MiB in one message; results that are ready at the same moment are more than
    that.
    """
    async with peer_over("unix-stream", door(servicer)) as peer:
        calls = [asyncio.create_task(peer.call("Compute", ask("huge"), Call())) for _ in range(12)]
        while servicer.running < len(calls):
            await asyncio.sleep(0)
        servicer.release.set()
        answers = await asyncio.gather(*calls)
    assert [len(answer.result.revision) for answer in answers] == [HUGE_BYTES] * 12
