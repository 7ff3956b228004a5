"""Item streams over the socket beside a port: who may use it, and how a stream ends there. What an
item stream does over any transport is tested by tests/contracts/test_hop.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.auth import Metadata, internal
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint, EndpointHandlers
from penstock.rpc.errors import Fault
from penstock.rpc.frame_connection import (
    FRAME,
    GREETING,
    HEADER,
    MAX_CONTENT_BYTES,
    STATUS,
    FrameConnection,
    Part,
    greeting,
    socket_name,
)
from penstock.rpc.frame_port import FramePort
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.spans import NO_TRACER
from penstock.service.clock import SystemClock
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import TOKEN, serving

NAME = INFERENCE.full_name
ASK = inference_pb2.ComputeRequest(model="m")
PROOF = (("penstock-token", TOKEN),)


class Echo(EmptyInstance):
    """Answers with the model's name; holds what asks for `held`."""

    def __init__(self) -> None:
        self.held = self.left = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if request.model == "held":
            self.held += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.left += 1
        return inference_pb2.ComputeResponse(
            result=inference_pb2.TaskResult(revision=request.model)
        )


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def address(echo: Echo) -> AsyncIterator[str]:
    """Of a port that nobody listens on but for frames: what is answered there came by frames."""
    handlers = EndpointHandlers(
        Endpoint(INFERENCE, echo, internal(TOKEN)), NO_TRACER, SystemClock(), 30.0
    )
    with socket.create_server(("127.0.0.1", 0)) as unused:
        listen = f"127.0.0.1:{unused.getsockname()[1]}"
        port = FramePort(listen, {NAME: handlers.exchange})
        await port.start()
        yield listen
        await port.stop()


@contextlib.asynccontextmanager
async def calling(address: str, **options: object) -> AsyncIterator[Peer]:
    peer = connect(address, INFERENCE, **{"token": TOKEN, **options})  # type: ignore[arg-type]
    yield peer
    await peer.close()


async def connected(address: str) -> FrameConnection:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.setblocking(False)
    opened.connect(socket_name(address))
    loop = asyncio.get_running_loop()
    return (await loop.create_unix_connection(FrameConnection, sock=opened))[1]


async def parts(connection: FrameConnection) -> AsyncIterator[Part]:
    """What comes until the other side sends no more."""
    while (part := await connection.read()) is not None:
        yield part


async def test_a_service_of_this_machine_is_called_by_frames(address: str) -> None:
    async with calling(address) as peer:
        answer = await peer.call("Compute", ASK, Call())
    assert answer.result.revision == "m"


async def test_a_caller_without_a_proof_is_refused(address: str) -> None:
    async with calling(address, token="another") as peer:
        with pytest.raises(Fault) as caught:
            await peer.call("Compute", ASK, Call())
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_caller_who_leaves_without_an_end_is_waited_for_no_more(
    address: str, echo: Echo
) -> None:
    async with calling(address) as peer:
        held = asyncio.create_task(
            peer.call("Compute", inference_pb2.ComputeRequest(model="held"), Call())
        )
        await eventually(lambda: echo.held)
    with pytest.raises(Fault):
        await held
    await eventually(lambda: echo.left)


async def test_the_work_of_a_connection_that_breaks_ends(address: str, echo: Echo) -> None:
    connection = await connected(address)
    await connection.write(GREETING, greeting(NAME, PROOF))
    frame = inference_pb2.ExchangeRequest()
    request = inference_pb2.ComputeRequest(model="held").SerializeToString()
    context = common_pb2.CallContext(remaining_ms=60_000)
    frame.items.add(id=1, method="Compute", payload=request, context=context)
    await connection.write(FRAME, frame.SerializeToString())
    await eventually(lambda: echo.held)
    connection.abort()
    await eventually(lambda: echo.left)


@pytest.mark.parametrize(
    "sent",
    [
        HEADER.pack(2, GREETING) + b"{}",
        HEADER.pack(4, GREETING) + b"\xff\xff\xff\xff",
        HEADER.pack(0, FRAME),
        HEADER.pack(MAX_CONTENT_BYTES + 1, GREETING),
    ],
    ids=["no list", "no JSON", "no greeting", "too large"],
)
async def test_nonsense_ends_its_connection_and_no_other(address: str, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.setblocking(False)
        raw.connect(socket_name(address))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, sent)
        while await loop.sock_recv(raw, 1 << 16):
            pass  # until it is closed
    async with calling(address) as peer:
        assert (await peer.call("Compute", ASK, Call())).result.revision == "m"


@pytest.mark.parametrize(
    ("kind", "content"), [(STATUS, b""), (9, b""), (FRAME, b"\xff\xff")], ids=str
)
async def test_what_a_stream_may_not_bring_ends_it_with_a_status(
    address: str, kind: int, content: bytes
) -> None:
    connection = await connected(address)
    await connection.write(GREETING, greeting(NAME, PROOF))
    await connection.write(kind, content)
    told = [part async for part in parts(connection) if part.kind == STATUS]
    status = common_pb2.ItemStatus.FromString(told[-1].content)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    connection.abort()


async def test_a_public_service_is_called_at_its_port(echo: Echo) -> None:
    def anybody(metadata: Metadata) -> Call:
        return Call(Principal("acme", key_id="k"))

    endpoint = Endpoint(INFERENCE, echo, anybody, public=True)
    async with serving([endpoint]) as server, calling(server.address) as peer:
        assert (await peer.call("Compute", ASK, Call())).result.revision == "m"


async def test_a_service_that_does_not_take_frames_is_told_apart(address: str) -> None:
    connection = await connected(address)
    await connection.write(GREETING, greeting("penstock.api.router.v1.RouterService", ()))
    part = await connection.read()
    assert part is not None and part.kind == STATUS
    status = common_pb2.ItemStatus.FromString(part.content)
    assert status.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    connection.abort()


async def test_a_server_that_stops_lets_its_streams_end(echo: Echo) -> None:
    endpoint = Endpoint(INFERENCE, echo, internal(TOKEN))
    async with serving([endpoint]) as server, calling(server.address) as peer:
        assert (await peer.call("Compute", ASK, Call())).result.revision == "m"
        await server.stop(1.0)
        with pytest.raises(Fault) as caught:
            await peer.call("Compute", ASK, Call())
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_service_at_a_unix_socket_has_one_for_frames_beside_it(
    echo: Echo, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path}/s"
    beside = tmp_path / "s.frames"
    beside.touch()  # left behind by a process that ended
    async with serving([Endpoint(INFERENCE, echo, internal(TOKEN))], listen) as server:
        (tmp_path / "s").unlink()  # so nobody gets to the port itself
        async with calling(server.address) as peer:
            assert (await peer.call("Compute", ASK, Call())).result.revision == "m"
    assert not beside.exists()


@pytest.mark.parametrize(
    "address", ["10.0.0.1:7000", "host:7000", f"unix:/{'x' * 100}", "127.0.0.1:0"]
)
def test_only_addresses_of_this_machine_have_such_a_socket(address: str) -> None:
    assert socket_name(address) == ""
