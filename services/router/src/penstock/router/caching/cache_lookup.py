"""Reuse through the cache: a copy of the latest exact hits in this process, requests in flight,
then the cache service.

An entry that the cache has removed may be served from the copy for up to `COPY_S` longer. The key
of a copy holds all that the cache's own key holds. A cache that is gone is no reason to fail. A
task that is cheap to repeat is not looked up when its key is known not to be kept
(docs/decisions/0022-summary-of-keys.md).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.caching.known_keys import Deposits, asked_for
from penstock.router.requests.requests import digest_of
from penstock.router.stages import Found, Later, NotFound
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock
from penstock.tasks.answer_keys import KNOWN_MISS_RULE, STALE_RULE, tenant_of

COPY_S = 1.0
COPY_BYTES = 32 << 20
STORE_S = 5.0
EXPECTED_OUTPUT_TOKENS = 256
GONE = "cache unavailable"

Key = tuple[str, str, str, bytes]


@dataclass(frozen=True, slots=True)
class Copy:
    """An answer kept in this process until a moment, with what receipts say of it: whoever is given
    these copies them at once.
    """

    result: inference_pb2.TaskResult
    cache: common_pb2.CacheReceipt
    """Its age is written anew for each hit."""
    savings: tuple[common_pb2.Saving]
    born_s: float
    until_s: float
    size: int


class Flight:
    """A request under way here: its pieces so far, and its answer in the end.

    Followers read from the beginning.
    """

    def __init__(self) -> None:
        self.pieces: deque[inference_pb2.GenerateChunk] = deque()
        self.result: inference_pb2.TaskResult | None = None
        self.cost_microusd = 0
        self.over = False
        self.followers = 0
        self.rule = "coalesced"
        """How its followers are answered."""
        self.alike: common_pb2.CacheReceipt | None = None
        """The decision, where the answer is that of a like request."""
        self._news = asyncio.Event()

    def tell(self) -> None:
        """Wake whoever follows."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self) -> None:
        """Wait for the next piece or the end."""
        await self._news.wait()


@dataclass(slots=True)
class Token:
    """What a miss owes: the cache's own token and the flight that others follow."""

    key: Key
    call: Call
    flight: Flight | None = None
    owed: bytes = b""
    options: router_pb2.CallOptions = field(default_factory=router_pb2.CallOptions)
    unasked: pb.Answer | None = None
    """What will be brought with the answer where the cache was not asked."""


