"""The store model behind real clients in virtual time: what `redis.asyncio` writes is parsed and
answered as a server does, over a connection that can delay, lose and reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import redis.asyncio
from penstock.service.store_connections import WaitsForReads
from penstock.simulation.fault_plan import FaultPlan
from penstock.simulation.store_model import StoreModel
from penstock.simulation.store_streams import block_ms
from penstock.simulation.store_values import OK, Status, StoreError
from penstock.simulation.virtual_loop import EPOCH_S
from redis.asyncio.connection import ConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

Command = tuple[str, ...]
OpenStore = Callable[..., redis.asyncio.Redis]


class Life:
    """Whether a simulated process lives. What a killed one still does must not reach others."""

    def __init__(self) -> None:
        self.is_alive = True


class StoreServer:
    """One store of many simulated processes."""

    def __init__(self, name: str, plan: FaultPlan) -> None:
        self.model = StoreModel()
        self.name = name
        self.plan = plan
        self.after_command: Callable[[], None] = lambda: None
        """Called after every command that has run, with the keys as they then are."""
        self._sessions: list[_Session] = []
        self._stalled_until_s = 0.0
        self._entries_seen = 0
        self.model.published = self._publish

    def opening(self, owner: Life) -> OpenStore:
        """What a service is given as `Outside.open_store`: makes clients that end with the owner.

        See `penstock.service.store.open_store`.
        """

        def open_store(
            _url: str, *, timeout_s: float = 2.0, retries: int = 2
        ) -> redis.asyncio.Redis:
            return self._client(owner, timeout_s, retries)

        return open_store

    def _client(self, owner: Life, timeout_s: float, retries: int) -> redis.asyncio.Redis:
        pool = ConnectionPool(
            connection_class=_Connection,
            server=self,
            owner=owner,
            protocol=2,
            driver_info=None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.02), retries),
        )
        return redis.asyncio.Redis.from_pool(pool)

    def stall(self, seconds: float) -> None:
        """Run no command for some seconds from now on."""
        self._stalled_until_s = asyncio.get_running_loop().time() + seconds

    def restart(self) -> None:
        """Reset every connection and forget scripts, as a restart does; data stays."""
        self.model.forget_scripts()
        for session in list(self._sessions):
            session.reset()

    def kill(self, owner: Life) -> None:
        """Reset the connections of an owner that has been killed."""
        for session in [one for one in self._sessions if one.owner is owner]:
            session.reset()

    def accept(self, owner: Life) -> tuple[asyncio.StreamReader, _Session]:
        """A new connection. Raises ConnectionRefusedError for an owner that is no more."""
        if not owner.is_alive:
            raise ConnectionRefusedError("its owner has been killed")
        session = _Session(self, owner)
        self._sessions.append(session)
        return session.reader, session

    def leave(self, session: _Session) -> None:
        """A connection has ended."""
        if session in self._sessions:
            self._sessions.remove(session)

    def run(self, command: Command) -> Any:
        """Run a command now; a StoreError is returned as its answer."""
        self.model.now_ms = round((EPOCH_S + asyncio.get_running_loop().time()) * 1000)
        try:
            answer = self.model.command(*command)
        except StoreError as error:
            return error
        self.after_command()
        return answer

    def starts_in_s(self, latency_s: float) -> float:
        """Seconds until a command that is sent now is run."""
        now_s = asyncio.get_running_loop().time()
        return max(latency_s, self._stalled_until_s - now_s)

    def has_new_entries(self) -> bool:
        """Whether anything was added to a stream since this was asked last."""
        before, self._entries_seen = self._entries_seen, self.model.entries_added
        return self._entries_seen != before

    def wake_waiting(self) -> None:
        """Something was written: who waits for entries looks again."""
        for session in list(self._sessions):
            session.look_again()

    def _publish(self, channel: str, text: str) -> int:
        told = [one for one in self._sessions if channel in one.channels]
        for session in told:
            session.answer(["message", channel, text])
        return len(told)


class _Session:
    """The server's end of a connection; to the client it is the writer."""

    def __init__(self, server: StoreServer, owner: Life) -> None:
        self.owner = owner
        self.reader = asyncio.StreamReader()
        self.channels: set[str] = set()
        self._server = server
        self._buffer = bytearray()
        self._queued: list[Command] | None = None
        self._waiting: tuple[Command, asyncio.TimerHandle] | None = None
        self._todo: list[list[Command]] = []
        self._free_s = 0.0
        self._is_open = True

    # What the client calls.

    def write(self, data: bytes) -> None:
        self.writelines([data])

    def writelines(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self._buffer += part
        commands = _parse(self._buffer)
        if commands and self._is_open:
            self._receive(commands)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self._end()

    async def wait_closed(self) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        pass

    # What the server does.

    def reset(self) -> None:
        """End the connection as a crash does."""
        if self._is_open:
            self._end()
            self.reader.set_exception(ConnectionResetError("reset by the store"))

    def answer(self, value: Any) -> None:
        """Send an answer or a message."""
        if self._is_open:
            self.reader.feed_data(_encode(value))

    def look_again(self) -> None:
        """Answer a command that waits for entries, if there are some now."""
        if self._waiting is None:
            return
        command, timer = self._waiting
        found = self._server.run(command)
        if found is not None:
            timer.cancel()
            self._waiting = None
            self.answer(found)

    def _end(self) -> None:
        self._is_open = False
        if self._waiting is not None:
            self._waiting[1].cancel()
            self._waiting = None
        self._server.leave(self)

    def _receive(self, commands: list[Command]) -> None:
        drawn = self._server.plan.draw(
            self._server.name, ("delay", "lost_request", "lost_answer", "hang")
        )
        loop = asyncio.get_running_loop()
        latency_s = drawn.latency_s / 4
        match drawn.kind:
            case "lost_request":
                loop.call_later(latency_s, self.reset)
                return
            case "delay":
                latency_s += drawn.seconds
            case "hang":
                self._server.stall(drawn.seconds)
        start_s = loop.time() + self._server.starts_in_s(latency_s)
        self._free_s = max(self._free_s, start_s)
        loop.call_at(self._free_s, self._perform, commands, drawn.kind == "lost_answer")

    def _perform(self, commands: list[Command], is_lost: bool) -> None:
        """Run commands, even where the client has gone: they had been sent."""
        answers = [self._run(command) for command in commands]
        if is_lost:
            self.reset()
        for answer in answers:
            if answer is not _NO_ANSWER:
                self.answer(answer)
        if self._server.has_new_entries():
            self._server.wake_waiting()

    def _run(self, command: Command) -> Any:
        name = command[0].upper()
        if name in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self._subscribe(name, command[1:])
        if name == "MULTI":
            self._queued = []
            return OK
        if name == "EXEC":
            queued, self._queued = self._queued or [], None
            return [self._server.run(one) for one in queued]
        if self._queued is not None:
            self._queued.append(command)
            return Status("QUEUED")
        answer = self._server.run(command)
        wait_ms = block_ms(command[0], command[1:])
        if answer is None and wait_ms is not None:
            return self._wait(command, wait_ms)
        return answer

    def _wait(self, command: Command, wait_ms: int) -> object:
        if self._is_open:
            loop = asyncio.get_running_loop()
            self._waiting = (command, loop.call_later(wait_ms / 1e3, self._give_up))
        return _NO_ANSWER

    def _give_up(self) -> None:
        self._waiting = None
        self.answer(None)

    def _subscribe(self, name: str, channels: Command) -> Any:
        change = self.channels.add if name == "SUBSCRIBE" else self.channels.discard
        for channel in channels or tuple(self.channels):
            change(channel)
        return [name.lower(), channels[0] if channels else None, len(self.channels)]


_NO_ANSWER = object()


class _Connection(WaitsForReads):
    """A client's connection whose other end is a StoreServer of the same loop."""

    def __init__(self, *, server: StoreServer, owner: Life, **options: Any) -> None:
        self._server, self._owner = server, owner
        super().__init__(**options)

    def repr_pieces(self) -> list[tuple[str, str]]:
        return [("server", self._server.name)]

    async def _connect(self) -> None:
        ends: Any = self._server.accept(self._owner)
        self._reader, self._writer = ends

    def _host_error(self) -> str:
        return self._server.name


def _parse(buffer: bytearray) -> list[Command]:
    """Take whole commands out of a buffer."""
    commands = []
    while (found := _parse_one(buffer)) is not None:
        command, end = found
        commands.append(command)
        del buffer[:end]
    return commands


def _parse_one(buffer: bytearray) -> tuple[Command, int] | None:
    line = buffer.find(b"\r\n")
    if line < 0:
        return None
    at, parts = line + 2, []
    for _ in range(int(buffer[1:line])):
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(buffer[at + 1 : line])
        at = line + 2 + size + 2
        if at > len(buffer):
            return None
        parts.append(buffer[line + 2 : at - 2].decode("latin-1"))
    return tuple(parts), at


def _encode(value: Any) -> bytes:
    """An answer as RESP 2 writes it."""
    match value:
        case None:
            return b"$-1\r\n"
        case Exception():
            return f"-{value}\r\n".encode("latin-1")
        case Status():
            return f"+{value}\r\n".encode("latin-1")
        case int():
            return f":{value}\r\n".encode()
        case str():
            data = value.encode("latin-1")
            return b"$%d\r\n%b\r\n" % (len(data), data)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(_encode, value))
    raise TypeError(f"no answer of a store: {value!r}")
