"""The services that faults are tried on: a ledger's store, a limiter, a batcher and two routers as
processes of their own, which can be killed and stopped one by one, and an instant instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.faults.all_kinds import AllKinds
from penstock.rpc.peers.stream import open_channel
from penstock.service.free_ports import free_addresses
from penstock.service.socket_paths import socket_folder
from penstock.service.store import EmbeddedStore
from penstock.stack.configuration import api_key
from penstock.stack.process import Child, Program, python_module
from penstock.stack.readiness import STORE_SCHEME, is_ready
from penstock.tasks.kinds import KINDS
from penstock.testkit.registered import Registration, registered_instance

TOKEN = "token-of-the-fault-benchmark"
MODEL = "instant"
ROUTERS = ("router-1", "router-2")
STORE = "store"
READY_S = 60.0
HOLD_MS, LEASE_MS, JOB_LEASE_MS = 8_000, 2_000, 2_000
"""Short, so that what a killed process held is settled while the benchmark waits."""
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rig:
    """Running services."""

    store_url: str
    routers: Mapping[str, router_pb2_grpc.RouterServiceStub]
    limiter_address: str
    children: dict[str, Child]

    def metadata(self, tenant: str) -> Metadata:
        """The gRPC metadata of a tenant's calls."""
        return (("authorization", f"Bearer psk-{tenant}"),)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        os.kill(self.children[name].pid, number)

    async def serving(self, name: str, tenant: str) -> None:
        """Wait until a router knows the instance."""
        asked = router_pb2.ListModelsRequest()
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await self.routers[name].ListModels(
                        asked, metadata=self.metadata(tenant), timeout=1.0
                    )
                    if any(row.ready_instances for row in answer.models):
                        return
                await asyncio.sleep(0.05)

    async def stop_for(self, name: str, seconds: float) -> None:
        """Stop a process (SIGSTOP) for a while."""
        self.signal(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.signal(name, signal.SIGCONT)

    async def kill(self, name: str) -> None:
        """Kill a process (SIGKILL), start it again, and wait until it serves."""
        child = self.children[name]
        child.kill()
        await child.wait()
        self.children[name] = await Child.start(child.program, _ignore)
        await _ready(child.program)


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    tenants: Sequence[str],
    rules: Sequence[Mapping[str, object]],
    of_routers: Mapping[str, str] | None = None,
    instance: object | None = None,
    concurrency: int = 64,
) -> AsyncIterator[Rig]:
    """Start everything with its data in `folder`, and stop it afterwards.

    Args:
        of_routers: further variables of the routers.
        instance: the InferenceService; None: one that answers any task at once.
        concurrency: requests that it takes at a time.
    """
    with socket_folder() as sockets:
        children: dict[str, Child] = {}
        try:
            store = EmbeddedStore(folder / "store", sockets / "store.sock")
            store.data.mkdir(parents=True)
            programs = _programs(folder, store, tenants, rules, of_routers or {})
            for program in programs:
                children[program.name] = await Child.start(program, _ignore)
                await _ready(program)
            addresses = {program.name: program.address for program in programs}
            async with contextlib.AsyncExitStack() as owned:
                await owned.enter_async_context(
                    registered_instance(
                        instance or AllKinds(),
                        Registration(MODEL, MODEL, tuple(KINDS), concurrency=concurrency),
                        ",".join(addresses[name] for name in ROUTERS),
                        TOKEN,
                    )
                )
                routers = {
                    name: router_pb2_grpc.RouterServiceStub(
                        await owned.enter_async_context(open_channel(addresses[name]))
                    )
                    for name in ROUTERS
                }
                rig = Rig(store.url, routers, addresses["limiter"], children)
                for name in ROUTERS:
                    await rig.serving(name, tenants[0])
                yield rig
        finally:
            await asyncio.gather(*(child.stop(10.0) for child in reversed(children.values())))


def _programs(
    folder: Path,
    store: EmbeddedStore,
    tenants: Sequence[str],
    rules: Sequence[Mapping[str, object]],
    of_routers: Mapping[str, str],
) -> list[Program]:
    config = folder / "penstock.yaml"
    keys = [api_key(tenant, f"psk-{tenant}") for tenant in tenants]
    limits = {"rules": [dict(rule) for rule in rules]}
    config.write_text(yaml.safe_dump({"keys": {"api": keys}, "limits": limits}))
    batcher, limiter, *routers = free_addresses(2 + len(ROUTERS))
    shared = {
        "PENSTOCK_INTERNAL_TOKEN": TOKEN,
        "PENSTOCK_LEDGER_URL": store.url,
        "PENSTOCK_CACHE_URL": "",
        "PENSTOCK_CONFIG_FILE": str(config),
        "PENSTOCK_OTLP_ENDPOINT": "",
        "PENSTOCK_LOG_LEVEL": "error",
        "PENSTOCK_HOME": str(folder),
        "PENSTOCK_DEFAULT_MODEL": MODEL,
    }
    limits_of = {"PENSTOCK_HOLD_MS": str(HOLD_MS), "PENSTOCK_LEASE_MS": str(LEASE_MS)}
    route = {
        "PENSTOCK_BATCHER_ADDRESS": batcher,
        "PENSTOCK_LIMITER_ADDRESS": limiter,
        "PENSTOCK_CACHE_ADDRESS": "",
        "PENSTOCK_JOB_LEASE_MS": str(JOB_LEASE_MS),
        "PENSTOCK_JOB_ATTEMPTS": "100",
        **of_routers,
    }

    def service(name: str, module: str, address: str, more: Mapping[str, str]) -> Program:
        variables = {**shared, **more, "PENSTOCK_LISTEN": address}
        return Program(name, python_module(f"penstock.{module}"), variables, address)

    return [
        Program(STORE, tuple(store.command()), address=f"{STORE_SCHEME}{store.url}"),
        service("batcher", "batcher", batcher, {}),
        service("limiter", "limiter", limiter, limits_of),
        *(
            service(name, "router", address, {**route, "PENSTOCK_ADVERTISE": address})
            for name, address in zip(ROUTERS, routers, strict=True)
        ),
    ]


async def _ready(program: Program) -> None:
    end_s = asyncio.get_running_loop().time() + READY_S
    while not await is_ready(program):
        if asyncio.get_running_loop().time() >= end_s:
            raise TimeoutError(f"{program.name} is not ready after {READY_S:g} s")
        await asyncio.sleep(0.05)


def _ignore(*_: str) -> None:
    """The output of a process is not looked at."""
