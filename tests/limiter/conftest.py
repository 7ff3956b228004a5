"""A real Redis for the limiter's tests, and limiters on it whose time is set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.ledger_store import LedgerStore
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.prices.prices import PricesSection
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock

START_S = 1_800_000_000.0


class Limiters:
    """Limiters that share one store and one time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock(START_S)
        self.stores: list[LedgerStore] = []

    def make(
        self,
        rules: list[dict[str, object]],
        prices: list[dict[str, object]] | None = None,
        **section: object,
    ) -> LimiterServicer:
        client = open_store(self.url, retries=0)
        store = LedgerStore(
            client, self.clock, 5.0, 1.0, now_us=lambda: round(self.clock.time() * 1e6)
        )
        self.stores.append(store)
        limits = LimitsSection.model_validate({"rules": rules, **section})
        table = PricesSection.model_validate({"models": prices or []})
        return LimiterServicer(LimiterSettings(), limits, table, store, self.clock)

    async def close(self) -> None:
        for store in self.stores:
            await store.close()


@pytest.fixture
async def limiters(tmp_path: Path) -> AsyncIterator[Limiters]:
    async with embedded_store(tmp_path / "redis", "cache") as url:
        made = Limiters(url)
        yield made
        await made.close()
