"""The queue before an instance: groups, order, deadlines, bounds, and knobs that change them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.testkit.eventually import eventually

from .calls import TIMEOUT_S, Api, Refusal, read_refusal, refused
from .instance import Asked, ScriptedInstance, embedded, listening, prompt_of

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
LOW, NORMAL = common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_NORMAL
HIGH, CRITICAL = common_pb2.PRIORITY_HIGH, common_pb2.PRIORITY_CRITICAL
_names = itertools.count()


@dataclass
class Queue:
    """A queue before an instance that does one thing at a time and waits to be let."""

    api: Api
    name: str
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.instance = ScriptedInstance(self._script, self.name)

    async def _script(self, asked: Asked) -> AsyncIterator[inference_pb2.TaskResult]:
        if prompt_of(asked) == "first":
            await self.go_on.wait()
        yield embedded(float(len(prompt_of(asked))))

    async def compute(
        self,
        text: str,
        organisation: str = "tenant-000",
        timeout: float = TIMEOUT_S,
        **context: Any,
    ) -> pb.ComputeResponse | Refusal:
        """One text; the answer, or how it was refused."""
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        request = pb.ComputeRequest(instance_id=self.name, model=self.name, task=task)
        metadata = self.api.on_behalf(organisation, **context)
        try:
            return await self.api.batcher.Compute(request, metadata=metadata, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return read_refusal(error)

    async def occupy(self) -> asyncio.Task[Any]:
        """Keep the instance busy with `first` until `go_on`."""
        running = asyncio.create_task(self.compute("first"))
        await eventually(lambda: len(self.instance.asked) == 1)
        return running

    async def waiting(self, count: int) -> None:
        """Wait until so many rows wait."""

        async def depth() -> bool:
            row = await self.row()
            return sum(part.depth for part in row.classes) == count

        await eventually(depth)

    async def row(self) -> pb.Queue:
        answer = await self.api.batcher.ListQueues(pb.ListQueuesRequest(), metadata=self.api.token)
        return next(row for row in answer.queues if row.instance_id == self.name)

    async def configure(self, **knobs: Any) -> pb.Knobs:
        request = pb.ConfigureRequest(model=self.name, knobs=pb.Knobs(**knobs))
        return (await self.api.batcher.Configure(request, metadata=self.api.token)).knobs

    async def detach(self) -> int:
        """Take the instance away; gives how many members were returned."""
        request = pb.DetachInstanceRequest(instance_id=self.name)
        answer = await self.api.batcher.DetachInstance(request, metadata=self.api.token)
        return answer.returned

    def order(self) -> list[str]:
        """Texts in the order in which they reached the instance, without the first."""
        return [prompt_of(asked) for asked in self.instance.asked[1:]]


@pytest_asyncio.fixture(loop_scope="session")
async def queue(api: Api) -> AsyncIterator[Queue]:
    made = Queue(api, f"queue-{next(_names)}")
    async with listening(made.instance) as address:
        attach = pb.AttachInstanceRequest(instance_id=made.name, address=address, concurrency=1)
        row = (await api.batcher.AttachInstance(attach, metadata=api.token)).queue
        assert (row.instance_id, row.address, row.concurrency) == (made.name, address, 1)
        yield made
        made.go_on.set()
        await made.detach()


async def test_an_idle_instance_is_used_at_once(queue: Queue) -> None:
    answer = await queue.compute("alone")
    assert isinstance(answer, pb.ComputeResponse)
    assert answer.batch == common_pb2.BatchReceipt(batch_size=1, release_reason="instance_free")
    assert list(answer.result.embed.embeddings[0].values) == [5.0]
    assert not queue.instance.batches
    assert (await queue.row()).costs[queue.name].samples == 1


async def test_what_waits_is_grouped_when_the_instance_is_free(queue: Queue) -> None:
    await queue.configure(max_batch_ms=0)  # how long the first takes is the test's doing
    first = await queue.occupy()
    others = [asyncio.create_task(queue.compute(text)) for text in ("aa", "bbb", "cccc")]
    await queue.waiting(3)
    queue.go_on.set()
    answers = await asyncio.gather(first, *others)
    assert queue.instance.batches == [3]
    sizes = [answer.batch.batch_size for answer in answers]
    assert sizes == [1, 3, 3, 3]
    assert all(answer.batch.queued_ms > 0 for answer in answers[1:])
    values = [answer.result.embed.embeddings[0].values[0] for answer in answers]
    assert values == [5.0, 2.0, 3.0, 4.0]


async def test_whose_time_is_up_leaves_the_queue_and_the_others_stay(queue: Queue) -> None:
    first = await queue.occupy()
    hurried = asyncio.create_task(queue.compute("aa", timeout=0.3))
    patient = asyncio.create_task(queue.compute("bb"))
    told = await hurried
    assert isinstance(told, Refusal)
    assert told.code == "DEADLINE_EXCEEDED"
    await queue.waiting(1)
    queue.go_on.set()
    assert isinstance(await patient, pb.ComputeResponse)
    await first
    assert queue.order() == ["bb"]


async def test_the_more_urgent_goes_first_and_each_keeps_its_caller(queue: Queue) -> None:
    """One row a batch: the order of batches is the order of the queue."""
    await queue.configure(max_batch_size=1)
    first = await queue.occupy()
    classes = {"low": LOW, "normal": NORMAL, "high": HIGH, "critical": CRITICAL}
    waiting = []
    for number, (name, priority) in enumerate(classes.items()):
        waiting.append(asyncio.create_task(queue.compute(name, f"org-{name}", priority=priority)))
        await queue.waiting(number + 1)
    row = await queue.row()
    assert {part.priority: part.depth for part in row.classes} == dict.fromkeys(classes.values(), 1)
    assert all(part.oldest_age_ms >= 0 for part in row.classes)
    queue.go_on.set()
    await asyncio.gather(first, *waiting)
    assert queue.order() == ["critical", "high", "normal", "low"]
    payers = [asked.context.principal.organisation for asked in queue.instance.asked[1:]]
    assert payers == ["org-critical", "org-high", "org-normal", "org-low"]


async def test_within_a_tenant_the_earlier_deadline_goes_first(queue: Queue) -> None:
    await queue.configure(max_batch_size=1)
    first = await queue.occupy()
    waiting = []
    for number, left_ms in enumerate((19_000, 9_000, 14_000)):
        waiting.append(asyncio.create_task(queue.compute(str(left_ms), remaining_ms=left_ms)))
        await queue.waiting(number + 1)
    queue.go_on.set()
    await asyncio.gather(first, *waiting)
    assert queue.order() == ["9000", "14000", "19000"]


async def test_a_tenant_with_much_waits_for_one_with_little(queue: Queue) -> None:
    await queue.configure(max_batch_size=1)
    first = await queue.occupy()
    waiting = []
    for number in range(6):
        waiting.append(asyncio.create_task(queue.compute(f"much {number}", "much")))
        await queue.waiting(number + 1)
    waiting.append(asyncio.create_task(queue.compute("little 0", "little")))
    await queue.waiting(7)
    queue.go_on.set()
    await asyncio.gather(first, *waiting)
    assert queue.order().index("little 0") <= 2


async def test_a_full_queue_refuses_and_says_when_to_come_back(queue: Queue) -> None:
    await queue.configure(queue_policies=[pb.QueuePolicy(priority=LOW, max_queue_size=2)])
    first = await queue.occupy()
    waiting = []
    for number in range(2):
        waiting.append(asyncio.create_task(queue.compute(f"x {number}", priority=LOW)))
        await queue.waiting(number + 1)
    told = await queue.compute("one more", priority=LOW)
    assert isinstance(told, Refusal)
    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert told.retry_s is not None
    assert told.retry_s >= 0.05
    queue.go_on.set()
    answers = await asyncio.gather(first, *waiting)
    assert all(isinstance(answer, pb.ComputeResponse) for answer in answers)


async def test_a_classs_time_in_the_queue_may_be_bounded(queue: Queue) -> None:
    rule = pb.QueuePolicy(priority=NORMAL, default_timeout_microseconds=200_000)
    await queue.configure(queue_policies=[rule])
    first = await queue.occupy()
    waiting = asyncio.create_task(queue.compute("late"))
    await queue.waiting(1)
    await asyncio.wait([waiting], timeout=0.3)
    queue.go_on.set()
    told = await waiting
    assert isinstance(told, Refusal)
    assert told.code == "DEADLINE_EXCEEDED"
    await first
    assert "late" not in queue.order()


async def test_whoever_leaves_is_forgotten(queue: Queue) -> None:
    first = await queue.occupy()
    leaving = asyncio.create_task(queue.compute("leaving"))
    await queue.waiting(1)
    leaving.cancel()
    await queue.waiting(0)
    queue.go_on.set()
    await first
    assert queue.order() == []


async def test_a_detached_instance_returns_what_waits_as_retryable(queue: Queue) -> None:
    first = await queue.occupy()
    waiting = asyncio.create_task(queue.compute("waits"))
    await queue.waiting(1)
    detaching = asyncio.create_task(queue.detach())
    told = await waiting
    assert isinstance(told, Refusal)
    assert (told.code, told.reason) == ("UNAVAILABLE", "INSTANCE_LEAVING")
    queue.go_on.set()
    assert isinstance(await first, pb.ComputeResponse)
    assert await detaching == 1


async def test_an_instance_that_is_not_attached_is_told_as_such(api: Api) -> None:
    request = pb.ComputeRequest(instance_id="nobody")
    told = await refused(api.batcher.Compute(request, metadata=api.token))
    assert (told.code, told.reason) == ("UNAVAILABLE", "NOT_ATTACHED")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AttachInstanceRequest(address="h:1"), "instance_id"),
        (pb.AttachInstanceRequest(instance_id="x"), "address"),
    ],
)
async def test_a_bad_attachment_is_named(
    api: Api, request_: pb.AttachInstanceRequest, field: str
) -> None:
    told = await refused(api.batcher.AttachInstance(request_, metadata=api.token))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", field)


async def test_knobs_change_one_by_one_and_are_shown(queue: Queue) -> None:
    await queue.configure(max_batch_size=7)
    knobs = await queue.configure(max_queue_delay_microseconds=1_000)
    assert (knobs.max_batch_size, knobs.max_queue_delay_microseconds) == (7, 1_000)
    api = queue.api
    answer = await api.batcher.ListQueues(pb.ListQueuesRequest(), metadata=api.token)
    assert answer.knobs[queue.name] == knobs
    assert answer.knobs[""].max_batch_size == 32


async def test_a_knob_that_cannot_be_is_refused(queue: Queue) -> None:
    request = pb.ConfigureRequest(model=queue.name, knobs=pb.Knobs(max_batch_size=0))
    told = await refused(queue.api.batcher.Configure(request, metadata=queue.api.token))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", "knobs.max_batch_size")


async def test_a_batch_closes_when_it_is_full(queue: Queue) -> None:
    await queue.configure(max_batch_size=2, max_batch_ms=0)
    first = await queue.occupy()
    others = [asyncio.create_task(queue.compute(text)) for text in ("aa", "bb", "cc")]
    await queue.waiting(3)
    queue.go_on.set()
    answers = await asyncio.gather(first, *others)
    reasons = sorted(answer.batch.release_reason for answer in answers[1:])
    assert reasons == ["full", "full", "instance_free"]
