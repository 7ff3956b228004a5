"""The schema of what the limiter keeps in its store: stands there as a number, and is migrated or
refused.

Schema 2 names a counter by rule, kind and value (`ledger/prelude.lua`). Schema 1 had no number and
named it by rule and value. All limiters of schema 1 must be stopped before one of schema 2 starts.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import redis.asyncio
from penstock.limiter.script import ScriptCall, to_json
from penstock.service.program import CannotStart

log = logging.getLogger(__name__)
SCHEMA = 2
KEY = "penstock:limiter:schema"
LISTS_OF_COUNTERS = "penstock:limiter:{*}:counters"
SCANNED_AT_ONCE = 1_000


class WrongSchema(CannotStart):
    """The store holds a ledger of a schema that this limiter does not know."""


async def ensure_schema(
    client: redis.asyncio.Redis,
    run: Callable[[ScriptCall], Awaitable[object]],
    state_kinds: Mapping[str, str],
) -> None:
    """Make sure that the store's ledger has this schema; migrate one of schema 1.

    Args:
        run: runs one call of the ledger script.
        state_kinds: what the state of each rule's counters depends on, by rule.

    Raises:
        WrongSchema: the ledger is of another schema.
    """
    found = await client.get(KEY)
    if found is None:
        async for prefix in _organisations(client):
            await run(ScriptCall("migrate", prefix, to_json(dict(state_kinds))))
            log.warning("the ledger of %s was migrated from schema 1 to %d", prefix, SCHEMA)
        await client.set(KEY, SCHEMA)
    elif int(found) != SCHEMA:
        raise WrongSchema(
            f"the ledger in PENSTOCK_LEDGER_URL has schema {int(found)}, and this limiter writes "
            f"{SCHEMA}: run the version that wrote it, or give this one a store of its own"
        )


async def _organisations(client: redis.asyncio.Redis) -> AsyncIterator[str]:
    """The key prefixes of organisations that have budgets."""
    async for key in client.scan_iter(match=LISTS_OF_COUNTERS, count=SCANNED_AT_ONCE):
        yield key.decode().removesuffix("counters")
