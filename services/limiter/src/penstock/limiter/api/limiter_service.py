"""The door: each RPC is proto in, one question to the books, proto out.

What the store's loss means is decided rule by rule.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.decisions import STALE, UNBOUNDED, Question, Reply, Usage
from penstock.limiter.output_estimates import Kind, Outputs
from penstock.limiter.rules import Counter, LimitsSection, Path, counters
from penstock.limiter.script import WindowPassed
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store import Store, StoreLost
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.prices.prices import MTOK, Prices, PricesSection
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

log = logging.getLogger(__name__)
MOST = 10**14
"""Largest amount that is taken: a hundred million dollars, and exact in every number that the
script uses.
"""
LONGEST_NAME = 128
"""Characters of a hold's name and of a route."""
OPEN_KEPT = 100_000
UNBOOKED_S = 3_600.0
"""What passed while the store was lost is remembered for so long, for the settlement that books it.
"""
STORE_SHARE, STORE_WAIT_S = 0.8, 2.0
"""Part of a caller's time that may be spent waiting for a slow store, and the most of it."""
RETRY_LOST_MS = 1_000
"""When to ask again, as callers are told who met a lost store."""
WINDOWS_S = 1.0
"""Counters of a path are computed again so often; the script says when a window has ended
meanwhile.
"""


@dataclass
class OpenHold:
    """What this process remembers of a hold: for learning outputs, and for booking what passed
    while the store was lost.
    """

    kind: Kind
    most: list[int]
    usual: list[int]
    least: list[int]
    path: tuple[Counter, ...] = ()
    unbooked: tuple[Counter, ...] = ()
    until_s: float = math.inf
    """Forgotten then, by the monotonic clock: it has expired in the store."""

    def beyond(self, dimension: int) -> int:
        """Most that it may cost more than is held for it: nothing, unless a rule of the path holds
        what is expected.
        """
        expected = any(
            row.expected and row.dimension == dimension and not row.shadow for row in self.path
        )
        return max(0, self.most[dimension] - self.usual[dimension]) if expected else 0


