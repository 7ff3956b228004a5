"""Leases: many calls are admitted from one share, which never overshoots and is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.router.admission.lease import Lease, SpendPath
from penstock.router.admission.leases import MAX_LEASES, Leases
from penstock.router.admission.limiter_calls import LimiterCalls
from penstock.router.admission.overdraft_journal import OverdraftJournal
from penstock.router.stages import Spent
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

from .conftest import CHAT, SHORT_TEXT, Limited, StartLimited, budget, call, receipt


async def test_many_calls_are_admitted_from_one_lease_and_all_is_booked(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 1_000_000))
    for _ in range(400):
        await limited.settle(await limited.admit(SHORT_TEXT), receipt(12))
    assert len(limited.peer.calls) < 40
    await limited.admission.close()
    assert await limited.books("mini") == (400 * 12, 0)
    await limited.assert_books_balance()


async def test_a_path_without_rules_is_asked_for_once(start_limited: StartLimited) -> None:
    limited = start_limited()
    for _ in range(3):
        await limited.admit(SHORT_TEXT)
    assert limited.peer.calls == ["GrantLease"]


class Granting:
    """A limiter that grants whatever is wanted."""

    responds = True

    async def call(self, method: str, request: Message, call: Call) -> Any:
        if not isinstance(request, pb.GrantLeaseRequest):
            return pb.ReturnLeaseResponse()
        decision = pb.Decision(verdict=pb.VERDICT_ALLOWED)
        return pb.GrantLeaseResponse(decision=decision, granted=request.wanted, ttl_ms=60_000)

    def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def close(self) -> None:
        return None


async def test_paths_beyond_the_number_of_leases_hold_for_themselves() -> None:
    clock = FakeClock()
    await clock.advance(1)
    leases = Leases(LimiterCalls(Granting(), clock), clock, OverdraftJournal(None))

    async def draw(number: int) -> Lease | None:
        path, caller = SpendPath(Principal("acme"), f"model-{number}", 2), Call(Principal("acme"))
        return await leases.draw_granted(path, caller, (1, 10, 0), unpriced=False, ends_s=1e9)

    drawn = [await draw(number) for number in range(MAX_LEASES)]
    assert None not in drawn
    assert await draw(MAX_LEASES) is None
    assert await draw(0) is not None, "a path that has a lease is served from it"


async def test_a_call_is_let_go_on_at_once_where_a_lease_is_here(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    assert limited.admission.admit_now(call(), SHORT_TEXT) is None
    first = await limited.admit(SHORT_TEXT)
    second = limited.admission.admit_now(call(), SHORT_TEXT)
    assert second is not None
    assert limited.admission.admit_now(call(priority=1), SHORT_TEXT) is None, "another spend path"
    assert limited.admission.admit_now(call(), CHAT) is None, "its length is open"
    for admitted in (first, second):
        await limited.settle(admitted, receipt(12))
    assert limited.peer.calls == ["GrantLease"]


async def test_a_lease_never_lets_more_pass_than_the_budget(start_limited: StartLimited) -> None:
    limited = start_limited(budget("tokens", 5_000, adaptive=False))
    passed = 0
    with pytest.raises(Fault) as refused:
        while True:
            await limited.settle(await limited.admit(SHORT_TEXT), receipt(50))
            passed += 1
    assert refused.value.reason is Reason.BUDGET_EXHAUSTED
    assert refused.value.retry_after_s > 0
    assert passed == 100
    await limited.admission.close()
    assert await limited.books("mini") == (5_000, 0)


async def test_many_callers_at_the_end_of_a_budget_are_all_told_the_same(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 5_000, adaptive=False))
    passed, reasons = 0, set[Reason]()

    async def caller() -> None:
        nonlocal passed
        for _ in range(30):
            try:
                admitted = await limited.admit(SHORT_TEXT)
            except Fault as fault:
                reasons.add(fault.reason)
                continue
            await asyncio.sleep(0)  # lets the other callers ask while this one is in flight
            await limited.settle(admitted, receipt(50))
            passed += 1

    await asyncio.gather(*(caller() for _ in range(8)))
    await limited.admission.close()
    assert await limited.books("mini") == (passed * 50, 0)
    assert 90 <= passed <= 100
    assert reasons == {Reason.BUDGET_EXHAUSTED}


async def test_an_idle_lease_is_returned_and_a_used_one_renewed(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    keeper = asyncio.create_task(limited.admission.keep())
    await limited.settle(await limited.admit(SHORT_TEXT), receipt(12))
    _, held = await limited.books("mini")
    assert held > 1_000

    async def returned() -> None:
        await limited.clock.advance(0.25)
        assert limited.peer.calls[1:3] == ["RenewLease", "ReturnLease"]
        assert await limited.books("mini") == (12, 0)

    await eventually(returned, every_s=0)
    keeper.cancel()
    await asyncio.wait([keeper])


async def test_a_lease_in_use_is_returned_when_the_last_call_from_it_has_ended(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    done, cut = await limited.admit(SHORT_TEXT), await limited.admit(SHORT_TEXT)
    closing = asyncio.create_task(limited.admission.close())
    await limited.settle(done, receipt(12))
    assert "ReturnLease" not in limited.peer.calls
    await limited.settle(cut, spent=Spent("mini", 10, 0))
    await closing
    await eventually(lambda: "ReturnLease" in limited.peer.calls)
    assert await limited.books("mini") == (12 + 10, 0)


async def test_a_call_that_fails_before_it_costs_anything_frees_its_share(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    await limited.settle(await limited.admit(SHORT_TEXT))
    await limited.admission.close()
    assert await limited.books("mini") == (0, 0)


async def renewal_in_vain(limited: Limited) -> None:
    """Draw on a lease until it is renewed, and wait until the limiter has answered that its store
    is lost.
    """

    async def refused() -> None:
        await limited.admit(SHORT_TEXT)
        assert ("RenewLease", pb.VERDICT_STORE_UNAVAILABLE) in limited.peer.verdicts

    await eventually(refused, every_s=0)


async def test_a_lease_outlives_a_renewal_that_the_lost_store_cannot_grant(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    await limited.admit(SHORT_TEXT)
    limited.connection.cut()
    await renewal_in_vain(limited)
    await limited.admit(SHORT_TEXT)
    assert set(limited.peer.calls) == {"GrantLease", "RenewLease"}
    limited.connection.mend()
