"""Spans, cheap: a tuple in a bounded buffer when the trace is sampled, almost nothing when not. Export lives in `exporting`.

Trace context is W3C's (traceparent version 00). A trace that is not sampled still leaves a span where it failed, was shed or was slow.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from penstock.core.call import Call
from penstock.core.errors import to_fault_code
from penstock.core.telemetry import Attributes, Value

BUFFER_SPANS = 16_384


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span: ids as integers, times in Unix nanoseconds, `code` a gRPC code's name, empty for OK."""

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: str
    start_ns: int
    end_ns: int
    code: str
    reason: str
    attributes: dict[str, Value]


class SpanBuffer:
    """A bounded queue of finished spans. When it is full the newest is dropped and counted; nobody waits."""

    def __init__(self, size: int = BUFFER_SPANS) -> None:
        self._spans: deque[SpanRecord] = deque()
        self._size = size
        self.dropped = 0
        self.recorded = 0
        self.notify: Callable[[], None] | None = None

    def add(self, span: SpanRecord) -> None:
        if len(self._spans) >= self._size:
            self.dropped += 1
            return
        self.recorded += 1
        self._spans.append(span)
        if self.notify is not None and len(self._spans) == 1:
            self.notify()

    def take(self, most: int) -> list[SpanRecord]:
        """Remove and return the oldest spans."""
        return [self._spans.popleft() for _ in range(min(most, len(self._spans)))]


class Sampler:
    """Which new traces are recorded: all, or at most so many a second (a token bucket of one second)."""

    def __init__(self, traces_per_s: float | None) -> None:
        self._rate = traces_per_s
        self._tokens = traces_per_s or 0.0
        self._at_s = 0.0

    def sample(self, now_s: float) -> bool:
        """Decide for a trace that begins now."""
        if self._rate is None:
            return True
        self._tokens = min(self._rate, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def parse_traceparent(text: str) -> tuple[int, int, bool] | None:
    """Trace id, parent span id and sampled flag; None where it is not a valid version-00 traceparent."""
    parts = text.split("-")
    if len(parts) != 4 or [len(part) for part in parts] != [2, 32, 16, 2] or parts[0] == "ff":
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:])
    except ValueError:
        return None
    return (trace_id, span_id, bool(flags & 1)) if trace_id and span_id else None


def format_traceparent(trace_id: int, span_id: int, sampled: bool) -> str:
    """A version-00 traceparent."""
    return f"00-{trace_id:032x}-{span_id:016x}-0{int(sampled)}"


class Tracer:
    """Makes spans. `slow_s`: an unsampled server span that takes longer is recorded all the same."""

    def __init__(self, buffer: SpanBuffer, sampler: Sampler, slow_s: float = 1.0) -> None:
        self.buffer = buffer
        self._sampler = sampler
        self._slow_s = slow_s
        self._rng = random.Random()

    def span(self, name: str, call: Call, kind: str, attributes: Attributes | None) -> LiveSpan:
        """Open a span below the call's; without one, begin a trace."""
        parent = parse_traceparent(call.traceparent) if call.traceparent else None
        if parent is None:
            trace_id, parent_id = self._rng.getrandbits(128) or 1, 0
            sampled = self._sampler.sample(time.monotonic())
        else:
            trace_id, parent_id, sampled = parent
        span_id = self._rng.getrandbits(64) or 1
        if sampled or parent is None:
            call = replace(call, traceparent=format_traceparent(trace_id, span_id, sampled))
        return LiveSpan(self, (trace_id, span_id, parent_id), (name, kind), call, sampled, attributes)

    def finish(self, span: LiveSpan, end_ns: int) -> None:
        """Record a span that has ended, if it is wanted."""
        wanted = span.sampled or span.code not in ("", "CANCELLED", "NOT_FOUND", "INVALID_ARGUMENT")
        if not wanted and span.kind == "server":
            wanted = end_ns - span.start_ns > self._slow_s * 1e9
        if wanted:
            self.buffer.add(
                SpanRecord(
                    *span.ids, span.name, span.kind, span.start_ns, end_ns, span.code, span.reason, span.attributes
                )
            )


class LiveSpan:
    """A span that is open, as a context manager."""

    __slots__ = ("_tracer", "attributes", "call", "code", "ids", "kind", "name", "reason", "sampled", "start_ns")

    def __init__(
        self,
        tracer: Tracer,
        ids: tuple[int, int, int],
        what: tuple[str, str],
        call: Call,
        sampled: bool,
        attributes: Attributes | None,
    ) -> None:
        self._tracer = tracer
        self.ids = ids
        self.name, self.kind = what
        self.call = call
        self.sampled = sampled
        self.attributes: dict[str, Value] = dict(attributes) if attributes else {}
        self.code = ""
        self.reason = ""
        self.start_ns = 0

    def __enter__(self) -> LiveSpan:
        self.start_ns = time.time_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.code and not isinstance(error, GeneratorExit):
            self.code = "CANCELLED" if isinstance(error, asyncio.CancelledError) else to_fault_code(error)
        self._tracer.finish(self, time.time_ns())

    def set(self, key: str, value: Value) -> None:
        """Set an attribute; names come from `semantics`."""
        if self.sampled:
            self.attributes[key] = value

    def fail(self, code: str, reason: str = "") -> None:
        """Say that the span failed, with a gRPC code's name."""
        self.code, self.reason = code, reason
