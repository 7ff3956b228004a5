"""Item streams at their edges: a process that stops, a peer that takes nothing, ids used twice, and
what one caller may have in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.caller_limits import CallerLimits
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.item_session import MAX_UNTAKEN, MAX_UNTAKEN_BYTES
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.service.program import CannotStart
from penstock.service.settings import ServiceSettings
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import serving

LIMITS = CallerLimits(calls=4, request_bytes=1000, streams=2)
BIG = 1 << 20


class Held(EmptyInstance):
    """Answers at once, or holds what asks for the model `held`; `big` gets a megabyte."""

    def __init__(self) -> None:
        self.waiting = self.served = 0
        self.release = asyncio.Event()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if request.model == "held":
            self.waiting += 1
            try:
                await self.release.wait()
            finally:
                self.waiting -= 1
        self.served += 1
        revision = "x" * BIG if request.model == "big" else request.model
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision=revision))

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        yield inference_pb2.ComputeStreamResponse(
            chunk=inference_pb2.GenerateChunk(delta=request.model)
        )
        await self.release.wait()

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        yield inference_pb2.ComputeBatchResponse()


def public(servicer: Held) -> Endpoint:
    """Callers are told apart by the metadata `who`."""

    def authenticate(metadata: Metadata) -> Call:
        who = str(metadata["who"])
        return Call(Principal(who, key_id=who))

    return Endpoint(INFERENCE, servicer, authenticate, public=True, limits=LIMITS)


def caller(address: str, who: str) -> Peer:
    return connect(address, INFERENCE, metadata=(("who", who),))


async def ask(peer: Peer, model: str) -> str:
    request = inference_pb2.ComputeRequest(model=model)
    response = await peer.call("Compute", request, Call())
    return str(response.result.revision)


def exchange(channel: grpc.aio.Channel) -> Any:
    """The item stream as it is on the wire."""
    open_stream = channel.stream_stream(
        f"/{INFERENCE.full_name}/Exchange",
        inference_pb2.ExchangeRequest.SerializeToString,
        inference_pb2.ExchangeResponse.FromString,
    )
    return open_stream(metadata=(("who", "raw"),))


def item(number: int, model: str = "m") -> common_pb2.Item:
    payload = inference_pb2.ComputeRequest(model=model).SerializeToString()
    context = common_pb2.CallContext(remaining_ms=20_000)
    return common_pb2.Item(id=number, method="Compute", context=context, payload=payload)


async def code_of(stream: Any) -> grpc.StatusCode:
    """How a stream ends; its frames are read until then."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    code: grpc.StatusCode = await stream.code()
    return code


async def test_what_is_in_flight_ends_and_new_items_go_to_the_next_process() -> None:
    old, new = Held(), Held()
    old_server = GrpcServer("old", ServiceSettings(listen="127.0.0.1:0"), [public(old)])
    await old_server.start()
    peer = caller(old_server.address, "acme")
    held = asyncio.create_task(ask(peer, "held"))
    await eventually(lambda: old.waiting == 1)
    stopping = asyncio.create_task(old_server.stop(20.0))
    new_server = await eventually(
        lambda: started_at(old_server.address, new), not_yet=(CannotStart,)
    )

    async def served_by_the_new() -> bool:
        return await ask(peer, "elsewhere") == "elsewhere" and new.served == 1

    assert await eventually(served_by_the_new, not_yet=(Fault,))
    assert old.waiting == 1
    old.release.set()
    assert await held == "held"
    await stopping
    await peer.close()
    await new_server.stop(None)


async def started_at(address: str, servicer: Held) -> GrpcServer:
    server = GrpcServer("new", ServiceSettings(listen=address), [public(servicer)])
    await server.start()
    return server


@pytest.mark.fault(14)
async def test_items_sent_before_the_news_of_a_stop_are_served() -> None:
    servicer = Held()
    async with serving([public(servicer)]) as server:
        peer = caller(server.address, "acme")
        assert await ask(peer, "before") == "before"
        stopping = asyncio.create_task(server.stop(20.0))
        assert await asyncio.gather(ask(peer, "a"), ask(peer, "b")) == ["a", "b"]
        await stopping
        await peer.close()


