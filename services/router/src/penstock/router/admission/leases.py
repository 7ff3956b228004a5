"""Leases: shares of the limits that this router spends without asking.

A lease belongs to one spend path and is money already taken: what is admitted from it can never
overshoot. It is renewed before it runs dry, returned when nobody uses it, and not used after its
time less a margin. A lease in hand owns its share until it is returned, which waits until nothing
of it is in flight.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.router.admission.limiter_calls import ANSWER_S, LimiterCalls, to_amount
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.clock import Clock

UNBOUNDED = 2**53 - 1
"""Share of a path on which no rule counts anything."""
MARGIN = 0.2
"""Part of a lease's time in which it is no longer used."""
RENEW_AT = 0.5
"""A lease is renewed when so much of its share or of its time has gone."""
FIRST_CALLS = 32
"""A new lease asks for so many calls like the one at hand."""
KEEP_EVERY_S = 0.25
MIN_USE_S = 0.05
"""Shortest time that a rate of use is taken over."""

Amounts = tuple[int, int, int]
"""Requests, tokens, micro-dollars."""
NOTHING: Amounts = (0, 0, 0)
PARTS = (0, 1, 2)


class SpendPath(NamedTuple):
    """Who spends, on which model, how urgently: what limits are looked up by."""

    principal: Principal
    model: str
    priority: int


@dataclass(slots=True)
class Lease:
    """A share that is here. Lists hold requests, tokens and micro-dollars."""

    id: str
    path: SpendPath
    good_until_s: float
    renew_at_s: float
    left: list[int]
    low: list[int]
    """Below this, the lease is renewed."""
    in_flight: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted and not yet settled, at what it may cost at most."""
    spent: list[int] = field(default_factory=lambda: [0, 0, 0])
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted since the last renewal: what the next share is sized by."""
    since_s: float = 0.0
    renewing: asyncio.Task[None] | None = None
    over: bool = False

    @property
    def unlimited(self) -> bool:
        """Whether no rule counts anything on the path."""
        return min(self.left) >= UNBOUNDED // 2

    def covers(self, amounts: Amounts) -> bool:
        """Whether so much is left."""
        left = self.left
        return left[0] >= amounts[0] and left[1] >= amounts[1] and left[2] >= amounts[2]


