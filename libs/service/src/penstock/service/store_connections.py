"""Connections to a store that send without a task of their own and wait for as long as a command
asks the store to, and a pool that waits.

redis-py bounds each send by `asyncio.wait_for`, which makes a task, a timer and a turn of the loop
for what nearly always fits into the socket's buffer. Here a command is written at once; only where
the buffer does not take it is it waited for as before. That the store answers in time is bounded by
the read.

redis-py bounds each answer by one time for all commands, so a command that waits for entries at the
store has to come back within it. Here the wait that such a command names is added to the bound.

redis-py's pool refuses a command where all connections are in use, which looks like a lost store. A
slow one costs waiting before it costs refusals, so here a command waits for a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from penstock.service.purity import pure
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

MAX_CONNECTIONS = 100
"""Of a client, blocking reads included."""
MAX_BUFFERED_BYTES = 64 << 10
"""That wait in this process for the socket; beyond it a sender waits, as asyncio's own limit."""
READ_WAIT_MS = 5_000
"""Longest wait of a read of streams, after which a reader looks at what else it has to do. A store
that hangs is noticed so much later by who only reads.
"""
READS = frozenset({"XREAD", "XREADGROUP"})
BLOCK_WITHIN = 7
"""Words of such a command before which BLOCK stands, as redis-py writes them."""


@pure
def wait_at_store_s(command: Sequence[Any]) -> float:
    """Seconds for which a command asks the store to wait for entries; 0 where it does not."""
    if command[0] not in READS or b"BLOCK" not in command[:BLOCK_WITHIN]:
        return 0.0
    return float(command[command.index(b"BLOCK") + 1]) / 1e3


class WaitsForReads(AbstractConnection):
    """Gives a command that waits at the store so much more time for its answer."""

    _wait_s = 0.0

    def pack_command(self, *command: Any) -> Any:
        """See AbstractConnection."""
        self._wait_s = wait_at_store_s(command)
        return super().pack_command(*command)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """See AbstractConnection; it may connect first, with commands of its own."""
        wait_s = self._wait_s
        await super().send_packed_command(command, check_health)
        self._wait_s = wait_s

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """See AbstractConnection."""
        if not self._wait_s or self.socket_timeout is None:
            return await super().read_response(*args, **options)
        every_s, wait_s = self.socket_timeout, self._wait_s
        self.socket_timeout, self._wait_s = every_s + wait_s, 0.0
        try:
            return await super().read_response(*args, **options)
        finally:
            self.socket_timeout = every_s


class _SendsAtOnce(WaitsForReads):
    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """See AbstractConnection."""
        writer = self._writer if self.is_connected else None
        if (
            writer is None
            or writer.transport.is_closing()
            or self.health_check_interval
            or isinstance(command, bytes | str)
        ):
            await super().send_packed_command(command, check_health)
            return
        writer.writelines(command)
        if writer.transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            await super().send_packed_command((), check_health)


class _Tcp(_SendsAtOnce, Connection):
    pass


class _Tls(_SendsAtOnce, SSLConnection):
    pass


class _Unix(_SendsAtOnce, UnixDomainSocketConnection):
    pass


class _Watched(_SendsAtOnce, SentinelManagedConnection):
    pass


class _WatchedTls(_SendsAtOnce, SentinelManagedSSLConnection):
    pass


_CLASSES: dict[type[Any], type[AbstractConnection]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


def watched_connection(*, tls: bool) -> type[AbstractConnection]:
    """The class of connections to a primary that sentinels name."""
    return _WatchedTls if tls else _Watched


def connect_by_ours(cluster: RedisCluster) -> None:
    """Let a cluster's client, which has no connections yet, make its connections as others do."""
    given: type[Any] = cluster.connection_kwargs["connection_class"]
    own = cast(Any, _CLASSES[given])
    cluster.connection_kwargs["connection_class"] = own
    for node in cluster.startup_nodes:
        node.connection_class = own


def waiting_pool(pool: ConnectionPool, wait_s: float) -> BlockingConnectionPool:
    """A pool in place of redis-py's, which has no connections yet: its connections send without a
    task of their own, and a command waits for one for `wait_s` at most before it fails with redis'
    ConnectionError.
    """
    return BlockingConnectionPool(
        MAX_CONNECTIONS,
        wait_s,
        connection_class=_CLASSES[pool.connection_class],
        **pool.connection_kwargs,
    )
