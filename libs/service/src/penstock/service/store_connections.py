"""Connections to a store that send without a task of their own.

redis-py bounds each send by `asyncio.wait_for`, which makes a task, a timer and a turn of the loop
for what nearly always fits into the socket's buffer. Here a command is written at once; only where
the buffer does not take it is it waited for as before. That the store answers in time is bounded by
the read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)

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


def send_at_once(pool: ConnectionPool) -> None:
    """Let the connections of a pool that has none yet send without a task of their own."""
    pool.connection_class = _CLASSES[pool.connection_class]
