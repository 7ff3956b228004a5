"""Forwarding every export to another OTLP endpoint, through a bounded queue on disk."""

from __future__ import annotations

import asyncio
import enum
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
"""The codes after which OTLP lets a client send again. It lets RESOURCE_EXHAUSTED only with a retry
delay; here it is always retried, because a full receiver is what the queue is for.
"""

MAX_MESSAGE_BYTES = 64 << 20
SEND_TIMEOUT_S = 10.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0


class SendResult(enum.Enum):
    """What became of sending one export."""

    SENT = enum.auto()
    RETRY = enum.auto()
    REFUSED = enum.auto()


class Forwarder:
    """Sends exports on, the oldest first. Owner: whoever made it runs `run` and closes it.

    An export stays on disk until the endpoint took it, so a restart loses none. A full queue drops
    its oldest export.

    Args:
        endpoint: `host:port` that takes OTLP over gRPC.
        folder: where exports wait, a file each, named by number and kind.
        max_bytes: of the files together.
        clock: for the pauses between attempts.
    """

    def __init__(self, endpoint: str, folder: Path, max_bytes: int, clock: Clock) -> None:
        options = (("grpc.max_send_message_length", MAX_MESSAGE_BYTES),)
        self._channel = grpc.aio.insecure_channel(endpoint, options=options)
        self._stubs = {
            kind: self._channel.unary_unary(method) for kind, method in EXPORT_METHODS.items()
        }
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        waiting = sorted(folder.glob("*.otlp"))
        self._queue: deque[tuple[Path, int]] = deque(
            (path, path.stat().st_size) for path in waiting
        )
        self._bytes = sum(size for _, size in self._queue)
        first_number = int(waiting[-1].name.partition("-")[0]) + 1 if waiting else 0
        self._numbers = itertools.count(first_number)
        self._wake = asyncio.Event()
        self.sent = 0
        self.dropped = 0
        if waiting:
            self._wake.set()

    @property
    def queued(self) -> int:
        """Exports that wait."""
        return len(self._queue)

    def enqueue(self, kind: str, payload: bytes) -> None:
        """Queue an export of `traces`, `metrics` or `logs`."""
        if not payload:
            return
        path = self._folder / f"{next(self._numbers):012d}-{kind}.otlp"
        try:
            path.write_bytes(payload)
        except OSError as error:
            self.dropped += 1
            log.warning(
                "cannot write %s (%s); the export is not forwarded, %d dropped so far",
                path,
                error.strerror,
                self.dropped,
            )
            return
        self._queue.append((path, len(payload)))
        self._bytes += len(payload)
        while self._bytes > self._max_bytes and len(self._queue) > 1:
            self._remove_oldest()
            self.dropped += 1
        self._wake.set()

    async def run(self) -> None:
        """Send what is queued until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send_all()

    async def _send_all(self) -> None:
        """Send until the queue is empty, with growing pauses while the endpoint does not take
        it.
        """
        backoff_s = FIRST_BACKOFF_S
        while self._queue:
            path, _ = self._queue[0]
            result = await self._send(path)
            if result is SendResult.RETRY:
                await self._clock.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                continue
            backoff_s = FIRST_BACKOFF_S
            if self._queue and self._queue[0][0] == path:  # it may have been dropped meanwhile
                self._remove_oldest()
            if result is SendResult.SENT:
                self.sent += 1
            else:
                self.dropped += 1

    async def _send(self, path: Path) -> SendResult:
        kind = path.stem.partition("-")[2]
        try:
            payload = path.read_bytes()
        except OSError:
            return SendResult.REFUSED
        try:
            stub: Any = self._stubs[kind]
            await stub(payload, timeout=SEND_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return SendResult.RETRY if error.code() in RETRYABLE else SendResult.REFUSED
        return SendResult.SENT

    def _remove_oldest(self) -> None:
        path, size = self._queue.popleft()
        self._bytes -= size
        path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Close the connection; what is queued stays on disk."""
        await self._channel.close()
