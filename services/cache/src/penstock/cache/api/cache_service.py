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
from penstock.cache.lookups.pending import Landed, Owed, Refreshes, Remembered, Served
from penstock.cache.lookups.receipts import COALESCED, EXACT, MISS, SEMANTIC, receipt_of, saving_of
from penstock.cache.lookups.semantic_lookup import Likeness
from penstock.cache.lookups.single_flight import Flights
from penstock.cache.metrics import Signals
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.report import audited, owned, trade_off
from penstock.cache.semantic.scope import never_kept
from penstock.cache.semantic.semantic_cache import Candidate, SemanticTier
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.storage import invalidation
from penstock.cache.storage.entries import STORE_AWAY, Entries, Entry, reachable
from penstock.cache.storage.key_listing import list_keys
from penstock.cache.storage.tally import Tally
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found
from penstock.service.clock import Clock
from penstock.tasks.answer_keys import STALE, UNASKED, exact_key, salt_of, tenant_of

log = logging.getLogger(__name__)
REFRESHING = f"{STALE}, fetched anew"


class CacheServicer:
    """penstock.api.cache.v1.CacheService. Owns what is owed and in flight."""

    def __init__(
        self,
        settings: CacheSettings,
        section: CacheSection,
        entries: Entries,
        tier: SemanticTier | None,
        clock: Clock,
        judge: Judge | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        secret = (settings.secret or settings.internal_token).encode()
        self._settings, self._entries, self._clock = settings, entries, clock
        self._salt = salt_of(secret)
        self.likeness = Likeness(tier, entries, secret, judge, telemetry)
        self._signals = Signals(entries, tier, telemetry)
        self._flights: Flights[Entry] = Flights()
        self._owed: Remembered[Owed] = Remembered()
        self._served: Remembered[Served] = Remembered()
        self._landed, self._refreshes = Landed(), Refreshes()
        self._section = section

    def reload(self, section: CacheSection) -> None:
        """Put a new section in force; scopes in memory keep the bound they began with."""
        self._section = section
        self._entries.reload(section)
        if self.likeness.tier is not None:
            self.likeness.tier.reload(section)

    @property
    def waiting(self) -> int:
        """Look-ups that wait for the same one's answer."""
        return self._flights.waiting

    @property
    def tally(self) -> Tally:
        """What was looked up, refused and saved so far."""
        return self._signals.tally

    async def LookUp(self, request: pb.LookUpRequest, call: Call) -> pb.LookUpResponse:
        began = time.perf_counter()
        owed = self._asked(request, call)
        entry = await self._entry(owed)
        if entry is not None:
            rule = self._rule_of(owed, entry)
            if rule:
                return self._hit(owed, entry, EXACT, rule, began)
        if not self._flights.lead(owed.key):
            entry = await self._follow(owed, call)
            if entry is not None:
                return self._hit(owed, entry, COALESCED, "coalesced", began)
        elif (entry := self._just_landed(owed)) is not None:
            self._land(owed, entry)
            return self._hit(owed, entry, COALESCED, "coalesced", began)
        try:
            return await self._semantic(owed, began)
        except BaseException:
            self._land(owed, None)
            raise

    def _asked(self, request: pb.LookUpRequest, call: Call) -> Owed:
        requests.check_caller(call)
        requests.check_look_up(request)
        self.likeness.check(request)
        tenant = tenant_of(call.principal)
        return Owed(tenant, self._key(tenant, request.scope, request.task), request)

    def _key(self, tenant: str, scope: pb.Scope, task: inference_pb2.Task) -> str:
        body = task.SerializeToString(deterministic=True)
        return exact_key(
            self._salt, tenant, scope.namespace, scope.model, scope.context_sha256, body
        )

    def _now_ms(self) -> int:
        return round(self._clock.time() * 1000)

    async def _entry(self, owed: Owed) -> Entry | None:
        try:
            return await self._entries.get(
                owed.tenant, owed.key, self._now_ms(), owed.request.max_age_ms
            )
        except STORE_AWAY as error:
            log.warning(
                "the store does not answer (%s): everything is a miss", type(error).__name__
            )
            return None

    def _rule_of(self, owed: Owed, entry: Entry) -> str:
        """How an entry that was found is served: as it is, or stale while one caller fetches the
        new answer; empty where it must not be.
        """
        now_ms = self._now_ms()
        if not entry.stale(now_ms):
            return "exact"
        if now_ms - entry.fresh_until_ms > self._section.stale_while_revalidate_s * 1000:
            return ""
        owed.refreshes = self._refreshes.claim(owed.key, self._clock.monotonic())
        return REFRESHING if owed.refreshes else STALE

    def _just_landed(self, owed: Owed) -> Entry | None:
        """The answer of a lead that has ended a moment ago: its entry may not have been in the
        store when this look-up read there.
        """
        entry = self._landed.get(owed.key, self._clock.monotonic())
        if entry is None:
            return None
        return None if 0 < owed.request.max_age_ms < self._now_ms() - entry.born_ms else entry

    async def _follow(self, owed: Owed, call: Call) -> Entry | None:
        wait_s = min(
            self._settings.coalesce_ms / 1e3, max(call.remaining_s(self._clock.monotonic()), 0.001)
        )
        try:
            return await self._flights.follow(owed.key, wait_s)
        except TimeoutError:
            owed.leads = False
            return None

    async def _semantic(self, owed: Owed, began: float) -> pb.LookUpResponse:
        rule = await self.likeness.ask(owed, self._section, self._clock.monotonic())
        found = owed.candidate
        if found is not None and found.verdict.serve:
            entry = await self._standing(owed, found.key)
            if entry is not None:
                self._land(
                    owed, None
                )  # likeness is decided for each caller by his own bound, and an audit is a call
                return self._hit(owed, entry, SEMANTIC, "semantic", began)
            rule = "miss: entry has left"
            owed.candidate = Candidate(
                found.verdict, found.vector, answer=found.answer, embed_ms=found.embed_ms
            )
        return self._miss(owed, rule, began)

    async def _standing(self, owed: Owed, key: str) -> Entry | None:
        """The entry that a class is served by, while it is fresh."""
        now_ms = self._now_ms()
        entry = (
            await self._entries.get(owed.tenant, key, now_ms, owed.request.max_age_ms)
            if key
            else None
        )
        return entry if entry is not None and not entry.stale(now_ms) else None

    def _miss(self, owed: Owed, rule: str, began: float) -> pb.LookUpResponse:
        self.likeness.ended(owed, hit=False)
        return self._answered(owed, None, MISS, rule, began)

    def _hit(
        self, owed: Owed, entry: Entry, outcome: int, rule: str, began: float
    ) -> pb.LookUpResponse:
        if outcome == SEMANTIC:
            self.likeness.ended(owed, hit=True)
        if owed.request.request_id:
            found = owed.candidate
            answer, probability = (found.answer, found.verdict.probability) if found else ("", 0.0)
            scope_key = owed.scope_key if outcome == SEMANTIC else entry.scope_key
            self._served.put(
                owed.request.request_id,
                Served(owed.tenant, entry.key, scope_key, answer, probability),
            )
        return self._answered(owed, entry, outcome, rule, began)

    def _answered(
        self, owed: Owed, entry: Entry | None, outcome: int, rule: str, began: float
    ) -> pb.LookUpResponse:
        """The receipt, what it saves, and the token of whoever is to bring an answer."""
        self._signals.looked_up(owed.tenant, owed.namespace, rule)
        lookup_ms = (time.perf_counter() - began) * 1e3
        receipt = receipt_of(owed, outcome, rule, lookup_ms, self._section.lookup_microusd)
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
            self.tally.saved(owed.tenant, owed.namespace, saving.microusd, saving.saved_ms)
        if entry is None or owed.refreshes:
            response.token = owed.request.token or secrets.token_bytes(12)
            oldest = self._owed.put(response.token, owed)
            if oldest is not None:
                self._land(oldest, None)
        return response

    async def Store(self, request: pb.StoreRequest, call: Call) -> pb.StoreResponse:
        requests.check_store(request)
        owed = self._owed.pop(request.token, None)
        if owed is None:
            raise not_found("token", "is not owed an answer: it was stored before, or is too old")
        if not request.HasField("result"):
            self._land(owed, None)
            return pb.StoreResponse(reason="no answer")
        task, scope = owed.request.task, owed.request.scope
        reason = never_kept(
            task, request.result, self._section.max_temperature, asked_for=owed.request.asked_for
        )
        if reason:
            self._land(owed, None)
            self._signals.refused(owed.tenant, owed.namespace, reason)
            return pb.StoreResponse(reason=reason)
        tags = invalidation.tags_of(request.tags, scope)
        entry = Entry(
            owed.key,
            request.result,
            request.paid_microusd,
            self._now_ms(),
            scope.model,
            owed.scope_key,
            tags,
        )
        self._land(owed, entry)
        ttl_ms = request.ttl_ms or round(self._section.ttl_s * 1000)
        with reachable():
            if not await self._entries.put(owed.tenant, [entry], ttl_ms):
                return pb.StoreResponse(reason="too large")
            reason = await self.likeness.teach(owed, request.result)
        if reason:
            self._signals.refused(owed.tenant, owed.namespace, reason)
        return pb.StoreResponse(stored=True, reason=reason)

    def _land(self, owed: Owed, entry: Entry | None) -> None:
        if owed.refreshes:
            owed.refreshes = False
            self._refreshes.end(owed.key)
        if owed.leads:
            owed.leads = False
            self._flights.land(owed.key, entry)
            if entry is not None:
                self._landed.put(owed.key, entry, self._clock.monotonic())

    async def StoreAll(self, request: pb.StoreAllRequest, call: Call) -> pb.StoreAllResponse:
        requests.check_caller(call)
        requests.check_answers(request)
        tenant, now_ms = tenant_of(call.principal), self._now_ms()
        fit: list[Entry] = []
        for one in request.answers:
            self._signals.looked_up(tenant, one.scope.namespace, UNASKED)
            reason = never_kept(
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
        self._landed.forget(served.key)
        with reachable():
            await self._entries.remove(served.tenant, [served.key])
            await self.likeness.complained(served)
        return pb.SendFeedbackResponse(quarantined=True)

    async def Invalidate(self, request: pb.InvalidateRequest, call: Call) -> pb.InvalidateResponse:
        requests.check_caller(call)
        invalidation.check(request)
        tenant = tenant_of(call.principal)
        with reachable():
            keys = await invalidation.matching(self._entries, tenant, request)
            for key in keys:
                self._landed.forget(key)
            removed = await self._entries.remove(tenant, keys)
            await self.likeness.removed(tenant, keys)
        return pb.InvalidateResponse(removed=removed)

    async def GetStats(self, request: pb.GetStatsRequest, call: Call) -> pb.GetStatsResponse:
        principal, tier = call.principal, self.likeness.tier
        sums = self.tally.of(principal, request.namespace)
        scope = pb.Scope(namespace=request.namespace)
        shown = (
            await tier.read(lambda scopes: audited(owned(scopes, principal, scope)))
            if tier
            else audited(())
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
        tier = self.likeness.tier
        if tier is None:
            return trade_off(())
        return await tier.read(
            lambda scopes: trade_off(owned(scopes, call.principal, request.scope))
        )
