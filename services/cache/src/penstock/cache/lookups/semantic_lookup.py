"""The semantic step of a look-up: asked where it is possible, worth its cost and within the
tenant's rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.semantic.gate import MAX_CHARACTERS
from penstock.cache.semantic.lookup_value import LookupValue, ProbeLimiter
from penstock.cache.semantic.scope import Prompt, prompt_of
from penstock.cache.semantic.semantic_cache import Candidate, SemanticCache
from penstock.cache.settings import CacheSection
from penstock.service.clock import Clock
from penstock.service.current import Current

NO_EMBEDDER = "semantic_off: no embedder"


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
        candidate = await semantic_cache.find(
            prompt.scope_key,
            prompt.text,
            request.max_error_rate if request.HasField("max_error_rate") else None,
        )
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
