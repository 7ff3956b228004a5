"""Corrections: answers that a caller reports as wrong, and entries that a caller invalidates."""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.lookups.parts import CacheParts
from penstock.cache.lookups.semantic_learning import SemanticLearning
from penstock.cache.storage.entry_store import unavailable_without_store
from penstock.cache.storage.invalidation import matching_keys


class Corrections:
    """Removes entries, and lets the semantic cache forget them."""

    def __init__(self, parts: CacheParts, learning: SemanticLearning) -> None:
        self._parts = parts
        self._learning = learning

    async def report(self, request: pb.SendFeedbackRequest, tenant: str) -> pb.SendFeedbackResponse:
        """Remove the entry of a hit that its own tenant reports as wrong; ignore other reports.

        Raises:
            Fault: UNAVAILABLE when the store does not answer.
        """
        pending = self._parts.pending
        served = pending.served.get(request.request_id)
        if served is None or served.tenant != tenant or request.correct:
            return pb.SendFeedbackResponse()
        pending.served.pop(request.request_id)
        pending.forget_answer(served.key)
        await self._parts.writes.written()
        with unavailable_without_store():
            await self._parts.entries.remove(tenant, [served.key])
            await self._learning.learn_complaint(served)
        return pb.SendFeedbackResponse(quarantined=True)

    async def invalidate(self, request: pb.InvalidateRequest, tenant: str) -> pb.InvalidateResponse:
        """Remove a tenant's entries that match every field set in a checked request.

        Raises:
            Fault: UNAVAILABLE when the store does not answer.
        """
        entries = self._parts.entries
        await self._parts.writes.written()
        with unavailable_without_store():
            keys = await matching_keys(entries, tenant, request)
            for key in keys:
                self._parts.pending.forget_answer(key)
            removed = await entries.remove(tenant, keys)
            await self._learning.learn_removals(tenant, keys)
        return pb.InvalidateResponse(removed=removed)