class CacheRecall:
    """The recall stage of a router with a cache."""

    def __init__(self, peer: Peer, prices: Callable[[], Prices], clock: Clock) -> None:
        self._peer, self._prices, self._clock = peer, prices, clock
        self._copies: OrderedDict[Key, Copy] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Key, Flight] = {}
        self._after: set[asyncio.Task[None]] = set()
        self.deposits = Deposits(peer, clock)

    def at_hand(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        digest: bytes = b"",
    ) -> Found | None:
        """A copy of the latest answer to the same request, where there is one that is young enough;
        `digest`: the task's, if known.
        """
        policy = options.cache
        if policy.bypass or not self._copies:
            return None
        return self._copied(
            _key(call.principal, policy.namespace, model, task, digest), policy.max_age_ms
        )

    async def look_up(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
    ) -> Found | NotFound:
        """Find an answer: in the copy, from the same request in flight, or in the cache."""
        policy = options.cache
        if policy.bypass:
            return BYPASSED
        key = _key(call.principal, policy.namespace, model, task)
        found = self._copied(key, policy.max_age_ms)
        if found is not None:
            return found
        while (flight := self._flights.get(key)) is not None:
            followed = await self._follow(flight, call, policy)
            if followed is not None:
                return followed
        answer = self.deposits.unasked(call.principal, policy, model, task)
        if answer is not None:
            flight = self._flights[key] = Flight()
            return NotFound(
                Token(key, call, flight, options=options, unasked=answer), KNOWN_MISSING
            )
        return await self._ask(key, call, options, task, model, request_id)

    async def _follow(
        self, flight: Flight, call: Call, policy: router_pb2.CachePolicy
    ) -> Found | None:
        """Wait for a flight's answer; None when it ended without one that this caller accepts, and
        somebody must go again.
        """
        flight.followers += 1
        while not flight.over:
            left_s = call.remaining_s(self._clock.monotonic())
            async with asyncio.timeout(None if left_s > 1e9 else max(left_s, 0.0)):
                await flight.news()
        cache = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_COALESCED, rule=flight.rule
        )
        if flight.result is None:
            return None
        if flight.alike is not None:  # who said how sure it must be has it decided for himself
            if policy.HasField("max_error_rate"):
                return None
            cache.similarity, cache.confidence = flight.alike.similarity, flight.alike.confidence
        saving = common_pb2.Saving(technique="coalesced", microusd=flight.cost_microusd)
        return Found(flight.result, cache, (saving,))

    async def _ask(
        self,
        key: Key,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
    ) -> Found | NotFound:
        flight = self._flights[key] = Flight()
        token = Token(key, call, flight, secrets.token_bytes(12), options)
        try:
            answer = await self._asked(call, options, task, model, request_id, token.owed)
        except BaseException as error:
            if not isinstance(
                error,
                Fault,
                # cancelled: whether the cache waits for an answer is not known, so it is told that
                # none comes
            ):
                self._end(token, None, 0)
                self._later(self._stored(token, None, 0))
                raise
            token.owed = b""
            gone = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule=GONE)
            return NotFound(token, gone, (GONE,))
        if not answer.HasField("result"):
            return NotFound(token, answer.receipt, savings=tuple(answer.savings))
        saved = answer.savings[0] if answer.savings else common_pb2.Saving()
        stale = answer.receipt.rule.startswith(STALE_RULE)
        if answer.receipt.outcome == common_pb2.CACHE_OUTCOME_SEMANTIC_HIT:
            flight.rule, flight.alike = "coalesced: semantic", answer.receipt
        elif stale:
            flight.rule = "coalesced: stale"
        self._end(token, answer.result, saved.microusd)
        if flight.alike is None and not stale:
            self._keep(
                key, answer.result, saved.microusd, saved.saved_ms, answer.receipt.age_ms / 1e3
            )
        refresh = self._to_refresh(Token(key, call, None, answer.token, options))
        return Found(answer.result, answer.receipt, tuple(answer.savings), refresh=refresh)

    def _to_refresh(self, token: Token) -> NotFound | None:
        """What is owed for a stale answer; a caller who has nothing stored leaves that to the next
        one.
        """
        if token.owed and token.options.cache.no_store:
            self._later(self._stored(token, None, 0))
            return None
        return NotFound(token) if token.owed else None

    async def _asked(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
        token: bytes,
    ) -> pb.LookUpResponse:
        policy = options.cache
        request = pb.LookUpRequest(
            scope=pb.Scope(namespace=policy.namespace, model=model),
            task=task,
            max_age_ms=policy.max_age_ms,
            request_id=request_id,
            full_price_microusd=self._price(task, model),
            asked_for=asked_for(policy),
            token=token,
        )
        if policy.HasField("max_error_rate"):
            request.max_error_rate = policy.max_error_rate
        answer: pb.LookUpResponse = await self._peer.call("LookUp", request, call)
        return answer

    def _price(self, task: inference_pb2.Task, model: str) -> int:
        if task.WhichOneof("task") != "generate":
            return 0
        size = sum(len(message.content) for message in task.generate.messages) // 4
        output = min(task.generate.max_tokens or EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
        return self._prices().cost_bound_microusd(model, size, output) or 0

    async def follow_stream(
        self, call: Call, options: router_pb2.CallOptions, task: inference_pb2.Task, model: str
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """Pieces of the same request in flight here, as they come; nothing where there is none.

        Look up afterwards for the answer.
        """
        flight = (
            None
            if options.cache.bypass
            else self._flights.get(_key(call.principal, options.cache.namespace, model, task))
        )
        if flight is None:
            return
        flight.followers += 1
        sent = 0
        while True:
            while sent < len(flight.pieces):
                yield flight.pieces[sent]
                sent += 1
            if flight.over:
                return
            await flight.news()

    def said(self, token: object, chunk: inference_pb2.GenerateChunk) -> None:
        """A piece of the answer that a miss is fetching."""
        if isinstance(token, Token) and token.flight is not None:
            token.flight.pieces.append(chunk)
            token.flight.tell()

    def store(
        self,
        token: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Later:
        """Hand an answer, or that none came, to whoever follows here and to the cache."""
        if not isinstance(token, Token):
            return None
        paid = (
            receipt.cost.paid_microusd - receipt.cache.cost_microusd if receipt is not None else 0
        )
        self._end(token, result, paid)
        if token.unasked is not None:
            self._bring(token, token.unasked, result, paid)
            return None
        return self._stored(token, result, paid) if token.owed else None

    async def _stored(
        self, token: Token, result: inference_pb2.TaskResult | None, paid: int
    ) -> None:
        request = pb.StoreRequest(
            token=token.owed, paid_microusd=paid, tags=token.options.cache.tags
        )
        if result is not None and not token.options.cache.no_store:
            request.result.CopyFrom(result)
        call = Call(
            token.call.principal, token.call.priority, deadline_s=self._clock.monotonic() + STORE_S
        )
        try:
            answer: pb.StoreResponse = await self._peer.call("Store", request, call)
        except Fault:
            return
        if answer.stored and result is not None:
            self._keep(token.key, result, paid, result.compute_ms, 0.0)

    def _bring(
        self, token: Token, answer: pb.Answer, result: inference_pb2.TaskResult | None, paid: int
    ) -> None:
        if result is None or token.options.cache.no_store:
            return
        answer.result.CopyFrom(result)
        answer.paid_microusd = paid
        self.deposits.bring(token.call, answer)
        self._keep(token.key, result, paid, result.compute_ms, 0.0)

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        """Pass a verdict on; the copy forgets everything of a tenant that complains."""
        if not correct:
            for key in [key for key in self._copies if key[0] == principal.organisation]:
                self._bytes -= self._copies.pop(key).size
        try:
            answer: pb.SendFeedbackResponse = await self._peer.call(
                "SendFeedback",
                pb.SendFeedbackRequest(request_id=request_id, correct=correct),
                Call(principal),
            )
        except Fault:
            return False
        return bool(answer.quarantined)

    def _end(
        self, token: Token, result: inference_pb2.TaskResult | None, cost_microusd: int
    ) -> None:
        flight = token.flight
        if flight is None or flight.over:
            return
        flight.result, flight.cost_microusd, flight.over = result, cost_microusd, True
        if self._flights.get(token.key) is flight:
            del self._flights[token.key]
        flight.tell()

    def _copied(self, key: Key, max_age_ms: int) -> Found | None:
        copy, now = self._copies.get(key), self._clock.monotonic()
        if copy is None or now >= copy.until_s:
            return None
        age_ms = round((now - copy.born_s) * 1e3)
        if max_age_ms and age_ms > max_age_ms:
            return None
        self._copies.move_to_end(key)
        copy.cache.age_ms = age_ms
        return Found(copy.result, copy.cache, copy.savings)

    def _keep(
        self, key: Key, result: inference_pb2.TaskResult, cost: int, saved_ms: float, age_s: float
    ) -> None:
        now, size = self._clock.monotonic(), result.ByteSize() + 256
        old = self._copies.pop(key, None)
        self._bytes += size - (old.size if old else 0)
        cache = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule="exact: copy"
        )
        saving = common_pb2.Saving(technique="exact_cache", microusd=cost, saved_ms=saved_ms)
        self._copies[key] = Copy(result, cache, (saving,), now - age_s, now + COPY_S, size)
        while self._bytes > COPY_BYTES:
            _, gone = self._copies.popitem(last=False)
            self._bytes -= gone.size

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)

    async def close(self) -> None:
        """Let the cache go."""
        while self._after:
            await asyncio.gather(*self._after, return_exceptions=True)
        await self.deposits.close()
        await self._peer.close()


def _key(
    principal: Principal, namespace: str, model: str, task: inference_pb2.Task, digest: bytes = b""
) -> Key:
    """All that an answer may depend on: tenant, namespace, model, task."""
    return (
        principal.organisation,
        f"{tenant_of(principal)}\x1e{namespace}",
        model,
        digest or digest_of(task),
    )


BYPASSED = NotFound(
    None, common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="asked to bypass")
)
KNOWN_MISSING = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_MISS, rule=KNOWN_MISS_RULE)
