"""The semantic step of a look-up: made where it is possible, expected to save more than it costs,
and within the tenant's rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.gate import MAX_CHARACTERS
from penstock.cache.semantic.scope import Prompt, prompt_of
from penstock.cache.semantic.semantic_cache import Candidate, SemanticCache
from penstock.cache.settings import CacheSection
from penstock.onnx.card import BadModel
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from penstock.service.current import Current

PRIOR_HIT_RATE = 0.3
PRIOR_LOOKUPS = 20
"""Weight of the prior, in look-ups."""
MIN_HIT_RATE = 0.05
"""The lowest hit rate assumed, so that a scope without hits so far is still asked for expensive
calls.
"""
MAX_SCOPES = 20_000
MAX_TENANTS = 20_000
NO_EMBEDDER = "semantic_off: no embedder"


class LookupValue:
    """What semantic look-ups are worth in each scope, by their hit rate so far."""

    def __init__(self) -> None:
        self._hits_and_lookups: BoundedMap[str, tuple[int, int]] = BoundedMap(MAX_SCOPES)

    def record(self, scope_key: str, *, is_hit: bool) -> None:
        """Count a look-up in a scope."""
        hits, lookups = self._hits_and_lookups.peek(scope_key, (0, 0))
        self._hits_and_lookups.put(scope_key, (hits + is_hit, lookups + 1))

    def exceeds_cost(self, scope_key: str, price_microusd: int, cost_microusd: int) -> bool:
        """Whether the expected saving, hit rate times price, is larger than a look-up's cost."""
        hits, lookups = self._hits_and_lookups.peek(scope_key, (0, 0))
        hit_rate = (hits + PRIOR_HIT_RATE * PRIOR_LOOKUPS) / (lookups + PRIOR_LOOKUPS)
        return max(hit_rate, MIN_HIT_RATE) * price_microusd > cost_microusd


class ProbeLimiter:
    """A token bucket for each tenant that holds one second's worth of semantic look-ups.

    It keeps a caller from finding out quickly, by trying similar prompts, what others of its tenant
    have asked.
    """

    def __init__(self) -> None:
        self._buckets: BoundedMap[str, tuple[float, float]] = BoundedMap(MAX_TENANTS)
        """By tenant: look-ups left, and when that was so."""

    def take(self, tenant: str, rate_per_s: float, now: float) -> bool:
        """Take a look-up from the tenant's bucket; False where it is empty.

        A bucket that was evicted is full again.
        """
        left, at = self._buckets.peek(tenant, (rate_per_s, now))
        left = min(rate_per_s, left + (now - at) * rate_per_s)
        is_allowed = left >= 1.0
        self._buckets.put(tenant, (left - 1.0 if is_allowed else left, now))
        return is_allowed


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """What the semantic step found.

    `rule` says why not, where the semantic cache was not asked; `candidate` is None then, and
    `scope_key` and `text` (the prompt's) are empty.
    """

    rule: str
    scope_key: str = ""
    text: str = ""
    candidate: Candidate | None = None


NOT_ASKED = SemanticResult("")
UNUSABLE = SemanticResult("semantic_off: the embedder cannot be loaded")


class SemanticLookup:
    """Asks the semantic cache. Without one, every result is `NO_EMBEDDER`."""

    def __init__(
        self,
        semantic_cache: SemanticCache | None,
        secret: bytes,
        section: Current[CacheSection],
        clock: Clock,
    ) -> None:
        self._semantic_cache = semantic_cache
        self._secret = secret
        self._section = section
        self._clock = clock
        self._lookup_value = LookupValue()
        self._probe_limiter = ProbeLimiter()

    async def find(self, tenant: str, request: pb.LookUpRequest) -> SemanticResult:
        """What the semantic cache finds for a request, or why it was not asked."""
        semantic_cache = self._semantic_cache
        if semantic_cache is None:
            return SemanticResult(NO_EMBEDDER)
        embedder = semantic_cache.embedder
        prompt = prompt_of(self._secret, tenant, request.scope, request.task, embedder.revision)
        if prompt is None:
            return SemanticResult("miss")
        refusal = self._refusal(tenant, request, prompt)
        if refusal:
            return SemanticResult(refusal)
        bound = request.max_error_rate if request.HasField("max_error_rate") else None
        try:
            candidate = await semantic_cache.find(prompt, bound)
        except BadModel:
            return UNUSABLE
        return SemanticResult(candidate.decision.rule, prompt.scope_key, prompt.text, candidate)

    def record(self, result: SemanticResult, *, is_hit: bool) -> None:
        """Count a semantic look-up that was made, and whether it has served an answer."""
        if result.candidate is not None:
            self._lookup_value.record(result.scope_key, is_hit=is_hit)

    def _refusal(self, tenant: str, request: pb.LookUpRequest, prompt: Prompt) -> str:
        """The rule for which the semantic cache is not asked; empty where it is."""
        section = self._section.value
        if len(prompt.text) > MAX_CHARACTERS:
            return "semantic_off: the prompt is too long to compare"
        if not self._lookup_value.exceeds_cost(
            prompt.scope_key, request.full_price_microusd, section.lookup_microusd
        ):
            return "semantic_off: saves less than it costs"
        if not self._probe_limiter.take(tenant, section.probes_per_s, self._clock.monotonic()):
            return "semantic_off: too many look-ups of this caller"
        return ""
