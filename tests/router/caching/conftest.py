"""The look-up stage with a cache of the same contract behind it, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.caching.cache_lookup import CacheLookUp
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Hit, LookUp, Miss
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import unavailable
from penstock.service.current import Current
from penstock.tasks.answer_keys import FINGERPRINT_BYTES, exact_key, tenant_of
from penstock.tasks.kind import Task, TaskResult
from penstock.tasks.kinds import kind_of
from penstock.testkit.clock import FakeClock

STALE = "exact: stale"

ACME = Call(Principal("acme"), deadline_s=1e12)
BOLT = Call(Principal("bolt"), deadline_s=1e12)
MODEL = "m"
SALT = b"salt"
SAVED_MICROUSD = 9
"""What each hit of the cache saves."""


def embed_task(text: str) -> Task:
    return Task(embed=inference_pb2.EmbedTask(texts=[text]))


def request(task: Task, **policy: object) -> ResolvedRequest:
    """A request for a task under this cache policy."""
    options = router_pb2.CallOptions(cache=router_pb2.CachePolicy(**policy))  # type: ignore[arg-type]
    kind = kind_of(task)
    return ResolvedRequest(options, kind, task, MODEL, kind.estimate(task))


def embed(text: str, **policy: object) -> ResolvedRequest:
    """A request to embed one text."""
    return request(embed_task(text), **policy)


def answer(revision: str) -> TaskResult:
    """An answer that is told from others by its revision."""
    return TaskResult(revision=revision)


def receipt(paid: int) -> common_pb2.Receipt:
    """The receipt of an answer that cost so much."""
    made = common_pb2.Receipt()
    made.cost.paid_microusd = paid
    return made


def fingerprint(text: str, call: Call = ACME) -> bytes:
    """What the cache lists of the answer for a text."""
    body = embed_task(text).SerializeToString(deterministic=True)
    key = exact_key(SALT, tenant_of(call.principal), "", MODEL, b"", body)
    return bytes.fromhex(key)[:FINGERPRINT_BYTES]


class FakeCache:
    """A peer that stands for the cache service: keeps everything for ever, and can be gone."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Methods in the order in which they were asked for."""
        self.requests: list[Any] = []
        self.kept: dict[bytes, TaskResult] = {}
        """Answers by their serialised task."""
        self.is_gone = False
        self.open = asyncio.Event()
        """Nothing is answered while this is not set."""
        self.open.set()
        self.refreshes = 0
        """So many hits are stale, and ask for a new answer; hits after those are only stale."""
        self.is_stale = False
        self.miss_cost_microusd = 0
        self.semantic_confidence = 0.0
        """Above 0, hits are answers to similar requests."""
        self.pages = deque[pb.ListKeysResponse]()
        """Lists of keys that are still to be read; afterwards nothing is new."""
        self.stored_unasked: list[tuple[str, list[pb.Answer]]] = []
        """Answers that came without a look-up, by organisation, batch by batch."""
        self.feedback: list[pb.SendFeedbackRequest] = []
        self._tasks: dict[bytes, bytes] = {}
        """Serialised tasks of look-ups that are owed an answer, by token."""

    def keep(self, text: str, result: TaskResult) -> None:
        """Have an answer for a text."""
        self.kept[_key(embed_task(text))] = result

    def of(self, text: str) -> TaskResult:
        """The answer that is kept for a text."""
        return self.kept[_key(embed_task(text))]

    def count(self, method: str) -> int:
        """How often a method was asked for."""
        return self.calls.count(method)

    def cursors(self) -> list[str]:
        """Where each list of keys was to begin."""
        return [one.cursor for one in self.requests if isinstance(one, pb.ListKeysRequest)]

    async def call(self, method: str, request: Any, call: Call) -> Any:
        """See Peer."""
        self.calls.append(method)
        self.requests.append(request)
        await self.open.wait()
        if self.is_gone:
            raise unavailable("gone")
        match request:
            case pb.LookUpRequest():
                return self._look_up(request)
            case pb.StoreRequest():
                return self._store(request)
            case pb.StoreAllRequest():
                self.stored_unasked.append((call.principal.organisation, list(request.answers)))
                return pb.StoreAllResponse(stored=len(request.answers))
            case pb.ListKeysRequest():
                nothing_new = pb.ListKeysResponse(salt=SALT, cursor="now", complete=True)
                return self.pages.popleft() if self.pages else nothing_new
            case pb.SendFeedbackRequest():
                self.feedback.append(request)
                return pb.SendFeedbackResponse(quarantined=not request.correct)
        raise AssertionError(method)

    def _look_up(self, request: pb.LookUpRequest) -> pb.LookUpResponse:
        key = _key(request.task)
        if key in self.kept:
            return self._hit(request, key)
        self._tasks[request.token] = key
        receipt = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_MISS,
            rule="miss",
            cost_microusd=self.miss_cost_microusd,
        )
        savings = []
        if self.miss_cost_microusd:
            saving = common_pb2.Saving(
                technique="semantic_cache", microusd=-self.miss_cost_microusd
            )
            savings.append(saving)
        return pb.LookUpResponse(receipt=receipt, token=request.token, savings=savings)

    def _hit(self, request: pb.LookUpRequest, key: bytes) -> pb.LookUpResponse:
        receipt = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule=STALE if self.is_stale else "exact"
        )
        if self.semantic_confidence:
            receipt.outcome, receipt.rule = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT, "semantic"
            receipt.confidence = self.semantic_confidence
        found = pb.LookUpResponse(
            result=self.kept[key],
            receipt=receipt,
            savings=[common_pb2.Saving(microusd=SAVED_MICROUSD)],
            stale=self.is_stale,
        )
        if self.is_stale and self.refreshes:
            self.refreshes -= 1
            found.token, found.receipt.rule = request.token, f"{STALE}, fetched anew"
            self._tasks[request.token] = key
        return found

    def _store(self, request: pb.StoreRequest) -> pb.StoreResponse:
        if request.HasField("result"):
            self.kept[self._tasks[request.token]] = request.result
        return pb.StoreResponse(stored=request.HasField("result"))

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        return None


