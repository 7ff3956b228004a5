"""Penstock in one virtual-time loop: the services as `build` makes them, a model of the store, and
instances that answer by a script; every hop and every store command may fail.

A service can be killed: nothing that it still does reaches anybody, and it is built anew on what
the store has.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.batcher.build import build as build_batcher
from penstock.batcher.settings import BatcherSettings
from penstock.cache.build import build as build_cache
from penstock.cache.settings import CacheSettings
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service
from penstock.limiter.build import build as build_limiter
from penstock.limiter.settings import LimiterSettings
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.router.build import build as build_router
from penstock.router.settings import RouterSettings
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.peers.in_process import InProcessPeer, LocalEndpoint
from penstock.rpc.peers.stream import Peer
from penstock.simulation.fault_plan import FaultPlan
from penstock.simulation.store_server import Life, StoreServer
from penstock.simulation.virtual_loop import VirtualClock

TOKEN = "the-internal-token-of-a-simulation"
MODEL = "scripted"
ROUTERS = ("router-1", "router-2")
SERVICES = ("limiter", "cache", "batcher", *ROUTERS)
ADDRESSES = {name: f"10.0.0.{number}:7000" for number, name in enumerate(SERVICES, 1)}
INSTANCES = {f"instance-{number}": f"10.0.1.{number}:7000" for number in (1, 2)}
HOLD_MS, LEASE_MS, JOB_LEASE_MS = 4_000, 1_000, 1_000
HEARTBEAT_S = 1.0
FOUND_DEAD_S = 4.0
"""After this a connection that hangs is given up, as liveness pings do."""
CONCURRENCY = 4
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"]
REGISTRY = router_pb2.DESCRIPTOR.services_by_name["RegistryService"]
BUILDS: Mapping[str, Callable[[Any, Outside], Service]] = {
    "limiter": build_limiter,
    "cache": build_cache,
    "batcher": build_batcher,
}
Find = Callable[[], LocalEndpoint | None]


@dataclass(frozen=True)
class Process:
    """A running service, and its ends of calls."""

    service: Service
    life: Life
    endpoints: Sequence[LocalEndpoint]


class System:
    """The running services. Owner: whoever started it stops it.

    Attributes:
        ledger, answers: the two stores.
    """

    def __init__(self, plan: FaultPlan, config_file: Path) -> None:
        self.plan = plan
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.ledger = StoreServer("ledger", plan)
        self.answers = StoreServer("answers", plan)
        self._config_file = config_file
        self._served: dict[tuple[str, str], LocalEndpoint] = {}
        self._processes: dict[str, Process] = {}

    async def start(self, name: str) -> None:
        """Build a service and serve it."""
        life = Life()
        service = self._build(name, life)
        endpoints = [LocalEndpoint(each, clock=self.clock) for each in service.endpoints]
        self._processes[name] = Process(service, life, endpoints)
        await service.open()
        for each in endpoints:
            each.open()
            self._served[ADDRESSES[name], each.endpoint.service.full_name] = each
        if service.ready is not None:
            await service.ready(ADDRESSES[name])

    async def kill(self, name: str) -> None:
        """End a service without letting it say good-bye."""
        process = self._processes.pop(name)
        process.life.is_alive = False
        for store in (self.ledger, self.answers):
            store.kill(process.life)
        await self._end(process)

    async def stop(self, name: str) -> None:
        """End a service in good order."""
        await self._end(self._processes.pop(name))

    async def _end(self, process: Process) -> None:
        for each in process.endpoints:
            await each.close()
        await process.service.close()

    def serve_instance(self, name: str, servicer: object) -> None:
        """Serve an InferenceService at an instance's address."""
        endpoint = Endpoint(INFERENCE, servicer, internal(TOKEN))
        local = LocalEndpoint(endpoint, clock=self.clock)
        local.open()
        self._served[INSTANCES[name], INFERENCE.full_name] = local

    def client(self, router: str, service: ServiceDescriptor, key: str = "") -> Peer:
        """A peer of an outside caller: with an API key, or with the internal token."""
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        return InProcessPeer(
            service,
            self._finder(ADDRESSES[router], service),
            token="" if key else TOKEN,
            clock=self.clock,
            metadata=metadata,
        )

    def endpoint(self, name: str, service: ServiceDescriptor) -> LocalEndpoint:
        """What serves a service now."""
        return self._served[ADDRESSES[name], service.full_name]

    def _finder(self, address: str, service: ServiceDescriptor) -> Find:
        return lambda: self._served.get((address, service.full_name))

    def _build(self, name: str, life: Life) -> Service:
        settings = _settings(name, self._config_file)
        outside = Outside(
            NO_TELEMETRY,
            self._dialling(name, life),
            self.clock,
            (self.answers if name == "cache" else self.ledger).opening(life),
            self.plan.rng(f"{name} rng"),
        )
        return BUILDS.get(name, build_router)(settings, outside)

    def _dialling(self, name: str, life: Life) -> Callable[[str, ServiceDescriptor], Peer]:
        def dial(address: str, service: ServiceDescriptor) -> Peer:
            peer = InProcessPeer(
                service, self._finder(address, service), token=TOKEN, clock=self.clock
            )
            return _FaultyPeer(peer, self.plan, f"{name}>{service.name}", life)

        return dial


