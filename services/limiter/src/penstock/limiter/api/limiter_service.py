"""The gRPC service of the limiter: each RPC checks its request, asks the ledger, and answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.messages import (
    check_id,
    check_route,
    checked_amounts,
    checked_fence,
    priority_of,
    spend_path,
    store_needed,
    to_amount,
    to_rule_usage,
)
from penstock.limiter.api.run_service import RunRpcs
from penstock.limiter.counters import (
    MICROUSD,
    NOTHING,
    TOKENS,
    Amounts,
    Counter,
    PathCounters,
    SpendPath,
)
from penstock.limiter.hints import cheaper_model_hint, max_tokens_hint
from penstock.limiter.holds import STORE_LOST_RETRY_MS, Holds, Reserved
from penstock.limiter.output_estimates import CallGroup, OutputEstimates
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import (
    Renewal,
    Reservation,
    Ruling,
    Settlement,
    StaleWindows,
)
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.errors import StoreLost
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.limiter.store.run_store import RunStore
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.prices.prices import Prices, PricesSection
from penstock.rpc.call import Call
from penstock.service.clock import Clock

log = logging.getLogger(__name__)


class LimiterServicer(RunRpcs):
    """penstock.api.limiter.v1.LimiterService; started runs in `run_service.py`."""

    def __init__(
        self,
        settings: LimiterSettings,
        section: LimitsSection,
        prices: PricesSection,
        store: LedgerStore,
        clock: Clock,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        super().__init__(RunStore(store), settings.hold_ms, clock)
        self._settings = settings
        self._store = store
        self._clock = clock
        self._prices = Prices.from_section(prices)
        self._estimates = OutputEstimates(settings.expected_quantile)
        self.counters = PathCounters(section, clock)
        self._holds = Holds(store, self.counters, clock)
        self._decisions = telemetry.counter(
            "penstock.limiter.decisions", "{decision}", "Decisions by verdict and rule"
        )
        self._alerts = telemetry.counter(
            "penstock.limiter.alerts", "{alert}", "Alert shares passed, by rule"
        )
        self._report_open_holds(telemetry)

    def reload(self, section: LimitsSection, prices: PricesSection) -> None:
        """Put new rules and prices in force."""
        self.counters.replace(section)
        self._prices = Prices.from_section(prices)

    def overshoot_bound(self, dimension: int) -> float:
        """The most by which open holds may overshoot rules that hold what is expected, in tokens
        (1) or micro-dollars (2).
        """
        return float(self._holds.open.overshoot_bound(dimension))

    async def Reserve(self, request: pb.ReserveRequest, call: Call) -> pb.ReserveResponse:
        """Hold what a call may cost on every counter of its path, or on none."""
        path = spend_path(call, request.model)
        max_cost = checked_amounts("amount", request.amount)
        least = checked_amounts("least", request.least)
        check_id("hold_id", request.hold_id)
        check_route(request.route)
        min_cost = [min(pair) for pair in zip(least, max_cost, strict=True)]
        group = CallGroup(path.organisation, path.model, request.route)
        reservation = Reservation(
            max_cost,
            self._estimates.expected_cost(group, max_cost, min_cost),
            min_cost,
            self._settings.hold_ms,
            priority_of(call),
            request.unpriced,
            fence=checked_fence(request.fence),
        )
        left_s = call.remaining_s(self._clock.monotonic())
        reserved = await self._holds.reserve(path, request.hold_id, reservation, left_s)
        if reserved.is_allowed:
            self._holds.remember(request.hold_id, reservation, reserved, group)
        decision = self._decision(reserved.ruling, reserved.path)
        self._add_hints(decision, request, reserved)
        return pb.ReserveResponse(decision=decision)

    async def Extend(self, request: pb.ExtendRequest, call: Call) -> pb.ExtendResponse:
        """Enlarge a call's hold; without the store it is allowed."""
        check_id("hold_id", request.hold_id)
        max_cost = checked_amounts("amount", request.amount)
        ruling = await self._holds.extend(
            call.principal.organisation,
            request.hold_id,
            max_cost,
            self._settings.hold_ms / 1e3,
            checked_fence(request.fence),
        )
        return pb.ExtendResponse(decision=self._decision(ruling))

    async def Commit(self, request: pb.CommitRequest, call: Call) -> pb.CommitResponse:
        """End a call's hold with what was spent, and learn what its output cost."""
        check_id("hold_id", request.hold_id)
        spent = checked_amounts("spent", request.spent)
        hold = self._holds.open.get(request.hold_id)
        path, fence = spend_path(call, request.model), checked_fence(request.fence)
        settlement = await self._settle(path, request.hold_id, spent, fence)
        if hold is not None and hold.group is not None:
            output_cost = [part - least for part, least in zip(spent, hold.min_cost, strict=True)]
            self._estimates.record(hold.group, output_cost)
        return pb.CommitResponse(settled=settlement.was_open)

    async def Release(self, request: pb.ReleaseRequest, call: Call) -> pb.ReleaseResponse:
        """Give a call's hold back."""
        check_id("hold_id", request.hold_id)
        path, fence = spend_path(call, ""), checked_fence(request.fence)
        settlement = await self._settle(path, request.hold_id, NOTHING, fence)
        return pb.ReleaseResponse(released=settlement.was_open)

    async def GrantLease(self, request: pb.GrantLeaseRequest, call: Call) -> pb.GrantLeaseResponse:
        """Grant a share of what is available.

        For one lease's time after a restart of the store none is granted, and calls are reserved
        one by one.
        """
        path = spend_path(call, request.model)
        check_id("lease_id", request.lease_id)
        wanted = checked_amounts("wanted", request.wanted)
        reservation = Reservation(
            wanted,
            wanted,
            checked_amounts("least", request.least),
            self._settings.lease_ms,
            priority_of(call),
            request.unpriced,
            is_lease=True,
            share=self._settings.lease_share,
        )
        left_s = call.remaining_s(self._clock.monotonic())
        reserved = await self._holds.reserve(path, request.lease_id, reservation, left_s)
        ruling, ttl_ms = reserved.ruling, self._settings.lease_ms
        recovery_ms = self._holds.recovery_left_ms(ttl_ms)
        if recovery_ms > 0 and reserved.is_allowed and reserved.is_booked and reserved.path:
            await self._settle(path, request.lease_id, NOTHING)
            ruling, ttl_ms = ruling._replace(granted=NOTHING, is_tight=True), recovery_ms
        if reserved.is_allowed and not ruling.is_tight:
            self._holds.remember(request.lease_id, reservation, reserved, group=None)
        return pb.GrantLeaseResponse(
            decision=self._decision(ruling, reserved.path),
            granted=to_amount(ruling.granted),
            ttl_ms=ttl_ms,
            reserve_each=ruling.is_tight,
            holds_expected=any(
                counter.is_expected and not counter.is_shadow for counter in reserved.path
            ),
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, call: Call) -> pb.RenewLeaseResponse:
        """Book what a lease has spent, and fill it up again."""
        check_id("lease_id", request.lease_id)
        renewal = Renewal(
            checked_amounts("spent", request.spent),
            checked_amounts("wanted", request.wanted),
            self._settings.lease_share,
            priority_of(call),
        )
        try:
            organisation = call.principal.organisation
            ruling = await self._store.renew(organisation, request.lease_id, renewal)
        except StoreLost:
            ruling = Ruling(pb.VERDICT_STORE_UNAVAILABLE, retry_after_ms=STORE_LOST_RETRY_MS)
        return pb.RenewLeaseResponse(
            decision=self._decision(ruling),
            granted=to_amount(ruling.granted),
            ttl_ms=self._settings.lease_ms,
        )

    async def ReturnLease(
        self, request: pb.ReturnLeaseRequest, call: Call
    ) -> pb.ReturnLeaseResponse:
        """End a lease with what was spent from it."""
        check_id("lease_id", request.lease_id)
        spent = checked_amounts("spent", request.spent)
        await self._settle(spend_path(call, request.model), request.lease_id, spent)
        return pb.ReturnLeaseResponse()

    async def GetUsage(self, request: pb.GetUsageRequest, call: Call) -> pb.GetUsageResponse:
        """What the caller's path has used of each of its rules."""
        path = spend_path(call, request.model)
        return pb.GetUsageResponse(rules=await self.usage(path))

    async def usage(self, path: SpendPath) -> list[pb.RuleUsage]:
        """What a path has used of each of its rules; raises UNAVAILABLE without the store."""
        counters = self.counters.of(path)
        with store_needed():
            try:
                states = await self._store.usage(path.organisation, counters)
            except StaleWindows as stale:
                counters = self.counters.at(path, stale.now_s)
                states = await self._store.usage(path.organisation, counters)
        return [to_rule_usage(*pair) for pair in zip(counters, states, strict=True)]

    async def _settle(
        self, path: SpendPath, hold_id: str, spent: Amounts, fence: int = 0
    ) -> Settlement:
        """End a hold; raises UNAVAILABLE without the store, and the settlement is owed."""
        with store_needed():
            return await self._holds.settle(path, hold_id, spent, fence)

    def _decision(self, ruling: Ruling, path: Sequence[Counter] = ()) -> pb.Decision:
        """A ruling as a message; counts it, and reports alert shares that were reached."""
        names = ruling.rules or [counter.rule for counter in path]
        rule = names[ruling.counter_index] if 0 <= ruling.counter_index < len(names) else ""
        decision = pb.Decision(
            verdict=ruling.verdict,  # type: ignore[arg-type] # the stubs want their enumeration
            retry_after_ms=ruling.retry_after_ms,
            rule=rule,
        )
        self._decisions.add(1, {"verdict": pb.Verdict.Name(decision.verdict), "rule": rule})
        for index, share in ruling.alerts:
            name = names[index]
            log.warning("rule %s: %d %% of its limit is spent or held", name, share // 10)
            self._alerts.add(1, {"rule": name, "share": share / 1000})
        return decision

    def _add_hints(
        self, decision: pb.Decision, request: pb.ReserveRequest, reserved: Reserved
    ) -> None:
        """Say what would pass in place of a call that a rule refuses for its cost."""
        if reserved.is_allowed or decision.verdict == pb.VERDICT_UNPRICED or not decision.rule:
            return
        ruling = reserved.ruling
        counter = reserved.path[ruling.counter_index]
        refused = counter, ruling.available, request, self._prices
        decision.max_tokens_hint = max_tokens_hint(*refused)
        decision.cheaper_model_hint = cheaper_model_hint(*refused)

    def _report_open_holds(self, telemetry: Telemetry) -> None:
        for name, unit, dimension in (
            ("overshoot_bound", "uUSD", MICROUSD),
            ("overshoot_bound_tokens", "{token}", TOKENS),
        ):
            telemetry.gauge(
                f"penstock.limiter.{name}",
                unit,
                "Most that open expected holds may cost beyond what is held",
                partial(self.overshoot_bound, dimension),
            )
        telemetry.gauge(
            "penstock.limiter.open_holds",
            "{hold}",
            "Holds of this process not yet settled",
            lambda: float(len(self._holds.open)),
        )
