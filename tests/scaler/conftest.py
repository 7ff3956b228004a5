"""Scalers on a real Redis in virtual time, each with its gRPC ports."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
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
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pool_settings import PoolConfig
from penstock.scaler.pools.autoscaler import Autoscaler, StopRequests
from penstock.scaler.pools.planner import PoolPlanner
from penstock.scaler.pools.pool import Pool
from penstock.scaler.pools.store import ScalerStore
from penstock.scaler.settings import ScalerSettings
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN

START_S = 1_800_000_000.0
INTERVAL_S = 10.0
AUTH = (("penstock-token", TOKEN),)
POOL: dict[str, Any] = {
    "name": "m",
    "min_instances": 0,
    "max_instances": 8,
    "interval_s": INTERVAL_S,
    "capacity": 10.0,
    "target_utilisation": 1.0,
    "initial_lead_time_s": 10.0,
    "start_cost_s": 0.0,
    "scale_down_period_s": 0.0,
    "scale_to_zero_after_s": 60.0,
    "stale_after_s": 30.0,
}
"""One instance does 100 units of work in an interval."""


class Scaler:
    """One scaler, and stubs of its two gRPC APIs."""

    def __init__(self, autoscaler: Autoscaler, clock: FakeClock) -> None:
        self.autoscaler = autoscaler
        self.clock = clock
        self.api: scaler_pb2_grpc.ScalerServiceStub
        self.keda: keda_grpc.ExternalScalerStub
        self.channel: grpc.aio.Channel
        """KEDA's connection."""

    @property
    def pool(self) -> Pool:
        """The only pool."""
        (pool,) = self.autoscaler.pools.values()
        return pool


class Scalers:
    """Makes scalers that share one store and one clock."""

    def __init__(self, url: str, owned: contextlib.AsyncExitStack) -> None:
        self.url = url
        self.clock = FakeClock(START_S)
        self._owned = owned

    async def make(
        self,
        scaler_id: str = "a",
        actuator: Actuator | None = None,
        stop_requests: StopRequests | None = None,
        **changes: Any,
    ) -> Scaler:
        """Start a scaler of one pool, whose settings are POOL with these changes."""
        client = open_store(self.url, retries=0)
        self._owned.push_async_callback(client.aclose)
        pool = make_pool(actuator or DryRun(1), **changes)
        store = ScalerStore(client, scaler_id)
        autoscaler = Autoscaler([pool], store, self.clock, stop_requests=stop_requests)
        self._owned.push_async_callback(autoscaler.close)
        await autoscaler.load()
        scaler = Scaler(autoscaler, self.clock)
        settings = ScalerSettings(listen="127.0.0.1:0", keda_listen="127.0.0.1:0", drain_s=0)
        servicer = ScalerServicer(autoscaler, self.clock)
        endpoint = Endpoint(SCALER, servicer, internal(TOKEN))
        own = await self._serve(GrpcServer("scaler", settings, [endpoint]))
        scaler.api = scaler_pb2_grpc.ScalerServiceStub(own)
        scaler.channel = await self._serve(keda_port(settings, autoscaler, self.clock))
        scaler.keda = keda_grpc.ExternalScalerStub(scaler.channel)
        return scaler

    async def _serve(self, server: GrpcServer) -> grpc.aio.Channel:
        await server.start()
        self._owned.push_async_callback(server.stop, None)
        channel = grpc.aio.insecure_channel(server.address)
        self._owned.push_async_callback(channel.close)
        return channel


def make_pool(actuator: Actuator, **changes: Any) -> Pool:
    """A pool whose settings are POOL with these changes."""
    return Pool(PoolPlanner(PoolConfig.model_validate({**POOL, **changes})), actuator)


async def feed(
    scaler: Scaler, work: Sequence[float], backlog: float = 0.0, model: str = "m"
) -> None:
    """Report one sample after each interval, and let the scaler decide after each."""
    for amount in work:
        start_s = scaler.clock.time()
        await scaler.clock.advance(INTERVAL_S)
        await scaler.autoscaler.report(model, [Sample(start_s, amount, backlog)])
        await scaler.autoscaler.wait_for_fits()
        await scaler.autoscaler.tick()


@pytest.fixture
async def scalers(tmp_path: Path) -> AsyncIterator[Scalers]:
    async with embedded_store(tmp_path / "redis") as url, contextlib.AsyncExitStack() as owned:
        yield Scalers(url, owned)
