"""Identical requests in flight: only an answer that may be kept is shared, and it outlives the one
who asked first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import Prices
from penstock.router.caching.cache_lookup import CacheLookUp
from penstock.router.settings import RouterSettings
from penstock.router.stages import Admitted, Deferred, OpenAdmission, Spent
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import EmptyInstance

from ..caching.conftest import FakeCache
from ..rig import fault_of
from ..routed import Routed, StartRouter

WORDS = ("one ", "two ", "three")


class PacedModel(EmptyInstance):
    """Says one word after the other, each when it is let go on."""

    def __init__(self) -> None:
        self.calls = 0
        self.left = 0
        """Calls that were cancelled."""
        self.may_say = asyncio.Semaphore(0)
        self.tools: list[str] = []
        """Functions that an answer asks for in place of words."""
        self.fault: Fault | None = None
        """What ends an answer, after its words."""

    def let_all(self) -> None:
        """From now on nothing waits."""
        for _ in range(1_000):
            self.may_say.release()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        parts = [part async for part in self.ComputeStream(request, call)]
        return inference_pb2.ComputeResponse(result=parts[-1].result)

    async def ComputeStream(
        self, request: object, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        self.calls += 1
        try:
            for word in WORDS:
                await self.may_say.acquire()
                chunk = inference_pb2.GenerateChunk(delta=word)
                yield inference_pb2.ComputeStreamResponse(chunk=chunk)
            if self.fault is not None:
                raise self.fault
        except asyncio.CancelledError:
            self.left += 1
            raise
        result = inference_pb2.TaskResult(revision=str(self.calls))
        answer = result.generate
        answer.message.role, answer.message.content = inference_pb2.ROLE_ASSISTANT, "".join(WORDS)
        answer.finish_reason = inference_pb2.FINISH_REASON_STOP
        for name in self.tools:
            answer.message.tool_calls.add(id="c1", name=name, arguments_json="{}")
        chunk = inference_pb2.GenerateChunk(finish_reason=answer.finish_reason)
        yield inference_pb2.ComputeStreamResponse(chunk=chunk, result=result)


class ObservedAdmission(OpenAdmission):
    """Admits everybody and records how calls were settled."""

    def __init__(self) -> None:
        self.admitted = 0
        self.settled: list[str] = []

    async def admit(self, call: Call, request: object) -> Admitted:
        self.admitted += 1
        return Admitted(ticket=self.admitted)

    def settle(self, admitted: Admitted, receipt: object, spent: Spent | None) -> Deferred:
        how = "answered" if receipt is not None else "spent" if spent is not None else "nothing"
        self.settled.append(f"{admitted.ticket}: {how}")
        return None


@dataclass
class Rig:
    """A router with a cache, before one model."""

    routed: Routed
    model: PacedModel
    admission: ObservedAdmission
    cache: FakeCache
    begun: list[asyncio.Task[object]] = field(default_factory=list)

    def ask(self, **task: object) -> asyncio.Task[pb.GenerateResponse]:
        """Begin to ask for a whole answer."""
        request = pb.GenerateRequest(task=_task(**task), options=pb.CallOptions(model="m"))
        call = self.routed.stub.Generate(request, metadata=self.routed.metadata, timeout=20)

        async def answered() -> pb.GenerateResponse:
            answer: pb.GenerateResponse = await call
            return answer

        return self._begun(answered())

    def stream(self, **task: object) -> asyncio.Task[list[str]]:
        """Begin to ask for an answer piece by piece."""
        request = pb.GenerateStreamRequest(task=_task(**task), options=pb.CallOptions(model="m"))
        call = self.routed.stub.GenerateStream(request, metadata=self.routed.metadata, timeout=20)

        async def heard() -> list[str]:
            return [part.chunk.delta async for part in call if part.chunk.delta]

        return self._begun(heard())

    def _begun(self, work: Awaitable[object]) -> asyncio.Task:  # type: ignore[type-arg]
        task = asyncio.ensure_future(work)
        self.begun.append(task)  # type: ignore[arg-type]
        return task

    async def asked(self, calls: int) -> None:
        """Wait until so many calls were admitted and those that go to the model have come there."""
        await eventually(lambda: self.admission.admitted == calls)
        await eventually(lambda: self.model.calls >= 1)


def _task(**more: object) -> inference_pb2.GenerateTask:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content="count")
    return inference_pb2.GenerateTask(messages=[message], **more)  # type: ignore[arg-type]


@pytest.fixture
async def rig(start_router: StartRouter) -> AsyncIterator[Rig]:
    cache, model, admission = FakeCache(), PacedModel(), ObservedAdmission()
    look_up = CacheLookUp(cache, Current(Prices({})), SystemClock())
    settings = RouterSettings()
    async with start_router(settings, admission=admission, look_up=look_up) as routed:
        await routed.join("a", model, "m", concurrency=64)
        made = Rig(routed, model, admission, cache)
        yield made
        model.let_all()
        for task in made.begun:
            task.cancel()
        await asyncio.gather(*made.begun, return_exceptions=True)
    await look_up.close()


Ask = Callable[[Rig], "asyncio.Task[object]"]


def whole(rig: Rig, **task: object) -> asyncio.Task[object]:
    return rig.ask(**task)  # type: ignore[return-value]


def streamed(rig: Rig, **task: object) -> asyncio.Task[object]:
    return rig.stream(**task)  # type: ignore[return-value]


async def _hung_up(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.wire_case(21)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_an_answer_goes_on_for_its_followers_when_its_first_caller_hangs_up(
    rig: Rig, ask: Ask
) -> None:
    first = ask(rig)
    await rig.asked(1)
    followers = [ask(rig) for _ in range(3)]
    await rig.asked(4)
    rig.model.may_say.release()
    await _hung_up(first)
    assert rig.model.left == 0
    rig.model.let_all()
    for answer in await asyncio.gather(*followers):
        said = answer if isinstance(answer, list) else [answer.result.message.content]
        assert "".join(said) == "".join(WORDS)
    assert rig.model.calls == 1
    await eventually(lambda: len(rig.admission.settled) == 4)
    assert sorted(rig.admission.settled) == [f"{number}: answered" for number in (1, 2, 3, 4)]


@pytest.mark.wire_case(21)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_an_answer_that_nobody_follows_any_more_is_cancelled_and_booked(
    rig: Rig, ask: Ask
) -> None:
    first = ask(rig)
    await rig.asked(1)
    second = ask(rig)
    await rig.asked(2)
    await _hung_up(first)
    assert rig.model.left == 0
    await _hung_up(second)
    await eventually(lambda: rig.model.left == 1)
    await eventually(lambda: len(rig.admission.settled) == 2)
    assert "1: spent" in rig.admission.settled


@pytest.mark.wire_case(21)
async def test_the_end_of_a_followed_stream_comes_with_its_pieces(rig: Rig) -> None:
    """Not from the cache, which may not have kept it yet, or not at all."""
    first = rig.stream()
    await rig.asked(1)
    rig.cache.is_gone = True
    second = rig.stream()
    await rig.asked(2)
    rig.model.let_all()
    assert await first == await second == list(WORDS)
    assert rig.model.calls == 1


@pytest.mark.wire_case(21)
async def test_who_follows_a_stream_that_fails_is_told_so(rig: Rig) -> None:
    rig.model.fault = Fault(Reason.UPSTREAM_REFUSED, "no")
    first = rig.stream()
    await rig.asked(1)
    second = rig.stream()
    await rig.asked(2)
    rig.model.let_all()
    assert (await fault_of(first)).reason is Reason.UPSTREAM_REFUSED
    assert (await fault_of(second)).reason is Reason.FOLLOWED_BROKE


@pytest.mark.wire_case(22)
@pytest.mark.parametrize("ask", [whole, streamed])
@pytest.mark.parametrize(
    "task",
    [
        {"temperature": 1.0},
        {"tools": [inference_pb2.Tool(name="pay")]},
    ],
    ids=["temperature", "tools"],
)
async def test_what_may_not_be_kept_is_asked_for_by_each_caller(
    rig: Rig, ask: Ask, task: dict[str, object]
) -> None:
    asked = [ask(rig, **task) for _ in range(5)]  # type: ignore[call-arg]
    await eventually(lambda: rig.model.calls == 5)
    rig.model.let_all()
    assert len(await asyncio.gather(*asked)) == 5


@pytest.mark.wire_case(22)
async def test_an_answer_that_may_not_be_kept_is_offered_to_nobody(rig: Rig) -> None:
    rig.model.let_all()
    for _ in range(2):
        await rig.ask(temperature=1.0)
    assert rig.model.calls == 2
    assert not rig.cache.kept


@pytest.mark.wire_case(22)
async def test_an_answer_that_turns_out_not_to_be_kept_is_its_callers_alone(rig: Rig) -> None:
    rig.model.tools = ["unasked"]  # a function that is not known to change nothing
    answers = [rig.ask() for _ in range(4)]
    await rig.asked(4)
    rig.model.let_all()
    revisions = [answer.receipt.revision for answer in await asyncio.gather(*answers)]
    assert sorted(revisions) == ["1", "2", "3", "4"]
