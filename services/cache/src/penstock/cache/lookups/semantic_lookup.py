"""Asking for likeness, and teaching it: where that is allowed and worth it, what the tier says, and
what a called request has shown.
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups.requests import ready_vector
from penstock.cache.lookups.tickets import LookupTicket, ServedAnswer
from penstock.cache.semantic.gate import MAX_CHARACTERS
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.learning_log import LearningEvent
from penstock.cache.semantic.lookup_value import LookupValue, ProbeLimiter
from penstock.cache.semantic.scope import canonical_answer, prompt_of
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entry_store import EntryStore
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry

NO_EMBEDDER = "semantic_off: no embedder"


class SemanticLookup:
    """The semantic tier as the door sees it. Without a tier every answer is `NO_EMBEDDER`."""

    def __init__(
        self,
        semantic_cache: SemanticCache | None,
        entries: EntryStore,
        secret: bytes,
        judge: Judge | None,
        telemetry: Telemetry,
    ) -> None:
        self.semantic_cache = semantic_cache
        self._entries = entries
        self._secret = secret
        self._lookup_value, self._probe_limiter = LookupValue(), ProbeLimiter()
        self.judge = judge
        """Who says whether two free answers are the same; without one, free text is exact only."""
        self._agreement = telemetry.histogram(
            semantics.AGREEMENT, "1", "Audited answers that the model gave again"
        )

    def check(self, request: pb.LookUpRequest) -> None:
        """Raise INVALID_ARGUMENT for a ready vector that cannot be compared."""
        if self.semantic_cache is not None:
            ready_vector(request, self.semantic_cache.embedder)

    async def ask(self, ticket: LookupTicket, section: CacheSection, now: float) -> str:
        """Ask the tier where that is allowed and worth it; the rule for the receipt.

        What it found is in `ticket` then.
        """
        request, semantic_cache = ticket.request, self.semantic_cache
        if semantic_cache is None:
            return NO_EMBEDDER
        prompt = prompt_of(
            self._secret,
            ticket.tenant,
            request.scope,
            request.task,
            semantic_cache.embedder.revision,
        )
        if prompt is None:
            return "miss"
        if len(prompt.text) > MAX_CHARACTERS:
            return "semantic_off: the prompt is too long to compare"
        if not self._lookup_value.pays(
            prompt.scope_key, request.full_price_microusd, section.lookup_microusd
        ):
            return "semantic_off: saves less than it costs"
        if not self._probe_limiter.may(ticket.tenant, section.probes_per_s, now):
            return "semantic_off: too many look-ups of this caller"
        bound = request.max_error_rate if request.HasField("max_error_rate") else None
        ticket.scope_key, ticket.text = prompt.scope_key, prompt.text
        ticket.candidate = await semantic_cache.decide(
            prompt.scope_key, prompt.text, ready_vector(request, semantic_cache.embedder), bound
        )
        return ticket.candidate.verdict.rule

    def ended(self, ticket: LookupTicket, *, hit: bool) -> None:
        """A look-up that asked for likeness has been answered by it, or not."""
        if ticket.scope_key:
            self._lookup_value.asked(ticket.scope_key, hit)

    async def teach(self, ticket: LookupTicket, result: inference_pb2.TaskResult) -> str:
        """Tell every replica what this call has shown; why not, where the answer is free text and
        nobody has judged it.
        """
        if self.semantic_cache is None or ticket.candidate is None:
            return ""
        name = canonical_answer(ticket.request.task, result) or await self._judged(ticket, result)
        if not name:
            return f"semantic_off: {'the judge gave no verdict' if self.judge else 'no judge'}"
        found, scope = ticket.candidate, ticket.request.scope
        verdict = found.verdict
        seen = {
            "answer": found.answer,
            "probability": verdict.probability,
            "audit": verdict.audit,
            "features": verdict.features,
            "gate": verdict.gate,
        }
        if found.answer and verdict.audit:
            self._agreement.record(
                float(found.answer == name), {semantics.REQUEST_MODEL: scope.model}
            )
        await self.semantic_cache.learning_log.teach(
            LearningEvent(
                "learn",
                ticket.tenant,
                ticket.scope_key,
                ticket.key,
                ticket.text,
                name,
                found.vector,
                seen if found.answer else None,
                scope.namespace,
                scope.model,
                scope.context_sha256,
            )
        )
        return ""

    async def _judged(self, ticket: LookupTicket, result: inference_pb2.TaskResult) -> str:
        """The cluster of a free answer: the nearest class whose answer the judge calls the same,
        else its own; empty for no verdict.
        """
        message = result.generate.message
        if (
            self.judge is None
            or message.tool_calls
            or not message.content.strip()
            or ticket.candidate is None
        ):
            return ""
        for name, key in ticket.candidate.rivals:
            entry = await self._entries.get(ticket.tenant, key, 0, 0)
            if entry is None:
                continue
            same = await self.judge.same(
                ticket.text, entry.result.generate.message.content, message.content
            )
            if same is None:
                return ""
            if same:
                return name
        return f"text:{ticket.key}"

    async def complained(self, served: ServedAnswer) -> None:
        """A caller says that an answer was wrong: every replica forgets its entry, and counts the
        hit against its class.
        """
        if self.semantic_cache is not None and served.scope_key:
            seen = {"answer": served.answer, "probability": served.probability}
            event = LearningEvent(
                "wrong", served.tenant, served.scope_key, served.key, verdict=seen
            )
            await self.semantic_cache.learning_log.teach(event)

    async def removed(self, tenant: str, keys: set[str]) -> None:
        """Entries have been removed: every replica forgets them."""
        for key in keys if self.semantic_cache is not None else ():
            assert self.semantic_cache is not None
            for scope_key in self.semantic_cache.scopes_with(key):
                await self.semantic_cache.learning_log.teach(
                    LearningEvent("remove", tenant, scope_key, key)
                )
