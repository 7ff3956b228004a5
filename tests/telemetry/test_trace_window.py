"""The window of traces: what settles, what is released first, late spans."""

from __future__ import annotations

from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.service.clock import SystemClock
from penstock.telemetry.spans.spans import Source, SpanTree
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.settled_traces import summarise_trace
from penstock.telemetry.window.traces import ROW_BYTES, TraceWindow

from .otlp import otlp_span

SHOP = Source("shop", "1")


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def span(trace: int, number: int = 1, parent: int = 0) -> trace_pb2.Span:
    return otlp_span(number, parent, trace_id(trace))


def settle(window: TraceWindow, trace: int, kept: str = "") -> None:
    summary = summarise_trace(trace_id(trace), SpanTree(window.spans(trace_id(trace))))
    summary.kept = kept
    window.settle(trace_id(trace), summary)


def test_a_trace_is_due_when_no_span_of_it_came_for_a_while() -> None:
    window = TraceWindow(1 << 20, quiet_s=3.0, max_open_s=30.0)
    source = window.source_number(SHOP)
    window.add(span(1), source, 0.0)
    window.add(span(2), source, 2.0)
    assert window.due_to_settle(2.9, 10) == []
    assert window.due_to_settle(3.0, 10) == [trace_id(1)]


def test_a_trace_that_is_never_quiet_is_due_when_open_for_too_long() -> None:
    window = TraceWindow(1 << 20, quiet_s=3.0, max_open_s=30.0)
    source = window.source_number(SHOP)
    for second in range(1, 40):
        window.add(span(1, second), source, float(second))
    assert window.due_to_settle(40.0, 10) == [trace_id(1)]


def test_spans_survive_packing() -> None:
    window = TraceWindow(1 << 20)
    window.add(span(1), window.source_number(SHOP), 0.0)
    settle(window, 1)
    (packed,) = window.spans(trace_id(1))
    assert (packed.name, packed.source) == ("span 1", SHOP)


def test_a_late_span_joins_its_settled_trace() -> None:
    window = TraceWindow(1 << 20)
    source = window.source_number(SHOP)
    window.add(span(1), source, 0.0)
    settle(window, 1)
    assert not window.add(span(1), source, 1.0), "it is there already"
    assert window.add(span(1, 2, parent=1), source, 1.0)
    settle(window, 1)
    assert {found.name for found in window.spans(trace_id(1))} == {"span 1", "span 2"}
    assert (window.duplicate_spans, window.held_spans, len(window)) == (1, 2, 1)


def test_a_trace_is_found_by_the_first_digits_of_its_identifier() -> None:
    window = TraceWindow(1 << 20)
    window.add(span(1), window.source_number(SHOP), 0.0)
    assert window.find("0000000000000000") == [trace_id(1)]
    assert window.find("ff") == []


def test_a_full_window_releases_the_traces_least_worth_keeping_first() -> None:
    window = TraceWindow(14 * ROW_BYTES)
    source = window.source_number(SHOP)
    kinds = ["error", "", "slow", "", "reservoir", "anomalous"]
    for number in range(60):
        window.add(span(number + 1), source, float(number))
        settle(window, number + 1, kinds[number % 6])
    left = [summary.kept for summary in window.summaries()]
    assert window.packed_bytes <= 14 * ROW_BYTES
    assert window.released_traces == 60 - len(left)
    assert left.count("error") == 10, "all of the kind most worth keeping"
    assert not {"", "reservoir", "anomalous"} & set(left)


def test_the_stores_own_metrics_are_written_every_few_seconds_at_most() -> None:
    store = TelemetryStore(SystemClock(), 1 << 20)
    store.write_own_metrics()
    store.write_own_metrics()
    (series,) = store.series.find("penstock.incidents.open")
    assert len(series.points) == 1
