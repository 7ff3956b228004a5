"""Admission through the limiter: from a leased share without a call where that is possible, with a
hold of its own where it is not.

A lease belongs to one path (principal, model, urgency) and is money already taken: what is admitted
from it can never overshoot. It is renewed before it runs dry, returned when nobody uses it, and not
used after its time less a margin. Calls that generate may outlive a lease, so they hold for
themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.requests.work import Work
from penstock.router.stages import Admitted, Later, Spent
from penstock.rpc.call import Call, Principal
from penstock.rpc.reasons import Reason
from penstock.rpc.errors import Fault, denied, exhausted, unavailable
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock

UNBOUNDED = 2**53 - 1
MARGIN = 0.2
"""Part of a lease's time in which it is no longer used."""
RENEW_AT = 0.5
"""A lease is renewed when so much of its share or of its time has gone."""
FIRST_CALLS = 32
"""A new lease asks for so many calls like the one at hand."""
ANSWER_S = 0.5
"""Longest wait for the limiter after a call has been admitted: renewals, extensions, settlements.
"""
ADMIT_SHARE, ADMIT_S = 0.5, 4.0
"""Part of a call's time that its admission may take, and the most of it: a store that is slow for a
moment costs waiting, not a refusal.
"""
ADMIT_ANSWER_S = 2.5
"""Longest wait for one answer of the limiter during an admission; it waits for its store for at
most 2 s.
"""
LONGEST_ROUTE = 128
AGAIN_S = (0.0, 0.2, 1.0, 5.0, 25.0)
"""Pauses before each try to settle."""
EXTEND_TOKENS = 256
"""A stream's hold is looked at again after so many output tokens."""

Vector = tuple[int, int, int]
Path = tuple[Principal, str, int]
LOST = "LIMITS_UNAVAILABLE"
"""Reason of a call that is refused because the limiter's store does not answer."""
REASONS = {
    pb.VERDICT_RATE_LIMITED: "RATE_LIMITED",
    pb.VERDICT_BUDGET_EXHAUSTED: "BUDGET_EXHAUSTED",
    pb.VERDICT_SHED: "SHED",
    pb.VERDICT_NEVER: "NEVER_FITS",
    pb.VERDICT_UNPRICED: "NO_PRICE",
    pb.VERDICT_DRAINED: "DRAINED",
    pb.VERDICT_STORE_UNAVAILABLE: LOST,
}


@dataclass(slots=True)
class Lease:
    """A share in this router's hands. Counts are requests, tokens, micro-dollars."""

    id: str
    path: Path
    unpriced: bool
    good_until_s: float
    renew_at_s: float
    left: list[int]
    low: list[int]
    """Below this, the lease is renewed."""
    flight: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted and not yet settled, at what it may cost at most."""
    spent: list[int] = field(default_factory=lambda: [0, 0, 0])
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted since the last renewal: what the next share is sized by."""
    since_s: float = 0.0
    renewing: asyncio.Task[None] | None = None
    over: bool = False


@dataclass(slots=True)
class Ticket:
    """What one admitted call may spend, and of which lease or hold."""

    call: Call
    most: Vector
    least: Vector
    lease: Lease | None = None
    hold_id: str = ""
    covered: int = 0
    """Output tokens that the hold covers."""


