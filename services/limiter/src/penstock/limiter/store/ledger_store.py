"""The ledger's operations on its store, for every organisation.

Each operation is one run of the script (`script.py`); the connection (`connection.py`) raises
StoreLost while the store is slow or lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import redis.asyncio
from penstock.limiter.counters import Amounts, Counter, organisation_prefix
from penstock.limiter.script import (
    CounterUsage,
    PathRows,
    Renewal,
    Reservation,
    Ruling,
    ScriptCall,
    ScriptReply,
    Settlement,
    parse_extended,
    parse_numbers,
    parse_renewed,
    parse_reserved,
    parse_settled,
    parse_usage,
    renew_arguments,
    reserve_arguments,
    to_json,
)
from penstock.limiter.store.audit_log import AuditLog
from penstock.limiter.store.connection import StoreConnection, StoreTimings
from penstock.limiter.store.errors import StoreLost, store_errors_as_lost
from penstock.limiter.store.replay import (
    differing_counters,
    first_entry,
    parse_states,
    replay_stream,
)
from penstock.service.clock import Clock
from penstock.service.durability import StoreFacts

DEFAULT_TIMINGS = StoreTimings()
MAX_LEDGER_BYTES = 32 * 2**20
"""Bytes of the entries that an organisation's ledger keeps one by one; older ones are folded into a
sum a counter.
"""


class LedgerStore:
    """The ledgers of all organisations; owns the client.

    Args:
        now_us: Unix microseconds to use in place of the store's clock, for replays; 0: the store's.
        state_kinds: what the state of each rule's counters depends on, by rule; for a migration.
        on_connected: is told what the store says of itself, whenever it is found.
        max_ledger_bytes: bytes of a ledger's entries that are kept before older ones are folded.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        clock: Clock,
        timings: StoreTimings = DEFAULT_TIMINGS,
        now_us: Callable[[], int] = lambda: 0,
        max_ledger_bytes: int = MAX_LEDGER_BYTES,
        on_connected: Callable[[StoreFacts], None] = lambda _: None,
        state_kinds: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._client = client
        self._connection = StoreConnection(
            client, clock, timings, now_us, max_ledger_bytes, on_connected, state_kinds
        )
        self.audit_log = AuditLog(client)

    @property
    def is_slow(self) -> bool:
        """True while a batch in flight has used up its allowance."""
        return self._connection.is_slow

    @property
    def is_lost(self) -> bool:
        """True from a failure of the store until a probe is answered."""
        return self._connection.is_lost

    @property
    def owed_settlements(self) -> int:
        """Settlements that the store has not taken yet."""
        return len(self._connection.owed.pending)

    @property
    def restarted_s(self) -> float:
        """When the store was last found to have been restarted, by the monotonic clock."""
        return self._connection.restarted_s

    async def connect(self) -> None:
        """Connect before the first caller; a store that is away is probed in the background."""
        await self._connection.connect()

    async def close(self) -> None:
        """End background work and close the client."""
        await self._connection.close()

    async def reserve(
        self,
        organisation: str,
        hold_id: str,
        path: Sequence[Counter],
        reservation: Reservation,
        wait_s: float = 0.0,
    ) -> Ruling:
        """Hold what a call may cost on every counter of its path or on none, or grant a lease.

        Args:
            wait_s: how long to wait for a slow or lost store. A reservation without a time to live
                is not remembered by its id, so it must not wait.

        Raises:
            StoreLost: the store does not answer; it may have reserved all the same.
        """
        arguments = reserve_arguments(hold_id, path, reservation)
        return parse_reserved(await self.run("reserve", organisation, arguments, wait_s))

    async def extend(
        self, organisation: str, hold_id: str, max_cost: Amounts, fence: int = 0
    ) -> Ruling:
        """Enlarge an open hold to a new maximum; raises StoreLost."""
        reply = await self.run("extend", organisation, to_json(hold_id, max_cost, fence))
        return parse_extended(reply, organisation)

    async def settle(
        self,
        organisation: str,
        hold_id: str,
        spent: Amounts,
        path: Sequence[Counter] = (),
        unbooked: Sequence[Counter] = (),
        fence: int = 0,
    ) -> Settlement:
        """End a hold with what was spent, on the store's disk; if the store is lost, do so when it
        answers again.

        Args:
            path: where to book what was spent if the store has forgotten the hold.
            unbooked: the same for a settlement that has been owed for long. Empty unless the call
                passed while the store was lost, because such a settlement may come when a hold that
                was settled is no longer remembered, and would be booked twice.
            fence: that of the hold.

        Raises:
            StoreLost: the settlement is owed.
        """
        try:
            reply = await self.run("settle", organisation, to_json(hold_id, spent, [], fence))
            if reply[0] < 0 and path:
                arguments = to_json(hold_id, spent, PathRows(path), fence)
                reply = await self.run("settle", organisation, arguments)
            if not fence:  # the end of the work is written after this, and is waited for
                await self._connection.durable()
        except StoreLost:
            self.owe(organisation, hold_id, spent, path, unbooked, fence)
            raise
        return parse_settled(reply)

    def owe(
        self,
        organisation: str,
        hold_id: str,
        spent: Amounts,
        path: Sequence[Counter] = (),
        unbooked: Sequence[Counter] = (),
        fence: int = 0,
    ) -> None:
        """Settle a hold as soon as the store answers again; arguments as of `settle`."""
        fresh, late = (
            ScriptCall(
                "settle",
                organisation_prefix(organisation),
                to_json(hold_id, spent, PathRows(counters), fence),
            )
            for counters in (path or unbooked, unbooked)
        )
        self._connection.owed.add(organisation, hold_id, fresh, late)

    async def renew(self, organisation: str, lease_id: str, renewal: Renewal) -> Ruling:
        """Book what a lease has spent, and fill it up again; raises StoreLost."""
        reply = await self.run("renew", organisation, renew_arguments(lease_id, renewal))
        return parse_renewed(reply, organisation)

    async def usage(self, organisation: str, path: Sequence[Counter]) -> list[CounterUsage]:
        """The state of each counter of a path.

        Raises:
            StoreLost: the store does not answer.
            StaleWindows: the windows of the counters are not those of the store's clock.
        """
        return parse_usage(await self.run("usage", organisation, to_json(PathRows(path))))

    async def adjust(
        self, organisation: str, counter: Counter, amount: int, *, is_reset: bool = False
    ) -> tuple[int, int]:
        """Add to what a counter has committed, or set it to 0; returns it before and after.

        Raises:
            StoreLost: the store does not answer.
            StaleWindows: the windows of the counter are not those of the store's clock.
        """
        arguments = to_json(counter.row(), amount, int(is_reset))
        before, after = parse_numbers(await self.run("adjust", organisation, arguments))
        return before, after

    async def drain(self, organisation: str, on: bool) -> int:
        """Refuse new holds, or allow them again; returns the open holds. Raises StoreLost."""
        return int((await self.run("drain", organisation, to_json(int(on))))[0])

    async def set_limit(self, organisation: str, counter: Counter, limit: int | None) -> None:
        """Set another limit of one counter, or with None the rule's own. Raises StoreLost."""
        key = organisation_prefix(organisation) + "limits"
        with store_errors_as_lost():
            if limit is None:
                await self._client.hdel(key, counter.key)
            else:
                await self._client.hset(key, counter.key, str(limit))

    async def verify(self, organisation: str, wait_s: float = 0.0) -> tuple[int, list[str]]:
        """Replay an organisation's ledger and compare it with the counters.

        Args:
            wait_s: how long to wait for a slow or lost store to answer, and then begin again.

        Returns the number of its entries, and the counters that differ. Raises StoreLost.
        """
        ends_s = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                verified = await self._verified_once(organisation)
            except StoreLost:
                if not await self._connection.answers_before(ends_s):
                    raise
                continue
            if verified is not None:
                return verified

    async def _verified_once(self, organisation: str) -> tuple[int, list[str]] | None:
        """None where entries were folded meanwhile, so that the replay lacks them."""
        ledger = organisation_prefix(organisation) + "ledger"
        last, first, sums, *rest = await self.run("snapshot", organisation, to_json())
        texts = [text.decode() for text in rest]
        folded, stored = parse_states(texts[: 2 * sums]), parse_states(texts[2 * sums :])
        with store_errors_as_lost():
            entries, replayed = await replay_stream(self._client, ledger, last, folded)
            if await first_entry(self._client, ledger) != first:
                return None
        return entries, differing_counters(replayed, stored)

    async def durable(self) -> None:
        """Return when what the store has executed is on its disk; raises StoreLost."""
        await self._connection.durable()

    async def run(
        self, operation: str, organisation: str, arguments: str, wait_s: float = 0.0
    ) -> ScriptReply:
        """The reply of one operation of the script.

        Args:
            arguments: a JSON array.
            wait_s: how long to wait for a slow or lost store, and then run it again.

        Raises:
            StoreLost: the store does not answer; it may have run it all the same.
        """
        call = ScriptCall(operation, organisation_prefix(organisation), arguments)
        return await self._connection.run(call, wait_s)