class Leases:
    """The leases of this router. Owner must `close` it, after the last settlement."""

    def __init__(self, limiter: LimiterCalls, clock: Clock) -> None:
        self._limiter = limiter
        self._clock = clock
        self._leases: dict[SpendPath, Lease] = {}
        self._granting: dict[SpendPath, asyncio.Task[bool]] = {}
        self._unleasable_until_s: dict[SpendPath, float] = {}
        """Paths too tight for a lease."""

    def draw(self, path: SpendPath, amounts: Amounts) -> Lease | None:
        """Take a call's amounts out of a lease; None where no lease here covers them."""
        lease = self._leases.get(path)
        if lease is None or self._clock.monotonic() >= lease.good_until_s:
            return None
        if not lease.covers(amounts):
            return None
        left, in_flight, used, low = lease.left, lease.in_flight, lease.used, lease.low
        for part in PARTS:
            left[part] -= amounts[part]
            in_flight[part] += amounts[part]
            used[part] += amounts[part]
        if lease.renewing is None and (left[0] < low[0] or left[1] < low[1] or left[2] < low[2]):
            self._renew_later(lease)
        return lease

    async def draw_granted(
        self, path: SpendPath, call: Call, amounts: Amounts, *, unpriced: bool, ends_s: float
    ) -> Lease | None:
        """As `draw`, from a lease that is granted or renewed for it; None where the call must hold
        for itself. Raises Fault.
        """
        if self._unleasable_until_s.get(path, 0.0) >= self._clock.monotonic():
            return None
        if not await self._granted(path, call, amounts, unpriced, ends_s):
            return None
        drawn = self.draw(path, amounts)
        lease = self._leases.get(path)
        if drawn is None and lease is not None:
            # Too little for this call, and no more to be had: what is left goes back, so that it
            # can be held with the rest.
            await self._drop(lease)
        return drawn

    def settle(self, lease: Lease, amounts: Amounts, spent: Amounts | None) -> None:
        """Book what a call has spent of what it drew; None is nothing."""
        done = spent or NOTHING
        for part in PARTS:
            lease.in_flight[part] -= amounts[part]
            lease.spent[part] += done[part]
            lease.left[part] += amounts[part] - done[part]
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
        answer: pb.GrantLeaseResponse = await self._limiter.ask("GrantLease", request, call, ends_s)
        ttl_s = answer.ttl_ms / 1e3
        if answer.decision.verdict != pb.VERDICT_ALLOWED or answer.reserve_each:
            # Refused or tight: calls ask one by one for a while, and each is told its own reason.
            self._unleasable_until_s[path] = now + (ttl_s if answer.reserve_each else 0.0)
            return False
        granted = [answer.granted.requests, answer.granted.tokens, answer.granted.microusd]
        good_until_s, renew_at_s = now + ttl_s * (1 - MARGIN), now + ttl_s * RENEW_AT
        low = _low(granted)
        self._leases[path] = Lease(
            request.lease_id, path, good_until_s, renew_at_s, granted, low, since_s=now
        )
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
            return  # the lease stands until its time; the next one asks again
        finally:
            lease.renewing = None

    async def _renewed(self, lease: Lease, needed: Amounts) -> None:
        now, reported = self._clock.monotonic(), list(lease.spent)
        ttl_s = (lease.good_until_s - lease.since_s) / (1 - MARGIN)
        scale = ttl_s / max(now - lease.since_s, MIN_USE_S)
        wanted = [
            lease.in_flight[part] + max(round(lease.used[part] * scale), needed[part] * FIRST_CALLS)
            for part in PARTS
        ]
        call = Call(lease.path.principal, lease.path.priority, deadline_s=now + ANSWER_S)
        request = pb.RenewLeaseRequest(
            lease_id=lease.id, spent=to_amount(reported), wanted=to_amount(wanted)
        )
        answer: pb.RenewLeaseResponse = await self._limiter.ask("RenewLease", request, call)
        if answer.decision.verdict == pb.VERDICT_STORE_UNAVAILABLE:
            return  # what is held is still good, until its time
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            self._drop(lease)
            return
        granted = (answer.granted.requests, answer.granted.tokens, answer.granted.microusd)
        for part in PARTS:
            settled = lease.spent[part] - reported[part]
            lease.left[part] = granted[part]
            if granted[part] < UNBOUNDED:
                lease.left[part] -= settled + lease.in_flight[part]
        lease.low, lease.used, lease.since_s = _low(lease.left), [0, 0, 0], now
        lease.good_until_s, lease.renew_at_s = now + ttl_s * (1 - MARGIN), now + ttl_s * RENEW_AT

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
            request = pb.ReturnLeaseRequest(lease_id=lease.id, spent=to_amount(lease.spent))
            call = Call(lease.path.principal, lease.path.priority)
            return self._limiter.later(self._limiter.repeat("ReturnLease", request, call))
        waiting = asyncio.get_running_loop().create_future()
        waiting.set_result(None)
        return waiting

    async def keep(self) -> None:
        """Renew what is used and return what is not, for ever."""
        while True:
            await self._clock.sleep(KEEP_EVERY_S)
            now = self._clock.monotonic()
            for lease in list(self._leases.values()):
                if now < lease.renew_at_s:
                    continue
                if any(lease.used) and not lease.unlimited:
                    self._renew_later(lease)
                elif now >= lease.good_until_s or not any(lease.used):
                    self._drop(lease)

    def return_all(self) -> None:
        """Return every lease."""
        for lease in list(self._leases.values()):
            self._drop(lease)


def _low(share: list[int]) -> list[int]:
    return [0 if part >= UNBOUNDED // 2 else int(part * RENEW_AT) for part in share]
