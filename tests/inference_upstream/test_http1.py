"""HTTP/1.1 to an upstream: where a response ends, what breaks it, what a connection may do next.

The upstream is a socket that sends what a test says, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpcore
import pytest
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.http1_connection import MAX_HEAD_BYTES
from penstock.inference_upstream.transport.pool import ConnectionPool
from penstock.testkit.eventually import eventually

TIMEOUTS = {"connect": 5.0, "pool": 5.0}
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
OVER = b""
"""In place of bytes to send: close the connection."""


@dataclass
class Socket:
    """A server that answers the n-th request with the n-th pieces, and remembers each request."""

    answers: Sequence[Sequence[bytes]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    sent_bytes: int = 0
    url: str = ""
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Socket]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield self
            for writer in self._writers:
                writer.transport.abort()
            await eventually(lambda: self.open == 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                sized = [line for line in head.split(b"\r\n") if line.startswith(b"content-length")]
                self.requests.append(head + await reader.readexactly(int(sized[0].split()[1])))
                for piece in self.answers[(len(self.requests) - 1) % len(self.answers)]:
                    if piece == OVER:
                        raise ConnectionError
                    writer.write(piece)
                    await writer.drain()
                    self.sent_bytes += len(piece)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1


def pool_of(url: str, **settings: object) -> ConnectionPool:
    section = {"name": "up", "base_url": url, "models": (UpstreamModel(name="m"),), **settings}
    return ConnectionPool(Upstream.model_validate(section))


async def body_of(
    pool: ConnectionPool, url: str, headers: Sequence[tuple[str, str]] = (), content: bytes = b"{}"
) -> bytes:
    async with pool.post(url, headers, content, TIMEOUTS) as response:
        assert response.status == 200
        return b"".join([piece async for piece in response.aiter_stream()])


async def twice(*answers: Sequence[bytes]) -> tuple[bytes, bytes, int]:
    """The bodies of two calls, one after the other, and the connections that they took."""
    async with Socket(answers).serving() as upstream:
        pool = pool_of(upstream.url)
        try:
            first = await body_of(pool, upstream.url)
            return first, await body_of(pool, upstream.url), upstream.connections
        finally:
            await pool.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [HELLO],
        [bytes([byte]) for byte in HELLO],
        [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n",
            b"3\r\nllo\r\n0\r\n\r\n",
        ],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", HELLO],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\n", b"hello"],
    ],
)
async def test_a_connection_is_used_again_once_its_response_has_ended(
    pieces: Sequence[bytes],
) -> None:
    assert await twice(pieces) == (b"hello", b"hello", 1)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"],
        [b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", OVER],
        [HELLO, OVER],
    ],
)
async def test_a_connection_that_ends_with_its_response_is_not_used_again(
    pieces: Sequence[bytes],
) -> None:
    assert await twice(pieces) == (b"hello", b"hello", 2)


@pytest.mark.threat("an upstream that answers what it was not asked")
async def test_what_follows_a_response_is_no_part_of_the_next() -> None:
    more = HELLO.replace(b"hello", b"other")
    assert await twice([HELLO + more]) == (b"hello", b"hello", 2)


@pytest.mark.parametrize(
    "pieces",
    [
        [OVER],
        [b"HTTP/1.1 200 OK\r\ncontent-le", OVER],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", OVER],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", OVER],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"],
        [b"220 mail.example.com ESMTP\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"],
        [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 4)],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_HEAD_BYTES // 20)],
    ],
)
async def test_a_broken_response_is_a_protocol_error_and_ends_its_connection(
    pieces: Sequence[bytes],
) -> None:
    async with Socket([pieces]).serving() as upstream:
        pool = pool_of(upstream.url)
        with pytest.raises(httpcore.RemoteProtocolError):
            await body_of(pool, upstream.url)
        assert (pool.open, pool.busy) == (0, 0)
        await pool.close()


async def test_the_request_is_sent_as_it_is_with_its_host_and_length() -> None:
    async with Socket([[HELLO]]).serving() as upstream:
        pool = pool_of(upstream.url)
        await body_of(pool, f"{upstream.url}/chat?v=1", [("x-a", "b")], b'{"a": 1}')
        host = upstream.url.removeprefix("http://").removesuffix("/v1")
        assert upstream.requests == [
            b"POST /v1/chat?v=1 HTTP/1.1\r\nhost: %s\r\ncontent-length: 8\r\nx-a: b\r\n\r\n"
            b'{"a": 1}' % host.encode()
        ]
        await pool.close()


@pytest.mark.threat("a header that ends the head of the request")
@pytest.mark.parametrize("text", ["a\r\nx-b: c", "a\nb", "a\0", "ä"])
async def test_a_header_that_cannot_be_one_is_not_sent(text: str) -> None:
    async with Socket([[HELLO]]).serving() as upstream:
        pool = pool_of(upstream.url)
        with pytest.raises(httpcore.LocalProtocolError):
            await body_of(pool, upstream.url, [("x-a", text)])
        assert not upstream.requests
        assert pool.waiting == 0
        await pool.close()


async def test_a_reader_that_is_behind_stops_the_upstream() -> None:
    pieces = [b"x" * (1 << 20)] * 64
    total = sum(map(len, pieces))
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total
    async with Socket([[head, *pieces]]).serving() as upstream:
        pool = pool_of(upstream.url)
        async with pool.post(upstream.url, [], b"{}", TIMEOUTS) as response:
            await eventually(_unchanged(lambda: upstream.sent_bytes))
            assert upstream.sent_bytes < total
            assert sum([len(piece) async for piece in response.aiter_stream()]) == total
        assert (pool.open, pool.busy) == (1, 0)
        await pool.close()


def _unchanged(read: Callable[[], int], times: int = 20) -> Callable[[], bool]:
    """Whether a number above zero has been the same so many times."""
    seen: list[int] = []

    def check() -> bool:
        seen.append(read())
        return len(seen) > times and len({*seen[-times:]}) == 1 and seen[-1] > 0

    return check


async def test_a_caller_that_leaves_ends_its_connection() -> None:
    async with Socket(
        [[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"]]
    ).serving() as upstream:
        pool = pool_of(upstream.url)
        leaving = asyncio.create_task(body_of(pool, upstream.url))
        await eventually(lambda: upstream.sent_bytes > 0)
        leaving.cancel()
        await eventually(lambda: upstream.open == 0)
        assert (pool.open, pool.busy) == (0, 0)
        await pool.close()


async def test_calls_wait_for_a_place_in_the_order_of_asking() -> None:
    async with Socket([[HELLO]]).serving() as upstream:
        pool, ended = pool_of(upstream.url, most_connections=1), list[int]()

        async def call(number: int) -> None:
            assert await body_of(pool, upstream.url) == b"hello"
            ended.append(number)

        await asyncio.gather(*(call(number) for number in range(8)))
        assert (ended, upstream.connections, pool.waiting) == (list(range(8)), 1, 0)
        await pool.close()


async def test_without_a_place_in_time_the_pool_is_full() -> None:
    async with Socket([[b"HTTP/1.1 200 OK\r\n"]]).serving() as upstream:
        pool = pool_of(upstream.url, most_connections=1)
        holding = asyncio.create_task(body_of(pool, upstream.url))
        await eventually(lambda: upstream.requests)
        with pytest.raises(httpcore.PoolTimeout):
            async with pool.post(upstream.url, [], b"{}", {"connect": 5.0, "pool": 0.01}):
                pass
        assert pool.waiting == 0
        holding.cancel()
        await asyncio.wait([holding])
        await pool.close()


async def test_another_host_takes_the_place_of_an_idle_connection() -> None:
    async with Socket([[HELLO]]).serving() as one, Socket([[HELLO]]).serving() as other:
        pool = pool_of(one.url, most_connections=1)
        assert await body_of(pool, one.url) == await body_of(pool, other.url) == b"hello"
        await eventually(lambda: one.open == 0)
        assert (pool.open, other.open) == (1, 1)
        await pool.close()


async def test_an_address_that_nobody_answers_is_followed_by_the_next() -> None:
    async with Socket([[HELLO]]).serving() as upstream:
        # Where `localhost` has an address of either family, the server listens at one only.
        pool = pool_of(upstream.url)
        url = upstream.url.replace("127.0.0.1", "localhost")
        assert await body_of(pool, url) == b"hello"
        await pool.close()
