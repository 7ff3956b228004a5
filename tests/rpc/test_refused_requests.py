"""The requests of calls that fail are not kept: not until the garbage collector comes by either."""

from __future__ import annotations

import gc
import time
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.caller_limits import DEFAULT_LIMITS, Callers
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault, invalid
from penstock.rpc.peers.stream import connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.large_blocks import LARGE_BYTES
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import serving

MEGABYTE = 1_000_000
"""Less than from where on the collector is called for."""
CALLS = 20


class Refusing(EmptyInstance):
    """Refuses every request after it has begun."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        raise invalid("model", "is refused")

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        yield inference_pb2.ComputeStreamResponse()
        raise invalid("model", "is refused")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector, and with Python's allocations counted."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


def allocated() -> int:
    return tracemalloc.get_traced_memory()[0]


def public() -> Endpoint:
    def authenticate(metadata: Metadata) -> Call:
        return Call(Principal("acme", key_id="acme"))

    return Endpoint(INFERENCE, Refusing(), authenticate, public=True)


@pytest.mark.parametrize("transport", ["plain", "plain stream", "items"])
async def test_refused_requests_are_not_kept(transport: str, no_collector: None) -> None:
    async with serving([public()]) as server, open_channel(server.address) as channel:
        plain, items = UnaryPeer(channel, INFERENCE), connect(server.address, INFERENCE)

        async def refused() -> None:
            with pytest.raises(Fault) as caught:
                if transport == "plain stream":
                    streamed = inference_pb2.ComputeStreamRequest(model="x" * MEGABYTE)
                    async for _ in plain.stream("ComputeStream", streamed, Call()):
                        pass
                else:
                    request = inference_pb2.ComputeRequest(model="x" * MEGABYTE)
                    peer = items if transport == "items" else plain
                    await peer.call("Compute", request, Call())
            assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT

        await refused()
        before = allocated()
        for _ in range(CALLS):
            await refused()
        assert allocated() - before < CALLS // 4 * MEGABYTE
        await items.close()


async def test_requests_that_could_not_be_sent_are_not_kept(
    no_collector: None, tmp_path: Path
) -> None:
    peer = connect(f"unix:{tmp_path}/nobody", INFERENCE)
    request = inference_pb2.ComputeRequest(model="x" * MEGABYTE)
    before = allocated()
    for _ in range(CALLS):
        with pytest.raises(Fault):
            await peer.call("Compute", request, Call(deadline_s=time.monotonic() + 5.0))
    assert allocated() - before < CALLS // 4 * MEGABYTE
    await peer.close()


class Node:
    """Part of a cycle."""


async def test_after_a_large_request_cycles_are_collected(no_collector: None) -> None:
    node = Node()
    node.itself = node  # type: ignore[attr-defined]
    kept = weakref.ref(node)
    del node
    share = Callers(DEFAULT_LIMITS).join("acme")
    share.begin(LARGE_BYTES)
    share.end(LARGE_BYTES)
    await eventually(lambda: kept() is None)