class LimiterAdmission:
    """The admission stage of a router with a limiter. Owns its leases; `close` returns them."""

    def __init__(
        self,
        peer: Peer,
        prices: Callable[[], Prices],
        clock: Clock,
        on_loss: Literal["closed", "open"] = "closed",
    ) -> None:
        self._peer, self._prices, self._clock, self._on_loss = peer, prices, clock, on_loss
        self._leases: dict[Path, Lease] = {}
        self._granting: dict[Path, asyncio.Task[bool]] = {}
        self._each: dict[Path, float] = {}
        """Paths too tight for a lease, until when."""
        self._after: set[asyncio.Task[None]] = set()

    def at_once(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted | None:
        """Let a call go on from a lease in hand; None where the limiter has to be asked.

        Raises the Fault that its caller is told.
        """
        admitted = self._from_hand(call, options, work)
        return admitted if isinstance(admitted, Admitted) else None

    async def admit(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted:
        """Let a call go on from a lease or with a hold of its own; raises the Fault that its caller
        is told.
        """
        asked = self._from_hand(call, options, work)
        return (
            asked
            if isinstance(asked, Admitted)
            else await self._slowly(call, work, _route(options, work), asked)
        )

    def _from_hand(
        self, call: Call, options: router_pb2.CallOptions, work: Work
    ) -> Admitted | tuple[Path, Vector, bool]:
        """From a lease in hand; otherwise what the limiter has to be asked for."""
        path = (call.principal, work.model, call.priority)
        money = self._prices().most_microusd(work.model, work.input_bound, work.output_tokens)
        tokens, cost = work.input_bound + work.output_tokens, money or 0
        if options.HasField("max_cost_microusd") and cost > options.max_cost_microusd:
            raise exhausted(
                f"options.max_cost_microusd: this call may cost {cost} micro-dollars, "
                f"{options.max_cost_microusd} are allowed",
                "COST_CEILING",
            )
        lease = self._leases.get(path)
        if lease is not None and self._clock.monotonic() < lease.good_until_s:
            left = lease.left
            if left[0] >= 1 and left[1] >= tokens and left[2] >= cost and work.kind != "generate":
                return self._take(lease, call, (1, tokens, cost), work)
        return path, (1, tokens, cost), money is None

    def _take(self, lease: Lease, call: Call, most: Vector, work: Work) -> Admitted:
        left, flight, used, low = lease.left, lease.flight, lease.used, lease.low
        for d in (0, 1, 2):
            left[d] -= most[d]
            flight[d] += most[d]
            used[d] += most[d]
        if lease.renewing is None and (left[0] < low[0] or left[1] < low[1] or left[2] < low[2]):
            self._renew_later(lease)
        return Admitted(Ticket(call, most, (1, work.input_tokens, 0), lease))

    async def _slowly(
        self, call: Call, work: Work, route: str, asked: tuple[Path, Vector, bool]
    ) -> Admitted:
        """Grant or renew a lease where that helps; otherwise hold for this call alone."""
        now = self._clock.monotonic()
        ends_s = now + min(ADMIT_S, ADMIT_SHARE * call.remaining_s(now))
        try:
            return await self._asked(call, work, route, asked, ends_s)
        except Fault as fault:
            if fault.reason != LOST or self._clock.monotonic() >= ends_s:
                raise
        return await self._asked(call, work, route, asked, ends_s)

    async def _asked(
        self, call: Call, work: Work, route: str, asked: tuple[Path, Vector, bool], ends_s: float
    ) -> Admitted:
        path, most, unpriced = asked
        try:
            leasable = (
                work.kind != "generate" and self._each.get(path, 0.0) < self._clock.monotonic()
            )
            if leasable and await self._leased(path, call, most, unpriced, ends_s):
                lease = self._leases.get(path)
                if lease is not None and all(
                    have >= need for have, need in zip(lease.left, most, strict=True)
                ):
                    return self._take(lease, call, most, work)
                # Too little for this call, and no more to be had: what is left goes back, so that
                # it can be held with the rest.
                if lease is not None:
                    await self._drop(lease)
            return await self._reserve(call, work, route, ends_s)
        except Fault as fault:
            if (
                fault.code != grpc.StatusCode.UNAVAILABLE
                or self._on_loss == "closed"
                or fault.reason
            ):
                raise
            return Admitted(None, ("limiter unavailable: nothing was limited",))

    async def _leased(
        self, path: Path, call: Call, most: Vector, unpriced: bool, ends_s: float
    ) -> bool:
        """Have a lease in hand for a path; callers of one path wait for one grant."""
        lease = self._leases.get(path)
        if lease is not None and self._clock.monotonic() < lease.good_until_s:
            if not _free(lease) and any(
                have < need for have, need in zip(lease.left, most, strict=True)
            ):
                self._renew_later(lease, most)
                assert lease.renewing is not None
                await asyncio.shield(lease.renewing)
            return path in self._leases
        granting = self._granting.get(path)
        if granting is None:
            granting = asyncio.create_task(
                self._grant(path, call, most, unpriced, ends_s), name="grant a lease"
            )
            self._granting[path] = granting
            granting.add_done_callback(lambda _: self._granting.pop(path, None))
        return await asyncio.shield(granting)

    async def _grant(
        self, path: Path, call: Call, most: Vector, unpriced: bool, ends_s: float
    ) -> bool:
        old = self._leases.pop(path, None)
        if old is not None:
            self._give_back(old)
        now = self._clock.monotonic()
        request = pb.GrantLeaseRequest(
            lease_id=secrets.token_hex(12),
            model=path[1],
            wanted=_amount([part * FIRST_CALLS for part in most]),
            least=_amount(most),
            unpriced=unpriced,
        )
        answer: pb.GrantLeaseResponse = await self._ask("GrantLease", request, call, ends_s)
        ttl_s = answer.ttl_ms / 1e3
        if answer.decision.verdict != pb.VERDICT_ALLOWED or answer.reserve_each:
            # Refused or tight: calls ask one by one for a while, and each is told its own reason.
            self._each[path] = now + (ttl_s if answer.reserve_each else 0.0)
            return False
        granted = [answer.granted.requests, answer.granted.tokens, answer.granted.microusd]
        self._leases[path] = Lease(
            request.lease_id,
            path,
            unpriced,
            now + ttl_s * (1 - MARGIN),
            now + ttl_s * RENEW_AT,
            granted,
            _low(granted),
            since_s=now,
        )
        return True

    def _renew_later(self, lease: Lease, need: Vector = (0, 0, 0)) -> None:
        if lease.renewing is None and not _free(lease):
            lease.renewing = self._later(self._renew(lease, need))

    async def _renew(self, lease: Lease, need: Vector) -> None:
        """Report what was spent and fill the share up to what the path has been using."""
        now = self._clock.monotonic()
        reported, ttl_s = list(lease.spent), (lease.good_until_s - lease.since_s) / (1 - MARGIN)
        share = ttl_s / max(now - lease.since_s, 0.05)
        wanted = [
            lease.flight[d] + max(round(lease.used[d] * share), need[d] * FIRST_CALLS, need[d])
            for d in (0, 1, 2)
        ]
        call = Call(lease.path[0], lease.path[2], deadline_s=now + ANSWER_S)
        request = pb.RenewLeaseRequest(
            lease_id=lease.id, spent=_amount(reported), wanted=_amount(wanted)
        )
        try:
            answer: pb.RenewLeaseResponse = await self._ask("RenewLease", request, call)
        except Fault:
            return  # the lease stands until its time; the next one asks again
        finally:
            lease.renewing = None
        if answer.decision.verdict == pb.VERDICT_STORE_UNAVAILABLE:
            return  # what is held is still good, until its time
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            self._drop(lease)
            return
        granted = [answer.granted.requests, answer.granted.tokens, answer.granted.microusd]
        for d in (0, 1, 2):
            settled = lease.spent[d] - reported[d]
            lease.left[d] = (
                granted[d] if granted[d] >= UNBOUNDED else granted[d] - settled - lease.flight[d]
            )
        lease.low, lease.used, lease.since_s = _low(lease.left), [0, 0, 0], now
        lease.good_until_s, lease.renew_at_s = now + ttl_s * (1 - MARGIN), now + ttl_s * RENEW_AT

    async def _reserve(self, call: Call, work: Work, route: str, ends_s: float) -> Admitted:
        output = work.output_tokens
        if work.kind == "generate" and output == 0:
            price = self._prices().models.get(work.model)
            output = price.max_output_tokens if price else 0
        admitted, decision = await self._hold(call, work, output, route, ends_s)
        hint = decision.max_tokens_hint
        if admitted is None and work.kind == "generate" and work.output_tokens == 0 and hint > 0:
            # The caller left the length open: it is what the budget affords.
            admitted, decision = await self._hold(call, work, hint, route, ends_s)
        if admitted is None:
            raise refusal(decision)
        return admitted

    async def _hold(
        self, call: Call, work: Work, output: int, route: str, ends_s: float
    ) -> tuple[Admitted | None, pb.Decision]:
        prices, name = self._prices(), secrets.token_hex(12)
        money = prices.most_microusd(work.model, work.input_bound, output)
        least = (1, work.input_tokens, prices.most_microusd(work.model, work.input_tokens, 0) or 0)
        most = (1, work.input_bound + output, money or 0)
        request = pb.ReserveRequest(
            hold_id=name,
            model=work.model,
            amount=_amount(most),
            least=_amount(least),
            output_tokens=output,
            unpriced=money is None,
            route=route,
        )
        try:
            answer: pb.ReserveResponse = await self._ask("Reserve", request, call, ends_s)
        except (
            BaseException
        ):  # cancelled or too late: whether the hold was taken is not known, so it is given back
            self._later(
                self._surely(
                    "Release", pb.ReleaseRequest(hold_id=name), Call(call.principal, call.priority)
                )
            )
            raise
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            return None, answer.decision
        ticket = Ticket(call, most, least, hold_id=name, covered=output)
        return Admitted(
            ticket, max_output_tokens=0 if work.output_tokens else output
        ), answer.decision

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        """Keep a stream's hold ahead of what it has said; raises the Fault that ends it."""
        ticket = admitted.token
        if not isinstance(ticket, Ticket) or not ticket.hold_id or output_tokens <= ticket.covered:
            return
        grown = ticket.covered + max(EXTEND_TOKENS, output_tokens - ticket.covered)
        scale = [grown - ticket.covered if d == 1 else 0 for d in (0, 1, 2)]
        per_token = ticket.most[2] // max(1, ticket.most[1])
        most = (1, ticket.most[1] + scale[1], ticket.most[2] + per_token * scale[1])
        answer: pb.ExtendResponse = await self._ask(
            "Extend", pb.ExtendRequest(hold_id=ticket.hold_id, amount=_amount(most)), ticket.call
        )
        if answer.decision.verdict != pb.VERDICT_ALLOWED:
            raise refusal(answer.decision)
        ticket.most, ticket.covered = most, grown

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Later:
        """Book what a call has spent: its receipt, or what was said before it broke, or nothing.

        Only a hold needs a call for that.
        """
        ticket = admitted.token
        if not isinstance(ticket, Ticket):
            return None
        booked = self._booked(ticket, receipt, spent)
        if ticket.lease is not None:
            self._settle_lease(ticket.lease, ticket.most, booked)
            return None
        call = Call(ticket.call.principal, ticket.call.priority)
        request = (
            pb.CommitRequest(hold_id=ticket.hold_id, spent=_amount(booked))
            if booked is not None
            else pb.ReleaseRequest(hold_id=ticket.hold_id)
        )
        return self._surely("Commit" if booked is not None else "Release", request, call)

    async def _surely(self, method: str, request: Message, call: Call) -> None:
        """Settle, and try again while the limiter is away; it is safe to repeat, and the hold's
        expiry is the last resort.
        """
        for pause_s in AGAIN_S:
            await self._clock.sleep(pause_s)
            with contextlib.suppress(Fault):
                await self._ask(method, request, call)
                return

    def _booked(
        self, ticket: Ticket, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Vector | None:
        if receipt is not None:
            usage = receipt.usage
            return 1, usage.input_tokens + usage.output_tokens, receipt.cost.paid_microusd
        if spent is None:
            return None
        cost = (
            self._prices().most_microusd(spent.model, spent.input_tokens, spent.output_tokens) or 0
        )
        return 1, spent.input_tokens + spent.output_tokens, cost

    def _settle_lease(self, lease: Lease, most: Vector, booked: Vector | None) -> None:
        done = booked or (0, 0, 0)
        for d in (0, 1, 2):
            lease.flight[d] -= most[d]
            lease.spent[d] += done[d]
            lease.left[d] += most[d] - done[d]
        if lease.over and not lease.flight[0]:
            self._give_back(lease)

    def _drop(self, lease: Lease) -> asyncio.Future[None]:
        if self._leases.get(lease.path) is lease:
            del self._leases[lease.path]
        return self._give_back(lease)

    def _give_back(self, lease: Lease) -> asyncio.Future[None]:
        """Return a lease once nothing of it is in flight any more; the future is done when it is
        returned, or must wait.
        """
        lease.over = True
        if not lease.flight[0]:
            return self._later(self._return(lease))
        waiting = asyncio.get_running_loop().create_future()
        waiting.set_result(None)
        return waiting

    async def _return(self, lease: Lease) -> None:
        call = Call(lease.path[0], lease.path[2])
        request = pb.ReturnLeaseRequest(lease_id=lease.id, spent=_amount(lease.spent))
        await self._surely("ReturnLease", request, call)

    async def keep(self, every_s: float = 0.25) -> None:
        """Renew what is used and return what is not, for ever."""
        while True:
            await self._clock.sleep(every_s)
            now = self._clock.monotonic()
            for lease in list(self._leases.values()):
                if now < lease.renew_at_s:
                    continue
                if any(lease.used) and not _free(lease):
                    self._renew_later(lease)
                elif now >= lease.good_until_s or not any(lease.used):
                    self._drop(lease)

    async def close(self) -> None:
        """Return every lease; call after the last settlement."""
        for lease in list(self._leases.values()):
            self._drop(lease)
        while self._after:
            await asyncio.gather(*self._after, return_exceptions=True)
        await self._peer.close()

    async def _ask(
        self, method: str, request: Message, call: Call, admitted_by_s: float | None = None
    ) -> Any:
        """Ask the limiter; `admitted_by_s`: when the admission that asks has to be over, where one
        does.
        """
        now = self._clock.monotonic()
        ends_s = (
            now + ANSWER_S if admitted_by_s is None else min(now + ADMIT_ANSWER_S, admitted_by_s)
        )
        hurried = call._replace(deadline_s=min(call.deadline_s, ends_s))
        try:
            return await self._peer.call(method, request, hurried)
        except Fault as fault:
            late = (
                fault.code == grpc.StatusCode.DEADLINE_EXCEEDED
                and hurried.deadline_s < call.deadline_s
            )
            if late or fault.code == grpc.StatusCode.UNAVAILABLE:
                raise unavailable("the limiter cannot be reached", 1.0, fault.reason) from None
            raise

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)
        return task


def refusal(decision: pb.Decision) -> Fault:
    """What a caller is told who may not pass: the rule, and what would help."""
    verdict, rule = decision.verdict, f"limit {decision.rule}" if decision.rule else "a limit"
    reason = REASONS.get(verdict, "REFUSED")
    hints = [
        *(
            [f"max_tokens of {decision.max_tokens_hint} would pass"]
            if decision.max_tokens_hint
            else []
        ),
        *(
            [f"model {decision.cheaper_model_hint} would pass"]
            if decision.cheaper_model_hint
            else []
        ),
    ]
    helped = f"; {', '.join(hints)}" if hints else ""
    wait_s = decision.retry_after_ms / 1e3
    if verdict == pb.VERDICT_UNPRICED:
        told = (
            f"{rule} counts money and the model has no price: ask for one that ListModels shows, "
            "or add it to `prices` in the file"
        )
        return Fault(Reason.FAILED_PRECONDITION, f"options.model: {told}{helped}",
            reason=reason,
            field="options.model",
        )
    if verdict == pb.VERDICT_NEVER:
        told = f"{rule}: this call is larger than the limit; trying again does not help{helped}"
        return Fault(Reason.FAILED_PRECONDITION, told, reason=reason)
    if verdict == pb.VERDICT_DRAINED:
        return denied("the organisation is being drained by its operator", reason)
    if verdict == pb.VERDICT_STORE_UNAVAILABLE:
        return unavailable(f"{rule}: the store of the limits does not answer", wait_s, reason)
    what = {
        pb.VERDICT_RATE_LIMITED: "is used up for now",
        pb.VERDICT_SHED: "is kept for more urgent calls",
    }.get(verdict, "is spent for this window")
    return exhausted(f"{rule} {what}{helped}", reason, wait_s)


def _route(options: router_pb2.CallOptions, work: Work) -> str:
    """What a call is for, as far as its outputs go: its task and the model that it asked for, which
    may be `auto` or left open.
    """
    return f"{work.kind}/{options.model}"[:LONGEST_ROUTE]


def _free(lease: Lease) -> bool:
    """True where no rule counts anything on the path."""
    return min(lease.left) >= UNBOUNDED // 2


def _low(share: list[int]) -> list[int]:
    return [0 if part >= UNBOUNDED // 2 else int(part * RENEW_AT) for part in share]


def _amount(parts: Vector | list[int]) -> pb.Amount:
    return pb.Amount(requests=parts[0], tokens=parts[1], microusd=parts[2])