class LimiterServicer:
    """penstock.api.limiter.v1.LimiterService."""

    def __init__(
        self,
        settings: LimiterSettings,
        section: LimitsSection,
        prices: PricesSection,
        store: Store,
        clock: Clock,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._outputs = Outputs(settings.expected_quantile)
        self._open: OrderedDict[str, OpenHold] = OrderedDict()
        self.reload(section, prices)
        self._verdicts = telemetry.counter(
            "penstock.limiter.decisions", "{decision}", "Decisions by verdict and rule"
        )
        self._alerts = telemetry.counter(
            "penstock.limiter.alerts", "{alert}", "Alert shares passed, by rule"
        )
        self._observe(telemetry)

    def _observe(self, telemetry: Telemetry) -> None:
        """Report open holds, and how far expected holds could overshoot at most."""
        for name, unit, dimension in (
            ("overshoot_bound", "uUSD", 2),
            ("overshoot_bound_tokens", "{token}", 1),
        ):
            telemetry.gauge(
                f"penstock.limiter.{name}",
                unit,
                "Most that open expected holds may cost beyond what is held",
                partial(self.overshoot_bound, dimension),
            )
        told = "Holds of this process not yet settled"
        telemetry.gauge(
            "penstock.limiter.open_holds", "{hold}", told, lambda: float(len(self._living()))
        )

    def overshoot_bound(self, dimension: int) -> float:
        """Most by which open holds may overshoot rules that hold what is expected, in tokens (1) or
        micro-dollars (2).
        """
        return float(sum(hold.beyond(dimension) for hold in self._living().values()))

    def _living(self) -> OrderedDict[str, OpenHold]:
        """What is open; the oldest that have expired are forgotten."""
        now = self._clock.monotonic()
        while self._open and next(iter(self._open.values())).until_s < now:
            self._open.popitem(last=False)
        return self._open

    def reload(self, section: LimitsSection, prices: PricesSection) -> None:
        """Put new rules and prices in force."""
        self.section, self.prices = section, Prices.of(prices)
        self._paths: dict[Path, tuple[float, tuple[Counter, ...]]] = {}

    async def Reserve(self, request: pb.ReserveRequest, call: Call) -> pb.ReserveResponse:
        path = self.path(call, request.model)
        most, least = vector("amount", request.amount), vector("least", request.least)
        _named("hold_id", request.hold_id)
        if len(request.route) > LONGEST_NAME:
            raise invalid("route", f"must have at most {LONGEST_NAME} characters")
        least = [min(pair) for pair in zip(least, most, strict=True)]
        kind = Kind(path.organisation, path.model, request.route)
        usual = self._outputs.usual(kind, most, least)
        ask = Question(
            most,
            usual,
            least,
            request.ttl_ms or self._settings.hold_ms,
            call.priority or common_pb2.PRIORITY_NORMAL,
            request.unpriced,
        )
        held = OpenHold(kind, most, usual, least)
        try:
            reply, rows = await self._ask(
                path, request.hold_id, ask, self._store_wait_s(path, call)
            )
        except StoreLost:
            reply, rows = self._without_store(path, request.hold_id, held)
        if reply.verdict == pb.VERDICT_ALLOWED:
            held.path = rows
            self._remember(request.hold_id, held, ask.ttl_ms / 1e3)
        return pb.ReserveResponse(decision=self._decision(reply, rows, request))

    async def Extend(self, request: pb.ExtendRequest, call: Call) -> pb.ExtendResponse:
        _named("hold_id", request.hold_id)
        grown, held = vector("amount", request.amount), self._open.get(request.hold_id)
        if held is not None and held.unbooked:
            return pb.ExtendResponse(decision=self._decision(Reply(pb.VERDICT_ALLOWED), (), None))
        try:
            reply = await self._store.extend(call.principal.organisation, request.hold_id, grown)
        except StoreLost:
            reply = Reply(
                pb.VERDICT_ALLOWED
            )  # the call runs already; its commit books what it cost
        if held is not None and reply.verdict == pb.VERDICT_ALLOWED:
            held.most = [max(pair) for pair in zip(held.most, grown, strict=True)]
            held.usual = [max(pair) for pair in zip(held.usual, grown, strict=True)]
            held.until_s = self._clock.monotonic() + self._settings.hold_ms / 1e3
        return pb.ExtendResponse(decision=self._decision(reply, (), None))

    async def Commit(self, request: pb.CommitRequest, call: Call) -> pb.CommitResponse:
        _named("hold_id", request.hold_id)
        spent = vector("spent", request.spent)
        held = self._open.get(request.hold_id)
        settled, _ = await self._settle(call.principal.organisation, request.hold_id, spent)
        if held is not None:
            beyond = [total - least for total, least in zip(spent, held.least, strict=True)]
            self._outputs.learn(held.kind, beyond)
        return pb.CommitResponse(settled=settled)

    async def Release(self, request: pb.ReleaseRequest, call: Call) -> pb.ReleaseResponse:
        _named("hold_id", request.hold_id)
        released, _ = await self._settle(call.principal.organisation, request.hold_id, [0, 0, 0])
        return pb.ReleaseResponse(released=released)

    async def GrantLease(self, request: pb.GrantLeaseRequest, call: Call) -> pb.GrantLeaseResponse:
        """Grant a share.

        For one lease's time after a restart of the store none is granted and calls are reserved one
        by one: the store may have lost the leases that it granted last, and their holders report
        them meanwhile.
        """
        path = self.path(call, request.model)
        _named("lease_id", request.lease_id)
        wanted, least = vector("wanted", request.wanted), vector("least", request.least)
        ask = Question(
            wanted,
            wanted,
            least,
            self._settings.lease_ms,
            call.priority or common_pb2.PRIORITY_NORMAL,
            request.unpriced,
            lease=True,
            share=self._settings.lease_share,
        )
        lent = OpenHold(Kind(path.organisation, path.model), wanted, wanted, least)
        try:
            reply, rows = await self._ask(
                path, request.lease_id, ask, self._store_wait_s(path, call)
            )
        except StoreLost:
            reply, rows = self._without_store(path, request.lease_id, lent)
            reply = reply._replace(granted=(UNBOUNDED,) * 3) if lent.unbooked else reply
        lent.path = rows
        ttl_ms = self._settings.lease_ms
        if reply.verdict == pb.VERDICT_ALLOWED and rows and not lent.unbooked:
            since_ms = min(ttl_ms, 1e3 * (self._clock.monotonic() - self._store.restarted_s))
            learning_ms = math.ceil(ttl_ms - since_ms)
            if learning_ms > 0:
                await self._settle(path.organisation, request.lease_id, [0, 0, 0])
                reply, ttl_ms = reply._replace(granted=(0, 0, 0), tight=True), learning_ms
        if reply.verdict == pb.VERDICT_ALLOWED and not reply.tight:
            self._remember(request.lease_id, lent, UNBOOKED_S)
        return pb.GrantLeaseResponse(
            decision=self._decision(reply, rows, None),
            granted=amount(reply.granted),
            ttl_ms=ttl_ms,
            reserve_each=reply.tight,
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, call: Call) -> pb.RenewLeaseResponse:
        _named("lease_id", request.lease_id)
        spent, wanted = vector("spent", request.spent), vector("wanted", request.wanted)
        priority = call.priority or common_pb2.PRIORITY_NORMAL
        ask = Question(wanted, wanted, wanted, 0, priority, share=self._settings.lease_share)
        try:
            reply = await self._store.renew(
                call.principal.organisation, request.lease_id, spent, wanted, ask
            )
        except StoreLost:
            reply = Reply(pb.VERDICT_STORE_UNAVAILABLE, retry_ms=RETRY_LOST_MS)
        return pb.RenewLeaseResponse(
            decision=self._decision(reply, (), None),
            granted=amount(reply.granted),
            ttl_ms=self._settings.lease_ms,
        )

    async def ReturnLease(
        self, request: pb.ReturnLeaseRequest, call: Call
    ) -> pb.ReturnLeaseResponse:
        _named("lease_id", request.lease_id)
        spent = vector("spent", request.spent)
        _, held = await self._settle(call.principal.organisation, request.lease_id, spent)
        return pb.ReturnLeaseResponse(
            returned=amount([0 if part >= UNBOUNDED else part for part in held])
        )

    async def GetUsage(self, request: pb.GetUsageRequest, call: Call) -> pb.GetUsageResponse:
        path = self.path(call, request.model)
        return pb.GetUsageResponse(rules=await self.usage(path))

    async def usage(self, path: Path) -> list[pb.RuleUsage]:
        """What a path has used of each of its rules; raises UNAVAILABLE without the store."""
        rows = self.counters(path)
        with self.needs_store():
            try:
                states = await self._store.usage(path.organisation, rows)
            except WindowPassed as passed:
                rows = counters(self.section, path, passed.now_s)
                states = await self._store.usage(path.organisation, rows)
        return [usage_row(counter, state) for counter, state in zip(rows, states, strict=True)]

    @contextlib.contextmanager
    def needs_store(self) -> Iterator[None]:
        """What a caller is told who needs the store while it is lost: UNAVAILABLE, and when to ask
        again.
        """
        try:
            yield
        except StoreLost:
            raise unavailable(
                "the store of the books does not answer",
                retry_after_s=RETRY_LOST_MS / 1e3,
                reason=Reason.STORE_UNAVAILABLE,
            ) from None

    def path(self, call: Call, model: str) -> Path:
        """The path of a call; only its principal says who pays."""
        who = call.principal
        if not who.organisation:
            raise invalid("context.principal.organisation", "is empty; nobody pays")
        return Path(who.organisation, who.team, who.user, who.key_id, tuple(who.tags), model)

    def counters(self, path: Path, *, afresh: bool = False) -> tuple[Counter, ...]:
        """The counters of a path with the windows of now."""
        now = self._clock.time()
        known = self._paths.get(path)
        if known is None or afresh or not 0 <= now - known[0] < WINDOWS_S:
            if len(self._paths) > OPEN_KEPT:
                self._paths.clear()
            known = self._paths[path] = (now, counters(self.section, path, now))
        return known[1]

    def _store_wait_s(self, path: Path, call: Call) -> float:
        """How long a call may wait for a slow store: not at all where every rule of its path would
        let it pass without one.
        """
        if not _refuses_without_store(self.counters(path)):
            return 0.0
        return min(STORE_WAIT_S, STORE_SHARE * max(0.0, call.remaining_s(self._clock.monotonic())))

    async def _ask(
        self, path: Path, name: str, ask: Question, wait_s: float = 0.0
    ) -> tuple[Reply, tuple[Counter, ...]]:
        rows = self.counters(path)
        if not rows:
            return Reply(pb.VERDICT_ALLOWED, granted=(UNBOUNDED,) * 3), rows
        reply = await self._store.reserve(path.organisation, name, rows, ask, wait_s)
        if (
            reply.verdict == STALE
        ):  # a window has ended by the store's clock; that clock says which one it is
            rows = counters(self.section, path, reply.available / 1000)
            reply = await self._store.reserve(path.organisation, name, rows, ask, wait_s)
        return reply, rows

    def _without_store(
        self, path: Path, name: str, held: OpenHold
    ) -> tuple[Reply, tuple[Counter, ...]]:
        """The verdict while the store is lost: rules that are open let pass, and what passed is
        booked at its settlement.

        The store may have taken the question and answer nobody: what was refused is given back when
        it answers again.
        """
        rows = self.counters(path)
        shut = _refuses_without_store(rows)
        if shut:
            self._store.owe(path.organisation, name, [0, 0, 0], rows)
            return Reply(pb.VERDICT_STORE_UNAVAILABLE, shut[0], RETRY_LOST_MS), rows
        held.path = held.unbooked = rows
        return Reply(pb.VERDICT_ALLOWED), rows

    async def _settle(
        self, organisation: str, name: str, spent: list[int]
    ) -> tuple[bool, tuple[int, int, int]]:
        """End a hold; while the store is lost it is owed, and the caller may as well ask again."""
        held = self._open.get(name)
        with self.needs_store():
            ended = await self._store.settle(
                organisation, name, spent, held.path if held else (), held.unbooked if held else ()
            )
        self._open.pop(name, None)
        return ended

    def _remember(self, name: str, held: OpenHold, ttl_s: float) -> None:
        held.until_s = self._clock.monotonic() + (
            max(ttl_s, UNBOOKED_S) if held.unbooked else ttl_s
        )
        self._open[name] = held
        if len(self._living()) > OPEN_KEPT:
            self._open.popitem(last=False)

    def _decision(
        self, reply: Reply, rows: Sequence[Counter], request: pb.ReserveRequest | None
    ) -> pb.Decision:
        names = reply.rules or [row.rule for row in rows]
        rule = names[reply.at] if 0 <= reply.at < len(names) else ""
        decision = pb.Decision(verdict=reply.verdict, retry_after_ms=reply.retry_ms, rule=rule)  # type: ignore[arg-type]
        self._verdicts.add(1, {"verdict": pb.Verdict.Name(decision.verdict), "rule": rule})
        for index, share in reply.alerts:
            log.warning("limit %s: %d %% of it is spent or held", names[index], share // 10)
            self._alerts.add(1, {"rule": names[index], "share": share / 1000})
        if (
            request is not None
            and decision.verdict not in (pb.VERDICT_ALLOWED, pb.VERDICT_UNPRICED)
            and rule
        ):
            decision.max_tokens_hint = self._affords(rows[reply.at], reply.available, request)
            decision.cheaper_model_hint = self._cheaper(rows[reply.at], reply.available, request)
        return decision

    def _affords(self, counter: Counter, available: int, request: pb.ReserveRequest) -> int:
        """Output tokens that what is available would pay for beside the input."""
        if counter.dimension == 0 or request.output_tokens <= 0:
            return 0
        if counter.dimension == 1:
            return max(
                0,
                min(
                    request.output_tokens,
                    available - (request.amount.tokens - request.output_tokens),
                ),
            )
        price = self.prices.models.get(request.model)
        if price is None:
            return 0
        dearest = max(price.output_microusd_per_mtok, price.reasoning)
        if dearest == 0:
            return 0
        output = -(-request.output_tokens * dearest // MTOK)
        left = available - max(0, request.amount.microusd - output) - 1
        return max(0, min(request.output_tokens, math.floor(left * MTOK / dearest)))

    def _cheaper(self, counter: Counter, available: int, request: pb.ReserveRequest) -> str:
        """The dearest model that what is available would pay for at the same size."""
        if counter.dimension != 2:
            return ""
        size = request.amount.tokens - request.output_tokens, request.output_tokens
        costs = {
            name: self.prices.most_microusd(name, *size) or 0
            for name in self.prices.models
            if name != request.model
        }
        fitting = {name: cost for name, cost in costs.items() if 0 < cost <= available}
        return max(fitting, key=lambda name: fitting[name], default="")


def _refuses_without_store(rows: Sequence[Counter]) -> list[int]:
    """Positions of the counters whose rule refuses calls while the store is lost."""
    return [index for index, row in enumerate(rows) if row.store_loss != "open" and not row.shadow]


def vector(name: str, given: pb.Amount) -> list[int]:
    """Requests, tokens, micro-dollars; raises INVALID_ARGUMENT for what cannot be."""
    for part in ("requests", "tokens", "microusd"):
        if not 0 <= getattr(given, part) <= MOST:
            raise invalid(f"{name}.{part}", f"must lie between 0 and {MOST}")
    return [given.requests, given.tokens, given.microusd]


def amount(parts: Sequence[int]) -> pb.Amount:
    return pb.Amount(requests=parts[0], tokens=parts[1], microusd=parts[2])


def usage_row(counter: Counter, state: Usage) -> pb.RuleUsage:
    """One counter's state as the contract says it."""

    def only(value: int) -> pb.Amount:
        return amount([value if index == counter.dimension else 0 for index in range(3)])

    return pb.RuleUsage(
        rule=counter.rule,
        limit=only(state.limit),
        committed=only(state.committed),
        held=only(state.held),
        window_ends_unix_ms=state.ends_ms,
    )


def _named(field: str, value: str) -> None:
    if not value or len(value) > LONGEST_NAME:
        raise invalid(field, f"must have 1 to {LONGEST_NAME} characters")
