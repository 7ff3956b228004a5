"""The door: each RPC is proto in, the tiers in their order, proto out: exact, in flight,
semantic.
"""

from __future__ import annotations

import logging
import secrets
import time

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups import requests
from penstock.cache.lookups.receipts import COALESCED, EXACT, MISS, SEMANTIC, receipt_of, saving_of
from penstock.cache.lookups.semantic_lookup import SemanticLookup
from penstock.cache.lookups.tickets import (
    BoundedMap,
    LookupTicket,
    RecentAnswers,
    RefreshClaims,
    ServedAnswer,
)
from penstock.cache.metrics import CacheMetrics
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.report import audit_summary, scopes_of, trade_off
from penstock.cache.semantic.scope import refusal_reason
from penstock.cache.semantic.semantic_cache import Candidate, SemanticCache
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.storage import invalidation
from penstock.cache.storage.entry_store import STORE_ERRORS, Entry, EntryStore, reachable
from penstock.cache.storage.key_listing import list_keys
from penstock.cache.storage.tally import Tally
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found
from penstock.service.clock import Clock
from penstock.service.single_flight import SingleFlight
from penstock.tasks.answer_keys import KNOWN_MISS_RULE, STALE_RULE, exact_key, key_salt, tenant_of

log = logging.getLogger(__name__)
REFRESHING = f"{STALE_RULE}, fetched anew"


