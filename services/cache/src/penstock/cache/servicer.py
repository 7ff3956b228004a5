"""The door: each RPC is proto in, the tiers in their order, proto out: exact, in flight, semantic."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.adapters import Entries, Entry, Lesson
from penstock.cache.config import CacheSection, CacheSettings
from penstock.cache.flights import Flights
from penstock.cache.gate import MOST_CHARACTERS
from penstock.cache.invalidation import matching, tags_of
from penstock.cache.judge import Judge
from penstock.cache.listing import list_keys
from penstock.cache.report import audited, trade_off
from penstock.cache.scope import answer_class, never_kept, prompt_of
from penstock.cache.tier import Candidate, SemanticTier
from penstock.core import semantics
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import invalid, not_found, unavailable
from penstock.core.reuse import UNASKED, exact_key, salt_of, tenant_of
from penstock.core.telemetry import NO_TELEMETRY, Telemetry
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
EXACT, SEMANTIC = common_pb2.CACHE_OUTCOME_EXACT_HIT, common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
MISS, COALESCED, BYPASSED = (
    common_pb2.CACHE_OUTCOME_MISS,
    common_pb2.CACHE_OUTCOME_COALESCED,
    common_pb2.CACHE_OUTCOME_BYPASSED,
)
TECHNIQUES = {EXACT: "exact_cache", SEMANTIC: "semantic_cache", COALESCED: "coalesced"}
OWED_KEPT = 100_000
LANDED_KEPT, LANDED_S = 512, 2.0
MOST_ANSWERS = 1_000
HIT_PRIOR, PRIOR_WEIGHT = 0.3, 20


@dataclass
class Owed:
    """A miss whose answer may come."""

    tenant: str
    key: str
    request: pb.LookUpRequest
    leads: bool
    scope_key: str = ""
    text: str = ""
    candidate: Candidate | None = None
    began_s: float = 0.0


@dataclass(frozen=True)
class Served:
    """A hit that a caller may still judge."""

    tenant: str
    key: str
    scope_key: str
    answer: str
    probability: float


class CacheServicer:
    """penstock.api.cache.v1.CacheService. Owns what is owed and in flight."""

    def __init__(
        self, settings: CacheSettings, section: CacheSection, entries: Entries, tier: SemanticTier | None, clock: Clock
    ) -> None:
        self._settings = settings
        self._secret = (settings.secret or settings.internal_token).encode()
        self._salt = salt_of(self._secret)
        self._entries = entries
        self._tier = tier
        self._clock = clock
        self._flights: Flights[Entry] = Flights()
        self._owed: OrderedDict[bytes, Owed] = OrderedDict()
        self._landed: OrderedDict[str, tuple[float, Entry]] = OrderedDict()
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._probes: dict[str, tuple[float, float]] = {}
        self.judge: Judge | None = None
        """Who clusters free answers; set by the hall."""
        self.counts: Counter[str] = Counter()
        self.saved_microusd, self.saved_ms = 0, 0.0
        self.reload(section)
        self.watch(NO_TELEMETRY)

    def reload(self, section: CacheSection) -> None:
        """Put a new section in force; scopes keep the bound they began with."""
        self._section = section

    @property
    def waiting(self) -> int:
        """Look-ups that wait for the same one's answer."""
        return self._flights.waiting

    def watch(self, telemetry: Telemetry) -> None:
        """Report look-ups by rule, and what is held."""
        self._telemetry = telemetry
        self._lookups = telemetry.counter("penstock.cache.lookups", "{lookup}", "Look-ups by rule")
        self._agreement = telemetry.histogram(semantics.AGREEMENT, "1", "Audited answers that the model gave again")
        telemetry.gauge("penstock.cache.bytes", "By", "Bytes of entries held", lambda: float(self._entries.size_bytes))
        telemetry.gauge("penstock.cache.entries", "{entry}", "Entries held", lambda: float(len(self._entries)))

    async def LookUp(self, request: pb.LookUpRequest, call: Call) -> pb.LookUpResponse:
        began = time.perf_counter()
        owed = self._asked(request, call)
        entry = await self._entry(owed)
        if entry is not None:
            return self._hit(owed, entry, EXACT, "exact", began)
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
        if not call.principal.organisation:
            raise invalid("context.principal.organisation", "is empty: without a principal there is no cache")
        if not request.scope.model:
            raise invalid("scope.model", "is empty")
        if request.token and not 12 <= len(request.token) <= 32:
            raise invalid("token", "must have 12 to 32 bytes")
        if request.task.WhichOneof("task") is None:
            raise invalid("task", "is empty")
        tenant = tenant_of(call.principal)
        key = self._key(tenant, request.scope, request.task)
        return Owed(tenant, key, request, True, began_s=self._clock.monotonic())

    def _key(self, tenant: str, scope: pb.Scope, task: inference_pb2.Task) -> str:
        body = task.SerializeToString(deterministic=True)
        return exact_key(self._salt, tenant, scope.namespace, scope.model, scope.context_sha256, body)

    async def _entry(self, owed: Owed) -> Entry | None:
        try:
            now_ms = round(self._clock.time() * 1000)
            return await self._entries.get(owed.tenant, owed.key, now_ms, owed.request.max_age_ms)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("the store does not answer (%s): everything is a miss", type(error).__name__)
            return None

    def _just_landed(self, owed: Owed) -> Entry | None:
        """The answer of a lead that has ended a moment ago: its entry may not have been in the store when this look-up read there."""
        at, entry = self._landed.get(owed.key, (0.0, None))
        if entry is None or self._clock.monotonic() - at > LANDED_S:
            return None
        age_ms = round(self._clock.time() * 1000) - entry.born_ms
        return None if 0 < owed.request.max_age_ms < age_ms else entry

    async def _follow(self, owed: Owed, call: Call) -> Entry | None:
        wait_s = min(self._settings.coalesce_ms / 1e3, max(call.remaining_s(self._clock.monotonic()), 0.001))
        try:
            return await self._flights.follow(owed.key, wait_s)
        except TimeoutError:
            owed.leads = False
            return None

    async def _semantic(self, owed: Owed, began: float) -> pb.LookUpResponse:
        rule = await self._try_semantic(owed)
        found = owed.candidate
        if found is not None and found.verdict.serve:
            now_ms = round(self._clock.time() * 1000)
            entry = (
                await self._entries.get(owed.tenant, found.key, now_ms, owed.request.max_age_ms) if found.key else None
            )
            if entry is not None:
                self._land(owed, entry)
                return self._hit(owed, entry, SEMANTIC, "semantic", began)
            rule = "miss: entry has left"
            owed.candidate = Candidate(found.verdict, found.vector)
        return self._miss(owed, rule, began)

    async def _try_semantic(self, owed: Owed) -> str:
        """Ask the semantic tier where that is allowed and worth it; the rule for the receipt."""
        request, tier = owed.request, self._tier
        if tier is None:
            return "semantic_off: no embedder"
        prompt = prompt_of(self._secret, owed.tenant, request.scope, request.task, self._settings.embedder)
        if prompt is None:
            return "miss"
        if len(prompt.text) > MOST_CHARACTERS:
            return "semantic_off: the prompt is too long to compare"
        if not self._worth_it(prompt.scope_key, request.full_price_microusd):
            return "semantic_off: saves less than it costs"
        if not self._may_probe(owed.tenant):
            return "semantic_off: too many look-ups of this caller"
        vector = None
        if request.vector and request.embedder_revision == self._settings.embedder:
            vector = np.array(request.vector, np.float32)
        bound = request.max_error_rate if request.HasField("max_error_rate") else None
        owed.scope_key, owed.text = prompt.scope_key, prompt.text
        owed.candidate = await tier.decide(prompt.scope_key, prompt.text, vector, bound)
        return owed.candidate.verdict.rule

    def _worth_it(self, scope_key: str, full_price: int) -> bool:
        """True where the scope's hit rate so far times the price is more than a look-up costs."""
        hits, asked = self.counts[f"{scope_key}:hits"], self.counts[f"{scope_key}:asked"]
        rate = (hits + HIT_PRIOR * PRIOR_WEIGHT) / (asked + PRIOR_WEIGHT)
        return max(rate, 0.05) * full_price > self._section.lookup_microusd

    def _may_probe(self, tenant: str) -> bool:
        """A token bucket of one second's worth for each tenant."""
        now, rate = self._clock.monotonic(), self._section.probes_per_s
        level, at = self._probes.get(tenant, (rate, now))
        level = min(rate, level + (now - at) * rate)
        self._probes[tenant] = (level - 1.0 if level >= 1.0 else level, now)
        return level >= 1.0

    def _miss(self, owed: Owed, rule: str, began: float) -> pb.LookUpResponse:
        if owed.scope_key:
            self.counts[f"{owed.scope_key}:asked"] += 1
        token = owed.request.token or secrets.token_bytes(12)
        self._owed[token] = owed
        if len(self._owed) > OWED_KEPT:
            _, oldest = self._owed.popitem(last=False)
            self._land(oldest, None)
        receipt = self._receipt(owed, MISS, rule, began)
        return pb.LookUpResponse(receipt=receipt, token=token)

    def _hit(
        self, owed: Owed, entry: Entry, outcome: common_pb2.CacheOutcome, rule: str, began: float
    ) -> pb.LookUpResponse:
        receipt = self._receipt(owed, outcome, rule, began)
        receipt.age_ms = max(0, round(self._clock.time() * 1000) - entry.born_ms)
        saved_ms = max(entry.result.compute_ms - receipt.lookup_ms, -receipt.lookup_ms)
        saving = common_pb2.Saving(technique=TECHNIQUES[outcome], microusd=entry.paid_microusd, saved_ms=saved_ms)
        self.saved_microusd += entry.paid_microusd
        self.saved_ms += saved_ms
        if outcome == SEMANTIC:
            self.counts[f"{owed.scope_key}:asked"] += 1
            self.counts[f"{owed.scope_key}:hits"] += 1
        if owed.request.request_id:
            verdict = owed.candidate.verdict if owed.candidate else None
            answer = self._tier.class_name(owed.scope_key, verdict.answer) if self._tier and verdict else ""
            scope_key = owed.scope_key if outcome == SEMANTIC else entry.scope_key
            self._served[owed.request.request_id] = Served(
                owed.tenant, entry.key, scope_key, answer, verdict.probability if verdict else 0.0
            )
            if len(self._served) > OWED_KEPT:
                self._served.popitem(last=False)
        return pb.LookUpResponse(result=entry.result, receipt=receipt, savings=[saving])

    def _receipt(self, owed: Owed, outcome: int, rule: str, began: float) -> common_pb2.CacheReceipt:
        self.counts[rule] += 1
        self._lookups.add(1, {"rule": rule})
        receipt = common_pb2.CacheReceipt(rule=rule, lookup_ms=(time.perf_counter() - began) * 1e3)
        receipt.outcome = outcome  # type: ignore[assignment]
        if owed.candidate is not None:
            verdict = owed.candidate.verdict
            receipt.similarity, receipt.confidence = max(0.0, verdict.similarity), verdict.probability
        return receipt

    async def Store(self, request: pb.StoreRequest, call: Call) -> pb.StoreResponse:
        owed = self._owed.pop(request.token, None)
        if owed is None:
            raise not_found("token", "is not owed an answer: it was stored before, or is too old")
        if not request.HasField("result"):
            self._land(owed, None)
            return pb.StoreResponse(reason="no answer")
        task = owed.request.task
        reason = never_kept(task, request.result, self._section.max_temperature, asked_for=owed.request.asked_for)
        if reason:
            self._land(owed, None)
            self.counts[f"refused: {reason}"] += 1
            return pb.StoreResponse(reason=reason)
        entry = Entry(
            owed.key, request.result, request.paid_microusd, round(self._clock.time() * 1000), owed.request.scope.model,
            owed.scope_key, tags_of(request.tags, owed.request.scope),
        )  # fmt: skip
        self._land(owed, entry)
        ttl_ms = request.ttl_ms or round(self._section.ttl_s * 1000)
        stored = await self._entries.put(owed.tenant, [entry], ttl_ms) > 0
        if stored and owed.candidate is not None:
            reason = await self._teach(owed, request.result)
        return pb.StoreResponse(stored=stored, reason=reason if stored else "too large")

    async def StoreAll(self, request: pb.StoreAllRequest, call: Call) -> pb.StoreAllResponse:
        if not call.principal.organisation:
            raise invalid("context.principal.organisation", "is empty: without a principal there is no cache")
        if len(request.answers) > MOST_ANSWERS:
            raise invalid("answers", f"are {len(request.answers)}: {MOST_ANSWERS} at most")
        tenant, now_ms = tenant_of(call.principal), round(self._clock.time() * 1000)
        entries = [self._brought(at, one, tenant, now_ms) for at, one in enumerate(request.answers)]
        self.counts[UNASKED] += len(entries)
        self._lookups.add(len(entries), {"rule": UNASKED})
        fit = [entry for entry in entries if entry is not None]
        return pb.StoreAllResponse(stored=await self._entries.put(tenant, fit, round(self._section.ttl_s * 1000)))

    def _brought(self, at: int, one: pb.Answer, tenant: str, now_ms: int) -> Entry | None:
        """The entry of an answer that nobody looked up; None where it must not be kept."""
        for name in ("scope.model", "task", "result"):
            if not (one.scope.model if name == "scope.model" else one.HasField(name)):
                raise invalid(f"answers[{at}].{name}", "is empty")
        reason = never_kept(one.task, one.result, self._section.max_temperature, asked_for=one.asked_for)
        if reason:
            self.counts[f"refused: {reason}"] += 1
            return None
        key = self._key(tenant, one.scope, one.task)
        return Entry(key, one.result, one.paid_microusd, now_ms, one.scope.model, "", tags_of(one.tags, one.scope))

    async def ListKeys(self, request: pb.ListKeysRequest, call: Call) -> pb.ListKeysResponse:
        try:
            return await list_keys(self._entries, self._salt, request.cursor)
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(f"the store does not answer ({type(error).__name__})", 1.0) from None

    async def _teach(self, owed: Owed, result: inference_pb2.TaskResult) -> str:
        """Tell every replica what this call has shown; why not, where the answer is free text and nobody has judged it."""
        name = answer_class(owed.request.task, result) or await self._judged(owed, result)
        if not name:
            reason = f"semantic_off: {'the judge gave no verdict' if self.judge else 'no judge'}"
            self.counts[reason] += 1
            return reason
        assert owed.candidate is not None
        verdict = owed.candidate.verdict
        voted = self._tier.class_name(owed.scope_key, verdict.answer) if self._tier else ""
        seen = {
            "answer": voted,
            "probability": verdict.probability,
            "audit": verdict.audit,
            "features": verdict.features,
            "propensity": verdict.propensity,
            "gate": verdict.gate,
        }
        if voted and verdict.audit:
            self._agreement.record(float(voted == name), {semantics.REQUEST_MODEL: owed.request.scope.model})
        vector = owed.candidate.vector
        await self._entries.teach(
            Lesson("learn", owed.tenant, owed.scope_key, owed.key, owed.text, name, vector, seen if voted else None)
        )
        return ""

    async def _judged(self, owed: Owed, result: inference_pb2.TaskResult) -> str:
        """The cluster of a free answer: the nearest class whose answer the judge calls the same, else its own; empty for no verdict."""
        message = result.generate.message
        if self.judge is None or message.tool_calls or not message.content.strip() or owed.candidate is None:
            return ""
        for name, key in owed.candidate.rivals:
            entry = await self._entries.get(owed.tenant, key, 0, 0)
            if entry is None:
                continue
            same = await self.judge.same(owed.text, entry.result.generate.message.content, message.content)
            if same is None:
                return ""
            if same:
                return name
        return f"text:{owed.key}"

    def _land(self, owed: Owed, entry: Entry | None) -> None:
        if owed.leads:
            owed.leads = False
            self._flights.land(owed.key, entry)
            if entry is not None:
                self._landed[owed.key] = (self._clock.monotonic(), entry)
                if len(self._landed) > LANDED_KEPT:
                    self._landed.popitem(last=False)

    async def SendFeedback(self, request: pb.SendFeedbackRequest, call: Call) -> pb.SendFeedbackResponse:
        if not request.request_id:
            raise invalid("request_id", "is empty")
        served = self._served.get(request.request_id)
        if served is None or served.tenant != tenant_of(call.principal) or request.correct:
            return pb.SendFeedbackResponse()
        del self._served[request.request_id]
        self._landed.pop(served.key, None)
        await self._entries.remove(served.tenant, [served.key])
        if served.scope_key:
            seen = {"answer": served.answer, "probability": served.probability}
            await self._entries.teach(Lesson("wrong", served.tenant, served.scope_key, served.key, verdict=seen))
        return pb.SendFeedbackResponse(quarantined=True)

    async def Invalidate(self, request: pb.InvalidateRequest, call: Call) -> pb.InvalidateResponse:
        tenant = tenant_of(call.principal)
        keys = await matching(self._entries, tenant, request)
        for key in keys:
            self._landed.pop(key, None)
        removed = await self._entries.remove(tenant, keys)
        for held_key in keys:
            for scope_key in self._scopes_with(held_key):
                await self._entries.teach(Lesson("remove", tenant, scope_key, held_key))
        return pb.InvalidateResponse(removed=removed)

    def _scopes_with(self, key: str) -> list[str]:
        if self._tier is None:
            return []
        return [name for name in self._tier.names() if key in self._tier.places(name)]

    async def GetStats(self, request: pb.GetStatsRequest, call: Call) -> pb.GetStatsResponse:
        stats = audited(self._tier)
        stats.lookups.update({rule: n for rule, n in self.counts.items() if not rule.endswith((":hits", ":asked"))})
        stats.bytes, stats.entries = self._entries.size_bytes, len(self._entries)
        stats.saved_microusd, stats.saved_ms = self.saved_microusd, self.saved_ms
        return stats

    async def GetTradeOff(self, request: pb.GetTradeOffRequest, call: Call) -> pb.GetTradeOffResponse:
        return trade_off(self._tier, call.principal.organisation)
