"""The command `penstock` against a telemetry service in this process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.command import internal_token, run
from penstock.cli.top import sparkline
from penstock.cli.waterfall import waterfall
from penstock.hosting.life import serving
from penstock.telemetry.build import build
from penstock.telemetry.settings import TelemetrySettings
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import TOKEN
from rich.console import Console


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
        yield ["--address", address, "--token", TOKEN]


async def test_top_shows_one_screen(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(run, [*options, "top", "--once"]) == 0
    screen = capsys.readouterr().out
    assert "service" in screen
    assert "no open incident" in screen


@pytest.mark.parametrize(
    ("trace_id", "message"), [("ab" * 16, "no such trace"), ("xyz", "hexadecimal")]
)
async def test_a_trace_that_cannot_be_shown_ends_with_status_1_and_the_reason(
    options: list[str], capsys: pytest.CaptureFixture[str], trace_id: str, message: str
) -> None:
    assert await asyncio.to_thread(run, [*options, "trace", trace_id]) == 1
    assert message in capsys.readouterr().out


def test_the_token_comes_from_the_environment_else_from_the_stacks_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_INTERNAL_TOKEN", raising=False)
    assert internal_token() == ""
    (tmp_path / "internal-token").write_text("from-file\n")
    assert internal_token() == "from-file"
    monkeypatch.setenv("PENSTOCK_INTERNAL_TOKEN", "from-environment")
    assert internal_token() == "from-environment"


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
