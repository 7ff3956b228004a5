"""Connections to a store that send without a task of their own, and a pool that waits.

redis-py bounds each send by `asyncio.wait_for`, which makes a task, a timer and a turn of the loop
for what nearly always fits into the socket's buffer. Here a command is written at once; only where
the buffer does not take it is it waited for as before. That the store answers in time is bounded by
the read.

redis-py's pool refuses a command where all connections are in use, which looks like a lost store. A
slow one costs waiting before it costs refusals, so here a command waits for a connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as StoreTimeout

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


class WaitingPool(ConnectionPool):
    """A pool whose commands wait for a connection where all are in use, first come, first served.

    Args:
        wait_s: longest wait, after which a command fails with redis' TimeoutError.
    """

    def __init__(self, *, wait_s: float, **options: Any) -> None:
        super().__init__(max_connections=MAX_CONNECTIONS, **options)
        self._wait_s = wait_s
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def get_connection(
        self, command_name: str | None = None, *keys: Any, **options: Any
    ) -> AbstractConnection:
        """See ConnectionPool."""
        if self._waiters or not self.can_get_connection():
            await self._turn()
        while True:
            try:
                connection: AbstractConnection = await super().get_connection()
                return connection
            except MaxConnectionsError:
                await self._turn()

    async def release(self, connection: AbstractConnection) -> None:
        """See ConnectionPool."""
        try:
            await super().release(connection)
        finally:
            self._let_next()

    async def _turn(self) -> None:
        """Wait until a connection has been given back."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._let_next()  # It was this one's turn, and it has left.
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise StoreTimeout(f"no connection was free for {self._wait_s:g} s") from None
            raise

    def _let_next(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def waiting_pool(pool: ConnectionPool, wait_s: float) -> WaitingPool:
    """A pool in place of redis-py's, which has no connections yet: its connections send without a
    task of their own.
    """
    connection_class = _CLASSES[pool.connection_class]
    return WaitingPool(wait_s=wait_s, connection_class=connection_class, **pool.connection_kwargs)
