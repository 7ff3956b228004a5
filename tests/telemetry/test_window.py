"""The window of traces: what settles, what is let go first, late spans, and the terminal's pictures
of it.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.cli.command import internal_token, run
from penstock.cli.top import sparkline, top_screen
from penstock.service.clock import SystemClock
from penstock.telemetry.detection.quality import REFERENCE, QualityMeasure
from penstock.telemetry.spans.spans import Source, SpanTree
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.analysis import summarise_trace
from penstock.telemetry.window.traces import TraceWindow
from penstock.testkit.server import TOKEN
from rich.console import Console

from .conftest import Running, running


def made(trace: int, span: int, parent: int = 0, name: str = "Shop/Order") -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=span.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=10**9,
        end_time_unix_nano=2 * 10**9,
    )


def settle(window: TraceWindow, trace: int, kept: str = "") -> None:
    trace_id = trace.to_bytes(16, "big")
    summary = summarise_trace(trace_id, SpanTree(window.spans(trace_id)))
    summary.kept = kept
    window.settle(trace_id, summary)


def test_a_trace_is_due_when_it_is_quiet_or_open_too_long() -> None:
    window = TraceWindow(1 << 20, grace_s=3.0, max_open_s=30.0)
    source = window.source(Source("shop", "1"))
    window.add(made(1, 1), source, 0.0)
    window.add(made(2, 1), source, 2.0)
    assert window.due(2.9, 10) == []
    assert window.due(3.0, 10) == [(1).to_bytes(16, "big")]
    settle(window, 1)
    for second in range(3, 40):
        window.add(made(2, second), source, float(second))
    assert window.due(40.0, 10) == [(2).to_bytes(16, "big")], (
        "it never was quiet, and is looked at all the same"
    )


def test_spans_survive_packing_and_a_late_one_joins_them() -> None:
    window = TraceWindow(1 << 20)
    source = window.source(Source("shop", "1"))
    window.add(made(1, 1), source, 0.0)
    settle(window, 1)
    assert not window.add(made(1, 1), source, 1.0) and window.duplicate_spans == 1
    assert window.add(made(1, 2, 1, "Shop/Late"), source, 1.0)
    spans = window.spans((1).to_bytes(16, "big"))
    assert {span.name for span in spans} == {"Shop/Order", "Shop/Late"} and spans[
        0
    ].source == Source("shop", "1")
    settle(window, 1)
    assert window.held_spans == 2 and len(window) == 1
    assert window.find("0000000000000000") == [(1).to_bytes(16, "big")]


def test_when_it_is_full_the_least_worth_keeping_go_first() -> None:
    window = TraceWindow(700)
    source = window.source(Source("shop", "1"))
    kinds = ["error", "", "slow", "", "reservoir", "anomalous"]
    for number in range(60):
        window.add(made(number + 1, 1), source, float(number))
        settle(window, number + 1, kinds[number % 6])
    left = [summary.kept for summary in window.summaries()]
    assert window.packed_bytes <= 700 and window.released_traces == 60 - len(left)
    assert set(left) == {"error"} or left.count("error") > left.count("")
    assert "reservoir" not in left or "" not in left


@pytest.mark.parametrize(
    ("shift", "drifted"), [(0.0, False), (0.2, False), (1.5, True), (-1.5, True)]
)
def test_a_measure_drifts_by_more_than_a_quarter_of_its_deviation(
    shift: float, drifted: bool
) -> None:
    measure = QualityMeasure()
    for number in range(REFERENCE):
        measure.add(10.0 + number % 5)
    for number in range(200):
        measure.add(10.0 + number % 5 + shift * 1.41)
    assert measure.drifted is drifted
    for number in range(2000):
        measure.add(10.0 + number % 5)
    assert not measure.drifted, "and is well again when it is as it was"


def test_a_spark_line_has_a_bar_a_value_and_its_highest_is_full() -> None:
    assert sparkline([0.0, 1.0, 2.0])[-1] == "█" and len(sparkline([0.0, 1.0, 2.0])) == 3
    assert sparkline([]) == ""
    assert set(sparkline([0.0, 0.0])) == {"▁"}


async def test_the_terminal_shows_services_requests_and_money(telemetry: Running) -> None:
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(await top_screen(telemetry.peer))  # type: ignore[arg-type]
    assert "service" in buffer.getvalue() and "no open incident" in buffer.getvalue()


async def test_the_store_writes_its_own_figures_for_scrapers(tmp_path: Path) -> None:
    store = TelemetryStore(SystemClock(), 1 << 20)
    store._write_state()
    store._write_state()
    (series,) = store.series.find("penstock.incidents.open")
    assert len(series.points) == 1, "not oftener than every few seconds"
    async with running(tmp_path, telemetry_window_bytes=1 << 20) as service:
        assert service.address


def test_the_commands_token_is_the_one_that_the_stack_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_INTERNAL_TOKEN", raising=False)
    assert internal_token() == ""
    (tmp_path / "internal-token").write_text("kept\n")
    assert internal_token() == "kept"
    monkeypatch.setenv("PENSTOCK_INTERNAL_TOKEN", "given")
    assert internal_token() == "given"


async def test_the_command_draws_a_trace_and_says_what_it_cannot(
    telemetry: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--address", telemetry.address, "--token", TOKEN]
    assert await asyncio.to_thread(run, [*told, "top", "--once"]) == 0
    assert "no open incident" in capsys.readouterr().out
    assert await asyncio.to_thread(run, [*told, "trace", "ab" * 16]) == 1
    assert "no such trace" in capsys.readouterr().out
    assert await asyncio.to_thread(run, [*told, "trace", "xyz"]) == 1
    assert "hexadecimal" in capsys.readouterr().out
