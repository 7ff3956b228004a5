"""What the rest of the code sees of telemetry: spans and instruments. Recording only; exporting.py sends, in the background.

A span that is not recorded costs about a microsecond and hands its caller's Call on unchanged; one that is recorded makes a new
Call whose traceparent it is. In production a span that was not to be recorded still is, by itself, when it fails or is slow.
"""

from __future__ import annotations

import atexit
import functools
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from penstock.core.call import Call
from penstock.core.semantics import BACKGROUND
from penstock.core.telemetry_counts import Accounts, Durations, receipt_attributes
from penstock.core.tracing import (
    LENGTH,
    SAMPLED_ENDINGS,
    RateSampler,
    is_sampled,
    is_valid,
    new_span_id,
    new_trace_id,
    new_unsampled,
)

if TYPE_CHECKING:
    from penstock.api.common.v1 import common_pb2
    from penstock.core.exporting import Exporter

Value = str | int | float | bool
Attributes = Mapping[str, Value]
Own = dict[str, Value]
"""Attributes that are handed over with their ownership."""

TRACES_PER_S = 50.0
"""Recorded traces a second of one process at most, in production."""


class Span(Protocol):
    """A span that is open; `call` is the caller's Call with this span as parent, to be handed to the next hop."""

    @property
    def call(self) -> Call: ...

    @property
    def recorded(self) -> bool:
        """Whether attributes are worth their making: False for a span that is kept only should it fail or be slow."""

    def set(self, key: str, value: Value) -> None:
        """Set an attribute; names come from penstock.core.semantics."""

    def fail(self, code: str, reason: str = "") -> None:
        """Say how it failed: gRPC code name and, where there is one, the stable reason. An exception that leaves says it too."""

    def receipt(self, receipt: common_pb2.Receipt) -> None:
        """Take a call's account: counted always, written on the span where it is recorded."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Histogram(Protocol):
    """A distribution."""

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Ended(NamedTuple):
    """A span that has ended, as it waits in the ring for the exporter. Times are perf_counter nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    code: str
    reason: str
    kept: str
    attributes: Attributes | None
    call: Call


