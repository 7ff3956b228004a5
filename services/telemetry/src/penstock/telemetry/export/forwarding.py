"""The outside: forwarding exports to another OTLP endpoint through a bounded queue on disk.

Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from pathlib import Path
from typing import Any

import grpc
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

EXPORT_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""OTLP's own list of what a client may send again; exhausted too, as a full receiver is the very
case a queue is for.
"""

MAX_BACKOFF_S = 30.0


class Forwarder:
    """Sends on what came in, oldest first.

    An export lies on disk until it was taken, so a restart loses none.

    Owner: the service's main, which runs `run` and closes it. A full queue drops its oldest export
    and counts it.
    """

    def __init__(self, endpoint: str, folder: Path, max_bytes: int, clock: Clock) -> None:
        self._channel = grpc.aio.insecure_channel(
            endpoint, options=(("grpc.max_send_message_length", 64 << 20),)
        )
        self._stubs = {
            kind: self._channel.unary_unary(path) for kind, path in EXPORT_METHODS.items()
        }
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        left = sorted(folder.glob("*.otlp"))
        self._queue: deque[tuple[Path, int]] = deque((path, path.stat().st_size) for path in left)
        self._bytes = sum(size for _, size in self._queue)
        first = int(left[-1].name.partition("-")[0]) + 1 if left else 0
        self._numbers = itertools.count(first)
        self._wake = asyncio.Event()
        self.sent = 0
        self.dropped = 0
        if left:
            self._wake.set()

    @property
    def waiting(self) -> int:
        """Exports in the queue."""
        return len(self._queue)

    def put(self, kind: str, payload: bytes) -> None:
        """Queue an export."""
        if not payload:
            return
        path = self._folder / f"{next(self._numbers):012d}-{kind}.otlp"
        try:
            path.write_bytes(payload)
        except OSError as error:
            self.dropped += 1
            log.warning("an export could not be queued: %s", error.strerror)
            return
        self._queue.append((path, len(payload)))
        self._bytes += len(payload)
        while self._bytes > self._max_bytes and len(self._queue) > 1:
            self._remove()
            self.dropped += 1
        self._wake.set()

    def _remove(self) -> None:
        path, size = self._queue.popleft()
        self._bytes -= size
        path.unlink(missing_ok=True)

    async def run(self) -> None:
        """Send what waits, for ever; back off while the endpoint is away."""
        wait_s = 0.5
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                path, _ = self._queue[0]
                verdict = await self._send(path)
                if verdict == "later":
                    await self._clock.sleep(wait_s)
                    wait_s = min(wait_s * 2, MAX_BACKOFF_S)
                    continue
                wait_s = 0.5
                if self._queue and self._queue[0][0] == path:
                    self._remove()
                self.sent += verdict == "sent"
                self.dropped += verdict == "refused"

    async def _send(self, path: Path) -> str:
        kind = path.stem.partition("-")[2]
        try:
            payload = path.read_bytes()
        except OSError:
            return "refused"
        try:
            stub: Any = self._stubs[kind]
            await stub(payload, timeout=10.0)
        except grpc.aio.AioRpcError as error:
            return "later" if error.code() in RETRYABLE else "refused"
        return "sent"

    async def close(self) -> None:
        """Give up the connection; what waits stays on disk."""
        await self._channel.close()
