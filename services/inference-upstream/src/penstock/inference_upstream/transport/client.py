"""The workshop: one pool of persistent HTTP connections to one upstream.

Timeouts, size limits and what the pool is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import httpcore
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.openai_chat import Streamed, malformed, refusal
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.pool import Pool
from penstock.otel.telemetry import Telemetry
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
    httpcore.ProxyError,
    ssl.SSLError,
)
ENDED_BADLY = (TimeoutError, httpcore.TimeoutException, *BROKEN, Fault)
LINE_BYTES = 1 << 20
END_S = 0.05
"""How long an upstream that has said `[DONE]` may take to end its body; later its connection is
closed.
"""


class Client:
    """Calls one upstream. Owns the pool; `close` ends it."""

    def __init__(self, upstream: Upstream, telemetry: Telemetry) -> None:
        self.upstream = upstream
        silence_s = upstream.silence_timeout_ms / 1e3
        self._timeouts = {
            "connect": upstream.connect_timeout_ms / 1e3,
            "read": silence_s,
            "write": silence_s,
            "pool": silence_s,
        }
        key = upstream.key()
        self._headers = [("content-type", "application/json"), ("accept-encoding", "identity")]
        self._headers += [("authorization", f"Bearer {key}")] if key else []
        self._pool = Pool(upstream)
        self.calls = self.errors = 0
        self.in_flight = 0
        self._watch(telemetry)

    def _watch(self, telemetry: Telemetry) -> None:
        pool = self._pool
        for name, unit, what, value in (
            ("in_flight", "{call}", "Calls under way", lambda: float(self.in_flight)),
            (
                "connections_opened",
                "{connection}",
                "Connections set up so far",
                lambda: float(self.opened),
            ),
            (
                "tls_resumed",
                "{connection}",
                "Connections that resumed a TLS session",
                lambda: float(self.resumed),
            ),
            (
                "connections_open",
                "{connection}",
                "Connections that are open",
                lambda: float(pool.open),
            ),
            (
                "connections_busy",
                "{connection}",
                "Connections that carry a call",
                lambda: float(pool.busy),
            ),
            ("waiting", "{call}", "Calls that wait for a connection", lambda: float(pool.waiting)),
            (
                "reuse_share",
                "1",
                "Share of calls on a connection that was open already",
                lambda: self.reuse_share,
            ),
            (
                "errors",
                "{call}",
                "Calls that failed at the upstream or on the way",
                lambda: float(self.errors),
            ),
        ):
            telemetry.gauge(f"penstock.upstream.{name}", unit, what, value)

    @property
    def opened(self) -> int:
        return self._pool.opened

    @property
    def resumed(self) -> int:
        return self._pool.sessions.resumed

    @property
    def reuse_share(self) -> float:
        return max(0.0, 1.0 - self.opened / self.calls) if self.calls else 0.0

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """A whole answer; raises the Fault that the failure means."""
        async with self._call(path, body) as response:
            self._typed(response, "application/json")
            return b"".join([piece async for piece in self._pieces(response)])

    async def chat(
        self, body: dict[str, Any], sent: pb.GenerateTask
    ) -> AsyncIterator[pb.GenerateChunk | pb.TaskResult]:
        """A streamed answer: its pieces, then the whole.

        Leaving the iterator closes the upstream's connection.
        """
        streamed, rest = Streamed(sent), b""
        async with self._call("/chat/completions", body) as response:
            self._typed(response, "text/event-stream")
            pieces = self._pieces(response)
            async for piece in pieces:
                # Lines are cut as bytes: a character may be split over two pieces.
                lines = (rest + piece).split(b"\n")
                rest = lines.pop()
                if len(rest) > LINE_BYTES:
                    raise malformed("an event is too long")
                for line in lines:
                    added = streamed.line(line.decode("utf-8", "replace").rstrip("\r"))
                    if added:
                        yield pb.GenerateChunk(delta=added)
                if streamed.done:
                    break
            result, last = streamed.result()
            yield last
            yield result
            # Only a body that was read to its end leaves a connection that can be used again.
            with contextlib.suppress(*ENDED_BADLY):
                async with asyncio.timeout(END_S):
                    async for _ in pieces:
                        pass

    @contextlib.asynccontextmanager
    async def _call(self, path: str, body: dict[str, Any]) -> AsyncIterator[httpcore.Response]:
        self.calls += 1
        self.in_flight += 1
        content = json.dumps(
            body, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
        try:
            async with self._pool.post(
                self.upstream.base_url + path, self._headers, content, self._timeouts
            ) as response:
                if response.status != 200:
                    raise refusal(response.status, _headers(response), time.time())
                yield response
        except httpcore.ConnectTimeout:
            raise self._failed("cannot be reached in time", Reason.UPSTREAM_UNREACHABLE) from None
        except httpcore.PoolTimeout:
            raise self._failed("has no free connection", Reason.UPSTREAM_POOL_FULL) from None
        except httpcore.TimeoutException:
            raise self._failed("has fallen silent", Reason.UPSTREAM_SILENT) from None
        except httpcore.ConnectError:
            raise self._failed("cannot be reached", Reason.UPSTREAM_UNREACHABLE) from None
        except BROKEN:
            raise self._failed("broke the connection", Reason.UPSTREAM_RESET) from None
        except Fault:
            self.errors += 1
            raise
        finally:
            self.in_flight -= 1

    def _failed(self, what: str, reason: Reason) -> Fault:
        self.errors += 1
        return unavailable(
            f"the upstream {self.upstream.name} {what}", retry_after_s=0.5, reason=reason
        )

    async def _pieces(self, response: httpcore.Response) -> AsyncIterator[bytes]:
        size = 0
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > self.upstream.most_answer_bytes:
                raise unavailable(
                    f"the upstream's answer is larger than {self.upstream.most_answer_bytes} bytes",
                    reason=Reason.UPSTREAM_TOO_LARGE,
                )
            yield piece

    @staticmethod
    def _typed(response: httpcore.Response, wanted: str) -> None:
        given = _headers(response).get("content-type", "").partition(";")[0].strip().lower()
        if given != wanted:
            raise malformed(f"content type {given or 'missing'} instead of {wanted}")

    async def keep(self, clock: Clock) -> None:
        """Close idle connections as their time comes, until cancelled."""
        await self._pool.keep(clock)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
