"""The ledger counts exactly: whatever a rule or a caller is called, whatever one question meets,
and however often the same work is tried.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import (
    MAX_VALUE_BYTES,
    SpendPath,
    counters_of,
    organisation_prefix,
)
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import STALE_WINDOWS, Reservation
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.simulation.ledger import SimulatedLedger

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
ODD_NAMES = ["two words", "line\nbreak", "a:b:c", "braces {x}", "ümlaut %0A", "x" * 5_000]
OPEN_MONTH = {"adaptive": False}


async def reserve(limiter: Limiter, cost: int, fence: int, hold_id: str = "job") -> int:
    """Reserve for one try of a job; returns the verdict."""
    request = pb.ReserveRequest(hold_id=hold_id, model="dear", fence=fence)
    request.amount.requests, request.amount.microusd = 1, cost
    request.least.microusd = cost // 10
    verdict: int = (await limiter.service.Reserve(request, limiter.caller)).decision.verdict
    return verdict


async def commit(limiter: Limiter, cost: int, fence: int, hold_id: str = "job") -> bool:
    """Commit what one try of a job has spent; returns whether it was open."""
    spent = pb.Amount(requests=1, microusd=cost)
    request = pb.CommitRequest(hold_id=hold_id, spent=spent, fence=fence, model="dear")
    settled: bool = (await limiter.service.Commit(request, limiter.caller)).settled
    return settled


async def extend(limiter: Limiter, cost: int, fence: int = 0, hold_id: str = "job") -> int:
    """Enlarge a hold; returns the verdict."""
    amount = pb.Amount(requests=1, microusd=cost)
    request = pb.ExtendRequest(hold_id=hold_id, amount=amount, fence=fence)
    verdict: int = (await limiter.service.Extend(request, limiter.caller)).decision.verdict
    return verdict


async def differing(limiter: Limiter) -> list[str]:
    counters: list[str] = (await limiter.store.verify("acme"))[1]
    return counters


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
async def test_any_name_is_counted_by_itself_and_the_ledger_replays(
    limiters: Limiters, name: str
) -> None:
    rule = {"name": "m", "kind": "budget", "level": "model", "counts": "microusd", "limit": 900}
    limiter = limiters.make({**rule, "adaptive": False})
    for hold_id, model, cost in (("a", name, 500), ("b", name + "!", 700)):
        request = pb.ReserveRequest(hold_id=hold_id, model=model)
        request.amount.microusd = cost
        answer = await limiter.service.Reserve(request, limiter.caller)
        assert answer.decision.verdict == pb.VERDICT_ALLOWED
        assert await limiter.commit(hold_id, cost)
    assert await differing(limiter) == []
    counters = await limiters.client.smembers(organisation_prefix("acme") + "counters")
    assert len(counters) == 2
    assert all(len(key) < 100 + MAX_VALUE_BYTES and b"\n" not in key for key in counters)


async def test_a_budget_can_be_spent_to_its_last_unit_and_not_beyond(limiters: Limiters) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    assert (await limiter.reserve("most", 600)).verdict == pb.VERDICT_ALLOWED
    assert (await limiter.reserve("over", 401)).verdict == pb.VERDICT_BUDGET_EXHAUSTED
    assert (await limiter.reserve("rest", 400)).verdict == pb.VERDICT_ALLOWED
    assert (await limiter.reserve("more", 1)).verdict == pb.VERDICT_BUDGET_EXHAUSTED


def test_a_window_that_ended_since_its_caller_looked_counts_from_nothing() -> None:
    rule = {"name": "h", "kind": "budget", "counts": "tokens", "limit": 100, "window": "hour"}
    rules = LimitsSection.model_validate({"rules": [{**rule, "calendar": True, "adaptive": False}]})
    ledger, start_us = SimulatedLedger("acme"), 1_767_225_600 * 10**6
    path = counters_of(rules, SpendPath("acme", model="m"), start_us / 1e6)
    all_of_it = Reservation((0, 100, 0), (0, 100, 0), (0, 0, 0), ttl_ms=10**8)

    def verdict(hour: int, hold_id: str) -> int:
        return ledger.reserve(start_us + hour * 3_600 * 10**6, hold_id, path, all_of_it).verdict

    assert verdict(0, "a") == pb.VERDICT_ALLOWED
    assert verdict(0, "b") == pb.VERDICT_BUDGET_EXHAUSTED
    assert verdict(1, "c") == pb.VERDICT_ALLOWED
    assert verdict(1, "d") == pb.VERDICT_BUDGET_EXHAUSTED
    assert verdict(2, "e") == STALE_WINDOWS


def test_what_a_rolling_window_spent_counts_for_the_whole_window_and_not_longer() -> None:
    rule = {"name": "h", "kind": "budget", "counts": "tokens", "limit": 100, "window": "hour"}
    rules = LimitsSection.model_validate({"rules": [{**rule, "adaptive": False}]})
    ledger, start_us = SimulatedLedger("acme"), 1_767_225_600 * 10**6
    path = counters_of(rules, SpendPath("acme", model="m"), start_us / 1e6)
    amounts = (0, 100, 0)
    all_of_it = Reservation(amounts, amounts, amounts, ttl_ms=10**8)

    def verdict(minute: int, hold_id: str) -> int:
        return ledger.reserve(start_us + minute * 60 * 10**6, hold_id, path, all_of_it).verdict

    assert verdict(0, "a") == pb.VERDICT_ALLOWED
    assert ledger.settle(start_us, "a", amounts)
    assert verdict(58, "b") == pb.VERDICT_BUDGET_EXHAUSTED
    assert verdict(62, "c") == pb.VERDICT_ALLOWED


async def test_a_caller_with_too_many_tags_is_refused_by_name(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    call = Call(Principal("acme", tags=tuple(str(number) for number in range(33))))
    with pytest.raises(Fault) as refused:
        await limiter.reserve("a", 1, call=call)
    assert refused.value.field == "context.principal.tags"


@pytest.mark.parametrize(
    "change",
    [{"kind": "rate", "calendar": False}, {"calendar": False}, {"counts": "tokens"}],
    ids=["a rate", "a rolling window", "tokens"],
)
async def test_a_rule_that_changes_its_kind_starts_a_new_counter(
    limiters: Limiters, change: dict[str, object]
) -> None:
    before = limiters.with_budget(**OPEN_MONTH)
    await before.reserve("a", 600)
    await before.commit("a", 600)
    after = limiters.with_budget(**{**OPEN_MONTH, **change})
    assert (await after.reserve("b", 700)).verdict == pb.VERDICT_ALLOWED
    assert await before.usage() == (600, 0)


async def test_an_error_of_one_question_fails_that_question_alone(limiters: Limiters) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await limiter.reserve("mine", 5)
    broken = organisation_prefix("broken") + "hold:b"
    await limiters.client.set(broken, "not a hash")
    bad = Call(Principal("broken"))
    questions = [
        limiter.reserve("a", 5),
        limiter.reserve("b", 5, call=bad),
        limiter.reserve("c", 5),
    ]
    first, failed, third = await asyncio.gather(*questions, return_exceptions=True)
    assert [first.verdict, third.verdict] == [pb.VERDICT_ALLOWED] * 2
    assert isinstance(failed, Fault)
    assert "could not run reserve" in failed.message
    assert not limiter.store.is_lost


async def test_a_settlement_that_the_script_cannot_run_does_not_keep_the_others(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH, store_loss="open")
    await limiter.reserve("a", 100)
    limiter.connection.cut()
    for organisation, hold_id in (("broken", "b"), ("acme", "a")):
        call = Call(Principal(organisation))
        spent = pb.CommitRequest(hold_id=hold_id, spent=pb.Amount(microusd=40), model="dear")
        with pytest.raises(Fault):
            await limiter.service.Commit(spent, call)
    await limiters.client.set(organisation_prefix("broken") + "hold:b", "not a hash")
    limiter.connection.mend()
    await limiter.until_found_again()
    await limiter.until_nothing_is_owed()
    assert await limiter.usage() == (40, 0)


async def test_a_reservation_that_its_release_has_overtaken_holds_nothing(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    assert not await limiter.release("late")
    await limiter.reserve("late", 300)
    assert await limiter.usage() == (0, 0)


async def test_a_hold_that_store_and_limiter_have_lost_is_booked_where_the_caller_says(
    limiters: Limiters,
) -> None:
    before = limiters.with_budget(**OPEN_MONTH)
    await before.reserve("a", 300)
    await limiters.client.flushall()  # a crash of the store that lost its last writes
    after = limiters.with_budget(**OPEN_MONTH)  # and a limiter that was restarted
    await commit(after, 250, 0, "a")
    assert await after.usage() == (250, 0)
    await commit(after, 250, 0, "a")
    assert await after.usage() == (250, 0)


async def test_a_settlement_owed_to_a_store_that_lost_the_hold_is_booked(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await limiter.reserve("a", 300)
    limiter.connection.cut()
    with pytest.raises(Fault):
        await limiter.commit("a", 120)
    await limiters.client.flushall()
    limiter.connection.mend()
    await limiter.until_found_again()
    await limiter.until_nothing_is_owed()
    assert await limiter.usage() == (120, 0)


async def test_work_that_is_tried_again_is_held_and_charged_once(limiters: Limiters) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    assert await reserve(limiter, 600, fence=1) == pb.VERDICT_ALLOWED
    assert await reserve(limiter, 600, fence=2) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 600)
    assert await reserve(limiter, 600, fence=1) == pb.VERDICT_SUPERSEDED
    assert not await commit(limiter, 555, fence=1)
    assert await commit(limiter, 400, fence=2)
    assert await limiter.usage() == (400, 0)
    assert await reserve(limiter, 600, fence=3) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (400, 200)
    await commit(limiter, 450, fence=3)
    await commit(limiter, 400, fence=2)
    assert await limiter.usage() == (450, 0)
    assert await differing(limiter) == []


async def test_a_try_whose_hold_expired_is_charged_only_for_what_the_next_one_spends(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await reserve(limiter, 500, fence=1)
    await limiters.clock.advance(61)
    assert await limiter.usage() == (50, 0)  # the input of the first try
    assert await reserve(limiter, 500, fence=2) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (50, 450)
    await commit(limiter, 320, fence=2)
    assert await limiter.usage() == (320, 0)
    await limiters.clock.advance(3_000)
    await commit(limiter, 500, fence=1)  # the first try wakes up
    assert await limiter.usage() == (320, 0)


async def test_a_hold_grows_only_by_what_is_left(limiters: Limiters) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await reserve(limiter, 600, fence=0, hold_id="a")
    await reserve(limiter, 300, fence=0, hold_id="b")
    assert await extend(limiter, 700, hold_id="a") == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 1_000)
    assert await extend(limiter, 301, hold_id="b") == pb.VERDICT_BUDGET_EXHAUSTED
    assert await limiter.usage() == (0, 1_000)
    assert await differing(limiter) == []


async def test_a_hold_of_an_earlier_window_grows_in_none(limiters: Limiters) -> None:
    limiter = limiters.with_budget(window="minute", **OPEN_MONTH)
    await limiters.clock.advance(30)
    await reserve(limiter, 300, fence=0)
    await limiters.clock.advance(35)
    assert await extend(limiter, 400) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 0)
    assert await differing(limiter) == []


async def test_a_try_that_was_superseded_cannot_enlarge_the_hold_of_the_next(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await reserve(limiter, 300, fence=1)
    await reserve(limiter, 300, fence=2)
    assert await extend(limiter, 400, fence=1) == pb.VERDICT_SUPERSEDED
    assert await limiter.usage() == (0, 300)
    assert await extend(limiter, 400, fence=2) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 400)


async def test_a_refused_try_frees_what_the_one_before_held(limiters: Limiters) -> None:
    limiter = limiters.with_budget(**OPEN_MONTH)
    await reserve(limiter, 600, fence=1)
    assert await reserve(limiter, 1_001, fence=2) == pb.VERDICT_NEVER
    assert await limiter.usage() == (0, 0)
    assert await reserve(limiter, 900, fence=2) == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 900)
    assert await differing(limiter) == []
