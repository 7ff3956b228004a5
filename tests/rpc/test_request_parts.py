"""Requests in parts: who may send them, and what happens to parts that make no whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import MAX_REQUEST_BYTES, ONE_MESSAGE_BYTES
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.rpc.request_parts import REQUEST_BYTES_KEY
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import serving

COMPUTE = "/penstock.api.inference.v1.InferenceService/Compute"


class Measuring(EmptyInstance):
    """Says how many bytes a request has."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        size = str(request.ByteSize())
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision=size))


def authenticate(metadata: Metadata) -> Call:
    """Everybody; `edge` is a service that calls in the name of others."""
    is_translated = metadata.get("authorization") == "edge"
    return Call(Principal("acme", key_id="k"), is_translated=is_translated)


@asynccontextmanager
async def public() -> AsyncIterator[str]:
    """The address of a public endpoint."""
    async with serving([Endpoint(INFERENCE, Measuring(), authenticate, public=True)]) as server:
        yield server.address


def request_of(size: int) -> inference_pb2.ComputeRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x" * size]))
    return inference_pb2.ComputeRequest(task=task)


def dialled(address: str, kind: str, caller: str) -> Peer:
    metadata = (("authorization", caller),)
    if kind == "stream":
        return connect(address, INFERENCE, metadata=metadata, divides=True)
    is_service = caller == "edge"
    return UnaryPeer(open_channel(address), INFERENCE, metadata=metadata, divides=is_service)


@pytest.mark.parametrize("kind", ["stream", "unary"])
@pytest.mark.threat("one key fills the memory with large requests")
async def test_only_services_send_requests_in_parts(kind: str) -> None:
    asked = request_of(9 << 20)
    async with public() as address:
        edge, foreign = dialled(address, kind, "edge"), dialled(address, kind, "somebody")
        answer = await edge.call("Compute", asked, Call())
        with pytest.raises(Fault) as refused:
            await foreign.call("Compute", asked, Call())
        small = await foreign.call("Compute", request_of(9), Call())
        await edge.close()
        await foreign.close()
    assert answer.result.revision == str(asked.ByteSize())
    assert small.result.revision == str(request_of(9).ByteSize())
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"at most {ONE_MESSAGE_BYTES} fit" in refused.value.message


@pytest.mark.parametrize(
    ("caller", "declared", "parts"),
    [
        ("edge", "5", [b"x" * 6]),
        ("edge", "12", [b"x" * 6]),
        ("edge", "x", [b""]),
        ("edge", "9" * 13, [b""]),
        ("edge", str(MAX_REQUEST_BYTES + 1), [b"x"]),
        ("somebody", str(ONE_MESSAGE_BYTES + 1), [b"x"]),
    ],
)
async def test_parts_that_are_not_what_may_come_are_refused(
    caller: str, declared: str, parts: Sequence[bytes]
) -> None:
    async with public() as address, open_channel(address) as channel:

        async def sent() -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        call = channel.stream_unary(COMPUTE)
        metadata = (("authorization", caller), (REQUEST_BYTES_KEY, declared))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(sent(), metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def part(number: int, payload: bytes, remaining: int, method: str = "") -> common_pb2.Item:
    context = common_pb2.CallContext(remaining_ms=10_000)
    return common_pb2.Item(
        id=number, payload=payload, remaining_bytes=remaining, method=method, context=context
    )


async def exchanged(caller: str, *items: Any, answers: int) -> dict[int, int]:
    """Codes by item."""
    async with public() as address, open_channel(address) as channel:
        open_stream = channel.stream_stream(
            "/penstock.api.inference.v1.InferenceService/Exchange",
            inference_pb2.ExchangeRequest.SerializeToString,
            inference_pb2.ExchangeResponse.FromString,
        )
        stream = open_stream(metadata=(("authorization", caller),))
        await stream.write(inference_pb2.ExchangeRequest(items=items, credits=10))
        codes: dict[int, int] = {}
        while len(codes) < answers:
            codes |= {result.id: result.status.code for result in (await stream.read()).results}
        stream.cancel()
        return codes


async def test_items_in_parts_are_put_together_whatever_lies_between_them() -> None:
    whole = request_of(10).SerializeToString()
    items = [
        part(1, whole[:5], len(whole) - 5, "Compute"),
        part(2, whole[:3], len(whole) - 3, "Compute"),
        part(3, whole, 0, "Compute"),
        part(1, whole[5:], 0),
        part(9, b"late part of an item that was refused", 0),
        part(2, whole[3:4], len(whole) - 4),
        part(2, whole[4:], 0),
    ]
    assert await exchanged("edge", *items, answers=3) == {1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize("second", [part(1, b"xy", 4), part(1, b"", 5), part(1, b"x" * 9, 0)])
async def test_a_part_that_does_not_follow_is_refused(second: common_pb2.Item) -> None:
    codes = await exchanged("edge", part(1, b"x", 5, "Compute"), second, answers=1)
    assert codes == {1: grpc.StatusCode.INVALID_ARGUMENT.value[0]}


async def test_an_item_without_a_method_of_somebody_else_is_refused() -> None:
    codes = await exchanged("somebody", part(1, b"x", 0), answers=1)
    assert codes == {1: grpc.StatusCode.INVALID_ARGUMENT.value[0]}
