"""Limiters on a real Redis, whose time is set by the test."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import PricesSection
from penstock.rpc.call import Call, Principal
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.cuttable_store import CuttableStore
from penstock.testkit.eventually import eventually

START_S = 1_800_000_000.0
MONTH_BUDGET: dict[str, object] = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
}
TIMEOUT_S = 5.0


@dataclass
class Limiter:
    """One limiter, its store, and the connection between them, which a test can cut."""

    service: LimiterServicer
    store: LedgerStore
    connection: CuttableStore
    clock: FakeClock
    caller: Call

    async def reserve(
        self, hold_id: str, cost: int, least: int = 0, *, call: Call | None = None, **fields: Any
    ) -> pb.Decision:
        """Reserve one request of `cost` tokens and micro-dollars."""
        request = pb.ReserveRequest(hold_id=hold_id, model="dear", **fields)
        request.amount.requests, request.amount.tokens, request.amount.microusd = 1, cost, cost
        request.least.tokens = request.least.microusd = least
        return (await self.service.Reserve(request, call or self.caller)).decision

    async def commit(self, hold_id: str, cost: int) -> bool:
        """Commit one request of `cost` tokens and micro-dollars; returns whether it was open."""
        spent = pb.Amount(requests=1, tokens=cost, microusd=cost)
        request = pb.CommitRequest(hold_id=hold_id, spent=spent)
        return (await self.service.Commit(request, self.caller)).settled

    async def release(self, hold_id: str) -> bool:
        """Release a hold; returns whether it was open."""
        request = pb.ReleaseRequest(hold_id=hold_id)
        return (await self.service.Release(request, self.caller)).released

    async def lease(self, lease_id: str, wanted: int, least: int = 1) -> pb.GrantLeaseResponse:
        """Ask for a lease of 50 requests and `wanted` tokens and micro-dollars."""
        request = pb.GrantLeaseRequest(lease_id=lease_id)
        request.wanted.requests, request.wanted.tokens, request.wanted.microusd = 50, wanted, wanted
        request.least.microusd = least
        return await self.service.GrantLease(request, self.caller)

    async def renew_lease(self, lease_id: str, spent: int, wanted: int) -> pb.RenewLeaseResponse:
        """Renew a lease after `spent` micro-dollars, for `wanted` more."""
        request = pb.RenewLeaseRequest(lease_id=lease_id)
        request.spent.microusd = spent
        request.wanted.requests, request.wanted.microusd = 50, wanted
        return await self.service.RenewLease(request, self.caller)

    async def return_lease(self, lease_id: str, spent: int) -> pb.ReturnLeaseResponse:
        """Return a lease of which `spent` micro-dollars are spent."""
        spent_amount = pb.Amount(microusd=spent)
        request = pb.ReturnLeaseRequest(lease_id=lease_id, spent=spent_amount)
        return await self.service.ReturnLease(request, self.caller)

    async def usage(self) -> tuple[int, int]:
        """Micro-dollars that the first rule has committed and holds."""
        request = pb.GetUsageRequest(model="dear")
        row = (await self.service.GetUsage(request, self.caller)).rules[0]
        return row.committed.microusd, row.held.microusd

    async def until_found_again(self) -> None:
        """Let the pause between probes pass until a lost store has been found again."""

        async def is_found() -> bool:
            await self.clock.advance(1.0)
            # The store answers in real time, in which the clock must not pass the end of holds; the
            # loop's own time may be a test's.
            await asyncio.to_thread(time.sleep, 0.02)
            return not self.store.is_lost

        await eventually(is_found, every_s=0.0)

    async def until_nothing_is_owed(self) -> None:
        """Wait until the store has answered what is in flight and taken every settlement."""
        await eventually(
            lambda: not self.store.is_slow and not self.store.owed_settlements, every_s=0.0
        )
        await self.store.usage("acme", ())


class StoppedStore:
    """The process of a store, which hangs (SIGSTOP) inside the block."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id

    async def __aenter__(self) -> None:
        os.kill(self._process_id, signal.SIGSTOP)

    async def __aexit__(self, *_: object) -> None:
        os.kill(self._process_id, signal.SIGCONT)


class Limiters:
    """Makes limiters that share one store and one time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.clock = FakeClock(START_S)
        self.client = open_store(url)
        """The test's own view of the store."""
        self._made: list[Limiter] = []

    def make(
        self,
        *rules: dict[str, object],
        prices: list[dict[str, object]] | None = None,
        patience_s: float | None = None,
        store_time_s: Callable[[], float] | None = None,
        **section: object,
    ) -> Limiter:
        """A limiter with some rules; `store_time_s` is the store's clock if that is another one."""
        connection: Any = CuttableStore(self._url)
        timings = StoreTimings(timeout_s=TIMEOUT_S, probe_pause_s=1.0, patience_s=patience_s)
        time_s = store_time_s or self.clock.time
        store = LedgerStore(connection, self.clock, timings, now_us=lambda: round(time_s() * 1e6))
        limits = LimitsSection.model_validate({"rules": list(rules), **section})
        price_table = PricesSection.model_validate({"models": prices or []})
        service = LimiterServicer(LimiterSettings(), limits, price_table, store, self.clock)
        caller = Call(Principal("acme", team="core", user="ann", key_id="k1"))
        limiter = Limiter(service, store, connection, self.clock, caller)
        self._made.append(limiter)
        return limiter

    def with_budget(
        self,
        *,
        prices: list[dict[str, object]] | None = None,
        patience_s: float | None = None,
        **changes: object,
    ) -> Limiter:
        """A limiter with the rule `month`: 1,000 micro-dollars a calendar month."""
        return self.make({**MONTH_BUDGET, **changes}, prices=prices, patience_s=patience_s)

    async def stopped_store(self) -> StoppedStore:
        """The store's process, to be stopped."""
        return StoppedStore(int((await self.client.info("server"))["process_id"]))

    async def close(self) -> None:
        """Close all limiters."""
        for limiter in self._made:
            await limiter.store.close()
        await self.client.aclose()


@pytest.fixture
async def limiters(tmp_path: Path) -> AsyncIterator[Limiters]:
    async with embedded_store(tmp_path / "redis") as url:
        made = Limiters(url)
        yield made
        await made.close()
