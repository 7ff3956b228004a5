"""The telemetry of one service as the rest of its code sees it: open spans, make instruments.

Nothing is sent here: the thread of `penstock.otel.export` sends what is recorded. The two kinds of
span, and what each costs, are explained in `penstock.otel.spans`.
"""

from __future__ import annotations

import atexit
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from penstock.otel.background import background_root_kind
from penstock.otel.counts import DurationHistograms
from penstock.otel.exporters import Exporters
from penstock.otel.recorder import EndedSpan, Recorder
from penstock.otel.spans import (
    NEW_TRACE,
    SAMPLED_LAST_DIGITS,
    TRACEPARENT_LENGTH,
    RecordedSpan,
    UnrecordedSpan,
    is_sampled,
    is_valid,
    new_span_id,
    new_trace_id,
    new_unsampled_traceparent,
    with_traceparent,
)
from penstock.rpc.call import Call
from penstock.rpc.spans import IN_PROCESS, Attributes, NoSpan, Own, Span
from penstock.service.tls_files import TlsSource

if TYPE_CHECKING:
    from penstock.otel.export import Exporter
    from penstock.otel.export_source import ExportSource

TRACES_PER_S = 10.0
"""Traces that one process samples in a second at most, in production."""


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Histogram(Protocol):
    """A distribution of values."""

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


