"""The server builder: limits, health, a port in use, and a drain that loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.grpc_server import GrpcServer, ServerLimits
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import connect, open_channel
from penstock.service.program import CannotStart
from penstock.service.settings import ServiceSettings
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN, serving

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
COMPUTE = f"/{SERVICE.full_name}/Compute"
METADATA = (("penstock-token", TOKEN),)


class Slow:
    """Answers Compute when released; has the other methods by name only."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def Compute(self, request: object, call: Call) -> inference_pb2.ComputeResponse:
        self.started.set()
        await self.release.wait()
        return inference_pb2.ComputeResponse()

    ComputeStream = ComputeBatch = ListModels = LoadModel = UnloadModel = Compute


@pytest.fixture
def servicer() -> Slow:
    return Slow()


def door(servicer: Slow) -> Endpoint:
    return Endpoint(SERVICE, servicer, internal(TOKEN))


async def refused(address: str, payload: bytes, **how: object) -> grpc.StatusCode:
    async with open_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(COMPUTE)(payload, **{"metadata": METADATA, **how})
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_calls_over_the_limit_of_the_port_are_refused_and_those_in_flight_go_on(
    servicer: Slow,
) -> None:
    limits = ServerLimits(max_calls=2)
    async with (
        serving([door(servicer)], limits=limits) as server,
        open_channel(server.address) as channel,
    ):
        compute = channel.unary_unary(COMPUTE)
        held = [asyncio.ensure_future(compute(b"", metadata=METADATA)) for _ in range(2)]
        await servicer.started.wait()

        async def is_refused() -> bool:
            """The second call may still be on its way."""
            try:
                await compute(b"", metadata=METADATA, timeout=0.2)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

        await eventually(is_refused)
        servicer.release.set()
        assert await asyncio.gather(*held) == [b"", b""]


@pytest.mark.fault(4)
async def test_a_message_over_the_limit_is_refused_and_the_service_goes_on(servicer: Slow) -> None:
    servicer.release.set()
    async with serving([door(servicer)]) as server:
        assert (
            await refused(server.address, b"\0" * ((4 << 20) + 1))
            is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        bomb = b"\0" * (16 << 20)
        assert (
            await refused(server.address, bomb, compression=grpc.Compression.Gzip)
            is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        async with open_channel(server.address) as channel:
            assert await channel.unary_unary(COMPUTE)(b"", metadata=METADATA) == b""


@pytest.mark.fault(7)
async def test_metadata_over_the_limit_is_refused(servicer: Slow) -> None:
    async with serving([door(servicer)]) as server:
        metadata = (*METADATA, ("x-long", "a" * 40_000))
        assert (
            await refused(server.address, b"", metadata=metadata)
            is grpc.StatusCode.RESOURCE_EXHAUSTED
        )


async def test_an_unknown_method_is_unimplemented(servicer: Slow) -> None:
    async with serving([door(servicer)]) as server, open_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE.full_name}/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_by_service(servicer: Slow) -> None:
    async with serving([door(servicer)]) as server, open_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE.full_name):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_is_for_development_only(servicer: Slow) -> None:
    for profile, code in (
        ("development", grpc.StatusCode.OK),
        ("production", grpc.StatusCode.UNIMPLEMENTED),
    ):
        server = GrpcServer(
            "test", ServiceSettings(listen="127.0.0.1:0", profile=profile), [door(servicer)]
        )  # type: ignore[arg-type]
        await server.start()
        async with open_channel(server.address) as channel:
            stream = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )()
            await stream.done_writing()
            assert await stream.code() is code
        await server.stop(None)


@pytest.mark.parametrize("listen", ["in use", "203.0.113.7:1", "127.0.0.1:notaport"])
async def test_an_address_that_cannot_be_had_is_one_clear_line(servicer: Slow, listen: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}" if listen == "in use" else listen
        server = GrpcServer("test", ServiceSettings(listen=address), [door(servicer)])
        with pytest.raises(CannotStart, match="cannot listen"):
            await server.start()
        await server.stop(None)


async def test_a_second_copy_on_the_same_port_fails(servicer: Slow) -> None:
    async with serving([door(servicer)]) as server:
        second = GrpcServer("second", ServiceSettings(listen=server.address), [door(servicer)])
        with pytest.raises(CannotStart):
            await second.start()
        await second.stop(None)


async def test_an_open_item_stream_does_not_hold_up_the_stop(servicer: Slow) -> None:
    server = GrpcServer("test", ServiceSettings(listen="127.0.0.1:0", drain_s=0), [door(servicer)])
    await server.start()
    peer = connect(server.address, SERVICE, token=TOKEN)
    in_flight = asyncio.create_task(peer.call("Compute", inference_pb2.ComputeRequest(), Call()))
    await asyncio.wait_for(servicer.started.wait(), 5)
    stopping = asyncio.create_task(server.stop(600))

    async def refuses() -> bool:
        with pytest.raises(Fault) as caught:
            call = Call(deadline_s=time.monotonic() + 0.2)
            await peer.call("Compute", inference_pb2.ComputeRequest(), call)
        return caught.value.code is grpc.StatusCode.UNAVAILABLE

    await eventually(refuses)
    assert not in_flight.done() and not stopping.done()
    servicer.release.set()
    await in_flight
    await asyncio.wait_for(stopping, 20)
    await peer.close()


def test_a_bad_variable_is_one_line_and_exit_status_two() -> None:
    env = {**os.environ, "PENSTOCK_GRACE_S": "soon"}
    done = subprocess.run(
        [sys.executable, "-m", "penstock.batcher"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        (
            "penstock batcher: PENSTOCK_GRACE_S: Input should be a valid number, unable to parse "
            "string as a number"
        )
    ]


def test_a_missing_model_is_one_line_and_exit_status_two(tmp_path: Path) -> None:
    env = {**os.environ, "PENSTOCK_HOME": str(tmp_path), "PENSTOCK_LISTEN": "127.0.0.1:0"}
    command = [sys.executable, "-m", "penstock.inference_onnx_quantized"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "not in the repository" in done.stderr.splitlines()[-1]
