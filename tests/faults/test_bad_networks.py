"""A bad network between two services: the deadline holds, the failure is clear, and once the
network is good again calls are answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.rpc.reasons import Code
from penstock.testkit.chaos_proxy import (
    Bandwidth,
    Blackhole,
    ChaosProxy,
    Direction,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Toxic,
    chaos_proxy,
)
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE
from penstock.testkit.server import TOKEN

from .wire import Counting, served

CLEAR = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
SLOW: dict[str, Sequence[Toxic]] = {
    "latency": (Latency(0.02),),
    "jitter": (Latency(0.02, jitter_s=0.02),),
    "bandwidth": (Bandwidth(20_000),),
    "slicer": (Slicer(3),),
    "slow close": (SlowClose(0.2),),
}
BROKEN: dict[str, Sequence[Toxic]] = {
    "reset": (ResetPeer(),),
    "blackhole": (Blackhole(),),
    "limit data": (LimitData(40),),
}
WAYS: tuple[Direction, ...] = ("to_target", "to_caller")
PEERS = ("stream", "unary")


def peer_at(address: str, kind: str) -> Peer:
    if kind == "stream":
        return connect(address, INFERENCE, token=TOKEN)
    return UnaryPeer(open_channel(address), INFERENCE, token=TOKEN)


async def ask(peer: Peer, seconds: float = 20.0) -> None:
    await peer.call("Compute", pb.ComputeRequest(), Call(deadline_s=time.monotonic() + seconds))


def poison(proxy: ChaosProxy, toxics: Sequence[Toxic], way: Direction) -> None:
    proxy.toxics, proxy.direction = toxics, way


@pytest.mark.fault(21)
@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("toxic", SLOW)
async def test_calls_over_a_slow_network_are_answered(
    toxic: str, way: Direction, kind: str
) -> None:
    async with served(Counting()) as address, chaos_proxy(address) as proxy:
        peer = peer_at(proxy.address, kind)
        poison(proxy, SLOW[toxic], way)
        for _ in range(5):
            await ask(peer)
        await peer.close()


@pytest.mark.fault(21)
@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("toxic", BROKEN)
async def test_calls_over_a_broken_network_fail_clearly_and_work_once_it_is_mended(
    toxic: str, way: Direction, kind: str
) -> None:
    async with served(Counting()) as address, chaos_proxy(address) as proxy:
        peer = peer_at(proxy.address, kind)
        await ask(peer)
        poison(proxy, BROKEN[toxic], way)
        with pytest.raises(Fault) as caught:
            for _ in range(10):
                await ask(peer, 0.5)
        assert caught.value.code in CLEAR
        poison(proxy, (), way)
        await proxy.close()
        assert await eventually(lambda: answered(peer))
        await peer.close()


async def answered(peer: Peer) -> bool:
    try:
        await ask(peer, 2.0)
    except Fault:
        return False
    return True