class CacheServicer:
    """penstock.api.cache.v1.CacheService. Owns what is owed and in flight."""

    def __init__(
        self,
        settings: CacheSettings,
        section: CacheSection,
        entries: EntryStore,
        semantic_cache: SemanticCache | None,
        clock: Clock,
        judge: Judge | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        secret = (settings.secret or settings.internal_token).encode()
        self._settings, self._entries, self._clock = settings, entries, clock
        self._salt = key_salt(secret)
        self.semantic_lookup = SemanticLookup(semantic_cache, entries, secret, judge, telemetry)
        self._signals = CacheMetrics(entries, semantic_cache, telemetry)
        self._single_flight: SingleFlight[Entry] = SingleFlight()
        self._tickets: BoundedMap[LookupTicket] = BoundedMap()
        self._served: BoundedMap[ServedAnswer] = BoundedMap()
        self._recent_answers, self._refresh_claims = RecentAnswers(), RefreshClaims()
        self._section = section

    def reload(self, section: CacheSection) -> None:
        """Put a new section in force; scopes in memory keep the bound they began with."""
        self._section = section
        self._entries.reload(section)
        if self.semantic_lookup.semantic_cache is not None:
            self.semantic_lookup.semantic_cache.reload(section)

    @property
    def waiting(self) -> int:
        """Look-ups that wait for the same one's answer."""
        return self._single_flight.waiting

    @property
    def tally(self) -> Tally:
        """What was looked up, refused and saved so far."""
        return self._signals.tally

    async def LookUp(self, request: pb.LookUpRequest, call: Call) -> pb.LookUpResponse:
        began = time.perf_counter()
        ticket = self._asked(request, call)
        entry = await self._entry(ticket)
        if entry is not None:
            rule = self._rule_of(ticket, entry)
            if rule:
                return self._hit(ticket, entry, EXACT, rule, began)
        if not self._single_flight.lead(ticket.key):
            entry = await self._follow(ticket, call)
            if entry is not None:
                return self._hit(ticket, entry, COALESCED, "coalesced", began)
        elif (entry := self._recent_answer(ticket)) is not None:
            self._land(ticket, entry)
            return self._hit(ticket, entry, COALESCED, "coalesced", began)
        try:
            return await self._semantic(ticket, began)
        except BaseException:
            self._land(ticket, None)
            raise

    def _asked(self, request: pb.LookUpRequest, call: Call) -> LookupTicket:
        requests.check_caller(call)
        requests.check_look_up(request)
        self.semantic_lookup.check(request)
        tenant = tenant_of(call.principal)
        return LookupTicket(tenant, self._key(tenant, request.scope, request.task), request)

    def _key(self, tenant: str, scope: pb.Scope, task: inference_pb2.Task) -> str:
        body = task.SerializeToString(deterministic=True)
        return exact_key(
            self._salt, tenant, scope.namespace, scope.model, scope.context_sha256, body
        )

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)

    async def _entry(self, ticket: LookupTicket) -> Entry | None:
        try:
            return await self._entries.get(
                ticket.tenant, ticket.key, self._now_ms(), ticket.request.max_age_ms
            )
        except STORE_ERRORS as error:
            log.warning(
                "the store does not answer (%s): everything is a miss", type(error).__name__
            )
            return None

    def _rule_of(self, ticket: LookupTicket, entry: Entry) -> str:
        """How an entry that was found is served: as it is, or stale while one caller fetches the
        new answer; empty where it must not be.
        """
        now_ms = self._now_ms()
        if not entry.stale(now_ms):
            return "exact"
        if now_ms - entry.fresh_until_ms > self._section.stale_while_revalidate_s * 1000:
            return ""
        ticket.refreshes = self._refresh_claims.claim(ticket.key, self._clock.monotonic())
        return REFRESHING if ticket.refreshes else STALE_RULE

    def _recent_answer(self, ticket: LookupTicket) -> Entry | None:
        """The answer of a lead that has ended a moment ago: its entry may not have been in the
        store when this look-up read there.
        """
        entry = self._recent_answers.get(ticket.key, self._clock.monotonic())
        if entry is None:
            return None
        return None if 0 < ticket.request.max_age_ms < self._now_ms() - entry.born_ms else entry

    async def _follow(self, ticket: LookupTicket, call: Call) -> Entry | None:
        wait_s = min(
            self._settings.coalesce_ms / 1e3, max(call.remaining_s(self._clock.monotonic()), 0.001)
        )
        try:
            return await self._single_flight.follow(ticket.key, wait_s)
        except TimeoutError:
            ticket.leads = False
            return None

    async def _semantic(self, ticket: LookupTicket, began: float) -> pb.LookUpResponse:
        rule = await self.semantic_lookup.ask(ticket, self._section, self._clock.monotonic())
        found = ticket.candidate
        if found is not None and found.verdict.serve:
            entry = await self._standing(ticket, found.key)
            if entry is not None:
                self._land(
                    ticket, None
                )  # likeness is decided for each caller by his own bound, and an audit is a call
                return self._hit(ticket, entry, SEMANTIC, "semantic", began)
            rule = "miss: entry has left"
            ticket.candidate = Candidate(
                found.verdict, found.vector, answer=found.answer, embed_ms=found.embed_ms
            )
        return self._miss(ticket, rule, began)

    async def _standing(self, ticket: LookupTicket, key: str) -> Entry | None:
        """The entry that a class is served by, while it is fresh."""
        now_ms = self._now_ms()
        entry = (
            await self._entries.get(ticket.tenant, key, now_ms, ticket.request.max_age_ms)
            if key
            else None
        )
        return entry if entry is not None and not entry.stale(now_ms) else None

    def _miss(self, ticket: LookupTicket, rule: str, began: float) -> pb.LookUpResponse:
        self.semantic_lookup.ended(ticket, hit=False)
        return self._answered(ticket, None, MISS, rule, began)

    def _hit(
        self, ticket: LookupTicket, entry: Entry, outcome: int, rule: str, began: float
    ) -> pb.LookUpResponse:
        if outcome == SEMANTIC:
            self.semantic_lookup.ended(ticket, hit=True)
        if ticket.request.request_id:
            found = ticket.candidate
            answer, probability = (found.answer, found.verdict.probability) if found else ("", 0.0)
            scope_key = ticket.scope_key if outcome == SEMANTIC else entry.scope_key
            self._served.put(
                ticket.request.request_id,
                ServedAnswer(ticket.tenant, entry.key, scope_key, answer, probability),
            )
        return self._answered(ticket, entry, outcome, rule, began)

    def _answered(
        self, ticket: LookupTicket, entry: Entry | None, outcome: int, rule: str, began: float
    ) -> pb.LookUpResponse:
        """The receipt, what it saves, and the token of whoever is to bring an answer."""
        self._signals.looked_up(ticket.tenant, ticket.namespace, rule)
        lookup_ms = (time.perf_counter() - began) * 1e3
        receipt = receipt_of(ticket, outcome, rule, lookup_ms, self._section.lookup_microusd)
        response = pb.LookUpResponse(receipt=receipt)
        if entry is not None:
            response.result.CopyFrom(entry.result)
            response.receipt.entry_id, response.receipt.age_ms = (
                entry.key,
                max(0, self._now_ms() - entry.born_ms),
            )
        saving = saving_of(receipt, entry)
        if saving is not None:
            response.savings.append(saving)
            self.tally.saved(ticket.tenant, ticket.namespace, saving.microusd, saving.saved_ms)
        if entry is None or ticket.refreshes:
            response.token = ticket.request.token or secrets.token_bytes(12)
            oldest = self._tickets.put(response.token, ticket)
            if oldest is not None:
                self._land(oldest, None)
        return response

    async def Store(self, request: pb.StoreRequest, call: Call) -> pb.StoreResponse:
        requests.check_store(request)
        ticket = self._tickets.pop(request.token, None)
        if ticket is None:
            raise not_found("token", "is not owed an answer: it was stored before, or is too old")
        if not request.HasField("result"):
            self._land(ticket, None)
            return pb.StoreResponse(reason="no answer")
        task, scope = ticket.request.task, ticket.request.scope
        reason = refusal_reason(
            task, request.result, self._section.max_temperature, asked_for=ticket.request.asked_for
        )
        if reason:
            self._land(ticket, None)
            self._signals.refused(ticket.tenant, ticket.namespace, reason)
            return pb.StoreResponse(reason=reason)
        tags = invalidation.tags_of(request.tags, scope)
        entry = Entry(
            ticket.key,
            request.result,
            request.paid_microusd,
            self._now_ms(),
            scope.model,
            ticket.scope_key,
            tags,
        )
        self._land(ticket, entry)
        ttl_ms = request.ttl_ms or round(self._section.ttl_s * 1000)
        with reachable():
            if not await self._entries.put(ticket.tenant, [entry], ttl_ms):
                return pb.StoreResponse(reason="too large")
            reason = await self.semantic_lookup.teach(ticket, request.result)
        if reason:
            self._signals.refused(ticket.tenant, ticket.namespace, reason)
        return pb.StoreResponse(stored=True, reason=reason)

    def _land(self, ticket: LookupTicket, entry: Entry | None) -> None:
        if ticket.refreshes:
            ticket.refreshes = False
            self._refresh_claims.end(ticket.key)
        if ticket.leads:
            ticket.leads = False
            self._single_flight.land(ticket.key, entry)
            if entry is not None:
                self._recent_answers.put(ticket.key, entry, self._clock.monotonic())

    async def StoreAll(self, request: pb.StoreAllRequest, call: Call) -> pb.StoreAllResponse:
        requests.check_caller(call)
        requests.check_answers(request)
        tenant, now_ms = tenant_of(call.principal), self._now_ms()
        fit: list[Entry] = []
        for one in request.answers:
            self._signals.looked_up(tenant, one.scope.namespace, KNOWN_MISS_RULE)
            reason = refusal_reason(
                one.task, one.result, self._section.max_temperature, asked_for=one.asked_for
            )
            if reason:
                self._signals.refused(tenant, one.scope.namespace, reason)
                continue
            key, tags = (
                self._key(tenant, one.scope, one.task),
                invalidation.tags_of(one.tags, one.scope),
            )
            fit.append(Entry(key, one.result, one.paid_microusd, now_ms, one.scope.model, "", tags))
        with reachable():
            return pb.StoreAllResponse(
                stored=await self._entries.put(tenant, fit, round(self._section.ttl_s * 1000))
            )

    async def ListKeys(self, request: pb.ListKeysRequest, call: Call) -> pb.ListKeysResponse:
        with reachable():
            return await list_keys(self._entries, self._salt, request.cursor)

    async def SendFeedback(
        self, request: pb.SendFeedbackRequest, call: Call
    ) -> pb.SendFeedbackResponse:
        if not request.request_id:
            raise invalid("request_id", "is empty")
        served = self._served.get(request.request_id)
        if served is None or served.tenant != tenant_of(call.principal) or request.correct:
            return pb.SendFeedbackResponse()
        del self._served[request.request_id]
        self._recent_answers.forget(served.key)
        with reachable():
            await self._entries.remove(served.tenant, [served.key])
            await self.semantic_lookup.complained(served)
        return pb.SendFeedbackResponse(quarantined=True)

    async def Invalidate(self, request: pb.InvalidateRequest, call: Call) -> pb.InvalidateResponse:
        requests.check_caller(call)
        invalidation.check(request)
        tenant = tenant_of(call.principal)
        with reachable():
            keys = await invalidation.matching(self._entries, tenant, request)
            for key in keys:
                self._recent_answers.forget(key)
            removed = await self._entries.remove(tenant, keys)
            await self.semantic_lookup.removed(tenant, keys)
        return pb.InvalidateResponse(removed=removed)

    async def GetStats(self, request: pb.GetStatsRequest, call: Call) -> pb.GetStatsResponse:
        principal, semantic_cache = call.principal, self.semantic_lookup.semantic_cache
        sums = self.tally.of(principal, request.namespace)
        scope = pb.Scope(namespace=request.namespace)
        shown = (
            await semantic_cache.read(
                lambda scopes: audit_summary(scopes_of(scopes, principal, scope))
            )
            if semantic_cache
            else audit_summary(())
        )
        size, count = self._entries.size_bytes, len(self._entries)
        if principal.organisation:
            size, count = self._entries.held_by(
                {tenant_of(principal), *self.tally.tenants(principal)}
            )
        return pb.GetStatsResponse(
            lookups=sums.rules,
            audited_precision=shown.precision,
            audited_precision_low=shown.low,
            audits=shown.audits,
            bytes=size,
            entries=count,
            saved_microusd=sums.saved_microusd,
            saved_ms=sums.saved_ms,
            refused=sums.refused,
        )

    async def GetTradeOff(
        self, request: pb.GetTradeOffRequest, call: Call
    ) -> pb.GetTradeOffResponse:
        semantic_cache = self.semantic_lookup.semantic_cache
        if semantic_cache is None:
            return trade_off(())
        return await semantic_cache.read(
            lambda scopes: trade_off(scopes_of(scopes, call.principal, request.scope))
        )