class _FaultyPeer:
    """A peer whose calls take time, get lost, lose their answers, or hang until their deadline."""

    responds = True

    def __init__(self, peer: InProcessPeer, plan: FaultPlan, name: str, life: Life) -> None:
        self._peer, self._plan, self._name, self._life = peer, plan, name, life

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        drawn = await self._on_the_way(method, call)
        answer = await self._peer.call(method, request, call)
        if drawn == "lost_answer":
            raise unavailable("the connection was reset")
        self._check_alive()
        return answer

    async def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """See Peer."""
        drawn = await self._on_the_way(method, call)
        streamed = self._peer.stream(method, request, call)
        async with contextlib.aclosing(streamed) as chunks:  # type: ignore[type-var]  # a generator
            async for chunk in chunks:
                self._check_alive()
                yield chunk
                if drawn == "lost_answer":
                    raise unavailable("the connection was reset")

    async def _on_the_way(self, method: str, call: Call) -> str | None:
        """What happens before the request arrives."""
        self._check_alive()
        drawn = self._plan.draw(
            f"{self._name}.{method}", ("delay", "lost_request", "lost_answer", "hang")
        )
        await asyncio.sleep(drawn.latency_s)
        match drawn.kind:
            case "delay":
                await asyncio.sleep(drawn.seconds)
            case "lost_request":
                raise unavailable("the connection was refused")
            case "hang":
                await self._hang(call)
        self._check_alive()
        return drawn.kind

    async def _hang(self, call: Call) -> None:
        """Until the deadline, or until the connection is found dead."""
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(max(min(call.remaining_s(now_s), FOUND_DEAD_S), 0.0))
        raise unavailable("the connection hung")

    def _check_alive(self) -> None:
        if not self._life.is_alive:
            raise unavailable("the caller has been killed")

    async def close(self) -> None:
        """See Peer."""
        await self._peer.close()


def _settings(name: str, config_file: Path) -> Any:
    shared: dict[str, Any] = {
        "listen": ADDRESSES[name],
        "config_file": config_file,
        "ledger_url": "redis://ledger",
        "cache_url": "redis://answers",
        "internal_token": TOKEN,
    }
    match name:
        case "limiter":
            return LimiterSettings(**shared, hold_ms=HOLD_MS, lease_ms=LEASE_MS)
        case "cache":
            return CacheSettings(**shared, embedder="")
        case "batcher":
            return BatcherSettings(**shared)
    return RouterSettings(
        **shared,
        cache_address=ADDRESSES["cache"],
        limiter_address=ADDRESSES["limiter"],
        batcher_address=ADDRESSES["batcher"],
        default_model=MODEL,
        job_lease_ms=JOB_LEASE_MS,
        job_attempts=100,
        heartbeat_interval_ms=round(HEARTBEAT_S * 1000),
        poll_nice=0,
    )


@contextlib.contextmanager
def config_file(sections: dict[str, object]) -> Iterator[Path]:
    """A configuration file for the length of a run."""
    with tempfile.TemporaryDirectory(prefix="penstock-simulation-") as folder:
        path = Path(folder) / "penstock.yaml"
        path.write_text(yaml.safe_dump(sections))
        yield path


async def keep_registered(system: System, name: str) -> None:
    """Keep an instance registered with every router, for ever."""
    model = inference_pb2.Model(
        name=MODEL,
        state=inference_pb2.MODEL_STATE_READY,
        tasks=[inference_pb2.TASK_KIND_GENERATE],
        revision="1",
    )
    instance = router_pb2.Instance(
        id=name, address=INSTANCES[name], models=[model], concurrency=CONCURRENCY
    )
    registered: set[str] = set()
    while True:
        for router in ROUTERS:
            peer = system.client(router, REGISTRY)
            deadline = Call(deadline_s=system.clock.monotonic() + HEARTBEAT_S)
            with contextlib.suppress(Fault):
                if router not in registered:
                    request = router_pb2.RegisterRequest(instance=instance)
                    await peer.call("Register", request, deadline)
                    registered.add(router)
                beat = router_pb2.HeartbeatRequest(instance_id=name, models=[model])
                answer = await peer.call("Heartbeat", beat, deadline)
                if answer.register_again:
                    registered.discard(router)
        await asyncio.sleep(HEARTBEAT_S)
