"""Reads of single keys that share one connection: each is written when it is asked for, and replies
are taken in their order (pipelining, as Redis calls it).

redis-py takes a connection out of its pool for each command and gives it back, with a lock, a
timer and a try of its own: three quarters of what a GET costs. Here a GET is a write and a future.

Whoever asks is answered within the store's timeout or told that it does not answer. A connection
that breaks fails nobody: what it owes is asked for again through the client, which connects anew.
Clusters and Sentinel, where a key's server may change, are read through the client.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import NamedTuple, cast

import redis.asyncio
from penstock.service.background import Background
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

DEFAULT_TIMEOUT_S = 2.0


class _Owed(NamedTuple):
    """A reply that is to come, and since when (seconds of the event loop's clock)."""

    reply: asyncio.Future[bytes | None]
    asked_s: float


class StoreReads:
    """Reads through one client, which stays its maker's. Owner must `close` it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        pool = getattr(client, "connection_pool", None)
        self._pool = pool if isinstance(pool, BlockingConnectionPool) else None
        options = self._pool.connection_kwargs if self._pool is not None else {}
        self._timeout_s: float = options.get("socket_timeout") or DEFAULT_TIMEOUT_S
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._owed: deque[_Owed] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._reading = Background()

    async def get(self, name: str) -> bytes | None:
        """The value of a key; None where there is none.

        Raises:
            RedisError, OSError: the store does not answer, or refuses.
        """
        if self._pool is None:
            return cast("bytes | None", await self._client.get(name))
        try:
            connection = self._connection or await self._connect(self._pool)
            return await self._asked(connection, name)
        except StoreConnectionError:
            return cast("bytes | None", await self._client.get(name))

    async def _asked(self, connection: AbstractConnection, name: str) -> bytes | None:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[bytes | None] = loop.create_future()
        self._owed.append(_Owed(reply, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._check, connection)
        try:
            # Written before anything is waited for, so replies come in the order of what is owed.
            await connection.send_packed_command(connection.pack_command("GET", name), False)
            return await reply
        finally:
            reply.cancel()

    async def _connect(self, pool: BlockingConnectionPool) -> AbstractConnection:
        """The connection; those who come while it is being made wait for the same one."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connected(pool), name="connect for reads")
            self._connecting.add_done_callback(self._end_connecting)
        return await asyncio.shield(self._connecting)

    async def _connected(self, pool: BlockingConnectionPool) -> AbstractConnection:
        connection: AbstractConnection = await pool.get_connection()
        self._connection = connection
        self._reading.start(self._read(connection, pool), "read the store's replies")
        return connection

    def _end_connecting(self, connecting: asyncio.Task[AbstractConnection]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # Those who waited for it were told.

    async def _read(self, connection: AbstractConnection, pool: BlockingConnectionPool) -> None:
        """Hand replies to those who wait, until the connection ends."""
        why: RedisError | OSError = StoreConnectionError("the connection was closed")
        try:
            while True:
                try:
                    value = await connection.read_response(True, math.inf)
                except ResponseError as error:
                    _settle(self._owed.popleft(), error)
                else:
                    _settle(self._owed.popleft(), value)
        except (RedisError, OSError) as error:
            why = error
        finally:
            self._lose(why)
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    def _lose(self, why: RedisError | OSError) -> None:
        """The connection has ended; those who wait are told."""
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        owed, self._owed = self._owed, deque()
        for each in owed:
            _settle(each, StoreConnectionError(f"the connection to the store has ended: {why}"))

    def _check(self, connection: AbstractConnection) -> None:
        """Give up a connection whose oldest reply is late; look again while something is owed."""
        self._timer = None
        if not self._owed:
            return
        loop = asyncio.get_running_loop()
        left_s = self._owed[0].asked_s + self._timeout_s - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._check, connection)
            return
        for each in self._owed:
            _settle(each, StoreTimeoutError(f"no reply within {self._timeout_s:g} s"))
        self._reading.start(connection.disconnect(nowait=True))

    async def close(self) -> None:
        """End the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._reading.close()


def _settle(owed: _Owed, outcome: bytes | Exception | None) -> None:
    """Tell whoever still waits."""
    if owed.reply.done():
        return
    if isinstance(outcome, Exception):
        owed.reply.set_exception(outcome)
    else:
        owed.reply.set_result(outcome)
