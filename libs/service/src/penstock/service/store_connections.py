"""Connections to a store that send without a task of their own, and a pool that waits.

redis-py bounds each send by `asyncio.wait_for`, which makes a task, a timer and a turn of the loop
for what nearly always fits into the socket's buffer. Here a command is written at once; only where
the buffer does not take it is it waited for as before. That the store answers in time is bounded by
the read.

redis-py's pool refuses a command where all connections are in use, which looks like a lost store. A
slow one costs waiting before it costs refusals, so here a command waits for a connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)

MAX_CONNECTIONS = 100
"""Of a client, blocking reads included."""
MAX_BUFFERED_BYTES = 64 << 10
"""That wait in this process for the socket; beyond it a sender waits, as asyncio's own limit."""


class _SendsAtOnce(AbstractConnection):
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


_CLASSES: dict[type[Any], type[AbstractConnection]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}


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
