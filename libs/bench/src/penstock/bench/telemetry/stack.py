"""The running stack's part of the anomaly figures: real processes under an open load, faults
injected, incidents as telemetry tells them.

Faults are made by instances of this process that the stack's router knows as any others: one slows,
one fails, one loses confidence, and the right answers of what the cache holds change. What is found
is read from the incident stream, as an operator would.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.api.telemetry.v1 import telemetry_pb2_grpc
from penstock.bench.harness.progress import say
from penstock.bench.telemetry.instances import CHEAP, DEAR, MODELS, SORTER, Instances, registered
from penstock.bench.telemetry.replay import FEATURES, KINDS
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, running
from rich.console import Console

TENANT = "bench"
KEY = "psk-bench-anomalies"
MODEL = "all-MiniLM-L6-v2"
SERVICES = ("router", "cache", "limiter", "batcher", "inference-onnx-quantized")
STREAMS = "penstock.anomaly.streams"
RATES = {"slow instance": 4.0, "error burst": 4.0, "drift": 5.0, "cache poisoning": 9.0, "": 2.0}
"""Requests a second to each kind's own model; the nameless kind is the real model."""

LONGER = {"cache poisoning": 2.5}
"""How many times longer a kind lasts: one would-be hit in fifty is audited, so that wrong ones take
minutes to add up.
"""

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Times:
    """How long the stack is calm before the first fault, how long each fault lasts, and the calm
    after it, in seconds.
    """

    warm_up_s: float = 300.0
    fault_s: float = 120.0
    calm_s: float = 90.0
    after_s: float = 60.0
    """What opens so soon after a fault is its aftermath."""

    @property
    def all_s(self) -> float:
        """How long a run takes."""
        return self.warm_up_s + sum(self.lasts_s(kind) + self.calm_s for kind in KINDS)

    def lasts_s(self, kind: str) -> float:
        """How long a fault of a kind lasts."""
        return self.fault_s * LONGER.get(kind, 1.0)


@dataclass(frozen=True)
class Injected:
    """A fault that was: its kind and the seconds of Unix time between which it lasted."""

    kind: str
    from_s: float
    to_s: float

    def found(self, updates: Sequence[pb.Incident]) -> float | None:
        """Seconds until an incident came to blame what this fault changes in its own model; None
        when none did while it lasted.

        One that was open and blamed it before says nothing new; one that had closed and opens again
        does.
        """
        earlier = {row.id: row for row in updates if row.last_unix_ms / 1e3 < self.from_s}
        before = {
            row.id: self._blamed(row)
            for row in earlier.values()
            if row.state == pb.INCIDENT_STATE_OPEN
        }
        soon = [
            row.last_unix_ms / 1e3 - self.from_s
            for row in updates
            if self.from_s <= row.last_unix_ms / 1e3 <= self.to_s
            and self._blamed(row) - before.get(row.id, set())
        ]
        return min(soon, default=None)

    def _blamed(self, incident: pb.Incident) -> set[tuple[str, str]]:
        """(subject, feature) of what the incident blames and this fault changes."""
        model = MODELS.get(self.kind, SORTER)
        return {
            (part.subject, part.feature)
            for part in incident.contributions
            if model in part.subject.split()
            and any(word in part.feature for word in FEATURES[self.kind])
        }


@dataclass(frozen=True)
class Watched:
    """What a run showed."""

    faults: Sequence[Injected]
    updates: Sequence[pb.Incident]
    """Incidents as they opened and changed, in order."""

    seconds: float
    requests: int
    streams: float
    after_s: float
    host_load: float = 0.0
    """The machine's own load average over the run: what others do on it slows the stack too."""

    @property
    def service_hours(self) -> float:
        return self.seconds * len(SERVICES) / 3600.0

    def false(self) -> list[pb.Incident]:
        """Incidents opened neither during a fault nor in its aftermath."""
        return [
            incident
            for incident in {row.id: row for row in self.updates}.values()
            if not any(
                fault.from_s <= incident.opened_unix_ms / 1e3 <= fault.to_s + self.after_s
                for fault in self.faults
            )
        ]


def watch(models: Path, times: Times, seed: int) -> Watched:
    """Run a stack of processes with faults of every kind, one after the other."""
    return asyncio.run(_watch(models, times, random.Random(seed)))


