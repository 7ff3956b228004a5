"""The router's admission with a real limiter on a real store: leases, holds, what is refused, and
what is booked in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.output_estimates import MIN_SAMPLES
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission, refusal
from penstock.router.requests.work import Work
from penstock.router.stages import Admitted, Spent, finish
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.service.store import embedded_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.cuttable_store import CuttableStore
from penstock.testkit.eventually import eventually

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
PRICE = ModelPrice(
    name="chat",
    input_microusd_per_mtok=1_000_000,
    output_microusd_per_mtok=2_000_000,
    max_output_tokens=500,
)
OPTIONS = router_pb2.CallOptions()
EMBED = Work("embed", "mini", 1, 10, 0, 50)
CHAT = Work("generate", "chat", 1, 20, 100, 40)
OPEN_CHAT = Work("generate", "chat", 1, 20, 0, 40)


class Counting:
    """A peer that counts calls by method and can be cut off."""

    def __init__(self, inner: InProcessPeer) -> None:
        self.inner, self.calls, self.down = inner, [], False
        self.lost = 0
        """Reservations that are answered as a limiter answers whose store is lost."""

    async def call(self, method: str, request: Any, call: Call) -> Any:
        self.calls.append(method)
        if self.down:
            raise unavailable("cut off")
        if self.lost and method == "Reserve":
            self.lost -= 1
            return pb.ReserveResponse(
                decision=pb.Decision(verdict=pb.VERDICT_STORE_UNAVAILABLE, rule="b")
            )
        return await self.inner.call(method, request, call)

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Rig:
    admission: LimiterAdmission
    limiter: LimiterServicer
    store: LedgerStore
    connection: CuttableStore
    peer: Counting
    clock: FakeClock

    async def state(self, model: str = "chat") -> tuple[int, int]:
        """Committed and held of the first rule."""
        row = (await self.limiter.GetUsage(pb.GetUsageRequest(model=model), call())).rules[0]
        return sum(_parts(row.committed)), sum(_parts(row.held))


def _parts(amount: pb.Amount) -> tuple[int, int, int]:
    return amount.requests, amount.tokens, amount.microusd


def call(priority: int = 2) -> Call:
    return Call(Principal("acme", user="ann"), priority=priority, deadline_s=1e12)


def receipt(tokens: int, paid: int = 0) -> common_pb2.Receipt:
    made = common_pb2.Receipt()
    made.usage.input_tokens, made.cost.paid_microusd = tokens, paid
    return made


@pytest.fixture
async def rigs(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Rig] = []
    async with embedded_store(tmp_path / "redis", "cache") as url:

        def make(*rules: dict[str, object], loss: Any = "closed") -> Rig:
            clock, connection = FakeClock(1_800_000_000.0), CuttableStore(url)
            client: Any = connection
            store = LedgerStore(
                client, clock, StoreTimings(5.0, 1.0), now_us=lambda: round(clock.time() * 1e6)
            )
            section = LimitsSection.model_validate({"rules": list(rules)})
            prices = PricesSection(models=(PRICE,))
            limiter = LimiterServicer(LimiterSettings(), section, prices, store, clock)
            peer = Counting(InProcessPeer(LIMITER, limiter, clock=clock))
            admission = LimiterAdmission(peer, lambda: Prices.from_section(prices), clock, loss)
            made.append(Rig(admission, limiter, store, connection, peer, clock))
            return made[-1]

        yield make
        for rig in made:
            await rig.admission.close()
            await rig.store.close()


def budget(counts: str, limit: int, **more: object) -> dict[str, object]:
    return {
        "name": "b",
        "kind": "budget",
        "counts": counts,
        "limit": limit,
        "window": "hour",
        "calendar": True,
        **more,
    }


async def test_many_calls_are_admitted_from_one_lease_and_all_is_booked(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 1_000_000))
    for _ in range(400):
        admitted = await rig.admission.admit(call(), OPTIONS, EMBED)
        await finish(rig.admission.settle(admitted, receipt(12), None))
    assert len(rig.peer.calls) < 40
    await rig.admission.close()
    assert await rig.state("mini") == (400 * 12, 0)
    assert (await rig.store.verify("acme"))[1] == []


async def test_a_path_without_rules_asks_once(rigs: Any) -> None:
    rig: Rig = rigs()
    for work in (EMBED, EMBED, EMBED):
        await rig.admission.admit(call(), OPTIONS, work)
    assert rig.peer.calls == ["GrantLease"]


async def test_a_lease_never_lets_more_pass_than_the_budget(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 5_000, adaptive=False))
    passed = 0
    with pytest.raises(Fault) as refused:
        while True:
            admitted = await rig.admission.admit(call(), OPTIONS, EMBED)
            await finish(rig.admission.settle(admitted, receipt(50), None))
            passed += 1
    assert (refused.value.code, refused.value.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "BUDGET_EXHAUSTED",
    )
    assert refused.value.retry_after_s > 0
    assert passed == 100
    await rig.admission.close()
    assert await rig.state("mini") == (5_000, 0)


async def test_an_idle_lease_is_returned_and_a_used_one_renewed(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 100_000))
    keeper = asyncio.create_task(rig.admission.keep())
    await asyncio.sleep(0)
    admitted = await rig.admission.admit(call(), OPTIONS, EMBED)
    await finish(rig.admission.settle(admitted, receipt(12), None))
    assert (await rig.state("mini"))[1] > 1_000
    for _ in range(40):
        await rig.clock.advance(0.25)
        await rig.store.usage("acme", ())  # lets the keeper's own question be answered
    assert rig.peer.calls[1:3] == ["RenewLease", "ReturnLease"]
    assert await rig.state("mini") == (12, 0)
    keeper.cancel()
    await asyncio.wait([keeper])


async def test_chat_holds_for_itself_and_is_committed_or_released(rigs: Any) -> None:
    rig: Rig = rigs(budget("microusd", 10_000))
    done, failed, cut = [await rig.admission.admit(call(), OPTIONS, CHAT) for _ in range(3)]
    assert await rig.state() == (0, 3 * (40 + 200))
    await finish(rig.admission.settle(done, receipt(30, paid=77), None))
    await finish(rig.admission.settle(failed, None, None))
    await finish(rig.admission.settle(cut, None, Spent("chat", 20, 15)))
    assert await rig.state() == (77 + 20 + 30, 0)


async def test_what_a_call_may_say_is_expected_by_what_it_asked_for(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 1_000_000, holds="expected"))
    automatic, named = router_pb2.CallOptions(model="auto"), router_pb2.CallOptions(model="chat")
    for options, tokens in ((automatic, 100), (named, 25)):
        for _ in range(MIN_SAMPLES):
            admitted = await rig.admission.admit(call(), options, CHAT)
            await finish(rig.admission.settle(admitted, receipt(tokens), None))
    committed, _ = await rig.state()
    for options, expected in (
        (automatic, 100),
        (named, 25),
        (router_pb2.CallOptions(model="x" * 500), 100),
    ):
        admitted = await rig.admission.admit(call(), options, CHAT)
        assert await rig.state() == (committed, expected)
        await finish(rig.admission.settle(admitted, None, None))


async def test_an_open_length_is_what_the_budget_affords(rigs: Any) -> None:
    rig: Rig = rigs(budget("microusd", 640, adaptive=False))
    admitted = await rig.admission.admit(call(), OPTIONS, OPEN_CHAT)
    assert isinstance(admitted, Admitted)
    assert admitted.max_output_tokens == (640 - 40 - 1) // 2
    with pytest.raises(Fault, match="limit b is spent"):
        await rig.admission.admit(call(), OPTIONS, CHAT)


async def test_a_stream_that_says_more_than_was_held_is_extended_or_ended(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 700, holds="expected", adaptive=False))
    admitted = await rig.admission.admit(call(), OPTIONS, CHAT)
    await rig.admission.extend(admitted, 90)
    assert rig.peer.calls.count("Extend") == 0
    await rig.admission.extend(admitted, 101)
    assert await rig.state() == (0, 140 + 256)
    with pytest.raises(Fault, match="limit b"):
        await rig.admission.extend(admitted, 1_000)


async def test_what_never_fits_and_what_has_no_price_are_permanent(rigs: Any) -> None:
    rig: Rig = rigs(budget("microusd", 100))
    for work, reason in (
        (CHAT, "NEVER_FITS"),
        (Work("generate", "unheard", 1, 5, 5, 5), "NO_PRICE"),
    ):
        with pytest.raises(Fault) as refused:
            await rig.admission.admit(call(), OPTIONS, work)
        assert (refused.value.code, refused.value.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            reason,
        )
    assert await rig.state() == (0, 0)


async def test_a_calls_own_ceiling_is_kept(rigs: Any) -> None:
    rig: Rig = rigs()
    with pytest.raises(Fault, match="this call may cost 240"):
        await rig.admission.admit(call(), router_pb2.CallOptions(max_cost_microusd=239), CHAT)
    await rig.admission.admit(call(), router_pb2.CallOptions(max_cost_microusd=240), CHAT)


async def test_a_lost_limiter_leaves_the_lease_and_then_the_rule(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 100_000))
    await rig.admission.admit(call(), OPTIONS, EMBED)
    rig.peer.down = True
    await rig.admission.admit(call(), OPTIONS, EMBED)
    await rig.clock.advance(4.1)
    with pytest.raises(Fault, match="limiter cannot be reached") as refused:
        await rig.admission.admit(call(), OPTIONS, EMBED)
    assert refused.value.code == grpc.StatusCode.UNAVAILABLE
    rig.peer.down = False
    await rig.admission.admit(call(), OPTIONS, EMBED)


async def test_a_lease_outlives_a_renewal_that_the_lost_store_cannot_grant(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 100_000))
    await rig.admission.admit(call(), OPTIONS, EMBED)
    rig.connection.cut()
    for _ in range(30):  # past the part of the share at which it is renewed
        await rig.admission.admit(call(), OPTIONS, EMBED)
        await asyncio.sleep(0)
    await eventually(lambda: rig.store.is_lost)
    await rig.admission.admit(call(), OPTIONS, EMBED)
    assert set(rig.peer.calls) == {"GrantLease", "RenewLease"}


@pytest.mark.parametrize(("lost", "left_s", "reserved"), [(1, 10.0, True), (2, 10.0, False)])
async def test_a_lost_store_is_asked_for_once_more_within_the_deadline(
    rigs: Any, lost: int, left_s: float, reserved: bool
) -> None:
    rig: Rig = rigs(budget("tokens", 100_000))
    rig.peer.lost = lost
    asking = call()._replace(deadline_s=rig.clock.monotonic() + left_s)
    if reserved:
        await rig.admission.admit(asking, OPTIONS, CHAT)
    else:
        with pytest.raises(Fault) as refused:
            await rig.admission.admit(asking, OPTIONS, CHAT)
        assert refused.value.reason == "LIMITS_UNAVAILABLE"
    assert rig.peer.calls == ["Reserve", "Reserve"]


async def test_a_lost_limiter_may_let_pass_where_it_is_told_to(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 100_000), loss="open")
    rig.peer.down = True
    admitted = await rig.admission.admit(call(), OPTIONS, EMBED)
    assert admitted.notes == ("limiter unavailable: nothing was limited",)
    await finish(rig.admission.settle(admitted, receipt(5), None))


async def test_many_callers_at_the_end_of_a_budget_are_each_told_the_same(rigs: Any) -> None:
    rig: Rig = rigs(budget("tokens", 5_000, adaptive=False))
    passed = 0

    async def caller() -> None:
        nonlocal passed
        for _ in range(30):
            with contextlib.suppress(Fault):
                admitted = await rig.admission.admit(call(), OPTIONS, EMBED)
                await asyncio.sleep(0)
                await finish(rig.admission.settle(admitted, receipt(50), None))
                passed += 1

    await asyncio.gather(*(caller() for _ in range(8)))
    await rig.admission.close()
    committed, held = await rig.state("mini")
    assert (committed, held) == (passed * 50, 0)
    assert 90 <= passed <= 100


def test_a_model_without_a_price_is_named_with_what_to_do() -> None:
    told = refusal(pb.Decision(verdict=pb.VERDICT_UNPRICED, rule="month"))
    assert (told.code, told.field) == (grpc.StatusCode.FAILED_PRECONDITION, "options.model")
    assert told.message.startswith(
        "options.model: limit month counts money and the model has no price: ask for one"
    )
