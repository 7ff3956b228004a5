"""The bounded window of traces: open while their spans arrive, packed once they have settled.

An open trace holds its spans twice: read, and as the bytes that will be packed. A trace settles
when no span of it has come for a few seconds: its spans are then compressed, and only its summary
can be searched. When the packed traces exceed the window, the least worth keeping go first, see
`penstock.telemetry.window.retention`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.telemetry.spans.spans import Source, SpanView, Value, read_span
from penstock.telemetry.window.packing import PackedSpans, Packer, unpack
from penstock.telemetry.window.retention import EVICTION_ORDER
from penstock.telemetry.window.settled_traces import TraceSummary


class _StoredSpan(NamedTuple):
    view: SpanView
    source: int
    """Its number."""
    data: bytes
    """The serialised OTLP span."""


ROW_BYTES = 700
"""About what a settled trace takes in memory beside its packed spans: its row, its places in the
tables."""
MAX_SOURCES = 50_000
"""Processes whose spans are told apart; those of any further ones are shown as OTHER_SOURCES'."""
OTHER_SOURCES = Source("(others)", "")


@dataclass(slots=True)
class _OpenTrace:
    first_s: float
    last_s: float
    size_bytes: int = 0
    spans: dict[bytes, _StoredSpan] = field(default_factory=dict)


@dataclass(slots=True)
class _PackedTrace:
    summary: TraceSummary
    spans: PackedSpans

    @property
    def size_bytes(self) -> int:
        return ROW_BYTES + len(self.spans.data)


