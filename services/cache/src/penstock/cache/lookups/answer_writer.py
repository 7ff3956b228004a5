"""Storing answers: those that look-ups missed, and those that nobody looked up.

Never stored are answers that did not end properly, that were truncated or filtered, whose tool
calls may have side effects, or that were drawn at a high temperature.
"""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.lookups.messages import request_key
from penstock.cache.lookups.parts import CacheParts
from penstock.cache.lookups.pending import LookupTicket
from penstock.cache.lookups.semantic_learning import SemanticLearning
from penstock.cache.storage.entries import Entry
from penstock.cache.storage.entry_store import unavailable_without_store
from penstock.cache.storage.invalidation import tags_of
from penstock.rpc.errors import not_found
from penstock.service.clock import unix_ms
from penstock.tasks.answer_keys import KNOWN_MISS_RULE
from penstock.tasks.kinds import kind_of


class AnswerWriter:
    """Stores answers, ends the look-ups that wait for them, and lets the semantic cache learn."""

    def __init__(self, parts: CacheParts, learning: SemanticLearning) -> None:
        self._parts = parts
        self._learning = learning

    async def store(self, request: pb.StoreRequest) -> pb.StoreResponse:
        """Store the answer to a look-up that missed, or end the look-up without one.

        Raises:
            Fault: NOT_FOUND for an unknown token; UNAVAILABLE when the store does not answer.
        """
        pending = self._parts.pending
        ticket = pending.take_ticket(request.token)
        if ticket is None:
            raise not_found(
                "token", "is unknown: an answer was stored with it, or it is too old; look up again"
            )
        refusal = self._refusal(ticket, request)
        if refusal:
            pending.finish(ticket.lookup, None)
            return pb.StoreResponse(reason=refusal)
        entry = self._entry(ticket, request)
        # Those who wait get the answer before it is written.
        pending.finish(ticket.lookup, entry)
        with unavailable_without_store():
            return await self._write(ticket, entry)

    async def store_all(self, request: pb.StoreAllRequest, tenant: str) -> pb.StoreAllResponse:
        """Store answers of one tenant that nobody looked up.

        Raises:
            Fault: UNAVAILABLE when the store does not answer.
        """
        entries = []
        for answer in request.answers:
            namespace = answer.scope.namespace
            self._parts.statistics.record_lookup(tenant, namespace, KNOWN_MISS_RULE, is_hit=False)
            refusal = self._unstorable(answer.task, answer.result, answer.asked_for)
            if refusal:
                self._parts.statistics.record_refusal(tenant, namespace, refusal)
            else:
                entries.append(self._entry_of_answer(answer, tenant))
        with unavailable_without_store():
            stored = await self._parts.entries.put(tenant, entries, self._ttl_ms)
            return pb.StoreAllResponse(stored=len(stored))

    def _unstorable(
        self, task: inference_pb2.Task, result: inference_pb2.TaskResult, asked_for: bool
    ) -> str:
        max_temperature = self._parts.section.value.max_temperature
        return kind_of(task).unstorable_because(task, result, max_temperature, asked_for=asked_for)

    @property
    def _ttl_ms(self) -> int:
        return round(self._parts.section.value.ttl_s * 1000)

    def _refusal(self, ticket: LookupTicket, request: pb.StoreRequest) -> str:
        """Why there is nothing to store; empty where there is."""
        if not request.HasField("result"):
            return "no answer"
        lookup = ticket.lookup
        asked_for = lookup.request.asked_for
        refusal = self._unstorable(lookup.request.task, request.result, asked_for)
        if refusal:
            self._parts.statistics.record_refusal(lookup.tenant, lookup.namespace, refusal)
        return refusal

    async def _write(self, ticket: LookupTicket, entry: Entry) -> pb.StoreResponse:
        lookup = ticket.lookup
        if not await self._parts.writes.put(lookup.tenant, entry, self._ttl_ms):
            return pb.StoreResponse(reason="too large")
        not_learnt = await self._learning.learn(ticket, entry.result)
        if not_learnt:
            self._parts.statistics.record_refusal(lookup.tenant, lookup.namespace, not_learnt)
        return pb.StoreResponse(stored=True, reason=not_learnt)

    def _entry(self, ticket: LookupTicket, request: pb.StoreRequest) -> Entry:
        scope = ticket.lookup.request.scope
        return Entry(
            key=ticket.lookup.key,
            result=request.result,
            paid_microusd=request.paid_microusd,
            created_ms=unix_ms(self._parts.clock),
            model=scope.model,
            scope_key=ticket.semantic.scope_key,
            tags=tags_of(request.tags, scope),
        )

    def _entry_of_answer(self, answer: pb.Answer, tenant: str) -> Entry:
        return Entry(
            key=request_key(self._parts.key_salt, tenant, answer.scope, answer.task),
            result=answer.result,
            paid_microusd=answer.paid_microusd,
            created_ms=unix_ms(self._parts.clock),
            model=answer.scope.model,
            scope_key="",
            tags=tags_of(answer.tags, answer.scope),
        )
