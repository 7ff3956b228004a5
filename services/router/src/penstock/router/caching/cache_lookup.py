"""The look-up stage: the near cache, identical requests in flight, then the cache service.

A cache that is gone is no reason to fail. A task that is cheap to repeat is not looked up when its
key is known not to be kept.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.caching.known_misses import STORE_TIMEOUT_S, SummaryFollower, WriteBehind
from penstock.router.caching.near_cache import NearCache, RequestKey, SingleFlight
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Bypass, Deferred, Hit, LookUp, Miss
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.background import Background
from penstock.service.clock import Clock
from penstock.service.current import Current
from penstock.tasks.answer_keys import KNOWN_MISS_RULE
from penstock.tasks.wire_request import without_bytes

MAX_TEMPERATURE = 0.3
"""Identical requests in flight share an answer that is sampled at no more."""
EXPECTED_OUTPUT_TOKENS = 256
"""Length that an answer is priced at before it is there, at most."""
GONE = "cache unavailable"
GONE_RECEIPT = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule=GONE)
BYPASSED = Bypass(
    common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="asked to bypass")
)
KNOWN_MISSING = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_MISS, rule=KNOWN_MISS_RULE)


@dataclass(slots=True)
class Ticket:
    """What a miss owes: an answer to the cache, under its token, and to those who follow."""

    key: RequestKey
    call: Call
    request: ResolvedRequest
    flight: SingleFlight | None = None
    token: bytes = b""
    """Under which the cache waits for the answer; empty where it does not."""
    unasked: bool = False
    """The cache was not asked: the answer is brought to it all the same."""


class CacheLookUp:
    """The look-up stage of a router with a cache. Owner must `close` it."""

    def __init__(
        self,
        peer: Peer,
        prices: Current[Prices],
        clock: Clock,
        max_temperature: float = MAX_TEMPERATURE,
    ) -> None:
        self._peer = peer
        self._max_temperature = max_temperature
        self._prices = prices
        self._clock = clock
        self._near = NearCache()
        self._flights: dict[RequestKey, SingleFlight] = {}
        self._known = SummaryFollower(peer, clock)
        self._writes = WriteBehind(peer, clock)
        self._follower = Background()
        self._after = Background()

    def start(self) -> None:
        """Begin to follow which keys are kept."""
        self._follower.start(self._known.follow(), "follow the cache's keys")

    def near_hit(self, call: Call, request: ResolvedRequest) -> Hit | None:
        """An answer of the last second; None where `look_up` must be asked."""
        policy = request.options.cache
        if policy.bypass or not self._near:
            return None
        key = RequestKey.of(call.principal, request)
        return self._near.get(key, policy.max_age_ms, self._clock.monotonic())

    async def look_up(self, call: Call, request: ResolvedRequest, request_id: str) -> LookUp:
        """Find an answer: in the near cache, from the same request in flight, or in the cache."""
        policy = request.options.cache
        if policy.bypass:
            return BYPASSED
        key = RequestKey.of(call.principal, request)
        hit = self._near.get(key, policy.max_age_ms, self._clock.monotonic())
        if hit is not None:
            return hit
        sharing = self._may_share(request)
        while sharing and (flight := self._flights.get(key)) is not None:
            await flight.finished(call.remaining_s(self._clock.monotonic()))
            sharing = flight.shareable
            hit = flight.hit(policy) if sharing else None
            if hit is not None:
                return hit
        ticket = Ticket(key, call, request)
        if sharing and not policy.no_store:
            ticket.flight = self._flights[key] = SingleFlight()
        if self._known.is_known_missing(call.principal, request):
            ticket.unasked = True
            return Miss(ticket, KNOWN_MISSING, following=ticket.flight)
        return await self._ask(ticket, request_id)

    def _may_share(self, request: ResolvedRequest) -> bool:
        """Whether an answer to the request may be kept, as far as that is known before it is
        there: only then may identical requests in flight share one.
        """
        asked_for = _asked_for(request.options.cache)
        return not request.kind.unshareable_because(
            request.task, self._max_temperature, asked_for=asked_for
        )

    async def _ask(self, ticket: Ticket, request_id: str) -> LookUp:
        ticket.token = secrets.token_bytes(12)
        try:
            answer = await self._asked(ticket, request_id)
        except Fault:
            ticket.token = b""
            return Miss(ticket, GONE_RECEIPT, (GONE,), following=ticket.flight)
        except BaseException:
            # Cancelled: whether the cache waits for an answer is not known, so it is told that none
            # comes.
            self._end(ticket, None, 0)
            self._after.start(self._stored(ticket, None, 0))
            raise
        if not answer.HasField("result"):
            savings = tuple(answer.savings)
            return Miss(ticket, answer.receipt, savings=savings, following=ticket.flight)
        return self._hit(ticket, answer)

    async def _asked(self, ticket: Ticket, request_id: str) -> pb.LookUpResponse:
        request = ticket.request
        policy = request.options.cache
        look_up = pb.LookUpRequest(
            scope=_scope(request),
            task=request.task,
            max_age_ms=policy.max_age_ms,
            request_id=request_id,
            full_price_microusd=self._price(request),
            asked_for=_asked_for(policy),
            token=ticket.token,
        )
        if policy.HasField("max_error_rate"):
            look_up.max_error_rate = policy.max_error_rate
        answer: pb.LookUpResponse = await self._peer.call("LookUp", look_up, ticket.call)
        return answer

    def _hit(self, ticket: Ticket, answer: pb.LookUpResponse) -> Hit:
        receipt = answer.receipt
        saving = answer.savings[0] if answer.savings else common_pb2.Saving()
        semantic = receipt.outcome == common_pb2.CACHE_OUTCOME_SEMANTIC_HIT
        self._end(
            ticket,
            answer.result,
            saving.microusd,
            semantic=receipt if semantic else None,
            stale=answer.stale,
        )
        if not semantic and not answer.stale:
            self._keep(ticket.key, answer.result, saving, receipt.age_ms / 1e3)
        refresh = None
        if answer.token:
            refresh = Ticket(ticket.key, ticket.call, ticket.request, token=answer.token)
            if ticket.request.options.cache.no_store:
                # Who has nothing stored leaves the new answer to the next one who asks.
                self._after.start(self._stored(refresh, None, 0))
                refresh = None
        return Hit(answer.result, receipt, tuple(answer.savings), refresh=refresh)

    def _price(self, request: ResolvedRequest) -> int:
        """What the call would cost without the cache, where its length is open."""
        if not request.kind.open_ended:
            return 0
        estimate = request.estimate
        output = min(estimate.output_tokens or EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
        prices = self._prices.value
        return prices.cost_bound_microusd(request.model, estimate.input_tokens, output) or 0

    async def follow_stream(
        self, call: Call, request: ResolvedRequest
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Hit, None]:
        """Pieces of the same request in flight here, as they come, and then its whole answer;
        nothing where there is none.
        """
        policy = request.options.cache
        if policy.bypass or not self._flights or not self._may_share(request):
            return
        flight = self._flights.get(RequestKey.of(call.principal, request))
        if flight is None:
            return
        pieces = 0
        with flight.followed():
            async for chunk in flight.chunks():
                pieces += 1
                yield chunk
        hit = flight.hit(policy)
        if hit is not None and (pieces or flight.shareable):
            yield hit

    def publish(self, ticket: object, chunk: inference_pb2.GenerateChunk) -> None:
        """Pass a piece of the answer that a miss is fetching to those who follow."""
        if isinstance(ticket, Ticket) and ticket.flight is not None:
            ticket.flight.publish(chunk)

    def store(
        self,
        ticket: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Deferred:
        """Hand an answer, or that none came, to whoever follows here and to the cache."""
        if not isinstance(ticket, Ticket):
            return None
        paid, model = 0, ""
        if receipt is not None:
            paid = receipt.cost.paid_microusd - receipt.cache.cost_microusd
            model = receipt.model if receipt.model != ticket.request.model else ""
        may_keep = self._may_keep(ticket, result)
        self._end(ticket, result, paid, model=model, shareable=may_keep)
        if model or not may_keep:
            result = None  # a fallback's answer is not kept as that of the model asked for
        if result is not None and result.generate.wire_body:
            result = without_bytes(result)
        if ticket.unasked:
            self._bring(ticket, result, paid)
            return None
        return self._stored(ticket, result, paid) if ticket.token else None

    def _may_keep(self, ticket: Ticket, result: inference_pb2.TaskResult | None) -> bool:
        """Whether the answer may be shared, now that it is there."""
        request = ticket.request
        return result is None or not request.kind.unstorable_because(
            request.task,
            result,
            self._max_temperature,
            asked_for=_asked_for(request.options.cache),
        )

    def _stored(
        self, ticket: Ticket, result: inference_pb2.TaskResult | None, paid: int
    ) -> Coroutine[None, None, None]:
        """Bring the cache what it is owed. What waits for that keeps nothing of the request, which
        is counted no more among what its caller has in flight.
        """
        policy, caller = ticket.request.options.cache, ticket.call
        request = pb.StoreRequest(token=ticket.token, paid_microusd=paid, tags=policy.tags)
        if result is not None and not policy.no_store:
            request.result.CopyFrom(result)
        ends_s = self._clock.monotonic() + STORE_TIMEOUT_S
        call = Call(caller.principal, caller.priority, deadline_s=ends_s)
        return self._store(ticket.key, request, call, result)

    async def _store(
        self,
        key: RequestKey,
        request: pb.StoreRequest,
        call: Call,
        result: inference_pb2.TaskResult | None,
    ) -> None:
        try:
            answer: pb.StoreResponse = await self._peer.call("Store", request, call)
        except Fault:
            return
        if answer.stored and result is not None:
            self._keep(key, result, _saving(result, request.paid_microusd))

    def _bring(self, ticket: Ticket, result: inference_pb2.TaskResult | None, paid: int) -> None:
        policy = ticket.request.options.cache
        if result is None or policy.no_store:
            return
        answer = pb.Answer(
            scope=_scope(ticket.request),
            task=ticket.request.task,
            result=result,
            paid_microusd=paid,
            tags=policy.tags,
            asked_for=_asked_for(policy),
        )
        self._writes.add(ticket.call, answer)
        self._keep(ticket.key, result, _saving(result, paid))

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        """Pass a verdict on; the near cache forgets everything of a tenant that complains."""
        if not correct:
            self._near.forget(principal.organisation)
        request = pb.SendFeedbackRequest(request_id=request_id, correct=correct)
        try:
            answer: pb.SendFeedbackResponse = await self._peer.call(
                "SendFeedback", request, Call(principal)
            )
        except Fault:
            return False
        return bool(answer.quarantined)

    def _end(
        self,
        ticket: Ticket,
        result: inference_pb2.TaskResult | None,
        cost_microusd: int,
        *,
        semantic: common_pb2.CacheReceipt | None = None,
        stale: bool = False,
        model: str = "",
        shareable: bool = True,
    ) -> None:
        flight = ticket.flight
        if flight is None or flight.over:
            return
        if self._flights.get(ticket.key) is flight:
            del self._flights[ticket.key]
        flight.end(
            result, cost_microusd, semantic=semantic, stale=stale, model=model, shareable=shareable
        )

    def _keep(
        self,
        key: RequestKey,
        result: inference_pb2.TaskResult,
        saved: common_pb2.Saving,
        age_s: float = 0.0,
    ) -> None:
        self._near.put(key, result, saved, age_s, self._clock.monotonic())

    async def close(self) -> None:
        """Bring what waits to the cache, and hang up."""
        await self._after.finished()
        await self._follower.close()
        await self._writes.close()
        await self._peer.close()


def _scope(request: ResolvedRequest) -> pb.Scope:
    return pb.Scope(namespace=request.options.cache.namespace, model=request.model)


def _asked_for(policy: router_pb2.CachePolicy) -> bool:
    """Whether a caller asks for reuse in so many words."""
    return bool(policy.namespace or policy.tags or policy.max_age_ms)


def _saving(result: inference_pb2.TaskResult, paid: int) -> common_pb2.Saving:
    """What reusing an answer saves."""
    return common_pb2.Saving(microusd=paid, saved_ms=result.compute_ms)
