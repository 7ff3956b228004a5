"""The gRPC service of the cache: each RPC checks its request and hands it on."""

from __future__ import annotations

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.lookups import messages
from penstock.cache.lookups.answer_writer import AnswerWriter
from penstock.cache.lookups.corrections import Corrections
from penstock.cache.lookups.lookups import Lookups
from penstock.cache.lookups.parts import CacheParts
from penstock.cache.storage import invalidation
from penstock.cache.storage.entry_store import unavailable_without_store
from penstock.cache.storage.key_listing import list_keys
from penstock.rpc.call import Call
from penstock.tasks.answer_keys import tenant_of


class CacheServicer:
    """penstock.api.cache.v1.CacheService."""

    def __init__(
        self, parts: CacheParts, lookups: Lookups, writer: AnswerWriter, corrections: Corrections
    ) -> None:
        self._parts = parts
        self._lookups = lookups
        self._writer = writer
        self._corrections = corrections

    async def LookUp(self, request: pb.LookUpRequest, call: Call) -> pb.LookUpResponse:
        messages.check_caller(call)
        messages.check_look_up(request)
        return await self._lookups.look_up(request, call)

    async def Store(self, request: pb.StoreRequest, call: Call) -> pb.StoreResponse:
        messages.check_store(request)
        return await self._writer.store(request)

    async def StoreAll(self, request: pb.StoreAllRequest, call: Call) -> pb.StoreAllResponse:
        messages.check_caller(call)
        messages.check_store_all(request)
        return await self._writer.store_all(request, tenant_of(call.principal))

    async def ListKeys(self, request: pb.ListKeysRequest, call: Call) -> pb.ListKeysResponse:
        with unavailable_without_store():
            return await list_keys(self._parts.entries, self._parts.key_salt, request.cursor)

    async def SendFeedback(
        self, request: pb.SendFeedbackRequest, call: Call
    ) -> pb.SendFeedbackResponse:
        messages.check_feedback(request)
        return await self._corrections.report(request, tenant_of(call.principal))

    async def Invalidate(self, request: pb.InvalidateRequest, call: Call) -> pb.InvalidateResponse:
        messages.check_caller(call)
        invalidation.check(request)
        return await self._corrections.invalidate(request, tenant_of(call.principal))

    async def GetStats(self, request: pb.GetStatsRequest, call: Call) -> pb.GetStatsResponse:
        return await self._parts.statistics.report(call.principal, request.namespace)

    async def GetTradeOff(
        self, request: pb.GetTradeOffRequest, call: Call
    ) -> pb.GetTradeOffResponse:
        return await self._parts.statistics.trade_off(call.principal, request.scope)
