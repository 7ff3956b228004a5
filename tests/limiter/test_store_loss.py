"""A store that is lost: it hangs, refuses connections, or cannot write.

Callers do not wait for it, rules decide, and the ledger is right when the store is back.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.admin_service import AdminServicer
from penstock.limiter.store.connection import HALF_LIFE_S, MIN_BATCHES, PER_CALL_S, Patience
from penstock.limiter.store.errors import StoreLost
from penstock.rpc.errors import Fault
from penstock.testkit.eventually import eventually

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
PATIENCE_S = 0.05
"""A hang of the store is noticed after this time."""
SUBJECT = pb.Subject(rule="month", organisation="acme", value="acme")


async def quick_limiter(limiters: Limiters, store_loss: str) -> Limiter:
    """A limiter whose store is known to be quick, so that a hang is soon noticed."""
    limiter = limiters.with_budget(adaptive=False, store_loss=store_loss, patience_s=PATIENCE_S)
    await limiter.store.connect()
    return limiter


async def test_calls_pass_a_hanging_store_by_open_rules_and_the_ledger_is_right_after(
    limiters: Limiters,
) -> None:
    limiter = await quick_limiter(limiters, "open")
    async with await limiters.stopped_store():
        verdicts = [(await limiter.reserve(name, 100, 40)).verdict for name in ("a", "b", "c")]
        with pytest.raises(Fault, match="does not answer"):
            await limiter.commit("b", 30)
        assert limiter.store.is_slow  # the batch is in flight: nobody waited for it to fail
    assert verdicts == [pb.VERDICT_ALLOWED] * 3
    await limiter.until_nothing_is_owed()
    # The store has taken the first hold, which was in flight; the owed commit of the second is
    # booked; the third is not settled yet.
    assert await limiter.usage() == (30, 100)
    assert await limiter.commit("a", 70)
    assert await limiter.commit("c", 20)
    assert not await limiter.commit("b", 30)
    assert await limiter.usage() == (120, 0)
    _, differing = await limiter.store.verify("acme")
    assert differing == []


async def test_verifying_a_ledger_waits_for_a_hanging_store_if_it_may(limiters: Limiters) -> None:
    limiter = await quick_limiter(limiters, "closed")
    await limiter.reserve("a", 100, 40)
    async with await limiters.stopped_store():
        with pytest.raises(StoreLost):
            await limiter.store.verify("acme")
        verifying = asyncio.create_task(limiter.store.verify("acme", wait_s=20.0))
        await asyncio.wait([verifying], timeout=2 * PATIENCE_S)
        assert not verifying.done()
    assert await verifying == (1, [])


async def test_a_call_that_a_hanging_store_refused_holds_nothing_after(limiters: Limiters) -> None:
    limiter = await quick_limiter(limiters, "closed")
    soon = limiter.caller._replace(deadline_s=limiters.clock.monotonic() + 0.05)
    async with await limiters.stopped_store():
        for name in ("a", "b"):
            refused = await limiter.reserve(name, 100, call=soon)
            assert refused.verdict == pb.VERDICT_STORE_UNAVAILABLE
    await limiter.until_nothing_is_owed()
    assert await limiter.usage() == (0, 0)


async def test_a_commit_that_meets_a_lost_store_is_booked_once_when_it_is_back(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(store_loss="open")
    limiter.connection.cut()
    assert (await limiter.reserve("a", 300)).verdict == pb.VERDICT_ALLOWED
    for _ in range(2):  # a caller who tries again
        with pytest.raises(Fault) as failed:
            await limiter.commit("a", 120)
        assert failed.value.code == grpc.StatusCode.UNAVAILABLE
        assert failed.value.reason == "STORE_UNAVAILABLE"
    limiter.connection.mend()
    await limiter.until_found_again()
    await limiter.until_nothing_is_owed()
    assert await limiter.usage() == (120, 0)
    assert not await limiter.commit("a", 120)
    assert await limiter.usage() == (120, 0)


async def test_a_lease_that_a_lost_store_could_not_grant_is_booked_once_when_it_is_returned(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(store_loss="open")
    limiter.connection.cut()
    assert (await limiter.lease("l", 50)).granted.microusd > 10**15
    limiter.connection.mend()
    await limiter.until_found_again()
    for _ in range(2):
        await limiter.return_lease("l", 70)
    assert await limiter.usage() == (70, 0)


async def test_without_the_store_a_closed_rule_refuses_and_usage_is_unavailable(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(store_loss="closed")
    limiter.connection.cut()
    soon = limiter.caller._replace(deadline_s=limiters.clock.monotonic() + 0.05)
    refused = await limiter.reserve("a", 300, call=soon)
    assert refused.verdict == pb.VERDICT_STORE_UNAVAILABLE
    assert refused.retry_after_ms == 1_000
    with pytest.raises(Fault, match="does not answer") as failed:
        await limiter.usage()
    assert failed.value.code == grpc.StatusCode.UNAVAILABLE


async def test_a_store_that_comes_back_is_found_without_a_caller(limiters: Limiters) -> None:
    limiter = limiters.with_budget(store_loss="open")
    limiter.connection.cut()
    assert (await limiter.reserve("a", 5)).verdict == pb.VERDICT_ALLOWED
    limiter.connection.mend()
    await limiter.until_found_again()
    await limiter.reserve("b", 7)
    assert await limiter.usage() == (0, 7)
    assert await limiter.commit("a", 3)
    assert await limiter.usage() == (3, 7)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("maxmemory", "1"), ("min-replicas-to-write", "3")],
    ids=["no memory", "no replicas"],
)
async def test_a_store_that_cannot_write_is_lost(
    limiters: Limiters, setting: str, value: str
) -> None:
    limiter = limiters.with_budget(store_loss="open")
    await limiter.reserve("a", 10)
    await limiters.client.config_set(setting, value)
    assert (await limiter.reserve("b", 10)).verdict == pb.VERDICT_ALLOWED
    assert limiter.store.is_lost
    await limiters.client.config_set(setting, "0")
    await limiter.until_found_again()
    await limiter.commit("b", 4)
    assert await limiter.usage() == (4, 10)


async def test_operators_get_unavailable_while_the_store_is_lost(limiters: Limiters) -> None:
    limiter = limiters.with_budget()
    admin = AdminServicer(limiter.service, limiter.store)
    limiter.connection.cut()
    drain = pb.DrainOrganisationRequest(organisation="acme", drain=True, reason="because")
    for answer in (
        admin.SetLimit(
            pb.SetLimitRequest(subject=SUBJECT, limit=5, reason="because"), limiter.caller
        ),
        admin.ResetUsage(pb.ResetUsageRequest(subject=SUBJECT, reason="because"), limiter.caller),
        admin.DrainOrganisation(drain, limiter.caller),
        admin.ListChanges(pb.ListChangesRequest(), limiter.caller),
        admin.VerifyLedger(pb.VerifyLedgerRequest(organisation="acme"), limiter.caller),
        admin.ShowUsage(pb.ShowUsageRequest(path=pb.Path(organisation="acme")), limiter.caller),
    ):
        with pytest.raises(Fault) as failed:
            await answer
        assert failed.value.code == grpc.StatusCode.UNAVAILABLE
        assert failed.value.reason == "STORE_UNAVAILABLE"


async def test_an_operator_whose_clock_is_a_window_ahead_corrects_the_window_of_the_store(
    limiters: Limiters,
) -> None:
    store_time_s = limiters.clock.time()
    rule = {"name": "month", "kind": "budget", "counts": "microusd", "limit": 1_000}
    limiter = limiters.make(
        {**rule, "window": "month", "calendar": True}, store_time_s=lambda: store_time_s
    )
    admin = AdminServicer(limiter.service, limiter.store)
    await limiter.reserve("a", 300)
    await limiter.commit("a", 300)
    await limiters.clock.advance(40 * 86_400)
    request = pb.AdjustUsageRequest(subject=SUBJECT, amount=-100, reason="goodwill")
    assert (await admin.AdjustUsage(request, limiter.caller)).committed == 200
    assert await limiter.usage() == (200, 0)
    assert (await limiter.store.verify("acme"))[1] == []


async def test_a_store_that_lost_its_data_grants_no_lease_for_one_leases_time(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(adaptive=False)
    assert (await limiter.lease("l", 200)).granted.microusd == 200
    await limiters.client.flushall()
    await limiters.client.script_flush()
    recovering = await limiter.lease("m", 200)
    assert recovering.decision.verdict == pb.VERDICT_ALLOWED
    assert recovering.reserve_each
    assert recovering.ttl_ms == 5_000
    assert await limiter.usage() == (0, 0)
    assert (await limiter.reserve("b", 100)).verdict == pb.VERDICT_ALLOWED
    await limiters.clock.advance(5.0)
    granted = await limiter.lease("n", 200)
    assert not granted.reserve_each
    assert granted.granted.microusd > 0


async def test_what_a_store_has_forgotten_is_booked_once_when_it_is_settled(
    limiters: Limiters,
) -> None:
    limiter = limiters.with_budget(adaptive=False)
    await limiter.lease("l", 200)
    await limiter.reserve("a", 100)
    await limiters.client.flushall()
    await limiters.client.script_flush()
    for _ in range(2):
        await limiter.return_lease("l", 150)
        await limiter.commit("a", 60)
    assert await limiter.usage() == (150 + 60, 0)


async def test_closing_during_a_call_leaves_no_probe_behind(limiters: Limiters) -> None:
    limiter = await quick_limiter(limiters, "open")
    async with await limiters.stopped_store():
        assert (await limiter.reserve("a", 5)).verdict == pb.VERDICT_ALLOWED
        await limiter.store.close()
        await eventually(lambda: not limiter.store.is_slow)  # the call in flight has failed
        assert not limiter.store.is_lost


def test_patience_is_the_longest_while_a_store_is_not_known() -> None:
    assert Patience(PATIENCE_S, 0.25).allowance_s(1, now_s=0.0) == 0.25


def test_patience_is_short_for_a_quick_store_and_grows_with_a_slow_one() -> None:
    patience = Patience(PATIENCE_S, 0.25)
    for _ in range(MIN_BATCHES):
        patience.record(2, 0.001, now_s=0.0)
    assert patience.allowance_s(1, now_s=0.0) == pytest.approx(PATIENCE_S + PER_CALL_S)
    patience.record(1, 0.1 + PER_CALL_S, now_s=0.0)
    assert patience.allowance_s(10, now_s=0.0) == pytest.approx(0.2 + 10 * PER_CALL_S)
    patience.record(1, 60.0, now_s=0.0)
    assert patience.allowance_s(1, now_s=0.0) == 0.25


def test_what_a_slow_batch_has_taught_fades_by_time_and_not_by_the_number_of_batches() -> None:
    patience = Patience(PATIENCE_S, 10.0)
    patience.record(1, 1.0 + PER_CALL_S, now_s=0.0)
    for _ in range(1_000):
        patience.record(1, 0.0005, now_s=0.1)
    soon_s = patience.allowance_s(1, now_s=0.1)
    assert soon_s == pytest.approx(2.0, rel=0.05)
    half_s = patience.allowance_s(1, now_s=HALF_LIFE_S)
    assert half_s == pytest.approx(1.0 + PER_CALL_S)
    later_s = patience.allowance_s(1, now_s=20 * HALF_LIFE_S)
    assert later_s == pytest.approx(PATIENCE_S + PER_CALL_S)
