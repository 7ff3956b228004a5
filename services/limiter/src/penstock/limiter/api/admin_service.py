"""The operators' door: look at rules, set, reset, adjust, drain; every change stands in the audit
log before it is made.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import MAX_AMOUNT, LimiterServicer
from penstock.limiter.ledger_store import LedgerStore
from penstock.limiter.rules import Counter, SpendPath, subject
from penstock.limiter.script import WindowPassed
from penstock.rpc.auth import Authenticator, Metadata
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import invalid, not_found, unauthenticated
from penstock.service.clock import Clock

MAX_CHANGES = 10_000


def operator(secrets: Mapping[str, str]) -> Authenticator:
    """Authenticate by `authorization: Bearer SECRET`; the call's user is the operator's name."""

    def authenticate(metadata: Metadata) -> Call:
        given = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        for secret, name in secrets.items():
            if hmac.compare_digest(given.encode(), secret.encode()):
                return Call(Principal("", user=name))
        raise unauthenticated("metadata authorization: Bearer SECRET of an operator is needed")

    return authenticate


class AdminServicer:
    """penstock.api.limiter.v1.LimiterAdminService."""

    def __init__(self, limiter: LimiterServicer, store: LedgerStore, clock: Clock) -> None:
        self._limiter, self._store, self._clock = limiter, store, clock

    async def ListRules(self, request: pb.ListRulesRequest, call: Call) -> pb.ListRulesResponse:
        section = self._limiter.section
        rows = [
            pb.RuleInForce(
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
            for rule in section.rules
        ]
        return pb.ListRulesResponse(rules=rows)

    async def ShowUsage(self, request: pb.ShowUsageRequest, call: Call) -> pb.ShowUsageResponse:
        asked = request.path
        if not asked.organisation:
            raise invalid("path.organisation", "is empty")
        path = SpendPath(
            asked.organisation, asked.team, asked.user, asked.key_id, tuple(asked.tags), asked.model
        )
        return pb.ShowUsageResponse(rules=await self._limiter.usage(path))

    async def SetLimit(self, request: pb.SetLimitRequest, call: Call) -> pb.SetLimitResponse:
        counter = self._counter(request.subject)
        limit = request.limit if request.HasField("limit") else None
        least = 1 if counter.kind == "rate" else 0
        if limit is not None and not least <= limit <= MAX_AMOUNT:
            raise invalid("limit", f"must lie between {least} and {MAX_AMOUNT}")
        said = "cleared" if limit is None else str(limit)
        await self._note(call, "SetLimit", f"{_name(request.subject)} limit {said}", request.reason)
        with self._limiter.needs_store():
            await self._store.set_limit(request.subject.organisation, counter, limit)
        return pb.SetLimitResponse()

    async def ResetUsage(self, request: pb.ResetUsageRequest, call: Call) -> pb.ResetUsageResponse:
        self._counter(request.subject)
        await self._note(call, "ResetUsage", _name(request.subject), request.reason)
        before, _ = await self._adjust(request.subject, 0, reset=True)
        return pb.ResetUsageResponse(committed=before)

    async def AdjustUsage(
        self, request: pb.AdjustUsageRequest, call: Call
    ) -> pb.AdjustUsageResponse:
        self._counter(request.subject)
        if abs(request.amount) > MAX_AMOUNT:
            raise invalid("amount", f"must lie between -{MAX_AMOUNT} and {MAX_AMOUNT}")
        await self._note(
            call, "AdjustUsage", f"{_name(request.subject)} {request.amount:+d}", request.reason
        )
        _, now = await self._adjust(request.subject, request.amount)
        return pb.AdjustUsageResponse(committed=now)

    async def _adjust(
        self, asked: pb.Subject, amount: int, *, reset: bool = False
    ) -> tuple[int, int]:
        with self._limiter.needs_store():
            try:
                return await self._store.adjust(
                    asked.organisation, self._counter(asked), amount, reset=reset
                )
            except WindowPassed as passed:
                counter = self._counter(asked, passed.now_s)
                return await self._store.adjust(asked.organisation, counter, amount, reset=reset)

    async def DrainOrganisation(
        self, request: pb.DrainOrganisationRequest, call: Call
    ) -> pb.DrainOrganisationResponse:
        if not request.organisation:
            raise invalid("organisation", "is empty")
        said = f"{request.organisation} {'drain' if request.drain else 'let in'}"
        await self._note(call, "DrainOrganisation", said, request.reason)
        with self._limiter.needs_store():
            open_holds = await self._store.drain(request.organisation, request.drain)
        return pb.DrainOrganisationResponse(open_holds=open_holds)

    async def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, call: Call
    ) -> pb.VerifyLedgerResponse:
        if not request.organisation:
            raise invalid("organisation", "is empty")
        with self._limiter.needs_store():
            entries, differing = await self._store.verify(request.organisation)
        return pb.VerifyLedgerResponse(entries=entries, differing=differing)

    async def ListChanges(
        self, request: pb.ListChangesRequest, call: Call
    ) -> pb.ListChangesResponse:
        if not 0 <= request.limit <= MAX_CHANGES:
            raise invalid("limit", f"must lie between 0 and {MAX_CHANGES}")
        with self._limiter.needs_store():
            rows = await self._store.changes(request.limit or 100)
        return pb.ListChangesResponse(
            changes=[pb.Change(at_unix_ms=at, **fields) for at, fields in rows]
        )

    def _counter(self, asked: pb.Subject, now_s: float | None = None) -> Counter:
        for field in ("rule", "organisation", "value"):
            if not getattr(asked, field):
                raise invalid(f"subject.{field}", "is empty")
        now_s = self._clock.time() if now_s is None else now_s
        found = subject(self._limiter.section, asked.rule, asked.organisation, asked.value, now_s)
        if found is None:
            raise not_found("subject.rule", f"there is no rule {asked.rule!r}")
        return found

    async def _note(self, call: Call, action: str, target: str, reason: str) -> None:
        if not reason.strip():
            raise invalid("reason", "is empty; the audit log needs it")
        change = {
            "operator": call.principal.user,
            "action": action,
            "target": target,
            "reason": reason,
        }
        with self._limiter.needs_store():
            await self._store.note_change(change)


def _name(asked: pb.Subject) -> str:
    return f"{asked.rule} of {asked.organisation}/{asked.value}"