class Telemetry:
    """Makes spans and instruments for one service; `kind` of a span is internal, server or client.

    Args:
        service: `service.name` of everything recorded here.
        endpoint: `host:port` or `unix:/path` that takes OTLP over gRPC; empty counts and drops.
        profile: development records every trace; production at most `traces_per_s`, and every error and slow span.
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
        capacity: int = 65_536,
        interval_s: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        self.service = service
        self.instance = instance
        self.endpoint = endpoint
        self.capacity = capacity
        self.ring: deque[Ended] = deque()
        self.dropped = 0
        self.durations = Durations()
        self.accounts = Accounts()
        self._edge = edge
        self._rng = rng or random.Random()
        rate = 0.0 if not endpoint else float("inf") if profile == "development" else traces_per_s
        self._sampler = RateSampler(rate)
        self._slow_ns = int(slow_s * 1e9)
        self._exporter: Exporter | None = None
        if endpoint:
            from penstock.core.exporting import Exporter  # the SDK is loaded only where something is exported

            self._exporter = Exporter(self, interval_s)
            self._exporter.start()
            atexit.register(self.close)

    def span(self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None) -> Span:
        """Open a span under the call's trace, or a new trace; use it in a `with`. `attributes` belong to the span from then on."""
        parent = call.traceparent
        if len(parent) == LENGTH and not (self._edge and kind == "server"):
            if parent[-1] in SAMPLED_ENDINGS:
                return _Recorded(self, name, kind, call, attributes)
            return _Unrecorded(self, name, kind, call, attributes, "")
        return self._entering(name, call, kind, attributes)

    def _entering(self, name: str, call: Call, kind: str, attributes: Own | None) -> Span:
        """The first span of a trace here: continue a valid parent's trace or begin one, and decide whether to record it."""
        parent = call.traceparent if call.traceparent and is_valid(call.traceparent) else ""
        asked = is_sampled(parent) if parent else not in_background(name)
        recorded = asked and self._sampler.take(time.monotonic())
        if recorded:
            trace_id = parent[3:35] if parent else new_trace_id(self._rng)
            return _Recorded(self, name, kind, call, attributes, trace_id, parent[36:52])
        own = f"00-{parent[3:35]}-{new_span_id(self._rng)}-00" if parent else new_unsampled(self._rng)
        return _Unrecorded(self, name, kind, _with_parent(call, own), attributes, parent[36:52] or "-")

    def notes(self) -> tuple[str, ...]:
        """What is being lost without failing calls, for receipts."""
        failing = self._exporter is not None and self._exporter.failing
        return ("telemetry unavailable: spans are dropped and counted",) if failing else ()

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """A sum that only grows; make it once and keep it."""
        return self._exporter.meter.create_counter(name, unit, description) if self._exporter else _NOTHING

    def histogram(self, name: str, unit: str, description: str) -> Histogram:
        """A distribution; make it once and keep it."""
        return self._exporter.meter.create_histogram(name, unit, description) if self._exporter else _NOTHING

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """A value read at each export, from another thread: `read` must be quick and only look."""
        if self._exporter:
            self._exporter.add_gauge(name, unit, description, read)

    def account(self, call: Call, receipt: common_pb2.Receipt) -> None:
        """Count a call's money, tokens and savings, where anybody will be told of them."""
        if self._exporter is not None:
            self.accounts.add(call, receipt)

    def take(self, ended: Ended) -> None:
        """Keep an ended span for export, or count it as dropped when the ring is full or nothing exports."""
        if self._exporter is None or len(self.ring) >= self.capacity:
            self.dropped += 1
        else:
            self.ring.append(ended)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`, and stop. Blocks: call it from a thread, or leave it to the process's exit."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            atexit.unregister(self.close)
            exporter.stop(timeout_s)


@functools.lru_cache(maxsize=1024)
def in_background(name: str) -> bool:
    """Whether spans of this name begin no trace of their own: what services tell each other all the time."""
    return any(part in name for part in BACKGROUND)


def _with_parent(call: Call, traceparent: str) -> Call:
    return Call(call.principal, call.priority, call.run_id, call.step, call.deadline_s, traceparent, call.tracestate)


class _Recorded:
    """A span that goes to the ring when it ends."""

    recorded = True
    __slots__ = ("_attributes", "_code", "_kind", "_name", "_parent_id", "_reason", "_start_ns", "_telemetry", "call")

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
        self.call = _with_parent(call, f"00-{trace_id or parent[3:35]}-{new_span_id(telemetry._rng)}-01")
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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = code_of(error)
        telemetry, own = self._telemetry, self.call.traceparent
        telemetry.durations.add(self._name, self._kind, self._code, end_ns - self._start_ns)
        telemetry.take(
            Ended(
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
    """A span that is only timed; when it fails or is slow it is kept after all, under the nearest parent that has an id."""

    recorded = False
    __slots__ = ("_attributes", "_code", "_kind", "_name", "_parent_id", "_reason", "_start_ns", "_telemetry", "call")

    def __init__(
        self, telemetry: Telemetry, name: str, kind: str, call: Call, attributes: Own | None, parent_id: str
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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_ns = time.perf_counter_ns()
        if error is not None and not self._code:
            self._code = code_of(error)
        self._telemetry.durations.add(self._name, self._kind, self._code, end_ns - self._start_ns)
        if self._code or end_ns - self._start_ns > self._telemetry._slow_ns:
            self._keep(end_ns)

    def _keep(self, end_ns: int) -> None:
        own = self.call.traceparent
        first = self._parent_id.strip("-")  # "-" marks the first span of a new trace, an id one under a remote parent
        span_id = own[36:52] if self._parent_id else new_span_id(self._telemetry._rng)
        parent_id = first if self._parent_id else own[36:52]
        kept = "error" if self._code else "slow"
        self._telemetry.take(
            Ended(
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
    """Span, counter and histogram that forget what they are told."""

    recorded = False
    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, key: str, value: Value) -> None: ...

    def fail(self, code: str, reason: str = "") -> None: ...

    def receipt(self, receipt: common_pb2.Receipt) -> None: ...

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


_NOTHING = _Nothing(Call())


class _NoTelemetry(Telemetry):
    def __init__(self) -> None:
        super().__init__("")

    def span(self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None) -> Span:
        return _Nothing(call)


NO_TELEMETRY: Telemetry = _NoTelemetry()
"""Records nothing; for tests and tools."""
