"""Leases: shares of the limits that this router spends without asking.

A lease belongs to one spend path and is money already taken: what is admitted from it can never
overshoot. It is renewed before it runs dry and while something of it is in flight, returned when
nobody uses it, and not used after its time less a margin. A lease in hand owns its share until it
is returned, which waits until nothing of it is in flight.

While the limiter or its store does not answer, a lease is used past its time: the ledger counts the
whole share as spent from its expiry until it is returned, so this overshoots nothing. What may be
spent beyond the share then is the overdraft: a part of it for new calls (`overdraft_share`), and
what streams that run already go on to say. It is written into a journal on this machine first, and
settled with the lease, or by the next process where this one is killed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Sequence

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.router.admission.lease import (
    FIRST_CALLS,
    NOTHING,
    PARTS,
    Amounts,
    Lease,
    SpendPath,
)
from penstock.router.admission.limiter_calls import ANSWER_S, LimiterCalls, to_amount
from penstock.router.admission.overdraft_journal import OverdraftJournal
from penstock.router.admission.returned_leases import return_lease
from penstock.router.stages import Deferred
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
KEEP_EVERY_S = 0.25
EXPECTED_KEPT_S = 60.0
"""How long it is remembered that a path holds what calls are expected to cost."""
OVERTIME_S = 1_800.0
"""How long after its last renewal a lease may be used while the limiter does not answer; the ledger
remembers an expired lease for an hour.
"""
MAX_LEASES = 20_000
"""Leases at a time, and paths that are remembered as too tight; beyond this calls hold for
themselves.
"""


class Leases:
    """The leases of this router. Owner must `close` it, after the last settlement."""

    def __init__(
        self,
        limiter: LimiterCalls,
        clock: Clock,
        journal: OverdraftJournal,
        overdraft_share: float = 0.0,
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._journal = journal
        self._overdraft_share = overdraft_share
        self._leases: dict[SpendPath, Lease] = {}
        self._ending: dict[str, Lease] = {}
        """Leases by id that are used no longer and returned once nothing of them is in flight."""
        self._granting: dict[SpendPath, asyncio.Task[bool]] = {}
        self._granted_one = asyncio.Event()
        """Set when there is a lease to keep."""
        self._unleasable_until_s: BoundedMap[SpendPath, float] = BoundedMap(MAX_LEASES)
        """Paths too tight for a lease."""
        self._expecting_until_s: BoundedMap[SpendPath, float] = BoundedMap(MAX_LEASES)
        """Paths on which calls of open length hold for themselves."""

    def draw(self, path: SpendPath, amounts: Amounts) -> Lease | None:
        """Take a call's amounts out of a lease; None where no lease here covers them."""
        lease = self._leases.get(path)
        if lease is None or self._clock.monotonic() >= lease.good_until_s:
            return None
        if not lease.covers(amounts):
            return None
        self._take(lease, amounts)
        if lease.renewing is None and lease.is_low:
            self._renew_later(lease)
        return lease

    def _take(self, lease: Lease, amounts: Amounts) -> None:
        lease.take(amounts)
        if lease.is_overdrawn:
            self._record(lease)

    def _record(self, lease: Lease) -> None:
        ago_s = self._clock.monotonic() - lease.since_s
        self._journal.record(lease, self._clock.time() - ago_s)

    async def draw_granted(
        self, path: SpendPath, call: Call, amounts: Amounts, *, unpriced: bool, ends_s: float
    ) -> Lease | None:
        """As `draw`, from a lease that is granted or renewed for it; None where the call must hold
        for itself. Raises Fault.
        """
        if self._unleasable_until_s.get(path, 0.0) >= self._clock.monotonic():
            return None
        if len(self._leases) >= MAX_LEASES and path not in self._leases:
            return None
        if not await self._granted(path, call, amounts, unpriced, ends_s):
            return None
        drawn = self.draw(path, amounts)
        lease = self._leases.get(path)
        if drawn is None and lease is not None and not lease.is_unanswered:
            # Too little for this call, and no more to be had: what is left goes back, so that it
            # can be held with the rest.
            await self._drop(lease)
        return drawn

    def expects(self, path: SpendPath) -> bool:
        """Whether calls of open length hold for themselves on a path, by what is known of it."""
        return self._expecting_until_s.get(path, 0.0) >= self._clock.monotonic()

    async def draw_more(self, lease: Lease, more: Amounts) -> bool:
        """Take more for a call that has drawn on a lease; False where the lease cannot grow by so
        much: then it serves no new calls, and what is left of it goes back.

        While the limiter does not answer the call goes on: it runs already.
        """
        if not lease.covers(more) and not lease.over:
            await asyncio.shield(self._renew_later(lease, more))
        if lease.covers(more) or lease.is_unanswered:
            self._take(lease, more)
            return True
        self._drop(lease)
        await asyncio.shield(self._renew_later(lease))
        return False

    async def give_up(self, lease: Lease, amounts: Amounts) -> None:
        """Put back what a call drew that must hold for itself; a lease that nobody else uses is
        returned.
        """
        self.settle(lease, amounts, None)
        for part in PARTS:
            lease.used[part] -= amounts[part]
        if not any(lease.used) and not lease.in_flight[0]:
            await self._drop(lease)

    def put_back(self, lease: Lease, amounts: Amounts) -> Deferred:
        """Put back what a call drew and brought no answer for. A scarce lease with nothing in
        flight is returned as well, since another model of the call may need what it holds; gives
        what has to be waited for until it is.
        """
        self.settle(lease, amounts, None)
        stays = lease.over or lease.in_flight[0] or lease.is_unanswered
        return None if stays or not lease.is_scarce else self._returned(lease)

    async def _returned(self, lease: Lease) -> None:
        """Return a lease unless it is in use again."""
        if not lease.over and not lease.in_flight[0]:
            await self._drop(lease)

    def settle(self, lease: Lease, amounts: Amounts, spent: Amounts | None) -> None:
        """Book what a call has spent of what it drew; None is nothing."""
        lease.settle(amounts, spent or NOTHING)
        if lease.id in self._journal:
            self._record(lease)
        if lease.over and not lease.in_flight[0]:
            self._give_back(lease)

    async def _granted(
        self, path: SpendPath, call: Call, amounts: Amounts, unpriced: bool, ends_s: float
    ) -> bool:
        """Have a lease for a path; callers of one path wait for one grant."""
        lease = self._leases.get(path)
        if lease is not None and self._clock.monotonic() < lease.good_until_s:
            if not lease.unlimited and not lease.covers(amounts):
                await asyncio.shield(self._renew_later(lease, amounts))
            return path in self._leases
        granting = self._granting.get(path)
        if granting is None:
            granting = asyncio.create_task(
                self._grant(path, call, amounts, unpriced, ends_s), name="grant a lease"
            )
            self._granting[path] = granting
            granting.add_done_callback(lambda _: self._granting.pop(path, None))
        return await asyncio.shield(granting)

    async def _grant(
        self, path: SpendPath, call: Call, amounts: Amounts, unpriced: bool, ends_s: float
    ) -> bool:
        old = self._leases.pop(path, None)
        if old is not None:
            self._give_back(old)
        now = self._clock.monotonic()
        request = pb.GrantLeaseRequest(
            lease_id=secrets.token_hex(12),
            model=path.model,
            wanted=to_amount([part * FIRST_CALLS for part in amounts]),
            least=to_amount(amounts),
            unpriced=unpriced,
        )
        try:
            answer: pb.GrantLeaseResponse = await self._limiter.ask(
                "GrantLease", request, call, ends_s
            )
        except BaseException:
            # Whether it was granted is not known, so it is given back.
            self._return(request.lease_id, path, NOTHING)
            raise
        ttl_s = answer.ttl_ms / 1e3
        if answer.decision.verdict != pb.VERDICT_ALLOWED or answer.reserve_each:
            # Refused or tight: calls ask one by one for a while, and each is told its own reason.
            self._unleasable_until_s.put(path, now + (ttl_s if answer.reserve_each else 0.0))
            return False
        if answer.holds_expected:
            self._expecting_until_s.put(path, now + EXPECTED_KEPT_S)
        granted = [answer.granted.requests, answer.granted.tokens, answer.granted.microusd]
        lease = self._leases[path] = Lease.granted(request.lease_id, path, granted, now, ttl_s)
        self._granted_one.set()
        lease.is_scarce = any(granted[part] < amounts[part] * FIRST_CALLS for part in PARTS)
        return True

    def _renew_later(self, lease: Lease, needed: Amounts = NOTHING) -> asyncio.Task[None]:
        if lease.renewing is None:
            lease.renewing = self._limiter.later(self._renew(lease, needed))
        return lease.renewing

    async def _renew(self, lease: Lease, needed: Amounts) -> None:
        """Report what was spent and fill the share up to what the path has been using."""
        try:
            if not lease.unlimited:
                await self._renewed(lease, needed)
        except Fault:
            self._use_past_its_time(lease)
        finally:
            lease.renewing = None

    async def _renewed(self, lease: Lease, needed: Amounts) -> None:
        now, reported = self._clock.monotonic(), list(lease.spent)
        call = Call(lease.path.principal, lease.path.priority, deadline_s=now + ANSWER_S)
        request = pb.RenewLeaseRequest(
            lease_id=lease.id,
            spent=to_amount(reported),
            wanted=to_amount(lease.wanted(now, needed)),
        )
        answer: pb.RenewLeaseResponse = await self._limiter.ask("RenewLease", request, call)
        if answer.decision.verdict == pb.VERDICT_STORE_UNAVAILABLE:
            self._use_past_its_time(lease)
            return
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            lease.renew_at_s = math.inf  # the ledger does not know it: it is only returned
            self._drop(lease)
            return
        granted = (answer.granted.requests, answer.granted.tokens, answer.granted.microusd)
        lease.refill(granted, reported, now)
        if not lease.is_overdrawn:
            self._journal.settled(lease.id)

    def _use_past_its_time(self, lease: Lease) -> None:
        """The limiter or its store has not answered: go on with what is in hand."""
        lease.is_unanswered = True
        lease.good_until_s = max(lease.good_until_s, lease.since_s + OVERTIME_S)
        if (
            lease.overdraft == NOTHING
            and self._overdraft_share > 0
            and not lease.unlimited
            and self._journal.is_ready()
        ):
            requests, tokens, microusd = (int(part * self._overdraft_share) for part in lease.share)
            lease.overdraft = (requests, tokens, microusd)
            log.warning(
                "the limiter does not answer: %s may overdraw its lease for %s by %d requests, %d "
                "tokens, %d micro-dollars",
                lease.path.principal.organisation,
                lease.path.model,
                *lease.overdraft,
            )

    def _drop(self, lease: Lease) -> asyncio.Future[None]:
        if self._leases.get(lease.path) is lease:
            del self._leases[lease.path]
        return self._give_back(lease)

    def _give_back(self, lease: Lease) -> asyncio.Future[None]:
        """Return a lease once nothing of it is in flight any more; the future is done when it is
        returned, or must wait.
        """
        lease.over = True
        if not lease.in_flight[0]:
            self._ending.pop(lease.id, None)
            return self._return(lease.id, lease.path, lease.spent)
        self._ending[lease.id] = lease
        waiting = asyncio.get_running_loop().create_future()
        waiting.set_result(None)
        return waiting

    def _return(self, lease_id: str, path: SpendPath, spent: Sequence[int]) -> asyncio.Task[None]:
        return self._limiter.later(self._return_now(lease_id, path, spent))

    async def _return_now(self, lease_id: str, path: SpendPath, spent: Sequence[int]) -> None:
        """Where the limiter stays away, what was overdrawn stays in the journal."""
        if await return_lease(self._limiter, lease_id, path, spent):
            self._journal.settled(lease_id)

    async def keep(self) -> None:
        """Renew what is used or in flight and return what is not, for ever."""
        while True:
            if not self._leases and not self._ending:
                self._granted_one.clear()
                await self._granted_one.wait()
            await self._clock.sleep(KEEP_EVERY_S)
            now = self._clock.monotonic()
            for lease in (*self._leases.values(), *self._ending.values()):
                if now < lease.renew_at_s:
                    continue
                is_used = any(lease.used) or lease.in_flight[0] > 0
                if is_used and not lease.unlimited:
                    self._renew_later(lease)
                elif lease.id not in self._ending and (now >= lease.good_until_s or not is_used):
                    self._drop(lease)

    async def close(self) -> None:
        """Return every lease, those included whose grant is still under way."""
        await asyncio.gather(*self._granting.values(), return_exceptions=True)
        for lease in list(self._leases.values()):
            self._drop(lease)
