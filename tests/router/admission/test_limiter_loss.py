"""A limiter that is gone, and a limiter whose store is gone: what callers are told meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually

from .conftest import CHAT, SHORT_TEXT, StartLimited, budget, call, receipt


async def test_without_the_limiter_calls_go_on_from_the_lease_and_are_refused_after_it(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    await limited.admit(SHORT_TEXT)
    limited.peer.is_cut_off = True
    await limited.admit(SHORT_TEXT)
    await limited.clock.advance(4.1)
    with pytest.raises(Fault, match="limiter cannot be reached") as refused:
        await limited.admit(SHORT_TEXT)
    assert refused.value.reason is Reason.LIMITS_UNAVAILABLE
    assert refused.value.retry_after_s > 0
    limited.peer.is_cut_off = False
    await limited.admit(SHORT_TEXT)


async def test_without_the_limiter_calls_pass_where_the_setting_says_so_and_say_it(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000), on_loss="open")
    limited.peer.is_cut_off = True
    for asked in (SHORT_TEXT, CHAT):
        admitted = await limited.admit(asked)
        assert admitted.notes == ("limiter unavailable: nothing was limited",)
        await limited.settle(admitted, receipt(5))


@pytest.mark.parametrize(("losses", "is_admitted"), [(1, True), (2, False)])
async def test_a_limiter_whose_store_is_lost_is_asked_once_more(
    start_limited: StartLimited, losses: int, is_admitted: bool
) -> None:
    limited = start_limited(budget("tokens", 100_000, holds="expected"))
    await limited.settle(await limited.admit(CHAT))
    limited.peer.store_losses["Reserve"], limited.peer.calls = losses, []
    hurried = call()._replace(deadline_s=limited.clock.monotonic() + 10.0)
    if is_admitted:
        await limited.admit(CHAT, hurried)
    else:
        with pytest.raises(Fault) as refused:
            await limited.admit(CHAT, hurried)
        assert refused.value.reason is Reason.LIMITS_UNAVAILABLE
    assert limited.peer.calls == ["Reserve", "Reserve"]


async def test_a_lost_store_is_refused_even_where_a_lost_limiter_lets_pass(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000, holds="expected"), on_loss="open")
    await limited.settle(await limited.admit(CHAT))
    limited.peer.store_losses["Reserve"] = 2
    with pytest.raises(Fault) as refused:
        await limited.admit(CHAT)
    assert refused.value.reason is Reason.LIMITS_UNAVAILABLE


async def test_leases_in_hand_serve_past_their_time_while_the_limiter_is_away(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000, adaptive=False))
    keeper = asyncio.create_task(limited.admission.keep())
    await limited.settle(await limited.admit(SHORT_TEXT), receipt(12))
    limited.peer.is_cut_off = True
    for _ in range(60):  # a lease lasts 5 s
        await limited.settle(await limited.admit(SHORT_TEXT), receipt(12))
        await limited.clock.advance(0.25)
    assert (await limited.books("mini"))[1] == 0, "the ledger counts the lease as spent in full"
    limited.peer.is_cut_off = False

    async def settled() -> None:
        await limited.clock.advance(0.25)
        assert await limited.books("mini") == (61 * 12, 0)

    await eventually(settled, every_s=0)
    keeper.cancel()
    await asyncio.wait([keeper])
    await limited.assert_books_balance()


@pytest.mark.parametrize(("share", "passed"), [(0.0, 32), (0.25, 40)])
async def test_an_overdraft_is_bounded_and_settled_later(
    start_limited: StartLimited, share: float, passed: int
) -> None:
    limited = start_limited(budget("tokens", 100_000, adaptive=False), overdraft_share=share)
    await limited.settle(await limited.admit(SHORT_TEXT))
    limited.peer.is_cut_off = True
    admitted = []
    with pytest.raises(Fault, match="limiter cannot be reached"):
        while True:
            admitted.append(await limited.admit(SHORT_TEXT))
            await limited.clock.advance(0.01)
    assert len(admitted) == passed
    limited.peer.is_cut_off = False
    for one in admitted:
        await limited.settle(one, receipt(50))
    await limited.admission.close()
    assert await limited.books("mini") == (passed * 50, 0)


async def test_an_overdraft_is_a_part_of_the_share_whatever_is_left_of_it(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("requests", 100_000, adaptive=False), overdraft_share=0.25)
    await limited.settle(await limited.admit(SHORT_TEXT))
    limited.peer.is_cut_off = True
    answered = 0
    with pytest.raises(Fault, match="limiter cannot be reached"):
        while True:
            await limited.settle(await limited.admit(SHORT_TEXT), receipt(5))
            answered += 1
            await limited.clock.advance(0.01)
    assert answered == 40, "a lease of 32, and 8 beyond it"
