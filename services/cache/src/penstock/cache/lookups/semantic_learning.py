"""What the semantic cache learns from calls: each answer that is stored, each report by a caller,
and each entry that is removed becomes an event of the learning log.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups.pending import Lookup, LookupTicket, ServedAnswer
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.learning_log import (
    LEARN,
    REMOVE,
    WRONG,
    LearningEvent,
    RecordedDecision,
)
from penstock.cache.semantic.scope import canonical_answer
from penstock.cache.semantic.semantic_cache import Candidate, SemanticCache
from penstock.cache.storage.entry_store import EntryStore
from penstock.otel import attributes
from penstock.otel.telemetry import Telemetry


class SemanticLearning:
    """Appends to the learning log; does nothing without a semantic cache.

    Without a judge nothing is learnt from answers in free text.
    """

    def __init__(
        self,
        semantic_cache: SemanticCache | None,
        entries: EntryStore,
        judge: Judge | None,
        telemetry: Telemetry,
    ) -> None:
        self._semantic_cache = semantic_cache
        self._entries = entries
        self._judge = judge
        self._agreement = telemetry.histogram(
            attributes.AGREEMENT, "1", "Whether an audited or rechecked answer equals the model's"
        )

    async def learn(self, ticket: LookupTicket, result: inference_pb2.TaskResult) -> str:
        """Learn the answer that was called for after a miss.

        Returns why nothing was learnt; empty where something was, or there was nothing to learn.
        """
        candidate = ticket.semantic.candidate
        if self._semantic_cache is None or candidate is None:
            return ""
        answer = canonical_answer(ticket.lookup.request.task, result)
        if not answer:
            answer = await self._judged_answer(ticket, candidate, result)
        if not answer:
            reason = "the judge gave no verdict" if self._judge else "no judge"
            return f"semantic_off: {reason}"
        self._record_agreement(ticket.lookup, candidate, answer)
        await self._semantic_cache.learning_log.append(_learn_event(ticket, candidate, answer))
        return ""

    async def learn_complaint(self, served: ServedAnswer) -> None:
        """Learn that a caller reported an answer as wrong; its scope also forgets the entry."""
        if self._semantic_cache is None or not served.scope_key:
            return
        decision = RecordedDecision(served.answer, served.probability)
        event = LearningEvent(WRONG, served.tenant, served.scope_key, served.key, decision=decision)
        await self._semantic_cache.learning_log.append(event)

    async def learn_removals(self, tenant: str, keys: Iterable[str]) -> None:
        """Let scopes forget entries that were removed."""
        if self._semantic_cache is None:
            return
        for key in keys:
            for scope_key in self._semantic_cache.scope_keys_with(key):
                event = LearningEvent(REMOVE, tenant, scope_key, key)
                await self._semantic_cache.learning_log.append(event)

    def _record_agreement(self, lookup: Lookup, candidate: Candidate, answer: str) -> None:
        """Record whether the call of an audit or a recheck gave the answer that would have been
        served.
        """
        decision = candidate.decision
        if candidate.answer and (decision.is_audit or decision.is_recheck):
            self._agreement.record(
                float(candidate.answer == answer),
                {attributes.REQUEST_MODEL: lookup.request.scope.model},
            )

    async def _judged_answer(
        self, ticket: LookupTicket, candidate: Candidate, result: inference_pb2.TaskResult
    ) -> str:
        """The canonical answer that stands for an answer in free text; empty without a verdict.

        That is the nearest one whose entry the judge finds equivalent, else one of its own.
        """
        message = result.generate.message
        if self._judge is None or message.tool_calls or not message.content.strip():
            return ""
        lookup = ticket.lookup
        for answer, key in candidate.rivals:
            entry = await self._entries.get(lookup.tenant, key, 0, 0)
            if entry is None:
                continue
            is_equivalent = await self._judge.are_equivalent(
                ticket.semantic.text, entry.result.generate.message.content, message.content
            )
            if is_equivalent is None:
                return ""
            if is_equivalent:
                return answer
        return f"text:{lookup.key}"


def _learn_event(ticket: LookupTicket, candidate: Candidate, answer: str) -> LearningEvent:
    lookup = ticket.lookup
    scope = lookup.request.scope
    return LearningEvent(
        kind=LEARN,
        tenant=lookup.tenant,
        scope_key=ticket.semantic.scope_key,
        key=lookup.key,
        text=ticket.semantic.text,
        answer=answer,
        vector=candidate.vector,
        decision=_recorded(candidate),
        namespace=scope.namespace,
        model=scope.model,
        context_sha256=scope.context_sha256,
    )


def _recorded(candidate: Candidate) -> RecordedDecision | None:
    """The decision as the log keeps it; None where no class was voted for."""
    if not candidate.answer:
        return None
    decision = candidate.decision
    return RecordedDecision(
        candidate.answer,
        decision.probability,
        decision.is_audit,
        decision.features,
        decision.contradiction,
        decision.is_recheck,
        decision.answer_margin,
    )
