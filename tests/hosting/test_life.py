"""The life of a service: opened before its port, drained before it stops, closed in the end."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.life import live, serving
from penstock.hosting.service import Service
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import CannotStart
from penstock.service.settings import ServiceSettings
from penstock.testkit.server import TOKEN

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
COMPUTE = f"/{SERVICE.full_name}/Compute"
METADATA = (("penstock-token", TOKEN),)
SETTINGS = ServiceSettings(listen="127.0.0.1:0", drain_s=0.05, grace_s=10)


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


class Told:
    """A service that writes down what happens to it."""

    def __init__(self, settings: ServiceSettings = SETTINGS) -> None:
        self.events: list[str] = []
        self.slow = Slow()
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        endpoint = Endpoint(SERVICE, self.slow, internal(TOKEN))
        self.port = GrpcServer("told", settings, [endpoint])
        self.service = Service(
            "told",
            [self.port],
            [endpoint],
            open=lambda: self._note("open"),
            ready=self._ready,
            drain=self._drain,
            close=lambda: self._note("close"),
        )

    async def _note(self, event: str) -> None:
        self.events.append(event)

    async def _ready(self, address: str) -> None:
        self.events.append("ready")
        self.ready.set()

    async def _drain(self) -> None:
        self.events.append("drain")
        self.drained.set()


@pytest.mark.fault(14)
async def test_sigterm_drains_finishes_what_runs_and_closes() -> None:
    told = Told()
    living = asyncio.create_task(live(told.service, SETTINGS))
    await asyncio.wait_for(told.ready.wait(), 5)
    async with open_channel(told.port.address) as channel:
        running = asyncio.ensure_future(channel.unary_unary(COMPUTE)(b"", metadata=METADATA))
        await asyncio.wait_for(told.slow.started.wait(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(told.drained.wait(), 5)
        told.slow.release.set()
        assert await running == b""
        await asyncio.wait_for(living, 15)
    assert told.events == ["open", "ready", "drain", "close"]


@pytest.mark.fault(14)
async def test_a_second_signal_ends_the_grace() -> None:
    told = Told()
    living = asyncio.create_task(live(told.service, SETTINGS))
    await asyncio.wait_for(told.ready.wait(), 5)
    async with open_channel(told.port.address) as channel:
        running = asyncio.ensure_future(channel.unary_unary(COMPUTE)(b"", metadata=METADATA))
        await asyncio.wait_for(told.slow.started.wait(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(told.drained.wait(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(living, 5)
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_a_port_that_cannot_be_bound_closes_what_was_opened() -> None:
    told = Told(ServiceSettings(listen="203.0.113.7:1"))
    with pytest.raises(CannotStart):
        async with serving(told.service, SETTINGS):
            pass
    assert told.events == ["open", "close"]
    await told.port.stop()
