"""Store servers on TCP ports of this machine, from the binary that is embedded: one, or a primary
with replicas that sentinels watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from penstock.service.free_ports import free_port, free_ports
from penstock.service.store import open_store, server_binary, wait_ready
from penstock.testkit.eventually import eventually
from redis.asyncio.cluster import RedisCluster

HOST = "127.0.0.1"
SERVICE = "ledger"
"""Under which sentinels know the primary."""
DOWN_AFTER_MS = 500
REPLICAS, SENTINELS, QUORUM = 2, 3, 2
NODES, SLOTS = 3, 16_384

OPTIONS = ("--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0")


@dataclass(frozen=True)
class StoreServer:
    """A server that runs."""

    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class WatchedStore:
    """A primary, its replicas and their sentinels."""

    primary: StoreServer
    replicas: Sequence[StoreServer]
    sentinels: Sequence[StoreServer]

    @property
    def url(self) -> str:
        """What services are told."""
        hosts = ",".join(f"{HOST}:{server.port}" for server in self.sentinels)
        return f"sentinel://{hosts}/{SERVICE}"


@contextlib.asynccontextmanager
async def running_server(
    folder: Path, *options: str, password: str = ""
) -> AsyncIterator[StoreServer]:
    """A server with an append-only file in `folder`.

    Args:
        password: which the options set.
    """
    port = free_port()
    server = _start(folder, port, *OPTIONS, *options)
    secret = f":{password}@" if password else ""
    async with _ended(server, f"redis://{secret}{HOST}:{port}"):
        yield server


@contextlib.asynccontextmanager
async def watched_store(folder: Path) -> AsyncIterator[WatchedStore]:
    """A primary with replicas, and sentinels that have found all of them."""
    async with contextlib.AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running_server(folder / "primary"))
        replicas = [
            await stack.enter_async_context(
                running_server(folder / f"replica-{number}", "--replicaof", HOST, str(primary.port))
            )
            for number in range(REPLICAS)
        ]
        sentinels = [
            await stack.enter_async_context(_sentinel(folder / f"sentinel-{number}", primary.port))
            for number in range(SENTINELS)
        ]
        for sentinel in sentinels:
            await eventually(lambda port=sentinel.port: _knows_all(port), 30)  # type: ignore[misc]
        await eventually(lambda: _has_replicas(primary.port), 30)
        yield WatchedStore(primary, replicas, sentinels)


@contextlib.asynccontextmanager
async def store_cluster(folder: Path) -> AsyncIterator[str]:
    """A cluster of three servers that hold a third of the keys each; yields its URL."""
    async with contextlib.AsyncExitStack() as stack:
        buses = free_ports(NODES)
        servers = [
            await stack.enter_async_context(
                running_server(
                    folder / str(number), "--cluster-enabled", "yes", "--cluster-port", str(bus)
                )
            )
            for number, bus in enumerate(buses)
        ]
        for number, server in enumerate(servers):
            async with redis.asyncio.Redis(host=HOST, port=server.port) as client:
                first, last = number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
                await client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                await client.execute_command("CLUSTER", "MEET", HOST, servers[0].port, buses[0])
        for server in servers:
            await eventually(lambda port=server.port: _is_whole(port), 30)  # type: ignore[misc]
        yield "cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers)


async def crossslot_errors(url: str) -> int:
    """Commands that the servers of a cluster refused since their keys are of several slots."""
    async with open_store(url) as client:
        await client.ping()
        errors: Any = await client.execute_command(
            "INFO", "errorstats", target_nodes=RedisCluster.ALL_NODES
        )
    rows = errors.values() if not any("errorstat" in name for name in errors) else [errors]
    return sum(int(row.get("errorstat_CROSSSLOT", {}).get("count", 0)) for row in rows)


@contextlib.asynccontextmanager
async def _sentinel(folder: Path, primary_port: int) -> AsyncIterator[StoreServer]:
    folder.mkdir(parents=True)
    port = free_port()
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind {HOST}\ndir {folder}\n"
        f"sentinel monitor {SERVICE} {HOST} {primary_port} {QUORUM}\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    async with _ended(_run(port, str(file), "--sentinel"), f"redis://{HOST}:{port}") as server:
        yield server


@contextlib.asynccontextmanager
async def _ended(server: StoreServer, url: str) -> AsyncIterator[StoreServer]:
    client = redis.asyncio.Redis.from_url(url)
    try:
        await wait_ready(client, server.process)
        yield server
    finally:
        await client.aclose()
        await asyncio.to_thread(server.kill)


async def _knows_all(port: int) -> bool:
    async with redis.asyncio.Redis(host=HOST, port=port) as client:
        state: Any = await client.sentinel_master(SERVICE)
    return bool(state["num-slaves"] == REPLICAS and state["num-other-sentinels"] == SENTINELS - 1)


async def _is_whole(port: int) -> bool:
    async with redis.asyncio.Redis(host=HOST, port=port) as client:
        state: Any = await client.execute_command("CLUSTER INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(NODES))


async def _has_replicas(port: int) -> bool:
    async with redis.asyncio.Redis(host=HOST, port=port) as client:
        state = await client.info("replication")
    replicas = [state.get(f"slave{number}", {}) for number in range(REPLICAS)]
    return all(replica.get("state") == "online" for replica in replicas)


def _start(folder: Path, port: int, *options: str) -> StoreServer:
    folder.mkdir(parents=True, exist_ok=True)
    return _run(port, "--port", str(port), "--bind", HOST, "--dir", str(folder), *options)


def _run(port: int, *arguments: str) -> StoreServer:
    process = subprocess.Popen(
        [server_binary(), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return StoreServer(port, process)
