"""The ledger's schema stands in its store: an older one is migrated, another one refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from penstock.limiter.counters import SpendPath, counters_of, state_kind
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import Reservation
from penstock.limiter.store import schema
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.limiter.store.schema import SCHEMA, WrongSchema
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from redis.asyncio import Redis

NOW_S = 1_800_000_000.0
RULES = LimitsSection.model_validate(
    {
        "rules": [
            {
                "name": "month",
                "kind": "budget",
                "level": "model",
                "counts": "microusd",
                "limit": 1_000,
                "window": "month",
                "calendar": True,
                "adaptive": False,
            }
        ]
    }
)
PATH = SpendPath("acme", model="big model")
OLD_KEY = "penstock:limiter:{acme}:c:month:big model"


def store_of(client: Redis) -> LedgerStore:
    return LedgerStore(
        client,
        FakeClock(NOW_S),
        StoreTimings(timeout_s=5.0),
        now_us=lambda: round(NOW_S * 1e6),
        state_kinds=lambda: {rule.name: state_kind(rule) for rule in RULES.rules},
    )


async def write_schema_1(client: Redis) -> None:
    """A ledger as schema 1 left it: 300 committed, 200 held, and a limit of an operator's."""
    store = store_of(client)
    (counter,) = counters_of(RULES, PATH, NOW_S)
    old = replace(counter, key=OLD_KEY)
    for hold_id, cost in (("a", 300), ("b", 200)):
        amounts = [1, cost, cost]
        reservation = Reservation(amounts, amounts, amounts, 60_000)
        await store.reserve("acme", hold_id, [old], reservation)
    await store.settle("acme", "a", [1, 300, 300])
    await store.set_limit("acme", old, 5_000)


async def test_a_ledger_of_schema_1_is_migrated_with_its_holds_and_limits(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as url, open_store(url) as client:
        await write_schema_1(client)
        store = store_of(client)
        await store.connect()
        path = counters_of(RULES, PATH, NOW_S)
        (usage,) = await store.usage("acme", path)
        assert (usage.limit, usage.committed, usage.held) == (5_000, 300, 200)
        await store.settle("acme", "b", [1, 150, 150])
        (usage,) = await store.usage("acme", path)
        assert (usage.committed, usage.held) == (450, 0)
        assert (await store.verify("acme"))[1] == []
        assert int(await client.get(schema.KEY)) == SCHEMA
        assert not await client.exists(OLD_KEY)
        await store.close()


async def test_an_empty_store_gets_the_schema_and_another_one_is_refused(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as url, open_store(url) as client:
        first: Any = store_of(open_store(url))
        await first.connect()
        await first.close()
        assert int(await client.get(schema.KEY)) == SCHEMA
        await client.set(schema.KEY, SCHEMA + 1)
        second = store_of(open_store(url))
        with pytest.raises(WrongSchema, match=f"schema {SCHEMA + 1}"):
            await second.connect()
        await second.close()
