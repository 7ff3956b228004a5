"""The timeline of an agent run: its calls over all its traces, what it waited for, its own time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel import attributes as semconv
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.telemetry.spans.spans import Source, SpanTree
from penstock.telemetry.window.run_timelines import (
    RunTimeline,
    calls_of_run,
    timeline_of,
)
from penstock.testkit.eventually import eventually

from .conftest import RunningTelemetry, span

RUN = "run-" + "a" * 26
CHILD, SIBLING = f"{RUN}.{'b' * 10}", f"{RUN}.{'c' * 10}"
EMBED = "penstock.api.router.v1.RouterService/Embed"
ROUTER, EDGE = Source("router", "r1"), Source("edge", "e1")
OPERATOR = Call()


def call(name: str, start_ns: int, end_ns: int, run_id: str = RUN, **attributes: Any) -> SpanTree:
    """A trace of one request of a run."""
    named = {semconv.RUN: run_id, semconv.TENANT: "acme", **attributes}
    plain = {key.replace(".", "__"): value for key, value in named.items()}
    return SpanTree([span(name, start_ns, end_ns, source=ROUTER, kind="server", **plain)])


def timeline(*trees: SpanTree, run_id: str = RUN, tenant: str = "") -> RunTimeline:
    found = [each for tree in trees for each in calls_of_run(b"\1" * 16, tree, run_id, tenant)]
    return timeline_of(found)


def shown(made: RunTimeline) -> dict[str, tuple[int, int, int]]:
    """Critical, overlapping and preceding idle nanoseconds by call."""
    return {
        each.call.span.span_id: (each.critical_ns, each.overlap_ns, each.gap_ns)
        for each in made.calls
    }


def test_calls_one_after_another_and_the_agents_time_between_them() -> None:
    made = timeline(call("plan", 100, 140), call("search", 150, 190))
    assert shown(made) == {"plan": (40, 0, 0), "search": (40, 0, 10)}
    assert (made.start_ns, made.end_ns, made.agent_ns) == (100, 190, 10)


def test_of_parallel_calls_the_run_waits_for_the_last_to_end() -> None:
    made = timeline(call("long", 0, 90), call("short", 10, 60), call("answer", 90, 100))
    assert shown(made) == {"long": (90, 50, 0), "short": (0, 50, 0), "answer": (10, 0, 0)}
    assert made.agent_ns == 0


def test_a_call_that_begins_while_another_runs_was_not_waiting_for_it() -> None:
    made = timeline(call("slow", 0, 10), call("next", 5, 12))
    assert shown(made) == {"slow": (0, 5, 0), "next": (7, 5, 0)}
    assert made.agent_ns == 5


def test_a_cancelled_call_was_not_waited_for() -> None:
    tree = SpanTree([call("given up", 0, 50).root._replace(error="CANCELLED")])
    assert timeline(tree, call("other", 0, 40)).agent_ns == 10


def test_the_calls_of_one_trace_are_told_apart_and_background_work_is_none() -> None:
    agent = span("agent", 0, 100, kind="client", source=Source("agent", "a"))
    first = call("first", 10, 30).root._replace(parent_id="agent")
    second = call("second", 40, 90).root._replace(parent_id="agent")
    below = span("compute", 45, 80, "second", kind="server", source=Source("inference", "i"))
    poll = span("probe", 50, 60, "agent", kind="server", source=ROUTER)
    poll = poll._replace(attributes={semconv.BACKGROUND: "probe"})
    made = timeline(SpanTree([agent, first, second, below, poll]))
    assert shown(made) == {"first": (20, 0, 0), "second": (50, 0, 10)}


def test_requests_of_a_trace_whose_agent_sends_no_spans_are_told_apart() -> None:
    spans = [
        call(name, at, at + 10).root._replace(parent_id="gone")
        for at, name in ((0, "a"), (20, "b"))
    ]
    assert list(shown(timeline(SpanTree(spans)))) == ["a", "b"]


def test_a_request_through_the_edge_belongs_to_the_run_that_the_router_says() -> None:
    edge = span("POST /v1/chat/completions", 0, 100, kind="server", source=EDGE)
    routed = call("RouterService/Generate", 10, 90).root._replace(parent_id=edge.span_id)
    made = timeline(SpanTree([edge, routed]), tenant="acme")
    assert shown(made) == {"POST /v1/chat/completions": (100, 0, 0)}
    assert made.calls[0].call.summary.tenant == "acme"


def test_of_a_root_the_calls_of_its_children_are_shown_and_of_a_child_its_own() -> None:
    trees = call("own", 0, 10), call("child", 20, 30, CHILD), call("sibling", 20, 40, SIBLING)
    assert list(shown(timeline(*trees))) == ["own", "sibling", "child"]
    assert list(shown(timeline(*trees, run_id=CHILD))) == ["child"]


def test_runs_that_nobody_started_have_no_children() -> None:
    trees = call("own", 0, 10, "agent"), call("other", 20, 30, "agent.1")
    assert list(shown(timeline(*trees, run_id="agent"))) == ["own"]


times = st.tuples(st.integers(0, 60), st.integers(1, 30))


@settings(max_examples=200, deadline=None)
@given(st.lists(times, min_size=1, max_size=12))
def test_the_critical_path_and_the_agents_time_come_to_the_whole(
    drawn: list[tuple[int, int]],
) -> None:
    made = timeline(*(call(f"c{n}", at, at + length) for n, (at, length) in enumerate(drawn)))
    on_path = sum(each.critical_ns for each in made.calls)
    assert on_path + made.agent_ns == made.end_ns - made.start_ns
    for each in made.calls:
        begin, end = each.call.span.start_ns, each.call.span.end_ns
        others = [other.call.span for other in made.calls if other is not each]
        moments = range(begin, end)
        together = [at for at in moments if any(o.start_ns <= at < o.end_ns for o in others)]
        assert each.overlap_ns == len(together)
    spans = [each.call.span for each in made.calls]
    whole = range(made.start_ns, made.end_ns)
    idle = [at for at in whole if not any(s.start_ns <= at < s.end_ns for s in spans)]
    assert sum(each.gap_ns for each in made.calls) == len(idle)


async def record(telemetry: RunningTelemetry, *calls: Call) -> None:
    """Record a request of each call, one after another, and wait until all are held."""
    router = Telemetry("router", telemetry.address, interval_s=0.05)
    for number, each in enumerate(calls):
        with router.span(EMBED, each, kind="server") as recorded:
            receipt = common_pb2.Receipt(model="m", run_id=each.run_id)
            receipt.cost.paid_microusd = receipt.cost.full_price_microusd = 10 + number
            receipt.cache.outcome = common_pb2.CACHE_OUTCOME_MISS
            recorded.receipt(receipt)
    await asyncio.to_thread(router.close)

    async def are_held() -> bool:
        rows = await telemetry.peer.call("SearchTraces", pb.SearchTracesRequest(), OPERATOR)
        return len(rows.traces) >= len(calls)

    await eventually(are_held)


async def refusal(telemetry: RunningTelemetry, request: Any, by: Call = OPERATOR) -> Fault:
    with pytest.raises(Fault) as refused:
        await telemetry.peer.call("GetRunTimeline", request, by)
    return refused.value


@pytest.mark.threat("cross-tenant read: timelines of runs")
async def test_a_tenant_is_shown_the_calls_of_its_own_runs(telemetry: RunningTelemetry) -> None:
    acme, rival = (
        Call(Principal("acme"), run_id=RUN, step="plan"),
        Call(Principal("rival"), run_id=RUN),
    )
    child = acme._replace(run_id=CHILD, step="search")
    await record(telemetry, acme, child, rival)
    request = pb.GetRunTimelineRequest(run_id=RUN)
    answer = await telemetry.peer.call("GetRunTimeline", request, acme._replace(run_id=""))
    assert [(row.run_id, row.step) for row in answer.calls] == [(RUN, "plan"), (CHILD, "search")]
    assert [(row.model, row.cache, row.name) for row in answer.calls] == [
        ("m", "miss", "RouterService/Embed")
    ] * 2
    assert (answer.paid_microusd, answer.saved_microusd) == (21, 0)
    critical_ns = sum(row.critical_ns for row in answer.calls)
    assert critical_ns + answer.agent_ns == answer.duration_ns
    everybodys = await telemetry.peer.call("GetRunTimeline", request, OPERATOR)
    assert len(everybodys.calls) == 3
    other = await refusal(telemetry, request, Call(Principal("other")))
    assert (other.reason, other.field) == (Reason.NOT_FOUND, "run_id")


async def test_a_limit_leaves_out_the_latest_traces_and_says_so(
    telemetry: RunningTelemetry,
) -> None:
    acme = Call(Principal("acme"), run_id="r")
    await record(telemetry, acme, acme._replace(step="2"), acme._replace(step="3"))
    request = pb.GetRunTimelineRequest(run_id="r", limit=2)
    answer = await telemetry.peer.call("GetRunTimeline", request, OPERATOR)
    assert [row.step for row in answer.calls] == ["", "2"]
    assert answer.omitted_traces == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetRunTimelineRequest(), "run_id"),
        (pb.GetRunTimelineRequest(run_id="x" * 129), "run_id"),
        (pb.GetRunTimelineRequest(run_id="r", limit=5_001), "limit"),
    ],
)
async def test_a_bad_field_is_named(telemetry: RunningTelemetry, request_: Any, field: str) -> None:
    fault = await refusal(telemetry, request_)
    assert (fault.reason, fault.field) == (Reason.INVALID_ARGUMENT, field)
