"""What the rest of the code sees of telemetry: spans and instruments.

Recording only; exporting.py sends, in the background.

A span that is not recorded costs about a microsecond and hands its caller's Call on unchanged; one
that is recorded makes a new Call whose traceparent it is. In production a span that was not to be
recorded still is, by itself, when it fails or is slow.
"""

from __future__ import annotations

import atexit
import functools
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from penstock.otel.attributes import BACKGROUND_RPCS
from penstock.otel.counts import receipt_attributes
from penstock.otel.recorder import EndedSpan, Recorded
from penstock.otel.trace_context import (
    SAMPLED_LAST_DIGITS,
    TRACEPARENT_LENGTH,
    RateLimitingSampler,
    is_sampled,
    is_valid,
    new_span_id,
    new_trace_id,
    new_unsampled_traceparent,
)
from penstock.rpc.call import Call
from penstock.rpc.spans import Attributes, NoSpan, Own, Span, Value

if TYPE_CHECKING:
    from penstock.api.common.v1 import common_pb2
    from penstock.otel.export import Exporter

TRACES_PER_S = 50.0
"""Recorded traces a second of one process at most, in production."""


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Histogram(Protocol):
    """A distribution."""

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Telemetry:
    """Makes spans and instruments for one service; `kind` of a span is internal, server or client.

    Args:
        service: `service.name` of everything recorded here.
        endpoint: `host:port` or `unix:/path` that takes OTLP over gRPC; empty counts and drops.
        profile: development records every trace; production at most `traces_per_s`, and every error
            and slow span.
        edge: True at a public door: a caller's sampled flag then spends from `traces_per_s` too.
        slow_s: a span that took longer is kept in production.
        capacity: ended spans that wait for export at most; more are dropped and counted.
        interval_s: seconds between exports.
        rng: where identifiers come from.
    """

    def __init__(
        self,
        service: str,
        endpoint: str = "",
        *,
        profile: str = "development",
        edge: bool = False,
        instance: str = "",
        traces_per_s: float = TRACES_PER_S,
        slow_s: float = 1.0,
        max_queued_spans: int = 65_536,
        interval_s: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        self._recorded = recorded = Recorded(service, instance, endpoint, max_queued_spans)
        self.ring, self.durations, self.accounts = (
            recorded.ring,
            recorded.durations,
            recorded.accounts,
        )
        self._edge = edge
        self._rng = rng or random.Random()
        rate = 0.0 if not endpoint else float("inf") if profile == "development" else traces_per_s
        self._sampler = RateLimitingSampler(rate)
        self._slow_ns = int(slow_s * 1e9)
        self._exporter: Exporter | None = None
        if endpoint:
            from penstock.otel.export import (
                Exporter,
            )  # the SDK is loaded only where something is exported

            self._exporter = Exporter(recorded, interval_s)
            self._exporter.start()
            atexit.register(self.close)

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        """Open a span under the call's trace, or a new trace; use it in a `with`.

        `attributes` belong to the span from then on.
        """
        parent = call.traceparent
        if len(parent) == TRACEPARENT_LENGTH and not (self._edge and kind == "server"):
            if parent[-1] in SAMPLED_LAST_DIGITS:
                return _Recorded(self, name, kind, call, attributes)
            return _Unrecorded(self, name, kind, call, attributes, "")
        return self._entering(name, call, kind, attributes)

    def _entering(self, name: str, call: Call, kind: str, attributes: Own | None) -> Span:
        """The first span of a trace here: continue a valid parent's trace or begin one, and decide
        whether to record it.
        """
        parent = call.traceparent if call.traceparent and is_valid(call.traceparent) else ""
        asked = is_sampled(parent) if parent else not is_background(name)
        recorded = asked and self._sampler.take(time.monotonic())
        if recorded:
            trace_id = parent[3:35] if parent else new_trace_id(self._rng)
            return _Recorded(self, name, kind, call, attributes, trace_id, parent[36:52])
        own = (
            f"00-{parent[3:35]}-{new_span_id(self._rng)}-00"
            if parent
            else new_unsampled_traceparent(self._rng)
        )
        return _Unrecorded(
            self, name, kind, _with_parent(call, own), attributes, parent[36:52] or "-"
        )

    @property
    def dropped(self) -> int:
        """Spans that were lost."""
        return self._recorded.dropped

    def notes(self) -> tuple[str, ...]:
        """What is being lost without failing calls, for receipts."""
        failing = self._exporter is not None and self._exporter.failing
        return ("telemetry unavailable: spans are dropped and counted",) if failing else ()

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """A sum that only grows; make it once and keep it."""
        return (
            self._exporter.meter.create_counter(name, unit, description)
            if self._exporter
            else _NOTHING
        )

    def histogram(self, name: str, unit: str, description: str) -> Histogram:
        """A distribution; make it once and keep it."""
        return (
            self._exporter.meter.create_histogram(name, unit, description)
            if self._exporter
            else _NOTHING
        )

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """A value read at each export, from another thread: `read` must be quick and only look."""
        if self._exporter:
            self._exporter.add_gauge(name, unit, description, read)

    def account(self, call: Call, receipt: common_pb2.Receipt) -> None:
        """Count a call's money, tokens and savings, where anybody will be told of them."""
        if self._exporter is not None:
            self.accounts.add(call, receipt)

    def take(self, ended: EndedSpan) -> None:
        """Keep an ended span for export, or count it as dropped when the ring is full or nothing
        exports.
        """
        if self._exporter is None or len(self.ring) >= self._recorded.max_queued_spans:
            self._recorded.dropped += 1
        else:
            self.ring.append(ended)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`, and stop.

        Blocks: call it from a thread, or leave it to the process's exit.
        """
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            atexit.unregister(self.close)
            exporter.stop(timeout_s)


@functools.lru_cache(maxsize=1024)
def is_background(name: str) -> bool:
    """Whether spans of this name begin no trace of their own: what services tell each other all the
    time.
    """
    return any(part in name for part in BACKGROUND_RPCS)


def _with_parent(call: Call, traceparent: str) -> Call:
    return Call(
        call.principal,
        call.priority,
        call.run_id,
        call.step,
        call.deadline_s,
        traceparent,
        call.tracestate,
    )


class _Recorded:
    """A span that goes to the ring when it ends."""

    recorded = True
    __slots__ = (
        "_attributes",
        "_code",
        "_kind",
        "_name",
        "_parent_id",
        "_reason",
        "_start_ns",
        "_telemetry",
        "call",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        kind: str,
        call: Call,
        attributes: Own | None,
        trace_id: str = "",
        parent_id: str = "",
    ) -> None:
        parent = call.traceparent
        self._telemetry = telemetry
        self._name = name
        self._kind = kind
        self._attributes = attributes if attributes is not None else {}
        self._code = self._reason = ""
        self._parent_id = parent_id if trace_id else parent[36:52]
        self.call = _with_parent(
            call, f"00-{trace_id or parent[3:35]}-{new_span_id(telemetry._rng)}-01"
        )
        self._start_ns = time.perf_counter_ns()

    def set(self, key: str, value: Value) -> None:
        self._attributes[key] = value

    def fail(self, code: str, reason: str = "") -> None:
        self._code, self._reason = code, reason

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        self._telemetry.account(self.call, receipt)
        self._attributes.update(receipt_attributes(receipt))

    def __enter__(self) -> _Recorded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = code_of(error)
        telemetry, own = self._telemetry, self.call.traceparent
        telemetry.durations.add(self._name, self._kind, self._code, end_ns - self._start_ns)
        telemetry.take(
            EndedSpan(
                own[3:35],
                own[36:52],
                self._parent_id,
                self._name,
                self._kind,
                self._start_ns,
                end_ns,
                self._code,
                self._reason,
                "",
                self._attributes,
                self.call,
            )
        )


class _Unrecorded:
    """A span that is only timed; when it fails or is slow it is kept after all, under the nearest
    parent that has an id.
    """

    recorded = False
    __slots__ = (
        "_attributes",
        "_code",
        "_kind",
        "_name",
        "_parent_id",
        "_reason",
        "_start_ns",
        "_telemetry",
        "call",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        name: str,
        kind: str,
        call: Call,
        attributes: Own | None,
        parent_id: str,
    ) -> None:
        self._telemetry = telemetry
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._parent_id = parent_id
        self._code = self._reason = ""
        self.call = call
        self._start_ns = time.perf_counter_ns()

    def set(self, key: str, value: Value) -> None:
        if self._attributes is None:
            self._attributes = {}
        self._attributes[key] = value

    def fail(self, code: str, reason: str = "") -> None:
        self._code, self._reason = code, reason

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        self._telemetry.account(self.call, receipt)

    def __enter__(self) -> _Unrecorded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = code_of(error)
        self._telemetry.durations.add(self._name, self._kind, self._code, end_ns - self._start_ns)
        if self._code or end_ns - self._start_ns > self._telemetry._slow_ns:
            self._keep(end_ns)

    def _keep(self, end_ns: int) -> None:
        own = self.call.traceparent
        first = self._parent_id.strip(
            "-"
        )  # "-" marks the first span of a new trace, an id one under a remote parent
        span_id = own[36:52] if self._parent_id else new_span_id(self._telemetry._rng)
        parent_id = first if self._parent_id else own[36:52]
        kept = "error" if self._code else "slow"
        self._telemetry.take(
            EndedSpan(
                own[3:35],
                span_id,
                parent_id,
                self._name,
                self._kind,
                self._start_ns,
                end_ns,
                self._code,
                self._reason,
                kept,
                self._attributes,
                self.call,
            )
        )


def code_of(error: BaseException) -> str:
    """The gRPC code name of an exception that leaves a span; nothing of its text is kept."""
    name = type(error).__name__
    if name in ("CancelledError", "GeneratorExit"):
        return "CANCELLED"
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED"
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return str(getattr(code, "name", "INTERNAL"))


class _Nothing:
    """Counter and histogram that forget what they are told."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


_NOTHING = _Nothing()


class _NoTelemetry(Telemetry):
    def __init__(self) -> None:
        super().__init__("")

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        return NoSpan(call)


NO_TELEMETRY: Telemetry = _NoTelemetry()
"""Records nothing; for tests and tools."""
