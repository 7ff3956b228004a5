"""The bounded window of traces: open while their spans arrive, packed once they have settled.

Nothing here knows gRPC.

An open trace holds the sender's messages as they are; a settled one is compressed with a dictionary
of the names that spans repeat.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as semantics
from penstock.telemetry.spans.spans import Source, SpanView, read_span
from penstock.telemetry.window.retention import EVICTED_FIRST

DICTIONARY = (
    " ".join(
        str(value)
        for name, value in sorted(vars(semantics).items())
        if name.isupper() and isinstance(value, str)
    ).encode()
    + b"penstock.api.RouterService/Embed BatcherService/Compute InferenceService/Compute grpc OK"
)

Raw = tuple[trace_pb2.Span, int]


@dataclass(slots=True)
class TraceSummary:
    """A settled trace in one row; what searching looks at."""

    trace_id: bytes
    name: str
    service: str
    start_ns: int
    duration_ns: int
    spans: int
    services: tuple[str, ...]
    error: str
    tenant: str = ""
    run_id: str = ""
    step: str = ""
    model: str = ""
    cache: str = ""
    paid_microusd: int = 0
    saved_microusd: int = 0
    kept: str = ""


@dataclass(slots=True)
class _Open:
    last_s: float
    first_s: float
    spans: dict[bytes, Raw] = field(default_factory=dict)


@dataclass(slots=True)
class _Settled:
    summary: TraceSummary
    packed: bytes


class TraceWindow:
    """Traces of the recent past, at most `max_bytes` of them packed."""

    def __init__(self, max_bytes: int, grace_s: float = 3.0, max_open_s: float = 30.0) -> None:
        self._max_bytes = max_bytes
        self._grace_s = grace_s
        self._longest_open_s = max_open_s
        self._open: OrderedDict[bytes, _Open] = OrderedDict()
        self._settled: OrderedDict[bytes, _Settled] = OrderedDict()
        self._queues: dict[str, deque[bytes]] = {kept: deque() for kept in EVICTED_FIRST}
        self._sources: list[Source] = []
        self._source_index: dict[Source, int] = {}
        self._swept_s = 0.0
        self.packed_bytes = 0
        self.held_spans = 0
        self.released_traces = 0
        self.duplicate_spans = 0

    def source(self, source: Source) -> int:
        """The number under which a sender's spans are stored."""
        if source not in self._source_index:
            self._source_index[source] = len(self._sources)
            self._sources.append(source)
        return self._source_index[source]

    def add(self, span: trace_pb2.Span, source: int, now: float) -> bool:
        """Take a span; False when it was here already."""
        trace_id = span.trace_id
        trace = self._open.get(trace_id)
        if trace is None:
            trace = self._open[trace_id] = _Open(now, now)
            if trace_id in self._settled:
                trace.spans = self._take_back(trace_id)
        elif trace.last_s != now:
            trace.last_s = now
            self._open.move_to_end(trace_id)
        if span.span_id in trace.spans:
            self.duplicate_spans += 1
            return False
        trace.spans[span.span_id] = (span, source)
        self.held_spans += 1
        return True

    def _take_back(self, trace_id: bytes) -> dict[bytes, Raw]:
        """A settled trace whose spans go on arriving becomes open again."""
        settled = self._settled.pop(trace_id)
        self.packed_bytes -= len(settled.packed)
        return {span.span_id: (span, source) for span, source in _unpack(settled.packed)}

    def due(self, now: float, most: int) -> list[bytes]:
        """Open traces that are quiet, at most `most`; at times also those that have been open too
        long.
        """
        ready: list[bytes] = []
        for trace_id, trace in self._open.items():
            if len(ready) >= most or trace.last_s > now - self._grace_s:
                break
            ready.append(trace_id)
        if now - self._swept_s >= self._longest_open_s / 6:
            self._swept_s = now
            ready += [
                key
                for key, trace in self._open.items()
                if trace.first_s <= now - self._longest_open_s
            ]
        return list(dict.fromkeys(ready))

    def settle(self, trace_id: bytes, summary: TraceSummary) -> None:
        """Pack an open trace and let older ones go where the window is full."""
        trace = self._open.pop(trace_id)
        packed = _pack(trace.spans)
        self._settled[trace_id] = _Settled(summary, packed)
        self._queues[summary.kept].append(trace_id)
        self.packed_bytes += len(packed)
        while self.packed_bytes > self._max_bytes and len(self._settled) > 1:
            self._release_one()

    def _release_one(self) -> None:
        for kept in EVICTED_FIRST:
            queue = self._queues[kept]
            while queue:
                trace_id = queue.popleft()
                settled = self._settled.get(trace_id)
                if settled is not None and settled.summary.kept == kept:
                    del self._settled[trace_id]
                    self.packed_bytes -= len(settled.packed)
                    self.held_spans -= settled.summary.spans
                    self.released_traces += 1
                    return

    def spans(self, trace_id: bytes) -> list[SpanView]:
        """The spans of a trace, open or settled; empty when it is not here."""
        if (trace := self._open.get(trace_id)) is not None:
            return [read_span(span, self._sources[source]) for span, source in trace.spans.values()]
        if (settled := self._settled.get(trace_id)) is not None:
            return [
                read_span(span, self._sources[source]) for span, source in _unpack(settled.packed)
            ]
        return []

    def find(self, prefix: str) -> list[bytes]:
        """Identifiers that begin with these hexadecimal digits, two at most."""
        found: list[bytes] = []
        for ids in (self._open, self._settled):
            for trace_id in reversed(ids):
                if trace_id.hex().startswith(prefix) and len(found) < 2:
                    found.append(trace_id)
        return found

    def summaries(self) -> Iterator[TraceSummary]:
        """Settled traces, the last settled first."""
        for settled in reversed(self._settled.values()):
            yield settled.summary

    def open_ids(self) -> list[bytes]:
        """Open traces, the last heard of first."""
        return list(reversed(self._open))

    def summary(self, trace_id: bytes) -> TraceSummary | None:
        """The row of a settled trace."""
        settled = self._settled.get(trace_id)
        return settled.summary if settled else None

    def __len__(self) -> int:
        return len(self._open) + len(self._settled)


def _pack(spans: dict[bytes, Raw]) -> bytes:
    """Spans by source in one compressed message; the source's number stands in the schema
    address.
    """
    by_source: dict[int, list[trace_pb2.Span]] = {}
    for span, source in spans.values():
        by_source.setdefault(source, []).append(span)
    data = trace_pb2.TracesData()
    for source, members in by_source.items():
        data.resource_spans.add(schema_url=str(source)).scope_spans.add().spans.extend(members)
    packer = zlib.compressobj(1, zdict=DICTIONARY)
    return packer.compress(data.SerializeToString()) + packer.flush()


def _unpack(packed: bytes) -> Iterator[Raw]:
    data = trace_pb2.TracesData.FromString(zlib.decompressobj(zdict=DICTIONARY).decompress(packed))
    for resource in data.resource_spans:
        for span in resource.scope_spans[0].spans:
            yield span, int(resource.schema_url)
