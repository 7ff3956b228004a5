"""Readers of plain server streams who take nothing are cut, long before their deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call
from penstock.rpc.caller_limits import CallerLimits
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import serving

STREAM = f"/{INFERENCE.full_name}/ComputeStream"
PIECES = 64


class Talkative(EmptyInstance):
    """Sends more than the connection's buffers take."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        piece = inference_pb2.ComputeStreamResponse()
        piece.chunk.delta = "x" * 500_000
        try:
            for _ in range(PIECES):
                yield piece
        finally:
            self.ended.set()


def endpoint(servicer: Talkative, slow_reader_s: float) -> Endpoint:
    limits = CallerLimits(slow_reader_s=slow_reader_s)
    return Endpoint(INFERENCE, servicer, lambda _: Call(), limits=limits)


async def test_a_reader_that_takes_nothing_is_cut() -> None:
    servicer = Talkative()
    async with (
        serving([endpoint(servicer, 0.1)]) as server,
        open_channel(server.address) as channel,
    ):
        stream = channel.unary_stream(STREAM)(b"", timeout=600)
        await asyncio.wait_for(servicer.ended.wait(), 30)
        with pytest.raises(grpc.aio.AioRpcError, match=r"nothing was taken for 0\.1 s") as caught:
            async for _ in stream:
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_reader_that_takes_a_piece_now_and_then_is_not_cut() -> None:
    servicer = Talkative()
    async with (
        serving([endpoint(servicer, 1.0)]) as server,
        open_channel(server.address) as channel,
    ):
        stream = channel.unary_stream(STREAM)(b"", timeout=600)
        pieces = [piece async for piece in stream]
        assert len(pieces) == PIECES
        assert await stream.code() is grpc.StatusCode.OK
