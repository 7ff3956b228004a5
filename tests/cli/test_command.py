"""The command `penstock` against a telemetry service in this process."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.timeline import run_summary, run_timeline
from penstock.cli.top import sparkline
from penstock.cli.waterfall import waterfall
from penstock.hosting.life import serving
from penstock.telemetry.build import build
from penstock.telemetry.settings import TelemetrySettings
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import TOKEN
from rich.console import Console
from running_command import run_command


@pytest.fixture
async def options(tmp_path: Path) -> AsyncIterator[list[str]]:
    """Command-line options for a running telemetry service."""
    settings = TelemetrySettings(
        listen="127.0.0.1:0",
        internal_token=TOKEN,
        prometheus_listen="",
        otlp_http_listen="",
        home=tmp_path,
        grace_s=0,
    )
    async with serving(build(settings, outside_for_tests(settings)), settings) as address:
        yield ["--telemetry", address, "--token", TOKEN]


async def test_top_shows_one_screen(options: list[str]) -> None:
    ended = await run_command("top", "--once", *options)
    assert ended.status == 0
    assert "service" in ended.out
    assert "no open incident" in ended.out


async def test_top_as_json_has_every_part(options: list[str]) -> None:
    parts = json.loads((await run_command(*options, "top", "--json")).out)
    assert parts.keys() == {"services", "requests", "incidents", "savings"}
    assert parts["incidents"] == {"incidents": []}


@pytest.mark.parametrize(
    ("trace_id", "message"), [("ab" * 16, "no such trace"), ("xyz", "hexadecimal")]
)
async def test_a_trace_that_cannot_be_shown_ends_with_status_1_and_the_reason(
    options: list[str], trace_id: str, message: str
) -> None:
    ended = await run_command("trace", trace_id, *options)
    assert ended.status == 1
    assert message in ended.error
    assert ended.error.count("\n") == 1


async def test_where_no_trace_is_held_the_list_says_so(options: list[str]) -> None:
    ended = await run_command("trace", "--errors", "--slower-than", "5", *options)
    assert ended.status == 0
    assert ended.out == "no such trace is held\n"


async def test_listed_traces_as_json(options: list[str]) -> None:
    ended = await run_command("trace", "--json", *options)
    assert json.loads(ended.out) == {"traces": []}


def test_a_sparkline_has_a_block_a_value_and_the_highest_is_full() -> None:
    assert sparkline([0.0, 1.0, 2.0]) == "▁▄█"
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "▁▁"


def test_a_waterfall_shows_where_each_span_lies_and_its_share_of_the_critical_path() -> None:
    root = pb.Span(
        span_id="a", service="router", name="RouterService/Embed", kind="server", waited_on=True
    )
    root.start_unix_ns = 1_000_000
    root.duration_ns = 8_000_000
    root.critical_ns = 2_000_000
    child = pb.Span(
        span_id="b", service="batcher", name="BatcherService/Compute", waited_on=True, depth=1
    )
    child.start_unix_ns = 3_000_000
    child.duration_ns = 6_000_000
    child.critical_ns = 6_000_000
    child.error = "INTERNAL"
    trace = pb.GetTraceResponse(spans=[root, child], error_origin_span_id="b")
    trace.critical_path.add(span_id="a", duration_ns=2_000_000)
    trace.critical_path.add(span_id="b", duration_ns=6_000_000)

    buffer = io.StringIO()
    Console(file=buffer, width=120).print(waterfall(trace, width=8))

    *_, root_line, child_line = buffer.getvalue().rstrip().splitlines()
    assert root_line.split() == ["router", "Embed", "←", "████████", "8.00", "25%"]
    assert child_line.split() == ["batcher", "Compute", "◆", "INTERNAL", "██████", "6.00", "75%"]
    assert child_line.index("█") - root_line.index("█") == 2


def test_a_runs_timeline_fits_80_columns_and_shows_what_it_waited_for() -> None:
    run_id = "run-" + "a" * 26
    ms = 1_000_000
    timeline = pb.GetRunTimelineResponse(duration_ns=100 * ms, agent_ns=20 * ms, paid_microusd=300)
    timeline.calls.add(
        run_id=run_id,
        step="a step with a very long name",
        name="RouterService/GenerateStream",
        duration_ns=50 * ms,
        critical_ns=50 * ms,
        cache="semantic_hit",
        paid_microusd=300,
    )
    timeline.calls.add(
        run_id=f"{run_id}.bbbbbbbbbb",
        step="search",
        name="RouterService/Embed",
        offset_ns=70 * ms,
        gap_ns=20 * ms,
        duration_ns=30 * ms,
        critical_ns=30 * ms,
        error="UNAVAILABLE",
    )
    timeline.calls.add(run_id=run_id, name="RouterService/Embed", offset_ns=75 * ms, duration_ns=ms)
    buffer = io.StringIO()
    Console(file=buffer, width=80).print(run_timeline(timeline))
    head, plan, gap, search, aside = buffer.getvalue().splitlines()
    assert head.split() == ["step", "call", "time", "ms", "path", "cache", "cost"]
    assert max(map(len, buffer.getvalue().splitlines())) <= 80
    assert plan.split()[-5:] == ["█████████", "50.0", "50%", "semantic", "$0.000300"]
    assert gap.split() == ["(agent)", "░░░▋", "20.0"]
    assert search.startswith("bbbb:search")
    assert search.split()[-3:] == ["30.0", "30%", "$0.000000"]
    assert aside.split()[-3:] == ["1.0", "·", "$0.000000"]
    assert run_summary(timeline) == (
        "3 calls in 0.10 s, 20% of it the agent's own · $0.000300 paid, $0.000000 saved"
    )
