"""The operators' gRPC service: list rules, show and correct what they have counted, refuse an
organisation's new calls.

Every change is written to the audit log before it is made.
"""

from __future__ import annotations

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.api.messages import MAX_AMOUNT, store_needed
from penstock.limiter.counters import Counter, RateCounter, SpendPath
from penstock.limiter.rules import LimitsSection, RuleSection
from penstock.limiter.script import StaleWindows
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found

MAX_CHANGES = 10_000
"""Changes that one call may ask for."""
DEFAULT_CHANGES = 100


class AdminServicer:
    """penstock.api.limiter.v1.LimiterAdminService."""

    def __init__(self, limiter: LimiterServicer, store: LedgerStore) -> None:
        self._limiter = limiter
        self._store = store

    async def ListRules(self, request: pb.ListRulesRequest, call: Call) -> pb.ListRulesResponse:
        """The rules in force, in the order of the file."""
        section = self._limiter.counters.section
        return pb.ListRulesResponse(rules=[_rule_in_force(rule, section) for rule in section.rules])

    async def ShowUsage(self, request: pb.ShowUsageRequest, call: Call) -> pb.ShowUsageResponse:
        """What a path has used of each of its rules."""
        path = request.path
        _check_organisation("path.organisation", path.organisation)
        spend_path = SpendPath(
            path.organisation, path.team, path.user, path.key_id, tuple(path.tags), path.model
        )
        return pb.ShowUsageResponse(rules=await self._limiter.usage(spend_path))

    async def SetLimit(self, request: pb.SetLimitRequest, call: Call) -> pb.SetLimitResponse:
        """Set another limit of one subject, or clear it."""
        counter = self._counter(request.subject)
        limit = request.limit if request.HasField("limit") else None
        min_limit = 1 if isinstance(counter, RateCounter) else 0
        if limit is not None and not min_limit <= limit <= MAX_AMOUNT:
            raise invalid("limit", f"must lie between {min_limit} and {MAX_AMOUNT}")
        change = "cleared" if limit is None else str(limit)
        target = f"{_target(request.subject)} limit {change}"
        await self._record(call, "SetLimit", target, request.reason)
        with store_needed():
            await self._store.set_limit(request.subject.organisation, counter, limit)
        return pb.SetLimitResponse()

    async def ResetUsage(self, request: pb.ResetUsageRequest, call: Call) -> pb.ResetUsageResponse:
        """Forget what a subject has used in the present window."""
        self._counter(request.subject)
        await self._record(call, "ResetUsage", _target(request.subject), request.reason)
        before, _ = await self._adjust(request.subject, 0, is_reset=True)
        return pb.ResetUsageResponse(committed=before)

    async def AdjustUsage(
        self, request: pb.AdjustUsageRequest, call: Call
    ) -> pb.AdjustUsageResponse:
        """Add to what a subject has used, or take away from it."""
        self._counter(request.subject)
        if abs(request.amount) > MAX_AMOUNT:
            raise invalid("amount", f"must lie between -{MAX_AMOUNT} and {MAX_AMOUNT}")
        target = f"{_target(request.subject)} {request.amount:+d}"
        await self._record(call, "AdjustUsage", target, request.reason)
        _, after = await self._adjust(request.subject, request.amount)
        return pb.AdjustUsageResponse(committed=after)

    async def DrainOrganisation(
        self, request: pb.DrainOrganisationRequest, call: Call
    ) -> pb.DrainOrganisationResponse:
        """Refuse an organisation's new holds, or allow them again."""
        _check_organisation("organisation", request.organisation)
        target = f"{request.organisation} {'drain' if request.drain else 'let in'}"
        await self._record(call, "DrainOrganisation", target, request.reason)
        with store_needed():
            open_holds = await self._store.drain(request.organisation, request.drain)
        return pb.DrainOrganisationResponse(open_holds=open_holds)

    async def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, call: Call
    ) -> pb.VerifyLedgerResponse:
        """Replay an organisation's ledger and compare it with the counters."""
        _check_organisation("organisation", request.organisation)
        with store_needed():
            entries, differing = await self._store.verify(request.organisation)
        return pb.VerifyLedgerResponse(entries=entries, differing=differing)

    async def ListChanges(
        self, request: pb.ListChangesRequest, call: Call
    ) -> pb.ListChangesResponse:
        """The latest changes, newest first."""
        if not 0 <= request.limit <= MAX_CHANGES:
            raise invalid("limit", f"must lie between 0 and {MAX_CHANGES}")
        with store_needed():
            changes = await self._store.audit_log.latest(request.limit or DEFAULT_CHANGES)
        return pb.ListChangesResponse(
            changes=[pb.Change(at_unix_ms=at_ms, **fields) for at_ms, fields in changes]
        )

    async def _adjust(
        self, subject: pb.Subject, amount: int, *, is_reset: bool = False
    ) -> tuple[int, int]:
        """Correct a subject's usage, in the present window by the store's clock."""
        organisation, counter = subject.organisation, self._counter(subject)
        with store_needed():
            try:
                return await self._store.adjust(organisation, counter, amount, is_reset=is_reset)
            except StaleWindows as stale:
                counter = self._counter(subject, stale.now_s)
                return await self._store.adjust(organisation, counter, amount, is_reset=is_reset)

    def _counter(self, subject: pb.Subject, now_s: float | None = None) -> Counter:
        """The counter of a subject.

        Raises:
            Fault: INVALID_ARGUMENT for an empty field, NOT_FOUND for a rule that does not exist.
        """
        for field in ("rule", "organisation", "value"):
            if not getattr(subject, field):
                raise invalid(f"subject.{field}", "must not be empty")
        counter = self._limiter.counters.of_subject(
            subject.rule, subject.organisation, subject.value, now_s
        )
        if counter is None:
            raise not_found(
                "subject.rule", f"there is no rule {subject.rule!r}; ListRules shows the rules"
            )
        return counter

    async def _record(self, call: Call, action: str, target: str, reason: str) -> None:
        """Write a change to the audit log; raises INVALID_ARGUMENT without a reason."""
        if not reason.strip():
            raise invalid("reason", "must not be empty: the audit log records it")
        change = {
            "operator": call.principal.user,
            "action": action,
            "target": target,
            "reason": reason,
        }
        with store_needed():
            await self._store.audit_log.record(change)


def _check_organisation(field: str, organisation: str) -> None:
    if not organisation:
        raise invalid(field, "must not be empty")


def _rule_in_force(rule: RuleSection, section: LimitsSection) -> pb.RuleInForce:
    return pb.RuleInForce(
        name=rule.name,
        kind=rule.kind,
        level=rule.level,
        counts=rule.counts,
        limit=rule.limit,
        window=f"{'calendar ' if rule.calendar else ''}{rule.window}",
        holds=rule.holds,
        store_loss=rule.store_loss,
        shadow=rule.shadow or section.shadow,
    )


def _target(subject: pb.Subject) -> str:
    return f"{subject.rule} of {subject.organisation}/{subject.value}"
