"""A router under real limits, and one before a real cache."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.store import embedded_store, open_store
from penstock.testkit.eventually import eventually
from penstock.testkit.server import peer_to

from ..routed import Routed, StartRouter

LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
PRICES = {
    name: ModelPrice(
        name=name,
        input_microusd_per_mtok=microusd,
        output_microusd_per_mtok=microusd,
        max_output_tokens=100,
    )
    for name, microusd in (("small", 100_000), ("big", 1_000_000))
} | {"unknown": ModelPrice(name="unknown")}
"""Of `big` a token costs a micro-dollar, of `small` a tenth, of `unknown` nothing."""


@dataclass
class LimitedRouter:
    """A router and its limiter."""

    routed: Routed
    limiter: LimiterServicer
    admission: LimiterAdmission

    async def committed(self, model: str) -> dict[str, limiter_pb2.Amount]:
        """What is booked by rule, once every lease is returned and nothing is held any more; no
        call can be admitted after that.
        """
        await self.admission.close()

        async def settled() -> dict[str, limiter_pb2.Amount]:
            request = limiter_pb2.GetUsageRequest(model=model)
            usage = await self.limiter.GetUsage(request, Call(Principal("acme")))
            held = [row.held for row in usage.rules]
            assert not any(one.requests or one.tokens or one.microusd for one in held), held
            return {row.rule: row.committed for row in usage.rules}

        return await eventually(settled, timeout_s=20)


StartLimitedRouter = Callable[..., AbstractAsyncContextManager[LimitedRouter]]


@pytest.fixture
def start_limited_router(start_router: StartRouter, tmp_path: Path) -> StartLimitedRouter:
    """Starts a router under these rules."""

    @contextlib.asynccontextmanager
    async def start(*rules: dict[str, Any], **more: Any) -> AsyncIterator[LimitedRouter]:
        clock = SystemClock()
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(embedded_store(tmp_path / "store"))
            store = LedgerStore(open_store(url), clock, StoreTimings(5.0, 1.0))
            stack.push_async_callback(store.close)
            section = LimitsSection.model_validate({"rules": rules})
            prices = PricesSection(models=tuple(PRICES.values()))
            limiter = LimiterServicer(LimiterSettings(), section, prices, store, clock)
            admission = LimiterAdmission(
                peer_to(LIMITER, limiter),
                Current(Prices(PRICES)),
                clock,
                max_output_tokens=lambda model: routed.selection.max_output_tokens(model),
            )
            stack.push_async_callback(admission.close)
            routed = await stack.enter_async_context(
                start_router(RouterSettings(), admission=admission, prices=PRICES, **more)
            )
            yield LimitedRouter(routed, limiter, admission)

    return start
