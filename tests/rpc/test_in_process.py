"""What is particular to calls inside one process; what they share with wires is checked in
tests/contracts/test_hop.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.otel.telemetry import Telemetry
from penstock.rpc.auth import Metadata, internal
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.in_process import InProcessPeer, LocalEndpoint
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import TOKEN

REQUEST = inference_pb2.ComputeRequest(model="m")
TRACED = Call(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")


class Remembering(EmptyInstance):
    """Answers at once, and keeps what it was given and what it gave."""

    def __init__(self) -> None:
        self.request: inference_pb2.ComputeRequest | None = None
        self.response = inference_pb2.ComputeResponse()
        self.call = Call()
        self.started = asyncio.Event()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.request, self.call = request, call
        self.started.set()
        if request.model == "hang":
            await asyncio.Event().wait()
        return self.response


def peer_of(local: LocalEndpoint) -> InProcessPeer:
    return InProcessPeer(INFERENCE, lambda: local, token=TOKEN)


@pytest.mark.parametrize("uncopied", [True, False])
async def test_messages_are_copied_unless_the_rpc_is_uncopied(uncopied: bool) -> None:
    servicer = Remembering()
    names = frozenset({"Compute"} if uncopied else ())
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, internal(TOKEN), uncopied=names))
    local.open()
    response = await peer_of(local).call("Compute", REQUEST, Call())
    assert (servicer.request is REQUEST, response is servicer.response) == (uncopied, uncopied)


async def test_before_it_is_open_and_once_it_is_closed_an_endpoint_is_unavailable() -> None:
    servicer = Remembering()
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, internal(TOKEN)))
    peer = peer_of(local)
    with pytest.raises(Fault) as early:
        await peer.call("Compute", REQUEST, Call())
    local.open()
    hang = inference_pb2.ComputeRequest(model="hang")
    hanging = asyncio.create_task(peer.call("Compute", hang, Call()))
    await asyncio.wait_for(servicer.started.wait(), 5)
    await local.close()
    with pytest.raises(Fault) as cut:
        await hanging
    with pytest.raises(Fault) as late:
        await peer.call("Compute", REQUEST, Call())
    codes = {caught.value.code for caught in (early, cut, late)}
    assert codes == {grpc.StatusCode.UNAVAILABLE}


async def test_a_public_endpoint_takes_only_what_a_caller_may_say() -> None:
    def authenticate(metadata: Metadata) -> Call:
        return Call(Principal(str(metadata["authorization"])))

    servicer = Remembering()
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, authenticate, public=True))
    local.open()
    peer = InProcessPeer(INFERENCE, lambda: local, metadata=(("authorization", "acme"),))
    before_s = time.monotonic()
    await peer.call("Compute", REQUEST, Call(Principal("forged"), run_id="run-7"))
    assert (servicer.call.principal, servicer.call.run_id) == (Principal("acme"), "run-7")
    assert before_s < servicer.call.deadline_s < before_s + 60


@pytest.fixture
def telemetries() -> Iterator[tuple[Telemetry, Telemetry]]:
    """The caller's and the server's."""
    made = Telemetry("caller", "unix:/nowhere", interval_s=1e6)
    other = Telemetry("called", "unix:/nowhere", interval_s=1e6)
    yield made, other
    made.close(0)
    other.close(0)


def traced_peer(
    servicer: EmptyInstance, telemetries: tuple[Telemetry, Telemetry]
) -> tuple[InProcessPeer, LocalEndpoint]:
    """A peer, and the open endpoint that it calls."""
    caller, called = telemetries
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, internal(TOKEN)), called)
    local.open()
    return InProcessPeer(INFERENCE, lambda: local, token=TOKEN, tracer=caller), local


async def test_the_calls_span_is_the_servers_and_the_callers_where_it_did_not_arrive(
    telemetries: tuple[Telemetry, Telemetry],
) -> None:
    caller, called = telemetries
    peer, local = traced_peer(Remembering(), telemetries)
    await peer.call("Compute", REQUEST, TRACED)
    (server,) = called.ended_spans
    assert (server.kind, server.parent_id, caller.ended_spans) == ("server", "b" * 16, ())
    await local.close()
    with pytest.raises(Fault):
        await peer.call("Compute", REQUEST, TRACED)
    (client,) = caller.ended_spans
    assert (client.kind, client.parent_id, client.code) == ("client", "b" * 16, "UNAVAILABLE")
    timed = {(kind, code): row.count for (_, kind, code), row in caller.durations.rows.items()}
    assert timed == {("client", ""): 1, ("client", "UNAVAILABLE"): 1}


class Failing(EmptyInstance):
    """Fails each call."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        raise ValueError("broken")

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        raise ValueError("broken")
        yield  # makes it a generator


async def test_a_failure_at_the_server_is_its_span_alone(
    telemetries: tuple[Telemetry, Telemetry],
) -> None:
    """The caller's would stand beside it and take its time on the critical path."""
    caller, called = telemetries
    peer, _ = traced_peer(Failing(), telemetries)
    with pytest.raises(Fault):
        await peer.call("Compute", REQUEST, TRACED)
    with pytest.raises(Fault):
        async for _ in peer.stream("ComputeStream", inference_pb2.ComputeStreamRequest(), TRACED):
            pass
    found = [(row.kind, row.parent_id, row.code) for row in called.ended_spans]
    assert found == [("server", "b" * 16, "INTERNAL")] * 2
    assert caller.ended_spans == ()
    assert caller.durations.requests() == 2


class Counting(EmptyInstance):
    """Counts what runs, and says in which task."""

    def __init__(self) -> None:
        self.running = 0
        self.task: asyncio.Task[object] | None = None

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.running += 1
        self.task = asyncio.current_task()
        try:
            await asyncio.sleep(0 if request.model == "short" else 3_600)
        finally:
            self.running -= 1
        return inference_pb2.ComputeResponse()


@pytest.mark.parametrize("in_callers_task", [True, False])
async def test_work_is_done_in_its_callers_task_where_its_rpc_is_one_of_those(
    in_callers_task: bool,
) -> None:
    servicer = Counting()
    names = frozenset({"Compute"} if in_callers_task else ())
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, internal(TOKEN), in_callers_task=names))
    local.open()
    await peer_of(local).call("Compute", inference_pb2.ComputeRequest(model="short"), Call())
    assert (servicer.task is asyncio.current_task()) == in_callers_task


async def test_a_caller_is_cancelled_once_and_goes_on_after_a_call_whose_time_was_up() -> None:
    # given a caller whose own time and whose call's time end together
    servicer, names = Counting(), frozenset({"Compute"})
    local = LocalEndpoint(Endpoint(INFERENCE, servicer, internal(TOKEN), in_callers_task=names))
    local.open()
    peer, task = peer_of(local), asyncio.current_task()
    assert task is not None
    # when the call's time is up first, the caller is told and is not cancelled any more
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", REQUEST, Call(deadline_s=time.monotonic() + 0.01))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.sleep(0)
    assert (task.cancelling(), servicer.running) == (0, 0)
    # when the caller's own is, it is that which ends
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await peer.call("Compute", REQUEST, Call(deadline_s=time.monotonic() + 30))
    assert (task.cancelling(), servicer.running) == (0, 0)
    # and a caller who is cancelled is, whatever the call
    calling = asyncio.create_task(peer.call("Compute", REQUEST, Call()))
    await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert servicer.running == 0
