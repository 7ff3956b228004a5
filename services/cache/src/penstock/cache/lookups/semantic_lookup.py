"""Asking for likeness, and teaching it: where that is allowed and worth it, what the tier says, and
what a called request has shown.
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups.pending import Owed, Served
from penstock.cache.lookups.requests import ready_vector
from penstock.cache.semantic.gate import MOST_CHARACTERS
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.learning_log import Lesson
from penstock.cache.semantic.lookup_value import Probes, Worth
from penstock.cache.semantic.scope import answer_class, prompt_of
from penstock.cache.semantic.semantic_cache import SemanticTier
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entries import Entries
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry

NO_EMBEDDER = "semantic_off: no embedder"


class Likeness:
    """The semantic tier as the door sees it. Without a tier every answer is `NO_EMBEDDER`."""

    def __init__(
        self,
        tier: SemanticTier | None,
        entries: Entries,
        secret: bytes,
        judge: Judge | None,
        telemetry: Telemetry,
    ) -> None:
        self.tier = tier
        self._entries = entries
        self._secret = secret
        self._worth, self._probes = Worth(), Probes()
        self.judge = judge
        """Who says whether two free answers are the same; without one, free text is exact only."""
        self._agreement = telemetry.histogram(
            semantics.AGREEMENT, "1", "Audited answers that the model gave again"
        )

    def check(self, request: pb.LookUpRequest) -> None:
        """Raise INVALID_ARGUMENT for a ready vector that cannot be compared."""
        if self.tier is not None:
            ready_vector(request, self.tier.embedder)

    async def ask(self, owed: Owed, section: CacheSection, now: float) -> str:
        """Ask the tier where that is allowed and worth it; the rule for the receipt.

        What it found is in `owed` then.
        """
        request, tier = owed.request, self.tier
        if tier is None:
            return NO_EMBEDDER
        prompt = prompt_of(
            self._secret, owed.tenant, request.scope, request.task, tier.embedder.revision
        )
        if prompt is None:
            return "miss"
        if len(prompt.text) > MOST_CHARACTERS:
            return "semantic_off: the prompt is too long to compare"
        if not self._worth.pays(
            prompt.scope_key, request.full_price_microusd, section.lookup_microusd
        ):
            return "semantic_off: saves less than it costs"
        if not self._probes.may(owed.tenant, section.probes_per_s, now):
            return "semantic_off: too many look-ups of this caller"
        bound = request.max_error_rate if request.HasField("max_error_rate") else None
        owed.scope_key, owed.text = prompt.scope_key, prompt.text
        owed.candidate = await tier.decide(
            prompt.scope_key, prompt.text, ready_vector(request, tier.embedder), bound
        )
        return owed.candidate.verdict.rule

    def ended(self, owed: Owed, *, hit: bool) -> None:
        """A look-up that asked for likeness has been answered by it, or not."""
        if owed.scope_key:
            self._worth.asked(owed.scope_key, hit)

    async def teach(self, owed: Owed, result: inference_pb2.TaskResult) -> str:
        """Tell every replica what this call has shown; why not, where the answer is free text and
        nobody has judged it.
        """
        if self.tier is None or owed.candidate is None:
            return ""
        name = answer_class(owed.request.task, result) or await self._judged(owed, result)
        if not name:
            return f"semantic_off: {'the judge gave no verdict' if self.judge else 'no judge'}"
        found, scope = owed.candidate, owed.request.scope
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
        await self.tier.lessons.teach(
            Lesson(
                "learn",
                owed.tenant,
                owed.scope_key,
                owed.key,
                owed.text,
                name,
                found.vector,
                seen if found.answer else None,
                scope.namespace,
                scope.model,
                scope.context_sha256,
            )
        )
        return ""

    async def _judged(self, owed: Owed, result: inference_pb2.TaskResult) -> str:
        """The cluster of a free answer: the nearest class whose answer the judge calls the same,
        else its own; empty for no verdict.
        """
        message = result.generate.message
        if (
            self.judge is None
            or message.tool_calls
            or not message.content.strip()
            or owed.candidate is None
        ):
            return ""
        for name, key in owed.candidate.rivals:
            entry = await self._entries.get(owed.tenant, key, 0, 0)
            if entry is None:
                continue
            same = await self.judge.same(
                owed.text, entry.result.generate.message.content, message.content
            )
            if same is None:
                return ""
            if same:
                return name
        return f"text:{owed.key}"

    async def complained(self, served: Served) -> None:
        """A caller says that an answer was wrong: every replica forgets its entry, and counts the
        hit against its class.
        """
        if self.tier is not None and served.scope_key:
            seen = {"answer": served.answer, "probability": served.probability}
            lesson = Lesson("wrong", served.tenant, served.scope_key, served.key, verdict=seen)
            await self.tier.lessons.teach(lesson)

    async def removed(self, tenant: str, keys: set[str]) -> None:
        """Entries have been removed: every replica forgets them."""
        for key in keys if self.tier is not None else ():
            assert self.tier is not None
            for scope_key in self.tier.scopes_with(key):
                await self.tier.lessons.teach(Lesson("remove", tenant, scope_key, key))
