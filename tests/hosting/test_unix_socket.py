"""A service on a unix socket: one at a time, and never in place of a file."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import CannotStart
from penstock.service.settings import ServiceSettings

pytestmark = pytest.mark.standard_case(37)


def server_at(path: Path) -> GrpcServer:
    return GrpcServer("test", ServiceSettings(listen=f"unix:{path}", drain_s=0), [])


async def is_served(path: Path) -> bool:
    async with open_channel(f"unix:{path}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_a_second_copy_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = server_at(path)
    await first.start()
    with pytest.raises(CannotStart, match="another process serves there"):
        await server_at(path).start()
    assert await is_served(path)
    await first.stop(None)


async def test_a_socket_that_was_left_behind_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
        left_behind.listen()
    assert path.exists()
    server = server_at(path)
    await server.start()
    assert await is_served(path)
    await server.stop(None)


async def test_a_path_is_free_again_once_its_service_has_stopped(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        server = server_at(path)
        await server.start()
        assert await is_served(path)
        await server.stop(None)


async def test_a_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    with pytest.raises(CannotStart, match="not a socket"):
        await server_at(path).start()
    assert path.read_text() == "keep me"


async def test_a_path_that_does_not_fit_is_refused_with_its_length(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="the path has"):
        await server_at(tmp_path / ("x" * 120)).start()
