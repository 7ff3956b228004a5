"""The store goes away: it refuses, hangs, or cannot write.

Nobody waits for long, rules decide, and the books are right when it is back.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.admin_service import AdminServicer
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.ledger_store import LedgerStore
from penstock.limiter.patience import MIN_BATCHES, PER_CALL_S, Patience
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.store import open_store

Limiters = Any
ANN = Call(Principal("acme", "core", "ann"), deadline_s=1e12)
MONEY = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
    "adaptive": False,
}
OPEN = {**MONEY, "store_loss": "open"}
NOWHERE = "unix:///nowhere.sock"


async def reserve(
    limiter: LimiterServicer, name: str, cost: int, least: int = 0, call: Call = ANN
) -> int:
    request = pb.ReserveRequest(
        hold_id=name, amount=pb.Amount(microusd=cost), least=pb.Amount(microusd=least)
    )
    return int((await limiter.Reserve(request, call)).decision.verdict)


async def commit(limiter: LimiterServicer, name: str, cost: int) -> bool:
    return (
        await limiter.Commit(pb.CommitRequest(hold_id=name, spent=pb.Amount(microusd=cost)), ANN)
    ).settled


async def state(limiter: LimiterServicer) -> tuple[int, int]:
    row = (await limiter.GetUsage(pb.GetUsageRequest(), ANN)).rules[0]
    return row.committed.microusd, row.held.microusd


async def paid(store: LedgerStore) -> None:
    """Wait until nothing is owed any more."""
    while store._owed:
        await store.client.ping()


class Hung:
    """A limiter whose store is stopped (SIGSTOP) between `stop` and `go_on`."""

    def __init__(self, limiters: Limiters, **rule: object) -> None:
        self.limiter = limiters.make([{**MONEY, **rule}])
        self.store: LedgerStore = limiters.stores[-1]
        self.store._patience = Patience(0.003, 5.0)
        self.pid = 0

    async def stop(self) -> None:
        self.pid = int((await self.store.client.info("server"))["process_id"])
        for number in range(MIN_BATCHES):  # the store is known to be quick
            await reserve(self.limiter, f"warm{number}", 1)
            await self.limiter.Release(pb.ReleaseRequest(hold_id=f"warm{number}"), ANN)
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


async def test_a_store_that_hangs_is_known_by_its_silence_and_books_are_right_after(
    limiters: Limiters,
) -> None:
    hung = Hung(limiters, store_loss="open")
    await hung.stop()
    try:
        passed = [await reserve(hung.limiter, name, 100, least=40) for name in ("a", "b", "c")]
        with pytest.raises(Fault, match="does not answer"):
            await commit(hung.limiter, "b", 30)
        assert hung.store._slow  # the batch is still in flight: nobody waited for it to fail
    finally:
        hung.go_on()
    assert passed == [pb.VERDICT_ALLOWED] * 3
    await paid(hung.store)
    # The first hold was in flight and was taken after all; the second has been booked by the store
    # itself, the third is not settled yet.
    assert await state(hung.limiter) == (30, 100)
    assert await commit(hung.limiter, "a", 70)
    assert await commit(hung.limiter, "c", 20)
    assert not await commit(hung.limiter, "b", 30)
    assert await state(hung.limiter) == (120, 0)
    assert await hung.store.verify("acme") == (await ledger(hung.store), [])


async def test_what_was_refused_for_silence_holds_nothing_after(limiters: Limiters) -> None:
    hung = Hung(limiters, store_loss="closed")
    await hung.stop()
    try:
        soon = ANN._replace(deadline_s=limiters.clock.monotonic() + 0.05)
        assert await reserve(hung.limiter, "a", 100, 40, soon) == pb.VERDICT_STORE_UNAVAILABLE
        assert await reserve(hung.limiter, "b", 100, 0, soon) == pb.VERDICT_STORE_UNAVAILABLE
    finally:
        hung.go_on()
    await paid(hung.store)
    assert await state(hung.limiter) == (0, 0)


async def test_a_commit_that_meets_a_lost_store_is_booked_when_it_is_back(
    limiters: Limiters,
) -> None:
    limiter, store = limiters.make([OPEN]), limiters.stores[-1]
    real, store.client = store.client, open_store(NOWHERE, retries=0)
    assert await reserve(limiter, "a", 300) == pb.VERDICT_ALLOWED
    for _ in range(2):  # a caller who tries again
        with pytest.raises(Fault) as failed:
            await commit(limiter, "a", 120)
        assert (failed.value.code, failed.value.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
    await store.client.aclose()
    store.client = real
    while store._probe is not None:
        await limiters.clock.advance(1.0)
        await real.ping()
    await paid(store)
    assert await state(limiter) == (120, 0)
    assert not await commit(limiter, "a", 120)
    assert await state(limiter) == (120, 0)


async def test_an_open_lease_of_a_lost_store_is_booked_when_it_is_returned(
    limiters: Limiters,
) -> None:
    limiter, store = limiters.make([OPEN]), limiters.stores[-1]
    real, store.client = store.client, open_store(NOWHERE, retries=0)
    granted = await limiter.GrantLease(
        pb.GrantLeaseRequest(lease_id="l", wanted=pb.Amount(microusd=50)), ANN
    )
    assert granted.granted.microusd > 10**15
    await store.client.aclose()
    store.client = real
    while store._probe is not None:
        await limiters.clock.advance(1.0)
        await real.ping()
    await limiter.ReturnLease(
        pb.ReturnLeaseRequest(lease_id="l", spent=pb.Amount(microusd=70)), ANN
    )
    await limiter.ReturnLease(
        pb.ReturnLeaseRequest(lease_id="l", spent=pb.Amount(microusd=70)), ANN
    )
    assert await state(limiter) == (70, 0)


@pytest.mark.parametrize(
    "broken", [("maxmemory", "1"), ("min-replicas-to-write", "3")], ids=["no memory", "no replicas"]
)
async def test_a_store_that_cannot_write_is_lost(
    limiters: Limiters, broken: tuple[str, str]
) -> None:
    limiter, store = limiters.make([OPEN]), limiters.stores[-1]
    await reserve(limiter, "a", 10)
    await store.client.config_set(*broken)
    assert await reserve(limiter, "b", 10) == pb.VERDICT_ALLOWED
    assert store._probe is not None
    await store.client.config_set(broken[0], "0")
    while store._probe is not None:
        await limiters.clock.advance(1.0)
        await store.client.ping()
    await commit(limiter, "b", 4)
    assert await state(limiter) == (4, 10)


async def test_operators_are_told_that_the_store_is_away(limiters: Limiters) -> None:
    limiter, store = limiters.make([MONEY]), limiters.stores[-1]
    real, store.client = store.client, open_store(NOWHERE, retries=0)
    admin, subject = (
        AdminServicer(limiter, store, limiters.clock),
        pb.Subject(rule="month", organisation="acme", value="acme"),
    )
    path, why = pb.Path(organisation="acme"), "because"
    for asked in (
        admin.SetLimit(pb.SetLimitRequest(subject=subject, limit=5, reason=why), ANN),
        admin.ResetUsage(pb.ResetUsageRequest(subject=subject, reason=why), ANN),
        admin.DrainOrganisation(
            pb.DrainOrganisationRequest(organisation="acme", drain=True, reason=why), ANN
        ),
        admin.ListChanges(pb.ListChangesRequest(), ANN),
        admin.VerifyLedger(pb.VerifyLedgerRequest(organisation="acme"), ANN),
        admin.ShowUsage(pb.ShowUsageRequest(path=path), ANN),
    ):
        with pytest.raises(Fault) as failed:
            await asked
        assert (failed.value.code, failed.value.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
    await store.client.aclose()
    store.client = real


async def test_an_operator_whose_clock_is_a_window_ahead_books_in_the_stores(
    limiters: Limiters,
) -> None:
    limiter, store = limiters.make([MONEY]), limiters.stores[-1]
    await reserve(limiter, "a", 300)
    await commit(limiter, "a", 300)
    true_us = round(limiters.clock.time() * 1e6)
    store._now_us = lambda: true_us
    await limiters.clock.advance(40 * 86_400)
    admin, subject = (
        AdminServicer(limiter, store, limiters.clock),
        pb.Subject(rule="month", organisation="acme", value="acme"),
    )
    adjusted = await admin.AdjustUsage(
        pb.AdjustUsageRequest(subject=subject, amount=-100, reason="goodwill"), ANN
    )
    assert adjusted.committed == 200
    assert await state(limiter) == (200, 0)
    assert (await store.verify("acme"))[1] == []


async def test_a_store_that_forgot_everything_is_told_what_was_spent_and_lends_nothing_until_then(
    limiters: Limiters,
) -> None:
    limiter, store = limiters.make([MONEY]), limiters.stores[-1]
    asked = pb.GrantLeaseRequest(
        lease_id="l", wanted=pb.Amount(microusd=200), least=pb.Amount(microusd=10)
    )
    assert (await limiter.GrantLease(asked, ANN)).granted.microusd == 200
    assert await reserve(limiter, "a", 100) == pb.VERDICT_ALLOWED
    await store.client.flushall()
    await store.client.script_flush()
    learning = await limiter.GrantLease(
        pb.GrantLeaseRequest(lease_id="m", wanted=asked.wanted, least=asked.least), ANN
    )
    assert (learning.decision.verdict, learning.reserve_each, learning.ttl_ms) == (
        pb.VERDICT_ALLOWED,
        True,
        5_000,
    )
    assert await state(limiter) == (0, 0)
    assert await reserve(limiter, "b", 100) == pb.VERDICT_ALLOWED
    for _ in range(2):
        await limiter.ReturnLease(
            pb.ReturnLeaseRequest(lease_id="l", spent=pb.Amount(microusd=150)), ANN
        )
        await commit(limiter, "a", 60)
    assert await state(limiter) == (150 + 60, 100)
    await limiters.clock.advance(5.0)
    again = await limiter.GrantLease(
        pb.GrantLeaseRequest(lease_id="n", wanted=asked.wanted, least=asked.least), ANN
    )
    assert (again.reserve_each, again.granted.microusd > 0) == (False, True)


async def ledger(store: LedgerStore) -> int:
    return int(await store.client.xlen("penstock:limiter:{acme}:ledger"))


def test_patience_is_short_for_a_quick_store_and_grows_with_a_slow_one() -> None:
    patience = Patience(0.003, 0.25)
    assert patience.for_batch(1) == 0.25  # nothing is known yet
    for _ in range(MIN_BATCHES):
        patience.learn(2, 0.001)
    assert patience.for_batch(1) == pytest.approx(0.003 + PER_CALL_S)
    patience.learn(1, 0.04 + PER_CALL_S)
    assert patience.for_batch(10) == pytest.approx(0.08 + 10 * PER_CALL_S)
    patience.learn(1, 60.0)
    assert patience.for_batch(1) == 0.25
    for _ in range(100):
        patience.learn(1, 0.0005)
    assert patience.for_batch(1) == pytest.approx(0.003 + PER_CALL_S)
