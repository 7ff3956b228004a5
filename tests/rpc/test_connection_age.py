"""Connections and item streams have an age, and no call fails for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.settings import ServiceSettings
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE, EmptyInstance

SHORT_S = 0.1
CALLERS = 4


class Slow(EmptyInstance):
    """Answers each call after a few turns of the loop; holds `held` until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.holding = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        await asyncio.sleep(0)
        if request.model == "held":
            self.holding += 1
            await self.release.wait()
        return inference_pb2.ComputeResponse()

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        yield inference_pb2.ComputeStreamResponse()
        self.holding += 1
        await self.release.wait()
        yield inference_pb2.ComputeStreamResponse()


class Served:
    """A server whose connections live shortly, and how often somebody was authenticated: item
    streams are once each.
    """

    def __init__(self) -> None:
        self.servicer = Slow()
        self.streams = 0
        endpoint = Endpoint(INFERENCE, self.servicer, self._authenticate, public=True)
        settings = ServiceSettings(listen="127.0.0.1:0", connection_age_s=SHORT_S)
        self.server = GrpcServer("test", settings, [endpoint])

    def _authenticate(self, _: Metadata) -> Call:
        self.streams += 1
        return Call(Principal("acme", key_id="acme"))

    async def __aenter__(self) -> Served:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(None)


async def compute(peer: Peer, model: str = "m") -> None:
    await peer.call("Compute", inference_pb2.ComputeRequest(model=model), Call())


async def test_items_move_to_another_stream_and_none_fails() -> None:
    async with Served() as served:
        peer = connect(served.server.address, INFERENCE)

        async def caller() -> int:
            calls = 0
            while served.streams < 6:
                await compute(peer)
                calls += 1
            return calls

        assert min(await asyncio.gather(*(caller() for _ in range(CALLERS)))) > 0
        await peer.close()


async def test_an_item_that_takes_longer_than_its_streams_age_is_answered_there() -> None:
    async with Served() as served:
        peer = connect(served.server.address, INFERENCE)
        held = asyncio.create_task(compute(peer, "held"))
        await eventually(lambda: served.servicer.holding == 1)
        while served.streams < 4:
            await compute(peer)
        assert not held.done()
        served.servicer.release.set()
        await held
        await peer.close()


async def test_plain_calls_move_to_another_connection_and_those_under_way_end() -> None:
    async with Served() as served, open_channel(served.server.address) as channel:
        peer = UnaryPeer(channel, INFERENCE)
        request = inference_pb2.ComputeStreamRequest()
        under_way = peer.stream("ComputeStream", request, Call())
        await anext(under_way)
        await eventually(lambda: served.servicer.holding == 1)
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await compute(peer)
        served.servicer.release.set()
        assert await anext(under_way) is not None
        await under_way.aclose()
