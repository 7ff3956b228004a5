"""The limiter on a real store: holds, leases, what expires, what is refused and why, and what the
loss of the store means.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.output_estimates import MIN_SAMPLES
from penstock.limiter.rules import LimitsSection, windows
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.store import open_store
from pydantic import ValidationError

Limiters = Any
"""The fixture of conftest.py."""
START_S = 1_800_000_000.0
ANN = Call(Principal("acme", team="core", user="ann", key_id="k1"))
MONEY = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
}
PRICES = [
    {"name": "dear", "input_microusd_per_mtok": 1_000_000, "output_microusd_per_mtok": 2_000_000},
    {"name": "cheap", "input_microusd_per_mtok": 100_000, "output_microusd_per_mtok": 100_000},
]


async def reserve(
    limiter: LimiterServicer, name: str, cost: int, least: int = 0, **more: object
) -> pb.Decision:
    request = pb.ReserveRequest(hold_id=name, model="dear", **more)  # type: ignore[arg-type]
    request.amount.requests, request.amount.tokens, request.amount.microusd = 1, cost, cost
    request.least.microusd = request.least.tokens = least
    return (await limiter.Reserve(request, ANN)).decision


async def commit(limiter: LimiterServicer, name: str, cost: int) -> bool:
    spent = pb.Amount(requests=1, tokens=cost, microusd=cost)
    return (await limiter.Commit(pb.CommitRequest(hold_id=name, spent=spent), ANN)).settled


async def state(limiter: LimiterServicer) -> tuple[int, int]:
    row = (await limiter.GetUsage(pb.GetUsageRequest(model="dear"), ANN)).rules[0]
    return row.committed.microusd, row.held.microusd


async def test_a_hold_is_committed_once_and_repeating_books_nothing(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY])
    assert (await reserve(limiter, "a", 600)).verdict == pb.VERDICT_ALLOWED
    assert (await reserve(limiter, "a", 600)).verdict == pb.VERDICT_ALLOWED
    assert await state(limiter) == (0, 600)
    refused = await reserve(limiter, "b", 500)
    assert (refused.verdict, refused.rule) == (pb.VERDICT_BUDGET_EXHAUSTED, "month")
    assert refused.retry_after_ms == windows("month", "UTC", START_S)[1] - START_S * 1000
    assert await commit(limiter, "a", 250)
    assert not await commit(limiter, "a", 250)
    assert await state(limiter) == (250, 0)
    assert (await reserve(limiter, "b", 500)).verdict == pb.VERDICT_ALLOWED
    assert (await limiter.Release(pb.ReleaseRequest(hold_id="b"), ANN)).released
    assert not (await limiter.Release(pb.ReleaseRequest(hold_id="b"), ANN)).released
    assert await state(limiter) == (250, 0)
    assert await limiters.stores[0].verify("acme") == (4, [])


async def test_no_overshoot_from_three_limiters_at_once(limiters: Limiters) -> None:
    trio = [limiters.make([MONEY]) for _ in range(3)]
    asked = [reserve(trio[number % 3], f"h{number}", 7) for number in range(600)]
    verdicts = [decision.verdict for decision in await asyncio.gather(*asked)]
    assert verdicts.count(pb.VERDICT_ALLOWED) == 1_000 // 7
    assert await state(trio[0]) == (0, 1_000 // 7 * 7)


async def test_a_hold_that_nobody_settles_keeps_its_input_and_a_late_commit_books_the_rest(
    limiters: Limiters,
) -> None:
    limiter = limiters.make([MONEY])
    await reserve(limiter, "a", 900, least=40)
    await limiters.clock.advance(61)
    assert (await reserve(limiter, "b", 900)).verdict == pb.VERDICT_ALLOWED
    assert await state(limiter) == (40, 900)
    assert not await commit(limiter, "a", 55)
    assert await state(limiter) == (55, 900)


async def test_what_can_never_pass_says_so_and_what_passes_later_says_when(
    limiters: Limiters,
) -> None:
    rate = {
        "name": "rpm",
        "kind": "rate",
        "counts": "tokens",
        "limit": 60,
        "window": "minute",
        "burst": 10,
    }
    limiter = limiters.make([rate])
    assert (await reserve(limiter, "a", 11)).verdict == pb.VERDICT_NEVER
    assert (await reserve(limiter, "b", 10)).verdict == pb.VERDICT_ALLOWED
    later = await reserve(limiter, "c", 3)
    assert (later.verdict, later.retry_after_ms) == (pb.VERDICT_RATE_LIMITED, 3_000)
    await limiters.clock.advance(3)
    assert (await reserve(limiter, "c", 3)).verdict == pb.VERDICT_ALLOWED


async def test_all_counters_or_none(limiters: Limiters) -> None:
    roomy = {
        "name": "roomy",
        "kind": "budget",
        "counts": "tokens",
        "limit": 10_000,
        "window": "hour",
    }
    limiter = limiters.make([roomy, MONEY])
    assert (await reserve(limiter, "a", 2_000)).rule == "month"
    usage = (await limiter.GetUsage(pb.GetUsageRequest(), ANN)).rules
    assert [row.held.tokens for row in usage] == [0, 0]


async def test_an_unknown_price_is_refused_where_money_is_counted(limiters: Limiters) -> None:
    assert (
        await reserve(limiters.make([MONEY]), "a", 0, unpriced=True)
    ).verdict == pb.VERDICT_UNPRICED
    tokens = {**MONEY, "name": "tokens", "counts": "tokens"}
    assert (
        await reserve(limiters.make([tokens]), "b", 5, unpriced=True)
    ).verdict == pb.VERDICT_ALLOWED


async def test_a_refusal_says_what_would_pass(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY], PRICES)
    request = pb.ReserveRequest(hold_id="a", model="dear", output_tokens=1_000)
    request.amount.tokens, request.amount.microusd = 1_100, 100 + 2_000
    decision = (await limiter.Reserve(request, ANN)).decision
    assert decision.verdict == pb.VERDICT_NEVER
    assert decision.max_tokens_hint == (1_000 - 100 - 1) // 2
    assert decision.cheaper_model_hint == "cheap"
    request.output_tokens, request.amount.microusd = (
        decision.max_tokens_hint,
        100 + 2 * decision.max_tokens_hint,
    )
    assert (await limiter.Reserve(request, ANN)).decision.verdict == pb.VERDICT_ALLOWED


async def test_what_urgent_work_will_need_is_kept_for_it(limiters: Limiters) -> None:
    limiter = limiters.make([{**MONEY, "limit": 10_000, "window": "hour"}])
    low, critical = Call(ANN.principal, priority=1), Call(ANN.principal, priority=4)

    async def ask(name: str, call: Call, cost: int) -> int:
        amount = pb.Amount(requests=1, microusd=cost)
        return int(
            (
                await limiter.Reserve(pb.ReserveRequest(hold_id=name, amount=amount), call)
            ).decision.verdict
        )

    # Urgent work spends 40 in every minute: 2,400 of the hour's 10,000; the rest is open to all.
    for minute in range(30):
        assert await ask(f"u{minute}", critical, 40) == pb.VERDICT_ALLOWED
        await commit(limiter, f"u{minute}", 40)
        await limiters.clock.advance(60)
    shed = [await ask(f"l{number}", low, 200) for number in range(50)]
    assert shed.count(pb.VERDICT_ALLOWED) > 30
    assert set(shed[45:]) == {pb.VERDICT_SHED}
    for minute in range(25):
        assert await ask(f"v{minute}", critical, 40) == pb.VERDICT_ALLOWED
        await limiters.clock.advance(60)


async def test_expected_holds_learn_what_outputs_cost(limiters: Limiters) -> None:
    limiter = limiters.make([{**MONEY, "limit": 100_000, "holds": "expected"}])
    for number in range(40):
        await reserve(limiter, f"a{number}", 1_000, least=10)
        await commit(limiter, f"a{number}", 60)
    await reserve(limiter, "b", 1_000, least=10)
    assert await state(limiter) == (40 * 60, 60)


async def test_what_is_expected_is_learnt_by_route_and_else_by_model(limiters: Limiters) -> None:
    limiter = limiters.make([{**MONEY, "limit": 1_000_000, "holds": "expected"}])
    looks = itertools.count()

    async def held(route: str) -> int:
        name = f"look{next(looks)}"
        await reserve(limiter, name, 1_000, least=10, route=route)
        _, now = await state(limiter)
        await limiter.Release(pb.ReleaseRequest(hold_id=name), ANN)
        return now

    for number in range(MIN_SAMPLES - 1):
        await reserve(limiter, f"long{number}", 1_000, least=10, route="generate/auto")
        await commit(limiter, f"long{number}", 800)
    assert await held("generate/auto") == 1_000  # too few to tell
    for number in range(4 * MIN_SAMPLES):
        await reserve(limiter, f"short{number}", 1_000, least=10, route="generate/dear")
        await commit(limiter, f"short{number}", 60)
    # the model's own 0.9 quantile
    assert [await held(route) for route in ("generate/auto", "generate/unseen", "")] == [
        800,
        800,
        800,
    ]
    await reserve(limiter, "one more", 1_000, least=10, route="generate/auto")
    await commit(limiter, "one more", 700)
    assert (await held("generate/auto"), await held("generate/dear")) == (800, 60)


async def test_the_bound_on_overshoot_is_what_expected_holds_leave_out(limiters: Limiters) -> None:
    strict, expected = (
        limiters.make([MONEY]),
        limiters.make([{**MONEY, "limit": 100_000, "holds": "expected"}]),
    )
    for number in range(40):
        await reserve(expected, f"a{number}", 1_000, least=10)
        await commit(expected, f"a{number}", 60)
    await reserve(strict, "s", 500, least=10)
    await reserve(expected, "b", 1_000, least=10)
    assert (strict.overshoot_bound(2), expected.overshoot_bound(2)) == (0, 1_000 - 60)
    grown = pb.ExtendRequest(hold_id="b", amount=pb.Amount(requests=1, tokens=400, microusd=400))
    assert (await expected.Extend(grown, ANN)).decision.verdict == pb.VERDICT_ALLOWED
    assert expected.overshoot_bound(2) == 1_000 - 400
    await limiters.clock.advance(61)
    assert expected.overshoot_bound(2) == 0  # the hold has expired


async def test_renewals_of_a_lease_tell_when_an_alert_share_is_passed(
    limiters: Limiters, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = limiters.make([{**MONEY, "adaptive": False}])
    await lease(limiter, "l", 200)
    for spent in (200, 400, 600):
        request = pb.RenewLeaseRequest(
            lease_id="l", spent=pb.Amount(microusd=spent), wanted=pb.Amount(microusd=200)
        )
        await limiter.RenewLease(request, ANN)
    assert "limit month: 80 % of it is spent or held" not in caplog.text
    request = pb.RenewLeaseRequest(
        lease_id="l", spent=pb.Amount(microusd=790), wanted=pb.Amount(microusd=200)
    )
    await limiter.RenewLease(request, ANN)
    assert "limit month: 80 % of it is spent or held" in caplog.text


async def test_a_tag_that_is_said_twice_is_counted_once(limiters: Limiters) -> None:
    limiter = limiters.make([{**MONEY, "level": "tag"}])
    call = Call(Principal("acme", tags=("batch", "batch")))
    await limiter.Reserve(pb.ReserveRequest(hold_id="a", amount=pb.Amount(microusd=900)), call)
    assert [
        row.held.microusd for row in (await limiter.GetUsage(pb.GetUsageRequest(), call)).rules
    ] == [900]


async def test_a_drained_organisation_is_refused(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY])
    await reserve(limiter, "a", 5)
    assert await limiters.stores[0].drain("acme", True) == 1
    assert (await reserve(limiter, "b", 5)).verdict == pb.VERDICT_DRAINED
    assert await commit(limiter, "a", 5)
    await limiters.stores[0].drain("acme", False)
    assert (await reserve(limiter, "b", 5)).verdict == pb.VERDICT_ALLOWED


async def lease(
    limiter: LimiterServicer, name: str, wanted: int, least: int = 1
) -> pb.GrantLeaseResponse:
    request = pb.GrantLeaseRequest(
        lease_id=name, wanted=pb.Amount(requests=50, tokens=wanted, microusd=wanted)
    )
    request.least.microusd = least
    return await limiter.GrantLease(request, ANN)


async def test_a_lease_is_a_share_that_is_taken_at_once_and_given_back(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY])
    granted = await lease(limiter, "l", 900)
    assert granted.granted.microusd == 200  # the share of what is available
    assert granted.granted.tokens > 10**15  # nothing counts tokens
    assert await state(limiter) == (0, 200)
    spent, wanted = pb.Amount(requests=3, microusd=150), pb.Amount(requests=50, microusd=200)
    renewed = await limiter.RenewLease(
        pb.RenewLeaseRequest(lease_id="l", spent=spent, wanted=wanted), ANN
    )
    assert renewed.granted.microusd == 200
    assert await state(limiter) == (150, 200)
    again = await limiter.RenewLease(
        pb.RenewLeaseRequest(lease_id="l", spent=spent, wanted=wanted), ANN
    )
    assert again.granted.microusd == 200
    assert await state(limiter) == (150, 200)
    back = await limiter.ReturnLease(
        pb.ReturnLeaseRequest(lease_id="l", spent=pb.Amount(microusd=170)), ANN
    )
    assert back.returned.microusd == 200
    assert await state(limiter) == (170, 0)


async def test_a_lost_lease_counts_as_spent_until_it_is_returned(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY])
    await lease(limiter, "l", 900)
    await limiters.clock.advance(6)
    assert await state(limiter) == (0, 200) or await state(limiter) == (200, 0)
    assert await state(limiter) == (200, 0)
    await limiter.ReturnLease(
        pb.ReturnLeaseRequest(lease_id="l", spent=pb.Amount(microusd=30)), ANN
    )
    assert await state(limiter) == (30, 0)


async def test_a_tight_budget_is_not_leased(limiters: Limiters) -> None:
    limiter = limiters.make([MONEY])
    await reserve(limiter, "a", 920)
    await commit(limiter, "a", 920)
    granted = await lease(limiter, "l", 50)
    assert granted.reserve_each
    assert await state(limiter) == (920, 0)
    assert (await reserve(limiter, "b", 70)).verdict == pb.VERDICT_ALLOWED


async def test_without_the_store_each_rule_does_what_it_says(limiters: Limiters) -> None:
    opened = limiters.make([{**MONEY, "store_loss": "open"}])
    closed = limiters.make([{**MONEY, "store_loss": "closed"}])
    url, limiters.url = limiters.url, "unix:///nowhere.sock"
    lost_open, lost_closed = (
        limiters.make([{**MONEY, "store_loss": "open"}]),
        limiters.make([MONEY]),
    )
    assert (await reserve(lost_open, "a", 300)).verdict == pb.VERDICT_ALLOWED
    soon = ANN._replace(deadline_s=limiters.clock.monotonic() + 0.05)
    asked = pb.ReserveRequest(hold_id="b", model="dear", amount=pb.Amount(microusd=300))
    refused = (await lost_closed.Reserve(asked, soon)).decision
    assert (refused.verdict, refused.retry_after_ms) == (pb.VERDICT_STORE_UNAVAILABLE, 1_000)
    with pytest.raises(Fault, match="does not answer") as failed:
        await lost_closed.GetUsage(pb.GetUsageRequest(), ANN)
    assert failed.value.code == grpc.StatusCode.UNAVAILABLE
    limiters.url = url
    assert lost_open._store._probe is not None
    # The store is back: what passed meanwhile is booked with its commit.
    lost_open._store = opened._store
    assert await commit(lost_open, "a", 120)
    assert await state(closed) == (120, 0)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ReserveRequest(amount=pb.Amount(tokens=1)), "hold_id"),
        (pb.ReserveRequest(hold_id="x" * 129), "hold_id"),
        (pb.ReserveRequest(hold_id="a", amount=pb.Amount(tokens=-1)), "amount.tokens"),
        (pb.ReserveRequest(hold_id="a", amount=pb.Amount(microusd=10**15)), "amount.microusd"),
        (pb.ReserveRequest(hold_id="a", least=pb.Amount(requests=-5)), "least.requests"),
        (pb.ReserveRequest(hold_id="a", route="x" * 129), "route"),
    ],
)
async def test_bad_requests_name_the_field_and_hold_nothing(
    limiters: Limiters, request_: pb.ReserveRequest, field: str
) -> None:
    limiter = limiters.make([MONEY])
    with pytest.raises(Fault) as failed:
        await limiter.Reserve(request_, ANN)
    assert (failed.value.code, failed.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    with pytest.raises(Fault, match="organisation"):
        await limiter.Reserve(pb.ReserveRequest(hold_id="a"), Call())
    assert await state(limiter) == (0, 0)


def test_a_bad_file_is_refused_with_every_error() -> None:
    bad = [
        {"name": "a", "kind": "rate", "counts": "tokens", "limit": 5, "calendar": True},
        {"name": "b", "kind": "budget", "counts": "dollars", "limit": -1, "time_zone": "Mars/Base"},
    ]
    with pytest.raises(ValidationError) as failed:
        LimitsSection.model_validate({"rules": bad})
    assert {error["loc"][1:3] for error in failed.value.errors()} == {
        (0,),
        (1, "counts"),
        (1, "limit"),
        (1, "time_zone"),
    }
    twice = {"name": "a", "kind": "rate", "counts": "tokens", "limit": 5}
    with pytest.raises(ValidationError, match="name stands twice: a"):
        LimitsSection.model_validate({"rules": [twice, twice]})


@pytest.mark.parametrize(
    ("unit", "zone", "at", "hours"),
    [
        ("day", "Europe/Berlin", 1_774_746_000, 23),  # 29 March 2026: the clocks go forward
        ("day", "Europe/Berlin", 1_792_900_000, 25),  # 25 October 2026: and back
        ("day", "UTC", 1_774_746_000, 24),
        ("week", "UTC", 1_774_746_000, 168),
        ("month", "UTC", 1_772_400_000, 744),
    ],
)
def test_calendar_windows_are_as_long_as_the_calendar_says(
    unit: str, zone: str, at: int, hours: int
) -> None:
    start, end, following = windows(unit, zone, at)  # type: ignore[arg-type]
    assert start <= at * 1000 < end < following
    assert (end - start) / 3_600_000 == hours


async def test_a_store_that_comes_back_is_found_without_anybody_waiting(limiters: Limiters) -> None:
    limiter, store = limiters.make([{**MONEY, "store_loss": "open"}]), limiters.stores[-1]
    real, store.client = store.client, open_store("unix:///nowhere.sock", retries=0)
    assert (await reserve(limiter, "a", 5)).verdict == pb.VERDICT_ALLOWED
    await store.client.aclose()
    store.client = real
    while store._probe is not None:
        await limiters.clock.advance(1.0)
        await real.ping()
    await reserve(limiter, "b", 7)
    assert await state(limiter) == (0, 7)
    assert await commit(limiter, "a", 3)
    assert await state(limiter) == (3, 7)