def _key(task: Task) -> bytes:
    return task.SerializeToString(deterministic=True)


@dataclass
class Rig:
    """A look-up stage, its cache and its clock."""

    stage: CacheLookUp
    cache: FakeCache
    clock: FakeClock

    async def look_up(self, request: ResolvedRequest, call: Call = ACME) -> LookUp:
        """What the stage finds."""
        return await self.stage.look_up(call, request, "r1")

    def begin(self, request: ResolvedRequest, call: Call = ACME) -> asyncio.Task[LookUp]:
        """The same, beside the test."""
        return asyncio.create_task(self.look_up(request, call))

    async def miss(self, request: ResolvedRequest, call: Call = ACME) -> Miss:
        """A look-up that finds nothing."""
        found = await self.look_up(request, call)
        assert isinstance(found, Miss), found
        return found

    async def hit(self, request: ResolvedRequest, call: Call = ACME) -> Hit:
        """A look-up that finds an answer."""
        found = await self.look_up(request, call)
        assert isinstance(found, Hit), found
        return found

    async def store(
        self, ticket: object, result: TaskResult | None, receipt: common_pb2.Receipt | None = None
    ) -> None:
        """Give what a miss owes, and wait until that is done."""
        deferred = self.stage.store(ticket, result, receipt)
        if deferred is not None:
            await deferred

    async def settle(self, seconds: float = 0.0) -> None:
        """Let so much time pass and everything run until it waits again."""
        await self.clock.advance(seconds)

    async def follow(self, *texts: str) -> None:
        """Begin to follow which keys are kept: those of these texts, for acme."""
        listed = b"".join(map(fingerprint, texts))
        self.cache.pages.append(pb.ListKeysResponse(salt=SALT, cursor="s", fingerprints=listed))
        self.stage.start()
        await self.settle()


MakeRig = Callable[[], Rig]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A look-up stage that does not follow the keys yet; closed afterwards."""
    cache, clock = FakeCache(), FakeClock(1_000.0)
    made = Rig(CacheLookUp(cache, Current(Prices({})), clock), cache, clock)
    yield made
    cache.open.set()
    closing = asyncio.create_task(made.stage.close())
    await made.settle(1.0)
    await closing
