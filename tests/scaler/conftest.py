"""An engine on a real Redis whose time is set by the test, and doors to it on ports of their
own.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.keda import externalscaler_pb2_grpc as keda_grpc
from penstock.api.scaler.v1 import scaler_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.scaler.actuate.actuator import Actuator, DryRun
from penstock.scaler.api.scaler_service import ScalerServicer
from penstock.scaler.build import SCALER, keda_port
from penstock.scaler.pools.autoscaler import Autoscaler, Begin
from penstock.scaler.pools.store import ScalerStore
from penstock.scaler.settings import PoolConfig, ScalerSettings
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN

START_S = 1_800_000_000.0
AUTH = (("penstock-token", TOKEN),)
POOL: dict[str, Any] = {
    "name": "m",
    "least": 0,
    "most": 8,
    "interval_s": 10.0,
    "capacity": 10.0,
    "utilisation": 1.0,
    "seed_lead_s": 10.0,
    "start_cost_s": 0.0,
    "down_every_s": 0.0,
    "zero_after_s": 60.0,
    "stale_s": 30.0,
}


class Scaler:
    """One scaler: its engine, and stubs of both its doors."""

    def __init__(self, engine: Autoscaler, clock: FakeClock) -> None:
        self.engine, self.clock = engine, clock
        self.api: scaler_pb2_grpc.ScalerServiceStub
        self.keda: keda_grpc.ExternalScalerStub


class Scalers:
    """Makes scalers that share one store and one time."""

    def __init__(self, url: str, owned: contextlib.AsyncExitStack) -> None:
        self.url, self._owned = url, owned
        self.clock = FakeClock(START_S)

    async def make(
        self,
        who: str = "a",
        actuator: Actuator | None = None,
        redis: bool = True,
        drain: Begin | None = None,
        **changes: Any,
    ) -> Scaler:
        config = PoolConfig.model_validate({**POOL, **changes})
        client = open_store(self.url, retries=0) if redis else None
        if client is not None:
            self._owned.push_async_callback(client.aclose)
        acting = actuator or DryRun(1)
        engine = Autoscaler(
            [config], {config.name: acting}, ScalerStore(client, who), self.clock, drain=drain
        )
        self._owned.push_async_callback(engine.close)
        await engine.recall()
        scaler = Scaler(engine, self.clock)
        settings = ScalerSettings(listen="127.0.0.1:0", keda_listen="127.0.0.1:0", drain_s=0)
        door = Endpoint(SCALER, ScalerServicer(engine, self.clock), internal(TOKEN))
        for server in (
            GrpcServer("scaler", settings, [door]),
            keda_port(settings, engine, self.clock),
        ):
            await server.start()
            self._owned.push_async_callback(server.stop, None)
            channel = grpc.aio.insecure_channel(server.address)
            self._owned.push_async_callback(channel.close)
            if server.name == "scaler":
                scaler.api = scaler_pb2_grpc.ScalerServiceStub(channel)
            else:
                scaler.keda = keda_grpc.ExternalScalerStub(channel)
        return scaler


@pytest.fixture
async def scalers(tmp_path: Path) -> AsyncIterator[Scalers]:
    async with embedded_store(tmp_path / "redis") as url, contextlib.AsyncExitStack() as owned:
        yield Scalers(url, owned)