async def _watch(models: Path, times: Times, rng: random.Random) -> Watched:
    async with _stack(models) as stack, registered(stack, rng) as instances:
        for model in (MODEL, *instances.models):
            await stack.wait_for_instances(model, 1, TENANT)
        load = Load(stack, instances, rng)
        began = time.time()
        async with load.running(), _updates(stack) as updates:
            faults, host_load = await _inject(instances, times)
        seconds = time.time() - began
        streams = await _streams(stack)
    return Watched(faults, updates, seconds, load.sent, streams, times.after_s, host_load)


@contextlib.asynccontextmanager
async def _stack(models: Path) -> AsyncIterator[Stack]:
    api = [
        {"id": TENANT, "organisation": TENANT, "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    ]
    config = {"keys": {"api": api}, "prices": {"models": [CHEAP, DEAR]}}
    log = LogStream(Console(stderr=True), quiet=True)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "models").symlink_to(models.resolve())
        file = Path(folder) / "penstock.yaml"
        file.write_text(yaml.safe_dump(config))
        async with running(ports.free(), home, file, {TENANT: KEY}, log) as stack:
            yield stack


async def _inject(instances: Instances, times: Times) -> tuple[list[Injected], float]:
    faults, loads = [], []
    await asyncio.sleep(times.warm_up_s)
    for kind in KINDS:
        began = time.time()
        say(f"fault: {kind}")
        instances.spoil(kind, KINDS[kind][-1])
        await asyncio.sleep(times.lasts_s(kind))
        instances.heal()
        faults.append(Injected(kind, began, time.time()))
        await asyncio.sleep(times.calm_s)
        loads.append(os.getloadavg()[0])
    return faults, statistics.mean(loads)


class Load:
    """Requests at random moments, whatever becomes of those before.

    Owner: whoever enters `running`.
    """

    def __init__(self, stack: Stack, instances: Instances, rng: random.Random) -> None:
        self._stack = stack
        self._instances = instances
        self._rng = rng
        self._open: set[asyncio.Task[None]] = set()
        self.sent = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        senders = [asyncio.create_task(self._send(kind, rate)) for kind, rate in RATES.items()]
        try:
            yield
        finally:
            for task in (*senders, *self._open):
                task.cancel()
            await asyncio.gather(*senders, *self._open, return_exceptions=True)

    async def _send(self, kind: str, rate: float) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(rate))
            task = asyncio.create_task(self._ask(kind))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            self.sent += 1

    async def _ask(self, kind: str) -> None:
        how = {"metadata": self._stack.metadata(TENANT), "timeout": TIMEOUT_S}
        router = self._stack.router
        with contextlib.suppress(grpc.aio.AioRpcError):
            if kind == "cache poisoning":
                await router.Generate(self._instances.question(), **how)
            elif kind == "drift":
                await router.Classify(self._instances.sorting(), **how)
            else:
                model = self._instances.model_of(kind) if kind else MODEL
                options = router_pb2.CallOptions(
                    model=model, cache=router_pb2.CachePolicy(bypass=True)
                )
                text = f"step {self.sent} of an agent"
                await router.Embed(router_pb2.EmbedRequest(texts=[text], options=options), **how)


@contextlib.asynccontextmanager
async def _updates(stack: Stack) -> AsyncIterator[list[pb.Incident]]:
    """Incidents as telemetry's stream tells them."""
    told: list[pb.Incident] = []
    async with open_channel(stack.addresses["telemetry"]) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        call = telemetry.WatchIncidents(
            pb.WatchIncidentsRequest(), metadata=((TOKEN_KEY, stack.internal_token),)
        )

        async def read() -> None:
            async for update in call:
                told.append(update.incident)  # noqa: PERF401 - each as it comes, not all at the end

        reader = asyncio.create_task(read())
        try:
            yield told
        finally:
            call.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def _streams(stack: Stack) -> float:
    """How many metric streams are watched."""
    async with open_channel(stack.addresses["telemetry"]) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        metadata = ((TOKEN_KEY, stack.internal_token),)
        metrics = await telemetry.GetMetrics(pb.GetMetricsRequest(name=STREAMS), metadata=metadata)
    return max((series.points[-1].value for series in metrics.series if series.points), default=0.0)
