"""What tenants and operators are shown by telemetry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually

from .conftest import RunningTelemetry

EMBED = "penstock.api.router.v1.RouterService/Embed"
OPERATOR, ACME, OTHER = Call(), Call(Principal("acme")), Call(Principal("other"))


@pytest.fixture
async def trace_id(telemetry: RunningTelemetry) -> str:
    """A trace of `acme` that telemetry holds."""
    router = Telemetry("router", telemetry.address, interval_s=0.05)
    with router.span(EMBED, ACME, kind="server"):
        pass
    await asyncio.to_thread(router.close)

    async def found() -> str:
        rows = await telemetry.peer.call("SearchTraces", pb.SearchTracesRequest(), OPERATOR)
        return rows.traces[0].trace_id if rows.traces else ""

    return await eventually(found)


async def refusal(telemetry: RunningTelemetry, method: str, request: Any, call: Call) -> Reason:
    with pytest.raises(Fault) as refused:
        await telemetry.peer.call(method, request, call)
    return refused.value.reason


@pytest.mark.threat("cross-tenant read: traces")
async def test_a_trace_is_shown_to_its_tenant_and_to_operators(
    telemetry: RunningTelemetry, trace_id: str
) -> None:
    request = pb.GetTraceRequest(trace_id=trace_id)
    for call in (ACME, OPERATOR):
        assert (await telemetry.peer.call("GetTrace", request, call)).spans
    assert await refusal(telemetry, "GetTrace", request, OTHER) is Reason.NOT_FOUND
    beginning = pb.GetTraceRequest(trace_id=trace_id[:8])
    assert await refusal(telemetry, "GetTrace", beginning, ACME) is Reason.INVALID_ARGUMENT


@pytest.mark.threat("cross-tenant read: searches, costs and savings")
@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("SearchTraces", pb.SearchTracesRequest, "traces"),
        ("GetCosts", pb.GetCostsRequest, "rows"),
        ("GetSavings", pb.GetSavingsRequest, "rows"),
    ],
)
async def test_tenants_search_their_own(
    telemetry: RunningTelemetry, trace_id: str, method: str, request_: Any, field: str
) -> None:
    assert not getattr(await telemetry.peer.call(method, request_(), OTHER), field)
    foreign = request_(tenant="acme")
    assert await refusal(telemetry, method, foreign, OTHER) is Reason.PERMISSION_DENIED
    own = await telemetry.peer.call(method, foreign, ACME)
    assert own == await telemetry.peer.call(method, foreign, OPERATOR)


@pytest.mark.threat("cross-tenant read: critical paths")
async def test_critical_paths_are_those_of_ones_own_traces(
    telemetry: RunningTelemetry, trace_id: str
) -> None:
    request = pb.GetCriticalPathRequest()
    counts = [
        (await telemetry.peer.call("GetCriticalPath", request, call)).traces
        for call in (OPERATOR, ACME, OTHER)
    ]
    assert counts == [1, 1, 0]


@pytest.mark.threat("cross-tenant read: sums over all tenants")
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetServiceGraph", pb.GetServiceGraphRequest()),
        ("GetLatencies", pb.GetLatenciesRequest()),
        ("GetOverview", pb.GetOverviewRequest()),
        ("GetMetrics", pb.GetMetricsRequest()),
        ("GetQuality", pb.GetQualityRequest()),
        ("ListIncidents", pb.ListIncidentsRequest()),
        ("GetIntake", pb.GetIntakeRequest()),
    ],
)
async def test_what_is_summed_over_all_tenants_is_for_operators(
    telemetry: RunningTelemetry, method: str, request_: Any
) -> None:
    await telemetry.peer.call(method, request_, OPERATOR)
    assert await refusal(telemetry, method, request_, ACME) is Reason.PERMISSION_DENIED


@pytest.mark.threat("cross-tenant read: watched requests and incidents")
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("WatchRequests", pb.WatchRequestsRequest(tenant="acme")),
        ("WatchIncidents", pb.WatchIncidentsRequest()),
    ],
)
async def test_others_requests_and_incidents_cannot_be_watched(
    telemetry: RunningTelemetry, method: str, request_: Any
) -> None:
    with pytest.raises(Fault) as refused:
        async for _ in telemetry.peer.stream(method, request_, OTHER):
            pass
    assert refused.value.reason is Reason.PERMISSION_DENIED
