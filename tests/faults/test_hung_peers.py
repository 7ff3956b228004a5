"""A process that is stopped (SIGSTOP) is found out by its silence, once, and used again once it
goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.harness.echo import TOKEN, EchoAddresses, echo_process
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE

ASK = inference_pb2.ComputeRequest(model="m")
WHOLE_DEADLINE_S = 30.0


@pytest.fixture
def echo() -> Iterator[EchoAddresses]:
    with echo_process() as addresses:
        yield addresses


async def ask(peer: Peer) -> None:
    await peer.call("Compute", ASK, Call(deadline_s=time.monotonic() + WHOLE_DEADLINE_S))


async def works(peer: Peer) -> bool:
    try:
        await ask(peer)
    except Fault:
        return False
    return True


async def test_a_stopped_process_costs_one_wait_and_then_none(echo: EchoAddresses) -> None:
    peer = connect(echo.endpoint, INFERENCE, token=TOKEN)
    await ask(peer)
    os.kill(echo.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(Fault) as caught:
                await ask(peer)
            assert caught.value.reason is Reason.PEER_HUNG
            assert not peer.responds
    finally:
        os.kill(echo.pid, signal.SIGCONT)
    assert await eventually(lambda: peer.responds)
    assert await works(peer)
    await peer.close()


async def test_a_process_that_was_stopped_before_it_was_called_is_found_out_too(
    echo: EchoAddresses,
) -> None:
    os.kill(echo.pid, signal.SIGSTOP)
    peer = connect(echo.endpoint, INFERENCE, token=TOKEN)
    try:
        with pytest.raises(Fault) as caught:
            await ask(peer)
        assert caught.value.reason is Reason.PEER_HUNG
    finally:
        os.kill(echo.pid, signal.SIGCONT)
    assert await eventually(lambda: peer.responds)
    assert await works(peer)
    await peer.close()


async def test_an_answer_that_takes_long_is_waited_for(echo: EchoAddresses) -> None:
    peer = connect(echo.endpoint, INFERENCE, token=TOKEN)
    slow = inference_pb2.ComputeRequest(model="slow")
    await peer.call("Compute", slow, Call(deadline_s=time.monotonic() + WHOLE_DEADLINE_S))
    assert peer.responds
    await peer.close()