class RateLimitingSampler:
    """Samples at most so many new traces a second: a token bucket that holds one second's worth.

    Args:
        traces_per_s: infinite samples every trace.
    """

    def __init__(self, traces_per_s: float) -> None:
        self._traces_per_s = traces_per_s
        self._tokens = traces_per_s
        self._refilled_s = 0.0

    def should_sample(self, now_s: float) -> bool:
        """Whether to sample the trace that begins at `now_s` (monotonic seconds); takes a token."""
        if math.isinf(self._traces_per_s):
            return True
        refill = (now_s - self._refilled_s) * self._traces_per_s
        self._tokens = min(max(self._traces_per_s, 1.0), self._tokens + refill)
        self._refilled_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Telemetry:
    """Opens spans and makes instruments for one service. Owner: whoever made it closes it.

    Args:
        service: `service.name` of everything recorded here.
        endpoint: `host:port` or `unix:/path` that takes OTLP over gRPC; empty: nothing is exported.
        profile: `development` samples every trace and exports metrics at every second export;
            `production` exports metrics every ten seconds, samples at most `traces_per_s`, and
            exports every failed and every slow span beside them.
        edge: True for a service with a public port, where a caller's sampled flag is not obeyed but
            counts towards `traces_per_s`.
        instance: `service.instance.id`; empty: host name and process identifier.
        process: `service.name` of the metrics of the process (CPU, memory, threads); empty:
            `service`; None: another service of the process exports them.
        traces_per_s: traces sampled in a second at most, in production.
        slow_s: a span that took longer is exported even when its trace is not sampled.
        max_queued_spans: ended spans that may wait for export; more are dropped and counted.
        interval_s: seconds between exports.
        rng: source of identifiers.
        tls: own certificate and whom the receiver's must come from; None for plaintext.
        exporters: those of the process, where it has other services; None: one of its own.
    """

    def __init__(
        self,
        service: str,
        endpoint: str = "",
        *,
        profile: str = "development",
        edge: bool = False,
        instance: str = "",
        process: str | None = "",
        traces_per_s: float = TRACES_PER_S,
        slow_s: float = 1.0,
        max_queued_spans: int = 65_536,
        interval_s: float = 1.0,
        rng: random.Random | None = None,
        tls: TlsSource | None = None,
        exporters: Exporters | None = None,
    ) -> None:
        self._rng = rng or random.Random()
        self._recorder = Recorder(max_queued_spans, slow_s, self._rng)
        self._is_edge = edge
        self._sampler = RateLimitingSampler(_sampling_rate(endpoint, profile, traces_per_s))
        self._exporter: Exporter | None = None
        self._source: ExportSource | None = None
        if endpoint:
            # The SDK is loaded only where something is exported.
            from penstock.otel.export_source import BUSY_METRICS_S, ExportSource, resource_of

            resource = resource_of(service, instance)
            of_process = None if process is None else resource_of(process or service, instance)
            apart_s = 0.0 if profile == "development" else BUSY_METRICS_S
            self._source = ExportSource(self._recorder, resource, of_process, apart_s)
            self._exporter = (exporters or Exporters()).to(endpoint, interval_s, tls)
            self._recorder.is_exporting = True
            self._exporter.join(self._source)
            atexit.register(self.close)

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        """Open a span under the call's trace, or under a new trace; use it in a `with`.

        Args:
            name: such as `penstock.api.router.v1.RouterService/Embed`.
            call: the call that the span belongs to; its `traceparent` names the parent.
            kind: `internal`, `server`, `client`, or `in_process`: a client whose server is in this
                process. The server's span says as much, so the client's is exported only when it
                fails or is slow before it has `arrived`; it is timed as any client's.
            attributes: owned by the span from then on.
        """
        parent = call.traceparent
        is_recorded = kind != IN_PROCESS
        kind = "client" if kind == IN_PROCESS else kind
        if len(parent) == TRACEPARENT_LENGTH and not (self._is_edge and kind == "server"):
            if is_recorded and parent[-1] in SAMPLED_LAST_DIGITS:
                return RecordedSpan(self._recorder, name, kind, call, attributes)
            return UnrecordedSpan(self._recorder, name, kind, call, attributes)
        return self._first_span(name, call, kind, attributes)

    def _first_span(self, name: str, call: Call, kind: str, attributes: Own | None) -> Span:
        """Open the first span of a trace in this process, and decide whether it is sampled.

        A valid parent's trace is continued, any other `traceparent` is ignored.
        """
        parent = call.traceparent if call.traceparent and is_valid(call.traceparent) else ""
        wanted = is_sampled(parent) if parent else not background_root_kind(name)
        parent_id = parent[36:52]
        if wanted and self._sampler.should_sample(time.monotonic()):
            trace_id = parent[3:35] if parent else new_trace_id(self._rng)
            return RecordedSpan(self._recorder, name, kind, call, attributes, trace_id, parent_id)
        if parent:
            own = f"00-{parent[3:35]}-{new_span_id(self._rng)}-00"
        else:
            own = new_unsampled_traceparent(self._rng)
        return UnrecordedSpan(
            self._recorder,
            name,
            kind,
            with_traceparent(call, own),
            attributes,
            parent_id or NEW_TRACE,
        )

    @property
    def ended_spans(self) -> Sequence[EndedSpan]:
        """The spans that wait for export, the earliest first."""
        return tuple(self._recorder.ended_spans)

    @property
    def dropped_spans(self) -> int:
        """The number of spans that were not exported and never will be."""
        return self._recorder.dropped_spans

    @property
    def durations(self) -> DurationHistograms:
        """How long spans took, sampled or not."""
        return self._recorder.durations

    def notes(self) -> tuple[str, ...]:
        """For receipts: what is being lost although calls succeed."""
        failing = self._exporter is not None and self._exporter.is_failing
        return ("telemetry unavailable: spans are dropped and counted",) if failing else ()

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """A sum that only grows; make it once and keep it."""
        if self._source is None:
            return _NO_INSTRUMENT
        return self._source.counter(name, unit, description)

    def histogram(self, name: str, unit: str, description: str) -> Histogram:
        """A distribution; make it once and keep it."""
        if self._source is None:
            return _NO_INSTRUMENT
        return self._source.histogram(name, unit, description)

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        """Export what `read` returns at each export.

        `read` is called in the exporter's thread: it must return at once and change nothing.
        """
        if self._source is not None:
            self._source.add_gauge(name, unit, description, read)

    def close(self, timeout_s: float = 2.0) -> None:
        """Export what waits, for at most `timeout_s`, and stop; 0 discards what waits.

        Blocks: call it from a thread, or leave it to the process's exit.
        """
        exporter, self._exporter = self._exporter, None
        source, self._source = self._source, None
        if exporter is None or source is None:
            return
        self._recorder.is_exporting = False
        if timeout_s <= 0.0:
            self._recorder.ended_spans.clear()
        atexit.unregister(self.close)
        exporter.leave(source, timeout_s)


def _sampling_rate(endpoint: str, profile: str, traces_per_s: float) -> float:
    """Traces to sample in a second."""
    if not endpoint:
        return 0.0
    return float("inf") if profile == "development" else traces_per_s


class _NoInstrument:
    """A counter and histogram without effect."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...

    def record(self, amount: float, attributes: Attributes | None = None) -> None: ...


_NO_INSTRUMENT = _NoInstrument()


class _NoTelemetry(Telemetry):
    def __init__(self) -> None:
        super().__init__("")

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Own | None = None
    ) -> Span:
        return NoSpan(call)


NO_TELEMETRY: Telemetry = _NoTelemetry()
"""Records nothing; for tests and tools."""
