"""A look-up in its steps: exact, in flight, semantic."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from sys import intern

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.lookups.messages import (
    COALESCED,
    EXACT,
    MISS,
    SEMANTIC,
    LookupResult,
    request_key,
    response_of,
)
from penstock.cache.lookups.parts import CacheParts
from penstock.cache.lookups.pending import Lookup, LookupTicket, ServedAnswer
from penstock.cache.lookups.semantic_lookup import SemanticLookup, SemanticResult
from penstock.cache.storage.entries import Entry
from penstock.cache.storage.entry_store import STORE_ERRORS
from penstock.rpc.call import Call
from penstock.service.clock import unix_ms
from penstock.tasks.answer_keys import tenant_of

log = logging.getLogger(__name__)
STALE_RULE, REFRESH_RULE = "exact: stale", "exact: stale, fetched anew"
MIN_WAIT_S = 0.001


class Lookups:
    """Answers look-ups. `coalesce_s` is the longest wait for the answer of an identical one."""

    def __init__(
        self, parts: CacheParts, semantic_lookup: SemanticLookup, coalesce_s: float
    ) -> None:
        self._parts = parts
        self._pending = parts.pending
        self._semantic_lookup = semantic_lookup
        self._coalesce_s = coalesce_s

    async def look_up(self, request: pb.LookUpRequest, call: Call) -> pb.LookUpResponse:
        """Answer a checked look-up.

        Raises:
            Fault: INVALID_ARGUMENT for a vector that cannot be compared.
        """
        started = time.perf_counter()
        tenant = tenant_of(call.principal)
        key = request_key(self._parts.key_salt, tenant, request.scope, request.task)
        lookup = Lookup(tenant, key, request)
        result = await self._exact(lookup) or await self._coalesced(lookup, call)
        if result is not None:
            return self._respond(lookup, result, started)
        try:
            return self._respond(lookup, await self._semantic(lookup), started)
        except BaseException:
            self._pending.finish(lookup, None)
            raise

    async def _exact(self, lookup: Lookup) -> LookupResult | None:
        """The stored answer to the same request, if it may be served."""
        entry = await self._stored_entry(lookup)
        rule = self._exact_rule(lookup, entry)
        return LookupResult(EXACT, rule, entry) if rule else None

    def _exact_rule(self, lookup: Lookup, entry: Entry | None) -> str:
        """The rule by which an entry is served, if stale while one caller fetches the new answer;
        empty where it must not be served.
        """
        if entry is None:
            return ""
        now_ms = self._now_ms()
        if not entry.is_stale(now_ms):
            return "exact"
        usable_s = self._parts.section.value.stale_while_revalidate_s
        if now_ms - entry.fresh_until_ms > usable_s * 1000:
            return ""
        return REFRESH_RULE if self._pending.claim_refresh(lookup) else STALE_RULE

    async def _coalesced(self, lookup: Lookup, call: Call) -> LookupResult | None:
        """The answer of an identical look-up in flight, or of one that has just ended.

        Without one, this look-up is the leader of its key, unless it has waited too long.
        """
        if self._pending.begin(lookup):
            entry = self._recent_entry(lookup)
            if entry is not None:
                self._pending.finish(lookup, entry)
        else:
            remaining_s = call.remaining_s(self._parts.clock.monotonic())
            timeout_s = min(self._coalesce_s, max(remaining_s, MIN_WAIT_S))
            entry = await self._pending.wait(lookup, timeout_s)
        return LookupResult(COALESCED, "coalesced", entry) if entry is not None else None

    def _recent_entry(self, lookup: Lookup) -> Entry | None:
        """An answer that came after this look-up had read the store, if it is not too old."""
        entry = self._pending.recent_answer(lookup.key)
        max_age_ms = lookup.request.max_age_ms
        if entry is not None and max_age_ms and entry.age_ms(self._now_ms()) > max_age_ms:
            return None
        return entry

    async def _semantic(self, lookup: Lookup) -> LookupResult:
        """The answer to a similar request, or a miss."""
        semantic = await self._semantic_lookup.find(lookup.tenant, lookup.request)
        candidate = semantic.candidate
        if candidate is None or not candidate.decision.serve:
            return self._semantic_miss(semantic, semantic.rule)
        entry = await self._fresh_entry(lookup, candidate.key)
        if entry is None:
            semantic = replace(semantic, candidate=candidate.without_entry())
            return self._semantic_miss(semantic, "miss: entry has left")
        # Whether a similar answer may be served depends on each caller's own bound, so identical
        # look-ups in flight decide for themselves.
        self._pending.finish(lookup, None)
        self._semantic_lookup.record(semantic, is_hit=True)
        return LookupResult(SEMANTIC, "semantic", entry, semantic)

    def _semantic_miss(self, semantic: SemanticResult, rule: str) -> LookupResult:
        self._semantic_lookup.record(semantic, is_hit=False)
        return LookupResult(MISS, rule, None, semantic)

    async def _stored_entry(self, lookup: Lookup) -> Entry | None:
        """The stored answer to the same request; none where the store does not answer."""
        try:
            return await self._parts.entries.get(
                lookup.tenant, lookup.key, self._now_ms(), lookup.request.max_age_ms
            )
        except STORE_ERRORS as error:
            log.warning(
                "look-up: the store does not answer (%s); it is a miss", type(error).__name__
            )
            return None

    async def _fresh_entry(self, lookup: Lookup, key: str) -> Entry | None:
        """The entry of a key that may be served by similarity, which a stale one may not."""
        if not key:
            return None
        now_ms = self._now_ms()
        entry = await self._parts.entries.get(lookup.tenant, key, now_ms, lookup.request.max_age_ms)
        return None if entry is None or entry.is_stale(now_ms) else entry

    def _respond(self, lookup: Lookup, result: LookupResult, started: float) -> pb.LookUpResponse:
        """The response: statistics are counted, and whoever is to bring an answer gets a token."""
        statistics = self._parts.statistics
        is_hit = result.entry is not None
        statistics.record_lookup(lookup.tenant, lookup.namespace, result.rule, is_hit=is_hit)
        lookup_ms = (time.perf_counter() - started) * 1e3
        lookup_microusd = self._parts.section.value.lookup_microusd
        response = response_of(result, self._now_ms(), lookup_ms, lookup_microusd)
        for saving in response.savings:
            statistics.record_saving(
                lookup.tenant, lookup.namespace, saving.microusd, saving.saved_ms
            )
        if result.entry is not None:
            self._remember_served(lookup, result.entry, result.semantic)
        if result.entry is None or lookup.is_refresh:
            response.token = self._pending.issue_token(LookupTicket(lookup, result.semantic))
        return response

    def _remember_served(self, lookup: Lookup, entry: Entry, semantic: SemanticResult) -> None:
        """Remember a hit by its request id, so that its caller may report it as wrong.

        The texts that hits of one entry share are interned: there are thousands of hits.
        """
        request_id = lookup.request.request_id
        if not request_id:
            return
        served = ServedAnswer(
            intern(lookup.tenant), intern(entry.key), intern(entry.scope_key), "", 0.0
        )
        candidate = semantic.candidate
        if candidate is not None:
            served = served._replace(
                scope_key=semantic.scope_key,
                answer=candidate.answer,
                probability=candidate.decision.probability,
            )
        self._pending.served.put(request_id, served)

    def _now_ms(self) -> int:
        return unix_ms(self._parts.clock)
