"""Faults injected into a running stack of processes, and the incidents that telemetry reports.

The faults are those of instances in this process, registered with the stack's router: one becomes
slow, one fails, one loses confidence, and the right answers of cached questions change. Incidents
are read from the incident stream, as an operator would read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.api.telemetry.v1 import telemetry_pb2_grpc
from penstock.bench.harness.progress import say
from penstock.bench.telemetry.faulty_instances import (
    MODELS,
    PRICES,
    FaultyInstances,
    faulty_instances,
)
from penstock.bench.telemetry.replay import DURATION_FACTORS, KINDS
from penstock.bench.telemetry.stack_findings import InjectedFault, StackRun
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

TENANT = "bench"
KEY = "psk-bench-anomalies"
STREAM_COUNT_METRIC = "penstock.anomaly.streams"
NO_FAULT = ""
RATES_PER_S = {
    "slow instance": 4.0,
    "error burst": 4.0,
    "drift": 5.0,
    "cache poisoning": 9.0,
    NO_FAULT: 2.0,
}
"""Requests a second for the model of each kind of fault, and for the default model."""
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Schedule:
    """Seconds before the first fault, of each fault, and without a fault after each.

    Incidents that open within `aftermath_s` after a fault count as its consequence.
    """

    warm_up_s: float = 300.0
    fault_s: float = 120.0
    calm_s: float = 90.0
    aftermath_s: float = 60.0

    @property
    def total_s(self) -> float:
        """Length of a whole run."""
        return self.warm_up_s + sum(self.duration_s(kind) + self.calm_s for kind in KINDS)

    def duration_s(self, kind: str) -> float:
        """Length of a fault of a kind."""
        return self.fault_s * DURATION_FACTORS.get(kind, 1.0)


def run_with_faults(models: Path, schedule: Schedule, seed: int) -> StackRun:
    """Run a stack under load with faults of every kind, one after the other."""
    return asyncio.run(_run(models, schedule, random.Random(seed)))


async def _run(models: Path, schedule: Schedule, rng: random.Random) -> StackRun:
    async with _stack(models) as stack, faulty_instances(stack, rng) as instances:
        for model in (DEFAULT_MODEL, *instances.models):
            await stack.wait_for_instances(model, 1, TENANT)
        load = OpenLoad(stack, instances, rng)
        began_s = time.time()
        async with load.running(), _incident_updates(stack) as updates:
            faults, host_load = await _inject(instances, schedule)
        seconds = time.time() - began_s
        metric_streams = await _metric_streams(stack)
    return StackRun(
        faults, updates, seconds, load.sent, metric_streams, schedule.aftermath_s, host_load
    )


@contextlib.asynccontextmanager
async def _stack(models: Path) -> AsyncIterator[Stack]:
    config = {
        "keys": {"api": [api_key(TENANT, KEY)]},
        "prices": {"models": list(PRICES)},
    }
    log = LogStream(Console(stderr=True), quiet=True)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "models").symlink_to(models.resolve())
        file = Path(folder) / "penstock.yaml"
        file.write_text(yaml.safe_dump(config))
        async with run_stack(ports.free(), home, file, {TENANT: KEY}, log) as stack:
            yield stack


async def _inject(
    instances: FaultyInstances, schedule: Schedule
) -> tuple[list[InjectedFault], float]:
    """Inject one fault of each kind; return them and the machine's mean load average."""
    faults = []
    load_averages = []
    await asyncio.sleep(schedule.warm_up_s)
    for kind, strengths in KINDS.items():
        say(f"fault: {kind}")
        began_s = time.time()
        instances.inject(kind, strengths[-1])
        await asyncio.sleep(schedule.duration_s(kind))
        instances.repair()
        faults.append(InjectedFault(kind, began_s, time.time()))
        await asyncio.sleep(schedule.calm_s)
        load_averages.append(os.getloadavg()[0])
    return faults, statistics.mean(load_averages)


class OpenLoad:
    """An open-loop load: requests at random moments, whether or not earlier ones are answered.

    Whoever enters `running` owns its tasks.
    """

    def __init__(self, stack: Stack, instances: FaultyInstances, rng: random.Random) -> None:
        self._stack = stack
        self._instances = instances
        self._rng = rng
        self._in_flight: set[asyncio.Task[None]] = set()
        self.sent = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests until the block ends; requests in flight are then cancelled."""
        senders = [
            asyncio.create_task(self._send(kind, rate)) for kind, rate in RATES_PER_S.items()
        ]
        try:
            yield
        finally:
            tasks = (*senders, *self._in_flight)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, kind: str, rate_per_s: float) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(rate_per_s))
            task = asyncio.create_task(self._call(kind))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
            self.sent += 1

    async def _call(self, kind: str) -> None:
        metadata = self._stack.metadata(TENANT)
        router = self._stack.router
        with contextlib.suppress(grpc.aio.AioRpcError):
            if kind == "cache poisoning":
                question = self._instances.new_question()
                await router.Generate(question, metadata=metadata, timeout=TIMEOUT_S)
            elif kind == "drift":
                classification = self._instances.classification()
                await router.Classify(classification, metadata=metadata, timeout=TIMEOUT_S)
            else:
                model = MODELS[kind] if kind else DEFAULT_MODEL
                await router.Embed(self._embed(model), metadata=metadata, timeout=TIMEOUT_S)

    def _embed(self, model: str) -> router_pb2.EmbedRequest:
        options = router_pb2.CallOptions(model=model, cache=router_pb2.CachePolicy(bypass=True))
        return router_pb2.EmbedRequest(texts=[f"step {self.sent} of an agent"], options=options)


@contextlib.asynccontextmanager
async def _incident_updates(stack: Stack) -> AsyncIterator[list[pb.Incident]]:
    """A list that grows with every update of telemetry's incident stream."""
    updates: list[pb.Incident] = []
    async with open_channel(stack.addresses["telemetry"]) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        call = telemetry.WatchIncidents(
            pb.WatchIncidentsRequest(), metadata=((TOKEN_KEY, stack.internal_token),)
        )

        async def read() -> None:
            async for update in call:
                updates.append(update.incident)  # noqa: PERF401 - readers see each as it comes

        reader = asyncio.create_task(read())
        try:
            yield updates
        finally:
            call.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def _metric_streams(stack: Stack) -> float:
    """Number of metric streams that telemetry watches."""
    async with open_channel(stack.addresses["telemetry"]) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        metrics = await telemetry.GetMetrics(
            pb.GetMetricsRequest(name=STREAM_COUNT_METRIC),
            metadata=((TOKEN_KEY, stack.internal_token),),
        )
    return max((series.points[-1].value for series in metrics.series if series.points), default=0.0)
