"""Recording: which spans are exported, with which status, under which parent; what a full queue and
an absent receiver cost.

Nothing listens at the endpoint, and the first export is an hour away, so that ended spans stay in
the queue where the tests look at them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.otel.counts import Accounts, DurationHistograms, bucket_bounds_s, bucket_index
from penstock.otel.export_source import IDLE_METRICS_S, MetricsExported
from penstock.otel.spans import format_traceparent, is_valid
from penstock.otel.telemetry import NO_TELEMETRY, RateLimitingSampler, Telemetry
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import unavailable

SAMPLED = format_traceparent(0xA, 0xB, True)
UNSAMPLED = format_traceparent(0xA, 0xB, False)
MakeTelemetry = Callable[..., Telemetry]


@pytest.fixture
def make_telemetry() -> Iterator[MakeTelemetry]:
    """Makes telemetry that exports to nobody, and closes it at the end."""
    made: list[Telemetry] = []

    def make(**options: Any) -> Telemetry:
        telemetry = Telemetry(
            "test", "127.0.0.1:1", interval_s=3600, rng=random.Random(1), **options
        )
        made.append(telemetry)
        return telemetry

    yield make
    for telemetry in made:
        telemetry.close(0.0)


@pytest.fixture
def telemetry(make_telemetry: MakeTelemetry) -> Telemetry:
    return make_telemetry()


def test_a_child_has_its_parents_trace_and_identifier(telemetry: Telemetry) -> None:
    with (
        telemetry.span("outer", Call(run_id="r"), kind="server") as outer,
        telemetry.span("inner", outer.call),
    ):
        pass
    inner, root = telemetry.ended_spans
    assert (root.parent_id, inner.parent_id, inner.trace_id) == ("", root.span_id, root.trace_id)
    assert root.start_ns <= inner.start_ns <= inner.end_ns <= root.end_ns
    assert outer.call.run_id == "r"


@pytest.mark.parametrize(
    "traceparent",
    ["", "junk", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", SAMPLED.upper(), SAMPLED + "-x"],
)
def test_an_invalid_traceparent_begins_a_new_trace(
    make_telemetry: MakeTelemetry, traceparent: str
) -> None:
    telemetry = make_telemetry(edge=True)
    with telemetry.span("root", Call(traceparent=traceparent), kind="server") as span:
        assert is_valid(span.call.traceparent)
    (row,) = telemetry.ended_spans
    assert row.parent_id == ""


def test_the_parents_flag_decides_whether_a_span_is_exported(telemetry: Telemetry) -> None:
    with telemetry.span("no", Call(traceparent=UNSAMPLED)) as span:
        assert span.call.traceparent == UNSAMPLED
    with telemetry.span("yes", Call(traceparent=SAMPLED)):
        pass
    assert [row.name for row in telemetry.ended_spans] == ["yes"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (unavailable("gone"), "UNAVAILABLE"),
        (asyncio.CancelledError(), "CANCELLED"),
        (GeneratorExit(), "CANCELLED"),
        (TimeoutError(), "DEADLINE_EXCEEDED"),
        (ValueError("secret"), "INTERNAL"),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.ABORTED, grpc.aio.Metadata(), grpc.aio.Metadata()),
            "ABORTED",
        ),
    ],
)
def test_an_exception_has_its_code_and_its_span_is_exported_even_unsampled(
    telemetry: Telemetry, error: BaseException, code: str
) -> None:
    for parent in (SAMPLED, UNSAMPLED):
        with pytest.raises(type(error)), telemetry.span("fails", Call(traceparent=parent)):
            raise error
    sampled, unsampled = telemetry.ended_spans
    assert (sampled.code, sampled.kept_because) == (code, "")
    assert (unsampled.code, unsampled.kept_because) == (code, "error")
    assert unsampled.parent_id == f"{0xB:016x}"
    assert "secret" not in str(unsampled)


def test_a_code_that_was_set_is_not_replaced_by_an_exceptions(telemetry: Telemetry) -> None:
    with pytest.raises(ValueError), telemetry.span("fails", Call(traceparent=SAMPLED)) as span:
        span.fail("RESOURCE_EXHAUSTED", "BUDGET")
        raise ValueError
    (row,) = telemetry.ended_spans
    assert (row.code, row.reason) == ("RESOURCE_EXHAUSTED", "BUDGET")


def test_production_samples_so_many_traces_a_second(make_telemetry: MakeTelemetry) -> None:
    telemetry = make_telemetry(profile="production", traces_per_s=5, slow_s=3600.0)
    for _ in range(100):
        with telemetry.span("quick", Call()) as span, telemetry.span("child", span.call):
            pass
    assert 5 <= sum(row.name == "quick" for row in telemetry.ended_spans) <= 6


def test_production_exports_every_slow_span_under_its_parent(
    make_telemetry: MakeTelemetry,
) -> None:
    telemetry = make_telemetry(profile="production", traces_per_s=5, slow_s=0.0)
    for _ in range(20):
        with telemetry.span("slow", Call()) as span, telemetry.span("child", span.call):
            pass
    spans = telemetry.ended_spans
    root_of = {row.trace_id: row.span_id for row in spans if row.name == "slow"}
    children = [row for row in spans if row.name == "child"]
    assert len(root_of) == len(children) == 20
    assert all(row.parent_id == root_of[row.trace_id] for row in children)


@pytest.mark.threat("forged sampling decision")
def test_a_caller_cannot_make_the_edge_sample_more(make_telemetry: MakeTelemetry) -> None:
    telemetry = make_telemetry(profile="production", edge=True, traces_per_s=3)
    for _ in range(50):
        with telemetry.span("public", Call(traceparent=SAMPLED), kind="server") as span:
            pass
        assert span.call.traceparent[3:35] == SAMPLED[3:35]
    assert 3 <= len(telemetry.ended_spans) <= 4


def test_a_full_queue_drops_spans_and_counts_them(make_telemetry: MakeTelemetry) -> None:
    telemetry = make_telemetry(max_queued_spans=10)
    for _ in range(25):
        with telemetry.span("x", Call(traceparent=SAMPLED)):
            pass
    assert (len(telemetry.ended_spans), telemetry.dropped_spans) == (10, 15)


def test_durations_are_counted_whether_sampled_or_not(telemetry: Telemetry) -> None:
    for parent in (SAMPLED, UNSAMPLED):
        with telemetry.span("a/B", Call(traceparent=parent), kind="server"):
            pass
    assert telemetry.durations.rows["a/B", "server", ""].count == 2


def test_a_duration_lies_within_the_bounds_of_its_bucket() -> None:
    bounds_s = bucket_bounds_s()
    assert bounds_s == sorted(set(bounds_s))
    rng = random.Random(3)
    for _ in range(2000):
        duration_ns = int(10 ** rng.uniform(0, 11.5))
        index = bucket_index(duration_ns)
        low = bounds_s[index - 1] if index else 0.0
        high = bounds_s[index] if index < len(bounds_s) else float("inf")
        assert low <= duration_ns / 1e9 <= high


def test_accounts_add_up_and_are_restored_when_they_could_not_be_exported() -> None:
    accounts = Accounts()
    call = Call(Principal("acme"), run_id="r")
    receipt = common_pb2.Receipt(model="m", total_ms=5)
    receipt.cost.paid_microusd = 40
    receipt.cost.full_price_microusd = 100
    receipt.savings.add(technique="exact_cache", microusd=60)
    accounts.add(call, receipt)
    receipt.cost.paid_microusd = 39  # the savings no longer add up
    accounts.add(call, receipt)

    drained = accounts.drain()
    accounts.add(call, receipt)
    accounts.restore(drained)

    ((key, account),) = accounts.drain().items()
    assert (key.tenant, key.run_id, key.model) == ("acme", "r", "m")
    assert (account.calls, account.paid_microusd) == (3, 118)
    assert account.saved_microusd == {"exact_cache": 180}
    assert account.unbalanced == 2
    assert accounts.drain() == {}


def test_the_samplers_bucket_refills_with_time() -> None:
    sampler = RateLimitingSampler(2.0)
    assert [sampler.should_sample(100.0) for _ in range(3)] == [True, True, False]
    assert sampler.should_sample(100.5)
    assert not sampler.should_sample(100.6)


def test_a_traceparent_is_written_and_checked() -> None:
    assert format_traceparent(0xA, 0xB, True) == "00-" + "0" * 31 + "a-" + "0" * 15 + "b-01"
    assert is_valid(SAMPLED)
    assert not is_valid("01-" + SAMPLED[3:])


def test_no_telemetry_has_no_effect() -> None:
    with NO_TELEMETRY.span("x", Call()) as span:
        span.set("a", 1)
    NO_TELEMETRY.counter("c", "1", "d").add(1)
    NO_TELEMETRY.histogram("h", "s", "d").record(1.0)


def test_metrics_are_due_while_requests_come_and_seldom_while_none_do() -> None:
    exported = MetricsExported(requests=3, at_s=100.0)
    assert exported.is_due(4, 100.1)
    assert not exported.is_due(3, 100.0 + IDLE_METRICS_S - 0.1)
    assert exported.is_due(3, 100.0 + IDLE_METRICS_S)
    assert not exported.is_due(4, 109.9, apart_s=10.0)
    assert exported.is_due(4, 110.0, apart_s=10.0)
    assert MetricsExported().is_due(0, 0.0, apart_s=10.0), "a service that begins says so"


def test_background_work_is_no_request() -> None:
    counted = DurationHistograms()
    counted.add("penstock.api.router.v1.RegistryService/Heartbeat", "server", "", 1_000)
    counted.add("penstock.api.router.v1.RouterService/Embed", "server", "", 1_000)
    assert counted.requests() == 1
