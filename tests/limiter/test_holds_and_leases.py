"""The limiter on a real store: holds, leases, what expires, what is refused and why."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.calendar_windows import calendar_window
from penstock.limiter.counters import MICROUSD
from penstock.limiter.output_estimates import MIN_SAMPLES
from penstock.limiter.rules import LimitsSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from pydantic import ValidationError

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
START_S = 1_800_000_000.0
LOW, CRITICAL = 1, 4
PRICES = [
    {"name": "dear", "input_microusd_per_mtok": 1_000_000, "output_microusd_per_mtok": 2_000_000},
    {"name": "cheap", "input_microusd_per_mtok": 100_000, "output_microusd_per_mtok": 100_000},
]


async def test_a_hold_is_committed_once_and_repeating_books_nothing(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    for _ in range(2):
        assert (await limiter.reserve("a", 600)).verdict == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 600)
    assert await limiter.commit("a", 250)
    assert not await limiter.commit("a", 250)
    assert await limiter.usage() == (250, 0)
    assert await limiter.store.verify("acme") == (2, [])


async def test_a_released_hold_costs_nothing(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.reserve("a", 500)
    assert await limiter.release("a")
    assert not await limiter.release("a")
    assert await limiter.usage() == (0, 0)


async def test_an_exhausted_budget_says_when_its_window_ends(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.reserve("a", 600)
    refused = await limiter.reserve("b", 500)
    assert (refused.verdict, refused.rule) == (pb.VERDICT_BUDGET_EXHAUSTED, "month")
    window = calendar_window("month", "UTC", START_S)
    assert refused.retry_after_ms == window.end_ms - START_S * 1000


@pytest.mark.fault(23)
async def test_three_limiters_at_once_do_not_exceed_a_budget(limiters: Limiters) -> None:
    trio = [limiters.with_budget() for _ in range(3)]
    calls = [trio[number % 3].reserve(f"h{number}", 7) for number in range(600)]
    verdicts = [decision.verdict for decision in await asyncio.gather(*calls)]
    assert verdicts.count(pb.VERDICT_ALLOWED) == 1_000 // 7
    assert await trio[0].usage() == (0, 1_000 // 7 * 7)


async def test_an_expired_hold_keeps_its_input_and_a_late_commit_books_the_rest(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget()
    await limiter.reserve("a", 900, least=40)
    await limiters.clock.advance(61)
    assert (await limiter.reserve("b", 900)).verdict == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (40, 900)
    assert not await limiter.commit("a", 55)
    assert await limiter.usage() == (55, 900)


async def test_a_rate_says_what_never_passes_and_when_the_rest_will(limiters: Limiters) -> None:
    rate = {"name": "rpm", "kind": "rate", "counts": "tokens", "limit": 60, "burst": 10}
    limiter = limiters.make(rate)
    assert (await limiter.reserve("a", 11)).verdict == pb.VERDICT_NEVER
    assert (await limiter.reserve("b", 10)).verdict == pb.VERDICT_ALLOWED
    refused = await limiter.reserve("c", 3)
    assert (refused.verdict, refused.retry_after_ms) == (pb.VERDICT_RATE_LIMITED, 3_000)
    await limiters.clock.advance(3)
    assert (await limiter.reserve("c", 3)).verdict == pb.VERDICT_ALLOWED


async def test_a_call_is_held_on_all_counters_or_none(limiters: Limiters) -> None:
    roomy = {"name": "roomy", "kind": "budget", "counts": "microusd", "limit": 10_000}
    tight = {"name": "tight", "kind": "budget", "counts": "microusd", "limit": 1_000}
    limiter = limiters.make(roomy, tight)
    assert (await limiter.reserve("a", 2_000)).rule == "tight"
    assert await limiter.usage() == (0, 0)


async def test_a_model_without_a_price_is_refused_where_money_is_counted(
    limiters: Limiters,
) -> None:
    money, tokens = limiters.with_budget(), limiters.with_budget(name="tokens", counts="tokens")
    assert (await money.reserve("a", 0, unpriced=True)).verdict == pb.VERDICT_UNPRICED
    assert (await tokens.reserve("b", 5, unpriced=True)).verdict == pb.VERDICT_ALLOWED


async def test_a_refusal_hints_at_what_would_pass(limiters: Limiters) -> None:
    limiter = limiters.with_budget(prices=PRICES)
    request = pb.ReserveRequest(hold_id="a", model="dear", output_tokens=1_000)
    request.amount.tokens = 1_100
    request.amount.microusd = 100 + 2_000
    refused = (await limiter.service.Reserve(request, limiter.caller)).decision
    assert refused.verdict == pb.VERDICT_NEVER
    assert refused.max_tokens_hint == (1_000 - 100 - 1) // 2
    assert refused.cheaper_model_hint == "cheap"
    request.output_tokens = refused.max_tokens_hint
    request.amount.microusd = 100 + 2 * refused.max_tokens_hint
    allowed = (await limiter.service.Reserve(request, limiter.caller)).decision
    assert allowed.verdict == pb.VERDICT_ALLOWED


async def test_what_urgent_calls_will_need_is_protected_from_others(limiters: Limiters) -> None:
    limiter = limiters.with_budget(limit=10_000, window="hour")
    low = limiter.caller._replace(priority=LOW)
    critical = limiter.caller._replace(priority=CRITICAL)
    # Urgent calls spend 40 a minute, so 2,400 of the hour's 10,000; the rest is open to all.
    for minute in range(30):
        allowed = await limiter.reserve(f"u{minute}", 40, call=critical)
        assert allowed.verdict == pb.VERDICT_ALLOWED
        await limiter.commit(f"u{minute}", 40)
        await limiters.clock.advance(60)
    decisions = [await limiter.reserve(f"l{number}", 200, call=low) for number in range(50)]
    verdicts = [decision.verdict for decision in decisions]
    assert verdicts.count(pb.VERDICT_ALLOWED) > 30
    assert set(verdicts[45:]) == {pb.VERDICT_SHED}
    for minute in range(25):
        allowed = await limiter.reserve(f"v{minute}", 40, call=critical)
        assert allowed.verdict == pb.VERDICT_ALLOWED
        await limiters.clock.advance(60)


async def spend_often(
    limiter: Limiter, cost: int, times: int, route: str = "", *, prefix: str = "spent"
) -> None:
    """Reserve 1,000 and spend `cost`, again and again."""
    for number in range(times):
        await limiter.reserve(f"{prefix}{number}", 1_000, least=10, route=route)
        await limiter.commit(f"{prefix}{number}", cost)


async def test_holds_of_expected_cost_learn_what_outputs_cost(limiters: Limiters) -> None:
    limiter = limiters.with_budget(limit=100_000, holds="expected")
    await spend_often(limiter, 60, 40)
    await limiter.reserve("b", 1_000, least=10)
    assert await limiter.usage() == (40 * 60, 60)


async def test_the_expected_cost_is_learned_by_route_and_else_by_model(limiters: Limiters) -> None:
    limiter = limiters.with_budget(limit=1_000_000, holds="expected")
    names = (f"look{number}" for number in itertools.count())

    async def held(route: str) -> int:
        name = next(names)
        await limiter.reserve(name, 1_000, least=10, route=route)
        _, held_microusd = await limiter.usage()
        await limiter.release(name)
        return int(held_microusd)

    await spend_often(limiter, 800, MIN_SAMPLES - 1, "generate/auto", prefix="long")
    assert await held("generate/auto") == 1_000  # too few samples
    await spend_often(limiter, 60, 4 * MIN_SAMPLES, "generate/dear", prefix="short")
    for route in ("generate/auto", "generate/unseen", ""):
        assert await held(route) == 800  # the 0.9 quantile of all calls of the model
    await spend_often(limiter, 700, 1, "generate/auto", prefix="one more")
    assert await held("generate/auto") == 800
    assert await held("generate/dear") == 60


async def test_the_overshoot_bound_is_what_holds_of_expected_cost_leave_out(
    limiters: Limiters,
) -> None:
    strict = limiters.with_budget()
    expected = limiters.with_budget(limit=100_000, holds="expected")
    await spend_often(expected, 60, 40)
    await strict.reserve("s", 500, least=10)
    await expected.reserve("b", 1_000, least=10)
    assert strict.service.overshoot_bound(MICROUSD) == 0
    assert expected.service.overshoot_bound(MICROUSD) == 1_000 - 60
    grown = pb.ExtendRequest(hold_id="b", amount=pb.Amount(requests=1, tokens=400, microusd=400))
    decision = (await expected.service.Extend(grown, expected.caller)).decision
    assert decision.verdict == pb.VERDICT_ALLOWED
    assert expected.service.overshoot_bound(MICROUSD) == 1_000 - 400
    await limiters.clock.advance(61)
    assert expected.service.overshoot_bound(MICROUSD) == 0  # the hold has expired


async def test_renewing_a_lease_reports_an_alert_share_that_is_reached(
    limiters: Limiters, caplog: pytest.LogCaptureFixture
) -> None:
    alert = "rule month: 80 % of its limit is spent or held"
    limiter = limiters.with_budget(adaptive=False)
    await limiter.lease("l", 200)
    for spent in (200, 400, 600):
        await limiter.renew_lease("l", spent, 200)
    assert alert not in caplog.text
    await limiter.renew_lease("l", 790, 200)
    assert alert in caplog.text


async def test_a_repeated_tag_is_counted_once(limiters: Limiters) -> None:
    limiter = limiters.with_budget(level="tag")
    call = Call(Principal("acme", tags=("batch", "batch")))
    await limiter.reserve("a", 900, call=call)
    usage = await limiter.service.GetUsage(pb.GetUsageRequest(), call)
    assert [row.held.microusd for row in usage.rules] == [900]


async def test_a_drained_organisation_is_refused_and_may_settle(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.reserve("a", 5)
    assert await limiter.store.drain("acme", True) == 1
    assert (await limiter.reserve("b", 5)).verdict == pb.VERDICT_DRAINED
    assert await limiter.commit("a", 5)
    await limiter.store.drain("acme", False)
    assert (await limiter.reserve("b", 5)).verdict == pb.VERDICT_ALLOWED


async def test_a_lease_takes_a_share_of_what_is_available(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    granted = (await limiter.lease("l", 900)).granted
    assert granted.microusd == 200
    assert granted.tokens > 10**15  # no rule counts tokens
    assert await limiter.usage() == (0, 200)


async def test_a_renewed_lease_is_booked_and_filled_up_and_repeating_books_nothing(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget()
    await limiter.lease("l", 900)
    for _ in range(2):
        assert (await limiter.renew_lease("l", 150, 200)).granted.microusd == 200
        assert await limiter.usage() == (150, 200)


async def test_a_lease_on_a_budget_that_is_nearly_spent_grows_no_more(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(adaptive=False)
    await limiter.lease("l", 900)
    await limiter.reserve("a", 750)
    assert (await limiter.renew_lease("l", 50, 200)).granted.microusd == 150
    assert await limiter.usage() == (50, 900)


async def test_a_returned_lease_gives_back_what_it_holds(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.lease("l", 900)
    await limiter.renew_lease("l", 150, 200)
    await limiter.return_lease("l", 170)
    assert await limiter.usage() == (170, 0)


async def test_an_expired_lease_counts_as_spent_until_it_is_returned(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.lease("l", 900)
    await limiters.clock.advance(6)
    assert await limiter.usage() == (200, 0)
    await limiter.return_lease("l", 30)
    assert await limiter.usage() == (30, 0)


async def test_a_tight_budget_is_not_leased(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    await limiter.reserve("a", 920)
    await limiter.commit("a", 920)
    assert (await limiter.lease("l", 50)).reserve_each
    assert await limiter.usage() == (920, 0)
    assert (await limiter.reserve("b", 70)).verdict == pb.VERDICT_ALLOWED


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
async def test_a_bad_request_names_the_field_and_holds_nothing(
    limiters: Limiters, request_: pb.ReserveRequest, field: str
) -> None:
    limiter = limiters.with_budget()
    with pytest.raises(Fault) as failed:
        await limiter.service.Reserve(request_, limiter.caller)
    assert (failed.value.code, failed.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert await limiter.usage() == (0, 0)


async def test_a_call_without_an_organisation_is_refused(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    with pytest.raises(Fault) as failed:
        await limiter.service.Reserve(pb.ReserveRequest(hold_id="a"), Call())
    assert failed.value.field == "context.principal.organisation"


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


def test_two_rules_of_one_name_are_refused() -> None:
    rule = {"name": "a", "kind": "rate", "counts": "tokens", "limit": 5}
    with pytest.raises(ValidationError, match="duplicate rule name: a"):
        LimitsSection.model_validate({"rules": [rule, rule]})


async def test_a_hold_that_no_rule_counts_grows_and_is_settled_without_a_word(
    limiters: Limiters, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = limiters.make()
    assert (await limiter.reserve("a", 100)).verdict == pb.VERDICT_ALLOWED
    grown = pb.ExtendRequest(hold_id="a", amount=pb.Amount(requests=1, tokens=400, microusd=400))
    extended = await limiter.service.Extend(grown, limiter.caller)
    assert extended.decision.verdict == pb.VERDICT_ALLOWED
    spent = pb.Amount(requests=1, tokens=300, microusd=300)
    commit = pb.CommitRequest(hold_id="a", spent=spent)
    assert (await limiter.service.Commit(commit, limiter.caller)).settled
    assert caplog.text == ""