@pytest.mark.fault(18)
async def test_a_peer_that_grants_no_credits_is_cut() -> None:
    servicer = Held()
    endpoint = Endpoint(INFERENCE, servicer, lambda _: Call())
    async with serving([endpoint]) as server, open_channel(server.address) as channel:
        stream = exchange(channel)
        for start in range(0, MAX_UNTAKEN + 512, 256):
            items = [item(number) for number in range(start, start + 256)]
            try:
                await stream.write(inference_pb2.ExchangeRequest(items=items))
            except grpc.aio.AioRpcError:
                break
        assert await code_of(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.fault(18)
async def test_no_item_is_started_while_many_bytes_wait_to_be_taken() -> None:
    servicer = Held()
    endpoint = Endpoint(INFERENCE, servicer, lambda _: Call())
    count = MAX_UNTAKEN_BYTES // BIG
    async with serving([endpoint]) as server, open_channel(server.address) as channel:
        stream = exchange(channel)
        for number in range(count):
            await stream.write(inference_pb2.ExchangeRequest(items=[item(number, "big")]))
        await stream.write(inference_pb2.ExchangeRequest(items=[item(count, "late")]))
        await stream.write(inference_pb2.ExchangeRequest(credits=2 * count))
        codes: dict[int, int] = {}
        while len(codes) <= count:
            for result in (await stream.read()).results:
                codes[result.id] = result.status.code
        assert codes.pop(count) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert set(codes.values()) == {0}


async def test_an_id_that_is_in_flight_is_refused() -> None:
    servicer = Held()
    endpoint = Endpoint(INFERENCE, servicer, lambda _: Call())
    async with serving([endpoint]) as server, open_channel(server.address) as channel:
        stream = exchange(channel)
        twice = [item(1, "held"), item(1, "held")]
        await stream.write(inference_pb2.ExchangeRequest(items=twice, credits=10))
        codes: list[int] = []
        while not codes:
            codes += [each.status.code for each in (await stream.read()).results]
        assert codes == [grpc.StatusCode.INVALID_ARGUMENT.value[0]]
        assert servicer.waiting == 1


async def test_a_caller_has_a_bound_of_calls_and_others_are_served() -> None:
    servicer = Held()
    async with serving([public(servicer)]) as server:
        greedy, modest = caller(server.address, "greedy"), caller(server.address, "modest")
        held = [asyncio.create_task(ask(greedy, "held")) for _ in range(LIMITS.calls)]
        await eventually(lambda: servicer.waiting == LIMITS.calls)
        with pytest.raises(Fault) as caught:
            await ask(greedy, "more")
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(modest, "fine") == "fine"
        held[0].cancel()
        await eventually(lambda: servicer.waiting == LIMITS.calls - 1)
        assert await ask(greedy, "again") == "again"
        servicer.release.set()
        await asyncio.gather(*held[1:])
        await greedy.close()
        await modest.close()


async def test_a_caller_has_a_bound_of_request_bytes() -> None:
    servicer = Held()
    async with serving([public(servicer)]) as server:
        peer = caller(server.address, "acme")
        held = asyncio.create_task(ask(peer, "held"))
        await eventually(lambda: servicer.waiting == 1)
        with pytest.raises(Fault) as caught:
            await ask(peer, "x" * LIMITS.request_bytes)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        servicer.release.set()
        await held
        assert len(await ask(peer, "x" * LIMITS.request_bytes)) == LIMITS.request_bytes
        await peer.close()


async def test_a_caller_has_a_bound_of_streams() -> None:
    async with serving([public(Held())]) as server:
        peers = [caller(server.address, "acme") for _ in range(LIMITS.streams + 1)]
        for peer in peers[:-1]:
            assert await ask(peer, "fine") == "fine"
        with pytest.raises(Fault) as caught:
            await ask(peers[-1], "one too many")
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await peers[0].close()

        async def served() -> bool:
            return await ask(peers[-1], "now") == "now"

        assert await eventually(served, not_yet=(Fault,))
        for peer in peers[1:]:
            await peer.close()


async def test_services_have_no_bound_of_streams_among_each_other() -> None:
    endpoint = Endpoint(INFERENCE, Held(), lambda _: Call())
    async with serving([endpoint]) as server:
        peers = [connect(server.address, INFERENCE) for _ in range(CallerLimits().streams + 1)]
        assert [await ask(peer, "fine") for peer in peers] == ["fine"] * len(peers)
        for peer in peers:
            await peer.close()