class TraceWindow:
    """Traces of the recent past.

    Args:
        max_bytes: of packed traces with their rows, and of open ones as they came; the open traces
            that have been quiet longest settle early where these are more.
        quiet_s: a trace settles when no span of it has come for so long.
        max_open_s: a trace that is never quiet settles after so long.
    """

    def __init__(self, max_bytes: int, quiet_s: float = 3.0, max_open_s: float = 30.0) -> None:
        self._max_bytes = max_bytes
        self._quiet_s = quiet_s
        self._max_open_s = max_open_s
        self._open: OrderedDict[bytes, _OpenTrace] = OrderedDict()
        """The one that a span came for last stands last."""
        self._packed: OrderedDict[bytes, _PackedTrace] = OrderedDict()
        """In order of settling."""
        self._eviction_queues: dict[str, OrderedDict[bytes, None]] = {
            kept: OrderedDict() for kept in EVICTION_ORDER
        }
        """The packed traces by why they are kept, in order of settling."""
        self._sources: list[Source] = []
        self._source_numbers: dict[Source, int] = {}
        self._packer = Packer()
        self._swept_s = 0.0
        self.packed_bytes = 0
        self.open_bytes = 0
        self.held_spans = 0
        self.released_traces = 0
        self.duplicate_spans = 0

    def source_number(self, source: Source) -> int:
        """The number under which a source's spans are stored."""
        if source not in self._source_numbers and len(self._sources) >= MAX_SOURCES:
            source = OTHER_SOURCES
        number = self._source_numbers.get(source)
        if number is None:
            number = self._source_numbers[source] = len(self._sources)
            self._sources.append(source)
        return number

    def add(
        self,
        span: trace_pb2.Span,
        source: int,
        now_s: float,
        attributes: dict[str, Value] | None = None,
    ) -> bool:
        """Store a span that came at `now_s` (monotonic); False when it was here already.

        Args:
            source: its number, see `source_number`.
            attributes: those of the span, where they have been read.
        """
        trace = self._open_trace(span.trace_id, now_s)
        span_id = span.span_id
        if span_id in trace.spans:
            self.duplicate_spans += 1
            return False
        view = read_span(span, self._sources[source], attributes)
        data = span.SerializeToString()
        trace.spans[span_id] = _StoredSpan(view, source, data)
        trace.size_bytes += len(data)
        self.open_bytes += len(data)
        self.held_spans += 1
        return True

    @property
    def is_full(self) -> bool:
        """Whether open traces take as much as they may: no span should be added before some
        settle.
        """
        return self.open_bytes >= self._max_bytes

    def _open_trace(self, trace_id: bytes, now_s: float) -> _OpenTrace:
        """The open trace that a span came for; a settled one becomes open again."""
        trace = self._open.get(trace_id)
        if trace is None:
            trace = self._open[trace_id] = _OpenTrace(now_s, now_s)
            packed = self._take_packed(trace_id)
            if packed is not None:
                for stored in self._unpacked(packed.spans):
                    trace.spans[bytes.fromhex(stored.view.span_id)] = stored
                    trace.size_bytes += len(stored.data)
                self.open_bytes += trace.size_bytes
        elif trace.last_s != now_s:
            trace.last_s = now_s
            self._open.move_to_end(trace_id)
        return trace

    def due_to_settle(self, now_s: float, limit: int) -> list[bytes]:
        """Up to `limit` open traces that are quiet; now and then those open for too long.

        Where open traces take more than half of what they may, those quiet for longest too.
        """
        due: list[bytes] = []
        excess_bytes = self.open_bytes - self._max_bytes // 2
        for trace_id, trace in self._open.items():
            is_quiet = trace.last_s <= now_s - self._quiet_s
            if len(due) >= limit or not (is_quiet or excess_bytes > 0):
                break
            due.append(trace_id)
            excess_bytes -= trace.size_bytes
        if now_s - self._swept_s >= self._max_open_s / 6:
            self._swept_s = now_s
            opened_before = now_s - self._max_open_s
            due += [key for key, trace in self._open.items() if trace.first_s <= opened_before]
        return list(dict.fromkeys(due))

    def settle(self, trace_id: bytes, summary: TraceSummary) -> None:
        """Pack an open trace, and release others where the window is full."""
        trace = self._open.pop(trace_id)
        self.open_bytes -= trace.size_bytes
        spans = ((stored.source, stored.data) for stored in trace.spans.values())
        packed = _PackedTrace(summary, self._packer.pack(summary.name, spans))
        self._packed[trace_id] = packed
        self._eviction_queues[summary.kept][trace_id] = None
        self.packed_bytes += packed.size_bytes
        while self.packed_bytes > self._max_bytes and len(self._packed) > 1:
            self._release_one()

    def _take_packed(self, trace_id: bytes) -> _PackedTrace | None:
        """Take a packed trace out of the window; None where it is not in it."""
        packed = self._packed.pop(trace_id, None)
        if packed is not None:
            self.packed_bytes -= packed.size_bytes
            del self._eviction_queues[packed.summary.kept][trace_id]
        return packed

    def _release_one(self) -> None:
        """Release the oldest trace of the kind least worth keeping."""
        queue = next(queue for kept in EVICTION_ORDER if (queue := self._eviction_queues[kept]))
        packed = self._take_packed(next(iter(queue)))
        if packed is not None:
            self.held_spans -= packed.summary.spans
            self.released_traces += 1

    def spans(self, trace_id: bytes) -> list[SpanView]:
        """The spans of a trace, open or settled; empty when it is not here."""
        if (trace := self._open.get(trace_id)) is not None:
            return [stored.view for stored in trace.spans.values()]
        packed = self._packed.get(trace_id)
        return [stored.view for stored in self._unpacked(packed.spans)] if packed else []

    def _unpacked(self, packed: PackedSpans) -> Iterator[_StoredSpan]:
        for source, data in unpack(packed):
            span = trace_pb2.Span.FromString(data)
            yield _StoredSpan(read_span(span, self._sources[source]), source, data)

    def find(self, prefix: str) -> list[bytes]:
        """Up to two trace identifiers that begin with these hexadecimal digits."""
        found: list[bytes] = []
        for ids in (self._open, self._packed):
            for trace_id in reversed(ids):
                if trace_id.hex().startswith(prefix) and len(found) < 2:
                    found.append(trace_id)
        return found

    def summaries(self) -> Iterator[TraceSummary]:
        """Settled traces, the last settled first."""
        for packed in reversed(self._packed.values()):
            yield packed.summary

    def open_ids(self) -> list[bytes]:
        """Open traces, the one that a span came for last first."""
        return list(reversed(self._open))

    def summary(self, trace_id: bytes) -> TraceSummary | None:
        """The row of a settled trace; None while it is open or when it is not here."""
        packed = self._packed.get(trace_id)
        return packed.summary if packed else None

    def __len__(self) -> int:
        return len(self._open) + len(self._packed)
