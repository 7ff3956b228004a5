"""TelemetryService: what our own sender records can be queried, and bad requests are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault

from .conftest import RunningTelemetry

EMBED = "penstock.api.router.v1.RouterService/Embed"
COMPUTE = "penstock.api.batcher.v1.BatcherService/Compute"


@pytest.fixture
async def recorded(telemetry: RunningTelemetry) -> RunningTelemetry:
    """Telemetry that holds one request of two services, with its receipt."""
    router = Telemetry("router", telemetry.address, interval_s=0.05)
    batcher = Telemetry("batcher", telemetry.address, interval_s=0.05)
    call = Call(Principal("acme"), run_id="run-7", step="plan")
    receipt = common_pb2.Receipt(request_id="r1", model="m")
    receipt.cost.paid_microusd = 30
    receipt.cost.full_price_microusd = 100
    receipt.savings.add(technique="exact_cache", microusd=70, saved_ms=12.5)
    receipt.usage.input_tokens = 500
    with router.span(EMBED, call, kind="server") as root:
        with (
            router.span(COMPUTE, root.call, kind="client") as client,
            batcher.span(COMPUTE, client.call, kind="server") as server,
        ):
            server.set("rows", 3)
        root.receipt(receipt)
    await asyncio.gather(asyncio.to_thread(router.close), asyncio.to_thread(batcher.close))
    return telemetry


async def test_a_request_is_found_with_its_run_and_cost(recorded: RunningTelemetry) -> None:
    found = await recorded.peer.call("SearchTraces", pb.SearchTracesRequest(tenant="acme"), Call())
    (row,) = found.traces
    assert (row.name, row.model) == ("RouterService/Embed", "m")
    assert (row.run_id, row.step) == ("run-7", "plan")
    assert list(row.services) == ["batcher", "router"]
    assert (row.paid_microusd, row.saved_microusd) == (30, 70)


async def test_a_trace_is_shown_by_the_first_digits_of_its_identifier(
    recorded: RunningTelemetry,
) -> None:
    found = await recorded.peer.call("SearchTraces", pb.SearchTracesRequest(), Call())
    request = pb.GetTraceRequest(trace_id=found.traces[0].trace_id[:8])
    trace = await recorded.peer.call("GetTrace", request, Call())
    assert [span.depth for span in trace.spans] == [0, 1, 2]
    assert sum(part.duration_ns for part in trace.critical_path) == trace.spans[0].duration_ns
    assert trace.spans[2].attributes["rpc.method"] == COMPUTE


async def test_savings_add_up_to_the_full_price(recorded: RunningTelemetry) -> None:
    savings = await recorded.peer.call("GetSavings", pb.GetSavingsRequest(), Call())
    assert (savings.calls, savings.paid_microusd, savings.full_price_microusd) == (1, 30, 100)
    assert [(part.technique, part.microusd) for part in savings.rows] == [("exact_cache", 70)]
    assert (savings.unattributed_microusd, savings.unbalanced) == (0, 0)


async def test_costs_are_added_up_by_run(recorded: RunningTelemetry) -> None:
    costs = await recorded.peer.call("GetCosts", pb.GetCostsRequest(by=pb.COST_BY_RUN), Call())
    (row,) = costs.rows
    assert (row.key, row.calls, row.paid_microusd) == ("run-7", 1, 30)
    assert [(part.technique, part.microusd) for part in row.savings] == [("exact_cache", 70)]


async def test_the_overview_has_a_row_for_each_service(recorded: RunningTelemetry) -> None:
    overview = await recorded.peer.call("GetOverview", pb.GetOverviewRequest(), Call())
    assert [row.service for row in overview.rows] == ["batcher", "router"]
    assert all(row.p99_ms > 0 and row.success == 1 for row in overview.rows)


@pytest.mark.parametrize(
    ("rpc", "request_", "field"),
    [
        ("GetTrace", pb.GetTraceRequest(trace_id="xyz"), "trace_id"),
        ("GetTrace", pb.GetTraceRequest(trace_id="abc"), "trace_id"),
        ("SearchTraces", pb.SearchTracesRequest(limit=5000), "limit"),
        (
            "GetCriticalPath",
            pb.GetCriticalPathRequest(from_percentile=80, to_percentile=20),
            "from_percentile",
        ),
        (
            "GetSavings",
            pb.GetSavingsRequest(window=pb.Window(from_unix_ms=10, to_unix_ms=5)),
            "window.from_unix_ms",
        ),
    ],
)
async def test_a_bad_request_is_refused_with_the_field_that_is_wrong(
    telemetry: RunningTelemetry, rpc: str, request_: Any, field: str
) -> None:
    with pytest.raises(Fault) as caught:
        await telemetry.peer.call(rpc, request_, Call())
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.field == field


async def test_an_unknown_trace_is_not_found(telemetry: RunningTelemetry) -> None:
    with pytest.raises(Fault) as caught:
        await telemetry.peer.call("GetTrace", pb.GetTraceRequest(trace_id="ab" * 16), Call())
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
